"""What is said of a matrix is said of the triangle that is read, whatever stands in the other one."""

from __future__ import annotations

import pytest
import torch

from app.engine.stepwise.point import name_of
from app.engine.stepwise.read_triangles import as_read
from app.engine.tensors import from_torch
from app.query import Query
from tests.engine.asking import ENGINE
from tests.engine.building import program

NEAR = 1 - 1e-11
BAD, GOOD = [[1.0, NEAR], [NEAR, 1.0]], [[1.0, 0.5], [0.5, 1.0]]


def mixed(lower: list[list[float]], upper: list[list[float]]) -> list[list[float]]:
    return [[lower[0][0], upper[0][1]], [lower[1][0], lower[1][1]]]


@pytest.mark.parametrize(
    ("text", "is_upper"),
    [
        ("linalg.cholesky(a)", False),
        ("linalg.cholesky(a, upper=True)", True),
        ("torch.cholesky(a, True)", True),
        ("linalg.pinv(a, hermitian=True)", False),
        ("torch.cholesky_inverse(a, True)", True),
        ("torch.cholesky_solve(ones(2, 1), a)", False),
    ],
)
def test_only_the_triangle_that_is_read_is_judged(text: str, is_upper: bool) -> None:
    bad, good = (BAD, GOOD) if "solve" not in text and "inverse" not in text else ([[1.0, 1e6], [1e6, 1.0]], GOOD)
    expected = []
    for lower, upper in ((bad, good), (good, bad)):
        query = Query(
            program=text, inputs={"a": from_torch(torch.tensor(mixed(lower, upper), dtype=torch.float64))}, want=("vjp",)
        )
        expected.append("ill_conditioned" in [note.code for note in ENGINE.answer(query).notes])
    assert expected == [not is_upper, is_upper]


@pytest.mark.parametrize(("name", "is_upper"), [("covariance_matrix", False), ("precision_matrix", True)])
@pytest.mark.parametrize(
    "asked",
    [
        "torch.distributions.MultivariateNormal(zeros(2), {}).log_prob(ones(2))",
        "torch.distributions.Wishart(tensor(3.), {}).log_prob(eye(2))",
    ],
)
def test_of_a_distribution_too(asked: str, name: str, is_upper: bool) -> None:
    text = asked.format(f"{name}=a, validate_args=False")
    noted = []
    for lower, upper in ((BAD, GOOD), (GOOD, BAD)):
        leaf = torch.tensor(mixed(lower, upper), dtype=torch.float64)
        query = Query(program=text, inputs={"a": from_torch(leaf)}, want=("vjp",))
        noted.append("ill_conditioned" in [note.code for note in ENGINE.answer(query).notes])
    assert noted == [not is_upper, is_upper]


@pytest.mark.parametrize("is_upper", [True, False])
def test_of_a_triangular_system_the_other_triangle_says_nothing(is_upper: bool) -> None:
    bad = torch.eye(40, dtype=torch.float64) - torch.ones(40, 40, dtype=torch.float64).triu(1)  # its inverse grows like 2^n
    noted = []
    for matrix in (bad, bad.mT.contiguous()):
        query = Query(
            program=f"linalg.solve_triangular(a, ones(40, 1), upper={is_upper})",
            inputs={"a": from_torch(matrix)},
            want=("vjp",),
        )
        noted.append("ill_conditioned" in [note.code for note in ENGINE.answer(query).notes])
    assert noted == [is_upper, not is_upper]


def test_of_the_factor_of_a_distribution_the_lower_triangle() -> None:
    bad = torch.eye(40, dtype=torch.float64) - torch.ones(40, 40, dtype=torch.float64).tril(-1)  # its inverse grows like 2^n
    noted = []
    for matrix in (bad, bad.mT.contiguous()):
        query = Query(
            program="torch.distributions.MultivariateNormal(zeros(40), scale_tril=a, validate_args=False).log_prob(ones(40))",
            inputs={"a": from_torch(matrix)},
            want=("vjp",),
        )
        noted.append("ill_conditioned" in [note.code for note in ENGINE.answer(query).notes])
    assert noted == [True, False]


@pytest.mark.parametrize(
    ("text", "matrix", "read"),
    [
        ("linalg.eigh(a)[0]", [[1.0, 9.0], [2.0, 3.0]], [[1.0, 2.0], [2.0, 3.0]]),
        ("linalg.eigh(a, 'U')[0]", [[1.0, 9.0], [2.0, 3.0]], [[1.0, 9.0], [9.0, 3.0]]),
        ("linalg.pinv(a)", [[1.0, 9.0], [2.0, 3.0]], [[1.0, 9.0], [2.0, 3.0]]),
        (
            "linalg.solve_triangular(a, ones(2, 1), upper=True, unitriangular=True)",
            [[5.0, 9.0], [2.0, 3.0]],
            [[1.0, 9.0], [0.0, 1.0]],
        ),
    ],
)
def test_what_is_read(text: str, matrix: list[list[float]], read: list[list[float]]) -> None:
    leaf = torch.tensor(matrix, dtype=torch.float64)
    node = next(n for n in program(text, {"a": leaf}).graph.nodes if n.op == "call_function" and name_of(n) != "ones")
    assert as_read(node, leaf).tolist() == read
