"""Wrong rules of single steps, which people use in the place of the right ones."""
