"""`python -m benchmarks.plans`: each operation of the catalogue on a few megabytes, what its plan says against what a fresh process takes.

The inputs of an operation's example are made longer along all axes alike, so that what fits together still does. Each query runs in a
process forked for it; what that takes is the growth of its own memory, without the pages of libraries.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import orjson
import torch

from app.catalogue.read import operations
from app.engine.engine import Engine
from app.errors import PullbackError
from app.limits import Limits
from app.program.functions import load as load_functions
from app.protocols.native import bodies
from app.query import Query, TensorData

KINDS = ("outputs", "vjp", "jvp")
BYTES = 4 << 20  # of the largest input: far above what Python makes beside it, and factorisations still take a second
SECONDS = 20
# What a library sets up at its first call, whatever the size (measured: MKL 2 to 4 MiB, and Python's own objects).
SET_UP = 8 << 20


@dataclass(frozen=True)
class Growth:
    """Bytes that the plan says and that the process took."""

    plan: int
    taken: int

    @property
    def ratio(self) -> float:
        return self.plan / max(1, self.taken)


def _longer(tensor: TensorData, factor: int) -> TensorData:
    array = np.frombuffer(tensor.data, dtype=tensor.dtype).reshape(tensor.shape)
    array = np.tile(array, [factor] * array.ndim)
    if array.ndim >= 2 and array.dtype.kind == "f":  # repeated rows make a matrix singular
        array = array + np.random.default_rng(0).normal(scale=0.1, size=array.shape).astype(array.dtype)
        if array.shape[-1] == array.shape[-2]:
            array = (array + array.swapaxes(-1, -2)) / 2 + array.shape[-1] * np.eye(array.shape[-1], dtype=array.dtype)
    return replace(tensor, shape=array.shape, data=memoryview(np.ascontiguousarray(array).tobytes()), bare=False)


def queries() -> Iterator[tuple[str, Query]]:
    """(name and kind, query) of all operations, as far as their examples can be made longer."""
    for name, operation in operations().items():
        example = {**operation.example, "want": ["outputs"], "seed": 0}
        for field in ("cotangent", "tangent", "expected"):
            example.pop(field, None)
        query = bodies.read(memoryview(orjson.dumps(example)), None, None, Limits())
        tensors = [t for value in query.inputs.values() for t in (value if isinstance(value, tuple) else (value,))]
        if any(t.dtype in ("bool", "complex64", "complex128", "bfloat16") for t in tensors):
            continue
        largest = max(tensors, key=lambda t: (len(t.shape), len(t.data)))
        if not largest.shape:
            continue
        factor = max(2, int((BYTES / max(1, len(largest.data))) ** (1 / len(largest.shape))))
        inputs = {
            key: tuple(_longer(t, factor) for t in value) if isinstance(value, tuple) else _longer(value, factor)
            for key, value in query.inputs.items()
        }
        for kind in KINDS:
            yield f"{name} {kind}", replace(query, inputs=inputs, want=(kind,))


def _memory(*names: str) -> int:
    with open("/proc/self/status") as status:
        return sum(int(line.split()[1]) * 1024 for line in status if line.partition(":")[0] in names)


def growth(engine: Engine, query: Query) -> Growth | str:
    """Of a child; or why there is none."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(SECONDS)
        before = _memory("RssAnon")
        try:
            plan = engine.answer(query).plan["peak_bytes"]
            taken = _memory("VmHWM") - _memory("RssFile", "RssShmem") - before
            os.write(write, json.dumps([plan, taken]).encode())
        except PullbackError as error:
            os.write(write, json.dumps(error.code).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said: Any = json.loads(pipe.read() or b'"no answer"')
    os.waitpid(child, 0)
    return said if isinstance(said, str) else Growth(*said)


def run(share: float = 1.0) -> None:
    """Prints each query whose plan is under 0.8 of what was taken, or more than five times it; `share` of the catalogue."""
    torch.set_num_threads(1)
    engine = Engine(Limits(), "cpu", load_functions(None))
    x = TensorData("float64", (100_000,), memoryview(bytearray(800_000)))
    for kind in (*KINDS, "jacobian"):  # what PyTorch imports at its first plan and derivative is a worker's, not a query's
        engine.answer(Query(program="tanh(x).sum()", inputs={"x": x}, want=(kind,)))
        engine.answer(Query(program="linalg.inv(x[:10_000].reshape(100, 100) + eye(100)).sum()", inputs={"x": x}, want=(kind,)))
    under, over, measured = 0, 0, 0
    for index, (name, query) in enumerate(queries()):
        if math.floor(index / len(KINDS) * share) == math.floor((index / len(KINDS) - 1) * share):
            continue
        result = growth(engine, query)
        if isinstance(result, str):
            continue
        measured += 1
        low, high = result.plan < 0.8 * (result.taken - SET_UP), result.ratio > 5 and result.plan > 8 * SET_UP
        under, over = under + low, over + high
        if low or high:
            sys.stdout.write(
                f"{name:<50} plan {result.plan / 2**20:8.1f} MiB, taken {result.taken / 2**20:8.1f} MiB: ×{result.ratio:.2f}\n"
            )
            sys.stdout.flush()
    sys.stdout.write(f"{measured} measured, {under} under 0.8 of what was taken, {over} over five times\n")


if __name__ == "__main__":
    run(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0)
