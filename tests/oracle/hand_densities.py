"""Derivations by hand of log densities, scores of forecasts, prices and robust losses, by data and by parameters."""

from __future__ import annotations

import math
from typing import Any, Final

import torch
from torch import Tensor

from tests.engine.building import normal
from tests.oracle.hand_derivation import Derivation
from tests.oracle.written_out import below, density

V, U, M = normal(5, seed=61), normal(5, seed=62), normal(5, seed=63)
POS, SHAPE, RATE = V.abs() + 0.4, U.abs() + 0.7, M.abs() + 0.5
UNIT: Final = torch.sigmoid(V)
SIMPLEX: Final = torch.softmax(U, 0)
COUNT: Final = torch.tensor([0.0, 1, 3, 2, 6], dtype=torch.float64)
B: Final = torch.tensor([1.0, 0, 0, 1, 1], dtype=torch.float64)
LABEL: Final = torch.tensor([2, 0, 1, 1])
Z: Final = normal(4, 3, seed=64)
ANCHOR, NEAR, FAR = normal(4, 3, seed=65), normal(4, 3, seed=66), normal(4, 3, seed=67)
SPOT: Final = torch.tensor([90.0, 100, 105, 120], dtype=torch.float64)
VOL: Final = torch.tensor([0.2, 0.3, 0.25, 0.4], dtype=torch.float64)


def digamma(v: Tensor) -> Tensor:
    """Half precision lacks it."""
    return torch.digamma(v.double()).to(v.dtype)


def _d1(s: Tensor, v: Tensor) -> Tensor:
    return ((s / 100).log() + 0.02 + v * v / 2) / v


_CALL = "\n".join([
    "d1 = (log(s / 100) + (0.02 + v * v / 2)) / v",
    "d2 = d1 - v",
    "n1 = 0.5 * (1 + erf(d1 / 2 ** 0.5))",
    "n2 = 0.5 * (1 + erf(d2 / 2 ** 0.5))",
    "return (s * n1 - 100 * exp(tensor(-0.02)) * n2).sum()",
])  # fmt: skip


def _focal(v: Tensor, b: Tensor) -> Any:
    p = torch.sigmoid(v)
    q = torch.where(b > 0, p, 1 - p)
    return q, torch.where(b > 0, torch.ones_like(v), -torch.ones_like(v)), p * (1 - p)


def _triplet(a: Tensor, p: Tensor, n: Tensor) -> Any:
    to_p, to_n = (a - p).norm(dim=1, keepdim=True), (a - n).norm(dim=1, keepdim=True)
    return (a - p) / to_p, (a - n) / to_n, (to_p - to_n + 1 > 0).to(a.dtype)


def _crps(m: Tensor, s: Tensor, y: Tensor) -> Tensor:
    return (y - m) / s


DENSITIES: Final[dict[str, Derivation]] = {
    "beta log density, x": Derivation("((a - 1) * log(x) + (b - 1) * log(1 - x)).sum()", {"x": UNIT, "a": SHAPE, "b": RATE}, "x",
        lambda x, a, b: (a - 1) / x - (b - 1) / (1 - x), {
        "sign of the second": (lambda x, a, b: (a - 1) / x + (b - 1) / (1 - x), "sign_of_term"),
        "no 1": (lambda x, a, b: a / x - b / (1 - x), "?"),
        "first alone": (lambda x, a, b: (a - 1) / x, "missing_term"),
        "no division": (lambda x, a, b: (a - 1) - (b - 1), "missing_activation_derivative ?"),
    }),
    "beta log density, both": Derivation("(lgamma(a + b) - lgamma(a) - lgamma(b) + (a - 1) * log(x) + (b - 1) * log(1 - x)).sum()",
        {"a": SHAPE, "b": RATE, "x": UNIT}, "a", lambda a, b, x: digamma(a + b) - digamma(a) + x.log(), {
        "no sum": (lambda a, b, x: -digamma(a) + x.log(), "missing_term"),
        "plus": (lambda a, b, x: digamma(a + b) + digamma(a) + x.log(), "sign_of_term"),
        "no data": (lambda a, b, x: digamma(a + b) - digamma(a), "missing_term"),
        "x": (lambda a, b, x: digamma(a + b) - digamma(a) + x, "?"),
    }),
    "dirichlet": Derivation("lgamma(a.sum()) - lgamma(a).sum() + ((a - 1) * log(p)).sum()", {"a": SHAPE, "p": SIMPLEX}, "a",
        lambda a, p: digamma(a.sum()) - digamma(a) + p.log(), {
        "no normaliser": (lambda a, p: -digamma(a) + p.log(), "missing_term"),
        "own": (lambda a, p: p.log() + 0 * a, "? statistics_constant missing_term"),
        "plus": (lambda a, p: digamma(a.sum()) + digamma(a) + p.log(), "sign_of_term"),
        "p": (lambda a, p: digamma(a.sum()) - digamma(a) + p, "?"),
    }),
    "negative binomial, p": Derivation("(lgamma(k + r) - lgamma(r) + r * log(p) + k * log(1 - p)).sum()", {"p": UNIT, "r": SHAPE, "k": COUNT},
        "p", lambda p, r, k: r / p - k / (1 - p), {
        "plus": (lambda p, r, k: r / p + k / (1 - p), "sign_of_term"),
        "k alone": (lambda p, r, k: -k / (1 - p), "missing_term"),
        "swapped": (lambda p, r, k: k / p - r / (1 - p), "?"),
        "sign": (lambda p, r, k: k / (1 - p) - r / p, "sign"),
    }),
    "negative binomial, r": Derivation("(lgamma(k + r) - lgamma(r) + r * log(p)).sum()", {"r": SHAPE, "p": UNIT, "k": COUNT}, "r",
        lambda r, p, k: digamma(k + r) - digamma(r) + p.log(), {
        "no first": (lambda r, p, k: -digamma(r) + p.log(), "missing_term"),
        "no log": (lambda r, p, k: digamma(k + r) - digamma(r), "missing_term"),
        "p": (lambda r, p, k: digamma(k + r) - digamma(r) + p, "?"),
    }),
    "student, degrees of freedom": Derivation("(lgamma((n + 1) / 2) - lgamma(n / 2) - 0.5 * log(n * pi) - (n + 1) / 2 * log(1 + x * x / n)).sum()",
        {"n": SHAPE + 2, "x": V}, "n", lambda n, x: 0.5 * (digamma((n + 1) / 2) - digamma(n / 2) - 1 / n - (1 + x * x / n).log()
        + (n + 1) / n * x * x / (n + x * x)), {
        "no last": (lambda n, x: 0.5 * (digamma((n + 1) / 2) - digamma(n / 2) - 1 / n - (1 + x * x / n).log()), "missing_term"),
        "no halves": (lambda n, x: digamma((n + 1) / 2) - digamma(n / 2) - 0.5 / n - 0.5 * (1 + x * x / n).log()
            + 0.5 * (n + 1) / n * x * x / (n + x * x), "? factor_of_term"),
        "no log": (lambda n, x: 0.5 * (digamma((n + 1) / 2) - digamma(n / 2) - 1 / n + (n + 1) / n * x * x / (n + x * x)), "missing_term"),
    }),
    "student, scale": Derivation("(-log(s) - 2.5 * log(1 + (x / s) ** 2 / 4)).sum()", {"s": POS, "x": U}, "s",
        lambda s, x: -1 / s + 5 * x * x / (s * (4 * s * s + x * x)), {
        "no first": (lambda s, x: 5 * x * x / (s * (4 * s * s + x * x)), "missing_term"),
        "sign": (lambda s, x: -1 / s - 5 * x * x / (s * (4 * s * s + x * x)), "sign_of_term"),
        "half": (lambda s, x: -1 / s + 2.5 * x * x / (s * (4 * s * s + x * x)), "factor_of_term"),
    }),
    "gumbel": Derivation("(-(x - m) / s - exp(-(x - m) / s) - log(s)).sum()", {"x": V, "m": U, "s": POS}, "x",
        lambda x, m, s: (-1 + (-(x - m) / s).exp()) / s, {
        "no scale": (lambda x, m, s: -1 + (-(x - m) / s).exp(), "? missing_activation_derivative missing_factor"),
        "no 1": (lambda x, m, s: (-(x - m) / s).exp() / s, "missing_term"),
        "sign": (lambda x, m, s: (-1 - (-(x - m) / s).exp()) / s, "sign_of_term"),
    }),
    "weibull, shape": Derivation("(log(k) + (k - 1) * log(x) - x ** k).sum()", {"k": SHAPE, "x": POS}, "k",
        lambda k, x: 1 / k + x.log() - x**k * x.log(), {
        "power rule": (lambda k, x: 1 / k + x.log() - k * x ** (k - 1), "wrong_variable ? wrong_rule"),
        "no log": (lambda k, x: 1 / k + x.log() - x**k, "? wrong_rule"),
        "no first": (lambda k, x: x.log() - x**k * x.log(), "missing_term"),
    }),
    "pareto": Derivation("(log(a) - (a + 1) * log(x)).sum()", {"a": SHAPE, "x": POS + 1}, "a", lambda a, x: 1 / a - x.log(), {
        "sign": (lambda a, x: x.log() - 1 / a, "sign"),
        "plus": (lambda a, x: 1 / a + x.log(), "sign_of_term"),
        "no first": (lambda a, x: -x.log(), "missing_term"),
    }),
    "log normal": Derivation("(-log(x) - log(s) - 0.5 * ((log(x) - m) / s) ** 2).sum()", {"x": POS, "m": U, "s": SHAPE}, "x",
        lambda x, m, s: -1 / x - (x.log() - m) / (s * s * x), {
        "no x": (lambda x, m, s: -1 / x - (x.log() - m) / (s * s), "missing_activation_derivative"),
        "no jacobian": (lambda x, m, s: -(x.log() - m) / (s * s * x), "missing_term"),
        "plus": (lambda x, m, s: -1 / x + (x.log() - m) / (s * s * x), "sign_of_term"),
        "no square": (lambda x, m, s: -1 / x - (x.log() - m) / (s * x), "?"),
    }),
    "von mises": Derivation("(k * cos(x - m) - log(special.i0(k))).sum()", {"k": POS, "x": V, "m": U}, "k",
        lambda k, x, m: (x - m).cos() - torch.special.i1(k) / torch.special.i0(k), {
        "no ratio": (lambda k, x, m: (x - m).cos(), "missing_term"),
        "i1": (lambda k, x, m: (x - m).cos() - torch.special.i1(k), "missing_activation_derivative"),
        "sine": (lambda k, x, m: -(x - m).sin() - torch.special.i1(k) / torch.special.i0(k), "?"),
    }),
    "zero inflated poisson": Derivation("where(k == 0, log(p + (1 - p) * exp(-r)), log(1 - p) - r + k * log(r)).sum()",
        {"r": RATE, "p": UNIT, "k": COUNT}, "r", lambda r, p, k: torch.where(k == 0, -(1 - p) * (-r).exp() / (p + (1 - p) * (-r).exp()), k / r - 1), {
        "no inflation": (lambda r, p, k: k / r - 1, "?"),
        "no divisor": (lambda r, p, k: torch.where(k == 0, -(1 - p) * (-r).exp(), k / r - 1), "missing_activation_derivative"),
        "no rate": (lambda r, p, k: torch.where(k == 0, -(1 - p) * (-r).exp() / (p + (1 - p) * (-r).exp()), k / r), "missing_term"),
    }),
    "mixture of two normals": Derivation("logsumexp(stack([log(tensor(0.3)) - 0.5 * (x - a) ** 2, log(tensor(0.7)) - 0.5 * (x + a) ** 2]), 0).sum()",
        {"a": POS, "x": V}, "a", lambda a, x: (lambda w: w * (x - a) - (1 - w) * (x + a))(torch.sigmoid(math.log(3 / 7) + 2 * a * x)), {
        "no weights": (lambda a, x: (x - a) - (x + a), "softmax_diagonal ? constant_factor"),
        "prior weights": (lambda a, x: 0.3 * (x - a) - 0.7 * (x + a), "?"),
        "sign": (lambda a, x: (lambda w: w * (x - a) + (1 - w) * (x + a))(torch.sigmoid(math.log(3 / 7) + 2 * a * x)), "sign_of_term"),
        "one": (lambda a, x: (lambda w: w * (x - a))(torch.sigmoid(math.log(3 / 7) + 2 * a * x)), "missing_term"),
    }),
    "crps of a normal, mean": Derivation("z = (y - m) / s\nphi = exp(-z * z / 2) / (2 * pi) ** 0.5\nPhi = 0.5 * (1 + erf(z / 2 ** 0.5))\n"
        "return (s * (z * (2 * Phi - 1) + 2 * phi - pi ** -0.5)).sum()", {"m": U, "s": POS, "y": V}, "m",
        lambda m, s, y: 1 - 2 * below(_crps(m, s, y)), {
        "sign": (lambda m, s, y: 2 * below(_crps(m, s, y)) - 1, "sign"),
        "density too": (lambda m, s, y: 1 - 2 * below(_crps(m, s, y)) - 2 * _crps(m, s, y) * density(_crps(m, s, y)), "missing_term"),
        "half": (lambda m, s, y: 0.5 - below(_crps(m, s, y)), "constant_factor"),
        "not standardised": (lambda m, s, y: 1 - 2 * below(y - m), "?"),
    }),
    "crps of a normal, spread": Derivation("z = (y - m) / s\nphi = exp(-z * z / 2) / (2 * pi) ** 0.5\nPhi = 0.5 * (1 + erf(z / 2 ** 0.5))\n"
        "return (s * (z * (2 * Phi - 1) + 2 * phi - pi ** -0.5)).sum()", {"s": POS, "m": U, "y": V}, "s",
        lambda s, m, y: 2 * density(_crps(m, s, y)) - math.pi**-0.5, {
        "no constant": (lambda s, m, y: 2 * density(_crps(m, s, y)), "missing_term ?"),
        "as a factor alone": (lambda s, m, y: _crps(m, s, y) * (2 * below(_crps(m, s, y)) - 1) + 2 * density(_crps(m, s, y)) - math.pi**-0.5,
            "missing_term"),
        "no 2": (lambda s, m, y: density(_crps(m, s, y)) - math.pi**-0.5, "? factor_of_term"),
    }),
    "focal loss": Derivation("p = sigmoid(v)\nq = where(b > 0, p, 1 - p)\nreturn -((1 - q) ** 2 * log(q)).sum()", {"v": V, "b": B}, "v",
        lambda v, b: (lambda q, side, ds: side * ds * (2 * (1 - q) * q.log() - (1 - q) ** 2 / q))(*_focal(v, b)), {
        "no weight's derivative": (lambda v, b: (lambda q, side, ds: side * ds * (-((1 - q) ** 2)) / q)(*_focal(v, b)), "missing_term"),
        "no log": (lambda v, b: (lambda q, side, ds: side * ds * 2 * (1 - q) * q.log())(*_focal(v, b)), "missing_term"),
        "no sides": (lambda v, b: (lambda q, side, ds: ds * (2 * (1 - q) * q.log() - (1 - q) ** 2 / q))(*_focal(v, b)), "? sign_of_term"),
        "by probability": (lambda v, b: (lambda q, side, ds: side * (2 * (1 - q) * q.log() - (1 - q) ** 2 / q))(*_focal(v, b)),
            "missing_activation_derivative"),
    }),
    "tversky": Derivation("t = (p * b).sum()\nreturn 1 - t / (t + 0.3 * (p * (1 - b)).sum() + 0.7 * ((1 - p) * b).sum())", {"p": UNIT, "b": B}, "p",
        lambda p, b: (lambda t, d: -(b * d - t * (b + 0.3 * (1 - b) - 0.7 * b)) / d**2)((p * b).sum(), (p * b).sum() + 0.3 * (p * (1 - b)).sum()
        + 0.7 * ((1 - p) * b).sum()), {
        "numerator alone": (lambda p, b: (lambda t, d: -b / d)((p * b).sum(), (p * b).sum() + 0.3 * (p * (1 - b)).sum() + 0.7 * ((1 - p) * b).sum()),
            "missing_term"),
        "sign": (lambda p, b: (lambda t, d: (b * d - t * (b + 0.3 * (1 - b) - 0.7 * b)) / d**2)((p * b).sum(), (p * b).sum()
            + 0.3 * (p * (1 - b)).sum() + 0.7 * ((1 - p) * b).sum()), "sign"),
        "d not squared": (lambda p, b: (lambda t, d: -(b * d - t * (b + 0.3 * (1 - b) - 0.7 * b)) / d)((p * b).sum(), (p * b).sum()
            + 0.3 * (p * (1 - b)).sum() + 0.7 * ((1 - p) * b).sum()), "constant_factor quotient_rule elementwise_factor"),
    }),
    "triplet": Derivation("relu((a - p).norm(dim=1) - (a - n).norm(dim=1) + 1).mean()", {"a": ANCHOR, "p": NEAR, "n": FAR}, "a",
        lambda a, p, n: (lambda u, v, on: on * (u - v) / 4)(*_triplet(a, p, n)), {
        "sum": (lambda a, p, n: (lambda u, v, on: on * (u - v))(*_triplet(a, p, n)), "constant_factor"),
        "negative forgotten": (lambda a, p, n: (lambda u, v, on: on * u / 4)(*_triplet(a, p, n)), "missing_term"),
        "plus": (lambda a, p, n: (lambda u, v, on: on * (u + v) / 4)(*_triplet(a, p, n)), "sign_of_term"),
        "no unit vectors": (lambda a, p, n: (lambda u, v, on: on * (n - p) / 4)(*_triplet(a, p, n)), "wrong_rule ?"),
    }),
    "label smoothing": Derivation("F.cross_entropy(z, k, label_smoothing=0.1)", {"z": Z, "k": LABEL}, "z",
        lambda z, k: (torch.softmax(z, 1) - 0.9 * torch.eye(3, dtype=z.dtype)[k] - 0.1 / 3) / 4, {
        "not smoothed": (lambda z, k: (torch.softmax(z, 1) - torch.eye(3, dtype=z.dtype)[k]) / 4, "? wrong_parameter"),
        "sum": (lambda z, k: torch.softmax(z, 1) - 0.9 * torch.eye(3, dtype=z.dtype)[k] - 0.1 / 3, "constant_factor"),
        "no target": (lambda z, k: torch.softmax(z, 1) / 4, "probability_alone ?"),
        "over the batch": (lambda z, k: (torch.softmax(z, 0) - 0.9 * torch.eye(3, dtype=z.dtype)[k] - 0.1 / 3) / 4, "wrong_axis ?"),
    }),
    "cross entropy by another axis": Derivation("F.cross_entropy(z, k)", {"z": Z, "k": LABEL}, "z",
        lambda z, k: (torch.softmax(z, 1) - torch.eye(3, dtype=z.dtype)[k]) / 4, {
        "axis": (lambda z, k: (torch.softmax(z, 0) - torch.eye(3, dtype=z.dtype)[k]) / 4, "wrong_axis"),
        "p alone": (lambda z, k: torch.softmax(z, 1) / 4, "probability_alone"),
        "y - p": (lambda z, k: (torch.eye(3, dtype=z.dtype)[k] - torch.softmax(z, 1)) / 4, "sign"),
    }),
    "cosine embedding": Derivation("F.cosine_similarity(a, p).sum()", {"a": ANCHOR, "p": NEAR}, "a", lambda a, p: (lambda x, y, na, ny:
        y / (na * ny) - (x * y).sum(1, keepdim=True) * x / (na**3 * ny))(a, p, a.norm(dim=1, keepdim=True), p.norm(dim=1, keepdim=True)), {
        "norm constant": (lambda a, p: p / (a.norm(dim=1, keepdim=True) * p.norm(dim=1, keepdim=True)), "missing_term"),
        "plus": (lambda a, p: (lambda x, y, na, ny: y / (na * ny) + (x * y).sum(1, keepdim=True) * x / (na**3 * ny))(a, p,
            a.norm(dim=1, keepdim=True), p.norm(dim=1, keepdim=True)), "sign_of_term ?"),
        "not cubed": (lambda a, p: (lambda x, y, na, ny: y / (na * ny) - (x * y).sum(1, keepdim=True) * x / (na * ny))(a, p,
            a.norm(dim=1, keepdim=True), p.norm(dim=1, keepdim=True)), "?"),
        "dot alone": (lambda a, p: p.clone(), "?"),
    }),
    "pinball": Derivation("maximum(0.8 * (y - q), -0.2 * (y - q)).mean()", {"q": V, "y": U}, "q",
        lambda q, y: torch.where(y > q, -0.8 * torch.ones_like(q), 0.2 * torch.ones_like(q)) / 5, {
        "levels swapped": (lambda q, y: torch.where(y > q, -0.2 * torch.ones_like(q), 0.8 * torch.ones_like(q)) / 5, "?"),
        "sign": (lambda q, y: torch.where(y > q, 0.8 * torch.ones_like(q), -0.2 * torch.ones_like(q)) / 5, "sign"),
        "sum": (lambda q, y: torch.where(y > q, -0.8 * torch.ones_like(q), 0.2 * torch.ones_like(q)), "constant_factor"),
        "median": (lambda q, y: (q - y).sign() * 0.5 / 5, "?"),
    }),
    "pseudo huber": Derivation("(4 * (sqrt(1 + ((v - u) / 2) ** 2) - 1)).sum()", {"v": V, "u": U}, "v", lambda v, u: (v - u) / (1 + ((v - u) / 2) ** 2).sqrt(), {
        "no root": (lambda v, u: (v - u) / (1 + ((v - u) / 2) ** 2), "?"),
        "delta": (lambda v, u: (v - u) / (1 + (v - u) ** 2).sqrt(), "?"),
        "4": (lambda v, u: 4 * (v - u) / (1 + ((v - u) / 2) ** 2).sqrt(), "constant_factor"),
        "quadratic": (lambda v, u: v - u, "missing_activation_derivative ? constant_factor"),
    }),
    "tukey's biweight": Derivation("where(v.abs() < 2, 1 - (1 - (v / 2) ** 2) ** 3, ones_like(v)).sum()", {"v": 2.5 * V}, "v",
        lambda v: torch.where(v.abs() < 2, 1.5 * v * (1 - (v / 2) ** 2) ** 2, torch.zeros_like(v)), {
        "not lowered": (lambda v: torch.where(v.abs() < 2, 1.5 * v * (1 - (v / 2) ** 2) ** 3, torch.zeros_like(v)), "wrong_rule ?"),
        "not cut": (lambda v: 1.5 * v * (1 - (v / 2) ** 2) ** 2, "?"),
        "no 3": (lambda v: torch.where(v.abs() < 2, 0.5 * v * (1 - (v / 2) ** 2) ** 2, torch.zeros_like(v)), "constant_factor"),
        "sign": (lambda v: -torch.where(v.abs() < 2, 1.5 * v * (1 - (v / 2) ** 2) ** 2, torch.zeros_like(v)), "sign"),
    }),
    "black scholes, delta": Derivation(_CALL, {"s": SPOT, "v": VOL}, "s", lambda s, v: below(_d1(s, v)), {
        "d2": (lambda s, v: below(_d1(s, v) - v), "?"),
        "density too": (lambda s, v: below(_d1(s, v)) + density(_d1(s, v)) / v, "missing_term"),
        "put": (lambda s, v: below(_d1(s, v)) - 1, "?"),
    }),
    "black scholes, vega": Derivation(_CALL, {"v": VOL, "s": SPOT}, "v", lambda v, s: s * density(_d1(s, v)), {
        "no spot": (lambda v, s: density(_d1(s, v)), "?"),
        "per cent": (lambda v, s: s * density(_d1(s, v)) / 100, "constant_factor"),
        "d2": (lambda v, s: s * density(_d1(s, v) - v), "?"),
        "strike": (lambda v, s: 100 * density(_d1(s, v)), "?"),
    }),
    "bond by its yield": Derivation("sum([5 / (1 + r) ** t for t in range(1, 6)]).sum() + (100 / (1 + r) ** 5).sum()",
        {"r": 0.02 + 0.03 * UNIT}, "r", lambda r: sum((-5 * t / (1 + r) ** (t + 1) for t in range(1, 6)), torch.zeros_like(r)) - 500 / (1 + r) ** 6, {
        "power": (lambda r: sum((-5 * t / (1 + r) ** t for t in range(1, 6)), torch.zeros_like(r)) - 500 / (1 + r) ** 5, "wrong_rule"),
        "no redemption": (lambda r: sum((-5 * t / (1 + r) ** (t + 1) for t in range(1, 6)), torch.zeros_like(r)), "missing_term"),
        "sign": (lambda r: sum((5 * t / (1 + r) ** (t + 1) for t in range(1, 6)), torch.zeros_like(r)) + 500 / (1 + r) ** 6, "sign"),
    }),
    "cox's partial likelihood": Derivation("(v - logcumsumexp(v.flip(0), 0).flip(0)).sum()", {"v": V}, "v",
        lambda v: 1 - v.exp() * (1 / v.exp().flip(0).cumsum(0).flip(0)).cumsum(0), {
        "own risk set": (lambda v: 1 - v.exp() / v.exp().flip(0).cumsum(0).flip(0), "? softmax_diagonal"),
        "sums from the start": (lambda v: 1 - v.exp() * (1 / v.exp().cumsum(0)).flip(0).cumsum(0).flip(0), "?"),
        "sign": (lambda v: v.exp() * (1 / v.exp().flip(0).cumsum(0).flip(0)).cumsum(0) - 1, "sign"),
        "no event": (lambda v: -v.exp() * (1 / v.exp().flip(0).cumsum(0).flip(0)).cumsum(0), "missing_term"),
    }),
    "ordinal logits": Derivation("-log(sigmoid(c[1:] - v[0]) - sigmoid(c[:-1] - v[0])).sum()", {"v": V[:1], "c": torch.tensor([-2.0, -0.5, 0.4, 1.9],
        dtype=torch.float64)}, "v", lambda v, c: (lambda s: ((s[1:] * (1 - s[1:]) - s[:-1] * (1 - s[:-1])) / (s[1:] - s[:-1])).sum().reshape(1))(
        torch.sigmoid(c - v[0])), {
        "sign": (lambda v, c: (lambda s: -((s[1:] * (1 - s[1:]) - s[:-1] * (1 - s[:-1])) / (s[1:] - s[:-1])).sum().reshape(1))(torch.sigmoid(c - v[0])),
            "sign"),
        "upper alone": (lambda v, c: (lambda s: (s[1:] * (1 - s[1:]) / (s[1:] - s[:-1])).sum().reshape(1))(torch.sigmoid(c - v[0])), "missing_term"),
        "plus": (lambda v, c: (lambda s: ((s[1:] * (1 - s[1:]) + s[:-1] * (1 - s[:-1])) / (s[1:] - s[:-1])).sum().reshape(1))(torch.sigmoid(c - v[0])),
            "sign_of_term"),
    }),
}  # fmt: skip
