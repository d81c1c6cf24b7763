"""Kinks: the derivatives that a function has around one, and what is a mixture of them."""
