"""Derivations by hand of layers and cells, by data, weights and biases: convolutions, norms, pooling, recurrence, attention, looked up rows."""

from __future__ import annotations

import math
from typing import Any, Final

import torch
from torch import Tensor

from tests.engine.building import normal
from tests.oracle.hand_derivation import Derivation
from tests.oracle.written_out import sig, soft

X, C = normal(5, 4, seed=51), normal(5, 4, seed=52)
G, H = normal(4, seed=53), normal(4, seed=54)
S1, K1, T1 = normal(2, 2, 6, seed=55), normal(3, 2, 3, seed=56), normal(2, 3, 4, seed=57)
S2, K2, T2 = normal(1, 1, 5, 5, seed=58), normal(2, 1, 2, 2, seed=59), normal(1, 2, 4, 4, seed=60)
MAP: Final = normal(2, 4, 3, seed=61)
MAP_C: Final = normal(2, 4, 3, seed=62)
W, W2, B3 = normal(4, 3, seed=63), normal(3, 3, seed=64), normal(3, seed=65)
Y: Final = normal(5, 3, seed=66)
TABLE: Final = normal(6, 3, seed=67)
ROWS: Final = torch.tensor([1, 4, 1, 0, 5])
Q, KEY, VAL, QC = (normal(4, 3, seed=70 + k) for k in range(4))
CELL, HID = normal(3, seed=80), normal(3, seed=81)
GATES: Final = normal(12, seed=82)
REC: Final = normal(3, 3, seed=83) * 0.5
STEPS: Final = normal(3, 3, seed=84)


def _normed(x: Tensor, axes: tuple[int, ...], eps: float = 1e-5) -> tuple[Tensor, Tensor]:
    mean = x.mean(axes, keepdim=True)
    s = (((x - mean) ** 2).mean(axes, keepdim=True) + eps).sqrt()
    return (x - mean) / s, s


def _norm_vjp(x: Tensor, c: Tensor, axes: tuple[int, ...], *, mean: bool = True, spread: bool = True) -> Tensor:
    h, s = _normed(x, axes)
    return (c - mean * c.mean(axes, keepdim=True) - spread * h * (c * h).mean(axes, keepdim=True)) / s


def _group_vjp(x: Tensor, c: Tensor, **terms: bool) -> Tensor:
    return _norm_vjp(x.reshape(2, 2, 6), c.reshape(2, 2, 6), (2,), **terms).reshape(x.shape)


def _rms_vjp(x: Tensor, c: Tensor, spread: bool = True) -> Tensor:
    s = ((x**2).mean(-1, keepdim=True) + 1e-6).sqrt()
    return c / s - spread * x * (c * x).mean(-1, keepdim=True) / s**3


def _conv1_input(k: Tensor, t: Tensor, flip: bool = False) -> Tensor:
    k = k.flip(2) if flip else k
    out = torch.zeros(t.shape[0], k.shape[1], t.shape[2] + k.shape[2] - 1, dtype=k.dtype)
    for j in range(k.shape[2]):
        out[:, :, j : j + t.shape[2]] += torch.einsum("oi,bol->bil", k[:, :, j], t)
    return out


def _conv1_weight(s: Tensor, t: Tensor) -> Tensor:
    n = s.shape[2] - t.shape[2] + 1
    return torch.stack([torch.einsum("bil,bol->oi", s[:, :, j : j + t.shape[2]], t) for j in range(n)], 2)


def _conv2_input(k: Tensor, t: Tensor, flip: bool = False) -> Tensor:
    k = k.flip(2, 3) if flip else k
    out = torch.zeros(1, 1, 5, 5, dtype=k.dtype)
    for a in range(2):
        for b in range(2):
            out[:, :, a : a + 4, b : b + 4] += torch.einsum("oi,boxy->bixy", k[:, :, a, b], t)
    return out


def _conv2_weight(s: Tensor, t: Tensor) -> Tensor:
    w = torch.zeros(2, 1, 2, 2, dtype=s.dtype)
    for a in range(2):
        for b in range(2):
            w[:, :, a, b] = torch.einsum("bixy,boxy->oi", s[:, :, a : a + 4, b : b + 4], t)
    return w


def _strided_weight(s: Tensor, t: Tensor, stride: int = 2) -> Tensor:
    return torch.stack(
        [torch.einsum("bil,bol->oi", s[:, :, j : j + 2 * t.shape[2] : stride][:, :, : t.shape[2]], t) for j in range(3)], 2
    )


def _maxpool(s: Tensor, c: Tensor, first: bool = False) -> Tensor:
    out = torch.zeros_like(s)
    for b in range(s.shape[0]):
        for ch in range(s.shape[1]):
            for w in range(s.shape[2] // 2):
                two = s[b, ch, 2 * w : 2 * w + 2]
                out[b, ch, 2 * w + (0 if first else int(two.argmax()))] += c[b, ch, w]
    return out


def _rows(e: Tensor, c: Tensor, once: bool = False) -> Tensor:
    out = torch.zeros_like(e)
    for k, row in enumerate(ROWS.tolist()):
        out[row] = c[k] if once else out[row] + c[k]
    return out


def _att(q: Tensor, k: Tensor) -> Tensor:
    return soft(q @ k.T / math.sqrt(3))


def _att_scores(q: Tensor, k: Tensor, v: Tensor, c: Tensor, diagonal: bool = False) -> Tensor:
    p, d = _att(q, k), c @ v.T
    return p * (1 - p) * d if diagonal else p * (d - (p * d).sum(-1, keepdim=True))


def _lstm(z: Tensor, c: Tensor) -> Any:
    i, f, o, g = sig(z[:3]), sig(z[3:6]), sig(z[6:9]), torch.tanh(z[9:])
    cell = f * c + i * g
    return i, f, o, g, torch.tanh(cell)


def _lstm_gates(z: Tensor, c: Tensor, *, tanh: bool = True, slopes: bool = True) -> Tensor:
    i, f, o, g, t = _lstm(z, c)
    d = o * (1 - t * t) if tanh else o
    i_slope, f_slope, o_slope = (a * (1 - a) if slopes else a for a in (i, f, o))
    return torch.cat([d * g * i_slope, d * c * f_slope, t * o_slope, d * i * (1 - g * g)])


_LSTM: Final = "i = sigmoid(z[:3])\nf = sigmoid(z[3:6])\no = sigmoid(z[6:9])\ng = tanh(z[9:])\ns = f * c + i * g\nreturn (o * tanh(s)).sum()"
_GRU: Final = "r = sigmoid(a @ h)\nu = sigmoid(b @ h)\nn = tanh(x + r * h)\nreturn ((1 - u) * n + u * h).sum()"


def _gru(h: Tensor, a: Tensor, b: Tensor, x: Tensor, *, reset: bool = True, update: bool = True, direct: bool = True) -> Tensor:
    r, u = sig(a @ h), sig(b @ h)
    n = torch.tanh(x + r * h)
    d = (1 - u) * (1 - n * n)
    return (
        d * r
        + (a.T @ (d * h * r * (1 - r)) if reset else 0)
        + (b.T @ ((h - n) * u * (1 - u)) if update else 0)
        + (u if direct else 0)
    )


_RNN: Final = "h = zeros(3, dtype=w.dtype)\nfor k in range(3):\n    h = tanh(w @ h + x[k])\nreturn h.sum()"


def _bptt(w: Tensor, x: Tensor, *, depth: int = 3, slope: bool = True, turned: bool = True) -> Tensor:
    hs = [torch.zeros(3, dtype=w.dtype)]
    for k in range(3):
        hs.append(torch.tanh(w @ hs[-1] + x[k]))
    d, g = torch.ones(3, dtype=w.dtype), torch.zeros_like(w)
    for k in range(3, 3 - depth, -1):
        d = d * (1 - hs[k] ** 2) if slope else d
        g = g + torch.outer(d, hs[k - 1])
        d = (w.T if turned else w) @ d
    return g


def _mlp(x: Tensor, w: Tensor, v: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    h = torch.relu(x @ w)
    return h, 2 / 15 * (h @ v - y)


def _up(c: Tensor, mean: bool = False) -> Tensor:
    pairs = c.reshape(2, 4, 3, 2)
    return pairs.mean(3) if mean else pairs.sum(3)


UP: Final = normal(2, 4, 6, seed=90)

LAYERS: Final[dict[str, Derivation]] = {
    "layer norm": Derivation("(F.layer_norm(x, (4,)) * c).sum()", {"x": X, "c": C}, "x", lambda x, c: _norm_vjp(x, c, (1,)), {
        "sigma": (lambda x, c: _norm_vjp(x, c, (1,), mean=False, spread=False), "statistics_constant"),
        "mean": (lambda x, c: _norm_vjp(x, c, (1,), mean=False), "?"),
        "spread": (lambda x, c: _norm_vjp(x, c, (1,), spread=False), "?"),
        "axis": (lambda x, c: _norm_vjp(x, c, (0,)), "? wrong_axis"),
        "forward": (lambda x, c: _normed(x, (1,))[0] * c, "?"),
    }),
    "layer norm, weight": Derivation("(F.layer_norm(x, (4,), g, h) * c).sum()", {"g": G, "x": X, "h": H, "c": C}, "g",
        lambda g, x, h, c: (c * _normed(x, (1,))[0]).sum(0), {
        "no sum": (lambda g, x, h, c: c * _normed(x, (1,))[0], "missing_batch_sum"),
        "bias": (lambda g, x, h, c: c.sum(0), "wrong_variable"),
        "mean": (lambda g, x, h, c: (c * _normed(x, (1,))[0]).mean(0), "constant_factor"),
        "x": (lambda g, x, h, c: (c * x).sum(0), "?"),
    }),
    "layer norm, bias": Derivation("(F.layer_norm(x, (4,), g, h) * c).sum()", {"h": H, "x": X, "g": G, "c": C}, "h", lambda h, x, g, c: c.sum(0), {
        "no sum": (lambda h, x, g, c: c * 1.0, "missing_batch_sum"),
        "gamma": (lambda h, x, g, c: g * c.sum(0), "?"),
        "mean": (lambda h, x, g, c: c.mean(0), "constant_factor"),
    }),
    "layer norm with a weight, data": Derivation("(F.layer_norm(x, (4,), g) * c).sum()", {"x": X, "g": G, "c": C}, "x", lambda x, g, c: _norm_vjp(x, c * g, (1,)), {
        "no weight": (lambda x, g, c: _norm_vjp(x, c, (1,)), "?"),
        "weight after": (lambda x, g, c: g * _norm_vjp(x, c, (1,)), "wrong_rule ?"),
        "sigma": (lambda x, g, c: _norm_vjp(x, c * g, (1,), mean=False, spread=False), "statistics_constant"),
    }),
    "normalised by hand": Derivation("((x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True) * c).sum()", {"x": X, "c": C}, "x",
        lambda x, c: (lambda h, s: (c - c.mean(1, keepdim=True) - h * (c * h).sum(1, keepdim=True) / 3) / s)((x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True), x.std(1, keepdim=True)), {
        "sigma": (lambda x, c: c / x.std(1, keepdim=True), "statistics_constant"),
        "std constant": (lambda x, c: (c - c.mean(1, keepdim=True)) / x.std(1, keepdim=True), "missing_term statistics_constant"),
        "n": (lambda x, c: (lambda h, s: (c - c.mean(1, keepdim=True) - h * (c * h).sum(1, keepdim=True) / 4) / s)((x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True), x.std(1, keepdim=True)), "? factor_of_term"),
    }),
    "batch norm": Derivation("(F.batch_norm(x, None, None, training=True) * c).sum()", {"x": X, "c": C}, "x", lambda x, c: _norm_vjp(x, c, (0,)), {
        "sigma": (lambda x, c: _norm_vjp(x, c, (0,), mean=False, spread=False), "statistics_constant"),
        "mean": (lambda x, c: _norm_vjp(x, c, (0,), mean=False), "?"),
        "layer": (lambda x, c: _norm_vjp(x, c, (1,)), "? wrong_axis"),
    }),
    "batch norm of a map": Derivation("(F.batch_norm(x, None, None, training=True) * c).sum()", {"x": MAP, "c": MAP_C}, "x", lambda x, c: _norm_vjp(x, c, (0, 2)), {
        "per sample": (lambda x, c: _norm_vjp(x, c, (2,)), "?"),
        "sigma": (lambda x, c: _norm_vjp(x, c, (0, 2), mean=False, spread=False), "statistics_constant"),
    }),
    "group norm": Derivation("(F.group_norm(x, 2) * c).sum()", {"x": MAP, "c": MAP_C}, "x", _group_vjp, {
        "sigma": (lambda x, c: _group_vjp(x, c, mean=False, spread=False), "statistics_constant"),
        "instance": (lambda x, c: _norm_vjp(x, c, (2,)), "?"),
        "sign": (lambda x, c: -_group_vjp(x, c), "sign"),
    }),
    "instance norm": Derivation("(F.instance_norm(x) * c).sum()", {"x": MAP, "c": MAP_C}, "x", lambda x, c: _norm_vjp(x, c, (2,)), {
        "batch": (lambda x, c: _norm_vjp(x, c, (0, 2)), "?"),
        "sigma": (lambda x, c: _norm_vjp(x, c, (2,), mean=False, spread=False), "statistics_constant"),
    }),
    "rms norm by hand": Derivation("(x / sqrt((x ** 2).mean(-1, keepdim=True) + 1e-6) * c).sum()", {"x": X, "c": C}, "x", lambda x, c: _rms_vjp(x, c), {
        "constant": (lambda x, c: _rms_vjp(x, c, False), "missing_term statistics_constant"),
        "sign": (lambda x, c: 2 * _rms_vjp(x, c, False) - _rms_vjp(x, c), "sign_of_term"),
        "sum": (lambda x, c: _rms_vjp(x, c, False) + 4 * (_rms_vjp(x, c) - _rms_vjp(x, c, False)), "factor_of_term"),
    }),
    "conv1d, data": Derivation("(F.conv1d(s, k) * t).sum()", {"s": S1, "k": K1, "t": T1}, "s", lambda s, k, t: _conv1_input(k, t), {
        "unflipped": (lambda s, k, t: _conv1_input(k, t, True), "unflipped_kernel"),
        "sign": (lambda s, k, t: -_conv1_input(k, t), "sign"),
        "batch mean": (lambda s, k, t: _conv1_input(k, t) / 2, "constant_factor"),
    }),
    "conv1d, weight": Derivation("(F.conv1d(s, k) * t).sum()", {"k": K1, "s": S1, "t": T1}, "k", lambda k, s, t: _conv1_weight(s, t), {
        "flipped": (lambda k, s, t: _conv1_weight(s, t).flip(2), "unflipped_kernel reversed"),
        "batch mean": (lambda k, s, t: _conv1_weight(s, t) / 2, "constant_factor"),
        "one sample": (lambda k, s, t: _conv1_weight(s[:1], t[:1]), "?"),
        "no sum over batch": (lambda k, s, t: torch.stack([_conv1_weight(s[b : b + 1], t[b : b + 1]) for b in range(2)]), "missing_batch_sum"),
    }),
    "conv1d, bias": Derivation("(F.conv1d(s, k, b) * t).sum()", {"b": B3, "s": S1, "k": K1, "t": T1}, "b", lambda b, s, k, t: t.sum((0, 2)), {
        "batch": (lambda b, s, k, t: t.sum(2), "missing_batch_sum"),
        "mean": (lambda b, s, k, t: t.mean((0, 2)), "constant_factor"),
        "space": (lambda b, s, k, t: t.sum(2).mean(0), "constant_factor"),
    }),
    "conv1d with stride, weight": Derivation("(F.conv1d(s, k, stride=2) * t[:, :, :2]).sum()", {"k": K1, "s": S1, "t": T1}, "k", lambda k, s, t: _strided_weight(s, t[:, :, :2]), {
        "no stride": (lambda k, s, t: _strided_weight(s, t[:, :, :2], 1), "? wrong_parameter"),
        "sign": (lambda k, s, t: -_strided_weight(s, t[:, :, :2]), "sign"),
    }),
    "conv2d, data": Derivation("(F.conv2d(s, k) * t).sum()", {"s": S2, "k": K2, "t": T2}, "s", lambda s, k, t: _conv2_input(k, t), {
        "unflipped": (lambda s, k, t: _conv2_input(k, t, True), "unflipped_kernel"),
        "transposed": (lambda s, k, t: _conv2_input(k, t).mT, "transpose"),
        "one channel": (lambda s, k, t: _conv2_input(k[:1], t[:, :1]), "?"),
    }),
    "conv2d, weight": Derivation("(F.conv2d(s, k) * t).sum()", {"k": K2, "s": S2, "t": T2}, "k", lambda k, s, t: _conv2_weight(s, t), {
        "flipped": (lambda k, s, t: _conv2_weight(s, t).flip(2, 3), "unflipped_kernel"),
        "transposed": (lambda k, s, t: _conv2_weight(s, t).mT, "transpose"),
        "mean": (lambda k, s, t: _conv2_weight(s, t) / 16, "constant_factor"),
    }),
    "conv2d, bias": Derivation("(F.conv2d(s, k, b) * t).sum()", {"b": H[:2].clone(), "s": S2, "k": K2, "t": T2}, "b", lambda b, s, k, t: t.sum((0, 2, 3)), {
        "mean": (lambda b, s, k, t: t.mean((0, 2, 3)), "constant_factor"),
        "one axis": (lambda b, s, k, t: t.sum((0, 2)), "missing_batch_sum ?"),
    }),
    "transposed convolution": Derivation("(F.conv_transpose1d(t, k) * s).sum()", {"t": T1, "k": K1, "s": S1}, "t", lambda t, k, s: torch.nn.functional.conv1d(s, k), {
        "flipped": (lambda t, k, s: torch.nn.functional.conv1d(s, k.flip(2)), "? unflipped_kernel"),
        "sign": (lambda t, k, s: -torch.nn.functional.conv1d(s, k), "sign"),
    }),
    "max pool": Derivation("(F.max_pool1d(s, 2) * t).sum()", {"s": S1, "t": T1[:, :2, :3].contiguous()}, "s", lambda s, t: _maxpool(s, t), {
        "first": (lambda s, t: _maxpool(s, t, True), "?"),
        "all": (lambda s, t: t.repeat_interleave(2, 2), "?"),
        "mean": (lambda s, t: t.repeat_interleave(2, 2) / 2, "?"),
        "unweighted": (lambda s, t: _maxpool(s, torch.ones_like(t)), "missing_factor"),
    }),
    "average pool": Derivation("(F.avg_pool1d(s, 2) * t).sum()", {"s": S1, "t": T1[:, :2, :3].contiguous()}, "s", lambda s, t: t.repeat_interleave(2, 2) / 2, {
        "sum": (lambda s, t: t.repeat_interleave(2, 2), "constant_factor"),
        "max": (lambda s, t: _maxpool(s, t), "?"),
        "tiled": (lambda s, t: t.repeat(1, 1, 2) / 2, "?"),
    }),
    "global pool": Derivation("(s.mean(2) * t[:, :2, 0]).sum()", {"s": S1, "t": T1}, "s", lambda s, t: (t[:, :2, :1] / 6).expand(2, 2, 6), {
        "sum": (lambda s, t: t[:, :2, :1].expand(2, 2, 6), "constant_factor"),
        "not spread": (lambda s, t: t[:, :2, 0] / 6, "shape"),
        "batch": (lambda s, t: (t[:, :2, :1] / 12).expand(2, 2, 6), "constant_factor"),
    }),
    "nearest": Derivation("(F.interpolate(x, scale_factor=2) * c).sum()", {"x": MAP, "c": UP}, "x", lambda x, c: _up(c), {
        "mean": (lambda x, c: _up(c, True), "constant_factor"),
        "first": (lambda x, c: c[:, :, ::2], "?"),
    }),
    "embedding": Derivation("(F.embedding(r, e) * c).sum()", {"e": TABLE, "r": ROWS, "c": Y}, "e", lambda e, r, c: _rows(e, c), {
        "last wins": (lambda e, r, c: _rows(e, c, True), "? overwritten"),
        "counts": (lambda e, r, c: _rows(e, torch.ones_like(c)), "missing_factor"),
        "mean": (lambda e, r, c: _rows(e, c) / 5, "constant_factor"),
        "off by one": (lambda e, r, c: _rows(e, c).roll(1, 0), "off_by_one"),
    }),
    "rows by index": Derivation("(e[r] ** 2).sum()", {"e": TABLE, "r": ROWS}, "e", lambda e, r: _rows(e, 2 * e[r]), {
        "once": (lambda e, r: _rows(e, 2 * e[r], True), "? overwritten"),
        "no 2": (lambda e, r: _rows(e, e[r]), "constant_factor"),
        "all rows": (lambda e, r: 2 * e, "?"),
    }),
    "scattered": Derivation("(zeros(6, 3, dtype=c.dtype).index_add(0, r, c) ** 2).sum()", {"c": Y, "r": ROWS}, "c",
        lambda c, r: 2 * torch.zeros(6, 3, dtype=c.dtype).index_add(0, r, c)[r], {
        "own alone": (lambda c, r: 2 * c, "?"),
        "no 2": (lambda c, r: torch.zeros(6, 3, dtype=c.dtype).index_add(0, r, c)[r], "constant_factor"),
    }),
    "two layers, first weight": Derivation("((relu(x @ w) @ v - y) ** 2).mean()", {"w": W, "x": X, "v": W2, "y": Y}, "w",
        lambda w, x, v, y: x.T @ (_mlp(x, w, v, y)[1] @ v.T * (_mlp(x, w, v, y)[0] > 0)), {
        "no mask": (lambda w, x, v, y: x.T @ (_mlp(x, w, v, y)[1] @ v.T), "missing_activation_derivative"),
        "not transposed": (lambda w, x, v, y: x.T @ (_mlp(x, w, v, y)[1] @ v * (_mlp(x, w, v, y)[0] > 0)), "transposed_product"),
        "no second": (lambda w, x, v, y: x.T @ (_mlp(x, w, v, y)[1] * (_mlp(x, w, v, y)[0] > 0)), "missing_activation_derivative"),
        "sum": (lambda w, x, v, y: 15 * x.T @ (_mlp(x, w, v, y)[1] @ v.T * (_mlp(x, w, v, y)[0] > 0)), "constant_factor"),
        "batch": (lambda w, x, v, y: 3 * x.T @ (_mlp(x, w, v, y)[1] @ v.T * (_mlp(x, w, v, y)[0] > 0)), "constant_factor"),
    }),
    "two layers, second weight": Derivation("((relu(x @ w) @ v - y) ** 2).mean()", {"v": W2, "x": X, "w": W, "y": Y}, "v",
        lambda v, x, w, y: _mlp(x, w, v, y)[0].T @ _mlp(x, w, v, y)[1], {
        "transposed": (lambda v, x, w, y: _mlp(x, w, v, y)[1].T @ _mlp(x, w, v, y)[0], "transpose"),
        "before relu": (lambda v, x, w, y: (x @ w).T @ _mlp(x, w, v, y)[1], "?"),
        "no 2": (lambda v, x, w, y: 0.5 * _mlp(x, w, v, y)[0].T @ _mlp(x, w, v, y)[1], "constant_factor"),
    }),
    "tied weights": Derivation("(((x @ w).tanh() @ w.T - x) ** 2).sum()", {"w": W, "x": X}, "w",
        lambda w, x: x.T @ (2 * ((x @ w).tanh() @ w.T - x) @ w * (1 - (x @ w).tanh() ** 2)) + 2 * ((x @ w).tanh() @ w.T - x).T @ (x @ w).tanh(), {
        "encoder": (lambda w, x: x.T @ (2 * ((x @ w).tanh() @ w.T - x) @ w * (1 - (x @ w).tanh() ** 2)), "missing_term"),
        "decoder": (lambda w, x: 2 * ((x @ w).tanh() @ w.T - x).T @ (x @ w).tanh(), "missing_term"),
        "1-t": (lambda w, x: x.T @ (2 * ((x @ w).tanh() @ w.T - x) @ w * (1 - (x @ w).tanh())) + 2 * ((x @ w).tanh() @ w.T - x).T @ (x @ w).tanh(), "wrong_rule"),
    }),
    "residual": Derivation("((y + tanh(y @ v)) * c[:, :3]).sum()", {"y": Y, "v": W2, "c": C}, "y",
        lambda y, v, c: c[:, :3] + (c[:, :3] * (1 - torch.tanh(y @ v) ** 2)) @ v.T, {
        "no skip": (lambda y, v, c: (c[:, :3] * (1 - torch.tanh(y @ v) ** 2)) @ v.T, "missing_term"),
        "skip alone": (lambda y, v, c: c[:, :3] * 1.0, "missing_term"),
        "transposed": (lambda y, v, c: c[:, :3] + (c[:, :3] * (1 - torch.tanh(y @ v) ** 2)) @ v, "transposed_product"),
        "no slope": (lambda y, v, c: c[:, :3] + c[:, :3] @ v.T, "missing_activation_derivative"),
    }),
    "gated": Derivation("(sigmoid(y) * tanh(y) * c[:, :3]).sum()", {"y": Y, "c": C}, "y",
        lambda y, c: c[:, :3] * (sig(y) * (1 - sig(y)) * torch.tanh(y) + sig(y) * (1 - torch.tanh(y) ** 2)), {
        "first": (lambda y, c: c[:, :3] * sig(y) * (1 - sig(y)) * torch.tanh(y), "missing_term"),
        "second": (lambda y, c: c[:, :3] * sig(y) * (1 - torch.tanh(y) ** 2), "missing_term"),
        "minus": (lambda y, c: c[:, :3] * (sig(y) * (1 - sig(y)) * torch.tanh(y) - sig(y) * (1 - torch.tanh(y) ** 2)), "sign_of_term"),
        "both": (lambda y, c: c[:, :3] * sig(y) * (1 - sig(y)) * (1 - torch.tanh(y) ** 2), "?"),
    }),
    "glu": Derivation("(F.glu(x, 1) * c[:, :2]).sum()", {"x": X, "c": C}, "x",
        lambda x, c: torch.cat([c[:, :2] * sig(x[:, 2:]), c[:, :2] * x[:, :2] * sig(x[:, 2:]) * (1 - sig(x[:, 2:]))], 1), {
        "halves": (lambda x, c: torch.cat([c[:, :2] * x[:, :2] * sig(x[:, 2:]) * (1 - sig(x[:, 2:])), c[:, :2] * sig(x[:, 2:])], 1), "?"),
        "gate": (lambda x, c: torch.cat([c[:, :2] * sig(x[:, 2:]), 0 * c[:, :2]], 1), "?"),
    }),
    "prelu weight": Derivation("(F.prelu(x, a) * c).sum()", {"a": G[:1].clone(), "x": X, "c": C}, "a", lambda a, x, c: (c * x.clamp(max=0)).sum().reshape(1), {
        "all": (lambda a, x, c: (c * x).sum().reshape(1), "?"),
        "sign": (lambda a, x, c: -(c * x.clamp(max=0)).sum().reshape(1), "sign"),
        "mean": (lambda a, x, c: (c * x.clamp(max=0)).mean().reshape(1), "? constant_factor"),
    }),
    "attention, queries": Derivation("(F.scaled_dot_product_attention(q, k, v) * c).sum()", {"q": Q, "k": KEY, "v": VAL, "c": QC}, "q",
        lambda q, k, v, c: _att_scores(q, k, v, c) @ k / math.sqrt(3), {
        "no scale": (lambda q, k, v, c: _att_scores(q, k, v, c) @ k, "constant_factor"),
        "diagonal": (lambda q, k, v, c: _att_scores(q, k, v, c, True) @ k / math.sqrt(3), "? softmax_diagonal"),
        "keys": (lambda q, k, v, c: _att_scores(q, k, v, c).T @ q / math.sqrt(3), "wrong_variable"),
    }),
    "attention, values": Derivation("(F.scaled_dot_product_attention(q, k, v) * c).sum()", {"v": VAL, "q": Q, "k": KEY, "c": QC}, "v", lambda v, q, k, c: _att(q, k).T @ c, {
        "not transposed": (lambda v, q, k, c: _att(q, k) @ c, "? transposed_product"),
        "scores": (lambda v, q, k, c: (q @ k.T).T @ c, "?"),
    }),
    "attention written out, keys": Derivation("(softmax(q @ k.T / 3 ** 0.5, -1) @ v * c).sum()", {"k": KEY, "q": Q, "v": VAL, "c": QC}, "k",
        lambda k, q, v, c: _att_scores(q, k, v, c).T @ q / math.sqrt(3), {
        "diagonal": (lambda k, q, v, c: _att_scores(q, k, v, c, True).T @ q / math.sqrt(3), "softmax_diagonal"),
        "scale": (lambda k, q, v, c: _att_scores(q, k, v, c).T @ q, "constant_factor"),
        "transposed": (lambda k, q, v, c: _att_scores(q, k, v, c) @ q / math.sqrt(3), "transposed_product ?"),
        "axis": (lambda k, q, v, c: (lambda p, d: p * (d - (p * d).sum(0, keepdim=True)))(_att(q, k), c @ v.T).T @ q / math.sqrt(3), "?"),
        "weights wrong axis": (lambda k, q, v, c: (lambda p, d: p * (d - (p * d).sum(0, keepdim=True)))(soft(q @ k.T / math.sqrt(3), 0), c @ v.T).T @ q / math.sqrt(3), "wrong_axis"),
    }),
    "lstm gates": Derivation(_LSTM, {"z": GATES, "c": CELL}, "z", _lstm_gates, {
        "no tanh": (lambda z, c: _lstm_gates(z, c, tanh=False), "missing_activation_derivative"),
        "no slopes": (lambda z, c: _lstm_gates(z, c, slopes=False), "wrong_rule ?"),
        "sign": (lambda z, c: -_lstm_gates(z, c), "sign"),
    }),
    "lstm cell state": Derivation(_LSTM, {"c": CELL, "z": GATES}, "c", lambda c, z: (lambda i, f, o, g, t: o * (1 - t * t) * f)(*_lstm(z, c)), {
        "input gate": (lambda c, z: (lambda i, f, o, g, t: o * (1 - t * t) * i)(*_lstm(z, c)), "wrong_value"),
        "no tanh": (lambda c, z: (lambda i, f, o, g, t: o * f)(*_lstm(z, c)), "missing_activation_derivative"),
        "1-t": (lambda c, z: (lambda i, f, o, g, t: o * (1 - t) * f)(*_lstm(z, c)), "wrong_rule"),
        "no output gate": (lambda c, z: (lambda i, f, o, g, t: (1 - t * t) * f)(*_lstm(z, c)), "missing_factor"),
        "no forget gate": (lambda c, z: (lambda i, f, o, g, t: o * (1 - t * t))(*_lstm(z, c)), "missing_factor"),
    }),
    "gru state": Derivation(_GRU, {"h": HID, "a": REC, "b": W2, "x": CELL}, "h", _gru, {
        "reset gate": (lambda h, a, b, x: _gru(h, a, b, x, reset=False), "missing_term"),
        "update gate": (lambda h, a, b, x: _gru(h, a, b, x, update=False), "? missing_term"),
        "direct": (lambda h, a, b, x: _gru(h, a, b, x, direct=False), "missing_term"),
        "sign": (lambda h, a, b, x: -_gru(h, a, b, x), "sign"),
    }),
    "through time": Derivation(_RNN, {"w": REC, "x": STEPS}, "w", _bptt, {
        "one step": (lambda w, x: _bptt(w, x, depth=1), "missing_term ?"),
        "no slope": (lambda w, x: _bptt(w, x, slope=False), "missing_activation_derivative"),
        "not transposed": (lambda w, x: _bptt(w, x, turned=False), "transposed_product ?"),
        "transposed": (lambda w, x: _bptt(w, x).T, "transpose"),
    }),
    "weight norm": Derivation("(y @ (2.0 * v[0] / v[0].norm())).sum()", {"v": W2, "y": Y}, "v",
        lambda v, y: torch.cat([(2 / v[0].norm() * (y.sum(0) - (y.sum(0) @ v[0]) * v[0] / v[0].norm() ** 2))[None], 0 * v[1:]]), {
        "direction alone": (lambda v, y: torch.cat([(2 / v[0].norm() * y.sum(0))[None], 0 * v[1:]]), "missing_term statistics_constant"),
        "batch mean": (lambda v, y: torch.cat([(2 / v[0].norm() * (y.mean(0) - (y.mean(0) @ v[0]) * v[0] / v[0].norm() ** 2))[None], 0 * v[1:]]), "constant_factor"),
        "2": (lambda v, y: torch.cat([(1 / v[0].norm() * (y.sum(0) - (y.sum(0) @ v[0]) * v[0] / v[0].norm() ** 2))[None], 0 * v[1:]]), "constant_factor"),
    }),
    "padding": Derivation("(F.pad(y, (1, 2)) * F.pad(c, (1, 1))).sum()", {"y": Y, "c": C}, "y", lambda y, c: c[:, :3] * 1.0, {
        "shifted": (lambda y, c: c[:, 1:] * 1.0, "? off_by_one"),
        "sign": (lambda y, c: -c[:, :3], "sign"),
    }),
    "softmax over columns": Derivation("(softmax(x, 0) * c).sum()", {"x": X, "c": C}, "x", lambda x, c: soft(x, 0) * (c - (soft(x, 0) * c).sum(0)), {
        "rows": (lambda x, c: soft(x, 1) * (c - (soft(x, 1) * c).sum(1, keepdim=True)), "wrong_axis"),
        "diagonal": (lambda x, c: soft(x, 0) * (1 - soft(x, 0)) * c, "softmax_diagonal"),
        "sum over rows": (lambda x, c: soft(x, 0) * (c - (soft(x, 0) * c).sum(1, keepdim=True)), "?"),
    }),
    "masked softmax": Derivation("(softmax(x.masked_fill(c > 0.5, float('-inf')), 1) * x).sum()", {"x": X, "c": C}, "x",
        lambda x, c: (lambda p: p * (x - (p * x).sum(1, keepdim=True)) + p)(soft(x.masked_fill(c > 0.5, -6e4), 1)), {
        "no mask": (lambda x, c: (lambda p: p * (x - (p * x).sum(1, keepdim=True)) + p)(soft(x, 1)), "?"),
        "direct": (lambda x, c: (lambda p: p * (x - (p * x).sum(1, keepdim=True)))(soft(x.masked_fill(c > 0.5, -6e4), 1)), "missing_term"),
        "softmax": (lambda x, c: soft(x.masked_fill(c > 0.5, -6e4), 1), "missing_term"),
    }),
}  # fmt: skip
