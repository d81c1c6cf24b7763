"""Identities of matrix calculus: a program, by which input it is differentiated, and the derivative as it stands in the books.

K. B. Petersen, M. S. Pedersen, "The Matrix Cookbook", 2012; J. R. Magnus, H. Neudecker, "Matrix Differential Calculus", 3rd ed., 2019;
N. J. Higham, "Functions of Matrices", 2008. The derivative of a scalar f by X has the entries ∂f/∂X_ij.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
import scipy.linalg as sl
import scipy.special as ss

from tests.engine.asking import Array

inv, det, tr = np.linalg.inv, np.linalg.det, np.trace
N: Final = 3


def point() -> SimpleNamespace:
    """Matrices A, B, C, X (X well-conditioned), S symmetric positive definite, T of N × 2; vectors a, b, x; positive p."""
    rng = np.random.default_rng(11)
    square = {name: rng.normal(size=(N, N)) for name in "ABC"}
    root = rng.normal(size=(N, N))
    return SimpleNamespace(
        **square,
        X=rng.normal(size=(N, N)) + 2 * np.eye(N),
        S=root @ root.T + np.eye(N),
        T=rng.normal(size=(N, 2)),
        a=rng.normal(size=N),
        b=rng.normal(size=N),
        x=rng.normal(size=N),
        p=rng.uniform(0.5, 2.0, size=N),
    )


Expected = Callable[[SimpleNamespace], Any]
# Program (of the letters that stand in it) → the derivative by X.
BY_X: Final[Mapping[str, Expected]] = {
    # Traces
    "trace(X)": lambda k: np.eye(N),
    "trace(X @ A)": lambda k: k.A.T,
    "trace(A @ X @ B)": lambda k: k.A.T @ k.B.T,
    "trace(A @ X.T @ B)": lambda k: k.B @ k.A,
    "trace(X.T @ A)": lambda k: k.A,
    "trace(A @ X.T)": lambda k: k.A,
    "trace(X @ X)": lambda k: 2 * k.X.T,
    "trace(X @ X @ B)": lambda k: (k.X @ k.B + k.B @ k.X).T,
    "trace(X.T @ B @ X)": lambda k: k.B @ k.X + k.B.T @ k.X,
    "trace(B @ X @ X.T)": lambda k: k.B @ k.X + k.B.T @ k.X,
    "trace(X @ B @ X.T)": lambda k: k.X @ k.B.T + k.X @ k.B,
    "trace(A @ X @ B @ X)": lambda k: k.A.T @ k.X.T @ k.B.T + k.B.T @ k.X.T @ k.A.T,
    "trace(X.T @ X)": lambda k: 2 * k.X,
    "trace(B.T @ X.T @ C @ X @ B)": lambda k: k.C.T @ k.X @ k.B @ k.B.T + k.C @ k.X @ k.B @ k.B.T,
    "trace(X.T @ B @ X @ C)": lambda k: k.B @ k.X @ k.C + k.B.T @ k.X @ k.C.T,
    "trace(A @ X @ B @ X.T @ C)": lambda k: k.A.T @ k.C.T @ k.X @ k.B.T + k.C @ k.A @ k.X @ k.B,
    "trace((A @ X @ B + C) @ (A @ X @ B + C).T)": lambda k: 2 * k.A.T @ (k.A @ k.X @ k.B + k.C) @ k.B.T,
    "trace(X @ X @ X)": lambda k: 3 * (k.X @ k.X).T,
    "trace(matrix_power(X, 4))": lambda k: 4 * np.linalg.matrix_power(k.X, 3).T,
    "trace(A @ matrix_power(X, 3))": lambda k: (k.X @ k.X @ k.A + k.X @ k.A @ k.X + k.A @ k.X @ k.X).T,
    "trace(X) ** 2": lambda k: 2 * tr(k.X) * np.eye(N),
    "trace(X @ A) / trace(X)": lambda k: k.A.T / tr(k.X) - tr(k.X @ k.A) / tr(k.X) ** 2 * np.eye(N),
    "trace(A * X)": lambda k: np.diag(np.diag(k.A)),
    "trace(kron(X, A))": lambda k: tr(k.A) * np.eye(N),
    "trace(X.diag().diag() @ A)": lambda k: np.diag(np.diag(k.A)),
    # Quadratic and bilinear forms
    "a @ X @ b": lambda k: np.outer(k.a, k.b),
    "a @ X.T @ b": lambda k: np.outer(k.b, k.a),
    "a @ X @ a": lambda k: np.outer(k.a, k.a),
    "b @ X.T @ X @ a": lambda k: k.X @ (np.outer(k.a, k.b) + np.outer(k.b, k.a)),
    "(X @ a) @ C @ (X @ b)": lambda k: k.C @ k.X @ np.outer(k.b, k.a) + k.C.T @ k.X @ np.outer(k.a, k.b),
    "((X @ a + b) @ C @ (X @ a + b))": lambda k: (k.C + k.C.T) @ np.outer(k.X @ k.a + k.b, k.a),
    "(X * X).sum()": lambda k: 2 * k.X,
    "(A * X).sum()": lambda k: k.A,
    "(a @ X @ b) ** 2": lambda k: 2 * (k.a @ k.X @ k.b) * np.outer(k.a, k.b),
    "exp(a @ X @ b / 5)": lambda k: np.exp(k.a @ k.X @ k.b / 5) / 5 * np.outer(k.a, k.b),
    "sin(X).sum()": lambda k: np.cos(k.X),
    "a @ tanh(X @ b)": lambda k: np.outer(k.a * (1 - np.tanh(k.X @ k.b) ** 2), k.b),
    "(X @ X.T).sum()": lambda k: 2 * np.ones((N, N)) @ k.X,
    # Inverses
    "trace(A @ linalg.inv(X) @ B)": lambda k: -(inv(k.X) @ k.B @ k.A @ inv(k.X)).T,
    "trace(linalg.inv(X))": lambda k: -(inv(k.X) @ inv(k.X)).T,
    "a @ linalg.inv(X) @ b": lambda k: -np.outer(inv(k.X).T @ k.a, inv(k.X) @ k.b),
    "a @ linalg.solve(X, b)": lambda k: -np.outer(inv(k.X).T @ k.a, inv(k.X) @ k.b),
    "trace(linalg.inv(X + A))": lambda k: -(inv(k.X + k.A) @ inv(k.X + k.A)).T,
    "linalg.inv(X).sum()": lambda k: -inv(k.X).T @ np.ones((N, N)) @ inv(k.X).T,
    "trace(linalg.solve(X, A))": lambda k: -(inv(k.X) @ k.A @ inv(k.X)).T,
    "trace(linalg.pinv(X) @ A)": lambda k: -(inv(k.X) @ k.A @ inv(k.X)).T,
    "trace(linalg.inv(X @ X))": lambda k: -2 * np.linalg.matrix_power(inv(k.X), 3).T,
    "trace(linalg.inv(X) @ A @ linalg.inv(X) @ B)": lambda k: (
        -(inv(k.X) @ (k.A @ inv(k.X) @ k.B + k.B @ inv(k.X) @ k.A) @ inv(k.X)).T
    ),
    "trace(linalg.tensorinv(X, ind=1))": lambda k: -(inv(k.X) @ inv(k.X)).T,
    "a @ linalg.lstsq(X, b[:, None]).solution[:, 0]": lambda k: -np.outer(inv(k.X).T @ k.a, inv(k.X) @ k.b),
    # Determinants
    "linalg.det(X)": lambda k: det(k.X) * inv(k.X).T,
    "linalg.det(A @ X @ B)": lambda k: det(k.A @ k.X @ k.B) * inv(k.X).T,
    "linalg.det(X.T @ X)": lambda k: 2 * det(k.X) ** 2 * inv(k.X).T,
    "linalg.det(X.T @ S @ X)": lambda k: 2 * det(k.X.T @ k.S @ k.X) * inv(k.X).T,
    "linalg.det(matrix_power(X, 3))": lambda k: 3 * det(k.X) ** 3 * inv(k.X).T,
    "linalg.slogdet(X).logabsdet": lambda k: inv(k.X).T,
    "logdet(X.T @ X)": lambda k: 2 * inv(k.X).T,
    "logdet(X @ S @ X.T)": lambda k: 2 * inv(k.X).T,
    "log(linalg.det(X) ** 2)": lambda k: 2 * inv(k.X).T,
    "linalg.det(linalg.inv(X))": lambda k: -inv(k.X).T / det(k.X),
    "linalg.det(X + A)": lambda k: det(k.X + k.A) * inv(k.X + k.A).T,
    "linalg.det(X) * trace(X)": lambda k: det(k.X) * (tr(k.X) * inv(k.X).T + np.eye(N)),
    "linalg.det(kron(X, X))": lambda k: 6 * det(k.X) ** 6 * inv(k.X).T,
    "linalg.det(eye(3) + outer(X @ a, b))": lambda k: np.outer(k.b, k.a),
    "linalg.det(X[:2, :2])": lambda k: np.array([[k.X[1, 1], -k.X[1, 0], 0], [-k.X[0, 1], k.X[0, 0], 0], [0, 0, 0]]),
    "2 * sqrt(linalg.det(X) ** 2)": lambda k: 2 * abs(det(k.X)) * inv(k.X).T,
    "linalg.slogdet(X @ X.T + S).logabsdet": lambda k: 2 * inv(k.X @ k.X.T + k.S) @ k.X,
    "linalg.lu_factor(X).LU.diagonal().prod() ** 2": lambda k: 2 * det(k.X) ** 2 * inv(k.X).T,
    # Norms and singular values
    "linalg.norm(X)": lambda k: k.X / np.linalg.norm(k.X),
    "linalg.norm(X) ** 2": lambda k: 2 * k.X,
    "linalg.matrix_norm(X, ord='nuc')": lambda k: sl.polar(k.X)[0],
    "linalg.svdvals(X).sum()": lambda k: sl.polar(k.X)[0],
    "linalg.matrix_norm(X, ord=2)": lambda k: _rank_one(k.X, 0),
    "linalg.svdvals(X)[2]": lambda k: _rank_one(k.X, 2),
    "(linalg.svdvals(X) ** 2).sum()": lambda k: 2 * k.X,
    "linalg.svdvals(X).prod()": lambda k: abs(det(k.X)) * inv(k.X).T,
    "(linalg.svdvals(X) ** 4).sum()": lambda k: 4 * k.X @ k.X.T @ k.X,
    "log(linalg.svdvals(X)).sum()": lambda k: inv(k.X).T,
    "linalg.vector_norm(X @ a - b)": lambda k: np.outer(k.X @ k.a - k.b, k.a) / np.linalg.norm(k.X @ k.a - k.b),
    "X.abs().sum()": lambda k: np.sign(k.X),
    "linalg.vector_norm(X, ord=4)": lambda k: k.X**3 / (k.X**4).sum() ** 0.75,
    "linalg.norm(A @ X - B) ** 2": lambda k: 2 * k.A.T @ (k.A @ k.X - k.B),
    "linalg.norm(X) ** 2 * linalg.norm(linalg.inv(X)) ** 2": lambda k: _condition(k.X),
    # Functions of matrices
    "trace(matrix_exp(X))": lambda k: sl.expm(k.X).T,
    "trace(A @ matrix_exp(X))": lambda k: sl.expm_frechet(k.X.T, k.A.T, compute_expm=False),
    "linalg.det(matrix_exp(X))": lambda k: np.exp(tr(k.X)) * np.eye(N),
    "matrix_exp(X).sum()": lambda k: sl.expm_frechet(k.X.T, np.ones((N, N)), compute_expm=False),
    "a @ matrix_exp(X) @ b": lambda k: sl.expm_frechet(k.X.T, np.outer(k.a, k.b), compute_expm=False),
    "logdet(matrix_exp(X))": lambda k: np.eye(N),
    "trace(matrix_exp(X @ X))": lambda k: 2 * (sl.expm(k.X @ k.X) @ k.X).T,
    "trace(matrix_exp(-X))": lambda k: -sl.expm(-k.X).T,
    "trace(linalg.inv(eye(3) + matrix_exp(X)))": lambda k: (
        -(inv(np.eye(N) + sl.expm(k.X)) @ sl.expm(k.X) @ inv(np.eye(N) + sl.expm(k.X))).T
    ),
    # Losses of linear models
    "nn.functional.mse_loss(X @ a, b)": lambda k: 2 / N * np.outer(k.X @ k.a - k.b, k.a),
    "nn.functional.mse_loss(A @ X, B, reduction='sum')": lambda k: 2 * k.A.T @ (k.A @ k.X - k.B),
    "-log_softmax(X @ a, dim=0)[1]": lambda k: np.outer(ss.softmax(k.X @ k.a) - np.eye(N)[1], k.a),
    "logsumexp(X @ a, 0)": lambda k: np.outer(ss.softmax(k.X @ k.a), k.a),
    "nn.functional.softplus(X @ a).sum()": lambda k: np.outer(ss.expit(k.X @ k.a), k.a),
    "0.5 * ((X @ a) @ (X @ a)) + 0.1 * (X * X).sum()": lambda k: np.outer(k.X @ k.a, k.a) + 0.2 * k.X,
    "nn.functional.binary_cross_entropy_with_logits(X @ a, p / 2, reduction='sum')": lambda k: np.outer(
        ss.expit(k.X @ k.a) - k.p / 2, k.a
    ),
    "relu(X @ a) @ b": lambda k: np.outer(k.b * (k.X @ k.a > 0), k.a),
    "einsum('ij,jk,ki->', X, A, B)": lambda k: (k.A @ k.B).T,
    "tril(X).sum()": lambda k: np.tril(np.ones((N, N))),
    "cumsum(X, 0)[2] @ a": lambda k: np.outer(np.ones(N), k.a),
    "X.flip(0).mv(a) @ b": lambda k: np.outer(k.b[::-1], k.a),
    "X.roll(1, 0).mv(a) @ b": lambda k: np.outer(np.roll(k.b, -1), k.a),
    "X.mean(0) @ a": lambda k: np.outer(np.ones(N), k.a) / N,
    "X.var(unbiased=False)": lambda k: 2 * (k.X - k.X.mean()) / N**2,
    "X.std()": lambda k: (k.X - k.X.mean()) / (N**2 - 1) / k.X.std(ddof=1),
}
# By the symmetric positive definite S.
BY_S: Final[Mapping[str, Expected]] = {
    "logdet(S)": lambda k: inv(k.S),
    "linalg.cholesky(S).diagonal().log().sum() * 2": lambda k: inv(k.S),
    "a @ linalg.inv(S) @ a": lambda k: -np.outer(inv(k.S) @ k.a, inv(k.S) @ k.a),
    "linalg.eigvalsh(S).sum()": lambda k: np.eye(N),
    "(linalg.eigvalsh(S) ** 2).sum()": lambda k: 2 * k.S,
    "linalg.eigvalsh(S).log().sum()": lambda k: inv(k.S),
    "linalg.eigvalsh(S)[2]": lambda k: _projector(k.S, 2),
    "linalg.eigvalsh(S)[0]": lambda k: _projector(k.S, 0),
    "exp(linalg.eigvalsh(S) / 3).sum()": lambda k: sl.expm(k.S / 3) / 3,
    "sqrt(linalg.eigvalsh(S)).sum()": lambda k: inv(sl.sqrtm(k.S)).real / 2,
    "linalg.eigh(S).eigenvalues[1]": lambda k: _projector(k.S, 1),
    "linalg.eigvals(S).real.sum()": lambda k: np.eye(N),
    "0.5 * logdet(S) + 0.5 * (x - a) @ linalg.solve(S, x - a)": lambda k: (
        0.5 * (inv(k.S) - np.outer(inv(k.S) @ (k.x - k.a), inv(k.S) @ (k.x - k.a)))
    ),
    "linalg.inv_ex(S).inverse.trace()": lambda k: -inv(k.S) @ inv(k.S),
    "linalg.cholesky(S).square().sum()": lambda k: np.eye(N),
    "(linalg.eigh(S).eigenvectors[:, 2] @ a) ** 2": lambda k: _of_projector(k.S, 2, k.a),
    "trace(cholesky_inverse(linalg.cholesky(S)))": lambda k: -inv(k.S) @ inv(k.S),
    "cholesky_solve(a[:, None], linalg.cholesky(S))[:, 0] @ b": lambda k: -_symmetric(np.outer(inv(k.S) @ k.a, inv(k.S) @ k.b)),
    "-distributions.MultivariateNormal(a, S).log_prob(x)": lambda k: (
        0.5 * (inv(k.S) - np.outer(inv(k.S) @ (k.x - k.a), inv(k.S) @ (k.x - k.a)))
    ),
    "(x @ S @ x) / (x @ x)": lambda k: np.outer(k.x, k.x) / (k.x @ k.x),
    "linalg.svdvals(S).sum()": lambda k: np.eye(N),
}
# By the vector x.
BY_VECTOR: Final[Mapping[str, Expected]] = {
    "a @ x": lambda k: k.a,
    "x @ A @ x": lambda k: (k.A + k.A.T) @ k.x,
    "x @ x": lambda k: 2 * k.x,
    "linalg.norm(x - a)": lambda k: (k.x - k.a) / np.linalg.norm(k.x - k.a),
    "(A @ x - b) @ (A @ x - b)": lambda k: 2 * k.A.T @ (k.A @ k.x - k.b),
    "(A @ x - b) @ S @ (A @ x - b)": lambda k: 2 * k.A.T @ k.S @ (k.A @ k.x - k.b),
    "(x @ S @ x) / (x @ x)": lambda k: 2 / (k.x @ k.x) * (k.S @ k.x - (k.x @ k.S @ k.x) / (k.x @ k.x) * k.x),
    "logsumexp(x, 0)": lambda k: ss.softmax(k.x),
    "log(exp(A @ x).sum())": lambda k: k.A.T @ ss.softmax(k.A @ k.x),
    "nn.functional.cosine_similarity(x, a, dim=0)": lambda k: (
        k.a / _n(k.x) / _n(k.a) - (k.x @ k.a) * k.x / _n(k.x) ** 3 / _n(k.a)
    ),
    "-(softmax(x, 0) * log_softmax(x, 0)).sum()": lambda k: _entropy(k.x),
    "x.prod()": lambda k: k.x.prod() / k.x,
    "x.var()": lambda k: 2 * (k.x - k.x.mean()) / (N - 1),
    "linalg.vector_norm(x, ord=3)": lambda k: k.x * abs(k.x) / (abs(k.x) ** 3).sum() ** (2 / 3),
    "lgamma(exp(x)).sum()": lambda k: ss.digamma(np.exp(k.x)) * np.exp(k.x),
    "erf(x) @ a": lambda k: k.a * 2 / np.sqrt(np.pi) * np.exp(-(k.x**2)),
    "cumsum(x, 0) @ a": lambda k: np.cumsum(k.a[::-1])[::-1],
    "linalg.det(A + outer(x, b))": lambda k: det(k.A) * inv(k.A).T @ k.b,
    "linalg.cross(x, a) @ b": lambda k: np.cross(k.a, k.b),
    "(fft.fft(x).abs() ** 2).sum()": lambda k: 2 * N * k.x,
    "a @ matrix_exp(diag(x)) @ b": lambda k: k.a * k.b * np.exp(k.x),
    "linalg.det(linalg.vander(x))": lambda k: _vandermonde(k.x),
    "nn.functional.kl_div(log_softmax(x, 0), softmax(a, 0), reduction='sum')": lambda k: ss.softmax(k.x) - ss.softmax(k.a),
    "special.i0(x).sum()": lambda k: ss.i1(k.x),
    "digamma(exp(x)).sum()": lambda k: ss.polygamma(1, np.exp(k.x)) * np.exp(k.x),
    "special.ndtri(sigmoid(x)).sum()": lambda k: (
        np.sqrt(2 * np.pi) * np.exp(ss.ndtri(ss.expit(k.x)) ** 2 / 2) * ss.expit(k.x) * ss.expit(-k.x)
    ),
}
# Jacobians by x, `[output…, 3]`, and Hessians by x.
JACOBIANS: Final[Mapping[str, Expected]] = {
    "A @ x": lambda k: k.A,
    "softmax(x, 0)": lambda k: _softmax(k.x),
    "log_softmax(x, 0)": lambda k: np.eye(N) - ss.softmax(k.x),
    "x / linalg.norm(x)": lambda k: (np.eye(N) - np.outer(k.x, k.x) / _n(k.x) ** 2) / _n(k.x),
    "linalg.solve(X, x)": lambda k: inv(k.X),
    "linalg.cross(a, x)": lambda k: np.array([[0, -k.a[2], k.a[1]], [k.a[2], 0, -k.a[0]], [-k.a[1], k.a[0], 0]]),
    "cumsum(x, 0)": lambda k: np.tril(np.ones((N, N))),
    "x - x.mean()": lambda k: np.eye(N) - 1 / N,
    "outer(x, a)": lambda k: np.einsum("ik,j->ijk", np.eye(N), k.a),
    "kron(a, x)": lambda k: np.kron(k.a[:, None], np.eye(N)),
    "x * (a @ x)": lambda k: (k.a @ k.x) * np.eye(N) + np.outer(k.x, k.a),
    "tanh(A @ x)": lambda k: (1 - np.tanh(k.A @ k.x) ** 2)[:, None] * k.A,
    "x.flip(0)": lambda k: np.eye(N)[::-1],
    "diag(x) @ A @ b": lambda k: np.diag(k.A @ k.b),
    "fft.fft(x).real": lambda k: sl.dft(N).real,
    "(x - x.mean()) / x.std(correction=0)": lambda k: _standardised(k.x),
    "cumprod(x, 0)": lambda k: np.tril(np.cumprod(k.x)[:, None] / k.x[None]),
    "x @ T @ T.T": lambda k: k.T @ k.T.T,
    "sort(x).values": lambda k: np.eye(N)[np.argsort(k.x)],
}
HESSIANS: Final[Mapping[str, Expected]] = {
    "x @ A @ x": lambda k: k.A + k.A.T,
    "logsumexp(x, 0)": lambda k: _softmax(k.x),
    "linalg.norm(x)": lambda k: (np.eye(N) - np.outer(k.x, k.x) / _n(k.x) ** 2) / _n(k.x),
    "x.prod()": lambda k: k.x.prod() * (1 - np.eye(N)) / np.outer(k.x, k.x),
    "exp(a @ x)": lambda k: np.exp(k.a @ k.x) * np.outer(k.a, k.a),
    "nn.functional.softplus(A @ x).sum()": lambda k: k.A.T @ np.diag(ss.expit(k.A @ k.x) * ss.expit(-(k.A @ k.x))) @ k.A,
    "((A @ x - b) ** 2).sum()": lambda k: 2 * k.A.T @ k.A,
    "log(x @ x)": lambda k: 2 / (k.x @ k.x) * np.eye(N) - 4 * np.outer(k.x, k.x) / (k.x @ k.x) ** 2,
    "sin(a @ x)": lambda k: -np.sin(k.a @ k.x) * np.outer(k.a, k.a),
    "x.var()": lambda k: 2 / (N - 1) * (np.eye(N) - 1 / N),
    "(x @ x) ** 2": lambda k: 4 * (k.x @ k.x) * np.eye(N) + 8 * np.outer(k.x, k.x),
    "lgamma(x.exp()).sum()": lambda k: np.diag(
        ss.polygamma(1, np.exp(k.x)) * np.exp(2 * k.x) + ss.digamma(np.exp(k.x)) * np.exp(k.x)
    ),
}


def _n(x: Array) -> Any:
    return np.linalg.norm(x)


def _symmetric(matrix: Array) -> Array:
    return np.asarray((matrix + matrix.T) / 2)


def _rank_one(matrix: Array, index: int) -> Array:
    u, _, v = np.linalg.svd(matrix)
    return np.outer(u[:, index], v[index])


def _condition(matrix: Array) -> Array:
    """Of ‖X‖²·‖X⁻¹‖²."""
    own, other = (matrix**2).sum(), (inv(matrix) ** 2).sum()
    return np.asarray(2 * other * matrix - 2 * own * inv(matrix).T @ inv(matrix) @ inv(matrix).T)


def _projector(matrix: Array, index: int) -> Array:
    vector = np.linalg.eigh(matrix)[1][:, index]
    return np.outer(vector, vector)


def _of_projector(matrix: Array, index: int, a: Array) -> Array:
    """Of (vᵗa)², by dv = (λ − S)⁺ dS v."""
    values, vectors = np.linalg.eigh(matrix)
    v = vectors[:, index]
    return _symmetric(2 * (v @ a) * np.outer(np.linalg.pinv(values[index] * np.eye(N) - matrix) @ a, v))


def _softmax(x: Array) -> Array:
    p = ss.softmax(x)
    return np.asarray(np.diag(p) - np.outer(p, p))


def _entropy(x: Array) -> Array:
    p = ss.softmax(x)
    return np.asarray(-p * (np.log(p) - (p * np.log(p)).sum()))


def _vandermonde(x: Array) -> Array:
    """Of Π over i < j of (x_j − x_i), whose derivative is itself times Σ 1/(x_k − x_i)."""
    whole = np.prod([x[j] - x[i] for i in range(N) for j in range(i + 1, N)])
    return np.array([whole * sum(1 / (x[k] - x[i]) for i in range(N) if i != k) for k in range(N)])


def _standardised(x: Array) -> Array:
    z = (x - x.mean()) / x.std()
    return np.asarray((np.eye(N) - 1 / N - np.outer(z, z) / N) / x.std())
