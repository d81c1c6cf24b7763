"""`python -m benchmarks soak`: good and hostile load for a while, workers killed at random, every answer compared with PyTorch's."""
