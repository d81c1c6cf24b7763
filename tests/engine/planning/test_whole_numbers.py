"""Whole numbers sent bare: no digit of an output is lost without a note, and no note where none can be."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
import torch

from app.engine.planning.whole_numbers import WholeNumbers
from app.engine.tensors import from_torch
from app.limits import Limits
from app.query import Query
from app.road import Request, Road
from tests.engine.asking import ENGINE, ask, data

BIG = 2**53
# Program, its input, and whether whole numbers reach 2^53 on the way.
CASES: list[tuple[str, Any, bool]] = [
    ("x.sum()", [BIG, 1], True),
    ("x.sum()", [BIG - 1, 0], False),
    ("x * x", 2**27 + 1, True),
    ("x * x", 2**26, False),
    ("(x * x) % 10", 2**27 + 1, True),
    ("x ** 3 - x ** 3", 2**18 + 1, True),
    ("x.prod()", [2**30 + 1, 2**30 + 1], True),
    ("x.cumsum(0)[0]", [1, BIG], True),
    ("x @ x", [2**26, 2**26], False),
    ("x @ x", [2**27 + 1, 2], True),
    ("x - 1 + 1", BIG, False),
    ("x + 1 - 1", BIG, True),
    ("x.sum()", [BIG, 1, -BIG], True),
    ("x.sum()", [BIG // 2, 1, -BIG // 2 + 1], False),
    ("x.sum()", [2**52, 1, -(2**52)], False),
    ("x.sum()", [BIG // 4, 1, -BIG // 4], False),
    ("x.cumsum(0)[-1]", [BIG, 1, -BIG], True),
    ("x @ x.flip(0)", [2**27 + 1, 1 - 2**27], True),
    ("x @ x.flip(0)", [2**20, -(2**20)], False),
    ("y = x * 1\ny.index_add_(0, zeros(3).long(), x)\nreturn y[0]", [BIG - 3, 5, -BIG + 3], True),
    ("linalg.cross(x, x)", [2**27 + 1, -(2**27) - 3, 2**26 + 1], True),
    ("linalg.cross(x, x)", [2**20 + 1, -(2**20) - 3, 2**20], False),
    ("conv_tbc(x.view(2, 1, 1), x[:1].view(1, 1, 1), x[:1] * 0)", [2**27 + 1, 1], True),
    ("x + 9007199254740993", 0, True),
    ("x.view(1, 1, -1).expand(2, 1, 2).bmm(x.view(1, 2, 1).expand(2, 2, 1))", [2**27, 1], True),
    ("y = x.clone()\ny *= x\nreturn y.max() > 3", [2**27 + 1, 1], True),
    ("linalg.vector_norm(x, 1)", [BIG - 1, 1], True),
    ("linalg.vector_norm(x)", [BIG - 1, 1], False),
    ("linalg.vector_norm(x, float('inf'))", [BIG - 1, 1], False),
    ("x.norm(p=1)", [BIG - 1, 1], True),
    ("linalg.matrix_norm(x.view(2, 1), 1)", [BIG - 1, 1], True),
    ("dist(x, -x, 1)", [2**52, 0], True),
    ("cdist(x.view(2, 1), -x.view(2, 1), p=1)", [2**52, 0], True),
    ("nn.functional.mse_loss(x, x * 0, reduction='sum')", [2**27, 1], True),
    ("nn.functional.mse_loss(x, x * 0)", [2**27, 1], False),
    ("zeros(2).double().index_put((zeros(2).long(),), x, accumulate=True)", [BIG - 1, BIG - 2], True),
    ("zeros(2).double().index_put((zeros(2).long(),), x)", [BIG - 1, BIG - 1], False),
    ("zeros(2).double().put(zeros(2).long(), x, accumulate=True)", [BIG - 1, BIG - 2], True),
    ("zeros(2).double().put(zeros(2).long(), x)", [BIG - 1, BIG - 1], False),
    ("zeros(2).double().scatter(0, zeros(2).long(), x, reduce='add')", [BIG - 1, BIG - 2], True),
    ("ldexp(x, ones(1).long())", [2**52], True),
    ("1 - exp(x * 0) * 2.0**60", [1, 2], False),
    ("x + finfo(float64).max", [1, 2], False),
    ("x * 2.0**52", [2, 3], False),
    ("x * 2.0**52 + 1", [2, 3], True),
    ("x == x", BIG, False),
    ("x.sort()[0]", [BIG, 3], False),
    ("exp(x) * 2 + 1", 60, False),
    ("x * 0.5", 2**54, False),
    ("x / 3", BIG, False),
    ("softmax(x, 0)", [1, 2], False),
    ("sqrt(x) * 2", 2**40, False),
    ("x * 2 + 1", BIG, True),  # what is exact beyond is still watched
    ("x.mean()", [1, 2, 4], False),
    ("x.mean()", [2**52, 1, -(2**52)], False),
    ("x.mean()", [BIG, 3, -BIG], True),
    ("x.view(2, 3).mean(1)", [1, 2, 3, BIG, 3, -BIG], True),
    ("x.double().mean()", [BIG, 3, -BIG], True),
    ("linalg.det(x.view(2, 2))", [1, 2, 3, 4], False),
    ("linalg.det(x.view(2, 2))", [10**8 + 1, 10**8, 10**8, 10**8 - 1], True),
    ("x.view(3, 3).det()", [20, 41, -32, -8, -46, 32, -21, 18, -6], True),
    ("x.view(3, 3).det()", [0, 2, 3, 4, 0, 6, 7, 8, 0], False),
    ("x.view(3, 3).det()", [2, 0, 0, 0, 3, 0, 0, 0, 5], False),
]


@pytest.mark.parametrize(("program", "x", "noted"), CASES, ids=[f"{program} of {x}" for program, x, _ in CASES])
def test_what_reaches_beyond_is_noted(program: str, x: Any, noted: bool) -> None:
    codes = [note.code for note in ask(program=program, inputs={"x": x}, want=["outputs"]).notes]
    assert ("rounded" in codes) == noted


# Program, its input in a dtype of whole numbers, and whether a result leaves it.
WRAPPING: list[tuple[str, str, Any, bool]] = [
    ("x.prod()", "int64", [2**62, 4], True),
    ("x.prod()", "int64", [2**62, 1], False),
    ("x.prod()", "int64", [2**62, 4, 0], False),
    ("x.sum()", "int64", [2**62, 2**62], True),
    ("x.sum()", "int64", [2**62, 2**62, -(2**62)], False),
    ("x.sum()", "int64", [2**63 - 1, 0], False),
    ("x + 1", "int64", [2**63 - 1], True),
    ("x - 1 + 1", "int64", [2**63 - 1], False),
    ("x * x", "int32", [65536], True),
    ("x ** 2", "int32", [65536], True),
    ("x ** 2", "int64", [65536], False),
    ("x.sum()", "int32", [2**31 - 1, 1], False),  # the sum has 64 bits
    ("x.cumprod(0)", "int64", [2**31, 2**31, 2], True),
    ("x.cumsum(0)", "int64", [2**62, 2**62], True),
    ("x.view(2, 2) @ x.view(2, 2)", "int64", [2**32, 1, 1, 2**32], True),
    ("x.view(2, 2) @ x.view(2, 2)", "int64", [2**30, 1, 1, 2**30], False),
    ("x @ x", "int64", [2**32, 0], True),
    ("einsum('i,j->ij', x, x)", "int64", [2**32, 1], True),
    ("-x", "int64", [-(2**63)], True),
    ("abs(x)", "int8", [-128], True),
    ("x // -1", "int8", [-128], True),
    ("x // x[1]", "int8", [-128, -1], True),
    ("torch.div(x, -1, rounding_mode='floor')", "int8", [-128], True),
    ("x // -1", "int8", [-127], False),
    ("x // 2", "int8", [-128], False),
    ("x / -1", "int8", [-128], False),
    ("x - 1", "uint8", [0, 1], True),
    ("x + x", "uint8", [127], False),
    ("y = x.clone()\ny *= x\nreturn y", "int64", [2**32], True),
    ("y = x.clone()\ny.index_add_(0, zeros(2).long(), x)\nreturn y", "int64", [2**62, 2**62], True),
    ("(x * x).double()", "int64", [2**32], True),
    ("x[x.argmax()] // 2", "int64", [2**62, 3], False),
    ("x == x", "int64", [2**63 - 1], False),
    ("x << 3", "int64", [2**61], True),
    ("x.bitwise_left_shift(3)", "int32", [2**29], True),
    ("(x << 3) >> 3", "int64", [2**59], False),
    ("lcm(x, x - 1)", "int64", [2**40], True),
    ("lcm(x, x * 0)", "int64", [2**40], False),
    ("x.to(torch.int8)", "int64", [300], True),
    ("x.to(torch.uint8)", "int64", [-1], True),
    ("x.int()", "int64", [2**31 - 1], False),
    ("x.long()", "int32", [2**31 - 1], False),
    ("x.float()", "int64", [2**62], False),
    ("x.long()", "float64", [1e30, 2.5], True),
    ("x.long()", "float64", [2.0**63], True),
    ("x.long()", "float64", [-(2.0**63), 1e18], False),
    ("x.int()", "float32", [np.nan], True),
    ("x.to(torch.int8)", "float64", [127.9, -128.5], False),
    ("x.byte()", "float64", [-1.0], True),
    ("(x > 0.5).long()", "float64", [1e30], False),
    ("where(x > 0, x * x, x)", "int64", [3, -(2**62)], False),
    ("where(x > 0, x * x, x)", "int64", [2**62, 3], True),
    ("where(x > 0, x, x * x)", "int64", [3, -(2**62)], True),
    ("y = x * x\nwhere(x > 0, y, x) + y", "int64", [3, -(2**62)], True),
    ("y = x * x\nreturn y, where(x > 0, y, x)", "int64", [3, -(2**62)], True),
]


@pytest.mark.parametrize(("program", "dtype", "x", "noted"), WRAPPING, ids=[f"{p} of {x}, {d}" for p, d, x, _ in WRAPPING])
def test_what_wraps_around_is_noted(program: str, dtype: str, x: Any, noted: bool) -> None:
    inputs = {"x": data(np.array(x, dtype=dtype), bare=False)}
    notes = ENGINE.answer(Query(program=program, inputs=inputs, want=("outputs",))).notes
    assert [note.code for note in notes] == ["overflow"] * noted


# A comparison, whole and floating numbers with their dtypes, and whether it comes out so by rounding alone.
COMPARED: list[tuple[str, int, str, float, str, bool]] = [
    ("n == x", BIG + 1, "int64", float(BIG), "float64", True), ("n == x", BIG, "int64", float(BIG), "float64", False),
    ("x < n", BIG + 1, "int64", float(BIG), "float64", True), ("n < x", BIG + 1, "int64", float(BIG), "float64", False),
    ("n >= x", 16777217, "int32", 16777216.0, "float32", False), ("x >= n", 16777217, "int32", 16777216.0, "float32", True),
    ("n != x", 5, "int64", 5.5, "float64", False), ("n > x", -3, "int64", -3.5, "float64", False),
    ("n == x", 2**63 - 1, "int64", np.inf, "float64", False), ("n <= x", 1, "int64", np.nan, "float64", False),
]  # fmt: skip


@pytest.mark.parametrize(("program", "n", "whole", "x", "floating", "is_noted"), COMPARED)
def test_a_comparison_that_rounding_decides_is_noted(
    program: str, n: int, whole: str, x: float, floating: str, is_noted: bool
) -> None:
    inputs = {"n": data(np.array([n], dtype=whole), bare=False), "x": data(np.array([x], dtype=floating), bare=False)}
    notes = ENGINE.answer(Query(program=program, inputs=inputs, want=("outputs",))).notes
    assert [note.code for note in notes] == ["rounded"] * is_noted


# Program of x and n, the whole numbers n, and whether they wrap around on the way to a derivative by x.
BESIDE_DERIVATIVES: list[tuple[str, list[int], bool]] = [
    ("(n * n).sum().to(x.dtype) * x[0]", [2**32, 1], True),
    ("(n * n).sum() * x[0]", [2**31, 1], False),
    ("x[(n[0] * n[1]) % 2] ** 2", [2**40, 2**40], True),
    ("where(n * n > 0, x, -x).sum()", [2**32, 1], True),
    ("arange(1, 25).prod() * x.sum() + n[0]", [1, 1], True),
    ("arange(1, 20).prod() * x.sum() + n[0]", [1, 1], False),
    ("m = n * n\nreturn (x * n).sum()", [2**32, 1], False),
    ("x[n[0]] * n[1]", [1, 2**62], False),
    ("(where(n > 0, n * n, n) * x).sum()", [3, -(2**62)], False),
    ("(where(n > 0, n * n, n) * x).sum()", [2**62, 3], True),
    ("((x.detach() * 1e30).long() % 3 * x + n).sum()", [1, 1], True),
    ("k = x.argsort() + n\nreturn (k * x).sum()", [2**63 - 1, 2**63 - 1], True),
]


@pytest.mark.parametrize("want", [("gradient",), ("outputs", "gradient"), ("jacobian",), ("hessian",)])
@pytest.mark.parametrize("batch", [0, 2])
@pytest.mark.parametrize(("program", "n", "noted"), BESIDE_DERIVATIVES, ids=[program for program, _, _ in BESIDE_DERIVATIVES])
def test_what_wraps_around_on_the_way_to_a_derivative_is_noted(
    program: str, n: list[int], noted: bool, batch: int, want: tuple[Any, ...]
) -> None:
    x = np.array([0.5, 2.0])
    inputs = (
        {"x": data(np.stack([x] * batch)), "n": data(np.stack([np.ones(2, int), n]))} if batch else {"x": data(x), "n": data(n)}
    )
    query = Query(program=program, inputs=inputs, want=want, wrt=("x",), batched=("x", "n") if batch else ())
    assert ("overflow" in [note.code for note in ENGINE.answer(query).notes]) == noted


def test_a_recipe_of_derivatives_is_kept_from_those_alone_that_may_wrap_around() -> None:
    for program, has_recipe in (("x[n[0]]", True), ("(n * n).sum() * x[0]", False), ("(arange(2) + 1) @ n * 1.0 * x[0]", False),
                                ("((arange(2) + 1) * x).sum()", True)):  # fmt: skip
        query = Query(program=program, inputs={"x": data([1.0, 2.0]), "n": data([0, 1])}, want=("gradient",), wrt=("x",))
        ENGINE.answer(query)
        assert (ENGINE.recipe(query, None) is not None) == has_recipe, program


@pytest.mark.parametrize("batch", [1, 3, 40])
def test_a_sample_of_a_batch_is_noted_too(batch: int) -> None:
    x = [[3, 4]] * (batch - 1) + [[BIG, 1]]
    answer = ask(program="x.sum()", inputs={"x": x}, batched=("x",), want=["outputs"])
    assert "rounded" in [note.code for note in answer.notes]


def test_whole_numbers_of_64_bits_are_computed_with_as_they_are() -> None:
    query = Query(program="x.sum()", inputs={"x": data([BIG, 1], bare=False)}, want=("outputs",))
    answer = ENGINE.answer(query)
    assert not answer.notes
    assert int.from_bytes(bytes(answer.results["outputs"]["output"].data), "little") == BIG + 1


@pytest.mark.parametrize("bare", [True, False])
@pytest.mark.parametrize(
    ("program", "has_recipe"), [("softmax(x.double(), 0)", True), ("x.sort()[0]", True), ("x * x", False), ("x.sum()", False)]
)
def test_no_recipe_of_what_numbers_decide(program: str, has_recipe: bool, bare: bool) -> None:
    """A recipe answers without looking; whether digits are lost hangs on the numbers."""
    query = Query(program=program, inputs={"x": data([1, 2], bare=bare)}, want=("outputs",))
    ENGINE.answer(query)
    assert (ENGINE.recipe(query, None) is not None) == has_recipe


@pytest.mark.parametrize(
    ("program", "first", "second"),
    [
        ("x.mean() * y", {"x": [1, 2], "y": [3]}, {"x": [3, 3], "y": [2**52 + 1]}),
        ("(x / y) * z", {"x": [1], "y": [2], "z": [3]}, {"x": [6], "y": [2], "z": [2**52 + 1]}),
        ("exp(x) * y * 3", {"x": [1], "y": [3]}, {"x": [0], "y": [2**52 + 1]}),
        ("sqrt(x).sum() * y", {"x": [1, 2], "y": [3]}, {"x": [1, 4], "y": [2**52 + 1]}),
        ("x.sort()[0]", {"x": [2, 1]}, {"x": [2**53 + 1, 1]}),
        ("(x * 0.5) ** 2", {"x": [1]}, {"x": [2**28 + 2]}),
    ],
)
def test_a_recipe_says_no_less_than_the_whole_road(program: str, first: dict[str, Any], second: dict[str, Any]) -> None:
    """The numbers that it is made of need not be whole on the way where the next ones are."""
    road = Road(Limits(), "cpu")

    def codes(inputs: dict[str, Any]) -> list[str]:
        query = orjson.dumps({"program": program, "inputs": inputs, "want": ["outputs"]})
        reply = road.answer(Request("query", "a", None, None, None, memoryview(query)), lambda _: None)
        return [note["code"] for note in orjson.loads(b"".join(reply.buffers)).get("notes", [])]

    assert [codes(first) for _ in range(4)] == [[]] * 4
    assert codes(second) == ["rounded"]


def test_derivatives_are_not_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for derivatives alone computes with real numbers."""
    monkeypatch.setattr(WholeNumbers, "__enter__", None)
    answer = ask(program="(x * x).sum()", inputs={"x": [2**27, 1]}, want=["gradient"])
    assert not answer.notes


@pytest.mark.parametrize("want", ["gradient", "vjp", "jvp", "hvp", "jacobian", "explain"])
@pytest.mark.parametrize("batch", [0, 3])
def test_outputs_beside_a_derivative_are_noted(want: str, batch: int) -> None:
    """The steps of the derivative are none of the output's: 2**27 is squared there, and doubled alone here."""
    if batch and want == "explain":
        pytest.skip("of one point")
    fields: dict[str, Any] = {"batched": ("x",)} if batch else {}
    for program, number, noted in (("x * x", 3037000501, True), ("x * x", 3, False), ("x * 2**27", 2**20, False)):
        if want == "hvp" and program != "x * x":
            continue
        x = [number] * batch if batch else number
        answer = ask(program=program, inputs={"x": x}, want=["outputs", want], **fields)
        assert ("rounded" in [note.code for note in answer.notes]) == noted, (program, number)


def test_a_recipe_of_outputs_beside_a_derivative_is_kept_from_those_alone_that_may_lose_digits() -> None:
    for program, numbers, has_recipe in (
        ("(x * x).sum()", [1, 2], False),
        ("(x * x).sum()", [1.0, 2.0], True),
        ("softmax(x, 0)[0]", [1, 2], True),
    ):
        query = Query(program=program, inputs={"x": data(numbers)}, want=("outputs", "gradient"))
        ENGINE.answer(query)
        assert (ENGINE.recipe(query, None) is not None) == has_recipe, program


@pytest.mark.parametrize(
    ("operation", "numbers", "is_noted"),
    [
        ("masked.median", [16777217, 16777217, 1], True),
        ("masked.logsumexp", [1, 2, 3], True),
        ("masked.amax", [16777217, 1], False),
        ("masked.median", [1.0, 2.0], False),
    ],
)
def test_whole_numbers_that_are_floating_in_between_are_noted(operation: str, numbers: list[float], is_noted: bool) -> None:
    x = torch.tensor(numbers, dtype=torch.float64 if isinstance(numbers[0], float) else torch.int64)
    answer = ENGINE.answer(Query(operation=operation, inputs={"input": from_torch(x)}, parameters={"dim": 0}))
    assert ("rounded" in [note.code for note in answer.notes]) == is_noted
