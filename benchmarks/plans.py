"""`python -m benchmarks plans`: each operation of the catalogue at tens of megabytes, what its plan says against what a fresh process takes.

The inputs of an operation's example are made longer, along all axes alike so that what fits together still does, or along one where that
costs too much. Each query runs in a process forked for it; what that takes is the growth of its own memory, without the pages of libraries.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
import torch
from numpy.typing import NDArray

from app.catalogue.read import operations
from app.engine.engine import Engine
from app.engine.planning.plan import Plan
from app.errors import PullbackError
from app.limits import Limits
from app.program.functions import load as load_functions
from app.protocols.native import bodies
from app.query import DTYPE_BYTES, FLOATING_DTYPES, Query, TensorData

KINDS: Final = ("outputs", "vjp", "jvp", "gradient", "jacobian", "hessian", "hvp", "check", "explain", "precision")
# Bytes of the largest input, tried in this order until the plan is within reach: a Jacobian of 8 MB has 16 TB.
TARGETS: Final = tuple(1 << power for power in range(22, 11, -1))
# Plans between these are measurable and take a second: less hides behind what Python makes beside it.
LEAST, MOST, FLOPS = 16 << 20, 600 << 20, 1e10
PASSES: Final = 4096
SECONDS: Final = 20  # of processor time
# What a library sets up at its first call, whatever the size (measured: MKL 2 to 4 MiB, and Python's own objects).
SET_UP: Final = 8 << 20
SHARE, OFTEN = 0.8, 4.0
RESULTS: Final = Path("build/plans.jsonl")

Array = NDArray[Any]


WAYS: Final = ("all", "first", "last", "alone")


@dataclass(frozen=True)
class Growth:
    """Bytes that the plan says and that the process took; with inputs of about `target` bytes, longer in the way `way`."""

    plan: int
    taken: int
    target: int
    way: str

    @property
    def is_under(self) -> bool:
        return self.plan < SHARE * (self.taken - SET_UP)

    @property
    def is_over(self) -> bool:
        return self.plan > OFTEN * max(self.taken, SET_UP)


def _longer(tensor: TensorData, factors: tuple[int, ...]) -> TensorData:
    if not tensor.shape or all(factor == 1 for factor in factors):
        return tensor
    dtype = "uint16" if tensor.dtype == "bfloat16" else tensor.dtype
    array: Array = np.tile(np.frombuffer(tensor.data, dtype=dtype).reshape(tensor.shape), factors)
    if array.ndim >= 2 and array.dtype.kind in "fc":  # repeated rows make a matrix singular
        array = array + np.random.default_rng(0).normal(scale=0.1, size=array.shape).astype(array.dtype)
        if array.shape[-1] == array.shape[-2]:
            array = (array + array.swapaxes(-1, -2)) / 2 + array.shape[-1] * np.eye(array.shape[-1], dtype=array.dtype)
    data = memoryview(bytearray(np.ascontiguousarray(array).tobytes()))
    return replace(tensor, shape=array.shape, data=data, bare=False)


def _members(query: Query) -> list[TensorData]:
    return [t for value in query.inputs.values() for t in (value if isinstance(value, tuple) else (value,))]


def _stretched(query: Query, target: int, way: str) -> Query | None:
    """The query with inputs of about `target` bytes: all axes alike, the first axes, the last, the first of the first input."""
    members = _members(query)
    largest = max(members, key=lambda t: (len(t.shape), len(t.data)), default=None)
    rank, ratio = (0, 0.0) if largest is None else (len(largest.shape), target / max(1, len(largest.data)))
    if not rank or ratio < 2:
        return None
    of_all, of_one = max(2, round(ratio ** (1 / rank))), int(ratio)
    alone = next(iter(query.inputs))

    def longer(name: str, tensor: TensorData) -> TensorData:
        count = len(tensor.shape)
        if way == "all":
            return _longer(tensor, (of_all,) * count)
        if way == "last":
            return _longer(tensor, (*(1,) * (count - 1), of_one)[:count])
        is_longer = count == rank if way == "first" else name == alone
        return _longer(tensor, (of_one if is_longer else 1, *(1,) * (count - 1))[:count])

    inputs = {
        name: tuple(longer(name, t) for t in value) if isinstance(value, tuple) else longer(name, value)
        for name, value in query.inputs.items()
    }
    return replace(query, inputs=inputs)


def _asked(engine: Engine, query: Query, kind: str) -> Query:
    """For the derivative `kind`; of a weighted sum of the outputs where it is of one real number."""
    if kind not in ("gradient", "hessian", "hvp"):
        return replace(query, want=(kind,), format="dense")
    for name, (dtype, shape) in engine.outputs(query, abstract=False).items():
        if dtype in FLOATING_DTYPES:
            size = DTYPE_BYTES[dtype] * int(np.prod(shape))
            one = memoryview(bytearray(np.ones(shape, "float32" if dtype == "bfloat16" else dtype).tobytes()[:size]))
            return replace(
                query, want=(kind,), format="dense", of=name, weighted=True, cotangent={name: TensorData(dtype, shape, one)}
            )
    raise PullbackError("not_scalar", "There is no real output.")


def example(name: str) -> Query:
    """The operation's example of the catalogue, for its outputs."""
    body = {**operations()[name].example, "want": ["outputs"], "seed": 0}
    for field in ("cotangent", "tangent", "expected"):
        body.pop(field, None)
    return bodies.read(memoryview(orjson.dumps(body)), None, None, Limits())


def _sized(engine: Engine, query: Query, kind: str, target: int, way: str) -> tuple[Query, Plan] | None:
    """The query at a size, and its plan; None where it has none."""
    longer = _stretched(query, target, way)
    if longer is None:
        return None
    try:
        asked = _asked(engine, longer, kind)
        return asked, engine.prepared(asked).plan
    except PullbackError:
        return None


def _measurable(engine: Engine, query: Query, kind: str) -> tuple[Query, int, str] | None:
    """The largest of its longer forms whose plan is within reach."""
    for target in TARGETS:
        for way in WAYS:
            sized = _sized(engine, query, kind, target, way)
            if sized is not None:
                asked, plan = sized
                if LEAST <= plan.peak_bytes <= MOST and plan.flops <= FLOPS and plan.passes <= PASSES:
                    return asked, target, way
    return None


def _memory(*names: str) -> int:
    with open("/proc/self/status") as status:
        return sum(int(line.split()[1]) * 1024 for line in status if line.partition(":")[0] in names)


def _engine() -> Engine:
    return Engine(Limits(), "cpu", load_functions(None))


def _taken(name: str, kind: str) -> Growth | str:
    """In this process, which answers the example and finds the size before."""
    engine, small = _engine(), example(name)
    engine.answer(_asked(engine, small, kind))
    sized = _measurable(engine, small, kind)
    if sized is None:
        return "no measurable size"
    query, target, way = sized
    engine = _engine()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as peaks:  # 5: the peak of resident memory starts again (proc(5))
        peaks.write("5")
    before = _memory("RssAnon")
    plan = engine.answer(query).plan["peak_bytes"]
    return Growth(plan, _memory("VmHWM") - _memory("RssFile", "RssShmem") - before, target, way)


def _planned_again(name: str, kind: str, before: Growth) -> Growth | str:
    """What was taken does not change with the plan."""
    sized = _sized(_engine(), example(name), kind, before.target, before.way)
    return "no plan" if sized is None else replace(before, plan=sized[1].peak_bytes)


def in_child(work: Callable[[], Growth | str]) -> Growth | str:
    """What `work()` gives in a process of its own; or why it gives nothing."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        try:
            result = work()
            os.write(write, json.dumps(result if isinstance(result, str) else asdict(result)).encode())
        except PullbackError as error:
            os.write(write, json.dumps(error.code).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = json.loads(pipe.read() or b'"no answer"')
    os.waitpid(child, 0)
    return said if isinstance(said, str) else Growth(**said)


def warm() -> None:
    """What PyTorch imports at its first plan and derivative is a worker's, not a query's."""
    torch.set_num_threads(1)
    engine = _engine()
    for kind in KINDS:
        for size in (2, 10_000):
            x = TensorData("float64", (size,), memoryview(bytearray(8 * size)))
            if size == 2 or kind not in ("jacobian", "hessian"):
                engine.answer(Query(program="tanh(x).sum()", inputs={"x": x}, want=(kind,)))


def _read(file: Path) -> dict[tuple[str, str], Growth | str]:
    """What an earlier run has measured."""
    lines = file.read_text().splitlines() if file.exists() else []
    return {(name, kind): said if isinstance(said, str) else Growth(**said) for name, kind, said in map(json.loads, lines)}


def _line(name: str, kind: str, result: Growth) -> str:
    numbers = (
        f"plan {result.plan / 2**20:8.1f} MiB, taken {result.taken / 2**20:8.1f} MiB: ×{result.plan / max(1, result.taken):.2f}"
    )
    return f"{name + ' ' + kind:<50} {numbers}\n"


def main(arguments: list[str]) -> None:
    """Measures what `--results` does not hold yet, then prints each query that is planned under 0.8 of what it takes, or over five times."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks plans", description=__doc__)
    parser.add_argument(
        "--results",
        type=Path,
        default=RESULTS,
        help="one JSON line a measurement; what is there is planned anew and not measured again",
    )
    parser.add_argument("--only", default="", help="operations whose names hold this")
    parser.add_argument("--kinds", default=",".join(KINDS), help="of results, separated by commas")
    parser.add_argument("--every", type=int, default=1, help="each so many operations one")
    chosen = parser.parse_args(arguments)
    warm()
    chosen.results.parent.mkdir(parents=True, exist_ok=True)
    known = _read(chosen.results)
    names = [name for name in operations() if chosen.only in name][:: chosen.every]
    results: dict[tuple[str, str], Growth | str] = {}
    with chosen.results.open("a") as file:
        for kind, name in product(chosen.kinds.split(","), names):
            before = known.get((name, kind))
            if isinstance(before, Growth):
                results[name, kind] = in_child(partial(_planned_again, name, kind, before))
                continue
            result = results[name, kind] = before or in_child(partial(_taken, name, kind))
            if before is None:
                file.write(json.dumps([name, kind, result if isinstance(result, str) else asdict(result)]) + "\n")
                file.flush()
    _print(results)


def _print(results: Mapping[tuple[str, str], Growth | str]) -> None:
    measured = {key: result for key, result in results.items() if isinstance(result, Growth)}
    under = [key for key, result in measured.items() if result.is_under]
    over = [key for key, result in measured.items() if result.is_over]
    for key in (*under, *over):
        sys.stdout.write(_line(*key, measured[key]))
    whys = Counter(result for result in results.values() if isinstance(result, str))
    sys.stdout.write(
        f"{len(measured)} measured, {len(under)} under {SHARE} of what was taken, {len(over)} over {OFTEN:.0f} times\n"
    )
    sys.stdout.write("".join(f"{count} not measured: {why}\n" for why, count in whys.most_common()))


if __name__ == "__main__":
    main(sys.argv[1:])
