"""Witnesses: a query whose numbers decide on a note is answered by a recipe where they exclude it, and by the whole road where they do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
import torch

from app.catalogue.facts import operations_with, short
from app.catalogue.read import operations
from app.limits import Limits
from app.road import Request, Road
from tests.engine.stepwise.test_conditioning import HALF, Matrix, with_condition

MATRICES = {
    "inv": "(linalg.inv(A) ** 2).sum()",
    "inverse": "A.inverse()[0].sum()",
    "inv_ex": "linalg.inv_ex(A).inverse.sum()",
    "solve": "linalg.solve(A, ones(3, 1).to(A.dtype)).sum()",
    "det": "linalg.det(A)",
    "slogdet": "linalg.slogdet(A).logabsdet",
    "logdet": "logdet(A.mT @ A)",
    "pinv": "linalg.pinv(A)[0].sum()",
    "qr": "(linalg.qr(A)[0] ** 3).sum()",
    "lu": "(linalg.lu(A)[2] ** 2).sum()",
    "svd": "(linalg.svd(A)[0][0, 0] * linalg.svd(A)[2][0, 0])",
    "cholesky": "linalg.cholesky(A @ A.mT + 1e-12 * eye(3).to(A.dtype)).sum()",
    "eigh": "(linalg.eigh(A + A.mT)[1] ** 4).sum()",
}


def reply_of(road: Road, query: dict[str, Any], content_type: str = "application/json") -> bytes:
    request = Request(
        "query", "a", content_type, None, None, memoryview(orjson.dumps(query, option=orjson.OPT_SERIALIZE_NUMPY))
    )
    return b"".join(map(bytes, road.answer(request, lambda _: None).buffers))


def by_whole_road(road: Road, query: dict[str, Any]) -> bytes:
    return reply_of(road, query, "application/json; charset=utf-8")


def learnt(road: Road, queries: list[dict[str, Any]]) -> None:
    """Ask until there is a recipe, and what is proved of it."""
    for query in queries * 6:
        reply_of(road, query)
        while road.improve():
            pass


def of_matrix(text: str, matrix: Matrix, dtype: str) -> dict[str, Any]:
    return {"program": text, "inputs": {"A": {"data": matrix.tolist(), "dtype": dtype}}, "want": ["gradient"]}


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.share(2, of="name")
def test_matrices_of_any_condition(name: str, dtype: str) -> None:
    road, text = Road(Limits(), "cpu"), MATRICES[name]
    learnt(road, [of_matrix(text, with_condition(5.0, seed), dtype) for seed in range(3)])
    assert len(road.recipes) == 1
    noted: set[str] = set()
    matrices = [with_condition(number, seed) for seed, number in enumerate(np.geomspace(1, 1e3 * HALF[dtype] ** 2, 30))]
    repeated = np.diag([1.0, 1.0, 2.0])
    uneven = np.diag([1e5, 1.0, 1e-4]) @ matrices[3]
    for matrix in [
        *matrices,
        repeated,
        uneven,
        uneven.T,
        np.zeros((3, 3)),
        np.ones((3, 3)),
        matrices[0] * 1e30,
        matrices[0] * 1e-30,
    ]:
        query = of_matrix(text, matrix, dtype)
        answer = by_whole_road(road, query)
        assert reply_of(road, query) == answer, matrix
        noted.update(note["code"] for note in orjson.loads(answer).get("notes", ()))
    assert noted & {"ill_conditioned", "singular_point"}, "nothing was tried"


@pytest.mark.parametrize("text", ["linalg.lstsq(A, ones(3, 1).to(A.dtype)).solution.sum()", "linalg.eigvals(A).real.sum()"])
def test_where_no_bound_costs_little_there_is_no_recipe(text: str) -> None:
    road = Road(Limits(), "cpu")
    learnt(road, [of_matrix(text, with_condition(5.0), "float64")])
    assert not len(road.recipes)


@pytest.mark.parametrize(
    "text",
    [
        "sqrt(x ** 2).sum()", "(1 / (x * x)).sum()", "y = x * x\nreturn (y / (y + 1)).sum()", "torch.sigmoid(exp(x)).sum()",
        "tanh(x * 1e30).sum()", "u, v = (x * x * x).split(1)\nreturn (1 / u + v * 0.5 / v).sum()",
        "x.clone().pow_(4).clamp(max=3.0).sum()",
    ],
)  # fmt: skip
@pytest.mark.parametrize("want", [["gradient"], ["vjp"], ["jacobian"], ["outputs", "gradient"]], ids=str)
@pytest.mark.share(2, of="text")
def test_what_overflows_on_the_way_in_a_narrow_dtype(text: str, want: list[str]) -> None:
    road = Road(Limits(), "cpu")

    def query(scale: float) -> dict[str, Any]:
        return {"program": text, "inputs": {"x": {"data": [scale, 1.5], "dtype": "float32"}}, "want": want}

    learnt(road, [query(number) for number in (0.5, 1.0, 2.0)])
    assert len(road.recipes) == 1
    said: set[str] = set()
    for scale in (0.1, 3.0, 50.0, 1e3, 1e9, 1e15, 1e20, 1e25, 1e30, -1e38, 0.0, 1e-30):
        answer = by_whole_road(road, query(scale))
        assert reply_of(road, query(scale)) == answer, scale
        said.update(note["code"] for note in orjson.loads(answer).get("notes", ()))
    assert "non_finite" in said


@pytest.mark.parametrize("text", ["(x.half() ** 2).float().clamp(max=2.0).sum()", "1 / (x.to(torch.float32) ** 8 + 1).sum()"])
def test_what_overflows_in_a_narrow_step(text: str) -> None:
    road = Road(Limits(), "cpu")

    def query(scale: float) -> dict[str, Any]:
        return {"program": text, "inputs": {"x": [scale, 1.5]}, "want": ["gradient"]}

    learnt(road, [query(0.5), query(1.25)])
    for scale in (0.1, 3.0, 1e3, 1e6, 1e30):
        answer = by_whole_road(road, query(scale))
        assert reply_of(road, query(scale)) == answer, scale
    assert b"non_finite" in answer


def test_where_an_output_is_none() -> None:
    road = Road(Limits(), "cpu")

    def query(first: float) -> dict[str, Any]:
        return {
            "program": "igamma(a, x).sum()",
            "inputs": {"a": [first, 2.0], "x": [1.5, 0.5]},
            "wrt": ["x"],
            "want": ["gradient"],
        }

    learnt(road, [query(1.0), query(1.5)])
    assert len(road.recipes) == 1
    for first in (0.5, 3.0, -1.0, 2.5):
        answer = reply_of(road, query(first))
        assert answer == by_whole_road(road, query(first))
        assert (b"non_finite" in answer) == (first < 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", sorted(operations_with("bounded")))
def test_what_is_bounded_makes_finite_numbers_of_finite_ones(name: str, dtype: torch.dtype) -> None:
    kinds = torch.finfo(dtype)
    numbers = torch.tensor(
        [0.0, -0.0, 1.0, -1.0, 0.5, 7.25, kinds.max, kinds.min, kinds.tiny, -kinds.tiny, kinds.eps], dtype=dtype
    )
    called = {short(operation): operation for operation in operations()}
    extra: dict[str, Any] = {"parameters": {"dim": 0}} if name in ("softmax", "softmin") else {}
    extra = {"parameters": {"min": -2.0}} if name == "clamp" else extra
    if name in called:
        data = {"data": numbers.to(torch.float32).tolist(), "dtype": str(dtype).removeprefix("torch.")}
        inputs = {"other" if n else "input": data for n in range(1 + (name in ("maximum", "minimum")))}
        answer = orjson.loads(
            reply_of(Road(Limits(), "cpu"), {"operation": called[name], "inputs": inputs, "want": ["outputs"], **extra})
        )
        assert answer["outputs"], answer
        assert "Infinity" not in str(answer["outputs"])
        assert "NaN" not in str(answer["outputs"])
    else:
        assert bool(getattr(numbers, name)().isfinite().all())


# Learnt at the first numbers, asked at the second, of which the whole road says something.
LATER: dict[str, tuple[dict[str, Any], list[Any], Any]] = {
    "solve of named arguments": (
        {"program": "torch.linalg.solve(B=torch.ones(2, 1, dtype=A.dtype), A=A).sum()", "want": ["gradient"]},
        [{"A": [[2.0 + k, 1.0], [1.0, 3.0]]} for k in range(3)],
        {"A": [[1.0, 1.0], [1.0, 1.00000000000001]]},
    ),
    "round to decimals": (
        {"operation": "round", "parameters": {"decimals": 5}, "want": ["vjp"]},
        [{"input": {"data": [1.0 + k, 2.5], "dtype": "float32"}} for k in range(3)],
        {"input": {"data": [1e36, 2.5], "dtype": "float32"}},
    ),
    "softmax in a narrow dtype": (
        {"program": "s = softmax(y, dim=0, dtype=torch.float16)\nreturn (x * torch.where(s > 0.5, 1.0, 2.0)).sum()", "wrt": ["x"], "want": ["vjp"]},
        [{"x": [1.0, 2.0], "y": [1.0 + k, 1.0]} for k in range(3)],
        {"x": [1.0, 2.0], "y": [1e6, 1.0]},
    ),
    "a number that is infinite in the query's dtype": (
        {"program": "maximum(x, sin(y))", "dtype": "float32", "wrt": ["x"], "want": ["vjp"]},
        [{"x": [1.0, 2.0], "y": [1.0 + k, 1.0]} for k in range(3)],
        {"x": [1.0, 2.0], "y": [1e39, 1.0]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LATER)
def test_what_is_noted_later_is_noted(name: str) -> None:
    road, (query, first, second) = Road(Limits(), "cpu"), LATER[name]
    learnt(road, [query | {"inputs": inputs} for inputs in first])
    said = by_whole_road(road, query | {"inputs": second})
    assert orjson.loads(said)["notes"]
    assert reply_of(road, query | {"inputs": second}) == said


def test_a_long_program_counts_with_its_graph() -> None:
    road = Road(Limits(), "cpu")
    short, long = ("\n".join(["y = x", *["y = sin(y)"] * count, "return y.sum()"]) for count in (1, 300))
    sizes = []
    for text in (short, long):
        before = road.recipes.by_signature.bytes
        learnt(road, [{"program": text, "inputs": {"x": [0.5 + k]}, "want": ["gradient"]} for k in range(3)])
        sizes.append(road.recipes.by_signature.bytes - before)
    assert sizes[1] > 10 * sizes[0]
