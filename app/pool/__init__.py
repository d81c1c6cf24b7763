"""The pool: worker processes, the frames to them, and what becomes of a query when one dies. Imports no PyTorch but in its children."""
