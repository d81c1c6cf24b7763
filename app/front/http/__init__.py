"""Connections, bodies and exchanges: HTTP/1.1 as bytes."""
