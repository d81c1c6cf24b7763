"""Factorisations beside a point: their vectors keep the signs and the order that they have at it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, linalg

from app.catalogue.better.aligned_vectors import aligned
from tests.engine.building import checked, explained, normal

DIAGONAL = [[2.0, 0.0], [0.0, 3.0]]
TRIANGLE = [[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [0.0, 0.0, 5.0]]


def turned(matrix: Tensor) -> Tensor:
    return matrix * torch.tensor([1.0, -1.0, 1.0])


def test_eigenvalues_and_vectors_in_another_order() -> None:
    base = linalg.eig(normal(3, 3))
    mixed = torch.return_types.linalg_eig((base[0].flip(0), turned(base[1]).flip(-1) * 1j))  # type: ignore[attr-defined]
    assert all(torch.allclose(a, b) for a, b in zip(aligned(mixed, base), base, strict=True))
    assert torch.equal(aligned(base[0].flip(0), base[0]), base[0])


@pytest.mark.parametrize("shape", [(3, 3), (5, 3), (3, 5)])
@pytest.mark.parametrize("decompose", [linalg.svd, torch.svd])
def test_signs_of_singular_vectors(shape: tuple[int, int], decompose: object) -> None:
    assert callable(decompose)
    base = decompose(normal(*shape))
    left, values, right = base
    k = values.shape[0]
    sign = torch.tensor([1.0, -1.0, 1.0])
    left, right = left.clone(), right.clone()
    left[:, :k] *= sign
    if hasattr(base, "Vh"):
        right[:k] *= sign[:, None]
    else:
        right[:, :k] *= sign
    result = aligned(type(base)((left, values, right)), base)
    assert all(torch.allclose(a, b) for a, b in zip(result, base, strict=True))


def test_values_that_are_nearly_equal_are_left_alone() -> None:
    base = linalg.eigh(torch.eye(2, dtype=torch.float64))
    other = torch.return_types.linalg_eigh((base[0], -base[1]))  # type: ignore[attr-defined]
    assert torch.equal(aligned(other, base)[1], -base[1])


@pytest.mark.parametrize(
    ("text", "a"),
    [
        ("linalg.eigh(a)[1]", DIAGONAL),
        ("linalg.svd(a)[0]", DIAGONAL),
        ("linalg.eig(a)[1]", DIAGONAL),
        ("linalg.eig(a)[1]", TRIANGLE),
        ("linalg.eig(a)", [[2.0, 1.0], [0.0, 3.0]]),
        ("linalg.eigvals(a)[0].abs()", DIAGONAL),
    ],
)
def test_vectors_of_different_values_have_a_derivative(text: str, a: list[list[float]]) -> None:
    entry = explained(text, a=a)["inputs"]["a"]
    assert entry["verdict"] == "differentiable"
    assert "cannot tell" not in str(entry)
    if not text.endswith("eig(a)"):
        assert checked(f"({text}).abs().square().sum() * 2", a=a)["a"]["agrees"] is not False
        assert checked(text, kind="vjp", a=a)["a"]["agrees"] is True
