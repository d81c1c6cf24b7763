"""Regenerates the catalogue from PyTorch: `python -m app.catalogue.introspect`.

Knows PyTorch's public names, schemas, docstrings, formulas and samples; works at build time only. Refuses to be imported by
anything that serves a query.
"""
