"""Faults of whole processes: killed, frozen, out of descriptors; each is noticed, mended, and the next query is answered."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.pool.long_queries import asked, at_work, endless
from tests.pool.queries import SMALL, metric
from tests.pool.test_pool import assert_answers, wait_until_idle
from tests.processes import children, family, forkserver, is_alive, wait_until_gone, workers
from tests.server import Server, serving_as_people_do
from tests.waiting import wait_for


def is_whole(server: Server) -> bool:
    """One forkserver, with two ready workers of its own, and perhaps those for light work."""
    front = server.process.pid
    light = sum(metric(server.http, f'pullback_workers{{state="{state}"}}') for state in ("light", "standby"))
    is_ready = metric(server.http, 'pullback_workers{state="idle"}') == 2
    return is_ready and len(children(front)) == 1 and len(workers(front)) == 2 + light


def test_when_the_forkserver_is_killed_its_workers_answer_on_and_all_of_it_comes_back(pair: Server) -> None:
    wait_until_idle(pair)
    front, parent = pair.process.pid, forkserver(pair.process.pid)
    replaced = metric(pair.http, 'pullback_worker_restarts_total{reason="forkserver"}')
    with ThreadPoolExecutor(1) as clients:
        (running,) = at_work(pair, clients, 1)
        os.kill(parent, signal.SIGKILL)
        for _ in range(20):
            assert_answers(pair)
        assert pair.http.get("/health/ready").status_code == 200
        assert running.result().status_code == 200
    wait_for(lambda: is_whole(pair))
    assert forkserver(front) != parent
    assert metric(pair.http, 'pullback_worker_restarts_total{reason="forkserver"}') == replaced + 2
    assert_answers(pair)


def test_workers_that_lost_their_forkserver_are_mourned_and_replaced_all_the_same(pair: Server) -> None:
    wait_for(lambda: is_whole(pair))
    front, orphans = pair.process.pid, workers(pair.process.pid)
    os.kill(forkserver(front), signal.SIGKILL)
    os.kill(orphans[0], signal.SIGKILL)
    assert_answers(pair)
    assert wait_until_gone([orphans[0]]) == []
    wait_for(lambda: is_whole(pair))
    # None is left as a zombie either.
    assert not [pid for pid in orphans if Path(f"/proc/{pid}").exists()]
    assert "a worker died" in pair.log.read_text()


def test_a_frozen_forkserver_is_noticed_and_replaced(pair: Server) -> None:
    wait_for(lambda: is_whole(pair))
    front, parent = pair.process.pid, forkserver(pair.process.pid)
    os.kill(parent, signal.SIGSTOP)
    os.kill(workers(front)[0], signal.SIGKILL)
    assert_answers(pair)
    wait_for(lambda: not is_alive(parent))
    wait_for(lambda: is_whole(pair))
    assert_answers(pair)


@pytest.mark.parametrize("amid", [False, True], ids=["idle", "amid a query"])
def test_what_a_frozen_worker_holds_is_answered_by_another(pair: Server, amid: bool) -> None:
    wait_for(lambda: is_whole(pair))
    frozen = metric(pair.http, 'pullback_worker_restarts_total{reason="frozen"}')
    old = workers(pair.process.pid)
    with ThreadPoolExecutor(4) as clients:
        if amid:
            running = at_work(pair, clients, 2, 1200)
        for pid in old:
            os.kill(pid, signal.SIGSTOP)
        if not amid:
            running = [clients.submit(pair.http.post, "/v1/query", json={**SMALL, "timeout_s": 250}) for _ in range(4)]
        assert [future.result().status_code for future in running] == [200] * len(running)
    assert metric(pair.http, 'pullback_worker_restarts_total{reason="frozen"}') >= frozen + 1
    if amid:
        assert wait_until_gone(old) == []
    for pid in old:
        if is_alive(pid):
            os.kill(pid, signal.SIGCONT)
    wait_for(lambda: is_whole(pair))
    assert_answers(pair)


@contextmanager
def no_descriptors_left(pid: int) -> Iterator[None]:
    """The process may open nothing more while this lasts."""
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    # The limit is on a descriptor's number, and a worker that dies leaves low ones free.
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("victim", ["workers", "forkserver"])
def test_what_could_not_be_started_without_descriptors_is_started_later(pair: Server, victim: str) -> None:
    wait_for(lambda: is_whole(pair))
    front = pair.process.pid
    old = workers(front) if victim == "workers" else [forkserver(front)]
    said = pair.log.read_text().count("cannot be started yet")
    with no_descriptors_left(front):
        for pid in old:
            os.kill(pid, signal.SIGKILL)
        assert wait_until_gone(old) == []
        wait_for(lambda: pair.log.read_text().count("cannot be started yet") > said)
        time.sleep(0.7)  # the next try comes after half a second, and is in vain too
    wait_for(lambda: is_whole(pair))
    assert_answers(pair)


def test_a_forkserver_without_descriptors_forks_again_when_it_has_some(pair: Server) -> None:
    wait_for(lambda: is_whole(pair), 60)
    parent, old = forkserver(pair.process.pid), workers(pair.process.pid)
    crashes = metric(pair.http, 'pullback_worker_restarts_total{reason="crash"}')
    with no_descriptors_left(parent):
        for pid in old:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: metric(pair.http, 'pullback_worker_restarts_total{reason="crash"}') >= crashes + len(old) + 1)
        assert is_alive(parent)
    wait_for(lambda: is_whole(pair), 60)
    assert forkserver(pair.process.pid) == parent
    assert pair.http.post("/v1/query", json=SMALL).status_code == 200


def test_the_front_takes_its_workers_with_it_even_when_they_have_lost_their_forkserver(tmp_path: Path) -> None:
    with serving_as_people_do(tmp_path / "log.txt", PULLBACK_WORKERS="2") as server, asked(server, [endless()]) as (running,):
        processes = family(server.process.pid)
        wait_for(lambda: metric(server.http, 'pullback_workers{state="busy"}') == 1)
        os.kill(forkserver(server.process.pid), signal.SIGKILL)
        assert_answers(server)
        server.process.kill()
        assert wait_until_gone(processes[1:]) == []
        assert running.is_closed()
