"""What the names of a program mean: operations, builtins, makers of tensors, methods."""
