"""What stands in the place of PyTorch's functions has their values, and right derivatives where theirs are wrong."""

from __future__ import annotations

import operator
from collections.abc import Callable
from itertools import product
from typing import Any

import mpmath
import pytest
import sympy
import torch
from torch import Tensor
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

from app.catalogue import better_rules
from app.catalogue.better import mixed_powers, near_zero
from tests.engine.asking import results

# Forward mode compiles decompositions by it.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:torch.triangular_solve is deprecated"),
    pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning"),
]
SINGULAR = [
    [[1, 2], [2, 4]],
    [[1, 2, 3], [4, 5, 6], [7, 8, 9]],
    [[1, 0], [0, 0]],
    [[0, 0], [0, 0]],
    [[1, 2, 3, 4], [2, 4, 6, 8], [1, 1, 0, 2], [3, 1, 2, 1]],
    [[0, 1, 0], [0, 0, 1], [0, 0, 0]],
]


def adjugate_transposed(matrix: list[list[int]]) -> Tensor:
    """∂det/∂A, by exact arithmetic."""
    return torch.tensor([[float(x) for x in row] for row in sympy.Matrix(matrix).adjugate().T.tolist()], dtype=torch.float64)


@pytest.mark.parametrize("matrix", SINGULAR)
def test_the_derivative_of_a_determinant_is_the_adjugate(matrix: list[list[int]]) -> None:
    a = torch.tensor(matrix, dtype=torch.float64)
    right = adjugate_transposed(matrix)
    leaf = a.clone().requires_grad_()
    value = better_rules.det(leaf)
    assert torch.equal(value.detach(), torch.linalg.det(a))
    torch.testing.assert_close(torch.autograd.grad(value, leaf)[0], right, atol=1e-11, rtol=1e-11)
    torch.testing.assert_close(jacfwd(better_rules.det)(a), right, atol=1e-11, rtol=1e-11)
    pair = torch.stack([a, a + torch.eye(len(matrix), dtype=torch.float64)])
    torch.testing.assert_close(vmap(grad(better_rules.det))(pair)[0], right, atol=1e-11, rtol=1e-11)


def test_small_integer_matrices_over_the_service() -> None:
    for entries in product((-1, 0, 1, 2), repeat=4):
        matrix = [list(entries[:2]), list(entries[2:])]
        answer = results(
            operation="linalg.det", inputs={"input": [[float(x) for x in row] for row in matrix]}, want=["gradient"]
        )
        right = adjugate_transposed(matrix).numpy()
        assert abs(answer["gradient"]["input"] - right).max() < 1e-12, matrix


def test_second_derivatives_of_a_singular_determinant() -> None:
    numbers = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    symbols = sympy.Matrix(3, 3, lambda i, j: sympy.Symbol(f"x{i}{j}"))
    at = {symbols[i, j]: numbers[i][j] for i in range(3) for j in range(3)}
    exact = symbols.det(method="berkowitz")
    right = [[float(sympy.diff(exact, x, y).subs(at)) for y in symbols] for x in symbols]
    computed = hessian(better_rules.det)(torch.tensor(numbers, dtype=torch.float64)).reshape(9, 9)
    torch.testing.assert_close(computed, torch.tensor(right, dtype=torch.float64), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("n", [5, 12, 40])
def test_large_matrices_of_deficient_rank(n: int) -> None:
    a = torch.randn(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
    a[-1] = a[0] + a[1]
    u, s, vh = torch.linalg.svd(a)
    right = torch.linalg.det(u) * torch.linalg.det(vh) * s[:-1].prod() * (u[:, -1:] @ vh[-1:])
    torch.testing.assert_close(grad(better_rules.det)(a), right, rtol=1e-9, atol=1e-9 * float(right.abs().max()))
    a[-6:] = 0.0
    if n > 6:
        assert not grad(better_rules.det)(a).any()


def test_a_regular_determinant_is_untouched() -> None:
    a = torch.randn(4, 3, 3, dtype=torch.complex128, generator=torch.Generator().manual_seed(1), requires_grad=True)
    torch.testing.assert_close(
        torch.autograd.grad(better_rules.det(a).abs().sum(), a), torch.autograd.grad(torch.linalg.det(a).abs().sum(), a)
    )


def test_polar_agrees_with_itself_where_the_modulus_is_negative() -> None:
    modulus, angle = torch.tensor([-2.0, 1.5, 0.0], dtype=torch.float64), torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    c = torch.complex(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, -1.0, 0.0])).to(torch.complex128)
    assert torch.equal(better_rules.polar(modulus, angle), torch.polar(modulus, angle))
    rule = vjp(better_rules.polar, modulus, angle)[1]
    push = jvp(better_rules.polar, (modulus, angle), (torch.ones(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)))[
        1
    ]
    left = (c.conj() * push).real.sum()
    right = sum(g.sum() for g in rule(c))
    assert abs(float(left - right)) < 1e-12
    torch.testing.assert_close(rule(torch.ones(3, dtype=torch.complex128))[0], torch.cos(angle))


def test_programs_call_them_too() -> None:
    singular = [[1.0, 2.0], [2.0, 4.0]]
    for text in ("linalg.det(a)", "torch.det(a)", "a.det()", "torch.linalg.det(a)"):
        answer = results(program=text, inputs={"a": singular}, want=["gradient"])
        assert answer["gradient"]["a"].tolist() == [
            [pytest.approx(4.0), pytest.approx(-2.0)],
            [pytest.approx(-2.0), pytest.approx(1.0)],
        ]
    assert results(program="x.clamp(0, 0).sum()", inputs={"x": [0.0, 1.0]}, want=["gradient"])["gradient"]["x"].tolist() == [
        0.0,
        0.0,
    ]


def test_every_row_is_a_function_of_pytorch_that_is_wrong() -> None:
    """Where PyTorch has mended it, the row can go."""
    singular = torch.tensor([[1.0, 2.0], [2.0, 4.0]], dtype=torch.float64, requires_grad=True)
    assert not torch.autograd.grad(torch.linalg.det(singular), singular)[0].any()
    modulus = torch.tensor([-2.0], dtype=torch.float64)
    backward = vjp(lambda r: torch.polar(r, torch.zeros(1, dtype=torch.float64)).real, modulus)[1](
        torch.ones(1, dtype=torch.float64)
    )[0]
    assert backward.item() == -1.0
    assert grad(lambda x: torch.clamp(x, 0, 0))(torch.tensor(0.0)).item() == 1.0
    two = torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert not grad(lambda x: torch.nextafter(x, two).sum())(two).any()
    for name in MATRICES.keys() - {"cholesky_solve"}:
        assert _gap(operator.attrgetter(name)(torch), MATRICES[name]) > 1e-5, name
    unread = grad(lambda a: torch.cholesky_solve(B, a).sum())(torch.ones(3, 3, dtype=torch.float64)).triu(1)
    assert unread.any()
    others = {"special.erfcx", "special.log_ndtr", "linalg.matrix_exp", "matrix_exp"}  # each has its own test below
    others |= {
        "fmax",
        "fmin",
        "nn.functional.prelu",
        "scatter",
        "index_copy",
        "put",
        "index_put",
        "logcumsumexp",
        "cumprod",
        "prod",
        "sinc",
        "special.i1",
        "special.i1e",
        "special.airy_ai",
        "special.chebyshev_polynomial_t",
        "special.chebyshev_polynomial_u",
        "special.ndtr",
        "special.expm1",
        "expm1",
        "nn.functional.tanhshrink",
        "linalg.pinv",
        "float_power",
        "cdist",
        "nn.functional.pdist",
        *(f"special.bessel_{name}" for name in ("j0", "j1", "y0", "y1")),
    }  # or beside its module
    assert set(better_rules.BETTER) == {"linalg.det", "polar", "clamp", "nextafter", *MATRICES, *others}
    assert set(better_rules.FORMULAS) == {mixed_powers.power, *better_rules.BETTER.values()}


def _gap(function: Callable[..., Any], call: Callable[..., Any]) -> float:
    """|⟨c, J·t⟩ - ⟨Jᵗ·c, t⟩|, c and t random."""
    generator = torch.Generator().manual_seed(3)
    a = torch.randn(3, 3, dtype=torch.float64, generator=generator)
    a = a @ a.mT + 3 * torch.eye(3, dtype=torch.float64)
    t = torch.randn(3, 3, dtype=torch.float64, generator=generator)

    def whole(a: Tensor) -> Tensor:
        result: Tensor = call(function, a)
        return result

    value, pushed = jvp(whole, (a,), (t,))[:2]
    c = torch.randn(value.shape, dtype=torch.float64, generator=generator)
    (gradient,) = vjp(whole, a)[1](c)
    return abs(float((c * pushed).sum() - (gradient * t).sum()))


B = torch.tensor([[1.0], [2.0], [-1.0]], dtype=torch.float64)
# Functions that read one triangle of a matrix, each called on a whole one.
MATRICES: dict[str, Callable[..., Any]] = {
    "linalg.cholesky": lambda f, a: f(a),
    "linalg.cholesky_ex": lambda f, a: f(a)[0],
    "linalg.eigh": lambda f, a: f(a)[1],
    "cholesky_inverse": lambda f, a: f(a),
    "cholesky_solve": lambda f, a: f(B, a),
    "triangular_solve": lambda f, a: f(B, a)[0],
}


@pytest.mark.parametrize("name", MATRICES)
def test_the_two_modes_agree_of_a_matrix_of_which_one_triangle_is_read(name: str) -> None:
    assert _gap(better_rules.BETTER[name], MATRICES[name]) < 1e-12


@pytest.mark.parametrize("call", [
    lambda f, a: f(a, hermitian=True), lambda f, a: f(a, 1e-15, True), lambda f, a: f(a, atol=0.0, rtol=1e-15, hermitian=True),
])  # fmt: skip
def test_a_pseudoinverse_is_that_of_the_triangle_that_is_read(call: Callable[..., Any]) -> None:
    a = torch.tensor([[4.0, 9.0, 8.0], [0.3, 3.0, 7.0], [0.5, 0.2, 2.5]], dtype=torch.float64)
    symmetric = a.tril() + a.tril(-1).mT
    along = torch.tensor([[0.2, -0.5, 0.1], [-0.5, 1.0, 0.7], [0.1, 0.7, 0.3]], dtype=torch.float64)
    right = -torch.linalg.inv(symmetric) @ along @ torch.linalg.inv(symmetric)
    assert torch.equal(call(better_rules.pinv, a.clone().requires_grad_()), call(torch.linalg.pinv, a))
    torch.testing.assert_close(jvp(lambda a: call(better_rules.pinv, a), (a,), (along,))[1], right)
    rows = jacrev(lambda a: call(better_rules.pinv, a))(a)
    torch.testing.assert_close(torch.einsum("ijkl,kl->ij", rows, along), right)
    assert not torch.allclose(jvp(lambda a: call(torch.linalg.pinv, a), (a,), (along,))[1], right), "PyTorch has mended it"
    plain = torch.linalg.pinv(a)
    torch.testing.assert_close(better_rules.pinv(a), plain, rtol=0, atol=0)


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("name", ["cholesky_inverse", "cholesky_solve", "triangular_solve"])
def test_the_triangle_that_is_not_read_has_no_derivative(name: str, upper: bool) -> None:
    a = torch.tensor([[2.0, 0.3, 0.5], [0.7, 3.0, 0.2], [0.1, 0.4, 1.5]], dtype=torch.float64)

    def of(function: Callable[..., Any]) -> Callable[[Tensor], Tensor]:
        return lambda a: MATRICES[name](lambda *tensors: function(*tensors, upper=upper), a)

    better, pytorch = of(better_rules.BETTER[name]), of(getattr(torch, name))
    assert torch.equal(better(a), pytorch(a))
    rows = jacfwd(better)(a)
    numeric = torch.zeros_like(rows)
    for i, j in product(range(3), repeat=2):
        h = torch.zeros_like(a)
        h[i, j] = 1e-6
        numeric[..., i, j] = (pytorch(a + h) - pytorch(a - h)) / 2e-6
    torch.testing.assert_close(rows, numeric, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(jacrev(better)(a), rows)


@pytest.mark.parametrize(("name", "option"), [("linalg.cholesky", {"upper": True}), ("linalg.eigh", {"UPLO": "U"})])
def test_values_come_from_the_triangle_that_is_read(name: str, option: dict[str, Any]) -> None:
    a = torch.tensor([[4.0, 0.3, 0.5], [9.0, 3.0, 0.2], [8.0, 7.0, 2.5]], dtype=torch.float64, requires_grad=True)
    better, plain = better_rules.BETTER[name](a, **option), operator.attrgetter(name)(torch)(a, **option)
    values = ((better, plain),) if isinstance(better, Tensor) else zip(better, plain, strict=True)
    assert all(torch.equal(one, other) for one, other in values)


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
@pytest.mark.parametrize(("name", "option"), [
    ("linalg.cholesky", {}), ("linalg.cholesky", {"upper": True}), ("linalg.eigh", {}), ("linalg.eigh", {"UPLO": "U"}),
])  # fmt: skip
def test_what_stands_in_the_triangle_that_is_not_read_spoils_nothing(name: str, option: dict[str, Any], odd: float) -> None:
    is_upper = bool(option)
    read, unread = ((0, 1), (1, 0)) if is_upper else ((1, 0), (0, 1))
    a = torch.tensor([[3.0, 0.5], [0.5, 2.0]], dtype=torch.float64)
    spoilt = a.clone()
    spoilt[unread] = odd

    def first(a: Tensor) -> Tensor:
        result = better_rules.BETTER[name](a, **option)
        value: Tensor = (result if isinstance(result, Tensor) else result[0]).sum()
        return value**2 + (0 if isinstance(result, Tensor) else result[1][0, 0] ** 2)

    right = grad(first)(a)
    right[read] += right[unread]
    right[unread] = 0.0
    leaf = spoilt.clone().requires_grad_()
    value = first(leaf)
    assert torch.equal(value.detach(), first(spoilt))
    torch.testing.assert_close(torch.autograd.grad(value, leaf)[0], right)
    torch.testing.assert_close(jacfwd(first)(spoilt), right)
    torch.testing.assert_close(vmap(grad(first))(torch.stack([a, spoilt]))[1], right)


def test_infinity_stays_infinity_where_a_derivative_is_wanted() -> None:
    x = torch.tensor([-1e200], dtype=torch.float64)
    assert better_rules.log_ndtr(x.clone().requires_grad_()).tolist() == better_rules.log_ndtr(x).tolist() == [-torch.inf]


# Point, value and first derivative in 60 digits (mpmath), far out where PyTorch's own has lost half of its digits or all.
FAR_OUT: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], list[float], list[float]]] = {
    "erfcx": (
        better_rules.erfcx, torch.special.erfcx, [11.0, 1e3, 1e7, 1e8],
        [-4.6060824175668129e-3, -5.6418873726549670e-7, -5.6418958354774783e-15, -5.6418958354775620e-17],
    ),
    "log_ndtr": (
        better_rules.log_ndtr, torch.special.log_ndtr, [-10.0, -1e3, -1e5, -1e8],
        [10.098093233962512, 1000.000999998, 100000.00000999999, 100000000.00000001],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAR_OUT)
def test_a_function_of_the_error_function_far_out(name: str) -> None:
    better, own, points, right = FAR_OUT[name]
    x = torch.tensor(points, dtype=torch.float64)
    assert torch.equal(better(x.requires_grad_()), own(x))
    computed = torch.autograd.grad(better(x).sum(), x)[0]
    torch.testing.assert_close(computed, torch.tensor(right, dtype=torch.float64), rtol=1e-13, atol=0)
    assert not torch.allclose(torch.autograd.grad(own(x).sum(), x)[0], computed, rtol=1e-3, atol=0)
    near = torch.linspace(-3, 9, 50, dtype=torch.float64, requires_grad=True)
    for order in (better, lambda t: torch.autograd.grad(better(t).sum(), t, create_graph=True)[0]):
        assert torch.autograd.gradcheck(order, (near,))
    torch.testing.assert_close(vmap(grad(better))(x.detach()), computed)
    torch.testing.assert_close(jacfwd(lambda t: better(t).sum())(x.detach()), computed)


@pytest.mark.parametrize("size", [1e-8, 1.0, 1e8, 1e16])
def test_the_derivative_of_a_matrix_exponential_scales_with_its_cotangent(size: float) -> None:
    generator = torch.Generator().manual_seed(1)
    a, g, b = torch.randn(3, 2, 3, 3, dtype=torch.float64, generator=generator)
    right = vjp(torch.linalg.matrix_exp, a)[1](g)[0]
    torch.testing.assert_close(vjp(better_rules.matrix_exp, a)[1](g * size)[0] / size, right, rtol=1e-12, atol=1e-12)
    pushed = jvp(torch.linalg.matrix_exp, (a,), (b,))[1]
    torch.testing.assert_close(jvp(better_rules.matrix_exp, (a,), (b * size,))[1] / size, pushed, rtol=1e-12, atol=1e-12)
    if size > 1e8:
        assert not torch.allclose(vjp(torch.linalg.matrix_exp, a)[1](g * size)[0] / size, right, rtol=1e-3)


def test_a_matrix_exponential_in_every_mode() -> None:
    generator = torch.Generator().manual_seed(2)
    a, g = torch.randn(2, 2, 2, dtype=torch.float64, generator=generator)

    def loss(exponential: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda m: torch.sin((exponential(m) * g).sum())

    for transform in (jacrev, jacfwd, hessian):
        torch.testing.assert_close(transform(loss(better_rules.matrix_exp))(a), transform(loss(torch.linalg.matrix_exp))(a))
    assert torch.autograd.gradgradcheck(better_rules.matrix_exp, (torch.complex(a, g).requires_grad_(),))


def test_a_matrix_exponential_in_forward_mode_within_forward_mode() -> None:
    """A `torch.autograd.Function` gives zeros there."""
    a = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(jacfwd(jacfwd(better_rules.matrix_exp))(a), jacrev(jacrev(torch.linalg.matrix_exp))(a))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_matrix_exponential_in_half_precision(dtype: torch.dtype) -> None:
    """PyTorch's is infinite or NaN for matrices of small numbers."""
    a = (0.3 * torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(5))).to(dtype)
    assert not torch.isfinite(torch.linalg.matrix_exp(a)).all()
    wide = torch.linalg.matrix_exp(a.double())
    torch.testing.assert_close(better_rules.matrix_exp(a), wide.to(dtype))
    ours, exact = (jacrev(better_rules.matrix_exp)(m) for m in (a, a.double()))
    torch.testing.assert_close(ours, exact.to(dtype), rtol=0.02, atol=0.01)


# Ours, PyTorch's, and the same in numbers of many digits.
TAILS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], Callable[[Any], Any], list[float]]] = {
    "ndtr": (better_rules.ndtr, torch.special.ndtr, lambda x: mpmath.erfc(-x / mpmath.sqrt(2)) / 2, [-12.0, -8.0, -1.01, -0.99, 0.0, 3.0]),
    "expm1": (better_rules.expm1, torch.expm1, mpmath.expm1, [-60.0, -34.0, -1.01, -0.99, -1e-12, 1e-12, 3.0]),
    "tanhshrink": (
        near_zero.tanhshrink, torch.nn.functional.tanhshrink, lambda x: x - mpmath.tanh(x), [1e-8, -1e-5, 1e-2, 0.249, -0.251, 2.0],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TAILS)
def test_numbers_that_pytorch_subtracts_away(name: str) -> None:
    better, own, right, points = TAILS[name]
    x = torch.tensor(points, dtype=torch.float64)
    with mpmath.workdps(80):
        wanted = [
            torch.tensor([float(mpmath.diff(right, mpmath.mpf(t), order)) for t in points], dtype=torch.float64)
            for order in range(3)
        ]
    first = vmap(grad(better))(x)
    for computed, expected in zip((better(x), first, vmap(grad(grad(better)))(x)), wanted, strict=True):
        torch.testing.assert_close(computed, expected, rtol=2e-12, atol=1e-300)
    torch.testing.assert_close(jvp(better, (x,), (torch.ones_like(x),))[1], first, rtol=1e-14, atol=0)
    pytorch = torch.stack([own(x[:1]), vmap(grad(own))(x[:1])])
    assert not torch.allclose(pytorch, torch.stack([better(x[:1]), first[:1]]), rtol=1e-9, atol=0), "PyTorch has mended it"
    ends = torch.tensor([torch.inf, -torch.inf, torch.nan], dtype=torch.float64)
    torch.testing.assert_close(better(ends), own(ends), equal_nan=True)
    assert better(torch.tensor([1, -2])).dtype == torch.float32
