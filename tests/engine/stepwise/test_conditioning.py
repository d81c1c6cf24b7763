"""A nearly singular matrix is noted with its condition number where the derivative is off by that much, and an ordinary one is not."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from app.engine.stepwise import bounds
from app.engine.stepwise.point import Point
from tests.engine.asking import array, ask

Matrix = NDArray[np.floating[Any]]
PROGRAMS = {
    "inv": "linalg.inv(A).sum()",
    "solve": "linalg.solve(A, ones(3, 1).to(A.dtype)).sum()",
    "slogdet": "linalg.slogdet(A)[1]",
    "lstsq": "linalg.lstsq(A, ones(3, 1).to(A.dtype)).solution.sum()",
    "pinv": "linalg.pinv(A).sum()",
    "inverse": "A.inverse().sum()",
    "logdet": "logdet(A @ diag(sign(A.det()) * ones(3).to(A.dtype)))",
}
HALF = {"float32": 2.0**11.5, "float64": 2.0**26}


def with_condition(number: float, seed: int = 0, size: int = 3) -> Matrix:
    generator = np.random.default_rng(seed)
    left, right = (np.linalg.qr(generator.normal(size=(size, size)))[0] for _ in "lr")
    return np.asarray(left @ np.diag(np.geomspace(1, 1 / number, size)) @ right.T)


def noted(text: str, matrix: Matrix, dtype: str, **more: Any) -> list[float]:
    answer = ask(program=text, inputs={"A": matrix.astype(dtype)}, want=more.pop("want", ["gradient"]), **more)
    messages = [note.message for note in answer.notes if note.code == "ill_conditioned"]
    return [float(number[1]) for message in messages if (number := re.search(r"condition number is (\S+)\)", message))]


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("name", PROGRAMS)
def test_beyond_half_of_the_digits(name: str, dtype: str) -> None:
    for factor in (5.0, 100.0):
        bad = factor * HALF[dtype]
        (condition,) = noted(PROGRAMS[name], with_condition(bad), dtype)
        assert 0.3 * bad < condition < 3 * bad
        assert not noted(PROGRAMS[name], with_condition(HALF[dtype] / factor), dtype)


@pytest.mark.parametrize("want", ["vjp", "jvp", "jacobian", "hessian", "explain"])
def test_every_kind_has_it(want: str) -> None:
    assert noted("linalg.inv(A).sum()", with_condition(1e10), "float64", want=[want])
    assert noted("linalg.inv(A).sum()", np.stack([np.eye(3), with_condition(1e10)]), "float64", batched=("A",), want=["vjp"])


def test_the_derivative_is_off_by_as_much() -> None:
    """The gradient of the sum of an inverse is -(A⁻ᵀ 1)(1ᵀ A⁻ᵀ)."""
    matrix = with_condition(1e11, size=4)
    ours = array(ask(program="linalg.inv(A).sum()", inputs={"A": matrix}, want=["gradient"]).results["gradient"]["A"])
    with mpmath.workdps(60):
        inverse = mpmath.matrix(matrix.tolist()) ** -1
        rows = [mpmath.fsum(inverse[i, j] for j in range(4)) for i in range(4)]
        columns = [mpmath.fsum(inverse[i, j] for i in range(4)) for j in range(4)]
        exact = np.array([[float(-columns[i] * rows[j]) for j in range(4)] for i in range(4)])
    error = np.abs(ours - exact).max() / np.abs(exact).max()
    assert 1e-3 * 1e11 < error / 2.0**-52 < 1e2 * 1e11


@pytest.mark.parametrize("name", PROGRAMS)
def test_ordinary_matrices_are_not_noted(name: str) -> None:
    generator = np.random.default_rng(3)
    for matrix in (np.eye(3), *generator.normal(size=(10, 3, 3)), np.vander([1.0, 2.0, 3.0]), 1e-9 * np.eye(3)):
        if np.linalg.cond(matrix) < 1000:
            assert not noted(PROGRAMS[name], matrix, "float32")
            assert not noted(PROGRAMS[name], matrix, "float64")
    assert not noted("linalg.inv(A).sum()", generator.normal(size=(60, 60)), "float64")


def test_a_determinant_has_its_derivative_at_singular_matrices_too() -> None:
    """It is made of the cofactors, which are as good there as elsewhere, but for a matrix of still lower rank."""
    for matrix in (np.ones((2, 2)), np.arange(9.0).reshape(3, 3), np.array([[1.0, 2.0], [2.0, 4.0 + 1e-12]]), np.ones((1, 1))):
        assert not noted("linalg.det(A)", matrix, "float64")
    assert noted("linalg.det(A)", with_condition(1e18), "float64")


def test_what_no_derivative_passes_is_not_noted() -> None:
    assert not noted("A.sum() + linalg.inv(A).detach().sum()", with_condition(1e10), "float64")
    assert not noted("linalg.inv(A).sum()", with_condition(1e10), "float64", want=["outputs"])
    assert not noted("linalg.inv(A).sum()", np.zeros((0, 3, 3)), "float64")


def _positive(condition: float) -> Matrix:
    turn = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))[0]
    matrix = turn @ np.diag(np.geomspace(1, 1 / condition, 3)) @ turn.T
    return np.asarray((matrix + matrix.T) / 2)


# Program → whether its matrix is symmetric and positive definite, a Cholesky factor, an upper triangle, or any.
FACTORS = {
    "linalg.cholesky(A).sum()": "positive",
    "linalg.cholesky_ex(A)[0].sum()": "positive",
    "torch.cholesky(A).sum()": "positive",
    "torch.cholesky_solve(ones(3, 1), linalg.cholesky(A)).sum()": "positive",
    "torch.cholesky_solve(ones(3, 1), A).sum()": "factor",
    "torch.cholesky_inverse(A).sum()": "factor",
    "linalg.solve_triangular(A, ones(len(A), 1), upper=True).sum()": "triangle",
    "torch.triangular_solve(ones(len(A), 1), A)[0].sum()": "triangle",
    "linalg.qr(A)[1].sum()": "any",
    "linalg.matrix_power(A, -1).sum()": "any",
    "linalg.tensorinv(A.reshape(3, 1, 3), ind=2).sum()": "any",
    "linalg.tensorsolve(A, ones(3)).sum()": "any",
    "linalg.lu_solve(*linalg.lu_factor(A), ones(3, 1)).sum()": "any",
    "LU, p = linalg.lu_factor(A)\ntorch.lu_solve(ones(3, 1), LU, p).sum()": "any",
    "torch.distributions.MultivariateNormal(zeros(3), A).log_prob(ones(3))": "positive",
    "torch.distributions.MultivariateNormal(zeros(3), precision_matrix=A).log_prob(ones(3))": "positive",
    "torch.distributions.MultivariateNormal(zeros(3), scale_tril=linalg.cholesky(A)).log_prob(ones(3))": "positive",
    "torch.distributions.kl_divergence(torch.distributions.MultivariateNormal(zeros(3), A), "
    "torch.distributions.MultivariateNormal(zeros(3), eye(3)))": "positive",
}


def _factor(condition: float) -> Matrix:
    return np.linalg.cholesky(_positive(condition))


def _triangle(condition: float) -> Matrix:
    size = round(math.log2(condition))
    return np.eye(size) - np.triu(np.ones((size, size)), 1)


_OF_CONDITION: Mapping[str, Callable[[float], Matrix]] = {
    "positive": _positive,
    "factor": _factor,
    "triangle": _triangle,
    "any": with_condition,
}


@pytest.mark.parametrize("text", FACTORS)
def test_whatever_factorises_or_inverts_has_it(text: str) -> None:
    make = _OF_CONDITION[FACTORS[text]]
    assert noted(text, make(1e12), "float64")
    assert not noted(text, make(10.0), "float64")


@pytest.mark.parametrize("text", [*PROGRAMS.values(), *FACTORS])
def test_sizes_alone_lose_no_digits(text: str) -> None:
    """A diagonal of numbers of all sizes is inverted and factorised to the last digit, however large its condition number is."""
    assert not noted(text, np.diag([1e6, 1.0, 1e-3]), "float64")


def test_scaled_rows_and_columns_lose_as_many_digits_as_the_matrix_between_them() -> None:
    sizes = np.diag([1e6, 1e-3, 1.0])
    for scaled in (sizes @ _positive(10.0), _positive(10.0) @ sizes, sizes @ _positive(10.0) @ sizes):
        assert not noted("linalg.inv(A).sum()", scaled, "float64")
        assert noted("linalg.inv(A).sum()", scaled @ with_condition(1e13), "float64")
    assert not noted("linalg.inv(A).sum()", np.array([[1.0, 1e20], [0.0, 1.0]]), "float64")


def test_powers_and_other_distributions_have_no_matrix_to_invert() -> None:
    assert not noted("linalg.matrix_power(A, 2).sum()", with_condition(1e12), "float64")
    assert not noted("torch.distributions.Normal(A, 1.0).log_prob(ones(3)).sum()", with_condition(1e12), "float64")


@pytest.mark.parametrize("want", ["gradient", "jvp"])
def test_steps_are_run_again_only_where_a_bound_excludes_no_note(want: str, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = 0
    run = Point.run

    def counted(point: Point, leaves: Mapping[str, Tensor]) -> Sequence[Tensor]:
        nonlocal runs
        runs += 1
        return run(point, leaves)

    monkeypatch.setattr(Point, "run", counted)
    program = "y = x @ x.T\nreturn (torch.linalg.inv(y + torch.zeros(len(y), len(y))) * 2).sum()"
    for size in (2, 3):
        for apart in (1.0, 1e-5, 0.5):
            x = np.eye(size) * apart + 1
            sent: dict[str, Any] = {"tangent": {"x": np.eye(size)}} if want == "jvp" else {}
            runs = 0
            answer = ask(want=[want], program=program, inputs={"x": x}, **sent)
            assert [note.code == "ill_conditioned" for note in answer.notes] == [True] * (apart == 1e-5)
            assert bool(runs) == (apart == 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_the_condition_alone_excludes_the_whole_bound_excludes(dtype: torch.dtype) -> None:
    generator, node = np.random.default_rng(1), fx.Graph().call_function(torch.linalg.inv)
    plain = 0
    for number in range(400):
        size = int(generator.integers(1, 9))
        rows, columns = (np.diag(10 ** generator.uniform(-2, 2, size)) for _ in range(2))
        matrix = torch.tensor(rows @ with_condition(10 ** generator.uniform(0, 4), number, size) @ columns, dtype=dtype)
        inverse = torch.linalg.inv(matrix)
        if bounds._is_plainly_regular(matrix, inverse):
            plain += 1
            assert math.isfinite(bounds.BOUNDS["inv"](node, matrix, inverse, ()))
    assert 40 < plain < 360
