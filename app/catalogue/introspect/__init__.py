"""Regenerates the catalogue from PyTorch: `python -m app.catalogue.introspect`."""
