"""UM-Bridge 1.0: models of flat vectors."""
