"""Writes the OpenAPI document to standard output, as the repository keeps it: `python -m app.front.openapi`."""

from __future__ import annotations

import sys

from app import __version__
from app.front.openapi.document import text

sys.stdout.buffer.write(text(__version__))
