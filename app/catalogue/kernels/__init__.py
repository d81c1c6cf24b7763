"""PyTorch's own kernels that trust the values they are given, and the checks that now stand before them."""
