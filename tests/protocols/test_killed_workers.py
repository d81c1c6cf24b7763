"""Workers are killed under eight clients of each protocol, and none of them notices."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tritonclient.http as tritonclient
import umbridge
from tesseract_core import Tesseract

from tests.processes import workers
from tests.server import Server

CLIENTS = 8
KILLS = 3
Ask = Callable[[float], float]


def open_inference(server: Server) -> Ask:
    client = tritonclient.InferenceServerClient(f"127.0.0.1:{server.port}")

    def ask(x: float) -> float:
        tensor = tritonclient.InferInput("input", [1], "FP64")
        tensor.set_data_from_numpy(np.array([x]))
        return float(client.infer("square", [tensor]).as_numpy("vjp.input")[0])

    return ask


def um_bridge(server: Server) -> Ask:
    model = umbridge.HTTPModel(server.url, "rosenbrock")
    # With b = 0 and x₁ alone: (1 - x)², so the gradient is 2x - 2.
    return lambda x: float(model.gradient(0, 0, [[x, 0.0]], [1.0], {"b": 0.0})[0]) + 2


def tesseract(server: Server) -> Ask:
    square = Tesseract.from_url(f"{server.url}/tesseract/square")

    def ask(x: float) -> float:
        inputs: dict[str, Any] = {"input": np.float64(x)}
        return float(square.vector_jacobian_product(inputs, ["input"], ["output"], {"output": np.float64(1.0)})["input"])

    return ask


@pytest.mark.parametrize("connect", [open_inference, um_bridge, tesseract], ids=["oip", "umbridge", "tesseract"])
def test_nobody_notices(speaking: Server, connect: Callable[[Server], Ask]) -> None:
    """The clients go on asking until the last worker was killed and answers have come after it."""
    answers: list[int] = [0] * CLIENTS
    broken: list[BaseException] = []
    begun = threading.Barrier(CLIENTS + 1)
    enough = threading.Event()

    def client(number: int) -> None:
        try:
            ask = connect(speaking)
            begun.wait(250)
            while not enough.is_set():
                x = float(number + CLIENTS * answers[number])
                assert ask(x) == 2 * x
                answers[number] += 1
        except BaseException as error:  # whatever a client sees is a failure
            broken.append(error)

    def each_is_answered_again() -> None:
        before, limit = list(answers), time.monotonic() + 250
        while not broken and any(now <= then for now, then in zip(answers, before, strict=True)):
            assert time.monotonic() < limit, f"clients wait for ever: {before} answers, then {answers}"
            time.sleep(0.01)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    begun.wait(250)
    try:
        for _ in range(KILLS):
            each_is_answered_again()
            os.kill(workers(speaking.process.pid)[0], signal.SIGKILL)
        each_is_answered_again()
    finally:
        enough.set()
        for thread in threads:
            thread.join(250)
    assert not broken, broken
