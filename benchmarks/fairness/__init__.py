"""`python -m benchmarks fairness`: how long a small query waits beside the worst single clients that we can think of."""
