"""Derivations in closed form of matrices, attention, filters, energies and complex numbers, with the mistakes that people make in them."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from tests.engine.building import normal
from tests.oracle.closed_forms import POS, PTS, A, B, C, Form, Q, R, S, U, V, X, Y, Z, soft_vjp
from tests.oracle.written_out import inv, soft

J = torch.complex(normal(4, seed=20), normal(4, seed=21))
G = torch.complex(normal(4, seed=22), normal(4, seed=23))
M = torch.complex(normal(4, 4, seed=24), normal(4, 4, seed=25))
I4 = torch.eye(4, dtype=torch.float64)


def _eye(a: Tensor) -> Tensor:
    return torch.eye(a.shape[-1], dtype=a.dtype)


def _attention(q: Tensor, k: Tensor, v: Tensor, c: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    p = soft(q @ k.mT * scale)
    s = soft_vjp(p, c @ v.mT) * scale
    return s @ k, s.mT @ q, p.mT @ c


def _pairs(x: Tensor) -> tuple[Tensor, Tensor]:
    d = x[:, None] - x[None]
    return d, (d.square().sum(-1) + torch.eye(len(x), dtype=x.dtype)).sqrt()


_QK: Final = {"q": X, "k": C, "v": Z, "c": normal(5, 4, seed=30)}
_att: Final = "(softmax(q @ k.T / 2.0, 1) @ v * c).sum()"


FORMS: Final[dict[str, Form]] = {
    "attention, queries": Form(_att, _QK, "q", lambda q, k, v, c: _attention(q, k, v, c, 0.5)[0], {
        "no scale": lambda q, k, v, c: 2 * _attention(q, k, v, c, 0.5)[0], "keys": lambda q, k, v, c: _attention(q, k, v, c, 0.5)[1],
        "diagonal": lambda q, k, v, c: (soft(q @ k.mT / 2) * (1 - soft(q @ k.mT / 2)) * (c @ v.mT)) @ k / 2,
        "axis": lambda q, k, v, c: (soft_vjp(soft((q @ k.mT / 2).mT), (c @ v.mT).mT).mT / 2) @ k}),
    "attention, keys": Form(_att, {"k": C, "q": X, "v": Z, "c": _QK["c"]}, "k", lambda k, q, v, c: _attention(q, k, v, c, 0.5)[1], {
        "not transposed": lambda k, q, v, c: (soft_vjp(soft(q @ k.mT / 2), c @ v.mT) / 2) @ q, "sign": lambda k, q, v, c: -_attention(q, k, v, c,
        0.5)[1],
        "no scale": lambda k, q, v, c: 2 * _attention(q, k, v, c, 0.5)[1], "softmax forgotten": lambda k, q, v, c: (c @ v.mT).mT @ q / 2}),
    "attention, values": Form(_att, {"v": Z, "q": X, "k": C, "c": _QK["c"]}, "v", lambda v, q, k, c: _attention(q, k, v, c, 0.5)[2], {
        "not transposed": lambda v, q, k, c: soft(q @ k.mT / 2) @ c, "no scale": lambda v, q, k, c: soft(q @ k.mT).mT @ c,
        "sign": lambda v, q, k, c: -_attention(q, k, v, c, 0.5)[2], "axis": lambda v, q, k, c: soft((q @ k.mT / 2).mT) @ c}),
    "causal attention": Form(
        "(softmax((q @ k.T / 2.0).masked_fill(triu(ones(5, 5), 1) > 0, -inf), 1) @ v * c).sum()".replace("-inf", "float('-inf')"), _QK, "q",
        lambda q, k, v, c: (soft_vjp(soft((q @ k.mT / 2).masked_fill(torch.ones(5, 5).triu(1) > 0, -torch.inf)), c @ v.mT) / 2) @ k, {
        "no mask": lambda q, k, v, c: _attention(q, k, v, c, 0.5)[0], "mask after": lambda q, k, v, c: (soft_vjp(soft(q @ k.mT / 2).tril(),
        c @ v.mT) / 2) @ k,
        "mask off by one": lambda q, k, v, c: (soft_vjp(soft((q @ k.mT / 2).masked_fill(torch.ones(5, 5).triu(2) > 0, -torch.inf)),
        c @ v.mT) / 2) @ k,
        "no scale": lambda q, k, v, c: soft_vjp(soft((q @ k.mT / 2).masked_fill(torch.ones(5, 5).triu(1) > 0, -torch.inf)), c @ v.mT) @ k}),
    "quadratic form of a product": Form("((a @ b) * c).sum()", {"a": A, "b": B, "c": S + A}, "a", lambda a, b, c: c @ b.mT, {
        "not transposed": lambda a, b, c: c @ b, "order": lambda a, b, c: b.mT @ c, "by b": lambda a, b, c: a.mT @ c, "transpose": lambda a, b, c:
        (c @ b.mT).mT}),
    "trace of a cube": Form("trace(a @ a @ a)", {"a": A}, "a", lambda a: 3 * (a @ a).mT, {
        "transpose": lambda a: 3 * (a @ a), "no 3": lambda a: (a @ a).mT, "elementwise": lambda a: 3 * (a * a).mT, "sign": lambda a:
        -3 * (a @ a).mT}),
    "solution": Form("(linalg.solve(s, y) * q).sum()", {"s": S, "y": Y, "q": Q}, "s", lambda s, y, q: -torch.outer(inv(s).mT @ q, inv(s) @ y), {
        "sign": lambda s, y, q: torch.outer(inv(s).mT @ q, inv(s) @ y), "transpose": lambda s, y, q: -torch.outer(inv(s) @ y, inv(s).mT @ q),
        "not solved": lambda s, y, q: -torch.outer(q, inv(s) @ y), "multiplied": lambda s, y, q: -torch.outer(s @ q, s @ y)}),
    "solution, right side": Form("(linalg.solve(a, y) * q).sum()", {"y": Y, "a": A + 3 * I4, "q": Q}, "y", lambda y, a, q: inv(a).mT @ q, {
        "not transposed": lambda y, a, q: inv(a) @ q, "multiplied": lambda y, a, q: a.mT @ q, "sign": lambda y, a, q: -inv(a).mT @ q, "twice":
        lambda y, a, q: inv(a).mT @ inv(a).mT @ q}),
    "log determinant of a Gram matrix": Form("logdet(a.T @ a + eye(4, dtype=a.dtype))", {"a": A}, "a", lambda a: 2 * a @ inv(a.mT @ a + _eye(a)), {
        "no 2": lambda a: a @ inv(a.mT @ a + _eye(a)), "order": lambda a: 2 * inv(a.mT @ a + _eye(a)) @ a, "no eye": lambda a: 2 * inv(a).mT,
        "sign": lambda a: -2 * a @ inv(a.mT @ a + _eye(a))}),
    "gaussian log density, mean": Form(
        "-0.5 * ((y - q) @ linalg.solve(s, y - q)) - 0.5 * logdet(s)", {"q": Q, "y": Y, "s": S}, "q", lambda q, y, s: inv(s) @ (y - q), {
        "sign": lambda q, y, s: -inv(s) @ (y - q), "half": lambda q, y, s: inv(s) @ (y - q) / 2, "not solved": lambda q, y, s: y - q,
        "multiplied": lambda q, y, s: s @ (y - q)}),
    "gaussian log density, covariance": Form(
        "-0.5 * ((y - q) @ linalg.solve(s, y - q)) - 0.5 * logdet(s)", {"s": S, "q": Q, "y": Y}, "s",
        lambda s, q, y: 0.5 * torch.outer(inv(s) @ (y - q), inv(s) @ (y - q)) - 0.5 * inv(s), {
        "no log det": lambda s, q, y: 0.5 * torch.outer(inv(s) @ (y - q), inv(s) @ (y - q)), "only log det": lambda s, q, y: -0.5 * inv(s),
        "no half": lambda s, q, y: torch.outer(inv(s) @ (y - q), inv(s) @ (y - q)) - inv(s), "sign": lambda s, q, y:
        0.5 * torch.outer(inv(s) @ (y - q), inv(s) @ (y - q)) + 0.5 * inv(s)}),
    "kalman gain": Form(
        "((s @ linalg.inv(s + r)) * a).sum()", {"s": S, "r": R, "a": A}, "s",
        lambda s, r, a: a @ inv(s + r).mT - inv(s + r).mT @ s.mT @ a @ inv(s + r).mT, {
        "first term": lambda s, r, a: a @ inv(s + r).mT, "second term": lambda s, r, a: -inv(s + r).mT @ s.mT @ a @ inv(s + r).mT,
        "sign": lambda s, r, a: a @ inv(s + r).mT + inv(s + r).mT @ s.mT @ a @ inv(s + r).mT, "transpose": lambda s, r, a:
        (a @ inv(s + r).mT - inv(s + r).mT @ s.mT @ a @ inv(s + r).mT).mT}),
    "kalman update": Form(
        "k = s @ linalg.inv(s + r)\nreturn ((q + k @ (y - q)) ** 2).sum()", {"q": Q, "y": Y, "s": S, "r": R}, "q",
        lambda q, y, s, r: 2 * (_eye(s) - s @ inv(s + r)).mT @ (q + s @ inv(s + r) @ (y - q)), {
        "no gain": lambda q, y, s, r: 2 * (q + s @ inv(s + r) @ (y - q)), "no 2": lambda q, y, s, r:
        (_eye(s) - s @ inv(s + r)).mT @ (q + s @ inv(s + r) @ (y - q)),
        "plus": lambda q, y, s, r: 2 * (_eye(s) + s @ inv(s + r)).mT @ (q + s @ inv(s + r) @ (y - q)), "not transposed": lambda q, y, s, r:
        2 * (_eye(s) - s @ inv(s + r)) @ (q + s @ inv(s + r) @ (y - q))}),
    "schur complement": Form(
        "a[0, 0] - a[0, 1:] @ linalg.solve(a[1:, 1:], a[1:, 0])", {"a": S + 0.1 * A}, "a", lambda a: _schur(a, 1.0), {
        "sign of the block": lambda a: _schur(a, -1.0), "no block": lambda a: _schur(a, 0.0), "transpose": lambda a: _schur(a, 1.0).mT, "sign":
        lambda a: -_schur(a, 1.0)}),
    "mahalanobis": Form("sqrt((y - q) @ s @ (y - q))", {"q": Q, "y": Y, "s": S}, "q", lambda q, y, s: s @ (q - y) / ((y - q) @ s @ (y - q)).sqrt(),
        {
        "no root": lambda q, y, s: 2 * s @ (q - y), "half": lambda q, y, s: s @ (q - y) / 2 / ((y - q) @ s @ (y - q)).sqrt(), "sign": lambda q, y,
        s: s @ (y - q) / ((y - q) @ s @ (y - q)).sqrt(), "no matrix": lambda q, y, s: (q - y) / ((y - q) @ s @ (y - q)).sqrt()}),
    "rayleigh quotient": Form("(q @ s @ q) / (q @ q)", {"q": Q, "s": S}, "q", lambda q, s: 2 * (s @ q - (q @ s @ q) / (q @ q) * q) / (q @ q), {
        "first term": lambda q, s: 2 * s @ q / (q @ q), "no 2": lambda q, s: (s @ q - (q @ s @ q) / (q @ q) * q) / (q @ q), "not divided":
        lambda q, s: 2 * (s @ q - (q @ s @ q) / (q @ q) * q), "sign": lambda q, s: 2 * (s @ q + (q @ s @ q) / (q @ q) * q) / (q @ q)}),
    "projection": Form("(q @ y) / (q @ q) * (q @ u)", {"q": Q, "y": Y, "u": U[:4]}, "q",
        lambda q, y, u: (y * (q @ u) + u * (q @ y)) / (q @ q) - 2 * q * (q @ y) * (q @ u) / (q @ q) ** 2, {
        "no divisor": lambda q, y, u: (y * (q @ u) + u * (q @ y)) / (q @ q), "one factor": lambda q, y, u:
        y * (q @ u) / (q @ q) - 2 * q * (q @ y) * (q @ u) / (q @ q) ** 2,
        "no 2": lambda q, y, u: (y * (q @ u) + u * (q @ y)) / (q @ q) - q * (q @ y) * (q @ u) / (q @ q) ** 2, "sign": lambda q, y, u:
        -(y * (q @ u) + u * (q @ y)) / (q @ q) + 2 * q * (q @ y) * (q @ u) / (q @ q) ** 2}),
    "symmetric eigenvalue": Form("linalg.eigvalsh(s)[3]", {"s": S}, "s", lambda s: _top(s, 3), {
        "another": lambda s: _top(s, 2), "sign": lambda s: -_top(s, 3), "twice": lambda s: 2 * _top(s, 3), "not squared": lambda s:
        torch.diag(torch.linalg.eigh(s.double())[1][:, 3].abs()).to(s.dtype)}),
    "nuclear norm": Form("linalg.svdvals(a).sum()", {"a": A}, "a", lambda a: _polar(a), {
        "transpose": lambda a: _polar(a).mT, "frobenius": lambda a: a / a.norm(), "sign": lambda a: -_polar(a), "twice": lambda a: 2 * _polar(a)}),
    "matrix power": Form("(linalg.matrix_power(a, 2) * b).sum()", {"a": A, "b": B}, "a", lambda a, b: b @ a.mT + a.mT @ b, {
        "one term": lambda a, b: b @ a.mT, "other term": lambda a, b: a.mT @ b, "elementwise": lambda a, b: 2 * a * b, "not transposed": lambda a,
        b: b @ a + a @ b}),
    "kronecker": Form("(kron(a[:2, :2], b[:2, :2]) * s).sum()", {"a": A, "b": B, "s": S}, "a", lambda a, b, s: _kron(a, b, s), {
        "transpose": lambda a, b, s: _kron(a, b, s).mT, "order": lambda a, b, s: _kron(a, b, s.reshape(2, 2, 2, 2).permute(1, 0, 3, 2).reshape(4,
        4)),
        "sign": lambda a, b, s: -_kron(a, b, s), "all ones": lambda a, b, s: _kron(a, torch.ones_like(b), s)}),
    # Energies.
    "spring energy": Form("0.5 * 3.0 * ((x[1:] - x[:-1]).norm(dim=1) - 1.0).square().sum()", {"x": PTS}, "x", lambda x: _springs(x, 1.0), {
        "no rest length": lambda x: _springs(x, 0.0), "no constant": lambda x: _springs(x, 1.0) / 3, "force": lambda x: -_springs(x, 1.0), "twice":
        lambda x: 2 * _springs(x, 1.0)}),
    "coulomb": Form(
        "d = x[:, None] - x[None]\nr = sqrt((d ** 2).sum(-1) + eye(5, dtype=x.dtype))\nreturn (triu(1 / r, 1)).sum()", {"x": PTS}, "x", lambda x:
        _coulomb(x, 3), {
        "inverse square": lambda x: _coulomb(x, 2), "force": lambda x: -_coulomb(x, 3), "both ways": lambda x: 2 * _coulomb(x, 3), "fourth":
        lambda x: _coulomb(x, 4)}),
    "lennard jones": Form("(4 * ((1 / v) ** 12 - (1 / v) ** 6)).sum()", {"v": POS}, "v", lambda v: 4 * (6 * v**-7 - 12 * v**-13), {
        "one term": lambda v: -48 * v**-13, "no 4": lambda v: 6 * v**-7 - 12 * v**-13, "exponent": lambda v: 4 * (6 * v**-6 - 12 * v**-12),
        "force": lambda v: -4 * (6 * v**-7 - 12 * v**-13)}),
    "pendulum": Form("(0.5 * v ** 2 + 9.81 * (1 - cos(u))).sum()", {"u": U, "v": V}, "u", lambda u, v: 9.81 * u.sin(), {
        "sign": lambda u, v: -9.81 * u.sin(), "no g": lambda u, v: u.sin(), "cos": lambda u, v: 9.81 * u.cos(), "small angle": lambda u, v:
        9.81 * u}),
    "heat energy": Form("0.5 * ((v[1:] - v[:-1]) / 0.3).square().sum() * 0.3", {"v": V}, "v", lambda v: _laplace(v) / 0.3, {
        "no step": lambda v: _laplace(v), "sign": lambda v: -_laplace(v) / 0.3, "step squared": lambda v: _laplace(v) / 0.09,
        "periodic": lambda v: (2 * v - v.roll(1) - v.roll(-1)) / 0.3}),
    "ising": Form("-(u[1:] * u[:-1]).sum() - 0.4 * u.sum()", {"u": U}, "u", lambda u: -_neighbours(u) - 0.4, {
        "no field": lambda u: -_neighbours(u), "one side": lambda u: -torch.cat([u[1:], u.new_zeros(1)]) - 0.4, "sign": lambda u:
        _neighbours(u) + 0.4, "periodic": lambda u: -(u.roll(1) + u.roll(-1)) - 0.4}),
    "entropy": Form("-(softmax(v, 0) * log_softmax(v, 0)).sum()", {"v": V}, "v", lambda v:
        -soft(v) * (torch.log(soft(v)) - (soft(v) * torch.log(soft(v))).sum()), {
        "sign": lambda v: soft(v) * (torch.log(soft(v)) - (soft(v) * torch.log(soft(v))).sum()), "by p": lambda v: -(torch.log(soft(v)) + 1),
        "no mean": lambda v: -soft(v) * torch.log(soft(v)), "one more": lambda v: -soft(v) * (torch.log(soft(v)) + 1)}),
    "divergence": Form("(softmax(v, 0) * (log_softmax(v, 0) - log_softmax(u, 0))).sum()", {"u": U, "v": V}, "u", lambda u, v: soft(u) - soft(v), {
        "sign": lambda u, v: soft(v) - soft(u), "ratio": lambda u, v: -soft(v) / soft(u), "no q": lambda u, v: -soft(v), "by v": lambda u, v:
        soft(v) * (torch.log(soft(v) / soft(u)) - (soft(v) * torch.log(soft(v) / soft(u))).sum())}),
    "mixture log likelihood": Form("logsumexp(log_softmax(v, 0) - 0.5 * (u - 0.3) ** 2, 0)", {"u": U, "v": V}, "u", lambda u, v:
        -soft(torch.log(soft(v)) - (u - 0.3) ** 2 / 2) * (u - 0.3), {
        "no responsibility": lambda u, v: -(u - 0.3), "prior": lambda u, v: -soft(v) * (u - 0.3), "sign": lambda u, v:
        soft(torch.log(soft(v)) - (u - 0.3) ** 2 / 2) * (u - 0.3), "half": lambda u, v:
        -soft(torch.log(soft(v)) - (u - 0.3) ** 2 / 2) * (u - 0.3) / 2}),
    # Of complex numbers, PyTorch's convention: 2 ∂L/∂z̄.
    "complex distance": Form("(z - g).abs().square().sum()", {"z": J, "g": G}, "z", lambda z, g: 2 * (z - g), {
        "wirtinger": lambda z, g: z - g, "conjugate": lambda z, g: 2 * (z - g).conj(), "sign": lambda z, g: 2 * (g - z), "real": lambda z, g:
        2 * (z - g).real.to(z.dtype)}),
    "complex least squares": Form("(m @ z - g).abs().square().sum()", {"z": J, "m": M, "g": G}, "z", lambda z, m, g: 2 * m.mH @ (m @ z - g), {
        "transpose": lambda z, m, g: 2 * m.mT @ (m @ z - g), "not transposed": lambda z, m, g: 2 * m @ (m @ z - g), "no 2": lambda z, m, g:
        m.mH @ (m @ z - g), "conjugate": lambda z, m, g: (2 * m.mH @ (m @ z - g)).conj()}),
    "complex modulus": Form("z.abs().sum()", {"z": J}, "z", lambda z: z / z.abs(), {
        "conjugate": lambda z: z.conj() / z.abs(), "half": lambda z: z / z.abs() / 2, "squared": lambda z: 2 * z, "sign": lambda z: -z / z.abs()}),
    "real part of a product": Form("(z * g).real.sum()", {"z": J, "g": G}, "z", lambda z, g: g.conj(), {
        "no conjugate": lambda z, g: g, "sign": lambda z, g: -g.conj(), "half": lambda z, g: g.conj() / 2, "by g": lambda z, g: z.conj()}),
    "phase": Form("angle(z).sum()", {"z": J}, "z", lambda z: 1j * z / z.abs() ** 2, {
        "sign": lambda z: -1j * z / z.abs() ** 2, "not squared": lambda z: 1j * z / z.abs(), "conjugate": lambda z: (1j * z / z.abs() ** 2).conj(),
        "no i": lambda z: z / z.abs() ** 2}),
    "power spectrum": Form("(fft.fft(v).abs() ** 2 * u).sum()", {"v": V, "u": U}, "v", lambda v, u:
        12 * torch.fft.ifft(u * torch.fft.fft(v.double())).real.to(v.dtype), {
        "no n": lambda v, u: 2 * torch.fft.ifft(u * torch.fft.fft(v.double())).real, "no 2": lambda v, u:
        6 * torch.fft.ifft(u * torch.fft.fft(v.double())).real,
        "forward": lambda v, u: 2 * torch.fft.fft(u * torch.fft.fft(v.double())).real, "sign": lambda v, u:
        -12 * torch.fft.ifft(u * torch.fft.fft(v.double())).real}),
    "quantum expectation": Form("(z.conj() @ (m + m.mH) @ z).real / (z.abs() ** 2).sum()", {"z": J, "m": M}, "z",
        lambda z, m: 2 * ((m + m.mH) @ z - (z.conj() @ (m + m.mH) @ z).real / (z.abs() ** 2).sum() * z) / (z.abs() ** 2).sum(), {
        "first term": lambda z, m: 2 * ((m + m.mH) @ z) / (z.abs() ** 2).sum(), "no 2": lambda z, m:
        ((m + m.mH) @ z - (z.conj() @ (m + m.mH) @ z).real / (z.abs() ** 2).sum() * z) / (z.abs() ** 2).sum(),
        "conjugate": lambda z, m: (2 * ((m + m.mH) @ z - (z.conj() @ (m + m.mH) @ z).real / (z.abs() ** 2).sum() * z) / (z.abs()
        ** 2).sum()).conj(),
        "not hermitian": lambda z, m: 2 * (m @ z - (z.conj() @ (m + m.mH) @ z).real / (z.abs() ** 2).sum() * z) / (z.abs() ** 2).sum()}),
}  # fmt: skip


def _schur(a: Tensor, block: float) -> Tensor:
    i = inv(a[1:, 1:])
    left, right = i.mT @ a[0, 1:], i @ a[1:, 0]
    whole = torch.zeros_like(a)
    whole[0, 0], whole[0, 1:], whole[1:, 0], whole[1:, 1:] = 1, -right, -left, block * torch.outer(left, right)
    return whole


def _top(s: Tensor, k: int) -> Tensor:
    v = torch.linalg.eigh(s.double())[1][:, k]
    return torch.outer(v, v).to(s.dtype)


def _polar(a: Tensor) -> Tensor:
    u, _, v = torch.linalg.svd(a.double())
    unitary: Tensor = u @ v
    return unitary.to(a.dtype)


def _kron(a: Tensor, b: Tensor, s: Tensor) -> Tensor:
    whole = torch.zeros_like(a)
    whole[:2, :2] = (s.reshape(2, 2, 2, 2).permute(0, 2, 1, 3) * b[:2, :2]).sum((2, 3))
    return whole


def _springs(x: Tensor, rest: float) -> Tensor:
    d = x[1:] - x[:-1]
    r = d.norm(dim=1, keepdim=True)
    f = 3.0 * (r - rest) * d / r
    zero = x.new_zeros(1, x.shape[1])
    return torch.cat([zero, f]) - torch.cat([f, zero])


def _coulomb(x: Tensor, power: int) -> Tensor:
    d, r = _pairs(x)
    return -(d / (r**power)[..., None]).sum(1)


def _laplace(v: Tensor) -> Tensor:
    d = v[1:] - v[:-1]
    zero = v.new_zeros(1)
    return torch.cat([zero, d]) - torch.cat([d, zero])


def _neighbours(u: Tensor) -> Tensor:
    zero = u.new_zeros(1)
    return torch.cat([u[1:], zero]) + torch.cat([zero, u[:-1]])
