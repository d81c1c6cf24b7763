"""Numbers as a browser sends them again."""

from __future__ import annotations

from typing import Any


def as_a_browser_sends(value: Any) -> Any:
    """JavaScript has one kind of number and writes 1.0 as 1."""
    if isinstance(value, dict):
        return {key: as_a_browser_sends(member) for key, member in value.items()}
    if isinstance(value, list):
        return [as_a_browser_sends(member) for member in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
