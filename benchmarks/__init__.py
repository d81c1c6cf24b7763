"""Measurements of the service, each as a ratio against the same work done elsewhere in the same run."""
