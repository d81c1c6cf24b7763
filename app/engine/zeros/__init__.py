"""Zeros in results that are none: where one may be that, and what the true number is."""
