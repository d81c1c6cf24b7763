"""What the values of a program are, and the graph that grows while it is read."""
