"""`python -m tests.oracle.plan_sweep`: each operation at tens of megabytes, what its plan says against what a fresh process takes.

The inputs of an operation's example are made longer, along all axes alike so that what fits together still does, or along one where that
costs too much; in each dtype, as one sample and as a batch, for each kind of result and each of its forms. Each query runs in a process
forked for it; what that takes is the growth of its own memory, without the pages of libraries. A second run goes on where one was stopped.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import json
import math
import os
import resource
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import orjson
import torch
from torch import Tensor

from app.catalogue.read import operations
from app.engine.engine import Engine
from app.engine.kinds import KINDS
from app.engine.planning.plan import Plan
from app.engine.tensors import from_torch, is_differentiable, to_torch
from app.errors import PullbackError
from app.limits import Limits
from app.pool.linux import keep_buffers
from app.program.functions import load as load_functions
from app.protocols.native import bodies
from app.query import FLOATING_DTYPES, MATRICES, Format, Query, TensorData, Want

DTYPES: Final = ("float64", "float32", "float16", "bfloat16", "complex64", "complex128")
FORMATS: Final[tuple[Format, ...]] = ("dense", "diagonal", "sparse", "auto")
# Of two: bytes of the largest input, from what a Hessian of 64 MB has to what a sum has; the first one tried is cheap to plan.
_POWERS: Final = tuple(range(11, 27))
_FIRST: Final = 7
WAYS: Final = ("all", "first", "last", "alone")
# Plans between these are measurable and take a second: less hides behind what Python makes beside it.
LEAST, MOST, FLOPS = 64 << 20, 600 << 20, 1e10
PASSES: Final = 4096
SAMPLES: Final = 8  # of a batch; chosen
SECONDS: Final = 20  # of processor time
# What a library sets up at its first call, whatever the size (measured: MKL 2 to 4 MiB, forward mode and fakes some 20).
SET_UP: Final = 24 << 20
_LEAST_WEIGHT: Final = 2.0**-14  # the smallest normal number of float16
SHARE, OFTEN = 0.8, 4.0
RESULTS: Final = Path("build/plans.jsonl")
_TOO_MUCH: Final = ("too_costly", "result_too_large", "body_too_large")


@dataclass(frozen=True, order=True)
class Case:
    """One query of the sweep."""

    kind: Want
    format: Format
    dtype: str
    is_batched: bool
    operation: str

    @property
    def title(self) -> str:
        form = "" if self.format == "dense" else f" {self.format}"
        return f"{self.operation} {self.kind}{form} {self.dtype}{' batched' if self.is_batched else ''}"


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


def every() -> Iterator[Case]:
    """All cases."""
    for name, kind, dtype, is_batched in itertools.product(operations(), KINDS, DTYPES, (False, True)):
        if not (is_batched and KINDS[kind].of_one_point):
            for form in FORMATS if kind in MATRICES else ("dense",):
                yield Case(kind, form, dtype, is_batched, name)


def one_of(count: int, cases: Iterator[Case], turn: int = 0) -> list[Case]:
    """About each `count`-th case, spread over all that tells them apart, in an order that is so too; `turn`: which of them."""
    marked = ((zlib.crc32(case.title.encode()), case) for case in cases)
    return [case for _, case in sorted(each for each in marked if each[0] % count == turn)]


def _in_dtype(tensor: Tensor, dtype: str) -> Tensor:
    kind: torch.dtype = getattr(torch, dtype)
    if not is_differentiable(tensor.dtype) or (tensor.is_complex() and not kind.is_complex):
        return tensor
    if kind.is_complex and not tensor.is_complex():
        return torch.complex(tensor.double(), tensor.double().flip(-1) if tensor.dim() else tensor.double()).to(kind)
    return tensor.to(kind)


def _longer(tensor: Tensor, factors: Sequence[int], samples: int) -> Tensor:
    is_long = any(factor > 1 for factor in factors)
    tensor = tensor.repeat(*factors) if is_long else tensor
    if is_long and tensor.dim() >= 2 and tensor.is_floating_point():  # repeated rows make a matrix singular
        generator = torch.Generator().manual_seed(0)
        tensor = tensor + 0.1 * torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor.dtype)
        if tensor.shape[-1] == tensor.shape[-2]:
            tensor = (tensor + tensor.mT) / 2 + tensor.shape[-1] * torch.eye(tensor.shape[-1], dtype=tensor.dtype)
    return tensor.expand(samples, *tensor.shape).contiguous() if samples else tensor


def stretched(query: Query, case: Case, target: int, way: str) -> Query | None:
    """The query with inputs of about `target` bytes: all axes alike, the first axes, the last, the first of the first input."""
    leaves = {n: tuple(map(_opened, v)) if isinstance(v, tuple) else _opened(v) for n, v in query.inputs.items()}
    members = [t for value in leaves.values() for t in (value if isinstance(value, tuple) else (value,))]
    largest = max(members, key=lambda t: (t.dim(), t.numel()), default=None)
    if largest is None or not largest.dim():
        return None
    samples = SAMPLES if case.is_batched else 0
    is_cast = is_differentiable(largest.dtype)
    width = getattr(torch, case.dtype).itemsize if is_cast else largest.element_size()
    ratio = target / max(1, largest.numel() * width * max(1, samples))
    if ratio < 2:
        return None
    rank, of_all, of_one = largest.dim(), max(2, round(ratio ** (1 / largest.dim()))), int(ratio)
    alone = next(iter(query.inputs))

    def longer(name: str, tensor: Tensor) -> TensorData:
        count = tensor.dim()
        is_longer = {"all": True, "last": True, "first": count == rank, "alone": name == alone}[way]
        factors = [1] * count
        if way == "all":
            factors = [of_all] * count
        elif count and is_longer:
            factors[-1 if way == "last" else 0] = of_one
        return from_torch(_in_dtype(_longer(tensor, factors, samples), case.dtype))

    inputs = {n: tuple(longer(n, t) for t in v) if isinstance(v, tuple) else longer(n, v) for n, v in leaves.items()}
    return replace(query, inputs=inputs, batched=tuple(inputs) if case.is_batched else ())


def _opened(data: TensorData) -> Tensor:
    return to_torch(data, "cpu")


def _asked(engine: Engine, query: Query, case: Case) -> Query:
    """For what is wanted; of a weighted sum of the outputs where it is of one real number."""
    query = replace(query, want=(case.kind,), format=case.format)
    if KINDS[case.kind].demand.needs != "scalar":
        return query
    for name, (dtype, shape) in engine.outputs(query, abstract=False).items():
        if dtype in FLOATING_DTYPES:
            # What overflows in half precision is looked for step by step, where memory allows it: that is no part of the plan.
            weight = max(1 / max(1, math.prod(shape)), _LEAST_WEIGHT)
            weights = torch.full((SAMPLES,) * case.is_batched + shape, weight, dtype=getattr(torch, dtype))
            return replace(query, of=name, weighted=True, cotangent={name: from_torch(weights)})
    raise PullbackError("not_scalar", "There is no real output.")


def example(name: str) -> Query:
    """The operation's example of the catalogue, for its outputs."""
    body = {**operations()[name].example, "want": ["outputs"], "seed": 0}
    for field in ("cotangent", "tangent", "expected"):
        body.pop(field, None)
    return bodies.read(memoryview(orjson.dumps(body)), None, None, Limits())


def _sized(engine: Engine, case: Case, target: int, way: str) -> tuple[Query, Plan] | None:
    """The query at a size, and its plan; None where it has none. Raises PullbackError."""
    longer = stretched(example(case.operation), case, target, way)
    if longer is None:
        return None
    asked = _asked(engine, longer, case)
    return asked, engine.prepared(asked).plan


def _measurable(engine: Engine, case: Case) -> tuple[Query, int, str] | str:
    """One of its longer forms whose plan is within reach; or why there is none."""
    why = "no measurable size"
    for way in WAYS:
        try:
            sized = _within_reach(engine, case, way)
        except PullbackError as error:
            why = error.code
            continue
        if sized is not None:
            return *sized, way
    return why


def _within_reach(engine: Engine, case: Case, way: str) -> tuple[Query, int] | None:
    """Between a size whose plan is too little and one whose plan is too much, halved until there is one. Raises PullbackError."""
    low, high, place = 0, len(_POWERS), _FIRST
    while low < high:
        target = 1 << _POWERS[place]
        try:
            sized = _sized(engine, case, target, way)
        except PullbackError as error:
            if error.code not in _TOO_MUCH:
                raise
            high = place
        else:
            if sized is None or sized[1].peak_bytes < LEAST:
                low = place + 1
            elif sized[1].peak_bytes > MOST or sized[1].flops > FLOPS or sized[1].passes > PASSES:
                high = place
            else:
                return sized[0], target
        place = (low + high) // 2
    return None


def _memory(*names: str) -> int:
    with open("/proc/self/status") as status:
        return sum(int(line.split()[1]) * 1024 for line in status if line.partition(":")[0] in names)


def _engine() -> Engine:
    return Engine(Limits(), "cpu", load_functions(None))


def measured(case: Case) -> Growth | str:
    """In this process, which answers a small query and finds the size before; a word where that cannot be. Raises PullbackError."""
    engine = _engine()
    sized = _measurable(engine, case)
    if isinstance(sized, str):
        return sized
    query, target, way = sized
    small = stretched(example(case.operation), case, _SMALL, way)
    if small is not None:
        engine.answer(_asked(engine, small, case))
    engine = _engine()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as peaks:  # 5: the peak of resident memory starts again (proc(5))
        peaks.write("5")
    before = _memory("RssAnon")
    plan = engine.answer(query).plan["peak_bytes"]
    return Growth(plan, _memory("VmHWM") - _memory("RssFile", "RssShmem") - before, target, way)


_SMALL: Final = 1 << 9  # bytes of inputs: what a library sets up at its first call is not the query's


def planned_again(case: Case, before: Growth) -> Growth | str:
    """What was taken does not change with the plan. Raises PullbackError."""
    sized = _sized(_engine(), case, before.target, before.way)
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
    """What PyTorch imports at its first plan and derivative is a worker's, not a query's; malloc keeps what it does there."""
    torch.set_num_threads(1)
    keep_buffers()
    engine = _engine()
    for kind in KINDS:
        for size in (2, 10_000):
            x = TensorData("float64", (size,), memoryview(bytearray(8 * size)))
            program = "tanh(x)" if KINDS[kind].demand.needs == "likelihoods" else "tanh(x).sum()"
            if size == 2 or kind not in ("fisher", *MATRICES):
                engine.answer(Query(program=program, inputs={"x": x}, want=(kind,)))


def _read(file: Path) -> dict[str, Growth | str]:
    """What an earlier run has measured."""
    lines = file.read_text().splitlines() if file.exists() else []
    return {title: said if isinstance(said, str) else Growth(**said) for title, said in map(json.loads, lines)}


def swept(cases: Sequence[Case], results: Path, *, again: bool, seconds: float = math.inf) -> dict[Case, Growth | str]:
    """What `results` holds, planned again where `again`, and what it does not hold yet, measured for so many seconds."""
    results.parent.mkdir(parents=True, exist_ok=True)
    known, end = _read(results), time.monotonic() + seconds
    seen: dict[Case, Growth | str] = {}
    with results.open("a") as file:
        for case in cases:
            before = known.get(case.title)
            if before is not None:
                seen[case] = in_child(partial(planned_again, case, before)) if again and not isinstance(before, str) else before
            elif time.monotonic() < end:
                result = seen[case] = in_child(partial(measured, case))
                file.write(json.dumps([case.title, result if isinstance(result, str) else asdict(result)]) + "\n")
                file.flush()
    return seen


def _line(case: Case, result: Growth) -> str:
    numbers = (
        f"plan {result.plan / 2**20:8.1f} MiB, taken {result.taken / 2**20:8.1f} MiB: ×{result.plan / max(1, result.taken):.2f}"
    )
    return f"{case.title:<70} {numbers}\n"


def main(arguments: list[str]) -> None:
    """Measures what `--results` does not hold yet, then prints each query that is planned under 0.8 of what it takes, or over four times."""
    parser = argparse.ArgumentParser(prog="python -m tests.oracle.plan_sweep", description=__doc__)
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="one JSON line a measurement; what is there is not measured again"
    )
    parser.add_argument("--again", action="store_true", help="what was measured is planned anew")
    parser.add_argument("--only", default="", help="titles that hold this")
    parser.add_argument("--titles", nargs="*", default=(), help="these cases alone")
    parser.add_argument("--kinds", default=",".join(KINDS), help="of results, separated by commas")
    parser.add_argument("--every", type=int, default=1, help="one of so many cases, of all sorts")
    parser.add_argument("--turn", type=int, default=0, help="which of them")
    parser.add_argument("--seconds", type=float, default=math.inf, help="stop measuring after so long")
    chosen = parser.parse_args(arguments)
    warm()
    wanted = (
        case
        for case in every()
        if case.kind in chosen.kinds.split(",")
        and chosen.only in case.title
        and (not chosen.titles or case.title in chosen.titles)
    )
    cases = one_of(chosen.every, wanted, chosen.turn)
    _print(swept(cases, chosen.results, again=chosen.again, seconds=chosen.seconds), len(cases))


def _print(results: Mapping[Case, Growth | str], count: int) -> None:
    growths = {case: result for case, result in results.items() if isinstance(result, Growth)}
    under = sorted(case for case, result in growths.items() if result.is_under)
    over = sorted(case for case, result in growths.items() if result.is_over)
    for case in (*under, *over):
        sys.stdout.write(_line(case, growths[case]))
    for group in sorted({(case.kind, case.format, case.is_batched) for case in growths}):
        of_group = [case for case in growths if (case.kind, case.format, case.is_batched) == group]
        unders, overs = (sum(case in few for case in of_group) for few in (under, over))
        sys.stdout.write(f"{' '.join(map(str, group)):<30} {len(of_group):5} measured, {unders:4} under, {overs:4} over\n")
    whys = Counter(result for result in results.values() if isinstance(result, str))
    sys.stdout.write(
        f"{len(growths)} of {count} measured, {len(under)} under {SHARE} of what was taken, {len(over)} over {OFTEN:.0f} times\n"
    )
    sys.stdout.write("".join(f"{number} not measured: {why}\n" for why, number in whys.most_common()))


if __name__ == "__main__":
    main(sys.argv[1:])
