"""The catalogue of operations: what each is called, takes and gives. Reading it needs no PyTorch."""
