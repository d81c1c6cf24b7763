"""Derivatives by PyTorch: one forward that serves all that is wanted, products, matrices in their layouts, and their certificates."""
