"""Queries that compute until their clients leave: what is answered while they are still silent did not wait for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import orjson

from tests.front.raw import Line, head, line
from tests.pool.queries import heavy, metric
from tests.server import CLIENT_LIMIT_S, Server
from tests.waiting import wait_for


def endless(size: int = 5000, **fields: Any) -> dict[str, Any]:
    """A query that no test waits for: it computes for a minute (ten on a slow machine), and its deadline is later than that of any test's."""
    return heavy(size, timeout_s=280, **fields)


def at_work(server: Server, clients: ThreadPoolExecutor, count: int, size: int = 1500) -> list[Future[httpx.Response]]:
    """As many queries as workers, each seen at work, that end by themselves: longer ones where these were through before anybody looked."""
    while True:
        query = heavy(size, timeout_s=280)
        running = [
            clients.submit(httpx.post, f"{server.url}/v1/query", json=query, timeout=CLIENT_LIMIT_S) for _ in range(count)
        ]
        wait_for(
            lambda: (
                metric(server.http, 'pullback_workers{state="busy"}') == count or any(future.done() for future in running)  # noqa: B023
            )
        )
        if not any(future.done() for future in running):
            return running
        assert [future.result().status_code for future in running] == [200] * count
        size = size * 5 // 4  # twice as long


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
