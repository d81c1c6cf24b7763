"""Derivatives inside a program: parts of its graph as functions, differentiated and mapped."""
