"""Classes of a program: what they extend, and the special methods that Python calls."""
