"""Queries that wait: turns, timeouts, the quarantine, and which query goes to which worker."""
