"""Classes of derivations that check has to tell apart: matrices of complex numbers, mixtures at ties, and one element that is off."""

from __future__ import annotations

import random
from typing import Any, Final

import pytest
import torch
from torch import Tensor

from tests.engine.building import checked, normal, program

Z = torch.complex(normal(3), normal(3, seed=1))
M = torch.complex(normal(3, 3, seed=2), normal(3, 3, seed=3))
# What is marked as conjugate on its way, by name: programs of the vector z and the matrix m with one real number as result.
COMPLEX: Final[dict[str, str]] = {
    "product with the adjoint": "(m.mH @ z).abs().square().sum()",
    "inner product": "torch.vdot(z, m @ z).real",
    "solution": "linalg.solve(m.mH + 4 * eye(3), z).abs().square().sum()",
    "triangular solution": "linalg.solve_triangular(m.mH, z[:, None], upper=False).real.sum()",
    "pseudo-inverse": "(linalg.pinv(m) @ z).abs().square().sum()",
    "least squares": "linalg.lstsq(m, z[:, None]).solution.abs().square().sum()",
    "cholesky": "linalg.cholesky(m @ m.mH + 3 * eye(3)).abs().sum() + z.real.sum()",
    "singular values": "linalg.svdvals(m).sum() + z.abs().sum()",
    "products of tensors": "tensordot(m.conj(), m, dims=2).abs() + z.abs().sum()",
}


def _derivative(text: str, name: str) -> Tensor:
    leaves = {"z": Z, "m": M}
    live = leaves[name].clone().requires_grad_()
    (value,) = program(text, leaves).call(*{**leaves, name: live}.values())
    gradient: Tensor = torch.autograd.grad(value, live)[0]
    return gradient


@pytest.mark.parametrize("name", ["z", "m"])
@pytest.mark.parametrize("case", COMPLEX)
@pytest.mark.share(2, of="case")
def test_matrices_of_complex_numbers(case: str, name: str) -> None:
    right = _derivative(COMPLEX[case], name)
    for sent in (right, right.to(torch.complex64)):
        assert checked(COMPLEX[case], {name: sent}, z=Z, m=M)[name]["agrees"] is True
    off = right.resolve_conj().contiguous().clone()
    off.reshape(-1)[1] *= 1.0009
    assert checked(COMPLEX[case], {name: off}, z=Z, m=M)[name]["agrees"] is False


# Number of tied elements, which of them in order is the value.
ORDER: Final = ((3, 1), (5, 2), (5, 0), (8, 3), (9, 4), (20, 19), (30, 12))


def _tied(count: int, rank: int, believed: Any = None) -> dict[str, Any]:
    x = torch.cat([torch.ones(count, dtype=torch.float64), torch.tensor([5.0, 7.0], dtype=torch.float64)])
    verdict: dict[str, Any] = checked(f"sort(x).values[{rank}]", None if believed is None else {"x": believed}, x=x)["x"]
    return verdict


@pytest.mark.parametrize(("count", "rank"), ORDER)
@pytest.mark.share(2)
def test_every_mixture_at_tied_order_statistics(count: int, rank: int) -> None:
    """Moving one of many tied elements alone moves no median, but every mixture of the derivatives around is right."""
    assert _tied(count, rank)["agrees"] is not False
    rng = random.Random(count)
    weights = torch.tensor([rng.random() for _ in range(count)] + [0.0, 0.0], dtype=torch.float64)
    for believed in (weights / weights.sum(), torch.eye(count + 2, dtype=torch.float64)[0]):
        assert _tied(count, rank, believed)["agrees"] is not False
    beside = torch.eye(count + 2, dtype=torch.float64)[count]  # the element that is no tie
    if count <= 8:
        for wrong in (2 * weights / weights.sum(), torch.zeros(count + 2), beside):
            assert _tied(count, rank, wrong.double())["agrees"] is False
    else:
        assert _tied(count, rank, beside)["agrees"] is not True


@pytest.mark.parametrize("point", [1e16, 3e17])
def test_what_goes_round_within_a_last_bit_is_no_kink(point: float) -> None:
    for believed in (None, [1e3], [-5.0]):
        verdict = checked("sin(x / 3).sum()", None if believed is None else {"x": believed}, x=[point])["x"]
        # At 3e17 a third is a number of float64, and exact numbers show that PyTorch is right there.
        assert verdict["agrees"] is not True or (believed is None and point == 3e17), verdict
        assert "kinks" not in verdict
