"""`python -m app.catalogue.introspect` writes the catalogue anew."""

from __future__ import annotations

from app.catalogue.introspect.make import catalogue, text
from app.catalogue.read import FILE


def main() -> None:
    """Writes `operations.json`; a difference to the file of before is to be reviewed like code."""
    FILE.write_bytes(text(catalogue()))


if __name__ == "__main__":
    main()
