"""What the machine has, and what each process may take of it."""
