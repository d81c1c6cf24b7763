"""Functions that stand in the place of PyTorch's where its derivative is wrong at some points: right derivatives, and its values to rounding.

Each is made of PyTorch's own differentiable steps, or defined for both modes and vmap, so that it holds in each and to any order.
What PyTorch 2.13.0 gets wrong, and since when it was measured, stands with each; tests/catalogue/test_better_rules.py repeats it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import is_fake

from app.catalogue.better.bessel import airy_ai, bessel_j0, bessel_j1, bessel_y0, bessel_y1
from app.catalogue.better.largest_distances import cdist, pdist
from app.catalogue.better.mixed_powers import float_power, power
from app.catalogue.better.near_zero import chebyshev_polynomial_t, chebyshev_polynomial_u, i1, i1e, sinc, tanhshrink
from app.catalogue.better.overwriting import index_copy, index_put, put, scatter
from app.catalogue.better.running_products import cumprod, prod
from app.catalogue.better.running_sums import logcumsumexp
from app.catalogue.better.ties import clamp, fmax, fmin, prelu
from app.catalogue.better.tracked import is_batched, is_differentiated, is_nested_forward, with_value

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
    if not is_differentiated(A) or A.numel() == 0 or is_fake(A):
        return value
    with torch.no_grad():
        bound = torch.linalg.vector_norm(A, dim=-1).prod(-1)
        singular = value.detach().abs() <= torch.finfo(A.dtype).eps ** _NEARLY_SINGULAR * bound
    if not is_batched(A) and not bool(singular.any()):
        return value
    finite = torch.isfinite(A.detach()).all(-1).all(-1)
    singular = singular & finite
    here = singular[..., None, None]
    identity = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    by_factors = torch.linalg.det(torch.where(here, identity, A))
    by_minors = _rotated_det(torch.where(here, A, identity))
    return torch.where(singular, with_value(by_minors, value), by_factors)


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


def nextafter(input: Tensor, other: Tensor) -> Tensor:  # noqa: A002
    """`torch.nextafter`, which moves with its input; PyTorch's derivative is that of `other`, or zero, where the two are equal."""
    value: Tensor = torch.nextafter(input, other)
    moved = with_value(input.expand(value.shape) + torch.zeros_like(value), value)
    return torch.where(torch.isfinite(value) & torch.isfinite(input), moved, value)


def _hermitian(A: Tensor, upper: bool) -> Tensor:  # noqa: N803
    """The matrix that a function sees which reads one triangle of `A` alone; its derivative is spread over both.

    PyTorch's reverse mode does that too. Its forward mode takes the tangent as it is, and so contradicts it where the tangent is not
    Hermitian: `linalg.cholesky`, `linalg.eigh`. Where the entry that is not read is infinite or NaN, the other has all of the derivative.
    """
    if not is_differentiated(A):
        return A
    mirrored = A.triu() + A.triu(1).mH if upper else A.tril() + A.tril(-1).mH
    everywhere = torch.ones_like(A, dtype=torch.bool)
    unread = everywhere.tril(-1) if upper else everywhere.triu(1)
    half = torch.where(unread & ~torch.isfinite(A), A.mH, A) / 2
    symmetric = half + half.mH
    whole: Tensor = mirrored.detach() + (symmetric - symmetric.detach())
    return whole


def _triangle(A: Tensor, upper: bool, unit: bool = False) -> Tensor:  # noqa: N803
    """What of `A` is read: PyTorch's derivative by the rest, which is not, is not zero, and that by the triangle wrong with it."""
    if not is_differentiated(A):
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


def pinv(A: Tensor, *rcond: Any, **options: Any) -> Tensor:  # noqa: N803
    """`torch.linalg.pinv`. PyTorch's derivative takes in the triangle that is not read where the matrix is said to be Hermitian."""
    is_hermitian = bool(options.get("hermitian")) or (len(rcond) == 2 and bool(rcond[1]))
    inverse: Tensor = torch.linalg.pinv(_hermitian(A, upper=False) if is_hermitian else A, *rcond, **options)
    return inverse


def cholesky_inverse(input: Tensor, upper: bool = False) -> Tensor:  # noqa: A002
    """PyTorch's forward mode is wrong also for a triangular matrix, so the derivative is that of solving with the identity."""
    value = torch.cholesky_inverse(input, upper)
    if not is_differentiated(input):
        return value
    identity = torch.eye(input.shape[-1], dtype=input.dtype, device=input.device).expand(input.shape)
    return with_value(torch.cholesky_solve(identity, _triangle(input, upper), upper), value)


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


_HALVES: Final = (torch.float16, torch.bfloat16)

# From here on the asymptotic series of erfcx is used: its 16 terms are right to 3e-20 at 10.
_FAR_OUT: Final = 10.0
_TERMS: Final = 16
# Of log Φ the tail begins here: nearer to zero PyTorch's derivative is right to the last digits.
_TAIL: Final = -2.0


def erfcx(input: Tensor) -> Tensor:  # noqa: A002
    """exp(x²)·erfc(x). PyTorch takes its derivative as 2x·erfcx(x) − 2/√π, of which nothing is left beyond 1e7.

    The derivative is that of 1/(x√π)·Σ (−1)ⁿ (2n−1)!!/(2x²)ⁿ there (NIST Digital Library of Mathematical Functions, 7.12.1).
    """
    value: Tensor = torch.special.erfcx(input)
    if not is_differentiated(input):
        return value
    far = input > _FAR_OUT
    x = torch.where(far, input, _FAR_OUT)
    u = 0.5 / (x * x)
    series = torch.ones_like(x)
    for n in range(_TERMS, 0, -1):
        series = 1 - (2 * n - 1) * u * series
    tail = series / (x * math.sqrt(math.pi))
    return torch.where(far, with_value(tail, value), torch.special.erfcx(torch.where(far, 0.0, input)))


def log_ndtr(input: Tensor) -> Tensor:  # noqa: A002
    """log Φ(x). PyTorch takes its derivative as exp(−log Φ(x) − x²/2)/√(2π), whose exponent is a difference of huge numbers far below 0.

    There log Φ(x) = log(erfcx(−x/√2)/2) − x²/2.
    """
    value: Tensor = torch.special.log_ndtr(input)
    if not is_differentiated(input):
        return value
    far = input < _TAIL
    x = torch.where(far, input, _TAIL)
    tail = torch.log(erfcx(-x * math.sqrt(0.5)) / 2) - x * x / 2
    return torch.where(far, with_value(tail, value), torch.special.log_ndtr(torch.where(far, 0.0, input)))


# Of Φ and exp − 1 the tail begins here: nearer to zero PyTorch's numbers are right to the last digits.
_NEAR_TAIL: Final = -1.0


def ndtr(input: Tensor) -> Tensor:  # noqa: A002
    """Φ(x) = erfc(−x/√2)/2. PyTorch takes (1 + erf(x/√2))/2: measured in float64 6.11e-16 for 6.22e-16 at −8, and 0 at −10."""
    far = input < _NEAR_TAIL
    x = torch.where(far, input, _NEAR_TAIL)
    whole: Tensor = torch.where(far, torch.erfc(x * -math.sqrt(0.5)) / 2, torch.special.ndtr(torch.where(far, 0.0, input)))
    return whole


def expm1(input: Tensor) -> Tensor:  # noqa: A002
    """exp(x) − 1. PyTorch's derivative is the result and 1: measured in float64 1.554e-15 for 1.543e-15 at −34.1, and 0 at −40."""
    value: Tensor = torch.expm1(input)
    if not input.is_floating_point() or not is_differentiated(input):
        return value
    far = input < _NEAR_TAIL
    x = torch.where(far, input, _NEAR_TAIL)
    return torch.where(far, with_value(torch.exp(x) - 1, value), torch.expm1(torch.where(far, 0.0, input)))


class _MatrixExponential(torch.autograd.Function):
    """Its derivative along E is the upper right block of exp([[A, E], [0, A]]) (Higham, Functions of Matrices, 2008, theorem 3.6).

    PyTorch's is that too, but an E much larger than A makes the scaling and squaring lose as many digits as it is larger: E is scaled here.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(A: Tensor) -> Tensor:  # noqa: N803
        value: Tensor = torch.linalg.matrix_exp(A)
        return value

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        (A,) = ctx.saved_tensors  # noqa: N806
        return _along(A.mH, cotangents[0])

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        (A,) = ctx.saved_tensors  # noqa: N806
        return _along(A, tangents[0])


def _along(A: Tensor, E: Tensor) -> Tensor:  # noqa: N803
    size = E.detach().abs().amax((-2, -1), keepdim=True)
    size = torch.where(torch.isfinite(size) & (size > 0), size, torch.ones_like(size))
    upper = torch.cat([A, E / size], -1)
    lower = torch.cat([torch.zeros_like(A), A], -1)
    n = A.shape[-1]
    whole: Tensor = matrix_exp(torch.cat([upper, lower], -2))[..., :n, n:] * size
    return whole


def matrix_exp(A: Tensor) -> Tensor:  # noqa: N803
    """The matrix exponential; in half precision by float32, as PyTorch's is infinite or NaN there for matrices of ordinary numbers."""
    if A.dtype in _HALVES:
        return matrix_exp(A.float()).to(A.dtype)
    if not is_differentiated(A) or A.numel() == 0 or is_nested_forward():
        plain: Tensor = torch.linalg.matrix_exp(A)
        return plain
    value: Tensor = _MatrixExponential.apply(A)  # type: ignore[no-untyped-call]
    return value


def _matrix_exp(input: Tensor) -> Tensor:  # noqa: A002
    return matrix_exp(input)


# PyTorch's name of the function, below `torch` → what is called instead.
BETTER: Final[dict[str, Callable[..., Any]]] = {
    "linalg.det": det, "polar": polar, "clamp": clamp, "nextafter": nextafter,
    "linalg.cholesky": cholesky, "linalg.cholesky_ex": cholesky_ex, "linalg.eigh": eigh,
    "linalg.pinv": pinv, "cholesky_inverse": cholesky_inverse, "cholesky_solve": cholesky_solve, "triangular_solve": triangular_solve,
    "fmax": fmax, "fmin": fmin, "nn.functional.prelu": prelu,
    "scatter": scatter, "index_copy": index_copy, "put": put, "index_put": index_put,
    "special.erfcx": erfcx, "special.log_ndtr": log_ndtr, "linalg.matrix_exp": matrix_exp, "matrix_exp": _matrix_exp,
    "logcumsumexp": logcumsumexp, "cumprod": cumprod, "prod": prod, "sinc": sinc, "special.i1": i1, "special.i1e": i1e,
    "special.bessel_j0": bessel_j0, "special.bessel_j1": bessel_j1, "special.bessel_y0": bessel_y0, "special.bessel_y1": bessel_y1,
    "special.airy_ai": airy_ai, "special.chebyshev_polynomial_t": chebyshev_polynomial_t,
    "special.chebyshev_polynomial_u": chebyshev_polynomial_u, "special.ndtr": ndtr, "special.expm1": expm1, "expm1": expm1,
    "nn.functional.tanhshrink": tanhshrink, "float_power": float_power,
    "cdist": cdist, "nn.functional.pdist": pdist,
}  # fmt: skip

# The formula of the derivative, in the words of PyTorch's own; X^H is the conjugate transpose.
FORMULAS: Final[dict[Callable[..., Any], str]] = {
    det: "grad * adjugate(A)^H",
    polar: "abs: real(grad * exp(-1j * angle)); angle: abs * imag(grad * exp(-1j * angle))",
    clamp: "where(min <= input and input <= max, grad, 0); 0 where min >= max; min: where(input < min < max, grad, 0); max: the rest",
    nextafter: "input: grad; other: 0",
    fmax: "input: where(input >= other or isnan(other), grad, 0); other: grad - that",
    fmin: "input: where(input <= other or isnan(other), grad, 0); other: grad - that",
    prelu: "input: where(input > 0, grad, weight * grad); weight: sum of where(input > 0, 0, input * grad)",
    scatter: "input: grad.scatter(dim, index, 0); src: grad.gather(dim, index), 0 where a later one overwrites it",
    index_copy: "input: grad.index_fill(dim, index, 0); source: grad.index_select(dim, index), 0 where a later one overwrites it",
    put: "input: grad.put(index, 0); source: grad.take(index), 0 where a later one overwrites it",
    index_put: "input: grad.index_put(indices, 0); values: grad[indices], 0 where a later one overwrites it",
    cholesky: "symmetric part of inv(L)^H @ phi(L^H @ grad) @ inv(L), phi: lower triangle with half of the diagonal",
    cholesky_ex: "symmetric part of inv(L)^H @ phi(L^H @ grad) @ inv(L), phi: lower triangle with half of the diagonal",
    eigh: "V @ (diag(grad_L) + (V^H @ grad_V) / E) @ V^H, E[i, j] = L[j] - L[i], no division on the diagonal",
    pinv: "pinv_backward(grad, result, input), its symmetric part where hermitian",
    cholesky_inverse: "that of cholesky_solve(identity, input), by the triangle that is read",
    cholesky_solve: "input: cholesky_solve(grad, input2); input2: -(G + G^H) @ L by its triangle, G = cholesky_solve(grad, input2) @ result^H",
    triangular_solve: "input: solve with A^H; A: -that @ solution^H by its triangle",
    erfcx: "(2 * x * erfcx(x) - 2 / sqrt(pi)) * grad",
    log_ndtr: "grad * exp(-x ** 2 / 2) / (sqrt(2 * pi) * ndtr(x))",
    cumprod: "sum over i >= j of grad[i] * product of input[k] over k <= i, k != j",
    prod: "grad * product of input[k] over k != j",
    sinc: "grad * (cos(pi * x) - sinc(x)) / x, 0 at x = 0",
    i1: "grad * (i0(x) - i1(x) / x), grad / 2 at x = 0",
    i1e: "grad * (i0e(x) - i1e(x) * (sign(x) + 1 / x)), grad / 2 at x = 0",
    logcumsumexp: "sum over i >= j of grad[i] * exp(input[j] - result[i])",
    matrix_exp: "upper right block of exp([[A^H, grad], [0, A^H]])",
    _matrix_exp: "upper right block of exp([[A^H, grad], [0, A^H]])",
    ndtr: "grad * exp(-x ** 2 / 2) / sqrt(2 * pi)",
    expm1: "grad * exp(x)",
    tanhshrink: "grad * tanh(x) ** 2",
    **dict.fromkeys(
        (power, float_power), "input: grad * exponent * input ** (exponent - 1); exponent: grad * result * log(input)"
    ),
    cdist: "_cdist_backward; p = inf: sign(x1 - x2) * grad, shared among the largest differences",
    pdist: "_pdist_backward; p = inf: sign(x1 - x2) * grad, shared among the largest differences",
    **dict.fromkeys((airy_ai, chebyshev_polynomial_t, chebyshev_polynomial_u), "none: PyTorch has no derivative of it"),
    **dict.fromkeys((bessel_j0, bessel_j1, bessel_y0, bessel_y1), "none: PyTorch has no derivative of it"),
}
