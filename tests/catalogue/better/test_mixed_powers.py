"""Powers of real tensors and complex numbers in forward mode, and of an exponent that is 0 in any order, however the power is written."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import grad, jvp

from app.catalogue.better.mixed_powers import power
from tests.engine.asking import array, ask

# Forward mode compiles decompositions by it.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
R = np.array([0.7, 1.3, 2.1])
Z = np.array([0.5 + 0.2j, -0.3 + 1.1j, 1.4 - 0.6j])
T = np.array([0.3, -1.2, 0.8])


def _slope(of: Any) -> Any:
    step = 1e-6
    return (of(R + step * T) - of(R - step * T)) / (2 * step)


@pytest.mark.parametrize(
    ("text", "slope"),
    [
        ("z ** r", _slope(lambda r: Z**r)),
        ("r ** z", _slope(lambda r: r**Z)),
        ("r ** (2 + 1j)", _slope(lambda r: r ** (2 + 1j))),
        ("(2 + 1j) ** r", _slope(lambda r: (2 + 1j) ** r)),
        ("torch.pow(z, r)", _slope(lambda r: Z**r)),
        ("z.pow(exponent=r)", _slope(lambda r: Z**r)),
        ("y = z.clone()\ny **= r\nreturn y", _slope(lambda r: Z**r)),
    ],
)
def test_a_program(text: str, slope: Any) -> None:
    inputs = {"z": Z, "r": R} if "z" in text else {"r": R}
    answer = ask(program=text, inputs=inputs, wrt=("r",), want=("jvp",), tangent={"r": T})
    np.testing.assert_allclose(array(answer.results["jvp"]["output"]), slope, rtol=1e-6)


@pytest.mark.parametrize("wanted", ["dense", "auto", "sparse"])
def test_columns_of_a_matrix(wanted: str) -> None:
    """One input, three outputs: forward mode takes fewer passes."""
    answer = ask(program="z ** r", inputs={"z": Z, "r": R[:1]}, wrt=("r",), want=("jacobian",), format=wanted)
    (result,) = answer.results["jacobian"]["output"].values()
    values = array(getattr(result, "values", result)).reshape(-1)
    np.testing.assert_allclose(values, Z ** R[0] * np.log(Z), rtol=1e-10)


def test_the_operation() -> None:
    answer = ask(operation="pow", inputs={"input": R, "exponent": Z}, wrt=("input",), want=("jvp",), tangent={"input": T})
    np.testing.assert_allclose(array(answer.results["jvp"]["output"]), _slope(lambda r: r**Z), rtol=1e-6)


def test_pytorch_drops_the_imaginary_part() -> None:
    """Where PyTorch has mended it, `power` can go."""
    r, z, t = torch.from_numpy(R), torch.from_numpy(Z), torch.from_numpy(T)
    wrong = jvp(lambda r: torch.pow(z, r), (r,), (t,))[1]
    right = jvp(lambda r: power(z, r), (r,), (t,))[1]
    torch.testing.assert_close(right, z**r * z.log() * t)
    assert not torch.allclose(wrong, right)
    assert torch.equal(power(z, r), torch.pow(z, r))
    assert torch.equal(power(r, 2.0), r**2.0)


@pytest.mark.parametrize(
    ("text", "x"),
    [
        ("x ** y", 2.0),
        ("x.pow(y)", 0.5),
        ("torch.pow(x, y)", 1.0),
        ("float_power(x, y)", 2.0),
        ("z = x * 1\nz **= y\nreturn z", 3.0),
    ],
)
@pytest.mark.parametrize("batched", [False, True])
def test_second_derivatives_of_an_exponent_that_is_zero(text: str, x: float, batched: bool) -> None:
    """∂²/∂x∂y of x^y is 1/x there, and ∂²/∂y² log² x; the other sample has an ordinary one."""
    inputs = {"x": np.array([x, 2.0]), "y": np.array([0.0, 3.0])} if batched else {"x": np.array(x), "y": np.array(0.0)}
    answer = ask(program=text, inputs=inputs, want=("hessian",), batched=("x", "y") if batched else ())
    for row, column, right in (("x", "x", 0.0), ("x", "y", 1 / x), ("y", "x", 1 / x), ("y", "y", np.log(x) ** 2)):
        assert array(answer.results["hessian"][row][column]).reshape(-1)[0] == pytest.approx(right), (row, column)


def test_pytorch_takes_the_exponent_for_a_constant_there() -> None:
    x, y = torch.tensor([2.0, 0.0, -1.0]), torch.zeros(3)
    wrong, right = (jvp(grad(partial(_sum, of), argnums=0), (x, y), (x * 0, x * 0 + 1))[1] for of in (torch.pow, power))
    assert not wrong.any(), "PyTorch has mended it"
    assert right.tolist() == [0.5, 0.0, 0.0]  # beside a base of 0 or less there is nothing, so PyTorch's stays
    leaf = x.clone().requires_grad_()
    assert torch.equal(power(leaf, y.requires_grad_()), torch.pow(x, y))


def _sum(of: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    return of(x, y).sum()
