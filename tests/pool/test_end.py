"""The end of a server: drained by SIGTERM, at once by a second one, and by SIGKILL; no process is ever left behind."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from tests.pool.questions import SMALL, heavy
from tests.processes import family, wait_until_gone
from tests.server import serving


def test_sigterm_drains(tmp_path: Path) -> None:
    with serving(tmp_path / "log.txt", PULLBACK_WORKERS="2") as server, ThreadPoolExecutor(1) as clients:
        processes = family(server.process.pid)
        assert len(processes) == 4
        running = clients.submit(httpx.post, f"{server.url}/v1/query", json=heavy(1500), timeout=60)
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        refused = server.http.post("/v1/query", json=SMALL)
        assert (refused.status_code, refused.json()["code"]) == (503, "draining")
        assert int(refused.headers["retry-after"]) > 0
        assert httpx.get(f"{server.url}/health/ready").status_code == 503
        assert httpx.get(f"{server.url}/health/live").status_code == 200
        reply = running.result()
        assert reply.status_code == 200
        assert "outputs" in reply.json()
        assert server.process.wait(5) == 0
        assert wait_until_gone(processes, 1) == []


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with serving(tmp_path / "log.txt") as server, ThreadPoolExecutor(1) as clients:
        processes = family(server.process.pid)
        running = clients.submit(httpx.post, f"{server.url}/v1/query", json=heavy(), timeout=60)
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(2)
        assert wait_until_gone(processes, 1) == []
        assert isinstance(running.exception(), httpx.HTTPError) or running.result().status_code == 503


def test_sigkill_of_the_front_leaves_nothing(tmp_path: Path) -> None:
    with serving(tmp_path / "log.txt", PULLBACK_WORKERS="2") as server, ThreadPoolExecutor(1) as clients:
        processes = family(server.process.pid)
        running = clients.submit(httpx.post, f"{server.url}/v1/query", json=heavy(), timeout=60)
        time.sleep(0.3)
        server.process.kill()
        assert wait_until_gone(processes[1:], 2) == []
        assert isinstance(running.exception(), httpx.HTTPError)
