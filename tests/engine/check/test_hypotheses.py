"""Each mistake of the table is recognised by its own derivation, and nothing is claimed of what it does not explain."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.engine.building import checked, normal

X, Y, W, B = normal(8, 3), normal(8, 3, seed=1), normal(3, 4, seed=2), normal(4, seed=3)
K = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])
MSE, SSE = "((x - y) ** 2).mean()", "((x - y) ** 2).sum()"
LINEAR = "((x @ w + b) ** 2).sum()"
NLL = "p = log_softmax(x @ w, 1)\n-p[arange(8), k].mean()"
P = torch.softmax(X @ W, 1)
PER = 2 * (X @ W + B)  # ∂LINEAR/∂(x @ w + b)
G = 2 * (X - Y) / 24  # ∂MSE/∂x
Z = torch.complex(normal(3), normal(3, seed=1))
GZ = Z**2 + 2 * Z * Z.conj()  # gradient of Re(z² z̄) summed, PyTorch's convention


def diagonal_only() -> Tensor:
    """∂NLL/∂w with ∂pᵢ/∂xⱼ taken as zero for i ≠ j."""
    scores = torch.zeros(8, 4, dtype=torch.float64)
    scores[torch.arange(8), K] = -(1 - P[torch.arange(8), K]) / 8
    return X.T @ scores


# Program, inputs, by what, what is believed, code, factor, words of the message.
MISTAKES: dict[str, tuple[str, dict[str, Any], str, Tensor, str, float | None, str]] = {
    "sum instead of mean": (MSE, {"x": X, "y": Y}, "x", 24 * G, "constant_factor", 24.0, "number of elements: sum instead of mean"),
    "mean instead of sum": (SSE, {"x": X, "y": Y}, "x", G, "constant_factor", 1 / 24, "mean instead of sum"),
    "no square on the way": ("(2 * x + y ** 2).sum()", {"x": X, "y": Y}, "x", torch.ones_like(X), "constant_factor", 0.5, "the factor 2 is missing"),
    "no 2 of the square": (MSE, {"x": X, "y": Y}, "x", G / 2, "constant_factor", 0.5, "the 2 from the derivative of a square"),
    "batch size": (MSE, {"x": X, "y": Y}, "x", 8 * G, "constant_factor", 8.0, "the batch size"),
    "over the batch": (LINEAR, {"x": X, "w": W, "b": B}, "b", PER.mean(0), "constant_factor", 1 / 8, "mean instead of sum"),
    "any factor": (MSE, {"x": X, "y": Y}, "x", 3.7 * G, "constant_factor", 3.7, "3.7 times"),
    "loss reduction": (
        "F.cross_entropy(x @ w, k)", {"x": X, "w": W, "k": K}, "w", X.T @ (P - torch.eye(4, dtype=torch.float64)[K]),
        "constant_factor", 8.0, "the batch size: sum instead of mean",
    ),
    "sign": (MSE, {"x": X, "y": Y}, "x", -G, "sign", -1.0, "opposite sign"),
    "sign and factor": (MSE, {"x": X, "y": Y}, "x", -24 * G, "constant_factor", -24.0, "opposite sign, the number of elements"),
    "transpose": (LINEAR, {"x": X, "w": W, "b": B}, "w", (X.T @ PER).T, "transpose", None, "the transpose"),
    "transpose of a square matrix": ("(x @ x).sum() + (x ** 2 * a).sum()", {"x": normal(3, 3), "a": normal(3, 3, seed=1)}, "x",
        (torch.ones(3, 3, dtype=torch.float64) @ normal(3, 3).T + normal(3, 3).T @ torch.ones(3, 3, dtype=torch.float64)
         + 2 * normal(3, 3) * normal(3, 3, seed=1)).T, "transpose", None, "the transpose"),
    "transpose and factor": (MSE, {"x": X, "y": Y}, "x", 24 * G.T, "transpose", 24.0, "the transpose of ours, times 24"),
    "column by column": (MSE, {"x": X, "y": Y}, "x", G.T.reshape(-1), "transpose", None, "column by column"),
    "flat": (MSE, {"x": X, "y": Y}, "x", G.reshape(-1), "shape", None, "the shape is not"),
    "no sum over the batch": (LINEAR, {"x": X, "w": W, "b": B}, "b", PER, "missing_batch_sum", None, "the batch axis (size 8)"),
    "no sum, and a mean": (LINEAR, {"x": X, "w": W, "b": B}, "b", PER / 8, "missing_batch_sum", 1 / 8, "1/8 of"),
    "no sum, outer products": (
        LINEAR, {"x": X, "w": W, "b": B}, "w", torch.einsum("ni,nj->nij", X, PER), "missing_batch_sum", None, "the batch axis",
    ),
    "summed over the batch": (LINEAR, {"x": X, "w": W, "b": B}, "x", (PER @ W.T).sum(0), "extra_batch_sum", None, "too many"),
    "diagonal of softmax": (NLL, {"x": X, "w": W, "k": K}, "w", diagonal_only(), "softmax_diagonal", None, "line 1"),
    "diagonal of cross-entropy": (
        "F.cross_entropy(x @ w, k)", {"x": X, "w": W, "k": K}, "w", diagonal_only(), "softmax_diagonal", None, "i ≠ j",
    ),
    "no derivative of tanh": (
        "tanh(x @ w).sum()", {"x": X, "w": W}, "w", X.T @ torch.ones(8, 4, dtype=torch.float64), "missing_activation_derivative", None, "tanh",
    ),
    "one term of a quadratic form": ("x @ a @ x", {"x": B, "a": normal(4, 4)}, "x", normal(4, 4) @ B, "missing_term", None, "treated as constant"),
    "a matrix that depends on x": (
        "m = a + outer(x, x)\nx @ m @ x", {"x": B, "a": normal(4, 4)}, "x",
        (normal(4, 4) + normal(4, 4).T + 2 * torch.outer(B, B)) @ B, "missing_term", None, "line 1",
    ),
    "conjugate": ("(z * z * z.conj()).real.sum()", {"z": Z}, "z", GZ.conj().resolve_conj(), "conjugate", None, "Wirtinger"),
    "half the conjugate": ("(z * z * z.conj()).real.sum()", {"z": Z}, "z", GZ.conj().resolve_conj() / 2, "conjugate", 0.5, "half"),
}  # fmt: skip


S, A, V = normal(3, seed=4), normal(3, 3, seed=5), normal(3, seed=6)
LOW = "F.cross_entropy(x @ w, k, label_smoothing=0.1)"
Q = torch.softmax(S, 0)
# Derivations of a program that lacks something, and what two derivatives differ by.
MISTAKES |= {
    "target left out": (MSE, {"x": X, "y": Y}, "x", 2 * X / 24, "left_out", None, "second operand of `-`"),
    "number left out": ("((x - 1) ** 2).sum()", {"x": X}, "x", 2 * X, "left_out", None, "The 1 of `-`"),
    "step left out": ("(relu(x) ** 2).sum()", {"x": X}, "x", 2 * X, "left_out", None, "relu` is left out"),
    "other sign": ("((x - y) ** 2).sum()", {"x": X, "y": Y}, "x", 2 * (X + Y), "sign_of_term", None, "`+` is taken"),
    "smoothing forgotten": (
        LOW, {"x": X, "w": W, "k": K}, "w", X.T @ (P - torch.eye(4, dtype=torch.float64)[K]) / 8, "default_argument", None, "label_smoothing",
    ),
    "beta forgotten": ("F.softplus(x, beta=3).sum()", {"x": X}, "x", torch.sigmoid(X), "default_argument", None, "`beta`"),
    "term of a likelihood": (
        "torch.distributions.Normal(m, s).log_prob(x).sum()", {"s": S.abs(), "m": V, "x": S}, "s", (S - V) ** 2 / S.abs() ** 3,
        "missing_term", None, "within",
    ),
    "sum of a softmax": ("(softmax(s, 0) * v).sum()", {"s": S, "v": V}, "s", Q * V, "wrong_rule", None, "divides by"),
    "symmetric matrix": ("s @ a @ s", {"s": S, "a": A}, "s", 2 * A @ S, "symmetric_assumed", None, "taken as equal"),
    "inverse without its transpose": (
        "(linalg.solve(a, s) * v).sum()", {"s": S, "a": A, "v": V}, "s", torch.linalg.solve(A, V), "transposed_product", None, "inverse",
    ),
    "gradient of a product": (
        "((a @ b) * c).sum()", {"a": A, "b": A + 1, "c": A.exp()}, "a", A.exp().T @ (A + 1).T, "transposed_product", None, "gradient",
    ),
    "determinant": ("linalg.det(a)", {"a": A}, "a", torch.linalg.inv(A).T, "elementwise_factor", None, "divided by the value of `linalg.det`"),
    "not divided": ("((s ** 2 + 1) / (s + 9)).sum()", {"s": S}, "s", 2 * S - (S**2 + 1) / (S + 9), "elementwise_factor", None, "`+`"),
    "p alone": ("-(v * log(softmax(s, 0))).sum()", {"s": S, "v": V}, "s", Q * V.sum(), "probability_alone", None, "the target is missing"),
    "beside an index of numbers": (
        "(log2(s[k[:3] % 3].abs()) * v).sum()", {"s": S, "v": V, "k": K}, "s", torch.where(S > 0, V, -V) / (S.abs() * math.log(10)),
        "log_base", None, "base 10",
    ),
    "a constant": ("(sin(s) * v).sum()", {"s": S, "v": V}, "s", V * S.cos() + 0.25, "differs_by_term", None, "0.25 in every element"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_the_mistake_is_named(case: str) -> None:
    text, inputs, name, believed, code, factor, words = MISTAKES[case]
    report = checked(text, {name: believed}, **inputs)[name]
    assert report["agrees"] is False
    assert report["likely"]["code"] == code, report["likely"]
    assert words in report["likely"]["message"]
    assert report["likely"].get("factor") == (None if factor is None else pytest.approx(factor))


def test_only_the_diagonal_of_a_jacobian() -> None:
    x = normal(2, 5)
    p = torch.softmax(x, -1)
    believed = torch.diag_embed((p * (1 - p)).reshape(-1)).reshape(2, 5, 2, 5)
    assert checked("softmax(x, -1)", {"x": believed}, kind="jacobian", x=x)["x"]["likely"]["code"] == "softmax_diagonal"


@pytest.mark.parametrize(("believed", "words"), [(2 * A, "the mean"), (A, "the sum")])
def test_a_hessian_that_is_not_symmetric(believed: Tensor, words: str) -> None:
    likely = checked("s @ a @ s", {"s": believed}, kind="hessian", s=S, a=A)["s"]["likely"]
    assert likely["code"] == "not_symmetric"
    assert words in likely["message"]


def test_the_first_is_no_neighbour_of_the_last() -> None:
    """-1 and 0 are an index and the next, and the two ends."""
    a = A + A.T
    values, vectors = torch.linalg.eigh(a)
    first = torch.outer(vectors[:, 0], vectors[:, 0])
    assert "likely" not in checked("linalg.eigvalsh(a)[-1]", {"a": first}, a=a)["a"], values


def test_two_halves_of_a_tie_are_no_symmetric_matrix() -> None:
    x = torch.tensor([0.9, 1.5, 1.1, 0.5], dtype=torch.float64)
    believed = torch.tensor([2.0, 0.0, 2.0, 0.0], dtype=torch.float64)
    report = checked("minimum(2 * x, 2 * clamp(x, 0.8, 1.2)).sum()", {"x": believed}, x=x)["x"]
    assert report.get("likely", {}).get("code") != "symmetric_assumed"


def test_the_diagonal_as_a_vjp() -> None:
    x, c = normal(2, 5), normal(2, 5, seed=1)
    p = torch.softmax(x, -1)
    report = checked("softmax(x, -1)", {"x": c * p * (1 - p)}, kind="vjp", cotangent=c, x=x)["x"]
    assert report["likely"]["code"] == "softmax_diagonal"


# What no hypothesis explains, or too many would.
SILENCE: dict[str, tuple[str, dict[str, Any], str, Any]] = {
    "noise": (MSE, {"x": X, "y": Y}, "x", G + 0.01 * normal(8, 3, seed=9)),
    "all zero": (MSE, {"x": X, "y": Y}, "x", 0 * G),
    "another shape": (MSE, {"x": X, "y": Y}, "x", normal(5)),
    "one element, any factor": ("x ** 3", {"x": 2.0}, "x", 12 * 1.3),
    "ours is zero": ("(x * 0).sum()", {"x": X}, "x", G),
    "one wrong element": (MSE, {"x": X, "y": Y}, "x", torch.cat([2 * G[:1], G[1:]])),
}


@pytest.mark.parametrize("case", SILENCE)
def test_nothing_is_claimed_without_proof(case: str) -> None:
    text, inputs, name, believed = SILENCE[case]
    report = checked(text, {name: believed}, **inputs)[name]
    assert report["agrees"] is False
    assert "likely" not in report, report["likely"]


@pytest.mark.parametrize("text", ["(x.norm(dim=1) - 1.0).sum()", "(x @ w).sin().sum()"])
def test_a_third_is_no_mean_of_what_is_no_sum(text: str) -> None:
    """Of squares, or of products with another's elements: a norm over three is none, and so is a product of [8, 3] and [3, 4]."""
    x, w = normal(8, 3), normal(3, 4, seed=2)
    inputs: dict[str, Any] = {"x": x, "w": w} if "w" in text else {"x": x}
    live = x.clone().requires_grad_()
    value = (live.norm(dim=1) - 1.0).sum() if "norm" in text else (live @ w).sin().sum()
    (right,) = torch.autograd.grad(value, live)
    likely = checked(text, {"x": right / 3}, wrt=("x",), **inputs)["x"]["likely"]
    assert likely["code"] == "constant_factor"
    assert "mean instead of sum" not in likely["message"], likely


@pytest.mark.parametrize(
    "case", ["no 2 of the square", "mean instead of sum", "no sum over the batch", "diagonal of softmax", "flat"]
)
def test_a_mistake_is_named_by_numbers_as_they_are_printed(case: str) -> None:
    """Three or four decimals, of which small elements hold one digit or none."""
    text, inputs, name, believed, code, factor, words = MISTAKES[case]
    printed = torch.tensor([float(f"{number:.4f}") for number in believed.reshape(-1).tolist()], dtype=torch.float64)
    likely = checked(text, {name: printed.reshape(believed.shape)}, **inputs)[name]["likely"]
    assert (likely["code"], likely.get("factor")) == (code, factor)
    assert all(word in likely["message"] for word in words.split(", "))


def _terms(mean: float, spread: float, power: int = 1, correction: int = 0) -> Tensor:
    """∂(layer_norm(x) · y).sum()/∂x with the terms of the mean and of the spread times a number."""
    shifted, number = X - X.mean(-1, keepdim=True), 3 - correction
    root = (shifted.square().sum(-1, keepdim=True) / number + 1e-5).sqrt()
    by, out = Y / root**power, shifted / root
    return by - mean * by.mean(-1, keepdim=True) - spread * out * (by * out).sum(-1, keepdim=True) / number


V, N = normal(5), normal(5, seed=4)
ORDER, E = torch.tensor([2, 0, 4, 1, 3]), torch.tensor([0, 2, 2, 1])
Q = 0.1 + 0.8 * torch.sigmoid(V)
LAYERS, TAKEN = "(layer_norm(x, (3,)) * y).sum()", "(embedding(e, x) * y).sum()"


def _standardised(number: int) -> Tensor:
    """∂(z³).sum()/∂x of the standardised V, its deviation's own derivative divided by `number`."""
    z = (V - V.mean()) / V.std()
    by = 3 * z**2 / V.std()
    return by - by.mean() - z * (by * z).sum() / number


# Program, inputs, what is believed of the first, code, words of the message.
OF_STEPS: dict[str, tuple[str, dict[str, Any], Tensor, str, str]] = {
    "mean's term": (LAYERS, {"x": X, "y": Y}, _terms(0.0, 1.0), "missing_term", "that of the mean"),
    "spread's term": (LAYERS, {"x": X, "y": Y}, _terms(1.0, 0.0), "missing_term", "that of the spread"),
    "spread's sign": (LAYERS, {"x": X, "y": Y}, _terms(1.0, -1.0), "sign_of_term", "that of the spread"),
    "not divided": (LAYERS, {"x": X, "y": Y}, _terms(1.0, 1.0, power=0), "wrong_rule", "not divided by σ"),
    "by the variance": (LAYERS, {"x": X, "y": Y}, _terms(1.0, 1.0, power=2), "wrong_rule", "σ²"),
    "the weight's input": ("(layer_norm(y, (3,), v) * x).sum()", {"v": N[:3], "x": X, "y": Y}, (X * Y).sum(0), "wrong_value", "the normalised input"),
    "n in a deviation": ("z = (x - x.mean()) / x.std()\n(z ** 3).sum()", {"x": V}, _standardised(5), "factor_of_term", "n instead of n - 1"),
    "overwritten": ("(zeros(5).scatter_add(0, e, x) ** 2).sum()", {"x": V[:4], "e": E}, 2 * torch.zeros(5).double().scatter(0, E, V[:4])[E],
        "other_operation", "`scatter`"),
    "multiplied, not divided": ("(x ** 3 / 0.6).sum()", {"x": V}, 1.8 * V**2, "constant_factor", "the division by 0.6 is taken as a factor"),
    "weighted probabilities": ("F.cross_entropy(x, e, weight=v)", {"x": Y[:4], "e": E, "v": Q[:3]},
        Y[:4].softmax(1) * Q[E][:, None] / Q[E].sum(), "probability_alone", "the target is missing"),
    "letters transposed": ("einsum('i,j,ij->', x, u, a)", {"x": V[:3], "u": N[:3], "a": normal(3, 3, seed=8)},
        normal(3, 3, seed=8).T @ N[:3], "transposed_product", "transpose of `a`"),
    "n - 1": (LAYERS, {"x": X, "y": Y}, _terms(1.0, 1.0, correction=1), "variance_correction", "n - 1"),
    "roll": ("(roll(x, 1, 0) * y).sum()", {"x": V, "y": N}, N.roll(1), "not_moved_back", "moved as they are"),
    "permutation": ("(x[i] * y).sum()", {"x": V, "i": ORDER, "y": N}, N[ORDER], "not_moved_back", "moved as they are"),
    "sort": ("(sort(x).values * y).sum()", {"x": V, "y": N}, N, "not_moved_back", "stays where it is"),
    "copies": (TAKEN, {"x": X, "e": E, "y": Y[:4]}, torch.zeros_like(X).index_copy(0, E, Y[:4]), "copies_counted_once", "its last place"),
    "mean of copies": (TAKEN, {"x": X, "e": E, "y": Y[:4]}, torch.zeros_like(X).index_add(0, E, Y[:4] / torch.tensor([[1], [2], [2], [1]])),
        "copies_averaged", "the mean"),
    "inside": ("exp(-x ** 2).sum()", {"x": V}, torch.exp(-V * V), "missing_activation_derivative", "inside `exp`"),
    "lgamma": ("lgamma(x).sum()", {"x": 1 + Q}, torch.log(1 + Q), "wrong_rule", "ln x"),
    "logit": ("logit(x).sum()", {"x": Q}, 1 / Q - 1 / (1 - Q), "wrong_rule", "the sum belongs"),
    "silu": ("silu(x).sum()", {"x": V}, V * torch.sigmoid(V) * torch.sigmoid(-V), "wrong_rule", "the term σ(x)"),
    "gelu": ("gelu(x).sum()", {"x": V}, torch.special.ndtr(V) + V * torch.exp(-V * V / 2), "wrong_rule", "1/√(2π)"),
    "softplus": ("softplus(x).sum()", {"x": V}, torch.sigmoid(V) * torch.sigmoid(-V), "wrong_rule", "the logistic function"),
}  # fmt: skip

T, HOT = torch.sigmoid(Y), torch.eye(3, dtype=torch.float64)[K[:8] % 3]
LOGS, SIGNAL, M = torch.log_softmax(X, 1), normal(1, 2, 4, 4, seed=7), normal(3, 3, seed=8)
CHANNELS, IMAGE = normal(2, 2, 3, 3, seed=9), normal(1, 2, 2, 2, seed=10)
QUERY = {"x": normal(4, 3), "q": X[:4], "k": Y[:4], "c": normal(4, 3, seed=11)}
ATTENTION = torch.softmax(X[:4] @ Y[:4].T / math.sqrt(3), -1)


def _of(loss: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The derivative of what was taken for the program."""
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(loss(leaf), leaf)[0]


# One operation or rule taken for another.
OF_STEPS |= {
    "bce p - y": ("F.binary_cross_entropy(x, t)", {"x": torch.sigmoid(X), "t": T}, (torch.sigmoid(X) - T) / 24, "wrong_rule", "p (1 - p)"),
    "bce of scores": ("F.binary_cross_entropy(x, t)", {"x": torch.sigmoid(X), "t": T},
        (torch.sigmoid(torch.sigmoid(X)) - T) / 24, "other_operation", "F.binary_cross_entropy_with_logits"),
    "bce and its sigmoid": ("F.binary_cross_entropy(sigmoid(x), t)", {"x": X, "t": T},
        (torch.sigmoid(X) - T) / 24 * torch.sigmoid(X) * torch.sigmoid(-X), "wrong_rule", "p (1 - p)"),
    "nll p - y": ("F.nll_loss(x, k)", {"x": LOGS, "k": K % 3}, (LOGS.exp() - HOT) / 8, "wrong_rule", "before the softmax"),
    "cross-entropy -y": ("F.cross_entropy(x, k)", {"x": X, "k": K % 3}, -HOT / 8, "other_operation", "F.nll_loss"),
    "cross-entropy -1/p": ("F.cross_entropy(x, k)", {"x": X, "k": K % 3}, -HOT / X.softmax(1) / 8, "missing_activation_derivative", "-y/p"),
    "smoothing": ("F.cross_entropy(x, k, label_smoothing=0.2)", {"x": X, "k": K % 3},
        (X.softmax(1) - 0.8 * HOT - 0.1 * (1 - HOT)) / 8, "wrong_rule", "the other classes"),
    "l1 for mse": ("F.mse_loss(x, y)", {"x": X, "y": Y}, (X - Y).sign() / 24, "other_operation", "F.l1_loss"),
    "mse for huber": ("F.huber_loss(x, y, delta=0.3)", {"x": X, "y": Y}, (X - Y) / 12, "other_operation", "F.mse_loss"),
    "huber for smooth l1": ("F.smooth_l1_loss(x, y)", {"x": X, "y": Y}, (X - Y).sign() / 24, "other_operation", "F.l1_loss"),
    "kl q - p": ("F.kl_div(x, t, reduction='batchmean')", {"x": LOGS, "t": T}, (LOGS.exp() - T) / 8, "wrong_rule", "eˣ - y"),
    "kl swapped": ("F.kl_div(x, t, reduction='sum')", {"x": LOGS, "t": T}, LOGS.exp() * (LOGS - T.log() + 1), "swapped", "distributions"),
    "softplus's beta": ("F.softplus(x, 2.0).sum()", {"x": V}, torch.sigmoid(V), "default_argument", "`beta`"),
    "softmax's plus": ("(softmax(x, -1) * y).sum()", {"x": X, "y": Y}, X.softmax(1) * (Y + (X.softmax(1) * Y).sum(1, keepdim=True)),
        "sign_of_term", "over all outputs"),
    "log-softmax's plus": ("(log_softmax(x, -1) * y).sum()", {"x": X, "y": Y}, Y + X.softmax(1) * Y.sum(1, keepdim=True), "sign_of_term", "over all"),
    "attention": ("(F.scaled_dot_product_attention(q, k, x) * c).sum()", QUERY, ATTENTION @ QUERY["c"], "transposed_product", "Pᵗ·G"),
    "einsum": ("(einsum('ij,jk->ik', x, m) * y).sum()", {"x": X, "m": M, "y": Y}, Y @ M, "transposed_product", "Bᵗ"),
    "channels": ("(conv2d(x, w) * c).sum()", {"x": SIGNAL, "w": CHANNELS, "c": IMAGE},
        functional.conv_transpose2d(IMAGE, CHANNELS.transpose(0, 1)), "transposed_product", "channels"),
    "batch of features": ("(F.batch_norm(x, None, None, training=True) * y).sum()", {"x": X, "y": Y},
        _of(lambda x: (functional.layer_norm(x, (3,)) * Y).sum(), X), "wrong_axis", "other axes"),
    "features of a batch": (LAYERS, {"x": X, "y": Y}, _of(lambda x: (functional.batch_norm(x, None, None, training=True) * Y).sum(), X),
        "wrong_axis", "other axes"),
    "evaluation": ("(F.batch_norm(x, m, v, training=True) * y).sum()", {"x": X, "m": V[:3].clone(), "v": Q[:3].clone(), "y": Y},
        Y / (Q[:3] + 1e-5).sqrt(),
        "statistics_constant", "as in evaluation"),
    "groups": ("(F.group_norm(x, 2) * c).sum()", {"x": normal(2, 4, 3), "c": normal(2, 4, 3, seed=1)},
        _of(lambda x: (functional.group_norm(x, 1) * normal(2, 4, 3, seed=1)).sum(), normal(2, 4, 3)), "wrong_axis", "1 group"),
    "sum of squares": ("(F.rms_norm(x, (3,)) * y).sum()", {"x": X, "y": Y},
        _of(lambda x: (x / x.square().sum(-1, keepdim=True).sqrt() * Y).sum(), X), "wrong_reduction", "their mean"),
    "average for maximum": ("(F.max_pool2d(x, 2) * c).sum()", {"x": SIGNAL, "c": IMAGE},
        IMAGE.repeat_interleave(2, -1).repeat_interleave(2, -2) / 4, "other_operation", "F.avg_pool2d"),
    "repeated": ("(x.repeat(2) * n).sum()", {"x": V[:4], "n": normal(8, seed=4)}, normal(8, seed=4).reshape(4, 2).sum(1),
        "other_operation", "repeat_interleave"),
    "interleaved": ("(repeat_interleave(x, 2) * n).sum()", {"x": V[:4], "n": normal(8, seed=4)}, normal(8, seed=4).reshape(2, 4).sum(0),
        "other_operation", "repeat"),
    "padding": ("(pad(x, (2, 1)) * n).sum()", {"x": V, "n": normal(8, seed=4)}, normal(8, seed=4)[:5], "not_moved_back", "in front"),
    "clamp": ("(clamp(x, -0.5, 0.5) * n).sum()", {"x": V, "n": N}, torch.where(V.abs() > 0.5, N, 0.0), "wrong_rule", "inside the bounds"),
    "inverse of elements": ("(linalg.inv(x) * a).sum()", {"x": M, "a": A}, -A / M**2, "other_operation", "`reciprocal`"),
    "exponential of elements": ("(matrix_exp(x) * a).sum()", {"x": M, "a": A}, A * M.exp(), "other_operation", "`exp`"),
    "alpha": ("sub(n, x, alpha=3).square().sum()", {"x": V, "n": N}, -2 * (N - 3 * V), "constant_factor", "`alpha` of 3"),
}  # fmt: skip

WEIGHTED = Y - (X.softmax(1) * Y).sum(1, keepdim=True)
LOGITS = "F.binary_cross_entropy_with_logits(x, t)"
FLOWN = ATTENTION * (QUERY["c"] @ QUERY["x"].T)  # P·(G·Vᵗ), element by element
SCORES = FLOWN - ATTENTION * FLOWN.sum(1, keepdim=True)
SAME, ALIKE = "(F.scaled_dot_product_attention(q, q, q) * c).sum()", {"q": X[:4], "c": QUERY["c"]}
OWN = torch.softmax(X[:4] @ X[:4].T / math.sqrt(3), -1)
OWN_SCORES = OWN * (QUERY["c"] @ X[:4].T - (OWN * (QUERY["c"] @ X[:4].T)).sum(1, keepdim=True)) / math.sqrt(3)
OF_QUERY = {"q": X[:4], "k": Y[:4], "x": QUERY["x"], "c": QUERY["c"]}
# Parts of a rule, and the steps of attention.
OF_STEPS |= {
    "scores for probabilities": (LOGITS, {"x": X, "t": T}, (X - T) / 24, "wrong_rule", "the sigmoid is missing"),
    "sigmoid twice": (LOGITS, {"x": X, "t": T}, (torch.sigmoid(X) - T) * torch.sigmoid(X) * torch.sigmoid(-X) / 24, "wrong_rule", "p (1 - p)"),
    "by probabilities": (LOGITS, {"x": X, "t": T}, (torch.sigmoid(X) - T) / torch.sigmoid(X) / torch.sigmoid(-X) / 24, "wrong_rule", "/ (p (1 - p))"),
    "softmax's mean": ("(softmax(x, 1) * y).sum()", {"x": X, "y": Y}, X.softmax(1) * (Y - (X.softmax(1) * Y).mean(1, keepdim=True)),
        "wrong_reduction", "A mean"),
    "softmax's other sum": ("(softmax(x, 1) * y).sum()", {"x": X, "y": Y}, X.softmax(1) * (Y - (X.softmax(1) * Y).sum(0)),
        "wrong_axis", "another axis"),
    "softmax's bare sum": ("(softmax(x, 1) * y).sum()", {"x": X, "y": Y}, X.softmax(1) * (Y - Y.sum(1, keepdim=True)),
        "wrong_rule", "gradient alone"),
    "softmax for its logarithm": ("(log_softmax(x, 1) * y).sum()", {"x": X, "y": Y}, X.softmax(1) * WEIGHTED, "other_operation", "`softmax`"),
    "log-softmax's mean": ("(log_softmax(x, 1) * y).sum()", {"x": X, "y": Y}, Y - X.softmax(1) * Y.mean(1, keepdim=True),
        "wrong_reduction", "A mean"),
    "sums of a normalisation": (LAYERS, {"x": X, "y": Y}, _terms(3.0, 3.0), "wrong_reduction", "sums where they are means"),
    "elements of a product": ("((x @ m) * a).sum()", {"x": M, "m": A, "a": A.T}, A.T * A, "wrong_rule", "element by element"),
    "order of letters": ("(einsum('ij,jk->ik', x, m) * a).sum()", {"x": M, "m": A, "a": A @ A}, A.T @ (A @ A), "swapped", "tensors of `einsum`"),
    "letters and symmetry": ("einsum('i,ij,j->', x, a, x)", {"x": V[:3], "a": M}, 2 * M @ V[:3], "symmetric_assumed", "2·A·x"),
    "what comes to a product": ("u @ tanh(x)", {"x": V, "u": N}, 1 - V.tanh() ** 2, "missing_factor", "A factor"),
    "power rule of a base": ("(2 ** x).sum()", {"x": V}, V * 2 ** (V - 1), "wrong_rule", "aˣ·ln a"),
    "logarithm of a base": ("(3 ** x).sum()", {"x": V}, 3**V, "constant_factor", "ln 3"),
    "exponent raised": ("(x ** -12 - x ** -6).sum()", {"x": 1 + Q}, -12 * (1 + Q) ** -11 + 6 * (1 + Q) ** -5, "wrong_rule", "raised by one"),
    "half of a factor with a sign": ("-0.5 * (1 - x ** 2).sum()", {"x": V}, 2 * V, "constant_factor", "the factor 0.5"),
    "beta": ("(addmm(x, m, a, beta=0.3, alpha=2) ** 1).sum()", {"x": A, "m": M, "a": M}, torch.ones_like(A), "constant_factor", "`beta` of 0.3"),
    "alpha of the first": ("(add(x, n, alpha=7) * v).sum()", {"x": V, "n": N, "v": Q}, 7 * Q, "constant_factor", "second operand"),
    "gelu's tanh": ("(F.gelu(x) * n).sum()", {"x": V, "n": N}, _of(lambda x: (functional.gelu(x, approximate="tanh") * N).sum(), V),
        "other_operation", "tanh approximation"),
    "attention's scale": ("(F.scaled_dot_product_attention(q, k, x) * c).sum()", OF_QUERY, SCORES @ Y[:4], "constant_factor", "√d"),
    "attention's diagonal": ("(F.scaled_dot_product_attention(q, k, x) * c).sum()", OF_QUERY, (FLOWN * (1 - ATTENTION)) @ Y[:4] / math.sqrt(3),
        "softmax_diagonal", "Within attention"),
    "attention's sum": ("(F.scaled_dot_product_attention(q, k, x) * c).sum()", OF_QUERY, FLOWN @ Y[:4] / math.sqrt(3),
        "wrong_rule", "Within attention"),
    "one tensor's attention, scale": (SAME, ALIKE, math.sqrt(3) * (OWN_SCORES + OWN_SCORES.T) @ X[:4] + OWN.T @ QUERY["c"],
        "factor_of_term", "Within"),
    "one tensor's attention, values": (SAME, ALIKE, (OWN_SCORES + OWN_SCORES.T) @ X[:4] + OWN @ QUERY["c"], "transposed_product", "Within attention"),
}  # fmt: skip


@pytest.mark.parametrize("case", OF_STEPS)
@pytest.mark.share(2)
def test_what_is_wrong_in_one_step_is_named(case: str) -> None:
    text, inputs, believed, code, words = OF_STEPS[case]
    name = next(iter(inputs))
    report = checked(text, {name: believed}, **inputs)[name]
    assert report["agrees"] is False
    assert (report["likely"]["code"], words in report["likely"]["message"]) == (code, True), report["likely"]
