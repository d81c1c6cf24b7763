"""Functions that stand in the place of PyTorch's where its derivative is wrong at some points: same values, right derivatives.

Each is made of PyTorch's own differentiable steps, so that it holds in reverse and forward mode, under vmap and to any order.
What PyTorch 2.13.0 gets wrong, and since when it was measured, stands with each; tests/catalogue/test_better_rules.py repeats it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import is_fake

# Where |det A| is less than that share of the product of A's row norms (Hadamard's bound), det·A⁻ᵗ, which PyTorch computes, has lost
# half of its digits or all.
_NEARLY_SINGULAR: Final = 0.5
# So many of the smallest singular values may be zero; with more, all derivatives below the fifth are zero.
_MOST_DEFICIENT: Final = 4


def det(A: Tensor) -> Tensor:  # noqa: N803
    """The determinant of [*, n, n] matrices; its derivative is the adjugate, also where the matrix is singular.

    PyTorch's backward gives zeros for a singular matrix, of whatever rank: it multiplies by the determinant, which is 0. Here nearly
    singular matrices are rotated by their singular vectors, which makes them diagonal at the point; the block of the large singular
    values is eliminated, and what is left goes through a formula without divisions (S. J. Berkowitz, "On computing the determinant in
    small parallel time using a small number of processors", Information Processing Letters 18, 1984).
    """
    value: Tensor = torch.linalg.det(A)
    if not _is_differentiated(A) or A.numel() == 0 or is_fake(A):
        return value
    with torch.no_grad():
        bound = torch.linalg.vector_norm(A, dim=-1).prod(-1)
        singular = value.detach().abs() <= torch.finfo(A.dtype).eps ** _NEARLY_SINGULAR * bound
    if not _is_batched(A) and not bool(singular.any()):
        return value
    finite = torch.isfinite(A.detach()).all(-1).all(-1)
    singular = singular & finite
    here = singular[..., None, None]
    identity = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    by_factors = torch.linalg.det(torch.where(here, identity, A))
    by_minors = _rotated_det(torch.where(here, A, identity))
    return torch.where(singular, _with_value(by_minors, value), by_factors)


def _is_differentiated(x: Tensor) -> bool:
    return bool(x.requires_grad) or torch.autograd.forward_ad._current_level >= 0 or torch._C._functorch.maybe_get_level(x) > 0


def _is_batched(x: Tensor) -> bool:
    """Whether some vmap runs over `x`, so that no value of it may be looked at."""
    while torch._C._functorch.is_functorch_wrapped_tensor(x):
        if torch._C._functorch.is_batchedtensor(x):
            return True
        x = torch._C._functorch.get_unwrapped(x)
    return False


def _with_value(differentiable: Tensor, value: Tensor) -> Tensor:
    """The derivative of the one with the value of the other."""
    same: Tensor = differentiable + (value - differentiable).detach()
    return same


def _rotated_det(A: Tensor) -> Tensor:  # noqa: N803
    with torch.no_grad():
        U, S, Vh = torch.linalg.svd(A.detach())  # noqa: N806
        turn = torch.linalg.det(U) * torch.linalg.det(Vh)
    rotated = U.mH @ A @ Vh.mH
    n = A.shape[-1]
    large = max(0, n - _MOST_DEFICIENT)
    if large == 0:
        whole: Tensor = turn * _division_free_det(rotated)
        return whole
    enough = (S[..., large - 1] > torch.finfo(S.dtype).eps * n * S[..., 0])[..., None, None]
    block = torch.where(enough, rotated[..., :large, :large], torch.eye(large, dtype=A.dtype, device=A.device))
    across, down = rotated[..., :large, large:], rotated[..., large:, :large]
    rest = rotated[..., large:, large:] - down @ torch.linalg.solve(block, across)
    product = torch.linalg.det(block) * _division_free_det(rest)
    parts: Tensor = turn * torch.where(enough[..., 0, 0], product, product * 0)
    return parts


def _division_free_det(A: Tensor) -> Tensor:  # noqa: N803
    """(−1)ⁿ times the last coefficient of the characteristic polynomial, built up from the leading principal submatrices."""
    n = A.shape[-1]
    polynomial = torch.ones((*A.shape[:-2], 1), dtype=A.dtype, device=A.device)
    for r in range(n):
        column, row = A[..., :r, r : r + 1], A[..., r : r + 1, :r]
        entries = [torch.ones_like(A[..., 0, 0]), -A[..., r, r]]
        for _ in range(r):
            entries.append(-(row @ column)[..., 0, 0])
            column = A[..., :r, :r] @ column
        first = torch.stack(entries, -1)
        polynomial = torch.stack(
            [(first[..., max(0, i - r) : i + 1].flip(-1) * polynomial[..., max(0, i - len(entries) + 1) : i + 1]).sum(-1)
             if i <= r else (first[..., i - r : i + 1].flip(-1) * polynomial).sum(-1) for i in range(r + 2)], -1,
        )  # fmt: skip
    last: Tensor = polynomial[..., n] * (-1) ** n
    return last


def polar(abs: Tensor, angle: Tensor) -> Tensor:  # noqa: A002
    """abs·cos(angle) + i·abs·sin(angle).

    PyTorch's backward takes the sign of the result for that of `abs`, so that its vjp and jvp contradict each other where `abs` is
    negative.
    """
    return torch.complex(abs * torch.cos(angle), abs * torch.sin(angle))


def clamp(input: Tensor, min: Any = None, max: Any = None) -> Tensor:  # noqa: A002
    """`torch.clamp`; constant, and so without a derivative, where `min` is not less than `max`.

    PyTorch's derivative is 1 where the input equals both bounds.
    """
    value: Tensor = torch.clamp(input, min, max)
    numbers = isinstance(min, int | float) and isinstance(max, int | float)
    if not numbers or min < max or not _is_differentiated(input):
        return value
    return torch.where(torch.ones_like(value, dtype=torch.bool), value.detach(), value)


def nextafter(input: Tensor, other: Tensor) -> Tensor:  # noqa: A002
    """`torch.nextafter`, which moves with its input; PyTorch's derivative is that of `other`, or zero, where the two are equal."""
    value: Tensor = torch.nextafter(input, other)
    moved = _with_value(input.expand(value.shape) + torch.zeros_like(value), value)
    return torch.where(torch.isfinite(value) & torch.isfinite(input), moved, value)


def _hermitian(A: Tensor, upper: bool) -> Tensor:  # noqa: N803
    """The matrix that a function sees which reads one triangle of `A` alone; its derivative is spread over both.

    PyTorch's reverse mode does that too. Its forward mode takes the tangent as it is, and so contradicts it where the tangent is not
    Hermitian: `linalg.cholesky`, `linalg.eigh`.
    """
    if not _is_differentiated(A):
        return A
    mirrored = A.triu() + A.triu(1).mH if upper else A.tril() + A.tril(-1).mH
    symmetric = (A + A.mH) / 2
    whole: Tensor = mirrored.detach() + (symmetric - symmetric.detach())
    return whole


def _triangle(A: Tensor, upper: bool, unit: bool = False) -> Tensor:  # noqa: N803
    """What of `A` is read: PyTorch's derivative by the rest, which is not, is not zero, and that by the triangle wrong with it."""
    if not _is_differentiated(A):
        return A
    if unit:
        A = A - torch.diag_embed(A.diagonal(dim1=-2, dim2=-1))  # noqa: N806
    return A.triu() if upper else A.tril()


def cholesky(A: Tensor, upper: bool = False) -> Tensor:  # noqa: N803
    factor: Tensor = torch.linalg.cholesky(_hermitian(A, upper), upper=upper)
    return factor


def cholesky_ex(A: Tensor, upper: bool = False, check_errors: bool = False) -> Any:  # noqa: N803
    return torch.linalg.cholesky_ex(_hermitian(A, upper), upper=upper, check_errors=check_errors)


def eigh(A: Tensor, UPLO: str = "L") -> Any:  # noqa: N803
    return torch.linalg.eigh(_hermitian(A, UPLO.upper() == "U"), UPLO)


def cholesky_inverse(input: Tensor, upper: bool = False) -> Tensor:  # noqa: A002
    """PyTorch's forward mode is wrong also for a triangular matrix, so the derivative is that of solving with the identity."""
    value = torch.cholesky_inverse(input, upper)
    if not _is_differentiated(input):
        return value
    identity = torch.eye(input.shape[-1], dtype=input.dtype, device=input.device).expand(input.shape)
    return _with_value(torch.cholesky_solve(identity, _triangle(input, upper), upper), value)


def cholesky_solve(input: Tensor, input2: Tensor, upper: bool = False) -> Tensor:  # noqa: A002
    return torch.cholesky_solve(input, _triangle(input2, upper), upper)


def triangular_solve(
    input: Tensor,  # noqa: A002
    A: Tensor,  # noqa: N803
    upper: bool = True,
    transpose: bool = False,
    unitriangular: bool = False,
) -> Any:
    solved = torch.triangular_solve(input, _triangle(A, upper, unitriangular), upper, transpose, unitriangular)
    return torch.return_types.triangular_solve((solved.solution, A.clone()))


# PyTorch's name of the function, below `torch` → what is called instead.
BETTER: Final[dict[str, Callable[..., Any]]] = {
    "linalg.det": det, "polar": polar, "clamp": clamp, "nextafter": nextafter,
    "linalg.cholesky": cholesky, "linalg.cholesky_ex": cholesky_ex, "linalg.eigh": eigh,
    "cholesky_inverse": cholesky_inverse, "cholesky_solve": cholesky_solve, "triangular_solve": triangular_solve,
}  # fmt: skip
