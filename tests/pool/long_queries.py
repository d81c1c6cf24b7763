"""Queries that compute until their clients leave: what is answered while they are still silent did not wait for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import orjson

from tests.front.raw import Line, head, line
from tests.pool.queries import heavy
from tests.server import Server


def endless(size: int = 5000, **fields: Any) -> dict[str, Any]:
    """A query that no test waits for: it computes for a minute (ten on a slow machine), and its deadline is later than that of any test's."""
    return heavy(size, timeout_s=280, **fields)


@contextmanager
def asked(
    server: Server, queries: Iterable[dict[str, Any]], address: str = "127.0.0.1", **headers: str
) -> Iterator[list[Line]]:
    """A connection for each query, which has been sent there; at the end these clients leave."""
    with ExitStack() as stack:
        lines = []
        for query in queries:
            body = orjson.dumps(query)
            raw = stack.enter_context(line(server.port, address=address))
            raw.send(head(Content_Type="application/json", Content_Length=str(len(body)), **headers) + body)
            lines.append(raw)
        yield lines
