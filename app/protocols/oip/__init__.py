"""The Open Inference Protocol v2, which Triton and others speak."""
