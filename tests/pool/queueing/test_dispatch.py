"""Dispatch, at the front door: small queries beside long ones, clients beside each other, and no query that starves."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest

from tests.pool.questions import SMALL, heavy, metric
from tests.pool.test_pool import wait_for
from tests.processes import workers
from tests.server import Server, serving

# Generous for a loaded machine; without turns these queries waited for as long as the long ones beside them ran.
SOON_S = 3.0


@contextmanager
def client_at(server: Server, address: str) -> Iterator[httpx.Client]:
    """A client with an address of its own on this machine."""
    limits = httpx.Limits(max_connections=None)
    with httpx.Client(
        base_url=server.url, transport=httpx.HTTPTransport(local_address=address, limits=limits), timeout=60
    ) as client:
        yield client


def seconds(client: httpx.Client, query: dict[str, Any]) -> float:
    start = time.monotonic()
    reply = client.post("/v1/query", json=query)
    assert reply.status_code == 200, reply.text
    return time.monotonic() - start


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with one worker, of 2 GB, and a short queue."""
    settings = {"PULLBACK_WORKERS": "1", "PULLBACK_QUEUE_LENGTH": "16", "PULLBACK_WORKER_MEMORY_BYTES": str(2 << 30)}
    with serving(tmp_path_factory.mktemp("single") / "log.txt", **settings) as running:
        yield running


def wait_until_free(server: Server, count: int) -> None:
    wait_for(lambda: metric(server.http, 'pullback_workers{state="idle"}') == count, 20)
    wait_for(lambda: metric(server.http, "pullback_queue_length") == 0, 20)


class Sizes:
    """Sizes of long queries, none asked twice: what was long before is known to be."""

    def __init__(self) -> None:
        self._next = 4000

    def take(self) -> int:
        self._next += 1
        return self._next


SIZES = Sizes()


def assert_small_ones_are_answered(server: Server, count: int, address: str, *, alike: bool) -> None:
    wait_until_free(server, count)
    size = SIZES.take()
    with ThreadPoolExecutor(12) as clients, client_at(server, address) as other:
        long = [
            clients.submit(server.http.post, "/v1/query", json=heavy(size if alike else SIZES.take(), timeout_s=4))
            for _ in range(12)
        ]
        wait_for(lambda: metric(server.http, 'pullback_workers{state="busy"}') == count)
        took_s = [seconds(other, SMALL) for _ in range(12)]
        assert max(took_s) < SOON_S, took_s
        assert {future.result().json()["code"] for future in long} == {"deadline_exceeded"}
    wait_until_free(server, count)
    assert seconds(server.http, SMALL) < SOON_S


@pytest.mark.parametrize("alike", [True, False], ids=["the same", "each another"])
@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.9"], ids=["of the same address", "of another address"])
def test_on_one_worker_small_queries_are_answered_beside_any_number_of_long_ones(
    single: Server, address: str, alike: bool
) -> None:
    assert_small_ones_are_answered(single, 1, address, alike=alike)


def test_on_two_workers_small_queries_are_answered_beside_any_number_of_long_ones(pair: Server) -> None:
    assert_small_ones_are_answered(pair, 2, "127.0.0.1", alike=False)


@pytest.mark.parametrize("count", [1, 2], ids=["one worker", "two workers"])
def test_long_queries_are_answered_beside_a_stream_of_small_ones(single: Server, pair: Server, count: int) -> None:
    server = single if count == 1 else pair
    wait_until_free(server, count)
    with ThreadPoolExecutor(10) as clients:
        long = [clients.submit(server.http.post, "/v1/query", json=heavy(900 + n)) for n in range(4)]
        end = time.monotonic() + 60

        def stream() -> int:
            asked = 0
            with client_at(server, "127.0.0.5") as http:
                while not all(future.done() for future in long) and time.monotonic() < end:
                    assert http.post("/v1/query", json=SMALL).status_code == 200
                    asked += 1
            return asked

        streams = [clients.submit(stream) for _ in range(6)]
        assert [future.result().status_code for future in long] == [200] * 4
        assert all(future.result() > 5 for future in streams)


def test_heavy_queries_give_back_the_last_worker_to_what_the_light_one_cannot_take(pair: Server) -> None:
    wait_until_free(pair, 2)
    large = {"operation": "exp", "inputs": {"input": [0.5] * 200_000}, "timeout_s": 30}
    given_back = metric(pair.http, 'pullback_worker_restarts_total{reason="share"}')
    with ThreadPoolExecutor(4) as clients:
        long = [clients.submit(pair.http.post, "/v1/query", json=heavy(SIZES.take(), timeout_s=10)) for _ in range(3)]
        time.sleep(2.5)
        with client_at(pair, "127.0.0.9") as other:
            assert max(seconds(other, large) for _ in range(5)) < 2 * SOON_S
        assert metric(pair.http, 'pullback_worker_restarts_total{reason="share"}') > given_back
        assert not any(future.done() for future in long)
        assert {future.result().status_code for future in long} == {504}
    assert seconds(pair.http, SMALL) < SOON_S


def test_where_the_queue_is_full_the_longest_line_gives_way(single: Server) -> None:
    """Whoever fills the queue is refused, not whoever comes then."""
    wait_until_free(single, 1)
    with ExitStack() as stack:
        clients = stack.enter_context(ThreadPoolExecutor(24))
        greedy, modest = (stack.enter_context(client_at(single, f"127.0.0.{n}")) for n in (7, 8))
        long = [clients.submit(greedy.post, "/v1/query", json=heavy(SIZES.take(), timeout_s=5)) for _ in range(24)]
        wait_for(lambda: sum(future.done() for future in long) >= 3)
        refusals = [future.result() for future in long if future.done()]
        assert {(reply.status_code, reply.json()["code"]) for reply in refusals} == {(429, "queue_full")}
        assert all(int(reply.headers["retry-after"]) >= 1 for reply in refusals)
        assert max(seconds(modest, SMALL) for _ in range(10)) < SOON_S
        assert {future.result().status_code for future in long} == {429, 504}
        assert seconds(greedy, SMALL) < SOON_S


def test_what_needs_more_memory_than_the_light_worker_has_is_computed_by_another(single: Server) -> None:
    """400 MB for a moment, from 80 bytes."""
    wait_until_free(single, 1)
    hungry = {"program": "return zeros(50000000).add(x).sum()", "inputs": {"x": 1.0}, "timeout_s": 30}
    with ThreadPoolExecutor(1) as clients:
        long = clients.submit(single.http.post, "/v1/query", json=heavy(SIZES.take(), timeout_s=2))
        wait_for(lambda: metric(single.http, 'pullback_workers{state="light"}') == 1)
        reply = single.http.post("/v1/query", json=hungry)
        assert reply.status_code == 200, reply.text
        assert reply.json()["outputs"]["output"]["data"] == 5e7
        assert long.result().status_code == 504


def test_the_light_worker_is_there_only_while_it_is_needed(single: Server) -> None:
    wait_until_free(single, 1)
    with ThreadPoolExecutor(1) as clients:
        long = clients.submit(single.http.post, "/v1/query", json=heavy(SIZES.take(), timeout_s=1))
        wait_for(lambda: metric(single.http, 'pullback_workers{state="light"}') == 1)
        assert len(workers(single.process.pid)) == 2
        assert long.result().status_code == 504
        wait_for(lambda: metric(single.http, 'pullback_workers{state="light"}') == 0, 30)
        wait_for(lambda: len(workers(single.process.pid)) == 1)
        assert seconds(single.http, SMALL) < SOON_S
