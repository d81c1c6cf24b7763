"""The table of kinds: every word of the contract has a row, and every row says what the plan and the batch need."""

from __future__ import annotations

import pytest

from app.engine.kinds import KINDS
from app.query import WANTS
from tests.engine.asking import ask


def test_every_word_has_a_row() -> None:
    assert set(KINDS) == set(WANTS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_whole(kind: str) -> None:
    row = KINDS[kind]
    assert not (row.of_one_point and row.per_sample)
    assert row.demand.derives == (kind != "outputs")


@pytest.mark.parametrize(
    ("want", "method"),
    [
        (("outputs",), "none"),
        (("vjp",), "reverse"),
        (("jvp",), "forward"),
        (("jacobian",), "forward"),
        (("jacobian", "vjp"), "forward"),
        (("vjp", "jacobian"), "forward"),
        (("explain",), "none"),
    ],
)
def test_the_plan_says_how_it_differentiates(want: tuple[str, ...], method: str) -> None:
    answer = ask(program="cat([x, x * x])", inputs={"x": [1.0, 2.0]}, want=want)
    assert answer.plan["method"] == method


def test_the_order_of_kinds_does_not_change_the_jacobians_method() -> None:
    plans = [
        ask(program="(x ** 3).sum()", inputs={"x": [1.0]}, want=want).plan
        for want in (("jacobian", "hessian"), ("hessian", "jacobian"))
    ]
    assert plans[0] == plans[1]
