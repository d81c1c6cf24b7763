"""Tesseract Core: arrays in trees, an address for each call."""
