"""Reads expressions and statements: each becomes a plain value or steps of the graph."""
