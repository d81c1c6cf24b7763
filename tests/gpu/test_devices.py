"""Several workers on one device, one on each of several; a worker that is killed there, and one that loses its context."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from tests.gpu import DEVICE, GPUS, on_a_device, on_cuda_alone, on_several_gpus
from tests.pool.queries import SMALL, metric
from tests.processes import workers
from tests.server import Server, serving
from tests.waiting import wait_for

pytestmark = pytest.mark.gpu
WORKERS: Final = 3
# Run by every Python process of the service at its start: without the checks, a query can poison a context.
UNCHECKED: Final = """
import sys
if "app.pool.forkserver" in sys.orig_argv:
    from app.catalogue.kernels import guard
    guard.FACTS_ON_CUDA = ()
"""


def devices(server: Server, count: int) -> set[str]:
    """On which devices so many queries at once were computed; all must be answered."""
    queries = [{**SMALL, "inputs": {"input": [0.1 * n, 0.2, 0.3]}} for n in range(count)]
    with ThreadPoolExecutor(8) as clients:
        replies = list(clients.map(lambda query: server.http.post("/v1/query", json=query), queries))
    assert [reply.status_code for reply in replies] == [200] * count
    return {reply.json()["plan"]["device"] for reply in replies}


@on_a_device
def test_several_workers_on_one_device_serve_while_one_is_replaced(tmp_path: Path) -> None:
    hidden = {"CUDA_VISIBLE_DEVICES": "0"} if DEVICE == "cuda" else {}
    with serving(tmp_path / "log.txt", PULLBACK_DEVICE=DEVICE, PULLBACK_WORKERS=str(WORKERS), **hidden) as server:
        name = "cuda:0" if DEVICE == "cuda" else "cpu"
        assert server.http.get("/v1/limits").json()["workers"] == {name: WORKERS}
        wait_for(lambda: metric(server.http, 'pullback_workers{state="idle"}') == WORKERS)
        assert devices(server, 64) == {name}
        os.kill(workers(server.process.pid)[0], signal.SIGKILL)
        assert devices(server, 64) == {name}
        wait_for(lambda: metric(server.http, 'pullback_workers{state="idle"}') == WORKERS)


@on_several_gpus
def test_one_worker_on_each_of_several_gpus(tmp_path: Path) -> None:
    names = {f"cuda:{index}" for index in range(GPUS)}
    with serving(tmp_path / "log.txt", PULLBACK_DEVICE="cuda", PULLBACK_WORKERS="0") as server:
        assert server.http.get("/v1/limits").json()["workers"] == dict.fromkeys(names, 1)
        wait_for(lambda: metric(server.http, 'pullback_workers{state="idle"}') == GPUS)
        assert devices(server, 400) == names


@on_cuda_alone
def test_a_lost_context_costs_its_own_query_alone(tmp_path: Path) -> None:
    """The query that poisons it is asked twice, then refused; what waited with it is answered by the worker's replacement."""
    (tmp_path / "sitecustomize.py").write_text(UNCHECKED)
    settings = {"PULLBACK_DEVICE": "cuda", "PULLBACK_WORKERS": "2", "PYTHONPATH": str(tmp_path)}
    poison = {"program": "x[i] * 2", "inputs": {"x": [1.0, 2.0], "i": [1000000]}, "timeout_s": 250}
    with serving(tmp_path / "log.txt", PULLBACK_MAXIMUM_DEADLINE_S="250", **settings) as server:
        with ThreadPoolExecutor(9) as clients:
            others = [clients.submit(server.http.post, "/v1/query", json={**SMALL, "timeout_s": 250}) for _ in range(4)]
            lost = clients.submit(server.http.post, "/v1/query", json=poison)
            others += [clients.submit(server.http.post, "/v1/query", json={**SMALL, "timeout_s": 250}) for _ in range(4)]
        assert (lost.result().status_code, lost.result().json()["code"]) == (500, "worker_crashed")
        assert [other.result().status_code for other in others] == [200] * 8
        assert metric(server.http, 'pullback_worker_restarts_total{reason="crash"}') == 2
        assert "is lost." in server.log.read_text()
        wait_for(lambda: metric(server.http, 'pullback_workers{state="idle"}') == 2)
        assert server.http.post("/v1/query", json=SMALL).status_code == 200
