"""Protocols: bytes → Query, Answer → bytes, without I/O; what all of them share, and a room for each."""
