"""Differences of the whole Function and of single steps, beside the derivative that PyTorch gives."""
