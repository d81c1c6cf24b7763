"""A query that comes again is answered by its recipe, and with the very bytes of the whole road, whatever its numbers are."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.catalogue.read import operations
from app.engine.recipes import PreparedReply
from app.limits import Limits
from app.road import Reply, Request, Road
from benchmarks.first_answers import HAS_WEIGHTS, PROGRAMS
from tests.program.test_random_programs import programs
from tests.share import is_whole

# A media type that says the same in other words, so that the body is read by the whole road.
WHOLE_ROAD = "application/json; charset=utf-8"


@pytest.fixture
def road() -> Road:
    return Road(Limits(), "cpu")


def reply_of(road: Road, query: Any, content_type: str | None = "application/json") -> tuple[Any, ...]:
    """All that a client sees of the reply, and its labels."""
    body = query if isinstance(query, bytes) else json.dumps(query).encode()
    reply: Reply = road.answer(Request("query", "a", content_type, None, "*/*", memoryview(body)), lambda _: None)
    return reply.status, reply.media_type, dict(reply.headers), b"".join(map(bytes, reply.buffers)), dict(reply.labels)


# Road → what it says of a body by the whole road: a third of the tests below went by in asking that again.
_BY_THE_WHOLE_ROAD: WeakKeyDictionary[Road, dict[bytes, tuple[Any, ...]]] = WeakKeyDictionary()


def by_the_whole_road(road: Road, query: Any) -> tuple[Any, ...]:
    body = query if isinstance(query, bytes) else json.dumps(query).encode()
    known = _BY_THE_WHOLE_ROAD.setdefault(road, {})
    if body not in known:
        known[body] = reply_of(road, body, WHOLE_ROAD)
    return known[body]


def assert_same(road: Road, query: Any) -> None:
    repeated = reply_of(road, query)
    if repeated == by_the_whole_road(road, query):
        return
    # Some of LAPACK's drivers (`lstsq`) give other last bits from call to call: then the whole road contradicts itself.
    whole = [reply_of(road, query, WHOLE_ROAD) for _ in range(100)]
    assert any(repeated == other for other in whole) or len({other[3] for other in whole}) > 1, query


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """The tensor with other numbers."""
    if isinstance(value, list):
        return [mapped(member, change) for member in value]
    if isinstance(value, dict):
        return {**value, "data": mapped(value["data"], change)} if value.get("encoding") is None else value
    return change(value) if type(value) in (int, float) else value


def variants(query: dict[str, Any], seed: int) -> Iterator[dict[str, Any]]:
    """The query as it is, twice, and with other numbers: near, and by turns far, singular, overflowing, not finite, whole and mixed.

    Those of the second kind lead to a second look in 360 digits, two thirds of the time: of each seed a sixth of them.
    """
    number = random.Random(seed)
    near: Callable[[Any], Any] = lambda v: v * number.uniform(0.9, 1.1) if type(v) is float else v  # noqa: E731
    changes: list[Callable[[Any], Any]] = [
        lambda v: v,
        lambda v: v,
        near,
        near,
        lambda v: v * 0,
        lambda v: v * 1e160 if type(v) is float else v + 1,
        lambda v: number.choice((v, 0.0, 1e308, -5e-324)) if type(v) is float else v * 3,
        lambda v: number.choice((v, "NaN", "Infinity")) if type(v) is float else v,
        lambda v: round(v),
        lambda v: number.choice((v, float(v), 1 << 60)),
        near,
    ]
    for index, change in enumerate(changes):
        if change is not near and index > 1 and (seed + index) % 6 and not is_whole():
            continue
        varied = copy.deepcopy(query)
        for field in ("inputs", "cotangent", "tangent"):
            if field in varied:
                varied[field] = {name: mapped(value, change) for name, value in varied[field].items()}
        yield varied


def proved(road: Road, query: dict[str, Any], seed: int) -> PreparedReply | None:
    """What is prepared for queries like this one, asked until its joint graph is proved or is not; None where nothing is."""
    parts = None
    for near in range(12):
        body = json.dumps(list(variants(query, seed + near))[2]).encode()
        request = Request("query", "a", "application/json", None, "*/*", memoryview(body))
        road.answer(request, lambda _: None)
        take_apart = road.taking_apart(request)
        parts = None if take_apart is None else take_apart(body)
    while road.improve():
        pass
    return None if parts is None else parts.prepared


def assert_joint_graphs_same(road: Road, query: dict[str, Any], seed: int) -> tuple[bool, bool]:
    """Of a query and its variants, singly and in stacks; whether it has a joint graph, and stacks."""
    prepared = proved(road, query, seed)
    if prepared is None or prepared.recipe.joint.single is None:
        return False, False
    alike = [v for number in range(3) for v in variants(query, seed + number)]
    for varied in alike[:11]:
        assert_same(road, varied)
    if not prepared.recipe.joint.stacks:
        return True, False
    taken, bodies = [], []
    for varied in alike:
        body = json.dumps(varied).encode()
        request = Request("query", "a", "application/json", None, "*/*", memoryview(body))
        take_apart = road.taking_apart(request)
        parts = None if take_apart is None else take_apart(body)
        if parts is not None and parts.prepared is prepared:
            taken.append(parts.repetition)
            bodies.append(varied)
    for count in (2, 3, len(taken)):
        best = prepared.recipe.stacks.best(count)
        if best > 1:
            for varied, reply in zip(bodies, road.repeated_together(prepared, taken[:best]), strict=False):
                if reply is not None:
                    body = b"".join(map(bytes, reply.buffers))
                    assert body == by_the_whole_road(road, varied)[3], varied
    return True, True


def assert_all_same(road: Road, query: dict[str, Any], seed: int) -> bool:
    """Of a query and its variants; whether it has a recipe. Without one there is nothing to compare but the whole road with itself."""
    before = len(road.recipes)
    for index, varied in enumerate(variants(query, seed)):
        assert_same(road, varied)
        if index == 1 and len(road.recipes) == before:
            return False
    return True


@pytest.mark.parametrize("part", range(4))
def test_every_operation_answers_alike_by_its_recipe(part: int, road: Road) -> None:
    wants = [
        ["outputs", "vjp"], ["vjp"], ["outputs"], ["outputs", "vjp", "gradient"], ["jacobian"], ["jacobian", "outputs"], ["jvp"],
        ["jvp", "outputs"],
    ]  # fmt: skip
    recipes = joint_graphs = stacks = 0
    examples = list(operations().values())[part::4]
    for seed, operation in enumerate(examples):
        recipes += assert_all_same(road, {**operation.example, "want": wants[seed % 10 if seed % 10 < len(wants) else 0]}, seed)
        if seed % (2 if is_whole() else 12) == 0:  # each takes as long as all before it
            has_graph, has_stacks = assert_joint_graphs_same(road, {**operation.example, "want": ["outputs", "vjp"]}, seed)
            joint_graphs += has_graph
            stacks += has_stacks
        elif seed % (8 if is_whole() else 24) == 1:
            assert_joint_graphs_same(road, {**operation.example, "want": ["jacobian"]}, seed)
    assert recipes > len(examples) / 2
    # How many have them is a matter of measured time, and so of the machine.
    assert joint_graphs
    assert stacks


@settings(max_examples=25 if is_whole() else 8, deadline=None)
@given(program=programs(), seed=st.integers(0, 1000))
def test_programs_answer_alike_by_their_recipes(program: tuple[str, Any], seed: int) -> None:
    query = {
        "program": program[0],
        "inputs": {"x": [[0.3, -1.2, 0.7], [1.1, 0.4, -0.6]], "y": [0.9, -0.2, 1.4], "s": 0.75},
        "parameters": {"n": 3},
        "want": ["outputs", "vjp"],
    }
    road = Road(Limits(), "cpu")
    assert assert_all_same(road, query, seed) or reply_of(road, query)[0] != 200
    assert_joint_graphs_same(road, query, seed)


SECOND = (
    "((1 - x[:-1]) ** 2 + 100 * (x[1:] - x[:-1] ** 2) ** 2).sum()", "(x * y).sum()", "tanh(x * y).sum()", "x[0] * x[1] * y[2]",
    "relu(x).sum() + (y ** 3).sum()", "(3 * x).sum() + (y ** 2).sum()", "(3 * x).sum() + y.sum()", "x.norm() * y.prod()",
    "softmax(x, 0) @ y.cumsum(0)", "logsumexp(x * 3, 0) + (y ** 4).mean()", "(x.sort()[0] * y).sum()", "x.var() + sqrt(y * y + 1).sum()",
    "linalg.det(outer(x, y) + 2 * eye(3))", "x.detach() @ y ** 2", "(x * 2.0).sum()", "y.sum() if x.sum() > 100 else (x ** 4).sum()",
)  # fmt: skip


# To prove a joint graph and compare it takes as long as all before it: of each program those of every fifth of these.
@pytest.mark.parametrize("program", SECOND)
def test_second_derivatives_answer_alike_by_their_recipes(program: str) -> None:
    query = {"program": program, "inputs": {"x": [0.3, -1.2, 0.7], "y": [0.9, -0.2, 1.4]}}
    tangents = {"x": [1.0, -0.5, 2.0], "y": [0.1, 0.2, -0.3]}
    recipes = 0
    for seed, (want, tangent) in enumerate(
        [
            (["hessian"], None),
            (["hvp"], tangents),
            (["hvp"], {"y": tangents["y"]}),
            (["hvp", "outputs"], None),
            (["hvp", "gradient"], {"x": [tangents["x"], tangents["x"]], "y": [tangents["y"], tangents["y"]]}),
            (["outputs", "gradient", "hessian", "hvp"], dict(reversed(tangents.items()))),
            (["jvp"], tangents),
            (["jvp", "outputs"], {"y": tangents["y"]}),
            (["jvp", "hvp"], None),
            (["jvp", "vjp"], tangents),
        ]
    ):
        road = Road(Limits(), "cpu")
        asked = {**({} if tangent is None else {"tangent": tangent}), **query, "want": want}
        recipes += assert_all_same(road, asked, seed)
        if is_whole() or (seed + SECOND.index(program)) % 5 == 0:
            assert_joint_graphs_same(road, asked, seed)
    assert recipes >= 3 or " if " in program


SOFTMAX = {
    "operation": "softmax",
    "inputs": {"input": [0.1, 0.2, 0.7]},
    "parameters": {"dim": 0},
    "want": ["vjp"],
    "cotangent": {"output": [1.0, 0.0, 2.5]},
}


@pytest.mark.parametrize(
    "query",
    [
        # Equal in Python, and something else in JSON.
        {**SOFTMAX, "parameters": {"dim": False}},
        {**SOFTMAX, "parameters": {"dim": 0.0}},
        {**SOFTMAX, "want": "['vjp']"},
        {**SOFTMAX, "want": ["vjp", "vjp"]},
        {**SOFTMAX, "wrt": []},
        {**SOFTMAX, "dtype": "float32"},
        {**SOFTMAX, "encoding": "base64"},
        {**SOFTMAX, "seed": 1},
        {**SOFTMAX, "tangent": {"input": [0.1, 0.2, 0.7]}},
        {**SOFTMAX, "want": ["jvp"], "tangent": {"input": [0.1, 0.2, 0.7]}},
        {**SOFTMAX, "timeout_s": 5},
        {**SOFTMAX, "timeout_s": -5},
        {**SOFTMAX, "unknown": None},
        {**SOFTMAX, "cotangent": {"output": [1, 0, 2]}},
        {**SOFTMAX, "cotangent": {"output": [1, 0, 2.5]}},
        {**SOFTMAX, "cotangent": {"output": [[1.0, 0.0, 2.5]]}},
        {**SOFTMAX, "cotangent": {"output": [1.0, 0.0]}},
        {**SOFTMAX, "cotangent": {"other": [1.0, 0.0, 2.5]}},
        {**SOFTMAX, "cotangent": {"input": [1.0, 0.0, 2.5]}},
        {**SOFTMAX, "cotangent": {"output": {"data": [1.0, 0.0, 1e39], "dtype": "float32"}}},
        {**SOFTMAX, "inputs": {"input": {"data": [1.0, 0.0, 1e39], "dtype": "float32"}}},
        {**SOFTMAX, "inputs": {"input": {"data": [1, 2, 3], "dtype": "int64"}}},
        {**SOFTMAX, "inputs": {"input": [0.1, 0.2, None]}},
        {**SOFTMAX, "inputs": {"input": [0.1, 0.2, True]}},
        {**SOFTMAX, "inputs": {"input": [0.1, 0.2, 10**400]}},
        {**SOFTMAX, "inputs": {"input": [1, 2, (1 << 53) + 1]}},
        {**SOFTMAX, "inputs": {"self": [0.1, 0.2, 0.7]}},
        {**SOFTMAX, "inputs": {"input.0": [0.1, 0.2, 0.7]}},
        {"operation": "hstack", "inputs": {"tensors": [[1, 2], [3, 4.5]]}, "want": ["outputs", "vjp"]},
        {"operation": "hstack", "inputs": {"tensors": [[1, 2.5], [3, 4.5]]}, "want": ["outputs", "vjp"]},
        {"operation": "cat", "inputs": {"tensors.0": [1.0, 2.5], "tensors.1": [3.5, 4.5]}, "want": ["outputs", "vjp"]},
        {"operation": "mul", "inputs": {"input": 2.5, "other": [1.0, 3.5]}, "want": ["outputs", "vjp"]},
        {"operation": "linalg.det", "inputs": {"A": [[1.0, 2.0], [2.0, 4.0]]}, "want": ["outputs", "vjp"]},
        {"program": "x * 2 if x.sum() > 1 else x", "inputs": {"x": [1.0, 2.0]}, "want": ["outputs", "vjp"]},
        {"program": "x + rand(2)", "inputs": {"x": [1.0, 2.0]}, "want": ["outputs"], "seed": 3},
        {"program": "x + y.detach()", "inputs": {"x": [1.0, 2.0], "y": 2.0}, "want": ["vjp"]},
        {
            "program": "return {'a': x.sum(), 'b': x * y}",
            "inputs": {"x": [1.0, 2.0], "y": 2.0},
            "of": "a",
            "want": ["gradient", "vjp"],
        },
        {"function": "rosenbrock", "inputs": {"x": [0.5, 1.5]}, "want": ["outputs", "gradient"]},
    ],
    ids=lambda query: json.dumps(query)[:90],
)
def test_a_query_that_is_only_like_another_is_read_for_itself(query: dict[str, Any]) -> None:
    road = Road(Limits(), "cpu")
    for _ in range(2):
        assert_same(road, SOFTMAX)
    assert len(road.recipes) == 1
    for _ in range(4):
        assert_same(road, query)


@pytest.mark.parametrize(
    "text",
    [
        b'{"operation": "softmax", "inputs": {"input": [0.1, 0.2, 1e999]}, "parameters": {"dim": 0}, "want": ["vjp"]}',
        b'{"operation": "softmax", "inputs": {"input": [0.1, 0.2, NaN]}, "parameters": {"dim": 0}, "want": ["vjp"]}',
        b'{"operation": "softmax", "inputs": {"input": [0.1, 0.2, 0.3]}, "parameters": {"dim": 1e999}, "want": ["vjp"]}',
        b'{"operation": "softmax", "inputs": {"input": [0.1, 0.2, 0.3]}, "parameters": {"dim": 0}, "want": ["vjp"], "want": ["vjp"]}',
        b'{"operation": "softmax", "inputs": {"input": [0.1, 0.2, 0.3]}, "parameters": {"dim": 0}, "want": ["vjp"]} x',
        b'{"operation": "softmax", "inputs": {"input": [0.1, 0.2, 0.3]}, "parameters": {"dim": 0}, "want": ["vjp"], "of": "\\ud800"}',
        b'\xef\xbb\xbf{"operation": "softmax", "inputs": {"input": [0.1, 0.2, 0.3]}, "parameters": {"dim": 0}, "want": ["vjp"]}',
        b"[]", b"", b"7",
    ],
)  # fmt: skip
def test_a_text_that_is_only_like_another_is_read_for_itself(text: bytes, road: Road) -> None:
    query = b'{"operation": "softmax", "inputs": {"input": [0.1, 0.2, 0.3]}, "parameters": {"dim": 0}, "want": ["vjp"]}'
    for body in (query, query, query, text, text, text, query):
        assert_same(road, body)


def tensor(data: list[Any], dtype: str = "float64") -> dict[str, Any]:
    return {"data": data, "dtype": dtype}


SPLIT = {"operation": "tensor_split", "want": ["outputs"]}
SPLIT_PROGRAM = {
    "program": "a = x * x\nb = a + x\nreturn (torch.tensor_split(b, i)[0] * 2).sum()",
    "want": ["outputs", "gradient"],
}
DROPOUT = {"operation": "dropout", "want": ["outputs"]}
PRECISION = {"program": "return ((x*x).sum()/4 - (x.sum()/4)**2).log()", "want": ["precision"]}


@pytest.mark.parametrize(
    "queries",
    [
        [
            {
                **SPLIT,
                "inputs": {"input": tensor([1.0, 2.0, 3.0, 4.0, 5.0]), "tensor_indices_or_sections": tensor(places, "int64")},
            }
            for places in ([1, 3], [2, 3], [1, 1])
        ],
        [
            {**SPLIT_PROGRAM, "inputs": {"x": tensor([0.5 + k, 2.0, 3.0, 4.0, 5.0]), "i": tensor([place], "int64")}}
            for k, place in enumerate([2] * 14 + [3])
        ],
        [{**DROPOUT, "inputs": {"input": tensor(data)}} for data in ([], [1.0, 2.0, 3.0, 4.0])],
        [
            {**PRECISION, "inputs": {"x": tensor(data)}}
            for data in ([1.0, 2.0, 3.0, 4.0, 7.0], [1000001.0, 1000002.1, 1000003.3, 1000004.25])
        ],
    ],
    ids=["places that values decide", "the same in a joint graph", "nothing to draw", "another number of elements"],
)
def test_what_was_asked_before_decides_nothing(queries: list[dict[str, Any]]) -> None:
    before = Road(Limits(), "cpu")
    for query in queries[:-1]:
        reply_of(before, query)
        while before.improve():
            pass
    assert reply_of(before, queries[-1]) == reply_of(Road(Limits(), "cpu"), queries[-1])


@pytest.mark.parametrize("title", PROGRAMS)
def test_a_program_answers_alike_whatever_shapes_came_before(title: str) -> None:
    """Loops, modules, functions in functions: what was learnt of other shapes changes no byte, by recipes neither."""
    text, inputs_of = PROGRAMS[title]
    query = {"program": text, "want": ["outputs", "gradient"], **({"seed": 0} if HAS_WEIGHTS.search(text) else {})}
    before = Road(Limits(), "cpu")
    for extent in (5, 3, 8, 3, 8, 8):
        asked = {**query, "inputs": inputs_of(extent)}
        reply = reply_of(before, asked)
        assert reply[0] == 200
        assert reply == reply_of(Road(Limits(), "cpu"), asked)
