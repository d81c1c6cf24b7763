"""Derivations by hand of losses and log densities, by scores, probabilities, weights and parameters."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

from tests.engine.building import normal
from tests.oracle.hand_derivation import Derivation
from tests.oracle.written_out import hot, sig, soft

X, Y, W = normal(6, 4, seed=31), normal(6, 3, seed=32), normal(4, 3, seed=33)
A, Q = normal(3, 3, seed=34), normal(6, 3, seed=35)
V, U, D = normal(6, seed=36), normal(6, seed=37), normal(6, seed=38)
POS, SPREAD = V.abs() + 0.4, U.abs() + 0.5
PROB, OTHER = torch.sigmoid(V), torch.sigmoid(U)
K: Final = torch.tensor([0, 2, 1, 1, 2, 0])
B: Final = torch.tensor([1.0, 0, 1, 1, 0, 0], dtype=torch.float64)
SIDE: Final = 2 * B - 1
CLASS: Final = torch.tensor([0.5, 2.0, 1.5], dtype=torch.float64)
MAP: Final = normal(2, 3, 4, seed=39)
MAP_K: Final = torch.tensor([[0, 2, 1, 1], [2, 2, 0, 1]])


def wide(function: object, *tensors: Tensor) -> Tensor:
    """Of special functions that half precision lacks."""
    value: Tensor = function(*(t.double() for t in tensors))  # type: ignore[operator]
    return value.to(tensors[-1].dtype)


def _ce2(z: Tensor) -> Tensor:
    """p - y of scores [N, C, d]."""
    y = torch.nn.functional.one_hot(MAP_K, 3).permute(0, 2, 1).to(z.dtype)
    return torch.as_tensor(soft(z, 1) - y)


def _unit(m: Tensor) -> Tensor:
    unit: Tensor = m / m.norm(dim=1, keepdim=True)
    return unit


def _corr(v: Tensor, u: Tensor) -> Any:
    a, b = v - v.mean(), u - u.mean()
    return a, b, a.norm(), b.norm()


def _dice(p: Tensor, b: Tensor) -> Tensor:
    i, s = (p * b).sum(), p.sum() + b.sum()
    return -(2 * b * s - 2 * i) / s**2


def _infonce(m: Tensor, n: Tensor) -> Tensor:
    s = m @ n.T / 0.5
    return (soft(s, 1) - torch.eye(6, dtype=m.dtype)) @ n / (0.5 * 6)


def _nt(v: Tensor, m: Tensor) -> Tensor:
    return 5 * (v - m) / (4 + (v - m) ** 2)


LOSSES: Final[dict[str, Derivation]] = {
    "squares of a product, data": Derivation("((x @ w - y) ** 2).mean()", {"x": X, "w": W, "y": Y}, "x", lambda x, w,
        y: 2 / 18 * (x @ w - y) @ w.T, {
        "sum": (lambda x, w, y: 2 * (x @ w - y) @ w.T, "constant_factor"),
        "batch": (lambda x, w, y: 2 / 6 * (x @ w - y) @ w.T, "constant_factor"),
        "no 2": (lambda x, w, y: 1 / 18 * (x @ w - y) @ w.T, "constant_factor"),
        "sign": (lambda x, w, y: 2 / 18 * (y - x @ w) @ w.T, "sign swapped"),
        "forward": (lambda x, w, y: 2 / 18 * (x @ w) @ w.T, "missing_target ?"),
    }),
    "squares of a square product": Derivation("((q @ a - y) ** 2).sum()", {"q": Q, "a": A, "y": Y}, "q", lambda q, a, y: 2 * (q @ a - y) @ a.T, {
        "transpose": (lambda q, a, y: 2 * (q @ a - y) @ a, "transposed_product"),
        "mean": (lambda q, a, y: 2 / 18 * (q @ a - y) @ a.T, "constant_factor"),
        "elementwise": (lambda q, a, y: 2 * (q @ a - y), "missing_activation_derivative"),
    }),
    "mse": Derivation("F.mse_loss(v, u)", {"v": V, "u": U}, "v", lambda v, u: (v - u) / 3, {
        "target": (lambda v, u: (u - v) / 3, "sign"),
        "sum": (lambda v, u: 2 * (v - u), "constant_factor"),
        "no 2": (lambda v, u: (v - u) / 6, "constant_factor"),
        "plus": (lambda v, u: (v + u) / 3, "sign_of_term ?"),
    }),
    "root of mse": Derivation("sqrt(F.mse_loss(v, u))", {"v": V, "u": U}, "v", lambda v, u: (v - u) / (6 * ((v - u) ** 2).mean().sqrt()), {
        "of mse": (lambda v, u: (v - u) / 3, "missing_activation_derivative constant_factor"),
        "half": (lambda v, u: (v - u) / (3 * ((v - u) ** 2).mean().sqrt()), "constant_factor wrong_rule"),
        "n": (lambda v, u: (v - u) / ((v - u) ** 2).mean().sqrt(), "constant_factor"),
    }),
    "l1": Derivation("F.l1_loss(v, u)", {"v": V, "u": U}, "v", lambda v, u: (v - u).sign() / 6, {
        "sum": (lambda v, u: (v - u).sign(), "constant_factor"),
        "no sign": (lambda v, u: torch.ones_like(v) / 6, "?"),
        "squared": (lambda v, u: (v - u) / 3, "? wrong_rule"),
    }),
    "smooth l1": Derivation("F.smooth_l1_loss(v, u, beta=0.7)", {"v": V, "u": U}, "v", lambda v, u: ((v - u) / 0.7).clamp(-1, 1) / 6, {
        "no beta": (lambda v, u: (v - u).clamp(-0.7, 0.7) / 6, "constant_factor"),
        "beta 1": (lambda v, u: (v - u).clamp(-1, 1) / 6, "wrong_parameter ?"),
        "sum": (lambda v, u: ((v - u) / 0.7).clamp(-1, 1), "constant_factor"),
        "no clamp": (lambda v, u: (v - u) / 0.7 / 6, "? wrong_rule"),
    }),
    "huber": Derivation("F.huber_loss(v, u, delta=0.6, reduction='sum')", {"v": V, "u": U}, "v", lambda v, u: (v - u).clamp(-0.6, 0.6), {
        "sign in tails": (lambda v, u: torch.where((v - u).abs() < 0.6, v - u, (v - u).sign()), "? wrong_rule"),
        "delta 1": (lambda v, u: (v - u).clamp(-1, 1), "wrong_parameter ?"),
        "mean": (lambda v, u: (v - u).clamp(-0.6, 0.6) / 6, "constant_factor"),
        "no clamp": (lambda v, u: v - u, "? wrong_rule"),
    }),
    "cross entropy, sum": Derivation("F.cross_entropy(y, k, reduction='sum')", {"y": Y, "k": K}, "y", lambda y, k: soft(y) - hot(k, y), {
        "mean": (lambda y, k: (soft(y) - hot(k, y)) / 6, "constant_factor"),
        "classes": (lambda y, k: (soft(y) - hot(k, y)) / 3, "constant_factor"),
        "sign": (lambda y, k: hot(k, y) - soft(y), "sign"),
        "p": (lambda y, k: soft(y), "probability_alone"),
        "diagonal": (lambda y, k: hot(k, y) * (soft(y) - 1), "softmax_diagonal"),
        "axis": (lambda y, k: soft(y, 0) - hot(k, y), "wrong_axis ?"),
        "logits": (lambda y, k: y - hot(k, y), "wrong_rule ?"),
        "next class": (lambda y, k: soft(y) - hot((k + 1) % 3, y), "?"),
    }),
    "cross entropy, mean": Derivation("F.cross_entropy(y, k)", {"y": Y, "k": K}, "y", lambda y, k: (soft(y) - hot(k, y)) / 6, {
        "sum": (lambda y, k: soft(y) - hot(k, y), "constant_factor"),
        "all": (lambda y, k: (soft(y) - hot(k, y)) / 18, "constant_factor"),
        "p": (lambda y, k: soft(y) / 6, "probability_alone"),
        "p minus y without mean of y": (lambda y, k: soft(y) / 6 - hot(k, y), "? factor_of_term"),
        "axis": (lambda y, k: (soft(y, 0) - hot(k, y)) / 6, "wrong_axis ?"),
    }),
    "cross entropy of a map": Derivation("F.cross_entropy(z, k)", {"z": MAP, "k": MAP_K}, "z", lambda z, k: _ce2(z) / 8, {
        "batch": (lambda z, k: _ce2(z) / 2, "constant_factor"),
        "sum": (lambda z, k: _ce2(z), "constant_factor"),
        "sign": (lambda z, k: -_ce2(z) / 8, "sign"),
    }),
    "weighted cross entropy": Derivation("F.cross_entropy(y, k, weight=w)", {"y": Y, "k": K, "w": CLASS}, "y",
        lambda y, k, w: w[k][:, None] * (soft(y) - hot(k, y)) / w[k].sum(), {
        "n": (lambda y, k, w: w[k][:, None] * (soft(y) - hot(k, y)) / 6, "wrong_reduction constant_factor"),
        "no weight": (lambda y, k, w: (soft(y) - hot(k, y)) / 6, "missing_weight wrong_parameter ?"),
        "weight of class": (lambda y, k, w: w * (soft(y) - hot(k, y)) / w[k].sum(), "wrong_value ?"),
    }),
    "ignored targets": Derivation("F.cross_entropy(y, k, ignore_index=2)", {"y": Y, "k": K}, "y", lambda y,
        k: (k != 2)[:, None] * (soft(y) - hot(k, y)) / 4, {
        "n": (lambda y, k: (k != 2)[:, None] * (soft(y) - hot(k, y)) / 6, "constant_factor"),
        "not ignored": (lambda y, k: (soft(y) - hot(k, y)) / 6, "wrong_parameter ?"),
    }),
    "nll of log softmax": Derivation("F.nll_loss(log_softmax(y, 1), k)", {"y": Y, "k": K}, "y", lambda y, k: (soft(y) - hot(k, y)) / 6, {
        "sum": (lambda y, k: soft(y) - hot(k, y), "constant_factor"),
        "target": (lambda y, k: -hot(k, y) / 6, "missing_activation_derivative"),
        "p": (lambda y, k: soft(y) / 6, "probability_alone"),
        "diagonal": (lambda y, k: -hot(k, y) * (1 - soft(y)) / 6, "softmax_diagonal"),
    }),
    "log likelihood by indexing": Derivation("-log(softmax(y, 1)[arange(6), k]).mean()", {"y": Y, "k": K}, "y", lambda y,
        k: (soft(y) - hot(k, y)) / 6, {
        "sum": (lambda y, k: soft(y) - hot(k, y), "constant_factor"),
        "sign": (lambda y, k: (hot(k, y) - soft(y)) / 6, "sign"),
        "no log": (lambda y, k: soft(y) * (soft(y) - hot(k, y)) / 6, "?"),
        "diagonal": (lambda y, k: -hot(k, y) * (1 - soft(y)) / 6, "softmax_diagonal"),
    }),
    "bce": Derivation("F.binary_cross_entropy(p, b)", {"p": PROB, "b": B}, "p", lambda p, b: (p - b) / (p * (1 - p)) / 6, {
        "by scores": (lambda p, b: (p - b) / 6, "? wrong_rule"),
        "sum": (lambda p, b: (p - b) / (p * (1 - p)), "constant_factor"),
        "one term": (lambda p, b: -b / p / 6, "? wrong_rule"),
        "sign": (lambda p, b: (b - p) / (p * (1 - p)) / 6, "sign"),
    }),
    "bce written out": Derivation("-(b * log(p) + (1 - b) * log(1 - p)).mean()", {"p": PROB, "b": B}, "p", lambda p,
        b: (p - b) / (p * (1 - p)) / 6, {
        "one term": (lambda p, b: -b / p / 6, "missing_term"),
        "inner sign": (lambda p, b: -(b / p + (1 - b) / (1 - p)) / 6, "sign_of_term"),
        "no log": (lambda p, b: -(b * torch.ones_like(p) - (1 - b)) / 6, "missing_activation_derivative"),
    }),
    "bce of scores, weighted": Derivation("F.binary_cross_entropy_with_logits(v, b, pos_weight=tensor(3.0), reduction='sum')", {"v": V, "b": B},
        "v",
        lambda v, b: (1 - b) * sig(v) - 3 * b * (1 - sig(v)), {
        "no weight": (lambda v, b: sig(v) - b, "wrong_parameter missing_weight ?"),
        "mean": (lambda v, b: ((1 - b) * sig(v) - 3 * b * (1 - sig(v))) / 6, "constant_factor"),
        "weight on all": (lambda v, b: 3 * (sig(v) - b), "?"),
        "p": (lambda v, b: sig(v), "probability_alone ?"),
    }),
    "bce of scores": Derivation("F.binary_cross_entropy_with_logits(x @ w[:, 0], b)", {"w": W[:, :1].contiguous(), "x": X, "b": B}, "w",
        lambda w, x, b: x.T @ (sig(x @ w[:, 0]) - b)[:, None] / 6, {
        "sum": (lambda w, x, b: x.T @ (sig(x @ w[:, 0]) - b)[:, None], "constant_factor"),
        "no target": (lambda w, x, b: x.T @ sig(x @ w[:, 0])[:, None] / 6, "probability_alone"),
        "slope": (lambda w, x, b: x.T @ ((sig(x @ w[:, 0]) - b) * sig(x @ w[:, 0]) * (1 - sig(x @ w[:, 0])))[:, None] / 6, "? wrong_loss"),
        "sign": (lambda w, x, b: x.T @ (b - sig(x @ w[:, 0]))[:, None] / 6, "sign"),
    }),
    "kl of scores": Derivation("F.kl_div(log_softmax(y, 1), softmax(q, 1), reduction='batchmean')", {"y": Y, "q": Q}, "y", lambda y,
        q: (soft(y) - soft(q)) / 6, {
        "mean": (lambda y, q: (soft(y) - soft(q)) / 18, "constant_factor"),
        "sum": (lambda y, q: soft(y) - soft(q), "constant_factor"),
        "sign": (lambda y, q: (soft(q) - soft(y)) / 6, "sign"),
        "no p": (lambda y, q: -soft(q) / 6, "missing_activation_derivative"),
        "no q": (lambda y, q: soft(y) / 6, "probability_alone"),
    }),
    "kl of log probabilities": Derivation("F.kl_div(v, p, reduction='sum')", {"v": V, "p": PROB}, "v", lambda v, p: -p, {
        "sign": (lambda v, p: p, "sign"),
        "ratio": (lambda v, p: -p / v.exp(), "?"),
        "forward": (lambda v, p: p * (p.log() - v), "? wrong_variable"),
        "mean": (lambda v, p: -p / 6, "constant_factor"),
    }),
    "kl of probabilities": Derivation("(p * (log(p) - log(q))).sum()", {"p": PROB, "q": OTHER}, "p", lambda p, q: (p / q).log() + 1, {
        "no 1": (lambda p, q: (p / q).log(), "missing_term"),
        "by q": (lambda p, q: -p / q, "wrong_variable"),
        "sign": (lambda p, q: (q / p).log() + 1, "? sign_of_term"),
    }),
    "kl to the unit normal, log variance": Derivation("-0.5 * (1 + u - v ** 2 - exp(u)).sum()", {"u": U, "v": V}, "u", lambda u,
        v: 0.5 * (u.exp() - 1), {
        "no half": (lambda u, v: u.exp() - 1, "constant_factor"),
        "no 1": (lambda u, v: 0.5 * u.exp(), "missing_term"),
        "sign": (lambda u, v: 0.5 * (u.exp() + 1), "sign_of_term"),
        "mean": (lambda u, v: 0.5 * (u.exp() - 1) / 6, "constant_factor"),
    }),
    "kl to the unit normal, mean": Derivation("-0.5 * (1 + u - v ** 2 - exp(u)).sum()", {"v": V, "u": U}, "v", lambda v, u: v * 1.0, {
        "sign": (lambda v, u: -v, "sign"),
        "2": (lambda v, u: 2 * v, "constant_factor"),
        "half": (lambda v, u: 0.5 * v, "constant_factor"),
    }),
    "entropy": Derivation("-(p * log(p)).sum()", {"p": PROB}, "p", lambda p: -p.log() - 1, {
        "no 1": (lambda p: -p.log(), "missing_term"),
        "sign": (lambda p: p.log() + 1, "sign"),
        "1": (lambda p: -torch.ones_like(p), "missing_term"),
    }),
    "hinge": Derivation("relu(1 - s * v).mean()", {"v": V, "s": SIDE}, "v", lambda v, s: -s * (s * v < 1) / 6, {
        "no mask": (lambda v, s: -s / 6, "missing_activation_derivative"),
        "sign": (lambda v, s: s * (s * v < 1) / 6, "sign"),
        "sum": (lambda v, s: -s * (s * v < 1), "constant_factor"),
        "mask alone": (lambda v, s: (s * v < 1) / -6.0, "? missing_factor"),
    }),
    "squared hinge": Derivation("(relu(1 - s * v) ** 2).sum()", {"v": V, "s": SIDE}, "v", lambda v, s: -2 * s * (1 - s * v).clamp(min=0), {
        "no s": (lambda v, s: -2 * (1 - s * v).clamp(min=0), "? missing_factor"),
        "no 2": (lambda v, s: -s * (1 - s * v).clamp(min=0), "constant_factor"),
        "unmasked": (lambda v, s: -2 * s * (1 - s * v), "? missing_activation_derivative"),
        "mask": (lambda v, s: -s * (s * v < 1), "missing_activation_derivative"),
    }),
    "margin ranking": Derivation("F.margin_ranking_loss(v, u, s, margin=0.5)", {"v": V, "u": U, "s": SIDE}, "v", lambda v, u,
        s: -s * (-s * (v - u) + 0.5 > 0) / 6, {
        "sign": (lambda v, u, s: s * (-s * (v - u) + 0.5 > 0) / 6, "sign wrong_variable"),
        "sum": (lambda v, u, s: -s * (-s * (v - u) + 0.5 > 0), "constant_factor"),
        "all": (lambda v, u, s: -s / 6, "?"),
    }),
    "soft margin": Derivation("F.soft_margin_loss(v, s)", {"v": V, "s": SIDE}, "v", lambda v, s: -s * sig(-s * v) / 6, {
        "other side": (lambda v, s: -s * sig(s * v) / 6, "?"),
        "sum": (lambda v, s: -s * sig(-s * v), "constant_factor"),
        "no s": (lambda v, s: -sig(-s * v) / 6, "?"),
    }),
    "logistic of pairs": Derivation("-F.logsigmoid(v - u).mean()", {"v": V, "u": U}, "v", lambda v, u: -sig(u - v) / 6, {
        "sign": (lambda v, u: sig(u - v) / 6, "sign wrong_variable swapped"),
        "s": (lambda v, u: -sig(v - u) / 6, "wrong_rule"),
        "sum": (lambda v, u: -sig(u - v), "constant_factor"),
        "order": (lambda v, u: sig(v - u) / 6, "swapped"),
    }),
    "dpo": Derivation("-F.logsigmoid(0.2 * ((v - u) - (p - q))).mean()", {"v": V, "u": U, "p": PROB, "q": OTHER}, "v",
        lambda v, u, p, q: -0.2 * sig(-0.2 * (v - u - p + q)) / 6, {
        "beta": (lambda v, u, p, q: -sig(-0.2 * (v - u - p + q)) / 6, "constant_factor"),
        "sign": (lambda v, u, p, q: 0.2 * sig(-0.2 * (v - u - p + q)) / 6, "sign wrong_variable"),
        "by reference": (lambda v, u, p, q: -0.2 * sig(0.2 * (v - u - p + q)) / 6, "wrong_rule"),
    }),
    "poisson of log rates": Derivation("F.poisson_nll_loss(v, p)", {"v": V, "p": POS}, "v", lambda v, p: (v.exp() - p) / 6, {
        "rates": (lambda v, p: (1 - p / v) / 6, "? wrong_parameter"),
        "no target": (lambda v, p: v.exp() / 6, "? probability_alone"),
        "sum": (lambda v, p: v.exp() - p, "constant_factor"),
        "sign": (lambda v, p: (p - v.exp()) / 6, "sign"),
    }),
    "gaussian nll by variance": Derivation("F.gaussian_nll_loss(v, u, s)", {"s": SPREAD, "v": V, "u": U}, "s", lambda s, v,
        u: 0.5 * (1 / s - (v - u) ** 2 / s**2) / 6, {
        "first": (lambda s, v, u: 0.5 / s / 6, "?"),
        "unsquared": (lambda s, v, u: 0.5 * (1 / s - (v - u) ** 2 / s) / 6, "?"),
        "sum": (lambda s, v, u: 0.5 * (1 / s - (v - u) ** 2 / s**2), "constant_factor"),
        "half": (lambda s, v, u: (1 / s - (v - u) ** 2 / s**2) / 6, "constant_factor"),
    }),
    "normal density by sigma": Derivation("(-((v - u) ** 2) / (2 * s ** 2) - log(s)).sum()", {"s": SPREAD, "v": V, "u": U}, "s", lambda s, v,
        u: (v - u) ** 2 / s**3 - 1 / s, {
        "square": (lambda s, v, u: (v - u) ** 2 / s**2 - 1 / s, "? quotient_rule wrong_rule"),
        "no log": (lambda s, v, u: (v - u) ** 2 / s**3, "missing_term"),
        "log alone": (lambda s, v, u: -1 / s, "missing_term"),
        "sign": (lambda s, v, u: (v - u) ** 2 / s**3 + 1 / s, "sign_of_term"),
        "half": (lambda s, v, u: 0.5 * (v - u) ** 2 / s**3 - 1 / s, "factor_of_term"),
    }),
    "normal density by mean": Derivation("(-((v - u) ** 2) / (2 * s ** 2) - log(s)).sum()", {"u": U, "v": V, "s": SPREAD}, "u", lambda u, v,
        s: (v - u) / s**2, {
        "sign": (lambda u, v, s: (u - v) / s**2, "sign wrong_variable"),
        "sigma": (lambda u, v, s: (v - u) / s, "?"),
        "z": (lambda u, v, s: v - u, "?"),
        "2": (lambda u, v, s: 2 * (v - u) / s**2, "constant_factor"),
    }),
    "normal log prob": Derivation("distributions.Normal(u, s).log_prob(v).sum()", {"s": SPREAD, "v": V, "u": U}, "s", lambda s, v,
        u: (v - u) ** 2 / s**3 - 1 / s, {
        "no log": (lambda s, v, u: (v - u) ** 2 / s**3, "missing_term ?"),
        "sign": (lambda s, v, u: 1 / s - (v - u) ** 2 / s**3, "sign"),
        "log alone": (lambda s, v, u: -1 / s, "missing_term ?"),
    }),
    "laplace log density": Derivation("(-abs(v - u) / s - log(2 * s)).sum()", {"s": SPREAD, "v": V, "u": U}, "s", lambda s, v,
        u: (v - u).abs() / s**2 - 1 / s, {
        "2": (lambda s, v, u: (v - u).abs() / s**2 - 1 / (2 * s), "factor_of_term missing_activation_derivative"),
        "sign": (lambda s, v, u: (v - u).abs() / s**2 + 1 / s, "sign_of_term"),
        "unsquared": (lambda s, v, u: (v - u).abs() / s - 1 / s, "quotient_rule"),
    }),
    "student log density": Derivation("(-0.5 * 5 * log(1 + (v - u) ** 2 / 4)).sum()", {"u": U, "v": V}, "u", lambda u, v: _nt(v, u), {
        "sign": (lambda u, v: -_nt(v, u), "sign wrong_variable"),
        "nu": (lambda u, v: 4 / 5 * _nt(v, u), "? constant_factor"),
        "log forgotten": (lambda u, v: 5 / 4 * (v - u), "missing_activation_derivative"),
    }),
    "gamma log density by shape": Derivation("(a * log(s) - lgamma(a) + (a - 1) * log(p) - s * p).sum()", {"a": POS, "s": SPREAD, "p": PROB}, "a",
        lambda a, s, p: s.log() - wide(torch.digamma, a) + p.log(), {
        "digamma": (lambda a, s, p: s.log() + p.log(), "missing_term"),
        "sign": (lambda a, s, p: s.log() + wide(torch.digamma, a) + p.log(), "sign_of_term"),
        "log p": (lambda a, s, p: s.log() - wide(torch.digamma, a), "missing_term"),
    }),
    "gamma log density by rate": Derivation("(a * log(s) - lgamma(a) + (a - 1) * log(p) - s * p).sum()", {"s": SPREAD, "a": POS, "p": PROB}, "s",
        lambda s, a, p: a / s - p, {
        "sign": (lambda s, a, p: a / s + p, "sign_of_term"),
        "a": (lambda s, a, p: 1 / s - p, "? missing_factor"),
        "x": (lambda s, a, p: a / s, "missing_term"),
    }),
    "beta log density": Derivation("((a - 1) * log(p) + (s - 1) * log(1 - p) + lgamma(a + s) - lgamma(a) - lgamma(s)).sum()",
        {"a": POS, "s": SPREAD, "p": PROB}, "a",
        lambda a, s, p: p.log() + wide(torch.digamma, a + s) - wide(torch.digamma, a), {
        "normaliser": (lambda a, s, p: p.log() - wide(torch.digamma, a), "missing_term"),
        "own": (lambda a, s, p: p.log() + wide(torch.digamma, a + s), "missing_term"),
        "sign": (lambda a, s, p: p.log() + wide(torch.digamma, a + s) + wide(torch.digamma, a), "sign_of_term"),
    }),
    "bernoulli log prob": Derivation("distributions.Bernoulli(logits=v).log_prob(b).sum()", {"v": V, "b": B}, "v", lambda v, b: b - sig(v), {
        "sign": (lambda v, b: sig(v) - b, "sign"),
        "p": (lambda v, b: -sig(v), "probability_alone ?"),
        "slope": (lambda v, b: (b - sig(v)) * sig(v) * (1 - sig(v)), "?"),
    }),
    "categorical log prob": Derivation("distributions.Categorical(logits=y).log_prob(k).sum()", {"y": Y, "k": K}, "y", lambda y,
        k: hot(k, y) - soft(y), {
        "sign": (lambda y, k: soft(y) - hot(k, y), "sign"),
        "target": (lambda y, k: hot(k, y), "? missing_term missing_activation_derivative"),
        "p": (lambda y, k: -soft(y), "? probability_alone missing_term"),
    }),
    "policy gradient": Derivation("-(log_softmax(y, 1)[arange(6), k] * v).mean()", {"y": Y, "k": K, "v": V}, "y", lambda y, k,
        v: v[:, None] * (soft(y) - hot(k, y)) / 6, {
        "no advantage": (lambda y, k, v: (soft(y) - hot(k, y)) / 6, "missing_factor"),
        "ascent": (lambda y, k, v: -v[:, None] * (soft(y) - hot(k, y)) / 6, "sign"),
        "sum": (lambda y, k, v: v[:, None] * (soft(y) - hot(k, y)), "constant_factor"),
        "diagonal": (lambda y, k, v: -v[:, None] * hot(k, y) * (1 - soft(y)) / 6, "softmax_diagonal"),
    }),
    "clipped surrogate": Derivation("-minimum(exp(v - u) * d, clamp(exp(v - u), 0.8, 1.2) * d).mean()", {"v": V, "u": U, "d": D}, "v",
        lambda v, u, d: -(v - u).exp() * d * ((v - u).exp() * d <= (v - u).exp().clamp(0.8, 1.2) * d) / 6, {
        "unclipped": (lambda v, u, d: -(v - u).exp() * d / 6, "? missing_activation_derivative"),
        "sign": (lambda v, u, d: (v - u).exp() * d * ((v - u).exp() * d <= (v - u).exp().clamp(0.8, 1.2) * d) / 6, "sign wrong_variable"),
    }),
    "dice": Derivation("1 - 2 * (p * b).sum() / (p.sum() + b.sum())", {"p": PROB, "b": B}, "p", _dice, {
        "first": (lambda p, b: -2 * b / (p.sum() + b.sum()), "missing_term"),
        "sign": (lambda p, b: -_dice(p, b), "sign"),
        "second": (lambda p, b: 2 * (p * b).sum() / (p.sum() + b.sum()) ** 2 * torch.ones_like(p), "missing_term"),
    }),
    "charbonnier": Derivation("sqrt((v - u) ** 2 + 0.01).sum()", {"v": V, "u": U}, "v", lambda v, u: (v - u) / ((v - u) ** 2 + 0.01).sqrt(), {
        "eps": (lambda v, u: (v - u).sign(), "missing_eps"),
        "half": (lambda v, u: 2 * (v - u) / ((v - u) ** 2 + 0.01).sqrt(), "constant_factor"),
        "no 2": (lambda v, u: 0.5 * (v - u) / ((v - u) ** 2 + 0.01).sqrt(), "constant_factor"),
        "root": (lambda v, u: (v - u) * ((v - u) ** 2 + 0.01).sqrt(), "wrong_rule"),
    }),
    "cauchy": Derivation("log(1 + (v / 0.5) ** 2).mean()", {"v": V}, "v", lambda v: 8 * v / (1 + 4 * v * v) / 6, {
        "inner": (lambda v: 4 * v / (1 + 4 * v * v) / 6, "constant_factor"),
        "log": (lambda v: 8 * v / 6, "missing_activation_derivative"),
        "sum": (lambda v: 8 * v / (1 + 4 * v * v), "constant_factor"),
    }),
    "log cosh": Derivation("log(cosh(v - u)).sum()", {"v": V, "u": U}, "v", lambda v, u: torch.tanh(v - u), {
        "sinh": (lambda v, u: torch.sinh(v - u), "missing_activation_derivative"),
        "sech": (lambda v, u: 1 / torch.cosh(v - u), "missing_activation_derivative"),
        "slope": (lambda v, u: 1 - torch.tanh(v - u) ** 2, "?"),
    }),
    "elastic net": Derivation("((x @ v[:4] - u) ** 2).mean() / 2 + 0.1 * v[:4].abs().sum() + 0.05 * (v[:4] ** 2).sum()", {"v": V, "x": X, "u": U},
        "v",
        lambda v, x, u: torch.cat([x.T @ (x @ v[:4] - u) / 6 + 0.1 * v[:4].sign() + 0.1 * v[:4], 0 * v[4:]]), {
        "no l1": (lambda v, x, u: torch.cat([x.T @ (x @ v[:4] - u) / 6 + 0.1 * v[:4], 0 * v[4:]]), "missing_term"),
        "no l2": (lambda v, x, u: torch.cat([x.T @ (x @ v[:4] - u) / 6 + 0.1 * v[:4].sign(), 0 * v[4:]]), "missing_term"),
        "n": (lambda v, x, u: torch.cat([x.T @ (x @ v[:4] - u) + 0.1 * v[:4].sign() + 0.1 * v[:4], 0 * v[4:]]), "factor_of_term"),
        "2 of l2": (lambda v, x, u: torch.cat([x.T @ (x @ v[:4] - u) / 6 + 0.1 * v[:4].sign() + 0.05 * v[:4], 0 * v[4:]]), "factor_of_term"),
        "transpose": (lambda v, x, u: torch.cat([(x @ v[:4] - u)[:4] / 6 + 0.1 * v[:4].sign() + 0.1 * v[:4], 0 * v[4:]]), "?"),
    }),
    "logistic regression with decay": Derivation("F.softplus(-s * (x @ v[:4])).mean() + 0.5 * (v ** 2).sum()", {"v": V, "x": X, "s": SIDE}, "v",
        lambda v, x, s: torch.cat([-x.T @ (s * sig(-s * (x @ v[:4]))) / 6, 0 * v[4:]]) + v, {
        "decay": (lambda v, x, s: torch.cat([-x.T @ (s * sig(-s * (x @ v[:4]))) / 6, 0 * v[4:]]), "missing_term"),
        "2": (lambda v, x, s: torch.cat([-x.T @ (s * sig(-s * (x @ v[:4]))) / 6, 0 * v[4:]]) + 2 * v, "factor_of_term"),
        "sign": (lambda v, x, s: torch.cat([-x.T @ (s * sig(-s * (x @ v[:4]))) / 6, 0 * v[4:]]) - v, "sign_of_term"),
        "1-s": (lambda v, x, s: torch.cat([-x.T @ (s * sig(s * (x @ v[:4]))) / 6, 0 * v[4:]]) + v, "wrong_rule"),
    }),
    "correlation": Derivation("((v - v.mean()) * (u - u.mean())).sum() / ((v - v.mean()).norm() * (u - u.mean()).norm())", {"v": V, "u": U}, "v",
        lambda v, u: (lambda a, b, r, t: b / (r * t) - (a @ b) * a / (r**3 * t))(*_corr(v, u)), {
        "first": (lambda v, u: (lambda a, b, r, t: b / (r * t))(*_corr(v, u)), "missing_term"),
        "sign": (lambda v, u: (lambda a, b, r, t: b / (r * t) + (a @ b) * a / (r**3 * t))(*_corr(v, u)), "sign_of_term"),
        "norm": (lambda v, u: (lambda a, b, r, t: b / (r * t) - (a @ b) * a / (r**2 * t))(*_corr(v, u)), "wrong_rule"),
    }),
    "cosine similarity": Derivation("F.cosine_similarity(y, q).sum()", {"y": Y, "q": Q}, "y",
        lambda y, q: (_unit(q) - (_unit(y) * _unit(q)).sum(1, keepdim=True) * _unit(y)) / y.norm(dim=1, keepdim=True), {
        "first": (lambda y, q: _unit(q) / y.norm(dim=1, keepdim=True), "missing_term statistics_constant ?"),
        "undivided": (lambda y, q: _unit(q) - (_unit(y) * _unit(q)).sum(1, keepdim=True) * _unit(y), "wrong_rule ?"),
        "by q": (lambda y, q: (_unit(y) - (_unit(y) * _unit(q)).sum(1, keepdim=True) * _unit(q)) / q.norm(dim=1, keepdim=True), "wrong_variable"),
    }),
    "contrast of pairs": Derivation("F.cross_entropy(m @ n.T / 0.5, arange(6))", {"m": Y, "n": Q}, "m", _infonce, {
        "temperature": (lambda m, n: _infonce(m, n) * 0.5, "constant_factor"),
        "sum": (lambda m, n: _infonce(m, n) * 6, "constant_factor"),
        "other": (lambda m, n: (soft(m @ n.T / 0.5, 1) - torch.eye(6, dtype=m.dtype)).T @ n / 3, "?"),
        "by n": (lambda m, n: (soft(m @ n.T / 0.5, 1) - torch.eye(6, dtype=m.dtype)).T @ m / 3, "wrong_variable"),
    }),
    "generator": Derivation("-log(sigmoid(v)).mean() + log(1 - sigmoid(u)).mean()", {"v": V, "u": U}, "v", lambda v, u: (sig(v) - 1) / 6, {
        "saturating": (lambda v, u: -sig(v) / 6, "?"),
        "sign": (lambda v, u: (1 - sig(v)) / 6, "sign"),
        "sum": (lambda v, u: sig(v) - 1, "constant_factor"),
    }),
    "r squared": Derivation("1 - ((u - v) ** 2).sum() / ((u - u.mean()) ** 2).sum()", {"v": V, "u": U}, "v", lambda v,
        u: 2 * (u - v) / ((u - u.mean()) ** 2).sum(), {
        "sign": (lambda v, u: -2 * (u - v) / ((u - u.mean()) ** 2).sum(), "sign"),
        "mean": (lambda v, u: 2 / 6 * (u - v) / ((u - u.mean()) ** 2).sum(), "constant_factor"),
        "undivided": (lambda v, u: 2 * (u - v), "? constant_factor missing_activation_derivative"),
    }),
    "perplexity": Derivation("exp(F.cross_entropy(y, k))", {"y": Y, "k": K}, "y",
        lambda y, k: torch.logsumexp(y, 1).sub((y * hot(k, y)).sum(1)).mean().exp() * (soft(y) - hot(k, y)) / 6, {
        "log": (lambda y, k: (soft(y) - hot(k, y)) / 6, "missing_activation_derivative constant_factor"),
        "sum": (lambda y, k: torch.logsumexp(y, 1).sub((y * hot(k, y)).sum(1)).mean().exp() * (soft(y) - hot(k, y)), "constant_factor"),
    }),
    "two heads": Derivation("F.mse_loss(x @ w, y) + 0.3 * F.cross_entropy(x @ w, k)", {"w": W, "x": X, "y": Y, "k": K}, "w",
        lambda w, x, y, k: x.T @ ((x @ w - y) / 9 + 0.3 * (soft(x @ w) - hot(k, y)) / 6), {
        "0.3": (lambda w, x, y, k: x.T @ ((x @ w - y) / 9 + (soft(x @ w) - hot(k, y)) / 6), "factor_of_term"),
        "first": (lambda w, x, y, k: x.T @ ((x @ w - y) / 9), "missing_term"),
        "sign": (lambda w, x, y, k: x.T @ ((x @ w - y) / 9 - 0.3 * (soft(x @ w) - hot(k, y)) / 6), "sign_of_term"),
        "sum in one": (lambda w, x, y, k: x.T @ ((x @ w - y) / 9 + 0.3 * (soft(x @ w) - hot(k, y))), "factor_of_term"),
    }),
    "loss of each sample": Derivation("((x @ w - y) ** 2).sum(1).mean()", {"w": W, "x": X, "y": Y}, "w", lambda w, x, y: 2 / 6 * x.T @ (x @ w - y),
        {
        "all": (lambda w, x, y: 2 / 18 * x.T @ (x @ w - y), "constant_factor"),
        "sum": (lambda w, x, y: 2 * x.T @ (x @ w - y), "constant_factor"),
        "one sample": (lambda w, x, y: 2 / 6 * x[:1].T @ (x @ w - y)[:1], "?"),
        "no sum": (lambda w, x, y: 2 / 6 * x[:, :, None] * (x @ w - y)[:, None, :], "missing_batch_sum"),
        "bias": (lambda w, x, y: (2 / 6 * (x @ w - y).sum(0)).expand(4, 3), "?"),
    }),
    "a bias": Derivation("((x @ w + c - y) ** 2).mean()", {"c": CLASS, "x": X, "w": W, "y": Y}, "c", lambda c, x, w,
        y: 2 / 18 * (x @ w + c - y).sum(0), {
        "no sum": (lambda c, x, w, y: 2 / 18 * (x @ w + c - y), "missing_batch_sum"),
        "mean": (lambda c, x, w, y: 2 / 18 * (x @ w + c - y).mean(0), "constant_factor"),
        "no 2": (lambda c, x, w, y: 1 / 18 * (x @ w + c - y).sum(0), "constant_factor"),
        "classes": (lambda c, x, w, y: 2 / 3 * (x @ w + c - y).sum(0), "constant_factor"),
    }),
}  # fmt: skip
