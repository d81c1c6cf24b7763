"""Derivations by hand of matrices, spectra, transforms and complex numbers, and whole Jacobians and Hessians."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from tests.engine.building import normal
from tests.oracle.hand_derivation import Derivation
from tests.oracle.written_out import inv, sig, soft

A, B = normal(3, 3, seed=101) + 2 * torch.eye(3, dtype=torch.float64), normal(3, 3, seed=102)
S: Final = B @ B.T / 3 + torch.eye(3, dtype=torch.float64)
V, U, C = normal(3, seed=103), normal(3, seed=104), normal(3, seed=105)
X, Y = normal(6, 3, seed=106), normal(6, seed=107)
LONG, KERNEL = normal(6, seed=108), normal(6, seed=109)
M, N = normal(4, 3, seed=110), normal(3, 5, seed=111)
POS: Final = V.abs() + 0.4
LOW: Final = torch.linalg.cholesky(S)
Z, ZW = torch.complex(normal(3, seed=112), normal(3, seed=113)), torch.complex(normal(3, seed=114), normal(3, seed=115))
LABELS: Final = torch.tensor([1.0, 0, 1, 1, 0, 0], dtype=torch.float64)


def det(a: Tensor) -> Tensor:
    value: Tensor = torch.linalg.det(a.double())
    return value.to(a.dtype)


def _eye(v: Tensor) -> Tensor:
    return torch.eye(len(v), dtype=v.dtype)


def _sylvester(a: Tensor, b: Tensor) -> Tensor:
    """∂ of tr(bᵀ a⁻¹ b a) is awkward; of tr(a b a): aᵀ bᵀ + bᵀ aᵀ."""
    return (b @ a).T + (a @ b).T


def _expm(a: Tensor, b: Tensor) -> Tensor:
    """∂⟨b, eᵃ⟩: the upper right block of the exponential of [[aᵀ, b], [0, aᵀ]]."""
    block = torch.cat([torch.cat([a.T, b], 1), torch.cat([0 * a, a.T], 1)])
    whole: Tensor = torch.linalg.matrix_exp(block)
    return whole[:3, 3:]


def _chol(s: Tensor, b: Tensor) -> Tensor:
    """∂⟨b, cholesky(s)⟩, the derivative spread over both halves (Murray 2016)."""
    low = torch.linalg.cholesky(s)
    phi = (low.T @ b.tril()).tril()
    phi = phi - 0.5 * torch.diag(phi.diagonal())
    half = inv(low).T @ phi @ inv(low)
    value: Tensor = 0.5 * (half + half.T)
    return value


def _pinv_fit(x: Tensor, y: Tensor) -> Tensor:
    return inv(x.T @ x) @ x.T @ y


def _rosen_hessian(v: Tensor) -> Tensor:
    h = torch.zeros(3, 3, dtype=v.dtype)
    for k in range(2):
        h[k, k] += 1200 * v[k] ** 2 - 400 * v[k + 1] + 2
        h[k + 1, k + 1] += 200
        h[k, k + 1] += -400 * v[k]
        h[k + 1, k] += -400 * v[k]
    return h


def _circular(v: Tensor, k: Tensor) -> Tensor:
    """Correlation on a ring: ∂⟨k, |F v|²…⟩ needs none; ∂⟨u, v ∗ k⟩ by v."""
    n = len(v)
    return torch.stack([sum((k[(j - i) % n] for j in range(n)), torch.zeros((), dtype=v.dtype)) for i in range(n)])


def _p(v: Tensor, x: Tensor) -> Tensor:
    return sig(x @ v)


def _house(v: Tensor) -> Tensor:
    """∂(v / ‖v‖)."""
    r = v.norm()
    value: Tensor = _eye(v) / r - torch.outer(v, v) / r**3
    return value


def _cross(u: Tensor) -> Tensor:
    o = torch.zeros((), dtype=u.dtype)
    return torch.stack([torch.stack([o, u[2], -u[1]]), torch.stack([-u[2], o, u[0]]), torch.stack([u[1], -u[0], o])])


MATRICES: Final[dict[str, Derivation]] = {
    "bilinear form": Derivation("v @ a @ u", {"a": A, "v": V, "u": U}, "a", lambda a, v, u: torch.outer(v, u), {
        "transposed": (lambda a, v, u: torch.outer(u, v), "transpose"),
        "symmetric": (lambda a, v, u: (torch.outer(v, u) + torch.outer(u, v)) / 2, "symmetric_convention"),
        "2": (lambda a, v, u: 2 * torch.outer(v, u), "constant_factor"),
        "diagonal": (lambda a, v, u: torch.diag(v * u), "diagonal_only"),
    }),
    "quadratic form": Derivation("v @ a @ v", {"v": V, "a": A}, "v", lambda v, a: (a + a.T) @ v, {
        "2A": (lambda v, a: 2 * a @ v, "? transposed_product symmetric_assumed"),
        "A": (lambda v, a: a @ v, "missing_term"),
        "At": (lambda v, a: a.T @ v, "missing_term"),
        "sign": (lambda v, a: -(a + a.T) @ v, "sign"),
    }),
    "quadratic form of a symmetric matrix": Derivation("0.5 * v @ s @ v - u @ v", {"v": V, "s": S, "u": U}, "v", lambda v, s, u: s @ v - u, {
        "2": (lambda v, s, u: 2 * s @ v - u, "factor_of_term ?"),
        "sign": (lambda v, s, u: s @ v + u, "sign_of_term"),
        "right side": (lambda v, s, u: s @ v, "missing_term"),
        "half": (lambda v, s, u: 0.5 * s @ v - u, "missing_term factor_of_term"),
    }),
    "trace of a product": Derivation("trace(a @ b)", {"a": A, "b": B}, "a", lambda a, b: b.T, {
        "B": (lambda a, b: b * 1.0, "transpose transposed_product wrong_variable"),
        "A": (lambda a, b: a.T * 1.0, "wrong_variable"),
        "diagonal": (lambda a, b: torch.diag(b.diagonal()), "diagonal_only"),
    }),
    "trace of A B A": Derivation("trace(a @ b @ a)", {"a": A, "b": B}, "a", _sylvester, {
        "first": (lambda a, b: (b @ a).T, "missing_term"),
        "transposed": (lambda a, b: b @ a + a @ b, "transpose"),
        "one twice": (lambda a, b: 2 * (b @ a).T, "? symmetric_assumed"),
    }),
    "inverse": Derivation("(inverse(a) * b).sum()", {"a": A, "b": B}, "a", lambda a, b: -inv(a).T @ b @ inv(a).T, {
        "sign": (lambda a, b: inv(a).T @ b @ inv(a).T, "sign"),
        "transposes": (lambda a, b: -inv(a) @ b @ inv(a), "? transposed_product"),
        "square": (lambda a, b: -(inv(a) @ inv(a)).T * b, "?"),
        "one": (lambda a, b: -inv(a).T @ b, "?"),
    }),
    "inverse between vectors": Derivation("u @ linalg.inv(a) @ v", {"a": A, "u": U, "v": V}, "a", lambda a, u, v: -torch.outer(inv(a).T @ u, inv(a) @ v), {
        "transposed": (lambda a, u, v: -torch.outer(inv(a) @ v, inv(a).T @ u), "transpose"),
        "sign": (lambda a, u, v: torch.outer(inv(a).T @ u, inv(a) @ v), "sign"),
        "no transposes": (lambda a, u, v: -torch.outer(inv(a) @ u, inv(a).T @ v), "?"),
    }),
    "solve": Derivation("(linalg.solve(a, v) * u).sum()", {"a": A, "v": V, "u": U}, "a", lambda a, v, u: -torch.outer(inv(a).T @ u, inv(a) @ v), {
        "transposed": (lambda a, v, u: -torch.outer(inv(a) @ v, inv(a).T @ u), "transpose"),
        "sign": (lambda a, v, u: torch.outer(inv(a).T @ u, inv(a) @ v), "sign"),
        "not transposed": (lambda a, v, u: -torch.outer(inv(a) @ u, inv(a) @ v), "? transposed_product"),
    }),
    "solve, right side": Derivation("(linalg.solve(a, v) * u).sum()", {"v": V, "a": A, "u": U}, "v", lambda v, a, u: inv(a).T @ u, {
        "not transposed": (lambda v, a, u: inv(a) @ u, "? transposed_product"),
        "sign": (lambda v, a, u: -inv(a).T @ u, "sign"),
        "matrix": (lambda v, a, u: a.T @ u, "?"),
    }),
    "determinant": Derivation("linalg.det(a)", {"a": A}, "a", lambda a: det(a) * inv(a).T, {
        "not transposed": (lambda a: det(a) * inv(a), "transpose"),
        "log": (lambda a: inv(a).T, "constant_factor missing_activation_derivative elementwise_factor"),
        "sign": (lambda a: -det(a) * inv(a).T, "sign"),
        "no inverse": (lambda a: det(a) * a.T, "?"),
    }),
    "log of a determinant": Derivation("log(det(s))", {"s": S}, "s", lambda s: inv(s).T, {
        "2": (lambda s: 2 * inv(s), "constant_factor"),
        "symmetric": (lambda s: 2 * inv(s) - torch.diag(inv(s).diagonal()), "symmetric_convention"),
        "det": (lambda s: det(s) * inv(s), "missing_activation_derivative constant_factor"),
        "sign": (lambda s: -inv(s), "sign"),
    }),
    "log absolute determinant": Derivation("linalg.slogdet(a).logabsdet", {"a": A}, "a", lambda a: inv(a).T, {
        "not transposed": (lambda a: inv(a), "transpose"),
        "det": (lambda a: det(a) * inv(a).T, "constant_factor"),
    }),
    "log determinant by cholesky": Derivation("2 * log(diagonal(linalg.cholesky(s))).sum()", {"s": S}, "s", lambda s: inv(s), {
        "half": (lambda s: 0.5 * inv(s), "constant_factor"),
        "sign": (lambda s: -inv(s), "sign"),
    }),
    "cholesky": Derivation("(linalg.cholesky(s) * b).sum()", {"s": S, "b": B}, "s", _chol, {
        "sign": (lambda s, b: -_chol(s, b), "sign"),
        "2": (lambda s, b: 2 * _chol(s, b), "constant_factor"),
    }),
    "largest eigenvalue": Derivation("linalg.eigh(s).eigenvalues[-1]", {"s": S}, "s", lambda s: (lambda q: torch.outer(q, q))(torch.linalg.eigh(s)[1][:, -1]), {
        "smallest": (lambda s: (lambda q: torch.outer(q, q))(torch.linalg.eigh(s)[1][:, 0]), "? off_by_one"),
        "diagonal": (lambda s: (lambda q: torch.diag(q * q))(torch.linalg.eigh(s)[1][:, -1]), "diagonal_only"),
        "2": (lambda s: (lambda q: 2 * torch.outer(q, q))(torch.linalg.eigh(s)[1][:, -1]), "constant_factor"),
        "row": (lambda s: (lambda q: torch.outer(q, q))(torch.linalg.eigh(s)[1][-1]), "?"),
    }),
    "largest singular value": Derivation("linalg.svdvals(a)[0]", {"a": A}, "a", lambda a: (lambda u, s, w: torch.outer(u[:, 0], w[0]))(*torch.linalg.svd(a)), {
        "transposed": (lambda a: (lambda u, s, w: torch.outer(w[0], u[:, 0]))(*torch.linalg.svd(a)), "transpose"),
        "column of Vt": (lambda a: (lambda u, s, w: torch.outer(u[:, 0], w[:, 0]))(*torch.linalg.svd(a)), "?"),
        "sigma": (lambda a: (lambda u, s, w: s[0] * torch.outer(u[:, 0], w[0]))(*torch.linalg.svd(a)), "constant_factor elementwise_factor"),
    }),
    "spectral norm squared": Derivation("linalg.matrix_norm(a, 2) ** 2", {"a": A}, "a", lambda a: (lambda u, s, w: 2 * s[0] * torch.outer(u[:, 0], w[0]))(*torch.linalg.svd(a)), {
        "frobenius": (lambda a: 2 * a, "?"),
        "no 2": (lambda a: (lambda u, s, w: s[0] * torch.outer(u[:, 0], w[0]))(*torch.linalg.svd(a)), "constant_factor"),
    }),
    "matrix exponential": Derivation("(matrix_exp(a * 0.3) * b).sum()", {"a": A, "b": B}, "a", lambda a, b: 0.3 * _expm(0.3 * a, b), {
        "as a scalar": (lambda a, b: 0.3 * torch.linalg.matrix_exp(0.3 * a) * b, "?"),
        "commuting": (lambda a, b: 0.3 * torch.linalg.matrix_exp(0.3 * a).T @ b, "?"),
        "0.3": (lambda a, b: _expm(0.3 * a, b), "constant_factor"),
    }),
    "trace of the exponential": Derivation("trace(matrix_exp(a))", {"a": A}, "a", lambda a: torch.linalg.matrix_exp(a).T, {
        "not transposed": (lambda a: torch.linalg.matrix_exp(a), "transpose"),
        "elementwise": (lambda a: a.exp(), "?"),
        "identity": (lambda a: _eye(a), "missing_activation_derivative ?"),
    }),
    "gram matrix": Derivation("((m.T @ m) * b).sum()", {"m": M, "b": B}, "m", lambda m, b: m @ (b + b.T), {
        "2": (lambda m, b: 2 * m @ b, "? transposed_product symmetric_assumed"),
        "one": (lambda m, b: m @ b, "missing_term"),
        "other": (lambda m, b: m @ b.T, "missing_term"),
    }),
    "frobenius norm": Derivation("linalg.norm(m)", {"m": M}, "m", lambda m: m / (m * m).sum().sqrt(), {
        "squared": (lambda m: 2 * m, "constant_factor"),
        "undivided": (lambda m: m * 1.0, "wrong_rule constant_factor"),
        "rows": (lambda m: m / m.norm(dim=1, keepdim=True), "?"),
    }),
    "einsum": Derivation("einsum('ij,jk->ik', m, n).square().sum()", {"m": M, "n": N}, "m", lambda m, n: 2 * m @ n @ n.T, {
        "no 2": (lambda m, n: m @ n @ n.T, "constant_factor"),
        "once": (lambda m, n: 2 * m, "?"),
        "mean": (lambda m, n: 2 / 20 * m @ n @ n.T, "constant_factor"),
    }),
    "einsum of a diagonal": Derivation("einsum('ii,i->', a, v) ** 2", {"a": A, "v": V}, "a", lambda a, v: 2 * (a.diagonal() * v).sum() * torch.diag(v), {
        "full": (lambda a, v: 2 * (a.diagonal() * v).sum() * torch.outer(v, v), "?"),
        "no 2": (lambda a, v: (a.diagonal() * v).sum() * torch.diag(v), "constant_factor"),
    }),
    "outer product": Derivation("(outer(v, v) * a).sum()", {"v": V, "a": A}, "v", lambda v, a: (a + a.T) @ v, {
        "one": (lambda v, a: a @ v, "missing_term"),
        "minus": (lambda v, a: (a - a.T) @ v, "sign_of_term"),
    }),
    "least squares": Derivation("(linalg.lstsq(x, y[:, None]).solution[:, 0] * u).sum()", {"y": Y, "x": X, "u": U}, "y", lambda y, x, u: x @ inv(x.T @ x) @ u, {
        "no inverse": (lambda y, x, u: x @ u, "?"),
        "sign": (lambda y, x, u: -x @ inv(x.T @ x) @ u, "sign"),
    }),
    "normal equations": Derivation("((x @ v - y) ** 2).sum() + 0.1 * (v ** 2).sum()", {"v": V, "x": X, "y": Y}, "v", lambda v, x, y: 2 * x.T @ (x @ v - y) + 0.2 * v, {
        "ridge": (lambda v, x, y: 2 * x.T @ (x @ v - y), "missing_term"),
        "2 of ridge": (lambda v, x, y: 2 * x.T @ (x @ v - y) + 0.1 * v, "factor_of_term"),
        "y": (lambda v, x, y: 2 * x.T @ (x @ v) + 0.2 * v, "?"),
        "mean": (lambda v, x, y: 2 / 6 * x.T @ (x @ v - y) + 0.2 * v, "factor_of_term"),
    }),
    "gaussian log density, precision": Derivation("0.5 * logdet(s) - 0.5 * (v - u) @ s @ (v - u)", {"s": S, "v": V, "u": U}, "s", lambda s, v, u: 0.5 * inv(s) - 0.5 * torch.outer(v - u, v - u), {
        "sign": (lambda s, v, u: 0.5 * inv(s) + 0.5 * torch.outer(v - u, v - u), "sign_of_term"),
        "half": (lambda s, v, u: inv(s) - torch.outer(v - u, v - u), "constant_factor"),
        "covariance": (lambda s, v, u: 0.5 * s - 0.5 * torch.outer(v - u, v - u), "?"),
        "no log": (lambda s, v, u: -0.5 * torch.outer(v - u, v - u), "missing_term"),
    }),
    "gaussian log density, covariance": Derivation("-0.5 * logdet(s) - 0.5 * v @ inverse(s) @ v", {"s": S, "v": V}, "s",
        lambda s, v: -0.5 * inv(s) + 0.5 * inv(s) @ torch.outer(v, v) @ inv(s), {
        "sign": (lambda s, v: -0.5 * inv(s) - 0.5 * inv(s) @ torch.outer(v, v) @ inv(s), "sign_of_term"),
        "one inverse": (lambda s, v: -0.5 * inv(s) + 0.5 * inv(s) @ torch.outer(v, v), "?"),
        "log": (lambda s, v: -0.5 * inv(s), "missing_term"),
    }),
    "gaussian by its factor": Derivation("-log(diagonal(w)).sum() - 0.5 * (w.T @ v).square().sum()", {"w": LOW, "v": V}, "w",
        lambda w, v: -torch.diag(1 / w.diagonal()) - torch.outer(v, w.T @ v), {
        "transposed": (lambda w, v: -torch.diag(1 / w.diagonal()) - torch.outer(w.T @ v, v), "transpose"),
        "log": (lambda w, v: -torch.outer(v, w.T @ v), "missing_term"),
        "half": (lambda w, v: -torch.diag(1 / w.diagonal()) - 0.5 * torch.outer(v, w.T @ v), "factor_of_term"),
    }),
    "rotation": Derivation("stack([cos(v[0]) * u[0] - sin(v[0]) * u[1], sin(v[0]) * u[0] + cos(v[0]) * u[1]]).sum()", {"v": V, "u": U}, "v",
        lambda v, u: torch.stack([-v[0].sin() * u[0] - v[0].cos() * u[1] + v[0].cos() * u[0] - v[0].sin() * u[1], 0 * v[1], 0 * v[2]]), {
        "inverse": (lambda v, u: torch.stack([-v[0].sin() * u[0] + v[0].cos() * u[1] - v[0].cos() * u[0] - v[0].sin() * u[1], 0 * v[1], 0 * v[2]]), "? sign_of_term"),
        "sign": (lambda v, u: torch.stack([v[0].sin() * u[0] + v[0].cos() * u[1] - v[0].cos() * u[0] + v[0].sin() * u[1], 0 * v[1], 0 * v[2]]), "sign"),
    }),
    "cross product": Derivation("(cross(v, u, dim=0) * c).sum()", {"v": V, "u": U, "c": C}, "v", lambda v, u, c: torch.linalg.cross(u, c), {
        "order": (lambda v, u, c: torch.linalg.cross(c, u), "sign"),
        "by u": (lambda v, u, c: torch.linalg.cross(c, v), "wrong_variable"),
    }),
    "fourier sum": Derivation("fft.fft(v).real.sum()", {"v": LONG}, "v", lambda v: torch.cat([v[:1] * 0 + 6, 0 * v[1:]]), {
        "ones": (lambda v: torch.ones_like(v), "?"),
        "1": (lambda v: torch.cat([v[:1] * 0 + 1, 0 * v[1:]]), "? constant_factor"),
    }),
    "parseval": Derivation("(fft.fft(v).abs() ** 2).sum()", {"v": LONG}, "v", lambda v: 12 * v, {
        "n": (lambda v: 2 * v, "constant_factor"),
        "no 2": (lambda v: 6 * v, "constant_factor"),
        "1/n": (lambda v: 2 / 6 * v, "constant_factor"),
    }),
    "convolution by fourier": Derivation("fft.ifft(fft.fft(v) * fft.fft(k)).real.sum()", {"v": LONG, "k": KERNEL}, "v", _circular, {
        "kernel": (lambda v, k: k * 1.0, "?"),
        "n": (lambda v, k: 6 * _circular(v, k), "constant_factor"),
        "1/n": (lambda v, k: _circular(v, k) / 6, "constant_factor"),
    }),
    "softmax jacobian": Derivation("softmax(v, 0)", {"v": V}, "v", lambda v: torch.diag(soft(v)) - torch.outer(soft(v), soft(v)), {
        "diagonal": (lambda v: torch.diag(soft(v) * (1 - soft(v))), "softmax_diagonal diagonal_only"),
        "p": (lambda v: torch.diag(soft(v)), "? wrong_rule"),
        "sign": (lambda v: torch.outer(soft(v), soft(v)) - torch.diag(soft(v)), "sign"),
        "plus": (lambda v: torch.diag(soft(v)) + torch.outer(soft(v), soft(v)), "?"),
    }, "jacobian"),
    "log softmax jacobian": Derivation("log_softmax(v, 0)", {"v": V}, "v", lambda v: _eye(v) - soft(v).expand(3, 3), {
        "transposed": (lambda v: _eye(v) - soft(v)[:, None].expand(3, 3), "transpose"),
        "diagonal": (lambda v: torch.diag(1 - soft(v)), "softmax_diagonal diagonal_only"),
        "sign": (lambda v: soft(v).expand(3, 3) - _eye(v), "sign"),
    }, "jacobian"),
    "product jacobian": Derivation("a @ v", {"v": V, "a": A}, "v", lambda v, a: a * 1.0, {
        "transposed": (lambda v, a: a.T * 1.0, "transpose"),
        "outer": (lambda v, a: torch.outer(a @ v, v), "?"),
        "diagonal": (lambda v, a: torch.diag(a.diagonal()), "diagonal_only"),
    }, "jacobian"),
    "layer jacobian": Derivation("tanh(a @ v + u)", {"v": V, "a": A, "u": U}, "v", lambda v, a, u: (1 - torch.tanh(a @ v + u) ** 2)[:, None] * a, {
        "other side": (lambda v, a, u: (1 - torch.tanh(a @ v + u) ** 2) * a, "?"),
        "no slope": (lambda v, a, u: a * 1.0, "missing_activation_derivative"),
        "transposed": (lambda v, a, u: ((1 - torch.tanh(a @ v + u) ** 2)[:, None] * a).T, "transpose"),
        "1-t": (lambda v, a, u: (1 - torch.tanh(a @ v + u))[:, None] * a, "wrong_rule"),
    }, "jacobian"),
    "unit vector jacobian": Derivation("v / v.norm()", {"v": V}, "v", _house, {
        "identity": (lambda v: _eye(v) / v.norm(), "missing_term statistics_constant"),
        "square": (lambda v: _eye(v) / v.norm() - torch.outer(v, v) / v.norm() ** 2, "? wrong_rule quotient_rule"),
        "sign": (lambda v: _eye(v) / v.norm() + torch.outer(v, v) / v.norm() ** 3, "sign_of_term"),
    }, "jacobian"),
    "cross product jacobian": Derivation("cross(v, u, dim=0)", {"v": V, "u": U}, "v", lambda v, u: _cross(u), {
        "transposed": (lambda v, u: _cross(u).T, "sign transpose"),
        "by u": (lambda v, u: -_cross(v), "wrong_variable"),
    }, "jacobian"),
    "cumulative sum jacobian": Derivation("cumsum(v * v, 0)", {"v": V}, "v", lambda v: torch.ones(3, 3, dtype=v.dtype).tril() * 2 * v, {
        "transposed": (lambda v: torch.ones(3, 3, dtype=v.dtype).triu() * 2 * v[:, None], "transpose"),
        "upper": (lambda v: torch.ones(3, 3, dtype=v.dtype).triu() * 2 * v, "not_reversed"),
        "no 2": (lambda v: torch.ones(3, 3, dtype=v.dtype).tril() * v, "missing_term constant_factor"),
        "full": (lambda v: torch.ones(3, 3, dtype=v.dtype) * 2 * v, "?"),
    }, "jacobian"),
    "polar jacobian": Derivation("stack([v[0] * cos(v[1]), v[0] * sin(v[1])])", {"v": V[:2].clone()}, "v",
        lambda v: torch.stack([torch.stack([v[1].cos(), -v[0] * v[1].sin()]), torch.stack([v[1].sin(), v[0] * v[1].cos()])]), {
        "transposed": (lambda v: torch.stack([torch.stack([v[1].cos(), -v[0] * v[1].sin()]), torch.stack([v[1].sin(), v[0] * v[1].cos()])]).T, "transpose"),
        "sign": (lambda v: torch.stack([torch.stack([v[1].cos(), v[0] * v[1].sin()]), torch.stack([v[1].sin(), v[0] * v[1].cos()])]), "wrong_rule sign_of_term"),
        "no r": (lambda v: torch.stack([torch.stack([v[1].cos(), -v[1].sin()]), torch.stack([v[1].sin(), v[1].cos()])]), "? missing_factor"),
    }, "jacobian"),
    "hessian of a quadratic form": Derivation("v @ a @ v", {"v": V, "a": A}, "v", lambda v, a: a + a.T, {
        "A": (lambda v, a: a * 1.0, "? not_symmetric"),
        "2A": (lambda v, a: 2 * a, "? not_symmetric"),
        "half": (lambda v, a: (a + a.T) / 2, "constant_factor"),
    }, "hessian"),
    "hessian of least squares": Derivation("((x @ v - y) ** 2).sum()", {"v": V, "x": X, "y": Y}, "v", lambda v, x, y: 2 * x.T @ x, {
        "no 2": (lambda v, x, y: x.T @ x, "constant_factor"),
        "mean": (lambda v, x, y: 2 / 6 * x.T @ x, "constant_factor"),
        "outer": (lambda v, x, y: (lambda g: torch.outer(g, g))(2 * x.T @ (x @ v - y)), "outer_product"),
    }, "hessian"),
    "hessian of logistic regression": Derivation("(F.softplus(x @ v) - y * (x @ v)).sum()", {"v": V, "x": X, "y": LABELS}, "v",
        lambda v, x, y: x.T @ (_p(v, x) * (1 - _p(v, x)) * x.T).T, {
        "no weights": (lambda v, x, y: x.T @ x, "wrong_rule"),
        "p": (lambda v, x, y: x.T @ (_p(v, x) * x.T).T, "wrong_rule"),
        "mean": (lambda v, x, y: x.T @ (_p(v, x) * (1 - _p(v, x)) * x.T).T / 6, "constant_factor"),
        "outer": (lambda v, x, y: (lambda g: torch.outer(g, g))(x.T @ (_p(v, x) - y)), "outer_product"),
        "slope squared": (lambda v, x, y: x.T @ (_p(v, x) ** 2 * (1 - _p(v, x)) * x.T).T, "?"),
        "beside doubled": (lambda v, x, y: (lambda h: 2 * h - torch.diag(h.diagonal()))(x.T @ (_p(v, x) * (1 - _p(v, x)) * x.T).T), "factor_of_term"),
        "inverse": (lambda v, x, y: torch.linalg.inv(x.T @ (_p(v, x) * (1 - _p(v, x)) * x.T).T), "inverse"),
    }, "hessian"),
    "hessian of a penalised loss": Derivation(
        "F.binary_cross_entropy_with_logits(x @ v, y, reduction='sum') + 0.15 * (v ** 2).sum()", {"v": V, "x": X, "y": LABELS}, "v",
        lambda v, x, y: x.T @ (_p(v, x) * (1 - _p(v, x)) * x.T).T + 0.3 * _eye(v), {
        "no penalty": (lambda v, x, y: x.T @ (_p(v, x) * (1 - _p(v, x)) * x.T).T, "missing_term"),
        "sign": (lambda v, x, y: 0.3 * _eye(v) - x.T @ (_p(v, x) * (1 - _p(v, x)) * x.T).T, "sign_of_term"),
        "mean": (lambda v, x, y: x.T @ (_p(v, x) * (1 - _p(v, x)) * x.T).T / 6 + 0.3 * _eye(v), "factor_of_term"),
        "no weights": (lambda v, x, y: x.T @ x + 0.3 * _eye(v), "wrong_rule"),
        "squared errors": (lambda v, x, y: x.T @ ((_p(v, x) - y) ** 2 * x.T).T + 0.3 * _eye(v), "outer_product"),
    }, "hessian"),
    "hessian of logsumexp": Derivation("logsumexp(v, 0)", {"v": V}, "v", lambda v: torch.diag(soft(v)) - torch.outer(soft(v), soft(v)), {
        "diagonal": (lambda v: torch.diag(soft(v) * (1 - soft(v))), "diagonal_only"),
        "p": (lambda v: torch.diag(soft(v)), "?"),
        "outer": (lambda v: torch.outer(soft(v), soft(v)), "outer_product"),
        "sign": (lambda v: torch.outer(soft(v), soft(v)) - torch.diag(soft(v)), "sign"),
    }, "hessian"),
    "hessian of rosenbrock": Derivation("(100 * (v[1:] - v[:-1] ** 2) ** 2 + (1 - v[:-1]) ** 2).sum()", {"v": V}, "v", _rosen_hessian, {
        "diagonal": (lambda v: torch.diag(_rosen_hessian(v).diagonal()), "diagonal_only"),
        "half": (lambda v: _rosen_hessian(v) / 2, "constant_factor"),
        "upper": (lambda v: _rosen_hessian(v).triu(), "triangle_only"),
        "curvature": (lambda v: _rosen_hessian(v) + torch.diag(torch.cat([400 * (v[1:] - v[:-1] ** 2), 0 * v[:1]])), "gauss_newton ?"),
    }, "hessian"),
    "hessian of a norm": Derivation("v.norm()", {"v": V}, "v", _house, {
        "identity": (lambda v: _eye(v) / v.norm(), "?"),
        "squared": (lambda v: 2 * _eye(v), "?"),
    }, "hessian"),
    "hessian of a product": Derivation("prod(v)", {"v": V}, "v", lambda v: v.prod() / torch.outer(v, v) * (1 - _eye(v)), {
        "diagonal too": (lambda v: v.prod() / torch.outer(v, v), "?"),
        "upper": (lambda v: (v.prod() / torch.outer(v, v) * (1 - _eye(v))).triu(), "triangle_only not_symmetric"),
    }, "hessian"),
    "hessian of a curve fit": Derivation("((v[0] * exp(-v[1] * y) - v[2] * y) ** 2).sum()", {"v": POS, "y": Y}, "v",
        lambda v, y: (lambda j, r, e: 2 * j.T @ j + 2 * torch.stack([
            torch.stack([0 * v[0], -(r * y * e).sum(), 0 * v[0]]), torch.stack([-(r * y * e).sum(), (r * v[0] * y * y * e).sum(), 0 * v[0]]), 0 * v,
        ]))(torch.stack([(-v[1] * y).exp(), -v[0] * y * (-v[1] * y).exp(), -y], 1), v[0] * (-v[1] * y).exp() - v[2] * y, (-v[1] * y).exp()), {
        "gauss newton": (lambda v, y: (lambda j: 2 * j.T @ j)(torch.stack([(-v[1] * y).exp(), -v[0] * y * (-v[1] * y).exp(), -y], 1)), "gauss_newton"),
        "gauss newton, no 2": (lambda v, y: (lambda j: j.T @ j)(torch.stack([(-v[1] * y).exp(), -v[0] * y * (-v[1] * y).exp(), -y], 1)), "? gauss_newton"),
    }, "hessian"),
    "modulus squared": Derivation("(z.abs() ** 2).sum()", {"z": Z}, "z", lambda z: 2 * z, {
        "conjugate": (lambda z: 2 * z.conj().resolve_conj(), "conjugate"),
        "half": (lambda z: z * 1.0, "constant_factor"),
        "wirtinger": (lambda z: z.conj().resolve_conj(), "conjugate"),
        "real": (lambda z: torch.complex(2 * z.real, 0 * z.real), "?"),
    }),
    "real part of a square": Derivation("(z ** 2).real.sum()", {"z": Z}, "z", lambda z: 2 * z.conj().resolve_conj(), {
        "conjugate": (lambda z: 2 * z, "conjugate"),
        "no 2": (lambda z: z.conj().resolve_conj(), "constant_factor"),
        "sign": (lambda z: -2 * z.conj().resolve_conj(), "sign"),
    }),
    "imaginary part of an exponential": Derivation("exp(z).imag.sum()", {"z": Z}, "z", lambda z: 1j * z.exp().conj().resolve_conj(), {
        "no i": (lambda z: z.exp().conj().resolve_conj(), "?"),
        "conjugate": (lambda z: -1j * z.exp(), "conjugate"),
        "sign": (lambda z: -1j * z.exp().conj().resolve_conj(), "sign conjugate"),
    }),
    "inner product": Derivation("vdot(w, z).real", {"z": Z, "w": ZW}, "z", lambda z, w: w * 1.0, {
        "conjugate": (lambda z, w: w.conj().resolve_conj(), "conjugate"),
        "2": (lambda z, w: 2 * w, "constant_factor"),
        "by w": (lambda z, w: z * 1.0, "wrong_variable"),
    }),
}  # fmt: skip
