"""`explain`: why a gradient is None, zero, NaN or one of several, and what to write instead."""
