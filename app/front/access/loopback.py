"""Names of this very machine."""

from __future__ import annotations

import ipaddress
from functools import lru_cache


@lru_cache(maxsize=64)
def is_loopback_name(name: str | None) -> bool:
    """It can only mean this machine: whatever a name server says, `localhost` and what is under it do not leave it (RFC 6761)."""
    if not name:
        return False
    name = name.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
