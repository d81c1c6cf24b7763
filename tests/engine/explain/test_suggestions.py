"""The advice of explain is code of the program language: every piece of it is compiled and run."""

from __future__ import annotations

import ast
import re
from typing import Any

import pytest
import torch

from tests.engine.building import explained, program

# What an advice may call things that the program does not have.
NAMES = {
    **dict.fromkeys(("eps", "t", "temperature", "threshold", "period"), torch.tensor(0.5, dtype=torch.float64)),
    **dict.fromkeys(("a", "b", "p", "values"), torch.rand(2, 2, dtype=torch.float64) + 0.5),
    "condition": torch.tensor([[True, False], [True, True]]),
    "mean": torch.zeros(2, dtype=torch.float64),
    "std": torch.ones(2, dtype=torch.float64),
}
PLAIN = {"n": 2, "pi": 3.14159}
SQUARE = [[0.0, 1.0], [1.0, 0.0]]
PROGRAMS = [
    "round(x * 1e-6)", "round(sqrt(x))", "floor(x / 3)", "sign(x)", "sgn(x)", "trunc(2 * x + 1)", "ceil(exp(x))", "round(x, decimals=1)",
    "round(max(x, 0)[0])", "where(x > 0, sqrt(x), 0 * x)", "where(x > 0, x ** 0.5, 0 * x)", "where(x > 0, 1 / x, 0 * x)",
    "where(x > 0, log(x), 0 * x)", "where(x > 0, x / x, 0 * x)", "sqrt(x)", "rsqrt(x)", "log(x)", "log2(3 * x)", "log1p(x - 1)", "1 / x",
    "div(1.0, x)", "reciprocal(x)", "x ** 0.5", "(x - 1) ** -1", "asin(x)", "acos(x)", "atanh(x)", "acosh(x)", "logit(x)", "erfinv(x)",
    "xlogy(x, x)", "relu(x)", "abs(x)", "abs(x - 1)", "clamp(x, 0, 1)", "F.leaky_relu(x)", "F.hardtanh(x)", "F.relu6(x)",
    "maximum(x, 0 * x)", "minimum(x, 0 * x)", "max(x)", "amin(x.flatten(), 0)", "sort(x.flatten())[0]", "argmax(x, 1)", "argsort(x)",
    "(x > 0).double()", "x.long()", "heaviside(x, x)", "x // 2", "remainder(x, 1.0)", "x % 1", "fmod(x, 1.0)", "frac(x)",
    "linalg.eigh(eye(2) + 0 * x)[1]", "atan2(x, 0 * x)", "x.detach()", "where(x > 0, x, 0 * x)", "relu(x) - relu(-x)",
    "F.l1_loss(x, 0 * x)",
]  # fmt: skip


def advice(report: dict[str, Any]) -> set[str]:
    entries = [*report["inputs"].values(), *report["outputs"].values()]
    return {f["instead"] for e in entries for f in (e, *e["findings"]) if f.get("instead")}


def runs(text: str, x: torch.Tensor) -> None:
    """Runs each piece of code in the sentence; what one assigns the next ones have."""
    before: list[str] = []
    for code in re.findall(r"`([^`]*)`", text):
        if code.startswith("GET ") or not re.search(r"\w.*[(\[*/+=]|[(\[*/+=].*\w", code):
            continue  # an address, or a name alone
        whole = "\n".join([*before, code])
        used = {node.id for node in ast.walk(ast.parse(whole)) if isinstance(node, ast.Name)}
        for name, value in PLAIN.items():
            whole = f"{name} = {value}\n{whole}" if name in used else whole
        leaves = {name: value for name, value in {**NAMES, "x": x}.items() if name in used}
        function = program(whole, leaves)
        function.call(*(leaves[name] for name in function.leaves))
        if re.match(r"\w+ = ", code):
            before.append(code)


@pytest.mark.parametrize("text", PROGRAMS)
def test_advice_is_code(text: str) -> None:
    sentences = advice(explained(text, x=SQUARE))
    assert sentences, "the program was chosen because it needs advice"
    for sentence in sentences:
        runs(sentence, torch.tensor(SQUARE, dtype=torch.float64))


def test_advice_has_the_steps_own_arguments() -> None:
    sentence = " ".join(advice(explained("round(max(x, 0)[0], decimals=1)", x=[1.52, 2.24])))
    assert "`max(x, 0)[0] + (round(max(x, 0)[0], decimals=1) - max(x, 0)[0]).detach()`" in sentence
    sentence = " ".join(advice(explained("where(x > 0, x ** 0.5, 0 * x)", x=[0.0, 1.0])))
    assert "`(safe ** 0.5)` in the place of" in sentence
