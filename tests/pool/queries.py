"""Queries for the tests of the pool: a small one, and ones that compute for about as long as wished."""

from __future__ import annotations

import re
from typing import Any

import httpx

from tests.server import CLIENT_LIMIT_S, Server
from tests.waiting import wait_for

SMALL = {"operation": "softmax", "inputs": {"input": [0.1, 0.2, 0.3]}, "parameters": {"dim": 0}, "want": ["vjp"]}


def heavy(size: int = 5000, **fields: Any) -> dict[str, Any]:
    """A query whose one native call takes about size³ / 2e9 seconds: a minute for 5000, which nothing but SIGKILL stops."""
    text = f"a = sin(arange({size * size}) * x).reshape({size}, {size})\nreturn linalg.eigvals(a).real.sum()"
    return {"program": text, "inputs": {"x": 1.0}, **fields}


def wait_until_draining(server: Server) -> None:
    """It accepts no more queries."""
    wait_for(lambda: httpx.get(f"{server.url}/health/ready", timeout=CLIENT_LIMIT_S).status_code == 503)


def metric(http: httpx.Client, name: str) -> float:
    """The value of one line of /metrics, 0 where it is not there (yet)."""
    line = re.search(rf"^{re.escape(name)} (\S+)$", http.get("/metrics").text, re.MULTILINE)
    return float(line[1]) if line else 0.0
