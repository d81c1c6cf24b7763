"""A file that comes again is answered by its recipe, and with the very bytes of the whole road, whatever its numbers are."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from app.catalogue.read import operations
from app.engine.planning.build import leaves_of
from app.limits import Limits
from app.protocols.content import SAFETENSORS
from app.protocols.native import bodies, safetensors_format
from app.query import TensorData
from app.road import Reply, Request, Road
from tests.share import is_whole

# A media type that says the same in other words, so that the file is read by the whole road.
WHOLE_ROAD = f"{SAFETENSORS}; charset=utf-8"
REAL = {"float64": np.float64, "float32": np.float32}
CHANGES: tuple[Callable[[Any], Any], ...] = (
    lambda a: a,
    lambda a: a,
    lambda a: a * 1.01,
    lambda a: a * 0,
    lambda a: np.where(np.arange(a.size) == a.size - 1, np.nan, a),
    lambda a: np.where(np.arange(a.size) == 0, np.inf, a),
    lambda a: a * 1e30,
)


@pytest.fixture(scope="module")
def road() -> Road:
    return Road(Limits(), "cpu")


def asked(road: Road, body: bytes, accept: str | None, content_type: str) -> tuple[Any, ...]:
    """All that a client sees of the reply, and its labels."""
    mine = memoryview(bytearray(body))
    reply: Reply = road.answer(Request("query", "a", content_type, None, accept, mine), lambda _: None)
    return reply.status, reply.media_type, dict(reply.headers), b"".join(map(bytes, reply.buffers)), dict(reply.labels)


def file_of(query: Mapping[str, Any]) -> tuple[dict[str, TensorData], dict[str, str]]:
    """The tensors and metadata of the file that asks the same as a query in JSON."""
    read = bodies.read(memoryview(json.dumps(query).encode()), None, None, Limits())
    tensors = {f"inputs.{name}": data for name, data in leaves_of(read.inputs)}
    tensors |= {f"cotangent.{name}": data for name, data in read.cotangent.items()}
    rest = {key: value for key, value in query.items() if key not in ("inputs", "cotangent")}
    return tensors, {"query": json.dumps(rest)}


def variants(query: Mapping[str, Any], changes: tuple[Callable[[Any], Any], ...] = CHANGES) -> Iterator[bytes]:
    """The file as it is, twice, and with other numbers: near, zero, not finite, large."""
    tensors, metadata = file_of(query)
    for change in changes:
        varied = dict(tensors)
        for name, data in tensors.items():
            if data.dtype in REAL and data.data.nbytes:
                with np.errstate(all="ignore"):
                    changed = change(np.frombuffer(data.data, REAL[data.dtype])).astype(REAL[data.dtype])
                varied[name] = TensorData(data.dtype, data.shape, memoryview(changed.view(np.uint8)))
        yield b"".join(map(bytes, safetensors_format.write(varied, metadata)))


def assert_same(
    road: Road, query: Mapping[str, Any], accept: str | None = SAFETENSORS, changes: tuple[Callable[[Any], Any], ...] = CHANGES
) -> bool:
    """Each variant alike; whether the file has a recipe."""
    before = len(road.recipes)
    for body in variants(query, changes):
        repeated, whole = (asked(road, body, accept, kind) for kind in (SAFETENSORS, WHOLE_ROAD))
        if repeated != whole:
            # Some of LAPACK's drivers give other last bits from call to call: then the whole road contradicts itself.
            others = [asked(road, body, accept, WHOLE_ROAD) for _ in range(100)]
            assert repeated in others or len({other[3] for other in others}) > 1, query
    return len(road.recipes) > before


def test_operations_answer_alike_by_their_recipes(road: Road) -> None:
    """Every third of the catalogue: every one is tried in JSON, where a recipe runs alike (`tests/test_road.py`)."""
    wants = [["outputs", "vjp"], ["jacobian"], ["outputs", "jacobian", "vjp"], ["outputs"]]
    examples = list(operations().values())[::3]
    recipes = 0
    for number, operation in enumerate(examples):
        accept = None if number % 5 == 0 else SAFETENSORS
        turn = 3 + number % 4  # what is not near leads to a second look, most of the time
        changes = CHANGES if is_whole() else (*CHANGES[:3], CHANGES[turn])
        recipes += assert_same(road, {**operation.example, "want": wants[number % 4]}, accept, changes)
    assert recipes > len(examples) / 3


MLP = {
    "program": "h = relu(x @ W.T + b)\nreturn nn.functional.cross_entropy(h, t)",
    "inputs": {
        "x": [[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]],
        "W": [[0.1, 0.2, 0.3], [-0.4, 0.5, 0.6]],
        "b": [0.1, -0.1],
        "t": {"data": [1, 0], "dtype": "int64"},
    },
    "want": ["outputs", "gradient"],
    "wrt": ["W", "b"],
}


@pytest.mark.parametrize(
    "query",
    [
        MLP,
        {**MLP, "want": ["jacobian", "outputs"]},
        {**MLP, "want": ["jacobian"], "format": "auto"},
        {**MLP, "want": ["outputs", "gradient"], "seed": 1},
        {**MLP, "want": ["outputs", "gradient"], "timeout_s": 20},
        {**MLP, "want": ["hessian"]},
        {"program": "x.add_(1)\nreturn x * y", "inputs": {"x": [1.0, 2.0], "y": [3.0, 4.5]}, "want": ["outputs", "vjp"]},
        {"program": "return x.T, x", "inputs": {"x": [[1.0, 2.0], [3.0, 4.5]]}, "want": ["outputs", "jacobian"]},
        {
            "program": "return {'a': x.sum(), 'b': y.detach(), 'c': x * y}",
            "inputs": {"x": [1.0], "y": 2.5},
            "want": ["jacobian"],
        },
        {"operation": "cat", "inputs": {"tensors": [[1.5, 2.5], [3.5]]}, "want": ["outputs", "vjp"]},
        {"operation": "mul", "inputs": {"input": [1.5], "other": [2.5]}, "want": ["vjp"], "cotangent": {"output": [2.0]}},
    ],
    ids=lambda query: json.dumps(query)[:80],
)
@pytest.mark.parametrize("accept", [SAFETENSORS, None])
def test_programs_and_lists(query: dict[str, Any], accept: str | None) -> None:
    assert_same(Road(Limits(), "cpu"), query, accept)


@pytest.mark.parametrize("program", ["return (x @ w).tanh().sum()", "x.mul_(2)\nx += 1\nreturn (x @ w).tanh().sum()"])
def test_where_in_memory_a_file_stands_decides_nothing(program: str) -> None:
    """Tensors that begin where PyTorch's own memory would are computed with where they stand, others are copied; none is written to."""
    drawn = np.random.default_rng(1)
    arrays = {"inputs.x": drawn.standard_normal((64, 160)), "inputs.w": drawn.standard_normal((160, 200)) / 20}
    tensors = {name: TensorData("float64", a.shape, memoryview(a.tobytes())) for name, a in arrays.items()}
    query = json.dumps({"program": program, "want": ["outputs", "gradient"]})
    body = b"".join(map(bytes, safetensors_format.write(tensors, {"query": query})))
    road, answers = Road(Limits(), "cpu"), set()
    for content_type in (WHOLE_ROAD, SAFETENSORS):
        for shift in range(0, 64, 8):
            memory = np.zeros(len(body) + 128, np.uint8)
            start = -memory.__array_interface__["data"][0] % 64 + shift
            own = memory[start : start + len(body)]
            own[:] = np.frombuffer(body, np.uint8)
            for _ in range(2):
                reply = road.answer(Request("query", "a", content_type, None, SAFETENSORS, own.data), lambda _: None)
                answers.add((reply.status, b"".join(map(bytes, reply.buffers))))
            assert own.tobytes() == body
        while road.improve():
            pass
    assert [status for status, _ in answers] == [200]
    assert len(road.recipes)


def test_what_repeats_has_a_recipe() -> None:
    for query in (MLP, {**MLP, "want": ["jacobian"]}):
        assert assert_same(Road(Limits(), "cpu"), query)


def test_what_comes_often_is_proved_on_the_bytes_that_came() -> None:
    """Kept as copies, which nothing may write to, until there is time for the proof: it comes to its end."""
    query = {
        "program": "return (x.exp() * y).sum()",
        "inputs": {"x": [1.5, 2.0], "y": [3.0, 4.5]},
        "want": ["outputs", "gradient"],
    }
    road = Road(Limits(), "cpu")
    body = next(iter(variants(query)))
    for _ in range(7):
        asked(road, body, SAFETENSORS, SAFETENSORS)
    take_apart = road.taking_apart(Request("query", "a", SAFETENSORS, None, SAFETENSORS, memoryview(body)))
    parts = None if take_apart is None else take_apart(body)
    assert parts is not None
    assert parts.prepared is not None
    assert parts.prepared.recipe.came is not None
    assert parts.prepared.recipe.came.sets
    assert len(list(parts.prepared.recipe.proving(parts.prepared.recipe.came.sets, "exact"))) > 1
    for _ in range(12):
        assert assert_same(road, query) is False  # no recipe is added
        while road.improve():
            pass


def test_a_file_that_is_only_like_another_is_read_for_itself(road: Road) -> None:
    """The same header over fewer or more bytes, another order, holes, and names that are no places."""
    body = next(iter(variants(MLP)))
    for _ in range(3):
        assert asked(road, body, SAFETENSORS, SAFETENSORS)[0] == 200
    length = int.from_bytes(body[:8], "little")
    header = json.loads(body[8 : 8 + length])
    others = [body[:-1], body + b"\0", body[:8], b"", body[: 8 + length]]
    for change in (
        {"inputs.b": {**header["inputs.b"], "dtype": "I64"}},
        {"inputs.b": {**header["inputs.b"], "data_offsets": [0, 16]}},
        {"inputs.b": {**header["inputs.b"], "data_offsets": [0.0, 16]}},
        {"inputs.b": {**header["inputs.b"], "shape": [1, 2]}},
        {"elsewhere.b": header["inputs.b"]},
        {"__metadata__": {**header["__metadata__"], "complex": '["inputs.W"]'}},
        {"inputs.b": None},
    ):
        text = json.dumps({**header, **change}).encode()
        others.append(len(text).to_bytes(8, "little") + text + body[8 + length :])
    for other in others:
        for _ in range(3):
            assert asked(road, other, SAFETENSORS, SAFETENSORS) == asked(road, other, SAFETENSORS, WHOLE_ROAD)
    assert asked(road, body, SAFETENSORS, SAFETENSORS)[0] == 200
