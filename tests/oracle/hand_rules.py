"""Derivations by hand with the rule of one step that people get wrong: gates, running statistics, distances, factors with zeros, repeated rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from tests.engine.building import normal
from tests.oracle.hand_derivation import Derivation
from tests.oracle.written_out import sig

X, C = normal(5, 6, seed=151), normal(5, 6, seed=152)
HALF: Final = normal(5, 3, seed=153)
A, B = normal(4, 3, seed=154), normal(4, 3, seed=155)
CA: Final = normal(4, seed=156)
CD: Final = normal(4, 5, seed=157)
POINTS: Final = normal(5, 3, seed=158)
W, BIAS, MEAN = normal(6, seed=159), normal(6, seed=160), normal(6, seed=161)
VAR: Final = normal(6, seed=162).square() + 0.3
V, CV = normal(6, seed=163), normal(6, seed=164)
M, N3 = normal(3, 3, seed=165), normal(3, 3, seed=166)
SPD: Final = M @ M.T + 3 * torch.eye(3, dtype=torch.float64)
INDEX: Final = torch.tensor([0, 2, 0, 1, 2, 2])
ROWS3: Final = normal(3, seed=167)
K: Final = torch.tensor([0, 2, 1, 0, 5])
KW: Final = normal(6, seed=168).abs() + 0.2
T: Final = normal(5, 6, seed=169).softmax(1)
TALL, CT = normal(4, 3, seed=170), normal(3, 4, seed=171)
SIGNAL, KERNEL = normal(1, 1, 8, seed=172), normal(1, 1, 3, seed=173)
LX, LY, LW = normal(6, 3, seed=174), torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0, 0.0], dtype=torch.float64), normal(3, seed=175)


def hot(k: Tensor, classes: int = 6) -> Tensor:
    return functional.one_hot(k, classes).double()


def _glu(x: Tensor, c: Tensor, slope: Callable[[Tensor], Tensor], gate: Callable[[Tensor], Tensor] = sig) -> Tensor:
    a, b = x.chunk(2, 1)
    return torch.cat([c * gate(b), c * a * slope(b)], 1)


def _dsig(b: Tensor) -> Tensor:
    return sig(b) * (1 - sig(b))


def _cosine(a: Tensor, b: Tensor, c: Tensor, power: int = 1, other: int = 1, projection: float = 1.0) -> Tensor:
    na: Tensor
    nb: Tensor
    na, nb = a.norm(dim=1, keepdim=True), b.norm(dim=1, keepdim=True)
    cos = (a * b).sum(1, keepdim=True) / na / nb
    return c[:, None] * (b / nb**other - projection * cos * a / na) / na**power


def _cdist(a: Tensor, p: Tensor, c: Tensor, of: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    d = a[:, None] - p[None]
    return (c[..., None] * of(d, d.norm(dim=2, keepdim=True))).sum(1)


def _cholesky(a: Tensor, c: Tensor, *, symmetric: bool = True, half: float = 0.5) -> Tensor:
    low: Tensor = torch.linalg.cholesky(a)
    inner = (low.mT @ c.tril()).tril()
    inner = inner - (1 - half) * torch.diag(inner.diagonal())
    s: Tensor = torch.linalg.inv(low).mT @ inner @ torch.linalg.inv(low)
    return (s + s.mT) / 2 if symmetric else s


def _back(t: Tensor) -> Tensor:
    return t.flip(0).cumsum(0).flip(0)


def _layer(x: Tensor, g: Tensor) -> Tensor:
    s = (x.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
    h = (x - x.mean(1, keepdim=True)) / s
    return (g - g.mean(1, keepdim=True) - h * (g * h).mean(1, keepdim=True)) / s


def _pinv(a: Tensor, c: Tensor, *, terms: bool = True) -> Tensor:
    p: Tensor = torch.linalg.pinv(a)
    own: Tensor = -(p.mT @ c @ p.mT)
    eye, small = torch.eye(4, dtype=a.dtype), torch.eye(3, dtype=a.dtype)
    return own + (eye - a @ p) @ c.mT @ p @ p.mT + p.mT @ p @ c.mT @ (small - p @ a) if terms else own


def _logistic(x: Tensor, w: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
    return x.T @ torch.diag(of(sig(x @ w))) @ x


S1: Final = "(F.batch_norm(x, m, v, w, b) * c).sum()"
BN: Final = {"x": X, "m": MEAN, "v": VAR, "w": W, "b": BIAS, "c": C}
RULES: Final[dict[str, Derivation]] = {
    "gated linear unit": Derivation(
        "(F.glu(x, 1) * c).sum()", {"x": X, "c": HALF}, "x", lambda x, c: _glu(x, c, _dsig),
        {
            "σ' missing": (lambda x, c: _glu(x, c, lambda b: b * 0 + 1), "missing_activation_derivative"),
            "σ for σ'": (lambda x, c: _glu(x, c, sig), "wrong_rule"),
            "1 - σ": (lambda x, c: _glu(x, c, lambda b: 1 - sig(b)), "wrong_rule"),
            "halves exchanged": (lambda x, c: _glu(x.roll(3, 1), c, _dsig).roll(3, 1), "swapped"),
            "halves of the result exchanged": (lambda x, c: _glu(x, c, _dsig).roll(3, 1), "swapped ?"),
            "gate constant": (lambda x, c: _glu(x, c, lambda b: b * 0), "missing_term"),
            "value constant": (lambda x, c: _glu(x, c, _dsig, lambda b: b * 0), "missing_term"),
        },
    ),
    "batch norm in evaluation": Derivation(
        S1, BN, "x", lambda x, m, v, w, b, c: c * w / (v + 1e-5).sqrt(),
        {
            "σ²": (lambda x, m, v, w, b, c: c * w / (v + 1e-5), "wrong_rule"),
            "no σ": (lambda x, m, v, w, b, c: c * w, "wrong_rule"),
            "no weight": (lambda x, m, v, w, b, c: c / (v + 1e-5).sqrt(), "default_argument"),
            "eps": (lambda x, m, v, w, b, c: c * w / v.sqrt(), "missing_eps"),
        },
    ),
    "batch norm in evaluation, weight": Derivation(
        S1, BN, "w", lambda x, m, v, w, b, c: (c * (x - m) / (v + 1e-5).sqrt()).sum(0),
        {"input": (lambda x, m, v, w, b, c: (c * x).sum(0), "wrong_value"),
         "no σ": (lambda x, m, v, w, b, c: (c * (x - m)).sum(0), "wrong_rule"),
         "σ²": (lambda x, m, v, w, b, c: (c * (x - m) / (v + 1e-5)).sum(0), "wrong_rule")},
    ),
    "cosine similarity": Derivation(
        "(F.cosine_similarity(a, b, dim=1) * c).sum()", {"a": A, "b": B, "c": CA}, "a", _cosine,
        {
            "1/|a|²": (lambda a, b, c: _cosine(a, b, c, 2), "wrong_rule"),
            "no 1/|a|": (lambda a, b, c: _cosine(a, b, c, 0), "wrong_rule"),
            "no projection": (lambda a, b, c: _cosine(a, b, c, projection=0.0), "missing_term"),
            "no 1/|a| in projection": (lambda a, b, c: _cosine(a, b, c, 0, projection=0.0), "wrong_rule missing_term ?"),
            "sign": (lambda a, b, c: _cosine(a, b, c, projection=-1.0), "sign_of_term"),
            "product": (lambda a, b, c: c[:, None] * b, "wrong_rule other_operation"),
        },
    ),
    "distances": Derivation(
        "(cdist(a, p) * c).sum()", {"a": A, "p": POINTS, "c": CD}, "a", lambda a, p, c: _cdist(a, p, c, lambda d, n: d / n),
        {
            "square": (lambda a, p, c: _cdist(a, p, c, lambda d, n: 2 * d), "wrong_rule other_operation"),
            "undivided": (lambda a, p, c: _cdist(a, p, c, lambda d, n: d), "wrong_rule"),
            "L1": (lambda a, p, c: _cdist(a, p, c, lambda d, n: d.sign()), "wrong_rule"),
            "n²": (lambda a, p, c: _cdist(a, p, c, lambda d, n: d / n**2), "wrong_rule"),
        },
    ),
    "KL of a softmax": Derivation(
        "F.kl_div(F.log_softmax(x, 1), t, reduction='sum')", {"x": X, "t": T}, "x", lambda x, t: x.softmax(1) - t,
        {"no projection": (lambda x, t: -t, "missing_activation_derivative")},
    ),
    "reverse KL of a softmax": Derivation(
        "p = softmax(x, 1)\n(p * (log(p) - log(t))).sum()", {"x": X, "t": T}, "x",
        lambda x, t: x.softmax(1) * ((x.softmax(1) / t).log() - (x.softmax(1) * (x.softmax(1) / t).log()).sum(1, keepdim=True)),
        {
            "no projection": (lambda x, t: x.softmax(1) * ((x.softmax(1) / t).log() + 1), "wrong_rule"),
            "no projection, no 1": (lambda x, t: x.softmax(1) * ((x.softmax(1) / t).log()), "wrong_rule"),
            "by p": (lambda x, t: (x.softmax(1) / t).log() + 1, "missing_activation_derivative"),
        },
    ),
    "cross-entropy by hand": Derivation(
        "-(t * F.log_softmax(x, 1)).sum()", {"x": X, "t": T}, "x", lambda x, t: x.softmax(1) - t,
        {
            "other axis": (lambda x, t: x.softmax(0) - t, "wrong_axis"),
            "twice": (lambda x, t: x.softmax(1).softmax(1) - t, "wrong_rule"),
            "scores": (lambda x, t: x - t, "wrong_rule"),
        },
    ),
    "cross-entropy by hand with log": Derivation(
        "-(t * log(softmax(x, 1))).sum()", {"x": X, "t": T}, "x", lambda x, t: x.softmax(1) - t,
        {
            "other axis": (lambda x, t: x.softmax(0) - t, "wrong_axis"),
            "twice": (lambda x, t: x.softmax(1).softmax(1) - t, "wrong_rule"),
            "p": (lambda x, t: x.softmax(1), "probability_alone"),
            "by p": (lambda x, t: -t / x.softmax(1), "missing_activation_derivative"),
        },
    ),
    "cross-entropy by hand with logsumexp": Derivation(
        "(logsumexp(x, 1) - (t * x).sum(1)).mean()", {"x": X, "t": T}, "x", lambda x, t: (x.softmax(1) - t) / 5,
        {
            "other axis": (lambda x, t: (x.softmax(0) - t) / 5, "wrong_axis"),
            "twice": (lambda x, t: (x.softmax(1).softmax(1) - t) / 5, "wrong_rule"),
        },
    ),
    "cross-entropy": Derivation(
        "F.cross_entropy(x, k)", {"x": X, "k": K}, "x", lambda x, k: (x.softmax(1) - hot(k)) / 5,
        {"twice": (lambda x, k: (x.softmax(1).softmax(1) - hot(k)) / 5, "wrong_rule"),
         "other axis": (lambda x, k: (x.softmax(0) - hot(k)) / 5, "wrong_axis"),
         "scores": (lambda x, k: (x - hot(k)) / 5, "wrong_rule")},
    ),
    "class weights": Derivation(
        "F.cross_entropy(x, k, weight=w)", {"x": X, "k": K, "w": KW}, "x",
        lambda x, k, w: (x.softmax(1) - hot(k)) * w[k][:, None] / w[k].sum(),
        {
            "no weight": (lambda x, k, w: (x.softmax(1) - hot(k)) / 5, "default_argument"),
            "divided by the number": (lambda x, k, w: (x.softmax(1) - hot(k)) * w[k][:, None] / 5, "wrong_reduction missing_mean"),
            "of each class": (lambda x, k, w: (x.softmax(1) - hot(k)) * w / w[k].sum(), "wrong_value"),
            "of the target alone": (lambda x, k, w: (x.softmax(1) - hot(k) * w[k][:, None]) / w[k].sum(), "missing_factor"),
        },
    ),
    "cholesky": Derivation(
        "(linalg.cholesky(a) * c).sum()", {"a": SPD, "c": N3}, "a", _cholesky,
        {
            "not symmetric": (lambda a, c: _cholesky(a, c, symmetric=False), "wrong_rule"),
            "whole diagonal": (lambda a, c: _cholesky(a, c, half=1.0), "wrong_rule"),
        },
    ),
    "log of the factor": Derivation(
        "linalg.cholesky(a).diagonal().log().sum()", {"a": SPD}, "a", lambda a: torch.linalg.inv(a) / 2,
        {"whole": (lambda a: torch.linalg.inv(a), "constant_factor")},
    ),
    "cumulative product": Derivation(
        "(cumprod(v, 0) * c).sum()", {"v": V, "c": CV}, "v", lambda v, c: _back(c * v.cumprod(0)) / v,
        {
            "y / x": (lambda v, c: c * v.cumprod(0) / v, "missing_term"),
            "forwards": (lambda v, c: (c * v.cumprod(0)).cumsum(0) / v, "not_reversed"),
            "undivided": (lambda v, c: _back(c * v.cumprod(0)), "wrong_rule"),
        },
    ),
    "product": Derivation(
        "prod(v) ** 2", {"v": V}, "v", lambda v: 2 * v.prod() ** 2 / v,
        {"undivided": (lambda v: 2 * v.prod() ** 2 + 0 * v, "missing_activation_derivative wrong_rule"),
         },
    ),
    "product of rows": Derivation(
        "(prod(a, 1) * c).sum()", {"a": A, "c": CA}, "a", lambda a, c: (c * a.prod(1))[:, None] / a,
        {"undivided": (lambda a, c: (c * a.prod(1))[:, None] + 0 * a, "wrong_rule"),
         "ones": (lambda a, c: c[:, None] + 0 * a, "missing_activation_derivative"),
         "other axis": (lambda a, c: c[:, None] * a.prod(0) / a, "wrong_axis")},
    ),
    "added by index": Derivation(
        "(torch.zeros(3).scatter_add(0, i, v) * c).sum()", {"v": V, "i": INDEX, "c": ROWS3}, "v", lambda v, i, c: c[i],
        {"averaged": (lambda v, i, c: (c / torch.bincount(i))[i], "wrong_reduction")},
    ),
    "logs of sums": Derivation(
        "(logcumsumexp(v, 0) * c).sum()", {"v": V, "c": CV}, "v",
        lambda v, c: v.exp() * _back(c * (-v.logcumsumexp(0)).exp()),
        {
            "one softmax": (lambda v, c: v.softmax(0) * c.sum(), "other_operation wrong_rule"),
            "own term": (lambda v, c: c * (v - v.logcumsumexp(0)).exp(), "wrong_rule missing_term ?"),
            "softmax times gradient": (lambda v, c: v.softmax(0) * c, "wrong_rule"),
            "forwards": (lambda v, c: v.exp() * (c * (-v.logcumsumexp(0)).exp()).cumsum(0), "not_reversed"),
        },
    ),
    "rectified layer": Derivation(
        "(relu(relu(x @ a) @ b) * c).sum()", {"x": normal(4, 3, seed=183), "a": M, "b": N3, "c": B}, "x",
        lambda x, a, b, c: (((x @ a).relu() @ b > 0) * c @ b.T * (x @ a > 0)) @ a.T,
        {
            "guided": (lambda x, a, b, c: ((((x @ a).relu() @ b > 0) * c.relu() @ b.T).relu() * (x @ a > 0)) @ a.T, "wrong_rule"),
            "by the gradient": (lambda x, a, b, c: ((c.relu() @ b.T).relu()) @ a.T, "wrong_rule"),
        },
    ),
    "determinant of a product": Derivation(
        "det(a @ b)", {"a": M, "b": N3}, "a", lambda a, b: torch.linalg.det(a @ b) * torch.linalg.inv(a).T,
        {
            "not transposed": (lambda a, b: torch.linalg.det(a @ b) * torch.linalg.inv(a), "transpose"),
            "log's": (lambda a, b: torch.linalg.inv(a).T, "elementwise_factor"),
            "inverse of the product": (lambda a, b: torch.linalg.det(a @ b) * torch.linalg.inv(a @ b).T, "missing_activation_derivative"),
            "inner not transposed": (lambda a, b: torch.linalg.det(a @ b) * torch.linalg.inv(a @ b) @ b.T, "transposed_product"),
            "cofactors as inverse": (lambda a, b: torch.linalg.inv(a @ b).T @ b.T, "elementwise_factor"),
        },
    ),
    "log-determinant of a product": Derivation(
        "logdet(a @ a.T + b @ b.T)", {"a": M, "b": N3}, "a", lambda a, b: 2 * torch.linalg.inv(a @ a.T + b @ b.T) @ a,
        {"half": (lambda a, b: torch.linalg.inv(a @ a.T + b @ b.T) @ a, "missing_term"),},
    ),
    "pseudo-inverse": Derivation(
        "(linalg.pinv(a) * c).sum()", {"a": TALL, "c": CT}, "a", _pinv,
        {"inverse's rule": (lambda a, c: _pinv(a, c, terms=False), "missing_term"),},
    ),
    "layer norm with a weight": Derivation(
        "(F.layer_norm(x, (6,), w, b) * c).sum()", {"x": X, "w": W, "b": BIAS, "c": C}, "x", lambda x, w, b, c: _layer(x, c * w),
        {
            "no weight": (lambda x, w, b, c: _layer(x, c), "default_argument"),
            "weight last": (lambda x, w, b, c: w * _layer(x, c), "wrong_rule"),
        },
    ),
    "Hessian of logistic regression": Derivation(
        "F.binary_cross_entropy_with_logits(x @ w, y, reduction='sum')", {"x": LX, "w": LW, "y": LY}, "w",
        lambda x, w, y: _logistic(x, w, lambda p: p * (1 - p)),
        {
            "σ": (lambda x, w, y: _logistic(x, w, lambda p: p), "wrong_rule ?"),
            "1": (lambda x, w, y: _logistic(x, w, lambda p: p * 0 + 1), "wrong_rule missing_activation_derivative ?"),
            "1 - σ": (lambda x, w, y: _logistic(x, w, lambda p: 1 - p), "wrong_rule ?"),
            "σ - y": (lambda x, w, y: _logistic(x, w, lambda p: p - y), "wrong_rule ?"),
            "square": (lambda x, w, y: _logistic(x, w, lambda p: (p - y) ** 2), "outer_product"),
        },
        "hessian",
    ),
    "Hessian of softplus": Derivation(
        "F.softplus(x @ w).sum()", {"x": LX, "w": LW}, "w", lambda x, w: _logistic(x, w, lambda p: p * (1 - p)),
        {"σ": (lambda x, w: _logistic(x, w, lambda p: p), "wrong_rule ?"),
         "no square": (lambda x, w: _logistic(x, w, lambda p: 1 - p * p), "wrong_rule ?")},
        "hessian",
    ),
}  # fmt: skip
