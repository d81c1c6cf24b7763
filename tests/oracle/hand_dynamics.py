"""Derivations by hand of recurrences, filters, layers written out, kernels, transforms and complex numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor

from tests.engine.building import normal
from tests.oracle.hand_derivation import Derivation
from tests.oracle.written_out import sig

V, U, W = normal(5, seed=71), normal(5, seed=72), normal(5, seed=73)
POS: Final = V.abs() + 0.4
X, Y = normal(4, 6, seed=74), normal(4, 6, seed=75)
A, Q, P3 = normal(3, 3, seed=76), normal(3, 3, seed=77), normal(3, seed=78)
S: Final = A @ A.T + 2 * torch.eye(3, dtype=torch.float64)
T: Final = normal(2, 3, 3, seed=79)
H, HU, HW = normal(2, 3, seed=80), normal(3, 3, seed=81), normal(3, 3, seed=82)
MAP: Final = normal(2, 4, 3, seed=83)
COST: Final = normal(3, 4, seed=84).abs()
C, D = (torch.complex(normal(4, seed=85 + k), normal(4, seed=95 + k)) for k in (0, 1))
HERMITIAN: Final = torch.complex(A + A.T, Q - Q.T)


def grad(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Of a formula that is written otherwise than the program."""
    leaf = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(f(leaf).sum(), leaf)
    return slope


_LSTM = "i, f, o, g = sigmoid(z[0]), sigmoid(z[1]), sigmoid(z[2]), tanh(z[3])\nreturn (o * tanh(f * c + i * g)).sum()"


def _lstm(z: Tensor, c: Tensor, *, cell: bool = True, slopes: bool = True) -> Tensor:
    i, f, o, g = sig(z[0]), sig(z[1]), sig(z[2]), torch.tanh(z[3])
    t = torch.tanh(f * c + i * g)
    back = o * (1 - t * t) if cell else o
    if not slopes:
        return torch.stack([back * g, back * c, t, back * i])
    return torch.stack([back * g * i * (1 - i), back * c * f * (1 - f), t * o * (1 - o), back * i * (1 - g * g)])


def _gru(u: Tensor, h: Tensor, n: Tensor) -> Any:
    z = sig(u)
    return z, z * (1 - z)


def _rotated(q: Tensor, angle: Tensor, way: float) -> Tensor:
    a, b = q[:, :3], q[:, 3:]
    c, s = angle.cos(), way * angle.sin()
    return torch.cat([a * c - b * s, a * s + b * c], 1)


ANGLE: Final = torch.tensor([0.3, 1.1, 2.0], dtype=torch.float64)


def _rms(x: Tensor, w: Tensor, y: Tensor, *, through: bool = True, mean: float = 6.0) -> Tensor:
    r = (x.square().mean(1, keepdim=True) + 1e-6).sqrt()
    g = w * y
    return g / r - (x * (g * x).sum(1, keepdim=True) / (mean * r**3) if through else 0)


def _group(m: Tensor, w: Tensor, *, mean: bool = True, spread: bool = True) -> Tensor:
    x, g = m.reshape(2, 2, 6), w.reshape(2, 2, 6)
    xh = (x - x.mean(2, keepdim=True)) / (x.var(2, unbiased=False, keepdim=True) + 1e-5).sqrt()
    back = g - (g.mean(2, keepdim=True) if mean else 0) - (xh * (g * xh).mean(2, keepdim=True) if spread else 0)
    return (back / (x.var(2, unbiased=False, keepdim=True) + 1e-5).sqrt()).reshape(m.shape)


MAP_W: Final = normal(2, 4, 3, seed=97)


_SOFT_DTW = "\n".join([
    "def soft(a, b, c):",
    "    return -logsumexp(stack([-a, -b, -c]), 0)",
    "big = tensor(1e4)",
    "r = [[big for j in range(5)] for i in range(4)]",
    "r[0][0] = tensor(0.0)",
    "for i in range(1, 4):",
    "    for j in range(1, 5):",
    "        r[i][j] = d[i - 1, j - 1] + soft(r[i - 1][j], r[i][j - 1], r[i - 1][j - 1])",
    "return r[3][4]",
])  # fmt: skip


def _dtw(d: Tensor, *, hard: bool = False, moves: int = 3) -> Tensor:
    """By the recursion backwards: E of M. Cuturi and M. Blondel, Soft-DTW (2017)."""
    n, m = d.shape
    big = 1e4
    r = [[big] * (m + 1) for _ in range(n + 1)]
    r[0][0] = 0.0
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            three = torch.tensor(
                [r[i - 1][j], r[i][j - 1], r[i - 1][j - 1]][:moves]
                if moves == 3
                else [r[i - 1][j], r[i][j - 1], big if (i, j) != (1, 1) else 0.0],
                dtype=torch.float64,
            )
            low = float(three.min()) if hard else -float(torch.logsumexp(-three, 0))
            r[i][j] = float(d[i - 1, j - 1]) + low
    e = [[0.0] * (m + 2) for _ in range(n + 2)]
    e[n][m] = 1.0
    for i in range(n, 0, -1):
        for j in range(m, 0, -1):
            for a, b in ((i + 1, j), (i, j + 1), (i + 1, j + 1))[:moves]:
                if a <= n and b <= m:
                    weight = (
                        math.exp(r[a][b] - r[i][j] - float(d[a - 1, b - 1]))
                        if not hard
                        else float(abs(r[a][b] - r[i][j] - float(d[a - 1, b - 1])) < 1e-9)
                    )
                    e[i][j] += e[a][b] * weight
    return torch.tensor([row[1 : m + 1] for row in e[1 : n + 1]], dtype=torch.float64).to(d.dtype)


_CTC = "\n".join([
    "e = exp(v - logsumexp(v, 1, keepdim=True))",
    "a = [e[0, 0], e[0, 1], zeros([])]",
    "for t in range(1, 4):",
    "    a = [a[0] * e[t, 0], (a[0] + a[1]) * e[t, 1], (a[1] + a[2]) * e[t, 2]]",
    "return -log(a[1] + a[2])",
])  # fmt: skip


def _ctc(v: Tensor, *, scores: bool = True, occupation: bool = True) -> Tensor:
    """p less the occupation of each state, by forward and backward variables."""
    e = torch.softmax(v, 1)
    f = [torch.stack([e[0, 0], e[0, 1], 0 * e[0, 2]])]
    for t in range(1, 4):
        a = f[-1]
        f.append(torch.stack([a[0], a[0] + a[1], a[1] + a[2]]) * e[t])
    b = [torch.tensor([0.0, 1, 1], dtype=v.dtype)]
    for t in range(3, 0, -1):
        n = b[0] * e[t]
        b.insert(0, torch.stack([n[0] + n[1], n[1] + n[2], n[2]]))
    z = f[-1][1] + f[-1][2]
    posterior = torch.stack([x * y for x, y in zip(f, b, strict=True)]) / z
    if not occupation:
        return e
    return e * posterior.sum(1, keepdim=True) - posterior if scores else -posterior / e


_SINKHORN = "k = exp(-c / 0.5)\nu, w = ones(3), ones(4)\nfor i in range(3):\n    u = (1 / 3) / (k @ w)\n    w = 0.25 / (k.T @ u)\nreturn (u[:, None] * k * w * c).sum()"


def _sinkhorn(c: Tensor, *, plan_alone: bool = False, steps: int = 3, sign: float = -1.0) -> Tensor:
    def plan(x: Tensor) -> Tensor:
        k = (sign * x / 0.5).exp()
        w = torch.ones(4, dtype=x.dtype)
        for _ in range(steps):
            u = (1 / 3) / (k * w).sum(1)
            w = 0.25 / (k * u[:, None]).sum(0)
        return u[:, None] * k * w

    return plan(c) if plan_alone else grad(lambda x: plan(x) * x, c)


def _square(z: Tensor) -> Tensor:
    return z.real.square() + z.imag.square()


def _cumprod(v: Tensor, w: Tensor) -> Tensor:
    return torch.stack(
        [
            sum((w[k] * torch.cat([v[:j], v[j + 1 : k + 1]]).prod() for k in range(j, len(v))), torch.zeros((), dtype=v.dtype))
            for j in range(len(v))
        ]
    )


ZEROS: Final = torch.tensor([1.5, 0.0, -2.0, 0.7], dtype=torch.float64)


def _without(v: Tensor) -> Tensor:
    return torch.stack([torch.cat([v[:j], v[j + 1 :]]).prod() for j in range(len(v))])


def _matern(x: Tensor, y: Tensor) -> Any:
    d = x[:, None] - y
    return d, d.abs() * math.sqrt(3) / 0.8


DYNAMICS: Final[dict[str, Derivation]] = {
    "lstm cell": Derivation(_LSTM, {"z": normal(4, 5, seed=86), "c": V}, "z", lambda z, c: _lstm(z, c), {
        "no tanh of the cell": (lambda z, c: _lstm(z, c, cell=False), "missing_activation_derivative"),
        "no gate slopes": (lambda z, c: _lstm(z, c, slopes=False), "? missing_activation_derivative"),
        "gates exchanged": (lambda z, c: _lstm(z, c)[[1, 0, 2, 3]], "? permuted off_by_one"),
        "sign": (lambda z, c: -_lstm(z, c), "sign"),
    }),
    "gru update": Derivation("z = sigmoid(u)\nreturn ((1 - z) * n + z * h).sum()", {"u": V, "h": U, "n": W}, "u",
        lambda u, h, n: (h - n) * _gru(u, h, n)[1], {
        "no slope": (lambda u, h, n: h - n, "missing_activation_derivative"),
        "old alone": (lambda u, h, n: h * _gru(u, h, n)[1], "missing_term"),
        "gates the other way": (lambda u, h, n: (n - h) * _gru(u, h, n)[1], "sign swapped"),
        "sum": (lambda u, h, n: (h + n) * _gru(u, h, n)[1], "sign_of_term"),
    }),
    "recurrence, three steps, weight": Derivation("for t in range(3):\n    h = tanh(h @ w)\nreturn h.sum()", {"w": HU, "h": H}, "w",
        lambda w, h: grad(lambda m: torch.tanh(torch.tanh(torch.tanh(h @ m) @ m) @ m), w), {
        "last step alone": (lambda w, h: (lambda b: b.T @ (1 - torch.tanh(b @ w) ** 2))(torch.tanh(torch.tanh(h @ w) @ w)), "missing_term ?"),
        "no slopes": (lambda w, h: grad(lambda m: torch.tanh(torch.tanh(h @ w) @ w) @ m, w), "?"),
        "two steps": (lambda w, h: grad(lambda m: torch.tanh(torch.tanh(torch.tanh(h @ w) @ m) @ m), w), "missing_term ?"),
        "transpose": (lambda w, h: grad(lambda m: torch.tanh(torch.tanh(torch.tanh(h @ m) @ m) @ m), w).T, "transpose"),
    }),
    "rotary embedding": Derivation("a, b = q[:, :3], q[:, 3:]\nreturn (cat([a * cos(r) - b * sin(r), a * sin(r) + b * cos(r)], 1) * y).sum()",
        {"q": X, "r": ANGLE, "y": Y}, "q", lambda q, r, y: _rotated(y, r, -1.0), {
        "not turned back": (lambda q, r, y: _rotated(y, r, 1.0), "? sign_of_term"),
        "no rotation": (lambda q, r, y: y.clone(), "?"),
        "cosine alone": (lambda q, r, y: torch.cat([y[:, :3] * r.cos(), y[:, 3:] * r.cos()], 1), "missing_term ?"),
        "halves exchanged": (lambda q, r, y: _rotated(y, r, -1.0).roll(3, 1), "? permuted off_by_one"),
    }),
    "rms norm, data": Derivation("(x / sqrt(x.pow(2).mean(1, keepdim=True) + 1e-6) * w * y).sum()", {"x": X, "w": normal(6, seed=87), "y": Y}, "x",
        lambda x, w, y: _rms(x, w, y), {
        "norm constant": (lambda x, w, y: _rms(x, w, y, through=False), "missing_term statistics_constant"),
        "no mean": (lambda x, w, y: _rms(x, w, y, mean=1.0), "factor_of_term wrong_reduction"),
        "no weight": (lambda x, w, y: _rms(x, torch.ones_like(w), y), "missing_factor ?"),
        "plus": (lambda x, w, y: 2 * _rms(x, w, y, through=False) - _rms(x, w, y), "sign_of_term"),
    }),
    "swiglu": Derivation("(silu(x @ a) * (x @ b)).sum()", {"x": H, "a": HU, "b": HW}, "x", lambda x, a, b: (lambda u, v, s:
        (v * (s + u * s * (1 - s))) @ a.T + (u * s) @ b.T)(x @ a, x @ b, sig(x @ a)), {
        "gate constant": (lambda x, a, b: (lambda u, v, s: (u * s) @ b.T)(x @ a, x @ b, sig(x @ a)), "missing_term"),
        "silu's slope is sigmoid": (lambda x, a, b: (lambda u, v, s: (v * s) @ a.T + (u * s) @ b.T)(x @ a, x @ b, sig(x @ a)), "wrong_rule missing_term"),
        "transpose": (lambda x, a, b: (lambda u, v, s: (v * (s + u * s * (1 - s))) @ a + (u * s) @ b)(x @ a, x @ b, sig(x @ a)), "transposed_product"),
        "minus": (lambda x, a, b: (lambda u, v, s: (v * (s + u * s * (1 - s))) @ a.T - (u * s) @ b.T)(x @ a, x @ b, sig(x @ a)), "sign_of_term"),
    }),
    "group norm": Derivation("(F.group_norm(m, 2) * w).sum()", {"m": MAP, "w": MAP_W}, "m", lambda m, w: _group(m, w), {
        "scale alone": (lambda m, w: _group(m, w, mean=False, spread=False), "statistics_constant"),
        "mean constant": (lambda m, w: _group(m, w, mean=False), "? missing_term statistics_constant"),
        "spread constant": (lambda m, w: _group(m, w, spread=False), "? missing_term statistics_constant"),
        "sign": (lambda m, w: -_group(m, w), "sign"),
    }),
    "attention scores of one head": Derivation("p = softmax(q @ k.T / 6 ** 0.5, dim=-1)\nreturn (p @ y).sum()", {"q": X, "k": Y, "y": normal(4, 6, seed=88)}, "q",
        lambda q, k, y: (lambda p, g: (p * (g - (p * g).sum(1, keepdim=True))) @ k / math.sqrt(6))(torch.softmax(q @ k.T / math.sqrt(6), 1), y.sum(1).expand(4, 4)), {
        "no scale": (lambda q, k, y: (lambda p, g: (p * (g - (p * g).sum(1, keepdim=True))) @ k)(torch.softmax(q @ k.T / math.sqrt(6), 1), y.sum(1).expand(4, 4)),
            "constant_factor"),
        "diagonal": (lambda q, k, y: (lambda p, g: (p * (1 - p) * g) @ k / math.sqrt(6))(torch.softmax(q @ k.T / math.sqrt(6), 1), y.sum(1).expand(4, 4)),
            "softmax_diagonal"),
        "no softmax": (lambda q, k, y: (lambda p, g: g @ k / math.sqrt(6))(torch.softmax(q @ k.T / math.sqrt(6), 1), y.sum(1).expand(4, 4)),
            "missing_activation_derivative"),
    }),
    "kalman gain": Derivation("k = p / (p + r)\nreturn ((m + k * (y - m)) ** 2).sum()", {"r": POS, "p": U.abs() + 0.3, "y": W, "m": V}, "r",
        lambda r, p, y, m: 2 * (m + p / (p + r) * (y - m)) * (y - m) * -p / (p + r) ** 2, {
        "not squared": (lambda r, p, y, m: 2 * (m + p / (p + r) * (y - m)) * (y - m) * -p / (p + r), "quotient_rule"),
        "no 2": (lambda r, p, y, m: (m + p / (p + r) * (y - m)) * (y - m) * -p / (p + r) ** 2, "constant_factor"),
        "sign": (lambda r, p, y, m: 2 * (m + p / (p + r) * (y - m)) * (y - m) * p / (p + r) ** 2, "sign"),
        "innovation alone": (lambda r, p, y, m: (y - m) * -p / (p + r) ** 2, "missing_activation_derivative ?"),
    }),
    "kalman variance": Derivation("k = p / (p + r)\nreturn ((1 - k) * p).sum()", {"p": POS, "r": U.abs() + 0.3}, "p", lambda p, r: (r / (p + r)) ** 2, {
        "gain constant": (lambda p, r: r / (p + r), "missing_term"),
        "minus": (lambda p, r: r / (p + r) + p * r / (p + r) ** 2, "sign_of_term"),
        "by r": (lambda p, r: (p / (p + r)) ** 2, "wrong_variable"),
    }),
    "heun's step": Derivation("k = -x * x + u\nreturn (x + 0.05 * (k + (-(x + 0.1 * k) ** 2 + u))).sum()", {"x": V, "u": U}, "x",
        lambda x, u: 1 + 0.05 * (-2 * x - 2 * (x + 0.1 * (u - x * x)) * (1 - 0.2 * x)), {
        "euler": (lambda x, u: 1 - 0.2 * x, "?"),
        "second stage constant": (lambda x, u: 1 - 0.1 * x, "missing_term"),
        "inner chain": (lambda x, u: 1 + 0.05 * (-2 * x - 2 * (x + 0.1 * (u - x * x))), "missing_term"),
        "no identity": (lambda x, u: 0.05 * (-2 * x - 2 * (x + 0.1 * (u - x * x)) * (1 - 0.2 * x)), "missing_term"),
    }),
    "lotka volterra step": Derivation("x, y = v[0], v[1]\nreturn x + 0.1 * (x - x * y) + 2 * (y + 0.1 * (x * y - y))", {"v": POS[:2]}, "v",
        lambda v: torch.stack([1 + 0.1 * (1 - v[1]) + 0.2 * v[1], -0.1 * v[0] + 2 + 0.2 * (v[0] - 1)]), {
        "exchanged": (lambda v: torch.stack([-0.1 * v[0] + 2 + 0.2 * (v[0] - 1), 1 + 0.1 * (1 - v[1]) + 0.2 * v[1]]), "reversed permuted"),
        "no product rule": (lambda v: torch.stack([1.1 - 0.1 * v[1], 1.8 + 0.2 * v[0]]), "missing_term ?"),
        "sign": (lambda v: torch.stack([1 + 0.1 * (1 + v[1]) + 0.2 * v[1], 0.1 * v[0] + 2 + 0.2 * (v[0] - 1)]), "sign_of_term"),
    }),
    "soft dtw": Derivation(_SOFT_DTW, {"d": COST}, "d", lambda d: _dtw(d), {
        "hard": (lambda d: _dtw(d, hard=True), "?"),
        "twice": (lambda d: 2 * _dtw(d), "constant_factor"),
        "flipped": (lambda d: _dtw(d).flip(0, 1), "? reversed"),
    }),
    "ctc by its recursion": Derivation(_CTC, {"v": X[:, :3].contiguous()}, "v", lambda v: _ctc(v), {
        "by probabilities": (lambda v: _ctc(v, scores=False), "? missing_activation_derivative"),
        "p alone": (lambda v: _ctc(v, occupation=False), "? missing_term probability_alone"),
        "sign": (lambda v: -_ctc(v), "sign"),
    }),
    "sinkhorn": Derivation(_SINKHORN, {"c": COST}, "c", lambda c: _sinkhorn(c), {
        "plan alone": (lambda c: _sinkhorn(c, plan_alone=True), "missing_term"),
        "one step": (lambda c: _sinkhorn(c, steps=1), "?"),
        "sign of the kernel": (lambda c: _sinkhorn(c, sign=1.0), "?"),
    }),
    "rbf kernel": Derivation("exp(-((x[:, None] - y) ** 2) / (2 * 0.8 ** 2)).sum()", {"x": V, "y": U}, "x",
        lambda x, y: (lambda d: (-d / 0.64 * (-d * d / 1.28).exp()).sum(1))(x[:, None] - y), {
        "no exponential": (lambda x, y: (-(x[:, None] - y) / 0.64).sum(1), "missing_activation_derivative"),
        "sign": (lambda x, y: (lambda d: (d / 0.64 * (-d * d / 1.28).exp()).sum(1))(x[:, None] - y), "sign"),
        "width": (lambda x, y: (lambda d: (-d / 0.8 * (-d * d / 1.28).exp()).sum(1))(x[:, None] - y), "constant_factor"),
        "other axis": (lambda x, y: (lambda d: (-d / 0.64 * (-d * d / 1.28).exp()).sum(0))(x[:, None] - y), "? wrong_variable wrong_axis"),
    }),
    "matern kernel": Derivation("r = 3 ** 0.5 * abs(x[:, None] - y) / 0.8\nreturn ((1 + r) * exp(-r)).sum()", {"x": V, "y": U}, "x",
        lambda x, y: (lambda d, r: (-3 / 0.64 * d * (-r).exp()).sum(1))(*_matern(x, y)), {
        "factor constant": (lambda x, y: (lambda d, r: (-(1 + r) * d.sign() * math.sqrt(3) / 0.8 * (-r).exp()).sum(1))(*_matern(x, y)), "missing_term"),
        "plus": (lambda x, y: (lambda d, r: ((2 + r) * d.sign() * math.sqrt(3) / 0.8 * (-r).exp()).sum(1))(*_matern(x, y)), "sign_of_term"),
        "no sign": (lambda x, y: (lambda d, r: (-math.sqrt(3) / 0.8 * r * (-r).exp()).sum(1))(*_matern(x, y)), "missing_activation_derivative"),
    }),
    "gaussian process likelihood, width": Derivation("k = exp(-0.5 * ((x[:, None] - x) / s) ** 2) + 0.1 * eye(5)\nreturn -0.5 * y @ linalg.solve(k, y) - 0.5 * logdet(k)",
        {"s": torch.tensor(0.9, dtype=torch.float64), "x": V, "y": U}, "s", lambda s, x, y: (lambda d, e, i: 0.5 * (i @ y) @ (e * d * d / s**3) @ (i @ y)
        - 0.5 * ((i * (e * d * d / s**3)).sum()))(x[:, None] - x, (-0.5 * ((x[:, None] - x) / s) ** 2).exp(), torch.linalg.inv((-0.5 * ((x[:, None] - x) / s) ** 2).exp()
        + 0.1 * torch.eye(5, dtype=x.dtype))), {
        "no determinant": (lambda s, x, y: (lambda d, e, i: 0.5 * (i @ y) @ (e * d * d / s**3) @ (i @ y))(x[:, None] - x, (-0.5 * ((x[:, None] - x) / s) ** 2).exp(),
            torch.linalg.inv((-0.5 * ((x[:, None] - x) / s) ** 2).exp() + 0.1 * torch.eye(5, dtype=x.dtype))), "missing_term ?"),
        "sign": (lambda s, x, y: (lambda d, e, i: -0.5 * (i @ y) @ (e * d * d / s**3) @ (i @ y) - 0.5 * ((i * (e * d * d / s**3)).sum()))(x[:, None] - x,
            (-0.5 * ((x[:, None] - x) / s) ** 2).exp(), torch.linalg.inv((-0.5 * ((x[:, None] - x) / s) ** 2).exp() + 0.1 * torch.eye(5, dtype=x.dtype))),
            "sign_of_term ?"),
    }),
    "wishart log density": Derivation("2 * logdet(s) - 0.5 * trace(linalg.solve(q, s))", {"s": S, "q": S + torch.eye(3, dtype=torch.float64)}, "s",
        lambda s, q: 2 * torch.linalg.inv(s).T - 0.5 * torch.linalg.inv(q).T, {
        "no inverse": (lambda s, q: 2 * s - 0.5 * torch.linalg.inv(q).T, "?"),
        "no determinant": (lambda s, q: -0.5 * torch.linalg.inv(q).T, "missing_term"),
        "plus": (lambda s, q: 2 * torch.linalg.inv(s).T + 0.5 * torch.linalg.inv(q).T, "sign_of_term"),
    }),
    "eigenvalues by weights": Derivation("(linalg.eigvalsh(s) * w).sum()", {"s": S, "w": P3}, "s", lambda s, w: (lambda e: e[1] * w @ e[1].T)(torch.linalg.eigh(s)), {
        "transposed vectors": (lambda s, w: (lambda e: e[1].T * w @ e[1])(torch.linalg.eigh(s)), "?"),
        "no weights": (lambda s, w: torch.eye(3, dtype=s.dtype), "missing_factor ?"),
        "by values": (lambda s, w: (lambda e: e[1] * (w * e[0]) @ e[1].T)(torch.linalg.eigh(s)), "?"),
    }),
    "nuclear norm": Derivation("linalg.norm(a, 'nuc')", {"a": A}, "a", lambda a: (lambda u: u[0] @ u[2])(torch.linalg.svd(a)), {
        "transpose": (lambda a: (lambda u: u[0] @ u[2])(torch.linalg.svd(a)).T, "transpose"),
        "by values": (lambda a: a.clone(), "?"),
        "sign": (lambda a: -(lambda u: u[0] @ u[2])(torch.linalg.svd(a)), "sign"),
    }),
    "sylvester by its adjoint": Derivation("x = linalg.solve(kron(a, eye(3)) + kron(eye(3), a), q.reshape(9))\nreturn (x ** 2).sum()", {"q": Q, "a": S}, "q",
        lambda q, a: (lambda k: (2 * torch.linalg.solve(k.T, torch.linalg.solve(k, q.reshape(9)))).reshape(3, 3))(torch.kron(a, torch.eye(3, dtype=a.dtype))
        + torch.kron(torch.eye(3, dtype=a.dtype), a)), {
        "no adjoint solve": (lambda q, a: (lambda k: (2 * torch.linalg.solve(k, q.reshape(9))).reshape(3, 3))(torch.kron(a, torch.eye(3, dtype=a.dtype))
            + torch.kron(torch.eye(3, dtype=a.dtype), a)), "missing_activation_derivative ?"),
        "no 2": (lambda q, a: (lambda k: torch.linalg.solve(k.T, torch.linalg.solve(k, q.reshape(9))).reshape(3, 3))(torch.kron(a, torch.eye(3, dtype=a.dtype))
            + torch.kron(torch.eye(3, dtype=a.dtype), a)), "constant_factor"),
        "multiplied": (lambda q, a: (lambda k: (2 * k @ torch.linalg.solve(k, q.reshape(9))).reshape(3, 3))(torch.kron(a, torch.eye(3, dtype=a.dtype))
            + torch.kron(torch.eye(3, dtype=a.dtype), a)), "?"),
    }),
    "exponential by its adjoint": Derivation("(matrix_exp(a) * q).sum()", {"a": 0.4 * A, "q": Q}, "a", lambda a, q: torch.linalg.matrix_exp(torch.cat([torch.cat([a.T, q], 1),
        torch.cat([torch.zeros_like(a), a.T], 1)]))[:3, 3:], {
        "scalar rule": (lambda a, q: torch.linalg.matrix_exp(a).T @ q, "?"),
        "transpose": (lambda a, q: torch.linalg.matrix_exp(torch.cat([torch.cat([a, q], 1), torch.cat([torch.zeros_like(a), a], 1)]))[:3, 3:], "?"),
        "elementwise": (lambda a, q: q * a.exp(), "?"),
    }),
    "cubic b-spline": Derivation("t = v - floor(v)\nreturn ((1 - t) ** 3 * 0.2 + (3 * t ** 3 - 6 * t ** 2 + 4) * 0.5 - (t ** 3)).sum()", {"v": 2 * V}, "v",
        lambda v: (lambda t: -0.6 * (1 - t) ** 2 + 0.5 * (9 * t**2 - 12 * t) - 3 * t**2)(v - v.floor()), {
        "inner sign": (lambda v: (lambda t: 0.6 * (1 - t) ** 2 + 0.5 * (9 * t**2 - 12 * t) - 3 * t**2)(v - v.floor()), "sign_of_term"),
        "no last": (lambda v: (lambda t: -0.6 * (1 - t) ** 2 + 0.5 * (9 * t**2 - 12 * t))(v - v.floor()), "missing_term"),
        "at v": (lambda v: -0.6 * (1 - v) ** 2 + 0.5 * (9 * v**2 - 12 * v) - 3 * v**2, "?"),
    }),
    "bessel j0": Derivation("special.bessel_j0(v).sum()", {"v": POS}, "v", lambda v: -torch.special.bessel_j1(v.double()).to(v.dtype), {
        "sign": (lambda v: torch.special.bessel_j1(v.double()).to(v.dtype), "sign"),
        "own": (lambda v: torch.special.bessel_j0(v.double()).to(v.dtype), "?"),
    }),
    "modified bessel i1": Derivation("special.i1(v).sum()", {"v": POS}, "v", lambda v: (torch.special.i0(v.double()) - torch.special.i1(v.double()) / v.double()).to(v.dtype), {
        "i0": (lambda v: torch.special.i0(v.double()).to(v.dtype), "?"),
        "plus": (lambda v: (torch.special.i0(v.double()) + torch.special.i1(v.double()) / v.double()).to(v.dtype), "?"),
    }),
    "power spectrum": Derivation("(abs(fft.fft(x)) ** 2 * w).sum()", {"x": V, "w": POS}, "x", lambda x, w: 2 * 5 * torch.fft.ifft(torch.fft.fft(x) * w).real, {
        "no n": (lambda x, w: 2 * torch.fft.ifft(torch.fft.fft(x) * w).real, "constant_factor"),
        "no 2": (lambda x, w: 5 * torch.fft.ifft(torch.fft.fft(x) * w).real, "constant_factor"),
        "forward": (lambda x, w: 2 * torch.fft.fft(torch.fft.fft(x) * w).real, "? conjugate reversed"),
        "magnitude": (lambda x, w: 5 * torch.fft.ifft(torch.fft.fft(x) / torch.fft.fft(x).abs() * w).real, "missing_activation_derivative ?"),
    }),
    "modulus to the fourth": Derivation("(z.abs() ** 4).sum()", {"z": C}, "z", lambda z: 4 * _square(z) * z, {
        "conjugate": (lambda z: 4 * _square(z) * z.conj(), "conjugate"),
        "half": (lambda z: 2 * _square(z) * z, "constant_factor"),
        "real rule": (lambda z: 4 * z**3, "?"),
    }),
    "hermitian form": Derivation("(z.conj() @ h @ z).real", {"z": C[:3].contiguous(), "h": HERMITIAN}, "z", lambda z, h: 2 * h @ z, {
        "no 2": (lambda z, h: h @ z, "constant_factor missing_term"),
        "conjugate": (lambda z, h: 2 * (h @ z).conj(), "conjugate"),
        "transpose": (lambda z, h: 2 * h.T @ z, "swapped transposed_product ?"),
    }),
    "phase": Derivation("(z.angle() * w).sum()", {"z": C, "w": POS[:4].contiguous()}, "z", lambda z, w: 1j * z / _square(z) * w, {
        "sign": (lambda z, w: -1j * z / _square(z) * w, "sign"),
        "modulus": (lambda z, w: 1j * z / z.abs() * w, "?"),
        "conjugate": (lambda z, w: (1j * z / _square(z) * w).conj(), "conjugate"),
    }),
    "real part of a cube": Derivation("(z ** 3).real.sum()", {"z": C}, "z", lambda z: 3 * z.conj() ** 2, {
        "not conjugated": (lambda z: 3 * z**2, "conjugate"),
        "power": (lambda z: 3 * z.conj() ** 3, "wrong_rule ?"),
        "no 3": (lambda z: z.conj() ** 2, "constant_factor"),
    }),
    "batched product": Derivation("(bmm(t, t) * q).sum()", {"t": T, "q": Q}, "t", lambda t, q: q @ t.mT + t.mT @ q, {
        "first alone": (lambda t, q: q @ t.mT, "missing_term"),
        "transposes": (lambda t, q: q @ t + t @ q, "transposed_product ?"),
        "as a square": (lambda t, q: 2 * q * t, "?"),
        "minus": (lambda t, q: q @ t.mT - t.mT @ q, "sign_of_term"),
    }),
    "einsum of three": Derivation("einsum('ij,jk,kl->il', a, q, a).sum()", {"a": A, "q": Q}, "a", lambda a, q: (lambda o: o @ a.T @ q.T + q.T @ a.T @ o)(torch.ones(3, 3, dtype=a.dtype)), {
        "one place": (lambda a, q: (lambda o: o @ a.T @ q.T)(torch.ones(3, 3, dtype=a.dtype)), "missing_term"),
        "transposes": (lambda a, q: (lambda o: o @ a @ q + q @ a @ o)(torch.ones(3, 3, dtype=a.dtype)), "transpose ? transposed_product"),
        "twice": (lambda a, q: (lambda o: 2 * (o @ a.T @ q.T + q.T @ a.T @ o))(torch.ones(3, 3, dtype=a.dtype)), "constant_factor"),
    }),
    "cumulative products": Derivation("(cumprod(v, 0) * w).sum()", {"v": V, "w": W}, "v", lambda v, w: _cumprod(v, w), {
        "own alone": (lambda v, w: torch.stack([w[j] * v[:j].prod() for j in range(5)]), "?"),
        "not divided": (lambda v, w: (v.cumprod(0) * w).flip(0).cumsum(0).flip(0), "wrong_rule ? missing_activation_derivative"),
        "from the start": (lambda v, w: (v.cumprod(0) * w).cumsum(0) / v, "? not_reversed"),
    }),
    "product with a zero": Derivation("v.prod()", {"v": ZEROS}, "v", _without, {
        "zeros": (lambda v: torch.zeros_like(v), "?"),
        "quotient kept": (lambda v: torch.where(v == 0, torch.zeros_like(v), torch.ones_like(v)), "?"),
        "sign": (lambda v: -_without(v), "sign constant_factor"),
    }),
    "power by a variable": Derivation("(v ** u).sum()", {"v": POS, "u": U}, "v", lambda v, u: u * v ** (u - 1), {
        "not lowered": (lambda v, u: u * v**u, "wrong_rule"),
        "logarithm": (lambda v, u: v**u * v.log(), "wrong_variable"),
        "no exponent": (lambda v, u: v ** (u - 1), "?"),
        "both": (lambda v, u: u * v ** (u - 1) + v**u * v.log(), "?"),
    }),
    "x to the x to the x": Derivation("(v ** (v ** v)).sum()", {"v": POS}, "v", lambda v: v ** (v**v) * (v**v / v + v**v * (v.log() + 1) * v.log()), {
        "inner constant": (lambda v: v ** (v**v) * (v**v / v), "missing_term"),
        "outer constant": (lambda v: v ** (v**v) * (v**v * (v.log() + 1) * v.log()), "missing_term"),
        "inner 1": (lambda v: v ** (v**v) * (v**v / v + v**v * v.log() * v.log()), "missing_term"),
    }),
    "hessian of a softplus": Derivation("softplus(x @ w).sum()", {"w": P3, "x": H}, "w", lambda w, x: x.T @ ((sig(x @ w) * (1 - sig(x @ w)))[:, None] * x), {
        "slope": (lambda w, x: x.T @ (sig(x @ w)[:, None] * x), "wrong_rule"),
        "outer of the sum": (lambda w, x: torch.outer(x.sum(0), x.sum(0)), "?"),
        "sign": (lambda w, x: -(x.T @ ((sig(x @ w) * (1 - sig(x @ w)))[:, None] * x)), "sign"),
    }, kind="hessian"),
    "hessian of a nonlinear fit": Derivation("((exp(x @ w) - y) ** 2).sum()", {"w": 0.3 * P3, "x": H, "y": V[:2].contiguous()}, "w",
        lambda w, x, y: (lambda e: x.T @ ((2 * e * e + 2 * e * (e - y))[:, None] * x))((x @ w).exp()), {
        "gauss newton": (lambda w, x, y: (lambda e: x.T @ ((2 * e * e)[:, None] * x))((x @ w).exp()), "gauss_newton"),
        "residual alone": (lambda w, x, y: (lambda e: x.T @ ((2 * e * (e - y))[:, None] * x))((x @ w).exp()), "?"),
        "no 2": (lambda w, x, y: (lambda e: x.T @ ((e * e + e * (e - y))[:, None] * x))((x @ w).exp()), "constant_factor"),
    }, kind="hessian"),
    "a hessian's product": Derivation("def f(p):\n    return (p ** 4).sum() / 12 + p[0] * p[1] * p[2]\nreturn (torch.func.jvp(torch.func.grad(f), (v,), (d,))[1] * w).sum()",
        {"d": V[:3].contiguous(), "v": U[:3].contiguous(), "w": W[:3].contiguous()}, "d", lambda d, v, w: v * v * w + torch.stack([v[2] * w[1] + v[1] * w[2], v[2] * w[0] + v[0] * w[2],
        v[1] * w[0] + v[0] * w[1]]), {
        "diagonal": (lambda d, v, w: v * v * w, "missing_term ?"),
        "gradient": (lambda d, v, w: v**3 / 3 * w, "?"),
        "twice": (lambda d, v, w: 2 * (v * v * w + torch.stack([v[2] * w[1] + v[1] * w[2], v[2] * w[0] + v[0] * w[2], v[1] * w[0] + v[0] * w[1]])), "constant_factor"),
    }),
    "differences' adjoint": Derivation("(diff(v) * w[1:]).sum()", {"v": V, "w": W}, "v", lambda v, w: torch.cat([-w[1:2], w[1:4] - w[2:5], w[4:5]]), {
        "not the adjoint": (lambda v, w: torch.cat([torch.zeros_like(w[:1]), w[1:].diff(), torch.zeros_like(w[:1])]), "?"),
        "sign": (lambda v, w: -torch.cat([-w[1:2], w[1:4] - w[2:5], w[4:5]]), "sign"),
        "right alone": (lambda v, w: torch.cat([torch.zeros_like(w[:1]), w[1:]]), "missing_term"),
        "left alone": (lambda v, w: -torch.cat([w[1:], torch.zeros_like(w[:1])]), "missing_term"),
    }),
}  # fmt: skip
