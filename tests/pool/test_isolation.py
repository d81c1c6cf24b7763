"""One client cannot hurt another: what one asks costs no worker but where it must, and decides nothing for others."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.pool.conftest import QUARANTINE_S
from tests.pool.long_queries import asked, endless
from tests.pool.queries import SMALL, heavy, metric
from tests.pool.test_pool import assert_answers, kill_until, wait_until_idle
from tests.server import Server
from tests.waiting import wait_for

JSON = "application/json"


def restarts(server: Server) -> float:
    text = server.http.get("/metrics").text
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("pullback_worker_restarts_total"))


@pytest.mark.parametrize("length", [128, 5_000, 70_000, 1_000_000])
@pytest.mark.parametrize("field", ["function", "operation"])
def test_a_name_however_long_costs_no_worker(pair: Server, field: str, length: int) -> None:
    wait_until_idle(pair)
    before = restarts(pair)
    reply = pair.http.post("/v1/query", json={field: "a" * length, "inputs": {"x": 1.0}})
    assert (reply.status_code, reply.json()["code"]) == (404, f"unknown_{field}")
    assert len(reply.content) < 5_000
    assert restarts(pair) == before
    assert_answers(pair)


@pytest.mark.parametrize("header", ["accept", "content-type", "content-encoding"])
@pytest.mark.parametrize("letter", [b"a", b"\xff", b"\\", b'"'])
def test_a_header_however_long_costs_no_worker(pair: Server, header: str, letter: bytes) -> None:
    wait_until_idle(pair)
    before = restarts(pair)
    headers = [(b"content-type", JSON.encode()), (header.encode(), letter * 32_300)]
    reply = pair.http.post("/v1/query", content=b"{}", headers=headers)
    assert reply.status_code in (400, 406, 415, 431), reply.text
    assert restarts(pair) == before
    assert_answers(pair)


def test_a_quarantined_query_says_so_and_others_that_look_like_it_are_answered(pair: Server) -> None:
    wait_until_idle(pair)
    query = endless(4980)
    with ThreadPoolExecutor(1) as clients:
        running = clients.submit(pair.http.post, "/v1/query", json=query, headers={"Accept": "application/json;q=0.5"})
        kill_until(running.done, pair)
    crashed = running.result()
    assert (crashed.status_code, crashed.json()["code"]) == (500, "worker_crashed")
    assert "retry-after" not in crashed.headers
    again = pair.http.post("/v1/query", json=query, headers={"Accept": "application/json;q=0.5"})
    assert (again.status_code, again.json()["code"]) == (500, "worker_crashed")
    assert again.json()["detail"] != crashed.json()["detail"]
    assert "not tried" in again.json()["detail"]
    assert 0 < int(again.headers["retry-after"]) <= QUARANTINE_S
    # The same bytes under other headers are another query, which is tried.
    other = pair.http.post("/v1/query", json={**query, "timeout_s": 0.3})
    assert other.json()["code"] == "deadline_exceeded"
    assert_answers(pair)


def test_a_timeout_in_a_list_is_that_querys_alone(pair: Server) -> None:
    wait_until_idle(pair)
    brief = heavy(1500, timeout_s=0.05)
    reply = pair.http.post("/v1/queries", json=[{**brief, "timeout_s": 1e-6}, SMALL, brief, heavy(300), SMALL])
    assert reply.status_code == 200, reply.text
    late, small, later, computed, last = reply.json()
    assert late["code"] == later["code"] == "deadline_exceeded"
    assert small["vjp"] == last["vjp"]
    assert "outputs" in computed


def test_a_timeout_in_a_programs_text_is_no_timeout(pair: Server) -> None:
    wait_until_idle(pair)
    text = '# "timeout_s": 0.000001}\nx = x * 2 # {"timeout_s": 0.000001}\nreturn x.sum()'
    for size in (10, 20_000):
        inputs = {"x": [1.0] * size}
        for query in ({"program": text, "inputs": inputs}, {"inputs": inputs, "program": text}):
            reply = pair.http.post("/v1/query", json=query)
            assert reply.status_code == 200, reply.text
    assert_answers(pair)


def test_a_timeout_holds_while_the_query_waits(pair: Server) -> None:
    """Wherever it stands in the body, and however large that is."""
    wait_until_idle(pair)
    with asked(pair, [endless(), endless()]) as long:
        wait_for(lambda: metric(pair.http, 'pullback_workers{state="busy"}') == 2)
        padding = {"program": "return x", "inputs": {"x": [1.0] * 200_000}}
        for query in ({"timeout_s": 0.1, **padding}, {**padding, "timeout_s": 0.1}):
            reply = pair.http.post("/v1/query", json=query)
            assert (reply.status_code, reply.json()["given"]) == (504, "0.1 s")
        assert all(raw.is_silent() for raw in long)
    assert_answers(pair)
