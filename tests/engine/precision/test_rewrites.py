"""Better formulas: each fits the step that it is of, and is equal to it where nothing is lost."""

from __future__ import annotations

import re
from typing import Final

import pytest
import torch

from app.engine.precision.formula import Rewritten, formula_text
from app.engine.precision.patterns import Formula
from app.engine.precision.rewrites import FORMULAS, rewrites
from app.engine.stepwise.point import Point
from app.engine.stepwise.trace import trace_steps
from tests.program.building import built

TEXTS: Final = [text for entry in FORMULAS if not callable(entry) for text in ((entry,) if isinstance(entry, str) else entry)]
# Numbers, and products of matrices, that a formula may need; the first at which both sides are finite counts.
POINTS: Final = tuple(
    {name: torch.tensor([low + 0.1 * k, low + 0.37 + 0.01 * k], dtype=torch.float64) for k, name in enumerate("abdmnpqsxyr")}
    for low in (0.1, 1.2, -1.2)
)
MATRIX: Final = torch.tensor([[2.0, 0.3], [0.1, 1.5]], dtype=torch.float64)


def _program(side: str) -> str:
    """A side as a program; a number in the place of `k`, which is none of a query's tensors."""
    return re.sub(r"\bk\b", "0.7", side).replace("ndtr(", "special.ndtr(").replace("special.special.", "special.")


def _inputs(text: str, point: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    named = set(re.findall(r"\b[a-z]\b", text)) - set(re.findall(r"\b([a-z]) :=", text))
    if "c" in named:  # of a quadratic equation with real roots
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in {"a": 0.5, "b": 3.0, "c": 1.2}.items()}
    if "n" in named:
        return {name: point[name] for name in named - {"n"}} | {"n": torch.tensor(2.0, dtype=torch.float64)}
    return {name: MATRIX if "det(" in text else point[name] for name in named}


@pytest.mark.parametrize("text", TEXTS)
def test_a_formula_is_equal_to_what_it_replaces(text: str) -> None:
    left = _program(text.split(" → ")[0])
    for point in POINTS:
        inputs = _inputs(left, point)
        function = built(left, inputs)
        here = Point(function, inputs, 0, wide=False)
        root = here.nodes[-1]
        rewrite = Formula(text).of(root)
        assert rewrite is not None
        assert rewrite.text in [each.text for each in rewrites(function.graph) if each.root is root]
        own = [inputs[name] for name in function.leaves]
        (expected,), (value,) = function.call(*own), Rewritten(here, (rewrite,)).run(*own)
        if bool(torch.isfinite(expected).all()):
            torch.testing.assert_close(value, expected)
            said = built(formula_text(trace_steps(here), (rewrite,)), inputs)  # it is in the language, as the report writes it
            torch.testing.assert_close(said.call(*(inputs[name] for name in said.leaves))[0], expected)
            return
    raise AssertionError(text)


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("sin(d + q) - sin(q) → d", "sin(x + 0.1) - sin(x)", False),  # `d` is no plain number
        ("sin(d + q) - sin(q) → d", "-sin(y) + sin(y + x)", True),
        ("k + k * erf(x) → x", "0.5 + erf(x) * 0.5", True),
        ("k + k * erf(x) → x", "0.5 + 0.25 * erf(x)", False),
        ("k + k * erf(x) → x", "y + y * erf(x)", False),
        ("x ** 2 - y ** 2 → x", "x * x - square(y)", True),
        ("sum(x ** 2) ** 0.5 → x", "(x ** 2).sum(0, keepdim=True).sqrt()", False),
        ("var(x) → x", "var(x, 0)", False),
        ("sum(x ** 2) ** 0.5 → x", "sum(input=x ** 2).sqrt()", False),  # by its name it is not looked for
    ],
)  # fmt: skip
def test_a_pattern_fits_in_whichever_way_it_is_written(pattern: str, text: str, fits: bool) -> None:
    function = built(text, _inputs(text, POINTS[0]))
    assert (Formula(pattern).of([node for node in function.graph.nodes if node.op == "call_function"][-1]) is not None) == fits


@pytest.mark.parametrize(
    "text",
    ["log(softmax(input=x, dim=0))", "log(prod(input=x))", "log(mean(input=exp(x)))", "mean(input=x ** 2) - mean(input=x) ** 2",
     "exp(x) / sum(input=exp(x))", "log(sum(input=exp(x)))", "1 - dot(input=x, tensor=x) / (x.norm() * x.norm())"],
)  # fmt: skip
def test_arguments_by_their_names_are_no_trouble(text: str) -> None:
    assert rewrites(built(text, _inputs("x", POINTS[0])).graph) is not None
