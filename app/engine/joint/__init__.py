"""Joint graphs: forward and backward of a computation that comes again, recorded once and run as one list of PyTorch's calls."""
