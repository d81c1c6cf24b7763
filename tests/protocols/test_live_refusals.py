"""What befalls a whole service, as clients of each foreign protocol see it: a full queue, a query that crashes, the end; and keys in addresses."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import orjson
import pytest
import requests
import tritonclient.http as tritonclient
import umbridge
from tesseract_core import Tesseract
from tritonclient.http.auth import BasicAuth
from tritonclient.utils import InferenceServerException

from tests.front.raw import head, line
from tests.pool.long_queries import asked, endless
from tests.pool.queries import metric
from tests.processes import kill_who_computes, workers
from tests.protocols.conftest import KEY, SLOW
from tests.protocols.test_refusals import CALLS, assert_shape
from tests.server import CLIENT_LIMIT_S, Server, serving
from tests.waiting import wait_for

Ask = Callable[[], float]


def _prefix(credentials: str | None) -> str:
    return "" if credentials is None else f"{credentials}@"


def open_inference(address: str, credentials: str | None = None) -> Ask:
    client = tritonclient.InferenceServerClient(address)
    if credentials is not None:
        client.register_plugin(BasicAuth(*credentials.split(":")))
    tensor = tritonclient.InferInput("input", [1], "FP64")
    tensor.set_data_from_numpy(np.array([1.0]))
    return lambda: float(client.infer("square", [tensor]).as_numpy("vjp.input")[0])


def um_bridge(address: str, credentials: str | None = None) -> Ask:
    model = umbridge.HTTPModel(f"http://{_prefix(credentials)}{address}", "rosenbrock")
    return lambda: float(model.gradient(0, 0, [[2.0, 0.0]], [1.0], {"b": 0.0})[0])


def tesseract(address: str, credentials: str | None = None) -> Ask:
    square = Tesseract.from_url(f"http://{_prefix(credentials)}{address}/tesseract/square")
    inputs: dict[str, Any] = {"input": np.float64(1.0)}
    return lambda: float(square.vector_jacobian_product(inputs, ["input"], ["output"], {"output": np.float64(1.0)})["input"])


# Protocol → its client, which asks for a derivative that is 2, and what it raises where it is refused.
CLIENTS: Final[dict[str, tuple[Callable[..., Ask], type[Exception]]]] = {
    "oip": (open_inference, InferenceServerException),
    "umbridge": (um_bridge, Exception),  # it raises no other
    "tesseract": (tesseract, RuntimeError),
}


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with one worker, on which one query may wait."""
    folder = tmp_path_factory.mktemp("slow")
    (folder / "slow.py").write_text(SLOW)
    settings = {"PULLBACK_QUEUE_LENGTH": "1", "PULLBACK_FUNCTIONS_FOLDER": str(folder), "PULLBACK_DEFAULT_DEADLINE_S": "250"}
    with serving(tmp_path_factory.mktemp("short") / "log.txt", **settings) as running:
        yield running


@pytest.mark.parametrize("protocol", CLIENTS)
def test_a_full_queue(short: Server, protocol: str) -> None:
    connect, error = CLIENTS[protocol]
    ask = connect(f"127.0.0.1:{short.port}")
    assert ask() == 2.0
    path, body, _, _ = CALLS[protocol]
    # Too large for the light worker.
    long = orjson.dumps(endless())[:-1] + b" " * (300 << 10) + b"}"
    with ExitStack() as lines:
        for waiting in range(2):
            lines.enter_context(line(short.port)).send(head(Content_Length=str(len(long))) + long)
            wait_for(lambda: metric(short.http, 'pullback_workers{state="busy"}') == 1)
            wait_for(lambda count=waiting: metric(short.http, "pullback_queue_length") == count)  # type: ignore[misc]
        reply = short.http.post(path, json=body)
        assert reply.status_code == 429, reply.text
        assert int(reply.headers["retry-after"]) >= 1
        assert_shape(protocol, reply.json())
        with pytest.raises(error, match="queue is full"):
            ask()
    wait_for(lambda: metric(short.http, "pullback_queue_length") == 0 and short.http.post(path, json=body).status_code == 200)
    assert ask() == 2.0


@pytest.mark.parametrize("protocol", CLIENTS)
def test_a_query_that_crashes_is_refused_the_next_time(short: Server, protocol: str) -> None:
    connect, _ = CLIENTS[protocol]
    _, _, path, body = CALLS[protocol]
    with ThreadPoolExecutor(1) as clients:
        running = clients.submit(httpx.post, short.url + path, json=body, timeout=CLIENT_LIMIT_S)
        while not running.done():
            kill_who_computes(workers(short.process.pid))
    assert running.result().status_code == 500, running.result().text
    assert_shape(protocol, running.result().json())
    again = short.http.post(path, json=body)
    assert again.status_code == 500
    assert "not tried" in again.text
    assert int(again.headers["retry-after"]) >= 1
    assert_shape(protocol, again.json())
    assert connect(f"127.0.0.1:{short.port}")() == 2.0


def test_a_deadline_and_a_server_that_drains(tmp_path: Path) -> None:
    """Past the deadline that nobody named a query is refused; at the end what runs is answered, and what is asked then is refused."""
    (tmp_path / "slow.py").write_text(SLOW)
    settings = {"PULLBACK_DEFAULT_DEADLINE_S": "1", "PULLBACK_DRAIN_TIMEOUT_S": "250"}
    with serving(tmp_path / "log.txt", PULLBACK_FUNCTIONS_FOLDER=str(tmp_path), **settings) as server:
        for protocol, (_, _, path, body) in CALLS.items():
            reply = server.http.post(path, json=body)
            assert reply.status_code == 504, reply.text
            assert_shape(protocol, reply.json())
        with asked(server, [endless()]) as long:
            wait_for(lambda: metric(server.http, 'pullback_workers{state="busy"}') == 1)
            server.process.send_signal(signal.SIGTERM)
            wait_for(lambda: server.http.get("/health/ready").status_code == 503)
            for protocol, (path, body, _, _) in CALLS.items():
                reply = server.http.post(path, json=body)
                assert reply.status_code == 503, reply.text
                assert int(reply.headers["retry-after"]) >= 1
                assert_shape(protocol, reply.json())
            with pytest.raises(InferenceServerException, match="shutting down"):
                open_inference(f"127.0.0.1:{server.port}")()
            assert all(line.is_silent() for line in long)
        assert server.process.wait(CLIENT_LIMIT_S) == 0


@pytest.mark.parametrize("protocol", CLIENTS)
def test_a_key_as_the_password_of_an_address(guarded: Server, protocol: str) -> None:
    """As `http://user:key@host`, where the client knows that (Triton's has a plugin for it); UM-Bridge's breaks on any refusal."""
    connect, _ = CLIENTS[protocol]
    address = f"127.0.0.1:{guarded.port}"
    assert connect(address, f"anybody:{KEY}")() == 2.0
    for credentials in (None, "anybody:another"):
        with pytest.raises(Exception, match=r"(?i)key|unauthorized|401|protocolVersion"):
            connect(address, credentials)()
    assert requests.get(f"http://anybody:{KEY}@{address}/v1/operations", timeout=CLIENT_LIMIT_S).status_code == 200
    assert requests.get(f"http://anybody:another@{address}/v1/operations", timeout=CLIENT_LIMIT_S).status_code == 401
