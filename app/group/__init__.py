"""Several fronts behind one port: their parent, what it says to them, and what all of them may read of one another."""
