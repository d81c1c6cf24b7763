"""Pullback: a web service that answers gradient queries."""

__version__ = "0.1.0"
