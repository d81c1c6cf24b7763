"""`check`: PyTorch's derivative, finite differences and the client's own, compared."""
