"""The program language: from text to a graph of operations. An operation and a stored function become the same Function."""
