"""Random programs, run again for other shapes, cost and give what they do when they are built anew; numbers decide what they decide there."""

from __future__ import annotations

import math
import random

import pytest
import torch

from app.engine.planning.prepare import results
from app.engine.planning.replay import step_costs
from app.engine.planning.replay.same_ranks import SameRanks
from app.engine.tensors import from_torch
from app.protocols.native import native_query
from app.query import Query
from tests.engine.planning.replay.random_steps import program
from tests.engine.planning.replay.test_same_ranks import anew, assert_the_same, parts, used

SHAPES = {
    1: ((3,), (4,), (1,), (5,), (2,)),
    2: ((3, 4), (4, 3), (1, 5), (5, 5), (2, 2), (4, 1), (3, 3)),
    3: ((2, 3, 4), (3, 3, 3), (1, 4, 2), (2, 5, 1), (2, 2, 2), (2, 3, 6)),
    4: ((1, 2, 3, 3), (2, 1, 4, 4), (1, 1, 3, 2)),
}


def asked(text: str, shapes: dict[str, tuple[int, ...]], dtype: torch.dtype) -> Query:
    inputs = {name: torch.linspace(0.1, 1.7, math.prod(shape), dtype=dtype).reshape(shape) for name, shape in shapes.items()}
    sent = {name: from_torch(value) for name, value in inputs.items()}
    return Query(program=text, inputs=sent, parameters={}, seed=0, want=("outputs",))


@pytest.mark.parametrize("part", range(4))
@pytest.mark.share(2)
def test_random_programs_are_the_same_for_other_shapes(part: int) -> None:
    rng = random.Random(part)
    count = 0
    for _ in range(4):
        ranks = {name: rng.choice((1, 2, 2, 2, 3, 3, 4)) for name in rng.choice(("x", "xy"))}
        dtype = rng.choice((torch.float64, torch.float64, torch.float32))

        def shapes(alike: bool, ranks: dict[str, int] = ranks) -> dict[str, tuple[int, ...]]:
            by_rank = {rank: rng.choice(SHAPES[rank]) for rank in ranks.values()}
            return {name: by_rank[rank] if alike else rng.choice(SHAPES[rank]) for name, rank in ranks.items()}

        first = shapes(rng.random() < 0.5)
        text = program(rng, tuple(ranks), lambda t, first=first, dtype=dtype: anew(asked(t, first, dtype)) is not None)  # type: ignore[misc]
        known, built = SameRanks(), anew(asked(text, first, dtype))
        assert built is not None
        known.learn(asked(text, first, dtype), parts(asked(text, first, dtype))[0], built)
        count += sum(assert_the_same(known, asked(text, shapes(number % 2 == 0), dtype)) for number in range(5))
    assert count > 3


STACKS = [
    "F.linear(x, y[0], y[0, :, 0])", "F.linear(x, y[0], y[0, 0])", "F.linear(x.mT, y[0], y[0, 0])", "x @ y[0]", "x.transpose(0, 1) @ y[0]",
    "x @ y.mT", "x.unsqueeze(1) @ y.unsqueeze(1)", "x.unsqueeze(0).transpose(0, 1) @ y.unsqueeze(1)",
    "x.view(2, -1, 1, 4).transpose(1, 2) @ x.view(2, -1, 1, 4).transpose(1, 2).mT",
    "x.view(2, -1, 2, 2).transpose(1, 2) @ x.view(2, -1, 2, 2).transpose(1, 2).mT",
    "F.layer_norm(x, (4,), y[0, 0], y[0, 1])", "F.layer_norm(x.mT, [x.shape[1]])", "F.layer_norm(x, (4,), weight=y[0, 0], eps=0.1)",
    "x.masked_fill(torch.tril(torch.ones(x.shape[1], 4)) == 0, float('-inf'))", "torch.eye(x.shape[1]) + 1", "torch.zeros((x.shape[1], 2))",
    "x.mT.contiguous()", "x.contiguous()", "x.flatten(1)", "x.mT.flatten(1)", "x.reshape(-1)", "F.mse_loss(x, y)", "F.mse_loss(x, y[0])",
    "x.logsumexp(1)", "torch.logsumexp(x, (0, 2), keepdim=True)", "torch.trace(x[0])", "x.split(2, dim=2)[1]", "x.chunk(2)[0]",
    "F.conv2d(x[:, None], y[:, None, :2, :2], None, 1, 1)", "F.conv2d(x.unsqueeze(1), y[:1, None], y[0, 0, :1], padding=(2, 3), stride=2)",
    "F.max_pool2d(x.unsqueeze(1), 2)", "F.max_pool2d(x, (1, 2), 1)", "F.gelu(x, approximate='tanh')", "nn.GELU()(x)",
    "nn.MultiheadAttention(4, 2)(x, x, x)[0]",
    "nn.MultiheadAttention(4, 2)(x, x * 1, x)[0]", "torch.where(x > 0.5, x, y)", "torch.einsum('bij,bkj->bik', x, y)",
]  # fmt: skip


@pytest.mark.parametrize("expression", STACKS)
def test_steps_of_stacks_are_the_same_for_other_shapes(expression: str) -> None:
    """In its own order of axes and in another; of tensors that are views of others."""

    def query(rows: int) -> Query:
        return asked(
            f"a = {expression}\ny = y * 1\nb = {expression}\nreturn a, b", dict.fromkeys("xy", (2, rows, 4)), torch.float64
        )

    known, first = SameRanks(), anew(query(4))
    assert first is not None
    known.learn(query(4), parts(query(4))[0], first)
    for rows in (5, 2, 1, 4, 3):
        assert_the_same(known, query(rows))
    assert assert_the_same(known, query(4))


@pytest.mark.parametrize(
    "expression", ["linalg.inv(y)", "linalg.solve(y, x)", "linalg.cholesky(y)", "linalg.det(y)", "logdet(y)"]
)
def test_a_singular_matrix_is_planned_as_others_are(expression: str) -> None:
    """As fakes plan it, where it is not planned anew; the computation refuses it."""

    def query(rows: list[list[float]]) -> Query:
        text = f"y = x @ x.T\nz = torch.{expression}\nreturn (z @ x if z.dim() else z).tanh().sum()"
        return native_query.query({"program": text, "inputs": {"x": rows}})

    known, first = SameRanks(), anew(query([[1.0, 2.0], [0.0, 1.0]]))
    assert first is not None
    known.learn(query([[1.0, 2.0], [0.0, 1.0]]), parts(query([[1.0, 2.0], [0.0, 1.0]]))[0], first)
    assert assert_the_same(known, query([[1.0, 2.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 4.0]]))
    singular = query([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [0.0, 0.0, 0.0]])
    again, fresh = used(known, singular), anew(singular)
    assert fresh is not None
    if again is not None:
        assert (again.cost, again.leaves, results(again)) == (fresh.cost, fresh.leaves, results(fresh))


def test_programs_that_differ_in_numbers_of_sizes_do_not_share_them() -> None:
    """`eye(n)` and `eye(n + 1)`; a size of a tensor that no input leads to."""
    for text in (
        "return torch.eye(len(x)), torch.eye(len(x) + 1)",
        "w = torch.ones(3, 2)\nreturn x.view(-1, w.shape[1]), x.view(-1, w.shape[0] - 2)",
    ):
        known, first = SameRanks(), anew(asked(text, {"x": (4, 2)}, torch.float64))
        assert first is not None
        known.learn(asked(text, {"x": (4, 2)}, torch.float64), {"x": (4, 2)}, first)
        assert all(assert_the_same(known, asked(text, {"x": (rows, 2)}, torch.float64)) for rows in (5, 3, 6))


@pytest.mark.parametrize(
    "text", ["return x[[0] * 300].sum()", "return torch.cat([x] * 300)", "return sum(x[:, None].expand(4, 500).unbind(1))"]
)
def test_what_a_text_makes_long_is_not_remembered(text: str) -> None:
    step_costs.known.clear()
    known, first = SameRanks(), anew(asked(text, {"x": (4,)}, torch.float64))
    assert first is not None
    known.learn(asked(text, {"x": (4,)}, torch.float64), {"x": (4,)}, first)
    used(known, asked(text, {"x": (4,)}, torch.float64))
    assert all(len(str(key)) < 20_000 for key in step_costs.known)
    assert all(not isinstance(cost.geometry, tuple) for cost in step_costs.known.values())
