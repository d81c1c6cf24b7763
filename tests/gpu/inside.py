"""`python -m tests.gpu.inside NAME DEVICE`: one look into a process that computes on a device, as a worker does.

A process of its own for each, since what a device settles is the process's.
"""

from __future__ import annotations

import sys
import warnings
from array import array
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np
import orjson
import torch

from app.catalogue.kernels import guard
from app.engine.cuda.cuda_recipe import CudaRecipe
from app.engine.cuda.graphs import Computation, Recorder, Replay
from app.engine.engine import Engine
from app.engine.recipes import recipe as prepared_recipe
from app.engine.tensors import from_torch, to_torch
from app.errors import LostDeviceError
from app.limits import Limits
from app.program.functions import load
from app.protocols.native import bodies
from app.query import TensorData
from app.road import Request, Road

LARGE: Final = Limits(body_bytes=1 << 40, result_bytes=1 << 40, memory_bytes=1 << 44)
MLP: Final = "h = relu(x @ w)\nreturn (softmax(h @ v, 1) ** 2).sum()"


def request(query: dict[str, Any]) -> Request:
    return Request("query", "x", "application/json", None, None, memoryview(orjson.dumps(query)))


def status(road: Road, query: dict[str, Any]) -> int:
    return road.answer(request(query), lambda _: None).status


def recipe(
    device: str, text: str, record: Callable[[Computation], Replay | None], **inputs: Any
) -> tuple[CudaRecipe, list[Any]]:
    """The recipe of a program's outputs and gradient, and its numbers."""
    query = bodies.read(
        memoryview(orjson.dumps({"program": text, "inputs": inputs, "want": ["outputs", "vjp"]})), None, None, Limits()
    )
    engine = Engine(LARGE, device, load(None))
    engine.answer(query)
    staged = prepared_recipe(query, engine.prepared(query), None, partial(CudaRecipe, device=device, record=record))
    assert isinstance(staged, CudaRecipe)
    formats = {"float64": "d", "int64": "q"}
    sent = [array(formats[data.dtype], bytes(data.data)) for data in query.inputs.values() if not isinstance(data, tuple)]
    return staged, sent


def numbers(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).tolist()


def graphs(device: str) -> None:
    """What repeats is recorded, and its replays give the bits of runs that are launched one by one."""
    Road(Limits(), device).warm()
    recorder = Recorder(device)
    recordings: list[Replay | None] = []

    def record(compute: Computation) -> Replay | None:
        recordings.append(recorder.record(compute))
        return recordings[-1]

    inputs = {"x": numbers(0, 4, 6), "w": numbers(1, 6, 5), "v": numbers(2, 5, 3)}
    staged, sent = recipe(device, MLP, record, **inputs)
    eager, _ = recipe(device, MLP, lambda compute: None, **inputs)
    queries = [[array("d", [n * (1 + 0.01 * run) for n in values]) for values in sent] for run in range(40)]
    expected = [[value.tobytes() for value in eager.run(query) or ()] for query in queries]
    assert [[value.tobytes() for value in staged.run(query) or ()] for query in queries] == expected
    assert [[value.tobytes() for value in results or ()] for results in staged.run_together(queries) or ()] == expected
    assert len(recordings) == 1
    assert recordings[0] is not None
    assert not recorder.is_spoiled


def waiting(device: str) -> None:
    """What asks for a number of the GPU, as each check of values does, is not recorded; and its check holds for ever."""
    Road(Limits(), device).warm()
    recorder = Recorder(device)
    staged, sent = recipe(device, "x[i]", recorder.record, x=[1.0, 2.0, 3.0], i=[0, 2])
    for _ in range(40):
        assert staged.run(sent) is not None
    assert not recorder.is_spoiled
    try:
        staged.run([sent[0], array("q", [0, 3])])
    except RuntimeError:
        torch.cuda.synchronize(device)
    else:
        raise AssertionError("an index out of range was not refused")


def memory(device: str) -> None:
    """What the allocator counts at the peak is within what the plan said, besides cuBLAS's workspace."""
    road = Road(LARGE, device)
    road.warm()
    cases: tuple[dict[str, Any], ...] = (
        {"program": "tanh(x * arange(4000000.0)).sum()", "want": ["gradient"]},
        {"program": "a = sin(arange(1000000.0) * x).reshape(1000, 1000)\nreturn (a @ a).sum()", "want": ["gradient"]},
        {"program": "softmax(x * arange(512.0), 0)", "want": ["jacobian"]},
        {"program": "logsumexp(x * rand(2000, 500), 1).sum()", "want": ["gradient"], "seed": 0},
    )
    for case in cases:
        query = {**case, "inputs": {"x": 0.5}}
        status(road, query)
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        reply = road.answer(request(query), lambda _: None)
        peak = torch.cuda.max_memory_allocated(device) - before
        planned = orjson.loads(b"".join(reply.buffers))["plan"]["peak_bytes"]
        assert peak <= planned + (16 << 20), (query, peak, planned)


def exhausted(device: str) -> None:
    """What is beyond the process's share is refused as out of memory; the context lives, and the next query is answered."""
    road = Road(LARGE, device)
    road.warm()
    torch.cuda.set_per_process_memory_fraction((512 << 20) / torch.cuda.get_device_properties(device).total_memory, device)
    large = {"program": "tanh(x * arange(200000000.0)).sum()", "inputs": {"x": 0.5}, "want": ["gradient"]}
    small = {"operation": "exp", "inputs": {"input": [0.5]}, "want": ["vjp"]}
    for _ in range(3):
        assert status(road, large) == 507
        assert status(road, small) == 200


def lost(device: str) -> None:
    """Without the checks a kernel's assertion poisons the context: no answer comes, and the process is to end."""
    guard.FACTS_ON_CUDA = ()  # type: ignore[misc]
    road = Road(Limits(), device)
    road.warm()
    try:
        status(road, {"program": "x[i] * 2", "inputs": {"x": [1.0, 2.0], "i": [1000000]}})
    except LostDeviceError:
        return
    raise AssertionError("an answer came from a device that is lost")


def pinned(device: str) -> None:
    """What goes in by a stream of its own, and comes out through pinned memory, is what was sent, while the device is busy."""
    host = torch.arange(1_000_000, dtype=torch.float64)
    data = TensorData("float64", (1_000_000,), host.numpy().data.cast("B"))
    busy = torch.rand(2000, 2000, device=device)
    for _ in range(20):
        busy = busy @ busy / 1000
    moved = to_torch(data, device)
    assert moved.device == torch.device(device)
    assert torch.equal(moved.cpu(), host)
    back = from_torch(moved * 2)
    assert torch.equal(torch.frombuffer(back.data, dtype=torch.float64), host * 2)


LOOKS: Final = {look.__name__: look for look in (graphs, waiting, memory, exhausted, lost, pinned)}

if __name__ == "__main__":
    warnings.simplefilter("ignore")  # as in a worker
    LOOKS[sys.argv[1]](sys.argv[2])
