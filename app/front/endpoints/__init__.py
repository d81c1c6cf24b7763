"""What answers at an address."""
