"""Exact pointwise functions: each ATen call on single numbers."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from app.engine.precision.exact_arithmetic.numbers import MP, Numbers, Rule, as_numbers, divided, guarded, log, plain, scalar

# Bits before the point beyond which these would take minutes: exp(1e700000) within a sigmoid, the series of a Bessel function, 1.5 to the
# power of a number that has ten thousand digits. Float64 has 1,024.
_MOST_BITS: Final = {
    **dict.fromkeys(("sigmoid", "log_sigmoid_forward", "log_sigmoid", "special_erfcx", "logaddexp", "exp2"), 10_000),
    **dict.fromkeys(("special_i0", "i0", "special_i1", "pow", "lgamma", "digamma", "erfinv"), 2_000),
}
# Of polygamma, in whose order and in whose distance below zero mpmath counts: some ms at a thousand.
_MOST_ORDERS: Final = 1_000


def _pointwise(function: Callable[..., Any], arity: int) -> Rule:
    vectorised = np.frompyfunc(function, arity, 1)

    def rule(func: Any, result: Any, *args: Any, **kwargs: Any) -> Numbers:
        return np.asarray(vectorised(*(as_numbers(arg) for arg in args[:arity])), dtype=object)

    return rule


def _power(base: Any, exponent: Any) -> Any:
    if exponent == 0:
        return MP.mpf(1)
    if base == 0:
        return MP.mpf(0) if exponent > 0 else MP.inf
    return base ** (int(exponent) if MP.isint(exponent) else exponent)


def _polygamma(n: Any, x: Any) -> Any:
    if not 0 <= n <= _MOST_ORDERS or x < -_MOST_ORDERS:
        raise NotImplementedError
    return MP.polygamma(int(n), x)


def _log1p(x: Any) -> Any:
    # mpmath's own log1p keeps the digits of a small x.
    return -MP.inf if x == -1 else MP.log1p(x)


def _sign(x: Any) -> Any:
    return MP.sign(x)


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + MP.exp(-x))


def _remainder(a: Any, b: Any) -> Any:
    return a - b * MP.floor(a / b)


def _fmod(a: Any, b: Any) -> Any:
    q = a / b
    return a - b * (MP.floor(q) if q >= 0 else MP.ceil(q))


def _ndtr(x: Any) -> Any:
    return MP.erfc(-x / MP.sqrt(2)) / 2


def _xlogy(x: Any, y: Any) -> Any:
    return MP.mpf(0) if x == 0 else x * log(y)


_UNARY: Final[dict[str, Callable[[Any], Any]]] = {
    "neg": operator.neg, "abs": abs, "exp": MP.exp, "exp2": lambda x: MP.mpf(2) ** x, "expm1": MP.expm1, "special_expm1": MP.expm1,
    "log": log, "log2": lambda x: log(x) / MP.log(2), "log10": lambda x: log(x) / MP.log(10), "log1p": _log1p,
    "sqrt": MP.sqrt, "rsqrt": lambda x: divided(MP.mpf(1), MP.sqrt(x)), "reciprocal": lambda x: divided(MP.mpf(1), x),
    "sin": MP.sin, "cos": MP.cos, "tan": MP.tan, "asin": MP.asin, "acos": MP.acos, "atan": MP.atan,
    "sinh": MP.sinh, "cosh": MP.cosh, "tanh": MP.tanh, "asinh": MP.asinh, "acosh": MP.acosh, "atanh": MP.atanh,
    "sigmoid": _sigmoid, "erf": MP.erf, "erfc": MP.erfc, "erfinv": MP.erfinv, "lgamma": lambda x: MP.re(MP.loggamma(x)), "digamma": MP.digamma,
    "special_ndtr": _ndtr, "special_log_ndtr": lambda x: log(_ndtr(x)), "special_i0": lambda x: MP.besseli(0, x),
    "i0": lambda x: MP.besseli(0, x), "special_i1": lambda x: MP.besseli(1, x), "special_erfcx": lambda x: MP.exp(x * x) * MP.erfc(x),
    "special_entr": lambda x: -_xlogy(x, x), "sign": _sign, "sgn": _sign, "floor": MP.floor, "ceil": MP.ceil,
    "trunc": lambda x: MP.floor(x) if x >= 0 else MP.ceil(x), "round": MP.nint, "relu": lambda x: max(x, MP.mpf(0)),
    "deg2rad": lambda x: x * MP.pi / 180, "rad2deg": lambda x: x * 180 / MP.pi, "square": lambda x: x * x,
    "sinc": lambda x: MP.sincpi(x), "positive": operator.pos, "frac": lambda x: x - (MP.floor(x) if x >= 0 else MP.ceil(x)),
    **dict.fromkeys(("log_sigmoid_forward", "log_sigmoid"), lambda x: -MP.log1p(MP.exp(-x))),
}  # fmt: skip


def _with_nan(choose: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """NaN where one of the two is: Python's `max` gives the other, as no comparison with NaN holds."""
    return lambda a, b: choose(a, b) if a == a and b == b else MP.nan


_BINARY: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "mul": operator.mul, "multiply": operator.mul, "div": divided, "divide": divided, "true_divide": divided, "pow": _power,
    "maximum": _with_nan(max), "minimum": _with_nan(min), "fmax": max, "fmin": min, "atan2": MP.atan2, "hypot": MP.hypot, "polygamma": _polygamma,
    "remainder": _remainder, "fmod": _fmod, "xlogy": _xlogy, "special_xlog1py": lambda x, y: MP.mpf(0) if x == 0 else x * _log1p(y),
    "logaddexp": lambda a, b: max(a, b) + MP.log1p(MP.exp(-abs(a - b))), "copysign": lambda a, b: abs(a) * (MP.sign(b) or 1),
    "sigmoid_backward": lambda g, y: g * (1 - y) * y, "tanh_backward": lambda g, y: g * (1 - y * y),
}  # fmt: skip


def _add(func: Any, result: Any, a: Any, b: Any, alpha: Any = 1, **_: Any) -> Numbers:
    return np.asarray(as_numbers(a) + as_numbers(b) * scalar(alpha), dtype=object)


def _sub(func: Any, result: Any, a: Any, b: Any, alpha: Any = 1, **_: Any) -> Numbers:
    return np.asarray(as_numbers(a) - as_numbers(b) * scalar(alpha), dtype=object)


def _rsub(func: Any, result: Any, a: Any, b: Any, alpha: Any = 1, **_: Any) -> Numbers:
    return np.asarray(as_numbers(b) - as_numbers(a) * scalar(alpha), dtype=object)


def _div(func: Any, result: Any, a: Any, b: Any, rounding_mode: str | None = None) -> Numbers:
    quotient = np.asarray(np.frompyfunc(guarded(divided), 2, 1)(as_numbers(a), as_numbers(b)), dtype=object)
    if rounding_mode is None:
        return quotient
    rounding = MP.floor if rounding_mode == "floor" else lambda x: MP.floor(x) if x >= 0 else MP.ceil(x)
    return np.asarray(np.frompyfunc(rounding, 1, 1)(quotient), dtype=object)


def _where(func: Any, result: Any, condition: Any, a: Any, b: Any) -> Numbers:
    return np.asarray(np.where(_mask(condition), as_numbers(a), as_numbers(b)), dtype=object)


def _mask(condition: Any) -> Any:
    return plain(condition).bool().cpu().numpy()


def _clamp(func: Any, result: Any, x: Any, low: Any = None, high: Any = None, **named: Any) -> Numbers:
    low, high = named.get("min", low), named.get("max", high)
    numbers = clamped = as_numbers(x)
    if low is not None:
        clamped = np.maximum(clamped, as_numbers(low))
    clamped = clamped if high is None else np.minimum(clamped, as_numbers(high))
    return np.asarray(np.where(numbers != numbers, numbers, clamped), dtype=object)


def _fill(func: Any, result: Any, x: Any, value: Any) -> Numbers:
    return np.asarray(np.broadcast_to(np.asarray(as_numbers(value), dtype=object), tuple(result.shape)), dtype=object)


def _masked_fill(func: Any, result: Any, x: Any, mask: Any, value: Any) -> Numbers:
    return np.asarray(np.where(_mask(mask), as_numbers(value), as_numbers(x)), dtype=object)


def _threshold_backward(func: Any, result: Any, g: Any, x: Any, threshold: Any) -> Numbers:
    return np.asarray(np.where(as_numbers(x) <= scalar(threshold), MP.mpf(0), as_numbers(g)), dtype=object)


# Functions of one and of two numbers, NaN where they have no real value.
UNARY: Final = {name: guarded(function, _MOST_BITS.get(name)) for name, function in _UNARY.items()}
BINARY: Final = {name: guarded(function, _MOST_BITS.get(name)) for name, function in _BINARY.items()}
POINTWISE: Final[dict[str, Rule]] = {
    **{name: _pointwise(function, 1) for name, function in UNARY.items()},
    **{name: _pointwise(function, 2) for name, function in BINARY.items()},
    **dict.fromkeys(("div", "divide"), _div), "add": _add, **dict.fromkeys(("sub", "subtract"), _sub), "rsub": _rsub, "where": _where,
    "clamp": _clamp, "clamp_min": _clamp, "clamp_max": lambda func, result, x, high: _clamp(func, result, x, None, high),
    "masked_fill": _masked_fill, "fill": _fill, "copy": _fill, "threshold_backward": _threshold_backward,
}  # fmt: skip
