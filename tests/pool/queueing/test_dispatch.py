"""Dispatch, at the front door: small queries beside long ones, clients beside each other, and no query that starves."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from app.errors import PullbackError
from app.machine.cgroups import OomKills
from app.pool.frames import Kind
from app.pool.job import Result
from app.pool.linux import can_raise_priority
from tests.pool.long_queries import asked, endless
from tests.pool.queries import SMALL, heavy, metric
from tests.pool.queueing.scripted_front import Front
from tests.processes import workers
from tests.server import CLIENT_LIMIT_S, Server, serving
from tests.waiting import wait_for

pytestmark = pytest.mark.serial

RESTARTS_BY_SHARE = 'pullback_worker_restarts_total{reason="share"}'


@contextmanager
def client_at(server: Server, address: str) -> Iterator[httpx.Client]:
    """A client with an address of its own on this machine."""
    transport = httpx.HTTPTransport(local_address=address, limits=httpx.Limits(max_connections=None))
    with httpx.Client(base_url=server.url, transport=transport, timeout=CLIENT_LIMIT_S) as client:
        yield client


def assert_answers(client: httpx.Client, count: int = 1) -> None:
    """Small queries, one after the other."""
    for _ in range(count):
        reply = client.post("/v1/query", json=SMALL)
        assert reply.status_code == 200, reply.text


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with one worker, of 2.5 GB, and a short queue."""
    settings = {"PULLBACK_WORKERS": "1", "PULLBACK_QUEUE_LENGTH": "16", "PULLBACK_WORKER_MEMORY_BYTES": str(5 << 29)}
    with serving(tmp_path_factory.mktemp("single") / "log.txt", **settings) as running:
        yield running


def wait_until_free(server: Server, count: int) -> None:
    wait_for(lambda: metric(server.http, 'pullback_workers{state="idle"}') == count)
    wait_for(lambda: metric(server.http, "pullback_queue_length") == 0)


class Sizes:
    """Sizes of long queries, none asked twice: what was long before is known to be."""

    def __init__(self) -> None:
        self._next = 5000

    def take(self) -> int:
        self._next += 1
        return self._next


SIZES = Sizes()


def assert_small_ones_are_answered(server: Server, count: int, address: str, *, alike: bool) -> None:
    wait_until_free(server, count)
    size = SIZES.take()
    queries = [endless(size if alike else SIZES.take()) for _ in range(12)]
    with asked(server, queries) as long, client_at(server, address) as other:
        wait_for(lambda: metric(server.http, 'pullback_workers{state="busy"}') == count)
        assert_answers(other, 12)
        assert all(raw.is_silent() for raw in long), "they waited until one of the long ones ended"
    wait_until_free(server, count)
    assert_answers(server.http)


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
    """Six clients ask for small ones before, while and until the long ones are computed."""
    server = single if count == 1 else pair
    wait_until_free(server, count)
    enough = threading.Event()
    begun = threading.Barrier(7)

    def stream() -> None:
        with client_at(server, "127.0.0.5") as http:
            assert_answers(http)
            begun.wait(CLIENT_LIMIT_S)
            while not enough.is_set():
                assert_answers(http)

    with ThreadPoolExecutor(10) as clients:
        streams = [clients.submit(stream) for _ in range(6)]
        try:
            begun.wait(CLIENT_LIMIT_S)
            long = [clients.submit(server.http.post, "/v1/query", json=heavy(700 + n, timeout_s=250)) for n in range(4)]
            assert [future.result().status_code for future in long] == [200] * 4
        finally:
            enough.set()
        for future in streams:
            future.result()


def test_heavy_queries_give_back_the_last_worker_to_what_the_light_one_cannot_take(pair: Server) -> None:
    wait_until_free(pair, 2)
    large = {"operation": "exp", "inputs": {"input": [0.5] * 200_000}, "timeout_s": 250}
    restarts = metric(pair.http, RESTARTS_BY_SHARE)
    with asked(pair, [endless(SIZES.take()) for _ in range(3)]) as long:
        wait_for(lambda: metric(pair.http, 'pullback_workers{state="busy"}') == 2)
        with client_at(pair, "127.0.0.9") as other:
            for _ in range(5):
                assert other.post("/v1/query", json=large).status_code == 200
        assert metric(pair.http, RESTARTS_BY_SHARE) > restarts
        assert all(raw.is_silent() for raw in long)
    wait_until_free(pair, 2)
    assert_answers(pair.http)


LARGE = {"operation": "exp", "inputs": {"input": [0.5] * 200_000}, "timeout_s": 250}


def test_a_single_worker_is_given_to_another_client_that_waits(single: Server) -> None:
    """For what the light one cannot take; without that it waits until the long ones have run into their deadlines."""
    wait_until_free(single, 1)
    with asked(single, [endless(SIZES.take()) for _ in range(4)]) as long:
        wait_for(lambda: metric(single.http, 'pullback_workers{state="busy"}') == 1)
        with client_at(single, "127.0.0.9") as other:
            for _ in range(2):
                assert other.post("/v1/query", json=LARGE).status_code == 200
        assert all(raw.is_silent() for raw in long)


def test_what_has_to_give_back_a_single_worker_is_answered_all_the_same(single: Server) -> None:
    """Longer ones are asked until one had to: what takes half a second here is answered at once on a quicker machine."""
    wait_until_free(single, 1)
    restarts = metric(single.http, RESTARTS_BY_SHARE)
    with ThreadPoolExecutor(1) as clients, client_at(single, "127.0.0.9") as other, client_at(single, "127.0.0.8") as patient:
        for size in range(1100, 3000, 300):
            long = clients.submit(patient.post, "/v1/query", json=heavy(size, timeout_s=280))
            while not long.done():
                assert other.post("/v1/query", json=LARGE).status_code == 200
            assert long.result().status_code == 200
            if metric(single.http, RESTARTS_BY_SHARE) > restarts:
                return
    pytest.fail("no query had to give back the worker")


def test_where_the_queue_is_full_the_longest_line_gives_way(single: Server) -> None:
    """Whoever fills the queue is refused, not whoever comes then."""
    wait_until_free(single, 1)
    with ExitStack() as stack:
        greedy = stack.enter_context(asked(single, [endless(SIZES.take()) for _ in range(24)], "127.0.0.7"))
        wait_for(lambda: sum(not raw.is_silent() for raw in greedy) >= 3)
        modest = stack.enter_context(client_at(single, "127.0.0.8"))
        assert_answers(modest, 10)
        refused = [raw for raw in greedy if not raw.is_silent()]
        assert len(refused) < len(greedy)
        for raw in refused:
            status, headers, problem = raw.reply()
            assert (status, problem["code"]) == (429, "queue_full")
            assert int(headers["retry-after"]) >= 1
    with client_at(single, "127.0.0.7") as client:
        assert_answers(client)


def test_queries_end_at_their_deadline_wherever_they_are(single: Server) -> None:
    """On a worker, on the light one, and in the queue."""
    wait_until_free(single, 1)
    with ThreadPoolExecutor(4) as clients:
        long = [clients.submit(single.http.post, "/v1/query", json=heavy(SIZES.take(), timeout_s=1)) for _ in range(4)]
        assert {(future.result().status_code, future.result().json()["code"]) for future in long} == {
            (504, "deadline_exceeded")
        }
    assert_answers(single.http)


def test_what_needs_more_memory_than_the_light_worker_has_is_computed_by_another(single: Server) -> None:
    """400 MB for a moment, from 80 bytes."""
    wait_until_free(single, 1)
    hungry = {"program": "return zeros(50000000).add(x).sum()", "inputs": {"x": 1.0}, "timeout_s": 250}
    with ThreadPoolExecutor(1) as clients:
        with asked(single, [endless(SIZES.take())]):
            wait_for(lambda: metric(single.http, 'pullback_workers{state="light"}') == 1)
            refused = clients.submit(single.http.post, "/v1/query", json=hungry)
            # The light one has no memory for it, so it waits for the other.
            wait_for(lambda: metric(single.http, "pullback_queue_length") == 1)
            assert not refused.done()
        reply = refused.result()
    assert reply.status_code == 200, reply.text
    assert reply.json()["outputs"]["output"]["data"] == 5e7


def test_the_light_worker_is_there_only_while_it_is_needed(single: Server) -> None:
    wait_until_free(single, 1)
    with asked(single, [endless(SIZES.take())]):
        wait_for(lambda: metric(single.http, 'pullback_workers{state="light"}') == 1)
        wait_for(lambda: metric(single.http, 'pullback_workers{state="standby"}') == 1)
        assert len(workers(single.process.pid)) == 3
    wait_for(lambda: metric(single.http, 'pullback_workers{state="light"}') == 0)
    wait_for(lambda: len(workers(single.process.pid)) == 1)
    assert_answers(single.http)


@pytest.mark.skipif(not can_raise_priority(), reason="a lowered priority cannot be raised again here")
def test_who_computes_for_long_has_a_lower_priority_until_it_is_through(pair: Server) -> None:
    wait_until_free(pair, 2)
    wait_for(lambda: len(workers(pair.process.pid)) == 2)  # those that stood by for light work have ended
    usual = os.getpriority(os.PRIO_PROCESS, pair.process.pid)
    pids = workers(pair.process.pid)

    def priorities() -> list[int]:
        return [os.getpriority(os.PRIO_PROCESS, pid) for pid in pids]

    assert set(priorities()) == {usual}
    with ThreadPoolExecutor(1) as clients:
        for size in (1400, 2000, 2800, 4000):  # longer, where one was through before anybody looked
            long = clients.submit(pair.http.post, "/v1/query", json=heavy(size, timeout_s=280))
            wait_for(lambda: sorted(priorities())[-1] > usual or long.done())  # noqa: B023
            other, highest = sorted(priorities())
            assert other == usual
            assert long.result().status_code == 200
            if highest > usual:
                break
        assert highest > usual
    assert set(priorities()) == {usual}


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_what_was_taken_back_is_given_once_more_and_only_when_it_was_dropped(large: bool) -> None:
    """Its worker answers the first one before it says that it has dropped the others."""
    query = Kind.PLACED_QUERY if large else Kind.QUERY

    async def scenario() -> None:
        front = Front()
        behind = [2] if large else [2, 3]
        for number in [1, *behind]:
            front.ask(number, large=large)
        assert list(front.worker.held) == [1, *behind]
        front.tick(0.05)
        assert len(front.dispatch) == len(behind), "they were not taken back"
        front.replied(1)
        for number in behind:
            front.dropped(number)
        assert sorted(front.worker.held) == behind
        for number in list(front.worker.held):
            front.replied(number)
        assert front.dispatch.idle == [front.worker]
        sent = await front.end()
        assert [number for kind, number in sent if kind is query] == [1, *behind, *behind]

    asyncio.run(scenario())


@pytest.mark.parametrize("reason", ["another waits", "it is too late"])
def test_what_was_taken_back_too_late_is_stopped_as_any_other(reason: str) -> None:
    """Its worker had begun it when it heard of that."""

    async def scenario() -> None:
        front = Front()
        front.ask(1)
        begun = front.ask(2, deadline_s=0.0 if reason == "it is too late" else 60.0)
        front.tick(0.05)
        front.replied(1)
        assert front.worker.head is begun
        assert begun.is_waiting
        if reason == "it is too late":
            front.pool._tick()
            assert begun.is_done
        else:
            front.ask(3, "b", large=True)
            front.tick(60.0)
            assert list(front.dispatch.heavy) == [begun]
        assert front.worker.state == "dead"
        assert len(front.dispatch) == (reason == "another waits") * 2
        await front.end()

    asyncio.run(scenario())


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_of_several_that_a_worker_may_have_begun_none_is_blamed_and_each_is_asked_alone(large: bool) -> None:
    async def scenario() -> None:
        front = Front()
        for number in (1, 2):
            front.ask(number, large=large)
        assert front.dispatch.isolate(front.worker, front.began + 0.5)
        front.dispatch.leave(front.worker)
        front.dispatch.take_from(front.worker, list(front.worker.held.values()), front.began + 0.5)
        front.dispatch.join(front.worker, front.began + 0.5)
        assert list(front.worker.held) == [1]
        await front.end()

    asyncio.run(scenario())


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_the_first_is_blamed_where_it_was_alone_or_ran_for_long(large: bool) -> None:
    async def scenario() -> None:
        front = Front()
        front.ask(1, large=large)
        assert not front.dispatch.isolate(front.worker, front.began + 0.5)
        front.ask(2, large=large)
        assert not front.dispatch.isolate(front.worker, front.began + 2.0)
        await front.end()

    asyncio.run(scenario())


@contextmanager
def process(command: str) -> Iterator[int]:
    """The pid of a shell that runs this."""
    with subprocess.Popen(["/bin/sh", "-c", command]) as running:
        try:
            yield running.pid
        finally:
            running.kill()


@pytest.mark.skipif(not can_raise_priority(), reason="a lowered priority cannot be raised again here")
def test_only_who_computes_has_a_lower_priority_and_not_who_is_kept_from_it() -> None:
    async def scenario() -> None:
        usual = os.getpriority(os.PRIO_PROCESS, 0)
        with process("exec sleep 600") as resting, process("while :; do :; done") as computing:
            front = Front(2)
            (other,) = front.others
            front.worker.forked(resting)
            other.forked(computing)
            assert {front.ask(1).number, front.ask(2).number} == set(front.worker.held) | set(other.held)
            front.tick(0.0)

            def is_lowered() -> bool:
                front.tick(0.3)
                return os.getpriority(os.PRIO_PROCESS, computing) > usual

            wait_for(is_lowered)
            assert os.getpriority(os.PRIO_PROCESS, resting) == usual
            await front.end()

    asyncio.run(scenario())


def test_who_is_kept_from_the_processor_is_not_taken_for_heavy() -> None:
    """Both hold their workers for as long, and another waits; the one that computes gives its worker back."""

    async def scenario() -> None:
        with process("exec sleep 600") as resting, process("while :; do :; done") as computing:
            front = Front(2)
            (other,) = front.others
            front.worker.forked(computing)
            other.forked(resting)
            front.ask(1)
            front.ask(2)
            front.ask(3, "b", large=True)
            front.tick(0.0)

            def one_is_stopped() -> bool:
                front.tick(5.0)
                return "dead" in (front.worker.state, other.state)

            wait_for(one_is_stopped)
            assert (front.worker.state, other.state) == ("dead", "ready")
            assert [job.is_heavy for job in other.held.values()] == [False]
            assert len(front.dispatch.heavy) == 1
            await front.end()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("client", "computes", "stops", "seconds", "is_stopped"),
    [
        ("b", True, 0, 1.0, True),
        ("a", True, 0, 1.0, False),
        ("b", True, 1, 0.9, False),
        ("b", True, 1, 3.0, True),
        ("b", True, 2, 3.0, False),
        ("b", False, 0, 1.0, False),
        ("b", False, 0, 11.0, True),
    ],
)
def test_heavy_queries_share_the_workers_that_they_may_hold(
    client: str, computes: bool, stops: int, seconds: float, is_stopped: bool
) -> None:
    """Of two workers one: who computes there for its time, which doubles with each stop, gives it to another client's."""

    async def scenario() -> None:
        with process("exec sleep 600") as resting:
            front = Front(2)
            if not computes:  # whose process is not known is taken to compute all the time
                for worker in (front.worker, *front.others):
                    worker.forked(resting)
            running, other = front.ask(1), front.ask(2, "c")
            waiting = front.ask(3, client, large=True)
            running.is_heavy, running.stops = True, stops
            front.dispatch.ordinary.remove(waiting)
            waiting.is_heavy = True
            front.dispatch.heavy.append(waiting)
            front.tick(0.0)
            front.tick(seconds)
            assert (not running.holders) == is_stopped
            assert running.stops == stops + is_stopped
            assert other.holders
            if is_stopped:
                assert list(front.dispatch.heavy)[-1] is running
            await front.end()

    asyncio.run(scenario())


@pytest.mark.parametrize("count", [1, 2], ids=["one worker", "two workers"])
@pytest.mark.parametrize(("takes_s", "timeout_s"), [(4.0, 17.0), (4.5, 17.0), (1.5, 17.0), (1.0, 4.0), (15.0, 60.0)])
def test_heavy_queries_that_would_all_be_answered_in_turn_still_are(takes_s: float, timeout_s: float, count: int) -> None:
    """Three clients' on one worker, the other of two being taken: who is stopped begins anew, and each ends in time all the same."""

    async def scenario() -> None:
        front = Front(count)
        if count == 2:
            front.ask(9, "z")
        jobs = [front.ask(number, client, large=True, deadline_s=timeout_s) for number, client in enumerate("abc", 1)]
        for job in jobs:
            job.is_heavy = True
            if job.is_waiting:
                front.dispatch.ordinary.remove(job)
                front.dispatch.heavy.append(job)
        worker = next(worker for worker in (front.worker, *front.others) if worker.head is jobs[0])
        steps, stops, number, runs_since = 0, 0, 1, 0
        while not all(job.is_done for job in jobs):
            steps += 1
            assert steps < timeout_s * 20, "they are stopped until it is too late"
            now = front.began + steps / 20
            if (steps - runs_since) / 20 >= takes_s:
                front.pool._close(jobs[number - 1])
                worker.done(number, now)
                front.dispatch.feed(worker, now)
            else:
                front.dispatch.tick(now)
            if worker.state == "dead":  # another process at its place
                stops += 1
                worker.state = "ready"
                front.dispatch.join(worker, now)
            if worker.head is not None and (worker.head.number != number or worker.head_since == now):
                number, runs_since = worker.head.number, steps
        assert stops > 0 or takes_s < 1.5
        await front.end()

    asyncio.run(scenario())


@pytest.mark.parametrize("exit_code", [-signal.SIGKILL, -signal.SIGSEGV])
@pytest.mark.parametrize(("begun", "is_blamed"), [(0, False), (1, False), (2, True)])
def test_what_a_dead_worker_had_not_begun_is_not_blamed_for_its_death(begun: int, is_blamed: bool, exit_code: int) -> None:
    """It has answered the first, and was given the second before it died, or when it was dead already."""

    async def scenario() -> None:
        front = Front()
        front.ask(1)
        front.replied(1)
        job = front.ask(2)
        if begun:
            front.begun(begun)
        front.died(exit_code, 1.0)
        assert (job.lost, job.tries, job.is_waiting) == (is_blamed, 1, True)
        await front.end()

    asyncio.run(scenario())


@pytest.mark.parametrize("exit_code", [-signal.SIGKILL, -signal.SIGSEGV])
def test_the_query_that_a_dead_worker_says_it_had_begun_is_blamed_and_not_the_first(exit_code: int) -> None:
    """It held back the answer to the first, or died before that was read."""

    async def scenario() -> None:
        front = Front()
        jobs = [front.ask(number) for number in (1, 2, 3)]
        assert list(front.worker.held) == [1, 2, 3]
        front.worker.head_since -= 5.0  # longer than several are computed together
        front.begun(2)
        front.died(exit_code, 1.0)
        assert [(job.lost, job.is_waiting) for job in jobs] == [(0, True), (1, True), (0, True)]
        await front.end()

    asyncio.run(scenario())


@pytest.mark.parametrize("exit_code", [-signal.SIGKILL, -signal.SIGSEGV])
@pytest.mark.parametrize(("is_large", "begun"), [(True, 1), (True, 2), (False, 1), (False, 2)])
def test_a_body_that_a_worker_was_taking_in_may_have_cost_its_memory(
    tmp_path: Path, is_large: bool, begun: int, exit_code: int
) -> None:
    """What finds no room in the slab is the worker's own memory before the query is begun; a small one costs nothing."""

    async def scenario() -> None:
        counts = tmp_path / "proc/vmstat"
        counts.parent.mkdir()
        counts.write_text("oom_kill 3")
        front = Front()
        front.pool._oom_kills = OomKills(tmp_path)
        front.ask(1)
        front.begun(1)
        front.replied(1)
        job = front.ask(2, size=(9 << 20) if is_large else 1)
        front.begun(begun)
        counts.write_text("oom_kill 4")
        front.died(exit_code, 1.0)
        assert job.is_done == (exit_code == -signal.SIGKILL and (is_large or begun == 2))
        assert job.lost == (not job.is_done and begun == 2)
        await front.end()

    asyncio.run(scenario())


@pytest.mark.parametrize(("lost", "tries", "code"), [(0, 5, "starting"), (1, 5, "starting"), (2, 2, "worker_crashed")])
def test_only_a_query_that_is_blamed_for_two_deaths_is_quarantined(lost: int, tries: int, code: str) -> None:
    """Of one that was there when six workers died nothing is known: it is refused for now, and tried when it comes again."""

    async def scenario() -> None:
        front = Front()
        job = front.ask(1)
        results: list[Result] = []
        job.on_end = results.append
        is_blamed = code == "worker_crashed"
        job.lost, job.tries = lost - is_blamed, tries
        front.begun(1 if is_blamed else 0)
        front.died(-signal.SIGSEGV, 1.0)
        (refusal,) = results
        assert isinstance(refusal, PullbackError)
        assert (refusal.code, refusal.retry_after_s is None) == (code, is_blamed)
        assert front.pool._quarantine.is_used == is_blamed
        await front.end()

    asyncio.run(scenario())
