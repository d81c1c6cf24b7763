"""Calls of every operation: samples, reviewed examples, and what they show of its derivatives."""
