"""What the packages beside PyTorch mean in a program, and Python's own texts and copies."""
