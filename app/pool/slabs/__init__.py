"""The memory that the front shares with each worker for large bodies."""
