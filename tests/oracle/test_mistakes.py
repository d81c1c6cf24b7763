"""Derivations with a planted mistake: each is called wrong, and its mistake is named; where several fit, the right name is among them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from app.engine.check.report import check
from app.engine.stepwise.point import Points
from tests.engine.building import checked, normal, program, tensors
from tests.oracle.test_derivations import wide

X, W, B, Y = normal(6, 4), normal(4, 3, seed=1), normal(3, seed=2), normal(6, 3, seed=3)
K = torch.tensor([0, 2, 1, 0, 2, 1])
H = X @ W + B
P = torch.softmax(H, 1)
HOT = torch.eye(3, dtype=torch.float64)[K]
A, C = normal(4, 4, seed=4), normal(4, 4, seed=6)
V, U, D = normal(5, seed=5), normal(5, seed=7), normal(5, seed=8)
S, T = torch.sigmoid(H), torch.tanh(H)
POS = V.abs() + 0.3
CENTRED, MEAN, STD = V - V.mean(), V.mean(), V.std()
LN_STD = (CENTRED.square().mean() + 1e-5).sqrt()
ROW = wide([[1.0, -2.0, 0.5]])
SIGNAL, KERNEL = normal(1, 1, 7, seed=9), normal(1, 1, 3, seed=10)
Z = torch.complex(normal(3), normal(3, seed=1))


def autodiff(function: Any, *leaves: Tensor) -> Tensor:
    leaf = leaves[0].clone().requires_grad_()
    return torch.autograd.grad(function(leaf, *leaves[1:]), leaf)[0]


def conv_input(kernel: Tensor, cotangent: Tensor) -> Tensor:
    return torch.nn.functional.conv_transpose1d(cotangent, kernel)


FEATURES = torch.nn.functional.conv1d(SIGNAL, KERNEL)

# Program, inputs, by what, the derivation with its mistake, code, words of the message.
MISTAKES: dict[str, tuple[str, dict[str, Any], str, Tensor, str, str]] = {
    "sigmoid' = s": (
        "(sigmoid(x @ w + b) ** 2).sum()",
        {"x": X, "w": W, "b": B},
        "w",
        X.T @ (2 * S * S),
        "wrong_rule",
        "own output",
    ),
    "sigmoid' = 1 - s": ("sigmoid(x @ w + b).sum()", {"x": X, "w": W, "b": B}, "w", X.T @ (1 - S), "wrong_rule", "1 - y"),
    "sigmoid' = x (1 - x)": ("sigmoid(v).sum()", {"v": V}, "v", V * (1 - V), "wrong_rule", "of the input where"),
    "sigmoid'(s)": (
        "sigmoid(v).sum()",
        {"v": V},
        "v",
        torch.sigmoid(torch.sigmoid(V)) * (1 - torch.sigmoid(torch.sigmoid(V))),
        "wrong_rule",
        "at its output",
    ),
    "tanh' = 1 - t": ("tanh(x @ w + b).sum()", {"x": X, "w": W, "b": B}, "w", X.T @ (1 - T), "wrong_rule", "1 - y"),
    "tanh' = 1 - x²": ("tanh(v).sum()", {"v": V}, "v", 1 - V**2, "wrong_rule", "1 - x²"),
    "tanh' = t (1 - t)": ("tanh(v).sum()", {"v": V}, "v", torch.tanh(V) * (1 - torch.tanh(V)), "wrong_rule", "logistic"),
    "tanh forgotten": (
        "tanh(x @ w + b).sum()",
        {"x": X, "w": W, "b": B},
        "w",
        X.T @ torch.ones(6, 3, dtype=torch.float64),
        "missing_activation_derivative",
        "tanh",
    ),
    "tanh forgotten in two layers": (
        "(tanh(tanh(v) * u) ** 2).sum()",
        {"v": V, "u": U},
        "v",
        2 * torch.tanh(torch.tanh(V) * U) * (1 - torch.tanh(torch.tanh(V) * U) ** 2) * U,
        "missing_activation_derivative",
        "tanh",
    ),
    "sin' = sin": ("(sin(v) * u).sum()", {"v": V, "u": U}, "v", V.sin() * U, "wrong_rule", "own output"),
    "cos' = sin": ("(cos(v) * u).sum()", {"v": V, "u": U}, "v", V.sin() * U, "sign", "opposite sign"),
    "cos' = sin in one term": (
        "(cos(v) * u).sum() + (v ** 2).sum()",
        {"v": V, "u": U},
        "v",
        V.sin() * U + 2 * V,
        "wrong_rule",
        "sine",
    ),
    "silu without its second term": (
        "(F.silu(v) * u).sum()",
        {"v": V, "u": U},
        "v",
        torch.sigmoid(V) * U,
        "wrong_rule",
        "product rule",
    ),
    "gelu without its second term": ("F.gelu(v).sum()", {"v": V}, "v", torch.special.ndtr(V), "wrong_rule", "Φ(x)"),
    "sqrt without the half": ("(sqrt(v) * u).sum()", {"v": POS, "u": U}, "v", U / POS.sqrt(), "constant_factor", "2"),
    "leaky relu as relu": ("(F.leaky_relu(v, 0.1) * u).sum()", {"v": V, "u": U}, "v", (V > 0) * U, "wrong_rule", "relu"),
    "the exponent of a cube": ("(v ** 3).sum()", {"v": V}, "v", V**2, "constant_factor", "exponent 3"),
    "the exponent of a cube, three elements": (
        "(v ** 3).sum()",
        {"v": V[:3]},
        "v",
        V[:3] ** 2,
        "constant_factor",
        "exponent 3",
    ),
    "the exponent of a cube, one element": ("v ** 3", {"v": 2.0}, "v", wide(4.0), "constant_factor", "exponent 3"),
    "the exponent in one term": (
        "(v ** 3).sum() + (u * v).sum()",
        {"v": V, "u": U},
        "v",
        V**2 + U,
        "factor_of_term",
        "exponent 3",
    ),
    "an exponent not lowered": ("(v ** 3).sum()", {"v": V}, "v", 3 * V**3, "wrong_rule", "not lowered"),
    "the 2 of a square in one term": (
        "((v - u) ** 2).sum() + sin(v).sum()",
        {"v": V, "u": U},
        "v",
        V - U + V.cos(),
        "factor_of_term",
        "square",
    ),
    "a constant": ("(0.3 * v ** 4).sum()", {"v": V}, "v", 4 * V**3, "constant_factor", "0.3"),
    "sum for mean in one term": (
        "((v - u) ** 2).mean() + (v ** 3).sum()",
        {"v": V, "u": U},
        "v",
        2 * (V - U) + 3 * V**2,
        "factor_of_term",
        "sum instead of mean",
    ),
    "log to the base 2": ("log2(v).sum()", {"v": POS}, "v", 1 / POS, "constant_factor", "1/ln 2"),
    "log to the base 10 inside": (
        "exp(log10(v) * u).sum()",
        {"v": POS, "u": U},
        "v",
        torch.exp(torch.log10(POS) * U) * U / POS,
        "constant_factor",
        "1/ln 10",
    ),
    "natural logarithm for log10": (
        "exp(log10(v) * u).sum()",
        {"v": POS, "u": U},
        "v",
        torch.exp(torch.log(POS) * U) * U / POS,
        "log_base",
        "base e",
    ),
    "degrees": (
        "(sin(v) * u).sum()",
        {"v": V, "u": U},
        "v",
        math.pi / 180 * torch.cos(V * math.pi / 180) * U,
        "degrees",
        "degrees",
    ),
    "degrees in the slope alone": (
        "(sin(v) * u).sum()",
        {"v": V, "u": U},
        "v",
        math.pi / 180 * V.cos() * U,
        "constant_factor",
        "degrees",
    ),
    "eps forgotten": (
        "(v / (v.norm() + 0.01)).sum()",
        {"v": V},
        "v",
        autodiff(lambda v: (v / v.norm()).sum(), V),
        "missing_eps",
        "0.01",
    ),
    "eps of layer norm": (
        "(F.layer_norm(v, (5,), eps=1e-3) * u).sum()",
        {"v": V, "u": U},
        "v",
        autodiff(lambda v: (torch.nn.functional.layer_norm(v, (5,), eps=0.0) * U).sum(), V),
        "missing_eps",
        "eps",
    ),
    "layer norm by σ alone": (
        "(F.layer_norm(v, (5,)) * u).sum()",
        {"v": V, "u": U},
        "v",
        U / LN_STD,
        "statistics_constant",
        "σ alone",
    ),
    "layer norm written out, by σ alone": (
        "((v - v.mean()) / v.std() * u).sum()",
        {"v": V, "u": U},
        "v",
        U / STD,
        "statistics_constant",
        "constants",
    ),
    "mean of a normalisation constant": (
        "((v - v.mean()) / v.std() * u).sum()",
        {"v": V, "u": U},
        "v",
        autodiff(lambda v: ((v - MEAN) / ((v - v.mean()).square().sum() / 4).sqrt() * U).sum(), V),
        "missing_term",
        "constant",
    ),
    "normalised vector by its norm alone": (
        "(F.normalize(v, dim=0) * u).sum()",
        {"v": V, "u": U},
        "v",
        U / V.norm(),
        "statistics_constant",
        "normalize",
    ),
    "variance by n": ("v.var()", {"v": V}, "v", 2 * CENTRED / 5, "constant_factor", "n - 1"),
    "cross entropy without the target": (
        "F.cross_entropy(x @ w + b, k)",
        {"x": X, "w": W, "b": B, "k": K},
        "w",
        X.T @ P / 6,
        "probability_alone",
        "p - y",
    ),
    "cross entropy with a sign": (
        "F.cross_entropy(x @ w + b, k)",
        {"x": X, "w": W, "b": B, "k": K},
        "w",
        X.T @ (HOT - P) / 6,
        "sign",
        "opposite",
    ),
    "cross entropy, sum for mean": (
        "F.cross_entropy(x @ w + b, k)",
        {"x": X, "w": W, "b": B, "k": K},
        "w",
        X.T @ (P - HOT),
        "constant_factor",
        "batch size: sum instead of mean",
    ),
    "log-likelihood without the target": (
        "-log_softmax(x @ w + b, 1)[arange(6), k].mean()",
        {"x": X, "w": W, "b": B, "k": K},
        "w",
        X.T @ P / 6,
        "probability_alone",
        "p - y",
    ),
    "logistic loss without the target": (
        "F.binary_cross_entropy_with_logits(x @ w, t)",
        {"x": X, "w": W[:, 0], "t": wide([1.0, 0, 1, 0, 0, 1])},
        "w",
        X.T @ torch.sigmoid(X @ W[:, 0]) / 6,
        "probability_alone",
        "p - y",
    ),
    "diagonal of softmax": (
        "(softmax(x @ w, 1) * y).sum()",
        {"x": X, "w": W, "y": Y},
        "w",
        X.T @ (torch.softmax(X @ W, 1) * (1 - torch.softmax(X @ W, 1)) * Y),
        "softmax_diagonal",
        "i ≠ j",
    ),
    "product not transposed": (
        "((a @ c) ** 2).sum()",
        {"a": A, "c": C},
        "a",
        2 * (A @ C) @ C,
        "transposed_product",
        "transposed",
    ),
    "product not transposed, other side": (
        "((a @ c) ** 2).sum()",
        {"a": A, "c": C},
        "c",
        A @ (2 * A @ C),
        "transposed_product",
        "transposed",
    ),
    "a transpose forgotten": (
        "(a.T @ c * d).sum()",
        {"a": A, "c": C, "d": normal(4, 4, seed=11)},
        "c",
        A.T @ normal(4, 4, seed=11),
        "transposed_product",
        "transpose",
    ),
    "transposed result": (
        "((x @ w) ** 2).sum()",
        {"x": X, "w": W},
        "w",
        (2 * X.T @ (X @ W)).T,
        "transpose",
        "transpose of ours",
    ),
    "kernel not flipped": (
        "(F.conv1d(s, k) ** 2).sum()",
        {"s": SIGNAL, "k": KERNEL},
        "s",
        conv_input(KERNEL.flip(2), 2 * FEATURES),
        "unflipped_kernel",
        "wrong way round",
    ),
    "kernel's gradient backwards": (
        "(F.conv1d(s, k) ** 2).sum()",
        {"s": SIGNAL, "k": KERNEL},
        "k",
        autodiff(lambda k: (torch.nn.functional.conv1d(SIGNAL, k) ** 2).sum(), KERNEL).flip(2),
        "unflipped_kernel",
        "wrong way round",
    ),
    "sum over the batch missing": (
        "((x @ w + b - y) ** 2).sum()",
        {"x": X, "w": W, "b": B, "y": Y},
        "b",
        2 * (H - Y),
        "missing_batch_sum",
        "the batch axis",
    ),
    "mean over the batch for sum": (
        "((x @ w + b - y) ** 2).sum()",
        {"x": X, "w": W, "b": B, "y": Y},
        "b",
        (2 * (H - Y)).mean(0),
        "constant_factor",
        "batch size",
    ),
    "by another input": ("((v - 2 * u) ** 2).sum()", {"v": V, "u": U}, "v", -4 * (V - 2 * U), "wrong_variable", "`u`"),
    "an index off by one": (
        "(v[1:] * u[:-1]).sum() + (v ** 2).sum()",
        {"v": V, "u": U},
        "v",
        torch.cat([wide([0.0]), U[1:]]) + 2 * V,
        "off_by_one",
        "off by one",
    ),
    "shifted": ("(exp(v) * u).sum()", {"v": V, "u": U}, "v", (V.exp() * U).roll(1, 0), "off_by_one", "one place"),
    "backwards": ("(exp(v) * u).sum()", {"v": V, "u": U}, "v", (V.exp() * U).flip(0), "reversed", "backwards"),
    "the sign of a regulariser": (
        "((x @ w - y) ** 2).mean() + 0.1 * (w ** 2).sum()",
        {"x": X, "w": W, "y": Y},
        "w",
        X.T @ (X @ W - Y) / 9 - 0.2 * W,
        "sign_of_term",
        "sign of one term",
    ),
    "a regulariser forgotten": (
        "((x @ w - y) ** 2).mean() + 0.1 * (w ** 2).sum()",
        {"x": X, "w": W, "y": Y},
        "w",
        X.T @ (X @ W - Y) / 9,
        "missing_term",
        "treated as constant",
    ),
    "one half of a quadratic form": (
        "v @ (a[:, 0].sum() * v) + v @ u",
        {"v": V, "a": normal(5, 2), "u": U},
        "v",
        normal(5, 2)[:, 0].sum() * V + U,
        "missing_term",
        "treated as constant",
    ),
    "product rule": ("(sin(v) * v).sum()", {"v": V}, "v", V.cos() * V, "missing_term", "constant"),
    "quotient rule, sign": (
        "(sin(v) / (v ** 2 + 1)).sum()",
        {"v": V},
        "v",
        V.cos() / (V**2 + 1) + V.sin() * 2 * V / (V**2 + 1) ** 2,
        "sign_of_term",
        "sign",
    ),
    "quotient rule, square": (
        "(u / (v ** 2 + 1)).sum()",
        {"v": V, "u": U},
        "v",
        -U * 2 * V / (V**2 + 1),
        "quotient_rule",
        "not squared",
    ),
    "swapped difference": (
        "((v - u) ** 3).sum() + v.sum()",
        {"v": V, "u": U},
        "v",
        -3 * (U - V) ** 2 + 1,
        "sign_of_term",
        "sign",
    ),
    "symmetric matrix": (
        "logdet(a)",
        {"a": A @ A.T + 3 * torch.eye(4, dtype=torch.float64)},
        "a",
        2 * torch.linalg.inv(A @ A.T + 3 * torch.eye(4, dtype=torch.float64))
        - torch.diag(torch.linalg.inv(A @ A.T + 3 * torch.eye(4, dtype=torch.float64)).diagonal()),
        "symmetric_convention",
        "symmetric",
    ),
    "conjugate": (
        "(z * z * z.conj()).real.sum()",
        {"z": Z},
        "z",
        (Z**2 + 2 * Z * Z.conj()).conj().resolve_conj(),
        "conjugate",
        "Wirtinger",
    ),
    "norm not divided by": ("v.norm()", {"v": V}, "v", V, "wrong_rule", "divided by the norm"),
    "temperature": (
        "(softmax(v / t, 0) * u).sum()",
        {"v": V, "t": 2.5, "u": U},
        "v",
        torch.softmax(V / 2.5, 0) * (U - (U * torch.softmax(V / 2.5, 0)).sum()),
        "constant_factor",
        "`t`",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_the_planted_mistake_is_named(case: str) -> None:
    text, inputs, name, derivation, code, words = MISTAKES[case]
    verdict = checked(text, {name: derivation}, **inputs)[name]
    assert verdict["agrees"] is False
    claims = [verdict["likely"], *verdict["also_possible"]]
    assert any(claim["code"] == code and words in claim["message"] for claim in claims), claims
    assert verdict["likely"]["code"] == code, claims


@pytest.mark.parametrize("case", MISTAKES)
@pytest.mark.share(2)
def test_it_is_named_in_float32_as_well(case: str) -> None:
    text, inputs, name, derivation, code, _ = MISTAKES[case]
    rounded = derivation.to(torch.complex64 if derivation.is_complex() else torch.float32)
    verdict = checked(text, {name: rounded}, **inputs)[name]
    assert verdict["agrees"] is False
    assert code in [claim["code"] for claim in [verdict["likely"], *verdict["also_possible"]]]


def test_a_forgotten_mask_of_dropout() -> None:
    leaves = tensors({"v": V, "u": U})
    for derivation in (U, 2 * U):
        function = program("(F.dropout(v, 0.5, True) * u).sum()", leaves)
        verdict = check(Points(function, leaves, 3), ("v",), None, {"v": derivation}, None, "gradient")["v"]
        assert verdict["agrees"] is False
        assert verdict["likely"]["code"] == "dropout_mask", verdict["likely"]


def test_a_gauss_newton_matrix_and_an_outer_product_are_no_hessian() -> None:
    text = "((tanh(a @ v) - u) ** 2).sum()"
    a, v, u = normal(4, 3), normal(3, seed=1), normal(4, seed=2)
    jacobian = (1 - torch.tanh(a @ v) ** 2)[:, None] * a
    verdict = checked(text, {"v": 2 * jacobian.T @ jacobian}, kind="hessian", a=a, v=v, u=u)["v"]
    assert verdict["agrees"] is False
    assert verdict["likely"]["code"] == "gauss_newton"
    gradient = 2 * jacobian.T @ (torch.tanh(a @ v) - u)
    verdict = checked(text, {"v": torch.outer(gradient, gradient)}, kind="hessian", a=a, v=v, u=u)["v"]
    assert verdict["likely"]["code"] == "outer_product"


# Program, inputs, by what, the derivation, words that no explanation may have, for the program has no such thing.
NOT_THERE: dict[str, tuple[str, dict[str, Any], str, Tensor, str]] = {
    "no batch in a determinant": ("det(a)", {"a": A}, "a", torch.linalg.det(A) * torch.linalg.inv(A).T / 4, "batch"),
    "no batch in a vector": ("(v ** 2).sum()", {"v": V}, "v", 2 * V / 5, "batch"),
    "no batch in a lone matrix": ("(a ** 2).sum()", {"a": A}, "a", 2 * A / 4, "batch"),
    "no batch in an exponent": ("(a ** 4).sum()", {"a": A}, "a", A**3, "batch"),
    "no batch in a trace": ("trace(a @ a)", {"a": A}, "a", 2 * A.T * 4, "batch"),
    "no mean in a product": ("v.prod()", {"v": V}, "v", V.prod() / V / 5, "mean"),
    "no square": ("exp(v).sum()", {"v": V}, "v", V.exp() / 2, "square"),
}  # fmt: skip


@pytest.mark.parametrize("case", NOT_THERE)
def test_no_explanation_by_what_is_not_there(case: str) -> None:
    text, inputs, name, derivation, word = NOT_THERE[case]
    verdict = checked(text, {name: derivation}, **inputs)[name]
    assert verdict["agrees"] is False
    claims = [verdict[key] for key in ("likely",) if key in verdict] + list(verdict.get("also_possible", []))
    assert not any(word in claim["message"] for claim in claims), claims


def test_all_explanations_that_fit_are_listed() -> None:
    """Four elements and a fourth power: the exponent is forgotten, or a mean is taken."""
    verdict = checked("(v ** 4).sum()", {"v": V[:4] ** 3}, v=V[:4])["v"]
    messages = [claim["message"] for claim in [verdict["likely"], *verdict["also_possible"]]]
    assert "exponent 4" in messages[0]
    assert any("mean instead of sum" in message for message in messages[1:])
