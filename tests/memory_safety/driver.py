"""`python -m tests.memory_safety.driver`: hostile queries of every operation, a JSON line for each (`--help` tells how many).

A line: `{"case": …, "door": "operation" or "program", "outcome": …}`. The outcome is a digest of the answer, the refusal's text, or how
the child ended (`died of SIGSEGV`). Each operation's queries run in a forked child of this warm process; where one dies, the next child
goes on behind it. `--variants end:165=PATH start:90=PATH` runs all of it twice at once, in two children of the warm process, which
differ in where tensors lie in their pages (with the guarded allocator preloaded) and in what fresh memory holds. With
`--unchecked OPERATION…` the cases of these are run once more there without the checks before PyTorch's kernels, into `PATH.unchecked`.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import hashlib
import itertools
import json
import os
import random
import resource
import select
import signal
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any, Final

import numpy as np
import torch

from app.catalogue.bind import bind
from app.catalogue.call import invoke
from app.catalogue.entry import Operation
from app.catalogue.kernels import guard
from app.catalogue.read import find, operations
from app.engine.engine import Engine
from app.engine.planning.build import leaves_of
from app.engine.tensors import from_torch, to_torch
from app.errors import PullbackError
from app.limits import Limits
from app.program.functions import load
from app.protocols.native.native_query import query as read_query
from app.query import Query, TensorData
from app.road import Road
from tests.memory_safety.hostile_queries import Array, Plain, Value, extended, extremes, hostile, integral, more, not_finite

# Small, so that hostile sizes are refused and not computed.
LIMITS: Final = Limits(result_bytes=8 << 20, memory_bytes=256 << 20, flops=1e9)
_DATA_BYTES: Final = 2 << 30  # of a child; beyond it an allocation fails, as a worker's does
_CALLS: Final = 6  # that work, of each operation that is not pointwise
_GROUP: Final = 50  # operations that one child tries; a fork costs as much as some 20 cases
_UNCHECKED_COUNT: Final = 2  # of one, those of `linalg.ldl_solve` happen to survive
_HANG_S: Final = 60.0
_M_PERTURB: Final = (
    -6
)  # malloc.h: the byte that memory is filled with when it is given back, and its complement when it is given out
_ENGINE: Final = Engine(LIMITS, "cpu", load(None))


@cache
def plain(name: str) -> Plain:
    """The operation's own example, its tensors in the dtypes that they are computed in."""
    operation = find(name)
    query = read_query(operation.example)
    dtypes = _ENGINE.prepared(query).dtypes

    def array(name: str, tensor: TensorData) -> Array:
        values = torch.frombuffer(bytearray(tensor.data), dtype=getattr(torch, tensor.dtype)).reshape(tensor.shape)
        return np.array(values.to(dtypes[name]).numpy())

    inputs: dict[str, Value] = {
        name: tuple(array(f"{name}.{index}", member) for index, member in enumerate(value))
        if isinstance(value, tuple)
        else array(name, value)
        for name, value in query.inputs.items()
    }
    return Plain(operation.name, inputs, query.parameters)


def _tensor(array: Array) -> TensorData:
    """The array in memory of PyTorch's, where the guard pages are; the engine computes on it without a copy."""
    tensor = torch.from_numpy(np.ascontiguousarray(array)).clone() if array.size else torch.zeros(0)
    own = tensor.reshape(-1).view(torch.uint8).numpy().data if array.size else memoryview(bytearray())
    return TensorData(str(array.dtype), array.shape, own, False)


def _inputs(case: Plain) -> dict[str, Any]:
    return {
        name: tuple(_tensor(member) for member in value) if isinstance(value, tuple) else _tensor(value)
        for name, value in case.inputs.items()
    }


def as_operation(case: Plain) -> Query:
    return Query(operation=case.operation, inputs=_inputs(case), parameters=case.parameters, want=("outputs", "vjp"), seed=1)


def as_program(case: Plain) -> Query:
    """The same call as the only step of a program, its plain values written into the text."""
    names = {name: f"{name}_" for name in case.inputs}
    inputs: dict[str, Any] = {}
    for name, value in _inputs(case).items():
        inputs.update(
            {f"{name}_{i}": member for i, member in enumerate(value)} if isinstance(value, tuple) else {name + "_": value}
        )
    parts = [
        f"{name}=[{', '.join(f'{name}_{i}' for i in range(len(value)))}]"
        if isinstance(value, tuple)
        else f"{name}={names[name]}"
        for name, value in case.inputs.items()
    ]
    parts += [f"{name}={_written(value)}" for name, value in case.parameters.items()]
    return Query(program=f"{case.operation}({', '.join(parts)})", inputs=inputs, want=("outputs", "vjp"), seed=1)


def _written(value: Any) -> str:
    return repr(list(value)) if isinstance(value, tuple) else repr(value)


_QUERIES: Final[dict[str, Callable[[Plain], Query]]] = {"operation": as_operation, "program": as_program}


def outcome(entrance: str, case: Plain) -> str:
    """A digest of the answer, or the refusal."""
    try:
        return called(case) if entrance == "call" else answered(_QUERIES[entrance](case))
    except PullbackError as error:
        return str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def answered(query: Query) -> str:
    """The engine's answer to a query."""
    try:
        return _digest(_ENGINE.answer(query).results)
    except PullbackError as error:
        if error.code != "not_differentiable":
            raise
    return _digest(_ENGINE.answer(replace(query, want=("outputs",))).results)


def called(case: Plain) -> str:
    """The call itself and its vector-Jacobian product, as the engine makes them but without a plan: twenty times as fast."""
    leaves = {
        name: to_torch(tensor, "cpu").requires_grad_(tensor.dtype.startswith(("float", "complex")))
        for name, tensor in leaves_of(_inputs(case))
    }
    counts = {name: len(value) if isinstance(value, tuple) else None for name, value in case.inputs.items()}
    bound = bind(find(case.operation), counts, case.parameters)
    torch.default_generator.manual_seed(1)
    try:
        result = invoke(bound, leaves)
    except RuntimeError as error:
        if "is not differentiable with respect to" not in str(error):
            raise
        # PyTorch refuses to compute at all where a constant of its formula is differentiated.
        leaves = {name: leaf.detach() for name, leaf in leaves.items()}
        result = invoke(bound, leaves)
    outputs = list(_tensors(result))
    differentiable = [output for output in outputs if output.requires_grad]
    wrt = [leaf for leaf in leaves.values() if leaf.requires_grad]
    digest = _digest({str(index): from_torch(output) for index, output in enumerate(outputs)})
    if not differentiable:
        return digest
    try:
        gradients = torch.autograd.grad(
            differentiable, wrt, [torch.ones_like(output) for output in differentiable], allow_unused=True
        )
    except RuntimeError as error:
        return f"{digest}, backward: {error}"
    return f"{digest}, gradients {_digest({str(i): from_torch(g) for i, g in enumerate(gradients) if g is not None})}"


def _tensors(result: Any) -> Iterator[torch.Tensor]:
    if isinstance(result, torch.Tensor):
        yield result
    elif isinstance(result, list | tuple):
        for member in result:
            yield from _tensors(member)


def _digest(tree: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, TensorData):
            digest.update(f"{value.dtype}{value.shape}".encode())
            digest.update(_one_nan(value))
        elif isinstance(value, Mapping):
            for key, member in value.items():
                digest.update(key.encode())
                add(member)

    add(tree)
    return f"answer {digest.hexdigest()[:16]}"


def _one_nan(value: TensorData) -> bytes:
    """The bytes of a tensor with every NaN alike: its sign and payload mean nothing."""
    if value.dtype == "bfloat16" or not value.dtype.startswith(("float", "complex")):
        return bytes(value.data)
    numbers = np.frombuffer(value.data, dtype=value.dtype)
    parts = numbers.view(numbers.real.dtype) if numbers.dtype.kind == "c" else numbers
    return np.where(np.isnan(parts), np.nan, parts).tobytes()


def cases(operation: Operation, seed: int, count: int, calls: int = _CALLS) -> Iterator[tuple[str, Plain]]:
    """(door, call): the operation's example and its extensions, as they are and then hostile; always the same ones."""
    draw = random.Random(zlib.crc32(operation.name.encode()) + seed)
    pointwise = "pointwise" in operation.tags
    bases = _bases(operation, min(calls, 3) if pointwise else calls, draw)
    for base in bases:
        yield "call", base
        yield from (("call", case) for case in extremes(base))
        if not pointwise:
            yield from (("call", case) for case in not_finite(base))
    risky = any(isinstance(v, np.ndarray) and v.dtype.kind == "i" for base in bases for v in base.inputs.values())
    for _ in range(count if pointwise else (10 if risky else 4) * count):
        yield "call", hostile(draw.choice(bases), draw, tensors_only=True)
    for _ in range(count):
        yield draw.choice(("operation", "program")), hostile(draw.choice(bases), draw)


def _bases(operation: Operation, count: int, draw: random.Random) -> list[Plain]:
    """Calls that work: the example, those of `MORE`, and some of their extensions."""
    bases = [plain(operation.name), *more(operation.name), *_SAMPLES.get(operation.name, [])]
    candidates: list[Plain] = []
    for base in tuple(bases):
        whole = integral(base)
        if whole is not None and outcome("call", whole).startswith("answer"):
            bases.append(whole)
            candidates += extended(whole, operation, draw)
        candidates += extended(base, operation, draw)
    draw.shuffle(candidates)
    working = (candidate for candidate in candidates if outcome("call", candidate).startswith("answer"))
    return [*bases, *itertools.islice(working, max(count - len(bases), 2))]


def read_samples(count: int) -> None:
    """Adds at most `count` of PyTorch's own samples of each operation to the calls that are tried; the import takes seconds."""
    from app.catalogue.operation_page import page
    from tests import op_db

    def known(name: str) -> Mapping[str, Any] | None:
        try:
            return page(find(name))
        except PullbackError:
            return None

    for sample in op_db.cases(known, 60):
        if isinstance(sample, str):
            continue
        inputs = {
            name: tuple(member.numpy() for member in value) if isinstance(value, list) else value.numpy()
            for name, value in sample.inputs.items()
        }
        parameters = {name: tuple(value) if isinstance(value, list) else value for name, value in sample.parameters.items()}
        plain_cases = _SAMPLES.setdefault(sample.operation, [])
        shape = {
            (name, np.shape(value) and len(np.shape(value))) for name, value in inputs.items() if isinstance(value, np.ndarray)
        }
        seen = _KINDS.setdefault(sample.operation, [])
        if len(plain_cases) < count and (shape, parameters) not in seen:
            plain_cases.append(Plain(sample.operation, inputs, parameters))
            seen.append((shape, parameters))


_SAMPLES: Final[dict[str, list[Plain]]] = {}
_KINDS: Final[dict[str, list[Any]]] = {}


def _child(names: Sequence[str], seed: int, count: int, calls: int, first: int, writer: int) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (_DATA_BYTES, _DATA_BYTES))
    with os.fdopen(writer, "w") as pipe:
        for name in names:
            for index, (entrance, case) in enumerate(cases(find(name), seed, count, calls)):
                if index < first:
                    continue
                print(json.dumps([name, index, entrance, str(case)]), file=pipe, flush=True)
                print(json.dumps(outcome(entrance, case)), file=pipe, flush=True)
            first = 0
    os._exit(0)


def run(names: Sequence[str], seed: int, count: int, calls: int = _CALLS) -> Iterator[dict[str, Any]]:
    """The cases of these operations; where a child dies, the next one goes on behind the case that killed it."""
    names, first = list(names), 0
    while names:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            _child(names[:_GROUP], seed, count, calls, first, writer)
        os.close(writer)
        begun: list[Any] | None = None
        done = names[0], first - 1
        for line in _lines(reader, child):
            if isinstance(line, list):
                begun = line
            elif begun is not None:
                yield {"case": begun[3], "door": begun[2], "outcome": line}
                done, begun = (begun[0], begun[1]), None
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            names, first = names[_GROUP:], 0
            continue
        name = signal.Signals(os.WTERMSIG(status)).name
        if begun is None:  # while it looked for calls that work
            yield {"case": f"{done[0]}, or the operation after it: an extension", "door": "call", "outcome": f"died of {name}"}
            return
        yield {"case": begun[3], "door": begun[2], "outcome": f"died of {name}"}
        names, first = names[names.index(begun[0]) :], begun[1] + 1


def _lines(reader: int, child: int) -> Iterator[Any]:
    """What the child writes, line by line; it is killed where it writes nothing for long."""
    rest = b""
    with os.fdopen(reader, "rb", buffering=0) as pipe:
        while True:
            if not select.select([pipe], [], [], _HANG_S)[0]:
                os.kill(child, signal.SIGKILL)
            piece = pipe.read(1 << 16)
            if not piece:
                return
            *whole, rest = (rest + piece).split(b"\n")
            yield from map(json.loads, whole)


def _variant(side: str, fill: int) -> None:
    """From now on tensors lie there in their pages, and fresh memory holds this byte."""
    libraries = ctypes.CDLL(None)
    if hasattr(libraries, "guarded_set"):
        libraries.guarded_set(side == "end", fill)
    if not libraries.mallopt(_M_PERTURB, fill):
        raise OSError("mallopt")


def _fork_variant(variant: str, lines: Callable[[], Iterator[dict[str, Any]]], unchecked: Callable[[], Iterator[Any]]) -> int:
    """The process that runs a variant, `SIDE:FILL=PATH`."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        named, _, path = variant.partition("=")
        side, _, fill = named.partition(":")
        _variant(side, int(fill))
        _write(path, lines())
        guard.install()._destroy()  # type: ignore[no-untyped-call]
        _write(f"{path}.unchecked", unchecked())
        status = 0
    finally:
        os._exit(status)


def _write(path: str, lines: Iterator[dict[str, Any]]) -> None:
    with open(path, "w") as output:
        for line in lines:
            print(json.dumps(line), file=output)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--count", type=int, default=2, help="of hostile queries by the engine's doors; of calls, some times as many"
    )
    parser.add_argument(
        "--calls", type=int, default=_CALLS, help="that work, of each operation that is not pointwise, to start from"
    )
    parser.add_argument("--samples", type=int, default=0, help="of PyTorch's own, for each operation")
    parser.add_argument("--operations", nargs="*", default=list(operations()))
    parser.add_argument("--variants", nargs="*", default=[], metavar="SIDE:FILL=PATH", help="each in a child of its own")
    parser.add_argument("--unchecked", nargs="*", default=[], metavar="OPERATION", help="in each variant, without the checks")
    chosen = parser.parse_args(arguments)
    output = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # MKL complains there
    os.dup2(1, 2)
    torch.set_num_threads(1)  # no pool of threads survives a fork
    road = Road(LIMITS, "cpu")
    road.probe()
    road.warm()
    if chosen.samples:
        read_samples(chosen.samples)
    for name in chosen.operations:
        plain(name)  # once for all children
    gc.freeze()
    gc.set_threshold(10_000)  # as tests/conftest.py has it
    gc.enable()
    checked = partial(run, chosen.operations, chosen.seed, chosen.count, chosen.calls)
    unchecked = partial(run, chosen.unchecked, chosen.seed, _UNCHECKED_COUNT)
    children = [_fork_variant(variant, checked, unchecked) for variant in chosen.variants]
    if any(os.waitpid(child, 0)[1] for child in children):
        sys.exit(1)
    for line in () if children else checked():
        print(json.dumps(line), file=output, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
