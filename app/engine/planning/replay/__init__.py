"""A Function that was built, run again for other shapes of the same ranks."""
