"""A Function step by step in float64: a point, the trace of its steps, and its one-sided behaviour."""
