"""The pool by the front door: workers that die, hang and are left alone, and the queries that they hold."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import httpx

from tests.pool.conftest import QUARANTINE_S
from tests.pool.long_queries import asked, endless
from tests.pool.queries import SMALL, heavy, metric
from tests.processes import kill_who_computes, wait_until_gone, workers
from tests.server import CLIENT_LIMIT_S, Server
from tests.waiting import wait_for


def assert_answers(server: Server) -> None:
    """A small query, which no other keeps waiting: 20 s are much for it on any machine, and little beside `endless`."""
    reply = server.http.post("/v1/query", json={**SMALL, "timeout_s": 20})
    assert reply.status_code == 200, reply.text


def wait_until_idle(server: Server) -> None:
    wait_for(lambda: metric(server.http, 'pullback_workers{state="idle"}') == 2)


def kill_until(is_over: Callable[[], bool], server: Server) -> None:
    """Kill the worker that computes, again and again; a death in a query's first moments is not blamed on it."""
    while not is_over():
        kill_who_computes(workers(server.process.pid))


def test_no_query_is_lost_when_workers_are_killed_under_load(pair: Server) -> None:
    """Eight clients; a worker is killed whenever each of them has been answered since the last."""
    wait_until_idle(pair)
    stop = threading.Event()
    answered = [0] * 8
    statuses: set[int] = set()

    def client(number: int) -> None:
        with httpx.Client(base_url=pair.url, timeout=CLIENT_LIMIT_S) as http:
            while not stop.is_set():
                reply = http.post("/v1/query", json=SMALL)
                statuses.add(reply.status_code)
                assert reply.json()["vjp"]["input"]["shape"] == [3]
                answered[number] += 1

    def wait_until_each_is_answered(running: list[Future[None]], times: int) -> None:
        before = list(answered)
        wait_for(
            lambda: (
                any(future.done() for future in running)
                or all(now >= then + times for now, then in zip(answered, before, strict=True))
            )
        )

    def crashes() -> float:
        return metric(pair.http, 'pullback_worker_restarts_total{reason="crash"}')

    def kill_one() -> None:
        """Until it is a crash: a light one that the pool ends in that moment is none, and another is killed then."""
        counted = crashes()
        while crashes() == counted:
            wait_for(lambda: set(workers(pair.process.pid)) - killed)
            victim = min(set(workers(pair.process.pid)) - killed, default=0)
            if victim:
                killed.add(victim)
                with suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
                assert wait_until_gone([victim]) == []
                with suppress(AssertionError):
                    wait_for(lambda: crashes() > counted, 2.0)

    killed: set[int] = set()
    before = crashes()
    with ThreadPoolExecutor(8) as clients:
        running = [clients.submit(client, number) for number in range(8)]
        try:
            for _ in range(3):
                wait_until_each_is_answered(running, 2)
                kill_one()
            wait_until_each_is_answered(running, 10)
        finally:
            stop.set()
        for future in running:
            future.result()
    assert statuses == {200}
    assert before + 3 <= crashes() <= before + len(killed)


def test_both_workers_killed_at_once_lose_nothing_and_are_replaced(pair: Server) -> None:
    wait_until_idle(pair)
    old = set(workers(pair.process.pid))
    with ThreadPoolExecutor(8) as clients:
        running = [clients.submit(pair.http.post, "/v1/query", json=SMALL) for _ in range(40)]
        for pid in old:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: metric(pair.http, 'pullback_workers{state="starting"}') == 0)
        wait_for(lambda: len(set(workers(pair.process.pid)) - old) >= 2)
        assert [future.result().status_code for future in running] == [200] * 40


def test_a_query_that_hangs_is_stopped_at_its_deadline(pair: Server) -> None:
    wait_until_idle(pair)
    reply = pair.http.post("/v1/query", json=heavy(timeout_s=2))
    assert (reply.status_code, reply.json()["code"]) == (504, "deadline_exceeded")
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.elapsed.total_seconds() > 1.9  # and before its one call is through, which takes a minute
    assert_answers(pair)


def test_while_every_worker_computes(pair: Server) -> None:
    """Health is answered, small queries are, and what is too large for the light worker ends at its deadline in the queue."""
    wait_until_idle(pair)
    with asked(pair, [endless(), endless()]) as long:
        wait_for(lambda: metric(pair.http, 'pullback_workers{state="busy"}') == 2)
        for _ in range(21):
            assert pair.http.get("/health/ready").status_code == 200
        assert_answers(pair)
        large = {"operation": "exp", "inputs": {"input": [0.5] * 200_000}, "timeout_s": 0.1}
        assert pair.http.post("/v1/query", json=large).json()["code"] == "deadline_exceeded"
        assert all(raw.is_silent() for raw in long), "one of these waited for a long query"
    assert_answers(pair)


def test_a_long_query_does_not_hold_up_those_behind_it(pair: Server) -> None:
    wait_until_idle(pair)
    with ThreadPoolExecutor(8) as clients, asked(pair, [endless()]) as (long,):
        small = [clients.submit(pair.http.post, "/v1/query", json=SMALL) for _ in range(60)]
        assert {future.result().status_code for future in small} == {200}
        assert long.is_silent()


def test_a_client_that_leaves_frees_its_worker(pair: Server) -> None:
    wait_until_idle(pair)
    gone = metric(pair.http, 'pullback_worker_restarts_total{reason="gone"}')
    left = pair.log.read_text().count('"status":499')
    with asked(pair, [endless()]):
        wait_for(lambda: metric(pair.http, 'pullback_workers{state="busy"}') == 1)
    wait_for(lambda: metric(pair.http, 'pullback_worker_restarts_total{reason="gone"}') == gone + 1)
    wait_until_idle(pair)
    assert metric(pair.http, "pullback_queue_length") == 0
    assert metric(pair.http, "pullback_queue_bytes") == 0
    wait_for(lambda: pair.log.read_text().count('"status":499') > left)  # the line of an earlier one may have come late
    assert '"level":"error"' not in pair.log.read_text().split('"status":499')[-1]


def test_a_query_that_costs_two_workers_is_refused_for_a_while(pair: Server) -> None:
    wait_until_idle(pair)
    poison = endless(4990)
    with ThreadPoolExecutor(1) as clients:
        running = clients.submit(pair.http.post, "/v1/query", json=poison)
        kill_until(running.done, pair)
        reply = running.result()
    assert (reply.status_code, reply.json()["code"]) == (500, "worker_crashed")
    again = pair.http.post("/v1/query", json=poison)
    assert (again.status_code, again.json()["code"]) == (500, "worker_crashed")
    assert 0 < int(again.headers["retry-after"]) <= QUARANTINE_S
    assert_answers(pair)
    # After the quarantine it is tried again.
    time.sleep(int(again.headers["retry-after"]))
    with asked(pair, [poison]) as (later,):
        wait_for(lambda: metric(pair.http, 'pullback_workers{state="busy"}') == 1 or not later.is_silent())
        assert later.is_silent()


def test_a_list_is_answered_around_a_query_that_hangs(pair: Server) -> None:
    wait_until_idle(pair)
    reply = pair.http.post("/v1/queries", json=[SMALL, heavy(timeout_s=1), {"operation": "no_such"}, SMALL])
    assert reply.status_code == 200
    first, late, unknown, last = reply.json()
    assert first["vjp"] == last["vjp"]
    assert late["code"] == "deadline_exceeded"
    assert unknown["code"] == "unknown_operation"
    assert unknown["request_id"] == f"{reply.headers['x-request-id']}.2"
