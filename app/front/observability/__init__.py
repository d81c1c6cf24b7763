"""The log, the metrics, and who writes both."""
