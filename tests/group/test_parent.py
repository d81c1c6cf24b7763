"""Several fronts by the front door: one port, counts and limits of the whole, deaths, and the end."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import httpx
import orjson
import pytest

from app.errors import EXIT_WORKERS
from app.pool import linux
from tests.front.raw import head, line
from tests.pool.long_queries import asked, at_work, endless
from tests.pool.queries import SMALL, metric, wait_until_draining
from tests.processes import children, kill_who_computes, wait_until_gone, workers
from tests.server import CLIENT_LIMIT_S, END_LIMIT_S, Server, clean_environment, free_port, serving_as_people_do
from tests.waiting import wait_for

TWO: Final = {"PULLBACK_FRONTS": "2", "PULLBACK_WORKERS": "2"}
IDLE: Final = 'pullback_workers{state="idle"}'
ANSWERED: Final = 'pullback_requests_total{code="200",kind="vjp"}'


def family(pid: int) -> list[int]:
    """A process and all that have come from it."""
    return [pid, *(each for child in children(pid) for each in family(child))]


def wait_until_all_idle(server: Server) -> None:
    """Both fronts are ready, each with its worker."""
    wait_for(lambda: metric(server.http, IDLE) == 2)


@pytest.fixture(scope="module")
def monitoring_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, monitoring_port: int) -> Iterator[Server]:
    """Two fronts with a worker each; each test leaves them able to answer, but the one that ends them."""
    limits = {"PULLBACK_DRAIN_TIMEOUT_S": "280", "PULLBACK_BODY_TIMEOUT_S": "280"}
    settings = {**TWO, **limits, "PULLBACK_METRICS_PORT": str(monitoring_port)}
    with serving_as_people_do(tmp_path_factory.mktemp("two") / "log.txt", **settings) as running:
        yield running


def front_of(reply: httpx.Response) -> str:
    """What tells one front's request ids from another's."""
    return reply.headers["x-request-id"].partition("-")[0]


class Clients:
    """Connections that stay open, on both fronts."""

    def __init__(self, server: Server, count: int) -> None:
        self._stack = ExitStack()
        self.all = [self._stack.enter_context(httpx.Client(base_url=server.url, timeout=CLIENT_LIMIT_S)) for _ in range(count)]
        self.fronts = [front_of(client.post("/v1/query", json=SMALL)) for client in self.all]

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def test_connections_are_shared_out_and_counts_are_those_of_all(two: Server, monitoring_port: int) -> None:
    wait_until_all_idle(two)
    before = metric(two.http, ANSWERED)
    with Clients(two, 6) as clients, httpx.Client(base_url=f"http://127.0.0.1:{monitoring_port}") as monitoring:
        # Whoever asked before may still be connected.
        counts = {front: clients.fronts.count(front) for front in clients.fronts}
        assert sorted(counts.values()) in ([2, 4], [3, 3])
        for client in clients.all:
            for _ in range(5):
                assert client.post("/v1/query", json=SMALL).status_code == 200
        for client in (*clients.all, monitoring):
            assert metric(client, ANSWERED) == before + 36
            assert metric(client, IDLE) == 2
        infer = {"inputs": [{"name": "input", "shape": [2], "datatype": "FP64", "data": [1.0, 2.0]}]}
        for client in clients.all:
            assert client.post("/v2/models/exp/infer", json=infer).status_code == 200
        for client in clients.all:
            (of_model,) = client.get("/v2/models/exp/stats").json()["model_stats"]
            assert of_model["inference_count"] == 6
        assert monitoring.post("/v1/query", json=SMALL).status_code == 404


def test_what_a_worker_of_one_front_has_learnt_those_of_the_other_rehearse(two: Server) -> None:
    wait_until_all_idle(two)
    pids = [pid for front in children(two.process.pid) for pid in workers(front)]
    assert len(pids) == 2

    def computed_s() -> list[float]:
        return [linux.computed_s(pid) or 0.0 for pid in pids]

    def shape(count: int) -> bytes:
        return orjson.dumps({"program": "return (x.sin() * x).sum()", "inputs": {"x": [0.1] * count}, "want": ["hessian"]})

    with Clients(two, 1) as clients:
        before, counts = computed_s(), itertools.count(2)

        def have_both_computed() -> bool:
            """One of the two is asked; a worker that rests computes for microseconds now and then."""
            assert clients.all[0].post("/v1/query", content=shape(next(counts))).status_code == 200
            return min(after - start for after, start in zip(computed_s(), before, strict=True)) > 0.01

        wait_for(have_both_computed)


def test_limits_are_those_of_all(two: Server) -> None:
    limits = two.http.get("/v1/limits").json()
    assert (limits["fronts"], limits["workers"], limits["queue_length"]) == (2, {"cpu": 2}, 1024)


def test_what_has_cost_two_workers_of_one_front_is_refused_by_the_other(two: Server) -> None:
    wait_until_all_idle(two)
    poison = endless(4999)
    fronts = children(two.process.pid)
    with asked(two, [poison]) as (running,):
        wait_for(lambda: metric(two.http, 'pullback_workers{state="busy"}') == 1)
        while running.is_silent():
            kill_who_computes([worker for front in fronts for worker in workers(front)])
        assert running.reply()[0] == 500
    with asked(two, [poison] * 4) as again:
        replies = [each.reply() for each in again]
    assert len({headers["x-request-id"].partition("-")[0] for _, headers, _ in replies}) == 2
    for status, _, body in replies:
        assert (status, body["code"]) == (500, "worker_crashed")
        assert "not tried now" in body["detail"]


def test_a_front_that_is_killed_under_load_loses_its_own_connections_alone(two: Server) -> None:
    wait_until_all_idle(two)
    old = children(two.process.pid)
    stop = threading.Event()
    with Clients(two, 8) as clients, ThreadPoolExecutor(8) as threads:
        assert len(set(clients.fronts)) == 2
        expected = clients.all[0].post("/v1/query", json=SMALL).json()["vjp"]
        counts = [0] * 8
        broken = [0] * 8

        def ask(number: int) -> None:
            while not stop.is_set():
                try:
                    reply = clients.all[number].post("/v1/query", json=SMALL)
                except httpx.TransportError:
                    # The client connects again by itself, and whoever does is answered.
                    broken[number] += 1
                    continue
                assert reply.status_code == 200, reply.text
                assert reply.json()["vjp"] == expected
                counts[number] += 1
                time.sleep(
                    0.005
                )  # eight of them ask a thousand times a second, and leave a core to the front that is started again

        def wait_until_each_is_answered() -> None:
            seen = list(counts)
            wait_for(lambda: all(now > then for now, then in zip(counts, seen, strict=True)))

        running = [threads.submit(ask, number) for number in range(8)]
        try:
            wait_until_each_is_answered()
            counted = metric(two.http, ANSWERED)
            os.kill(old[0], signal.SIGKILL)
            wait_for(lambda: old[0] not in children(two.process.pid))
            wait_until_each_is_answered()
            assert metric(two.http, ANSWERED) >= counted
        finally:
            stop.set()
        for future in running:
            future.result()
        # Once at most, as a client may find in time that the server has hung up.
        assert max(broken) <= 1
        assert len({front for front, times in zip(clients.fronts, broken, strict=True) if times}) <= 1
    wait_for(lambda: len(children(two.process.pid)) == 2)
    wait_until_all_idle(two)
    assert '"event":"a front died and is started again"' in two.log.read_text()
    with Clients(two, 4) as clients:
        assert len(set(clients.fronts)) == 2


def test_sigterm_drains_all_of_them(two: Server) -> None:
    """One query is computed then, and of another the body is still coming, for as long as the test has others refused.

    The last test that asks `two`, so that it may end it.
    """
    server = two
    with ThreadPoolExecutor(1) as threads, line(server.port) as late:
        wait_until_all_idle(server)
        wait_for(lambda: len(family(server.process.pid)) == 7)  # without those that stood by for light work
        processes = family(server.process.pid)
        (running,) = at_work(server, threads, 1)
        late.send(head(Content_Type="application/json", Transfer_Encoding="chunked", Expect="100-continue"))
        assert late.response()[0] == 100
        with Clients(server, 4) as clients:
            assert len(set(clients.fronts)) == 2
            # To the group, as a terminal does it: the fronts leave it to their parent.
            for process in processes:
                os.kill(process, signal.SIGTERM)
            wait_until_draining(server)
            reply = running.result()
            assert reply.status_code == 200, reply.text
            # The front that has nothing to do stays, and says what it has to say, until the other is through.
            for client in clients.all:
                refused = client.post("/v1/query", json=SMALL)
                assert (refused.status_code, refused.json()["code"]) == (503, "draining")
        body = orjson.dumps(SMALL)
        late.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        assert late.response()[0] == 200
        assert server.process.wait(END_LIMIT_S) == 0
        assert wait_until_gone(processes) == []
    text = server.log.read_text()
    assert text.count("Pullback answers on") == 1
    assert all(re.match(r'\{"ts":.*\}$', each) for each in text.splitlines() if not each.startswith("Pullback answers on"))


def starting(**settings: str) -> subprocess.Popen[bytes]:
    command = [str(Path(sys.executable).parent / "pullback"), "serve"]
    return subprocess.Popen(
        command,
        env=clean_environment(PULLBACK_PORT=str(free_port()), **TWO, **settings),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def test_sigkill_of_the_parent_leaves_nothing() -> None:
    with starting() as process:
        wait_for(lambda: len(family(process.pid)) >= 5)
        processes = family(process.pid)
        process.kill()
        assert wait_until_gone(processes[1:]) == []


def test_two_signals_end_it_while_it_starts() -> None:
    with starting() as process:
        wait_for(lambda: len(family(process.pid)) >= 5)
        processes = family(process.pid)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        assert process.wait(END_LIMIT_S) == 0
        assert wait_until_gone(processes) == []


def test_what_cannot_heal_ends_all_of_them_with_one_word_and_its_status(tmp_path: Path) -> None:
    killed = "import os, sys\nif 'app.pool.forkserver' in ' '.join(sys.orig_argv):\n    os.kill(os.getpid(), 9)\n"
    (tmp_path / "sitecustomize.py").write_text(killed)
    with starting(PYTHONPATH=str(tmp_path)) as process:
        _, said = process.communicate(timeout=END_LIMIT_S)
    assert process.returncode == EXIT_WORKERS
    assert said.decode().count("died 3 times in a row") == 1
    assert b"Traceback" not in said
