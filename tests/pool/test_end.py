"""The end of a server: drained by SIGTERM, at once by a second one, and by SIGKILL; no process is ever left behind."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import httpx
import orjson
import pytest

from tests.front.raw import head, line
from tests.pool.long_queries import asked, at_work, endless
from tests.pool.queries import SMALL, metric, wait_until_draining
from tests.processes import family, wait_until_gone
from tests.server import END_LIMIT_S, Server, serving, serving_as_people_do
from tests.waiting import wait_for

# Longer than what is computed below takes on any machine, so that an end comes from what was done and not from patience that ran out.
PATIENT: Final = {"PULLBACK_DRAIN_TIMEOUT_S": "280", "PULLBACK_BODY_TIMEOUT_S": "280"}
_TEXT: Final = orjson.dumps(SMALL)
QUERY: Final = head(Content_Length=str(len(_TEXT))) + _TEXT


def wait_until_busy(server: Server) -> None:
    wait_for(lambda: metric(server.http, 'pullback_workers{state="busy"}') == 1)


def test_sigterm_drains(tmp_path: Path) -> None:
    with (
        serving(tmp_path / "log.txt", PULLBACK_WORKERS="2", **PATIENT) as server,
        ThreadPoolExecutor(1) as clients,
        line(server.port) as used,
        line(server.port) as late,
    ):
        processes = family(server.process.pid)
        assert len(processes) == 4
        used.send(QUERY)
        assert used.reply()[0] == 200
        # A body that is still coming keeps the drain from its end for as long as the test has others refused.
        late.send(head(Content_Length=str(len(_TEXT)), Expect="100-continue"))
        assert late.response()[0] == 100
        (running,) = at_work(server, clients, 1, size=1000)
        server.process.send_signal(signal.SIGTERM)
        wait_until_draining(server)
        refused = server.http.post("/v1/query", json=SMALL)
        assert (refused.status_code, refused.json()["code"]) == (503, "draining")
        assert int(refused.headers["retry-after"]) > 0
        used.send(QUERY)
        assert used.reply()[0] == 503
        assert httpx.get(f"{server.url}/health/live").status_code == 200
        reply = running.result()
        assert reply.status_code == 200
        assert "outputs" in reply.json()
        late.send(_TEXT)
        assert late.response()[0] == 200
        assert server.process.wait(END_LIMIT_S) == 0
        assert wait_until_gone(processes) == []
        lines = [orjson.loads(text) for text in server.log.read_text().splitlines() if '"event":"request"' in text]
        codes = {(each["path"], each["status"]): each.get("code") for each in lines}
        assert codes["/v1/query", 503] == "draining"
        assert codes["/health/ready", 503] is None, "not ready is an answer"


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with serving_as_people_do(tmp_path / "log.txt", **PATIENT) as server, asked(server, [endless()]) as (running,):
        processes = family(server.process.pid)
        wait_until_busy(server)
        server.process.send_signal(signal.SIGTERM)
        wait_until_draining(server)
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(END_LIMIT_S)
        assert wait_until_gone(processes) == []
        assert running.is_closed() or running.reply()[0] == 503


@pytest.mark.parametrize("fronts", ["1", "2"])
def test_a_terminal_that_is_closed_drains_it(tmp_path: Path, fronts: str) -> None:
    """SIGHUP, which goes to all of its processes and may come twice."""
    with (
        serving_as_people_do(tmp_path / "log.txt", PULLBACK_WORKERS="2", PULLBACK_FRONTS=fronts, **PATIENT) as server,
        ThreadPoolExecutor(1) as clients,
    ):
        processes = family(server.process.pid)
        (running,) = at_work(server, clients, 1, size=1000)
        for process in processes:
            os.kill(process, signal.SIGHUP)
        wait_until_draining(server)
        server.process.send_signal(signal.SIGHUP)
        assert running.result().status_code == 200
        assert server.process.wait(END_LIMIT_S) == 0
        assert wait_until_gone(processes) == []


def test_sigkill_of_the_front_leaves_nothing(tmp_path: Path) -> None:
    with serving_as_people_do(tmp_path / "log.txt", PULLBACK_WORKERS="2") as server, asked(server, [endless()]) as (running,):
        processes = family(server.process.pid)
        wait_until_busy(server)
        server.process.kill()
        assert wait_until_gone(processes[1:]) == []
        assert running.is_closed()
