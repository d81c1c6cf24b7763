"""Mistakes of the chain rule are named, by the step and what stands in its place; nothing is claimed of steps that only pick."""

from __future__ import annotations

from typing import Any, Final

import pytest
import torch
from torch import Tensor

from tests.engine.building import checked, normal

X, W, V, C = normal(3, 3), normal(3, 3, seed=1), normal(3, 3, seed=2), normal(3, 3, seed=3)
U, A, B = normal(3, seed=4), normal(4, 3, seed=5), normal(3, 2, seed=6)
H = torch.tanh(X @ W)
DEEP = "h = tanh(x @ w)\n((h @ v) ** 2 * c).sum()"
E = 2 * (H @ V) * C
RNN = "h = zeros(3)\nfor t in range(3):\n    h = tanh(w @ h + x[t])\nh @ u"
H1 = torch.tanh(X[0])
H2 = torch.tanh(W @ H1 + X[1])
H3 = torch.tanh(W @ H2 + X[2])
D3 = U * (1 - H3**2)
D2 = (W.T @ D3) * (1 - H2**2)
D1 = (W.T @ D2) * (1 - H1**2)
ATTENTION = "q = x @ w\nk = x @ v\n((softmax(q @ k.T, 1) @ x) * c).sum()"
P = torch.softmax((X @ W) @ (X @ V).T, 1)
DS = P * (C @ X.T - (P * (C @ X.T)).sum(1, keepdim=True))
LOOP = "y = x\nfor i in range(3):\n    y = y + 0.2 * (y.roll(1, 0) - 2 * y)\n(y * c).sum()"


def turned_back(by: float, of: float) -> Tensor:
    """The derivative of LOOP with other numbers in it."""
    g = C
    for _ in range(3):
        g = g + by * (g.roll(-1, 0) - of * g)
    return g


def of_softmax(axis: int) -> Tensor:
    """∂(softmax(x, axis) c)/∂x."""
    p = torch.softmax(X, axis)
    return p * (C - (p * C).sum(axis, keepdim=True))


# Program, by what, what is believed, its code, words of the message.
MISTAKES: Final[dict[str, tuple[str, str, Tensor, str, str]]] = {
    "a layer passed over": (DEEP, "x", E @ W.T, "missing_factor", "with that of what it takes"),
    "a product passed over": (
        "(F.linear(tanh(x @ w), v) * c).sum()", "w", X.T @ (C * (1 - H**2)), "missing_factor", "of `nn.functional.linear` is missing",
    ),
    "before the activation": (DEEP, "v", (X @ W).T @ E, "wrong_value", "`@` (line 1, `h = tanh(x @ w)`) stands where the value of `tanh`"),
    "an input for a value": (DEEP, "v", X.T @ E, "wrong_value", "`x` stands where the value of `tanh`"),
    "a turn of a loop later": (
        RNN, "w", torch.outer(D3, H3) + torch.outer(D2, H2) + torch.outer(D1, H1), "wrong_value", "the next turn of the loop",
    ),
    "one path of three": (ATTENTION, "x", DS @ (X @ V) @ W.T, "missing_term", "Of the 3 steps that take `x`, yours has the share of `@` (line 1"),
    "by a value on the way": (
        "z = outer(x.sum(1), u)\n(tanh(z) * c).sum()", "x", C * (1 - torch.tanh(torch.outer(X.sum(1), U)) ** 2),
        "wrong_variable", "by the value of `outer` (line 1",
    ),
    "by another, opposite": ("(x * v - w * v + w * w).sum()", "x", -(2 * W - V), "wrong_variable", "by `w` with the opposite sign"),
    "a number of a loop": (LOOP, "x", turned_back(1.0, 2.0), "missing_factor", "`*`"),
    "an axis everywhere": (
        "m = x.max(1, keepdim=True).values\ne = exp(x - m)\n(e / e.sum(1, keepdim=True) * c).sum()", "x", of_softmax(0),
        "wrong_axis", "Axis 0 is taken where the program has axis 1",
    ),
    "one operation everywhere": (
        "(x[1:] - x[:-1]).abs().sum() + (x @ w).abs().sum()", "w", 2 * X.T @ (X @ W), "other_operation", "`square` is differentiated",
    ),
    "one half doubled within a quotient": (
        "(u @ w @ u) / (u @ u)", "u", 2 * (W @ U) / (U @ U) - 2 * U * (U @ W @ U) / (U @ U) ** 2, "symmetric_assumed", "taken as equal",
    ),
    "commuting": ("(matrix_exp(x) * c).sum()", "x", torch.matrix_exp(X).T @ C, "wrong_rule", "as if the matrix and its change commuted"),
    "applied twice": ("(sigmoid(x) * c).sum()", "x", torch.func.grad(lambda x: (x.sigmoid().sigmoid() * C).sum())(X), "applied_twice", "`sigmoid`"),
    "another argument": (
        "F.binary_cross_entropy_with_logits(x, (v > 0) * 1.0, pos_weight=exp(w))", "x",
        W.exp() * (X.sigmoid() - (V > 0).double()) / 9, "other_argument", "`pos_weight`",
    ),
    "in training": (
        "(F.batch_norm(x, u, u * u) * c).sum()", "x",
        torch.func.grad(lambda x: (torch.nn.functional.batch_norm(x, None, None, training=True) * C).sum())(X),
        "statistics_constant", "as in training",
    ),
    "probabilities of another axis": (
        "(log_softmax(x, 1) * c).sum()", "x", C - torch.softmax(X, 0) * C.sum(1, keepdim=True), "wrong_axis", "along another axis",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_the_mistake_is_named(case: str) -> None:
    text, name, believed, code, words = MISTAKES[case]
    leaves: dict[str, Any] = {"x": X, "w": W, "v": V, "c": C, "u": U}
    verdict = checked(text, {name: believed}, **{key: leaf for key, leaf in leaves.items() if key in text})[name]
    assert (verdict["agrees"], verdict["likely"]["code"]) == (False, code)
    assert words in verdict["likely"]["message"]


@pytest.mark.parametrize(
    ("believed", "words"),
    [
        (torch.ones(4, 2, dtype=torch.float64) @ B.T, "not applied"),
        ((A @ B) ** 2 @ B.T, "applied twice"),
    ],
)
def test_a_cotangent_that_is_not_applied(believed: Tensor, words: str) -> None:
    likely = checked("a @ b", {"a": believed}, "vjp", A @ B, a=A, b=B)["a"]["likely"]
    assert (likely["code"], words in likely["message"]) == ("cotangent", True)


def test_the_product_with_the_jacobian_itself() -> None:
    likely = checked("x.cumsum(0) @ w", {"x": C.cumsum(0) @ W}, "vjp", C, x=X, w=W)["x"]["likely"]
    assert (likely["code"], "forward mode" in likely["message"]) == ("cotangent", True)


@pytest.mark.parametrize(
    ("text", "believed"),
    [
        ("(maximum(x @ w, x @ v) ** 2).sum()", X.T @ torch.maximum(X @ W, X @ V)),  # no mask and no 2: two mistakes
        ("minimum(x @ w, clamp(x @ w, -0.5, 0.5)).sum()", X.T @ torch.full((3, 3), 0.4, dtype=torch.float64)),
    ],
)
def test_other_values_at_which_a_step_picks_alike_explain_nothing(text: str, believed: Tensor) -> None:
    leaves: dict[str, Any] = {"x": X, "w": W, "v": V}
    verdict = checked(text, {"w": believed}, **{key: leaf for key, leaf in leaves.items() if key in text})["w"]
    assert verdict.get("likely", {}).get("code") != "wrong_value"
