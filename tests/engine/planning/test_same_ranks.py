"""What was built for other shapes of the same ranks gives the same plan as what is built anew, or is not used."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from app.catalogue.read import operations
from app.engine.planning.build import Built, Real, build, leaves_of
from app.engine.planning.prepare import results
from app.engine.planning.same_ranks import SameRanks
from app.engine.tensors import to_torch
from app.errors import PullbackError
from app.program.functions import load
from app.protocols.native import native_query
from app.query import Query
from tests.engine.planning.test_bounded_counter import longer

FUNCTIONS = load(None)


def parts(query: Query) -> tuple[Mapping[str, tuple[int, ...]], Real]:
    leaves = dict(leaves_of(query.inputs))
    shapes = {name: data.shape for name, data in leaves.items()}
    return shapes, lambda dtypes: {name: to_torch(data, "cpu").to(dtypes[name]) for name, data in leaves.items()}


def anew(query: Query) -> Built | None:
    shapes, real = parts(query)
    try:
        return build(query, FUNCTIONS, shapes, real)
    except PullbackError:
        return None


def used(known: SameRanks, query: Query) -> Built | None:
    return known.built(query, *parts(query))


def assert_the_same(known: SameRanks, query: Query) -> bool:
    """True where what is known was used."""
    again, fresh = used(known, query), anew(query)
    if again is None or fresh is None:
        assert again is None or fresh is not None
        return False
    assert (again.cost, again.leaves, results(again)) == (fresh.cost, fresh.leaves, results(fresh))
    assert again.function.outputs == fresh.function.outputs
    assert len(list(again.function.graph.nodes)) == len(list(fresh.function.graph.nodes))
    values = list(parts(query)[1]({leaf.name: leaf.dtype for leaf in fresh.leaves}).values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's deprecations
        again_outputs, wanted = again.function.call(*values), fresh.function.call(*values)
    for one, other in zip(again_outputs, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
    return True


@pytest.mark.parametrize("part", range(3))
def test_operations_are_the_same_for_other_shapes(part: int) -> None:
    count = 0
    for operation in list(operations().values())[part::3]:
        known = SameRanks()
        example = {**operation.example, "want": ["outputs"], "cotangent": {}, "seed": 0}
        query = native_query.query(example)
        built = anew(query)
        if built is None:
            continue
        known.learn(query, parts(query)[0], built)
        for by in (1, 3):
            inputs = {name: longer(value, by) for name, value in operation.example["inputs"].items()}
            count += assert_the_same(known, native_query.query({**example, "inputs": inputs}))
    assert count > 120


STRAIGHT = [
    "return (x @ x.T).tanh().sum()",
    "p = softmax(x, dim=-1)\nreturn -(p * log(p + 2)).sum()",
    "y = x[1:] - x[:-1] ** 2\nreturn 100 * (y * y).mean(dim=0)",
    "h = F.relu(x @ x.mT - 1.5)\nreturn nn.functional.mse_loss(h, h.mean(dim=0, keepdim=True) + h * 0)",
    "torch.logsumexp(x[..., 0], 0) + torch.max(x)",
    "a = x.unsqueeze(0)\nb = a.transpose(0, 1).squeeze()\nreturn b.norm() + torch.einsum('ij,ij->', x, x)",
    "return torch.where(x > 0, x, x.exp()).flatten()",
]


@pytest.mark.parametrize("text", STRAIGHT)
def test_programs_in_straight_lines_are_the_same_for_other_shapes(text: str) -> None:
    def query(rows: int, columns: int) -> Query:
        value = torch.linspace(-1, 1, rows * columns).reshape(rows, columns).tolist()
        return native_query.query({"program": text, "inputs": {"x": value}})

    known = SameRanks()
    first = anew(query(2, 3))
    assert first is not None
    known.learn(query(2, 3), parts(query(2, 3))[0], first)
    count = sum(assert_the_same(known, query(rows, columns)) for rows in (2, 3, 5) for columns in (2, 4, 7))
    assert count >= 6


@pytest.mark.parametrize(
    "text",
    [
        "return x * x.shape[0]",
        "return x / len(x)",
        "return sum(x)",
        "return x.numel() * x",
        "h = x\nfor i in range(3):\n    h = h * x\nreturn h",
        "return x.reshape(-1)[x.size(0) - 1]",
        "a, b = x.chunk(2)\nreturn a",
        "if x.sum() > 0:\n    y = x\nelse:\n    y = -x\nreturn y",
        "return zeros(3) + x",
        "exp = x\nreturn exp(x)",
        "y = x.clone()\ny += 1\nreturn y",
        "return nn.Linear(3, 3)(x)",
        "return [row.sum() for row in x][0]",
        "return x.item()",
        "return (lambda y: y * len(y))(x)",
        "return vmap(sin)(x)",
        "x.mul_(2)\nreturn x",
    ],
)
def test_a_program_that_may_ask_for_a_size_is_built_for_each_shape(text: str) -> None:
    known = SameRanks()
    query = native_query.query({"program": text, "inputs": {"x": [[1.0, 2.0, 3.0]] * 4}, "seed": 0})
    built = anew(native_query.query({"program": "return x", "inputs": {"x": [[1.0, 2.0, 3.0]] * 4}}))
    assert built is not None
    known.learn(query, parts(query)[0], built)
    assert used(known, query) is None


def test_other_parameters_dtypes_and_ranks_are_others() -> None:
    def query(value: Any, dim: int) -> Query:
        return native_query.query({"operation": "softmax", "inputs": {"input": value}, "parameters": {"dim": dim}})

    known = SameRanks()
    first = query([1.0, 2.0], 0)
    built = anew(first)
    assert built is not None
    known.learn(first, parts(first)[0], built)
    assert used(known, query([1.0, 2.0, 3.0], 0)) is not None
    for other in (query([1.0, 2.0], -1), query([[1.0, 2.0]], 0), query([1, 2], 0), query([0.5] * 5000, 0)):
        assert used(known, other) is None
