"""Zeros whose true number the dtype holds carry a note, by every road; zeros that are true, or below every number of the dtype, none."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
import pytest

from tests.engine.asking import ask

TINY = [1e-200, 1e-200, 1e200, 1e200]
# Program in x, its numbers, and where a zero is none: in the outputs, in vjp.
LOST: list[tuple[str, Any, bool, bool]] = [
    ("prod(x)", TINY, True, True), ("cumprod(x, 0)", TINY, True, True), ("det(diag(x))", TINY, True, False),
    ("linalg.norm(x)", TINY[:2], True, False), ("std(x)", [1e-200, 2e-200], True, False), ("sqrt(x * x)", [1e-200], True, True),
    ("x / (x * x)", [1e200], True, False), ("acosh(x)", [1e200], False, True), ("tanh(x)", [25.0, 0.1], False, True),
    ("sigmoid(x)", [40.0, -800.0], False, True), ("sigmoid(x)", [-800.0], False, False), ("special.ndtr(x)", [-20.0, 0.0], False, False),
    ("distributions.Normal(0., 1.).cdf(x)", [-20.0], True, False), ("nn.functional.gelu(x)", [-20.0], True, False),
    ("log_softmax(x, 0)[0]", [50.0, 0.0], True, False), ("x + 1 - x", [1e16], True, False), ("exp(x) * 1e300", [-800.0], True, True),
    ("exp(x)", [-800.0, 1.0], False, False), ("erfc(x)", [30.0], False, False), ("((x - 1) ** 2).sum()", [1.0, 2.0], False, False),
    ("x - 0.1", [0.1], False, False), ("x * (1 / 3) * 3 - x", [1.0], False, False), ("x @ x", [1e-200], False, False),
    ("x.sum()", [1e16, 1.0, -1e16], False, False), ("tanh(x)", [0.0, 0.5], False, False), ("relu(x)", [-1.0], False, False),
    ("distributions.Laplace(0.3, 1.7).cdf(x)", [-100.0], True, True),
    ("distributions.Normal(0., 1.).icdf(x)", [1e-300], True, True), ("log(special.ndtr(x))", [-40.0], True, False),
    ("1 / x", [0.0], False, False), ("log(x)", [0.0], False, False), ("exp(x)", [1000.0], False, False),
    ("linalg.norm(x)", [1e200, 1e200], True, True),
    ("prod(x)", [0.0, 2.0], False, False), ("cos(x)", [0.0], False, False), ("softmax(x, 0)", [1.0, 1.0], False, False),
]  # fmt: skip


def lost(**fields: Any) -> set[str]:
    return {note.at for note in ask(**fields).notes if note.code == "rounded"}


@pytest.mark.parametrize(("text", "x", "in_outputs", "in_vjp"), LOST)
def test_a_zero_that_is_none(text: str, x: list[float], in_outputs: bool, in_vjp: bool) -> None:
    expected = {path for path, is_lost in (("outputs.output", in_outputs), ("vjp.x", in_vjp)) if is_lost}
    assert lost(program=text, inputs={"x": x}, want=["outputs", "vjp"]) == expected


@pytest.mark.parametrize(("value", "is_lost"), [(10.0, True), (60.0, False), (0.5, False)])
def test_what_float32_holds(value: float, is_lost: bool) -> None:
    """1 − tanh² is 8e-9 at 10 and 3e-52 at 60, below every float32."""
    x = np.array([value], dtype="float32")
    assert lost(program="tanh(x)", inputs={"x": x}, want=["vjp"]) == ({"vjp.x"} if is_lost else set())
    assert not lost(program="x - 0.1", inputs={"x": np.array([0.1], dtype="float32")}, want=["outputs"])


def test_the_note_says_the_true_number() -> None:
    notes = [note.message for note in ask(program="tanh(x).sum()", inputs={"x": [0.1, 25.0]}, want=["gradient"]).notes]
    assert any(
        f"is {mpmath.nstr(mpmath.sech(25) ** 2, 2)}, which float64 holds" in message and "at [1]" in message
        for message in notes
    )


@pytest.mark.parametrize("kind", ["vjp", "jvp", "jacobian"])
def test_by_every_kind_and_in_a_batch(kind: str) -> None:
    place = {"vjp": "vjp.x", "jvp": "jvp.output", "jacobian": "jacobian.output.x"}[kind]
    assert lost(program="tanh(x)", inputs={"x": [0.1, 25.0]}, want=[kind]) == {place}
    assert lost(program="tanh(x)", inputs={"x": np.array([[0.1, 1.0], [0.1, 25.0]])}, batched=("x",), want=[kind]) == {place}
    assert not lost(program="tanh(x)", inputs={"x": [0.1, 2.0]}, want=[kind])


def test_an_output_is_named_where_derivatives_alone_are_wanted() -> None:
    assert lost(operation="linalg.norm", inputs={"A": [1e-200, 1e-200]}, want=["gradient"]) == {"outputs.output"}


# Program in x, its numbers, where fewer than four digits are right: in the outputs, in vjp.
FEW: list[tuple[str, Any, bool, bool]] = [
    ("nn.functional.gelu(x)", [-8.0, 1.0], True, True), ("tanh(x)", [15.0], False, True), ("sigmoid(x)", [33.0], False, True),
    ("1 - cos(x)", [1e-7], True, False), ("softmax(x, 0)", [0.1, 0.2, 0.7], False, False),
    ("log(1 + exp(x))", [-33.0], True, False), ("log1p(exp(x))", [-33.0], False, False), ("x - 0.1", [0.1 + 1e-15], False, False),
    ("exp(x)", [-30.0, -700.0], False, False), ("exp(x)", [-744.0], False, False), ("x * 1e-15", [1.0, 3.0], False, False),
    ("((x - 1) ** 2).sum()", [1 + 1e-9, 1.0], False, False), ("softmax(x, 0)", [0.0, -40.0], False, False),
    ("sin(x)", [3.141592653589793], False, False), ("var(x)", [1.0, 1 + 1e-7], False, False), ("erfc(x)", [20.0], False, False),
]  # fmt: skip


@pytest.mark.parametrize(("text", "x", "in_outputs", "in_vjp"), FEW)
def test_few_digits(text: str, x: list[float], in_outputs: bool, in_vjp: bool) -> None:
    expected = {path for path, is_lost in (("outputs.output", in_outputs), ("vjp.x", in_vjp)) if is_lost}
    assert lost(program=text, inputs={"x": x}, want=["outputs", "vjp"]) == expected


def test_the_note_says_how_many_digits_are_right() -> None:
    notes = [note.message for note in ask(program="tanh(x)", inputs={"x": [15.0]}, want=["vjp"]).notes]
    assert any("`vjp.x` is 3.74367e-13 at [0], and the true number there is 3.74305e-13: 3 of its digits" in m for m in notes)
