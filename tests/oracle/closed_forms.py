"""Derivations in closed form with the mistakes that people make in them: losses, normalisations, attention, matrices, filters, energies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from tests.engine.building import normal
from tests.oracle.written_out import hot, soft

Formula = Callable[..., Tensor]


@dataclass(frozen=True)
class Form:
    """A program, its inputs in float64, and its derivative by `wrt` as a function of these inputs, by name; `wrong`: the same, mistaken."""

    text: str
    inputs: Mapping[str, Tensor]
    wrt: str
    right: Formula
    wrong: Mapping[str, Formula]


def _spd(n: int, seed: int) -> Tensor:
    a = normal(n, n, seed=seed)
    return a @ a.mT / n + torch.eye(n, dtype=torch.float64)


def soft_vjp(p: Tensor, g: Tensor) -> Tensor:
    return p * (g - (p * g).sum(-1, keepdim=True))


def _ln(x: Tensor, c: Tensor, *, mean: bool = True, spread: bool = True) -> Tensor:
    s = (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    h = (x - x.mean(-1, keepdim=True)) / s
    g = c - (c.mean(-1, keepdim=True) if mean else 0) - (h * (c * h).mean(-1, keepdim=True) if spread else 0)
    return g / s


X, C, K = normal(5, 4), normal(5, 4, seed=1), torch.tensor([0, 3, 1, 2, 1])
Z, T = normal(5, 4, seed=2), torch.softmax(normal(5, 4, seed=3), 1)
MASK = torch.tensor([1.0, 0.0, 1.0, 1.0, 1.0], dtype=torch.float64)
V, U, W = normal(6, seed=4), normal(6, seed=5), normal(6, seed=6).abs() + 0.5
A, B, S, R = normal(4, 4, seed=7), normal(4, 4, seed=8), _spd(4, 9), _spd(4, 10)
Y, Q = normal(4, seed=11), normal(4, seed=12)
POS = normal(6, seed=13).abs() + 0.5
PTS = normal(5, 3, seed=14)
H: Final = 0.3  # a step

_loss: Final = "(-(log_softmax(z, 1) * t).sum(1)).mean()"

FORMS: Final[dict[str, Form]] = {
    # Losses of classes.
    "cross entropy with smoothing": Form(
        "F.cross_entropy(z, k, label_smoothing=0.2)", {"z": Z, "k": K}, "z",
        lambda z, k: (soft(z) - 0.8 * hot(k, z) - 0.2 / 4) / 5,
        {"no smoothing": lambda z, k: (soft(z) - hot(k, z)) / 5, "sum": lambda z, k: soft(z) - 0.8 * hot(k, z) - 0.05,
         "sign": lambda z, k: -(soft(z) - 0.8 * hot(k, z) - 0.05) / 5, "no target": lambda z, k: soft(z) / 5}),
    "cross entropy of probabilities": Form(
        _loss, {"z": Z, "t": T}, "z", lambda z, t: (soft(z) * t.sum(1, keepdim=True) - t) / 5,
        {"factor": lambda z, t: (soft(z) - t) / 4, "swapped": lambda z, t: (t - soft(z)) / 5,
         "axis": lambda z, t: (soft(z.mT).mT - t) / 5, "diagonal": lambda z, t: -t * (1 - soft(z)) / 5}),
    "cross entropy of probabilities, by these": Form(
        _loss, {"t": T, "z": Z}, "t", lambda t, z: -torch.log(soft(z)) / 5,
        {"sign": lambda t, z: torch.log(soft(z)) / 5, "p for log p": lambda t, z: -soft(z) / 5,
         "scores": lambda t, z: -z / 5, "sum": lambda t, z: -torch.log(soft(z))}),
    "masked cross entropy": Form(
        "(F.cross_entropy(z, k, reduction='none') * m).sum() / m.sum()", {"z": Z, "k": K, "m": MASK}, "z",
        lambda z, k, m: (soft(z) - hot(k, z)) * m[:, None] / m.sum(),
        {"batch size": lambda z, k, m: (soft(z) - hot(k, z)) * m[:, None] / 5,
         "no mask": lambda z, k, m: (soft(z) - hot(k, z)) / m.sum(),
         "shifted mask": lambda z, k, m: (soft(z) - hot(k, z)) * m.roll(1)[:, None] / m.sum(),
         "diagonal": lambda z, k, m: -hot(k, z) * (1 - soft(z)) * m[:, None] / m.sum()}),
    "weighted nll": Form(
        "F.cross_entropy(z, k, weight=w)", {"z": Z, "k": K, "w": POS[:4]}, "z",
        lambda z, k, w: (soft(z) - hot(k, z)) * w[k][:, None] / w[k].sum(),
        {"no weight": lambda z, k, w: (soft(z) - hot(k, z)) / 5,
         "mean by count": lambda z, k, w: (soft(z) - hot(k, z)) * w[k][:, None] / 5,
         "weight by column": lambda z, k, w: (soft(z) - hot(k, z)) * w / w[k].sum(),
         "sign": lambda z, k, w: (hot(k, z) - soft(z)) * w[k][:, None] / w[k].sum()}),
    "focal loss": Form(
        "(-(1 - sigmoid(v)) ** 2 * F.logsigmoid(v)).mean()", {"v": V}, "v",
        lambda v: (2 * (1 - v.sigmoid()) ** 2 * v.sigmoid() * torch.log(v.sigmoid()) - (1 - v.sigmoid()) ** 3) / 6,
        {"no focus": lambda v: -(1 - v.sigmoid()) / 6, "first term only": lambda v: -((1 - v.sigmoid()) ** 3) / 6,
         "the other term only": lambda v: 2 * (1 - v.sigmoid()) ** 2 * v.sigmoid() * torch.log(v.sigmoid()) / 6,
         "sum": lambda v: 2 * (1 - v.sigmoid()) ** 2 * v.sigmoid() * torch.log(v.sigmoid()) - (1 - v.sigmoid()) ** 3}),
    "temperature": Form(
        "(softmax(z / 0.7, 1) * c).sum()", {"z": Z, "c": C}, "z", lambda z, c: soft_vjp(soft(z / 0.7), c) / 0.7,
        {"no temperature": lambda z, c: soft_vjp(soft(z / 0.7), c), "twice": lambda z, c: soft_vjp(soft(z / 0.7), c) / 0.49,
         "diagonal": lambda z, c: soft(z / 0.7) * (1 - soft(z / 0.7)) * c / 0.7,
         "wrong axis": lambda z, c: soft_vjp(soft(z.mT / 0.7), c.mT).mT / 0.7}),
    "log of a sum of probabilities": Form(
        "-log(softmax(z, 1)[:, :2].sum(1)).sum()", {"z": Z}, "z",
        lambda z: soft(z) - torch.cat([soft(z[:, :2]), torch.zeros_like(z[:, 2:])], 1),
        {"only the second": lambda z: -torch.cat([soft(z[:, :2]), torch.zeros_like(z[:, 2:])], 1),
         "one class more": lambda z: soft(z) - torch.cat([soft(z[:, :3]), torch.zeros_like(z[:, 3:])], 1),
         "sign": lambda z: torch.cat([soft(z[:, :2]), torch.zeros_like(z[:, 2:])], 1) - soft(z),
         "not renormalised": lambda z: soft(z) - torch.cat([soft(z)[:, :2], torch.zeros_like(z[:, 2:])], 1)}),
    "binary cross entropy of scores": Form(
        "F.binary_cross_entropy_with_logits(v, y, pos_weight=tensor(3.0, dtype=v.dtype))", {"v": V, "y": (U > 0).double()}, "v",
        lambda v, y: ((1 - y) * v.sigmoid() - 3 * y * (1 - v.sigmoid())) / 6,
        {"no weight": lambda v, y: (v.sigmoid() - y) / 6, "sum": lambda v, y: (1 - y) * v.sigmoid() - 3 * y * (1 - v.sigmoid()),
         "weight on both": lambda v, y: 3 * (v.sigmoid() - y) / 6, "slope": lambda v, y: (v.sigmoid() - y) * v.sigmoid() / 6}),
    "contrastive": Form(
        "F.cross_entropy(a @ b.T / 0.5, arange(4))", {"a": A, "b": B}, "b",
        lambda a, b: (soft(a @ b.mT / 0.5) - torch.eye(4, dtype=a.dtype)).mT @ a / 0.5 / 4,
        {"not transposed": lambda a, b: (soft(a @ b.mT / 0.5) - torch.eye(4, dtype=a.dtype)) @ a / 0.5 / 4,
         "no temperature": lambda a, b: (soft(a @ b.mT / 0.5) - torch.eye(4, dtype=a.dtype)).mT @ a / 4,
         "by a": lambda a, b: (soft(a @ b.mT / 0.5) - torch.eye(4, dtype=a.dtype)) @ b / 0.5 / 4,
         "no target": lambda a, b: soft(a @ b.mT / 0.5).mT @ a / 0.5 / 4}),
    # Losses of numbers.
    "quantile": Form(
        "maximum(0.9 * (y - q), -0.1 * (y - q)).mean()", {"q": V, "y": U}, "q",
        lambda q, y: _quantile(y > q, -0.9, 0.1) / 6,
        {"turned": lambda q, y: _quantile(y > q, -0.1, 0.9) / 6, "sign": lambda q, y: _quantile(y > q, 0.9, -0.1) / 6,
         "sum": lambda q, y: _quantile(y > q, -0.9, 0.1), "only below": lambda q, y: _quantile(y > q, -0.9, 0.0) / 6}),
    "huber": Form(
        "F.huber_loss(v, u, delta=0.5)", {"v": V, "u": U}, "v", lambda v, u: (v - u).clamp(-0.5, 0.5) / 6,
        {"smooth l1": lambda v, u: ((v - u) / 0.5).clamp(-1, 1) / 6, "squared": lambda v, u: (v - u) / 6,
         "delta of one": lambda v, u: (v - u).clamp(-1, 1) / 6, "sign": lambda v, u: (u - v).clamp(-0.5, 0.5) / 6}),
    "log cosh": Form(
        "log(cosh(v - u)).mean()", {"v": V, "u": U}, "v", lambda v, u: torch.tanh(v - u) / 6,
        {"sign": lambda v, u: -torch.tanh(v - u) / 6, "sum": lambda v, u: torch.tanh(v - u), "sinh": lambda v, u: torch.sinh(v - u) / 6,
         "tanh squared": lambda v, u: torch.tanh(v - u) ** 2 / 6}),
    "poisson": Form(
        "(exp(v) - y * v).mean()", {"v": V, "y": POS}, "v", lambda v, y: (v.exp() - y) / 6,
        {"no target": lambda v, y: v.exp() / 6, "sum": lambda v, y: v.exp() - y, "no exp": lambda v, y: (v - y) / 6,
         "sign": lambda v, y: (v.exp() + y) / 6}),
    "gaussian nll by log sigma": Form(
        "(0.5 * ((y - 0.2) / exp(s)) ** 2 + s).sum()", {"s": V, "y": U}, "s", lambda s, y: 1 - ((y - 0.2) / s.exp()) ** 2,
        {"no one": lambda s, y: -(((y - 0.2) / s.exp()) ** 2), "half": lambda s, y: 1 - ((y - 0.2) / s.exp()) ** 2 / 2,
         "not squared": lambda s, y: 1 - (y - 0.2) ** 2 / s.exp(), "sign": lambda s, y: ((y - 0.2) / s.exp()) ** 2 - 1}),
    "ridge": Form(
        "((a @ w - y) ** 2).sum() / 4 + 0.1 * (w @ w)", {"w": Q, "a": A, "y": Y}, "w", lambda w, a, y: a.mT @ (a @ w - y) / 2 + 0.2 * w,
        {"no ridge": lambda w, a, y: a.mT @ (a @ w - y) / 2, "ridge without 2": lambda w, a, y: a.mT @ (a @ w - y) / 2 + 0.1 * w,
         "not transposed": lambda w, a, y: a @ (a @ w - y) / 2 + 0.2 * w, "ridge twice": lambda w, a, y: a.mT @ (a @ w - y) / 2 + 0.4 * w}),
    "cosine": Form(
        "1 - (u @ v) / (u.norm() * v.norm())", {"u": U, "v": V}, "u",
        lambda u, v: -(v / v.norm() - (u @ v) / (u.norm() * v.norm()) * u / u.norm()) / u.norm(),
        {"first term": lambda u, v: -v / (u.norm() * v.norm()), "sign": lambda u, v:
        (v / v.norm() - (u @ v) / (u.norm() * v.norm()) * u / u.norm()) / u.norm(),
         "norms": lambda u, v: -(v / v.norm() - (u @ v) / (u.norm() * v.norm()) * u / u.norm()),
         "by v": lambda u, v: -(u / u.norm() - (u @ v) / (u.norm() * v.norm()) * v / v.norm()) / v.norm()}),
    "triplet": Form(
        "F.relu((a - p).square().sum(1) - (a - n).square().sum(1) + 9.0).mean()", {"a": X, "p": C, "n": Z}, "a", lambda a, p, n: 2 * (n - p) / 5,
        {"sign": lambda a, p, n: 2 * (p - n) / 5, "no two": lambda a, p, n: (n - p) / 5, "sum": lambda a, p, n: 2 * (n - p),
         "one distance": lambda a, p, n: 2 * (a - p) / 5}),
    # Normalisations.
    "layer norm": Form(
        "(F.layer_norm(x, (4,)) * c).sum()", {"x": X, "c": C}, "x", lambda x, c: _ln(x, c),
        {"only 1/σ": lambda x, c: _ln(x, c, mean=False, spread=False), "no mean": lambda x, c: _ln(x, c, mean=False),
         "no spread": lambda x, c: _ln(x, c, spread=False), "axis": lambda x, c: _ln(x.mT, c.mT).mT}),
    "layer norm with weights": Form(
        "(F.layer_norm(x, (4,), w) * c).sum()", {"w": Q, "x": X, "c": C}, "w",
        lambda w, x, c: (c * (x - x.mean(1, keepdim=True)) / (x.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()).sum(0),
        {"mean": lambda w, x, c: (c * (x - x.mean(1, keepdim=True)) / (x.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()).mean(0),
         "not centred": lambda w, x, c: (c * x / (x.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()).sum(0),
         "cotangent": lambda w, x, c: c.sum(0),
         "n - 1": lambda w, x, c: (c * (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True) + 1e-5).sqrt()).sum(0)}),
    "batch norm": Form(
        "(F.batch_norm(x, None, None, training=True) * c).sum()", {"x": X, "c": C}, "x", lambda x, c: _ln(x.mT, c.mT).mT,
        {"layer norm": lambda x, c: _ln(x, c), "only 1/σ": lambda x, c: _ln(x.mT, c.mT, mean=False, spread=False).mT,
         "no mean": lambda x, c: _ln(x.mT, c.mT, mean=False).mT, "no spread": lambda x, c: _ln(x.mT, c.mT, spread=False).mT}),
    "rms norm": Form(
        "(x / sqrt(x.square().mean(1, keepdim=True) + 1e-6) * c).sum()", {"x": X, "c": C}, "x",
        lambda x, c: _rms(x, c, 4), {"sum": lambda x, c: _rms(x, c, 1), "only 1/rms": lambda x, c: c / _r(x),
         "not cubed": lambda x, c: c / _r(x) - x * (c * x).mean(1, keepdim=True) / _r(x), "sign": lambda x, c: c / _r(x) + x * (c * x).mean(1,
         keepdim=True) / _r(x) ** 3}),
    "standardised": Form(
        "((x - x.mean(0)) / x.std(0) * c).sum()", {"x": X, "c": C}, "x", lambda x, c: _std(x, c, 4),
        {"n": lambda x, c: _std(x, c, 5), "only 1/σ": lambda x, c: c / x.std(0), "no mean": lambda x, c: _std(x, c, 4) + c.mean(0) / x.std(0),
         "sum": lambda x, c: (c - c.sum(0)) / x.std(0)}),
    "l2 normalised": Form(
        "(F.normalize(x, dim=1) * c).sum()", {"x": X, "c": C}, "x",
        lambda x, c: (c - x * (x * c).sum(1, keepdim=True) / (x * x).sum(1, keepdim=True)) / x.norm(dim=1, keepdim=True),
        {"only 1/n": lambda x, c: c / x.norm(dim=1, keepdim=True), "not squared":
            lambda x, c: (c - x * (x * c).sum(1, keepdim=True) / x.norm(dim=1, keepdim=True)) / x.norm(dim=1, keepdim=True),
         "axis": lambda x, c: (c - x * (x * c).sum(0) / (x * x).sum(0)) / x.norm(dim=0),
         "sign of term": lambda x, c: (c + x * (x * c).sum(1, keepdim=True) / (x * x).sum(1, keepdim=True)) / x.norm(dim=1, keepdim=True)}),
}  # fmt: skip


def _r(x: Tensor) -> Tensor:
    return (x.square().mean(1, keepdim=True) + 1e-6).sqrt()


def _rms(x: Tensor, c: Tensor, n: int) -> Tensor:
    return c / _r(x) - x * (c * x).sum(1, keepdim=True) / n / _r(x) ** 3


def _std(x: Tensor, c: Tensor, n: int) -> Tensor:
    s, d = x.std(0), x - x.mean(0)
    return (c - c.mean(0) - d * (c * d).sum(0) / n / s**2) / s


def _quantile(above: Tensor, high: float, low: float) -> Tensor:
    return high * above.double() + low * (~above).double()
