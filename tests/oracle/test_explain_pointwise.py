"""explain beside mpmath's one-sided derivatives in 180 digits: the pointwise functions of the catalogue, at ordinary points, corners and extremes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import mpmath
import pytest
import torch
from mpmath import mp, mpf

from tests.engine.building import explained, program
from tests.share import share

Exact = Callable[[Any], Any]
_DIGITS: Final = 180  # steps of 1e-28 beside points of 1e-100
_LARGEST: Final = mpf("1.7e308")
ORDINARY: Final = (0.3, -0.7, 1.7, 2.6, -3.2)
CORNERS: Final = (0.0, 0.5, -0.5, 1.0, -1.0, 2.0, 3.0, -3.0, 6.0)
EXTREME: Final = (1e-12, -1e-12, 1e-100, 1e3, -1e3, 1e8, -1e8, 12345678.9)


def _relu(x: Any) -> Any:
    return x if x > 0 else mpf(0)


def _clamp(x: Any, low: float, high: float) -> Any:
    return max(mpf(low), min(mpf(high), x))


def _normal(x: Any) -> Any:
    return mpmath.erfc(-x / mpmath.sqrt(2)) / 2


def _entr(x: Any) -> Any:
    return mpf(0) if x == 0 else -x * mpmath.log(x) if x > 0 else -mpmath.inf


def _real(x: Any) -> Any:
    """NaN for a complex number: real functions have no value there."""
    return mpmath.nan if isinstance(x, mpmath.mpc) and x.imag != 0 else mpmath.re(x)


def _trunc(x: Any) -> Any:
    return mpmath.floor(x) if x >= 0 else mpmath.ceil(x)


def _power(x: Any, p: float) -> Any:
    return mpmath.nan if x < 0 and p != int(p) else x ** mpf(p)


_SELU: Final = (1.6732632423543772848170429916717, 1.0507009873554804934193349852946)

# Program in x → the same function in mpmath.
FUNCTIONS: Final[dict[str, Exact]] = {
    "abs(x)": abs,
    "acos(x)": mpmath.acos,
    "acosh(x)": mpmath.acosh,
    "asin(x)": mpmath.asin,
    "asinh(x)": mpmath.asinh,
    "atan(x)": mpmath.atan,
    "atanh(x)": mpmath.atanh,
    "ceil(x)": mpmath.ceil,
    "cos(x)": mpmath.cos,
    "cosh(x)": mpmath.cosh,
    "deg2rad(x)": mpmath.radians,
    "digamma(x)": mpmath.digamma,
    "erf(x)": mpmath.erf,
    "erfc(x)": mpmath.erfc,
    "erfinv(x)": lambda x: mpmath.erfinv(x) if abs(x) < 1 else mpmath.nan if abs(x) > 1 else mpmath.inf,
    "exp(x)": mpmath.exp,
    "exp2(x)": lambda x: mpf(2) ** x,
    "expm1(x)": mpmath.expm1,
    "floor(x)": mpmath.floor,
    "frac(x)": lambda x: x - _trunc(x),
    "trunc(x)": _trunc,
    "round(x)": mpmath.nint,
    "sign(x)": mpmath.sign,
    "sgn(x)": mpmath.sign,
    "i0(x)": lambda x: mpmath.besseli(0, x),
    "special.i1(x)": lambda x: mpmath.besseli(1, x),
    "special.i0e(x)": lambda x: mpmath.besseli(0, x) * mpmath.exp(-abs(x)),
    "special.i1e(x)": lambda x: mpmath.besseli(1, x) * mpmath.exp(-abs(x)),
    "lgamma(x)": lambda x: mpmath.log(abs(mpmath.gamma(x))) if abs(x) < 1e5 else mpmath.re(mpmath.loggamma(x)),
    "log(x)": mpmath.log,
    "log10(x)": mpmath.log10,
    "log1p(x)": lambda x: mpmath.log(1 + x),
    "log2(x)": lambda x: mpmath.log(x, 2),
    "logit(x)": lambda x: mpmath.log(x / (1 - x)) if x != 1 else mpmath.inf,
    "F.logsigmoid(x)": lambda x: -mpmath.log(1 + mpmath.exp(-x)),
    "F.celu(x)": lambda x: x if x > 0 else mpmath.expm1(x),
    "F.elu(x)": lambda x: x if x > 0 else mpmath.expm1(x),
    "F.elu(x, 0.5)": lambda x: x if x > 0 else mpmath.expm1(x) / 2,
    "F.gelu(x)": lambda x: x * _normal(x),
    "F.hardshrink(x)": lambda x: x if abs(x) > 0.5 else mpf(0),
    "F.hardsigmoid(x)": lambda x: _clamp(x + 3, 0, 6) / 6,
    "F.hardswish(x)": lambda x: x * _clamp(x + 3, 0, 6) / 6,
    "F.hardtanh(x)": lambda x: _clamp(x, -1, 1),
    "clamp(x, -1, 2)": lambda x: _clamp(x, -1, 2),
    "F.leaky_relu(x, 0.25)": lambda x: x if x > 0 else x / 4,
    "F.mish(x)": lambda x: x * mpmath.tanh(mpmath.log(1 + mpmath.exp(x))),
    "relu(x)": _relu,
    "F.relu6(x)": lambda x: _clamp(x, 0, 6),
    "F.selu(x)": lambda x: mpf(_SELU[1]) * (x if x > 0 else mpf(_SELU[0]) * mpmath.expm1(x)),
    "F.silu(x)": lambda x: x / (1 + mpmath.exp(-x)),
    "F.softplus(x)": lambda x: x if x > 20 else mpmath.log(1 + mpmath.exp(x)),
    "F.softshrink(x)": lambda x: x - mpf("0.5") if x > 0.5 else x + mpf("0.5") if x < -0.5 else mpf(0),
    "F.softsign(x)": lambda x: x / (1 + abs(x)),
    "F.tanhshrink(x)": lambda x: x - mpmath.tanh(x),
    "F.threshold(x, 0.5, 0.5)": lambda x: x if x > 0.5 else mpf("0.5"),
    "F.threshold(x, 0.5, 2.0)": lambda x: x if x > 0.5 else mpf(2),
    "rad2deg(x)": mpmath.degrees,
    "reciprocal(x)": lambda x: 1 / x if x else mpmath.inf,
    "rsqrt(x)": lambda x: 1 / mpmath.sqrt(x) if x else mpmath.inf,
    "sqrt(x)": mpmath.sqrt,
    "sigmoid(x)": lambda x: 1 / (1 + mpmath.exp(-x)),
    "sin(x)": mpmath.sin,
    "sinc(x)": mpmath.sincpi,
    "sinh(x)": mpmath.sinh,
    "special.entr(x)": _entr,
    "special.erfcx(x)": lambda x: mpmath.exp(x * x) * mpmath.erfc(x),
    "special.ndtr(x)": _normal,
    "special.log_ndtr(x)": lambda x: mpmath.log(_normal(x)),
    "special.ndtri(x)": lambda x: mpmath.sqrt(2) * mpmath.erfinv(2 * x - 1) if 1e-50 < x < 1 else mpmath.nan,
    "square(x)": lambda x: x * x,
    "tan(x)": mpmath.tan,
    "tanh(x)": mpmath.tanh,
    "xlogy(x, x)": lambda x: -_entr(x) if x >= 0 else mpmath.nan,
    "special.xlog1py(x, x)": lambda x: x * mpmath.log(1 + x) if x > -1 else mpmath.nan,
    "nan_to_num(x)": lambda x: x,
    "positive(x)": lambda x: x,
    "polygamma(1, x)": lambda x: mpmath.psi(1, x),
    "mvlgamma(x + 1, 2)": lambda x: mpmath.loggamma(x + 1) + mpmath.loggamma(x + mpf("0.5")) + mpmath.log(mpmath.pi) / 2,
    "x ** 0.5": lambda x: _power(x, 0.5),
    "x ** 1.5": lambda x: _power(x, 1.5),
    "x ** 2.5": lambda x: _power(x, 2.5),
    "x ** 3": lambda x: x**3,
    "x ** -1": lambda x: 1 / x if x else mpmath.inf,
    "x ** 1": lambda x: x,
    "float_power(x, 2.0)": lambda x: x * x,
    "remainder(x, 1.0)": lambda x: x - mpmath.floor(x),
    "fmod(x, 1.0)": lambda x: x - _trunc(x),
    "atan2(x, tensor(1.0))": lambda x: mpmath.atan2(x, 1),
    "atan2(x, tensor(-1.0))": lambda x: mpmath.atan2(x, -1),
    "atan2(tensor(0.5), x)": lambda x: mpmath.atan2(mpf("0.5"), x),
    "hypot(x, tensor(0.5))": lambda x: mpmath.sqrt(x * x + mpf("0.25")),
    "hypot(x, tensor(0.0))": abs,
    "maximum(x, tensor(0.5))": lambda x: max(x, mpf("0.5")),
    "minimum(x, tensor(2.0))": lambda x: min(x, mpf(2)),
    "fmax(x, tensor(0.0))": lambda x: max(x, mpf(0)),
    "fmin(x, tensor(-0.5))": lambda x: min(x, mpf("-0.5")),
    "copysign(x, tensor(-1.0))": lambda x: -abs(x),
    "logaddexp(x, tensor(1.0))": lambda x: mpmath.log(mpmath.exp(x) + mpmath.e),
    "logaddexp2(x, tensor(1.0))": lambda x: mpmath.log(mpf(2) ** x + 2, 2),
    "lerp(x, tensor(2.0), 0.25)": lambda x: x + (2 - x) / 4,
    "addcmul(x, x, x)": lambda x: x + x * x,
    "where(x > 0.5, x * x, x - 0.25)": lambda x: x * x if x > 0.5 else x - mpf("0.25"),
    "F.smooth_l1_loss(x, zeros_like(x), reduction='none')": lambda x: x * x / 2 if abs(x) < 1 else abs(x) - mpf("0.5"),
    "F.huber_loss(x, zeros_like(x), reduction='none', delta=2.0)": lambda x: x * x / 2 if abs(x) < 2 else 2 * (abs(x) - 1),
    "F.l1_loss(x, zeros_like(x), reduction='none')": abs,
}
# The program → points that it is asked at; elsewhere PyTorch's own function leaves its domain without a word, or mpmath is too slow.
_ONLY: Final[dict[str, Callable[[float], bool]]] = {
    "mvlgamma(x + 1, 2)": lambda x: -0.5 < x < 1e4,
    "lgamma(x)": lambda x: abs(x) < 1e4,
    "digamma(x)": lambda x: abs(x) < 1e4,
    "polygamma(1, x)": lambda x: abs(x) < 1e4,
    "special.ndtri(x)": lambda x: x > 1e-50 or x <= 0,
    "special.ndtr(x)": lambda x: abs(x) < 1e4,
    "special.log_ndtr(x)": lambda x: abs(x) < 1e4,
}
FLAT: Final = ("ceil(x)", "floor(x)", "trunc(x)", "round(x)", "sign(x)", "sgn(x)")


@dataclass(frozen=True)
class Truth:
    """What mpmath says of a function at a point; `derivative` only where it is smooth."""

    verdict: str
    derivative: float = math.nan
    value: float = math.nan


def _derivatives(f: Exact, x: float, sign: int) -> tuple[Any, Any]:
    """The quotients at a step of 1e-25 of x (of 1, at 0), and at its square root's fourth power."""
    at, quotients = mpf(x), []
    for digits in (20, 28):
        h = sign * (abs(at) or mpf(1)) * mpf(10) ** -digits
        quotients.append((_real(f(at + h)) - _real(f(at))) / h)
    return quotients[0], quotients[1]


def truth(f: Exact, x: float) -> Truth:
    """Smooth, kink or singular, by one-sided quotients at steps of 1e-20 and 1e-28 of the point's size."""
    with mp.workdps(_DIGITS):
        try:
            here = _real(f(mpf(x)))
        except (ValueError, ZeroDivisionError):
            return Truth("singular")
        if not abs(here) < _LARGEST:
            return Truth("singular")
        sides: list[Any] = []
        for sign in (-1, 1):
            try:
                coarse, fine = _derivatives(f, x, sign)
            except (ValueError, ZeroDivisionError):
                coarse = fine = mpmath.nan
            if mpmath.isnan(fine):
                sides.append(None)
            elif not abs(fine) < _LARGEST or (
                abs(fine) > abs(coarse) and abs(fine - coarse) > mpf("1e-6") * abs(fine) + mpf("1e-15")
            ):
                return Truth("singular")  # it grows, or is larger than any double
            else:
                sides.append(fine)
        left, right = sides
        if left is None or right is None:
            return Truth("kink")
        if abs(left - right) > mpf("1e-12") * (abs(left) + abs(right)) + mpf("1e-18"):
            return Truth("kink")
        return Truth("differentiable", float(right), float(here))


def points(text: str) -> list[float]:
    allowed = _ONLY.get(text)
    return [x for x in (*ORDINARY, *CORNERS, *EXTREME) if allowed is None or allowed(x)]


def gradient(text: str, x: float) -> float:
    """What PyTorch gives for one element."""
    leaf = torch.tensor([x], dtype=torch.float64)
    function = program(text, {"x": leaf})
    (output,) = function.call(leaf.requires_grad_())
    return float(torch.autograd.grad(output, leaf, torch.ones_like(output))[0])


@cache  # both tests ask at the same points
def expected(text: str, x: float) -> str:
    """The verdict by mpmath; `singular` where PyTorch gives NaN, `wrong` where mpmath has another derivative."""
    true, ours = truth(FUNCTIONS[text], x), gradient(text, x)
    if text in FLAT:
        return "piecewise_constant"
    if not math.isfinite(ours) or true.verdict == "singular":
        return "singular"
    if (
        true.verdict == "differentiable"
        and abs(ours - true.derivative) > 1e-3 * abs(true.derivative) + 1e-9 * abs(true.value) / max(1, abs(x)) + 1e-18
    ):
        return "wrong"
    return true.verdict


@pytest.mark.parametrize("text", FUNCTIONS)
def test_one_element(text: str) -> None:
    # The others are asked beside one another below.
    for x in points(text) if text in FLAT else share(points(text), 5):
        report = explained(text, x=[x])
        entry, right = report["inputs"]["x"], expected(text, x)
        if right == "wrong":
            assert entry["verdict"] != "differentiable" or "cannot tell" in str(entry), (x, entry)
            continue
        assert entry["verdict"] == right, (x, entry)
        assert report["outputs"]["output"]["verdict"] == right, (x, report["outputs"])


@pytest.mark.parametrize("text", [text for text in FUNCTIONS if text not in FLAT])
@pytest.mark.share(2)
def test_several_elements(text: str) -> None:
    x = points(text)
    verdicts = [expected(text, value) for value in x]
    entry = explained(text, x=x)["inputs"]["x"]
    indices = {
        kind: {e[0] for f in entry["findings"] if f["verdict"] == kind for e in f["elements"]} for kind in ("kink", "singular")
    }
    for k, right in enumerate(verdicts):
        if right in ("kink", "singular"):
            assert k in indices[right], (x[k], entry)
        elif right == "differentiable":
            assert k not in indices["kink"] | indices["singular"], (x[k], entry)
