"""Lines as people paste them, each with what PyTorch itself gives for them."""
