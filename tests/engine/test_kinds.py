"""The table of kinds: every word of the contract has a row, and every row says what the plan and the batch need."""

from __future__ import annotations

import ast

import pytest

from app.engine.kinds import KINDS
from app.query import WANTS
from tests.engine.asking import ask
from tests.test_floors import ROOT, modules


def test_every_word_has_a_row() -> None:
    assert set(KINDS) == set(WANTS)


# Where more than one of these words stands beside the table, and why: which of an answer's derivatives are compared with each other, and
# torch.func's transforms, two of which are called so.
NAMED_TOGETHER = {"app/engine/kinds.py", "app/engine/adjoint.py", "app/engine/sparsity/dependence.py"}


def lists_of_kinds(tree: ast.AST) -> list[int]:
    """Lines with a literal set, list, tuple or dict of two kinds or more."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Set | ast.List | ast.Tuple | ast.Dict)
        for members in (node.keys if isinstance(node, ast.Dict) else node.elts,)
        if sum(isinstance(member, ast.Constant) and member.value in WANTS for member in members) > 1
    ]


def test_what_a_kind_needs_stands_in_its_row() -> None:
    """Not in sets of kinds elsewhere in the engine."""
    named = {
        f"{module.path.relative_to(ROOT)}"
        for name, module in modules().items()
        if name.startswith("app.engine.") and lists_of_kinds(module.tree)
    }
    assert named <= NAMED_TOGETHER
    assert lists_of_kinds(ast.parse('if kind in {"jacobian", "hessian"}: ...'))
    assert lists_of_kinds(ast.parse('CHECKS = {"jacobian": 1, "hessian": 2}'))


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_whole(kind: str) -> None:
    row = KINDS[kind]
    assert not (row.of_one_point and row.per_sample)
    assert row.demand.derives == (kind != "outputs")
    # What is computed together is compared with another way through PyTorch.
    assert (row.confirm is not None) == (row.per_sample is not None and row.demand.derives)


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
