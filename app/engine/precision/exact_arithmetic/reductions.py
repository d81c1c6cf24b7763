"""Exact sums, means, extremes, softmax and spreads along dimensions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch

from app.engine.precision.exact_arithmetic.numbers import MP, Numbers, Rule, as_numbers, divided, guarded, plain


def _axes(x: Any, dim: Any) -> tuple[int, ...]:
    if dim is None or (isinstance(dim, list | tuple) and not dim):
        return tuple(range(x.dim()))
    dims = dim if isinstance(dim, list | tuple) else [dim]
    return tuple(d % max(1, x.dim()) for d in dims) if x.dim() else ()


def _over(x: Any, dim: Any, keepdim: bool, reduce: Callable[..., Any]) -> Numbers:
    axes = _axes(x, dim)
    return np.asarray(reduce(as_numbers(x), axis=axes, keepdims=keepdim), dtype=object)


def _total(numbers: Numbers, axis: tuple[int, ...], keepdims: bool) -> Any:
    return np.sum(numbers, axis=axis, keepdims=keepdims, initial=MP.mpf(0))


def _sum(func: Any, result: Any, x: Any, dim: Any = None, keepdim: bool = False, **_: Any) -> Numbers:
    return _over(x, dim, keepdim, _total)


def _mean(func: Any, result: Any, x: Any, dim: Any = None, keepdim: bool = False, **_: Any) -> Numbers:
    total = _over(x, dim, keepdim, _total)
    count = int(np.prod([x.shape[axis] for axis in _axes(x, dim)], initial=1))
    return np.asarray(total / MP.mpf(count), dtype=object) if count else np.full(total.shape, MP.nan)


def _extreme(reduce: Callable[..., Any]) -> Rule:
    def rule(func: Any, result: Any, x: Any, dim: Any = None, keepdim: bool = False, **_: Any) -> Any:
        if isinstance(result, tuple):  # values and indices: the element that the float64 run took
            indices = result[1] if keepdim or not x.dim() else result[1].unsqueeze(dim)
            if not x.dim():
                return (as_numbers(x),)
            taken = np.take_along_axis(as_numbers(x), indices.cpu().numpy(), axis=dim)
            return (taken if keepdim else np.squeeze(taken, axis=dim),)
        numbers = as_numbers(x)  # of which NaN is never the larger, and PyTorch takes it before all others
        value, axes = _over(x, dim, keepdim, reduce), _axes(x, dim)
        return np.where(np.any(numbers != numbers, axis=axes, keepdims=keepdim), MP.nan, value)

    return rule


def _sort(func: Any, result: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
    if not x.dim():
        return (as_numbers(x),)
    stable = "stable" in func._overloadname
    dim = kwargs.get("dim", args[1 if stable else 0] if len(args) > int(stable) else -1)
    return (np.take_along_axis(as_numbers(x), result[1].cpu().numpy(), axis=dim),)


def _picked(func: Any, result: Any, x: Any, dim: Any = None, keepdim: bool = False, **_: Any) -> Any:
    """The element that the float64 run took; of all elements, the first that equals it."""
    if isinstance(result, tuple):
        return _extreme(np.max)(func, result, x, dim, keepdim)
    if result.isnan():
        return np.asarray(MP.nan, dtype=object)
    where = int((plain(x).reshape(-1) == result).to(torch.int64).argmax())
    return np.asarray(as_numbers(x).reshape(-1)[where], dtype=object)


def _topk(func: Any, result: Any, x: Any, k: int, dim: int = -1, *_: Any, **__: Any) -> Any:
    return (np.take_along_axis(as_numbers(x), result[1].cpu().numpy(), axis=dim),)


def _prod(func: Any, result: Any, x: Any, dim: Any = None, keepdim: bool = False, **_: Any) -> Numbers:
    if dim is None:
        return np.asarray(np.prod(as_numbers(x), initial=MP.mpf(1)), dtype=object)
    return np.asarray(np.prod(as_numbers(x), axis=dim, keepdims=keepdim, initial=MP.mpf(1)), dtype=object)


def _running(ufunc: np.ufunc) -> Rule:
    def rule(func: Any, result: Any, x: Any, dim: int, **_: Any) -> Numbers:
        return np.asarray(ufunc.accumulate(as_numbers(x), axis=dim), dtype=object) if x.dim() else as_numbers(x)

    return rule


def _logcumsumexp(func: Any, result: Any, x: Any, dim: int, **_: Any) -> Numbers:
    if not x.dim():
        return np.asarray(as_numbers(x), dtype=object)
    totals = np.add.accumulate(np.frompyfunc(guarded(MP.exp), 1, 1)(as_numbers(x)), axis=dim)
    return np.asarray(
        np.frompyfunc(guarded(lambda total: -MP.inf if total == 0 else MP.log(total)), 1, 1)(totals), dtype=object
    )


def _exponentials(x: Any, dim: int) -> tuple[Numbers, Numbers]:
    numbers = as_numbers(x)
    axis = dim if numbers.ndim else None
    shifted = numbers - np.max(numbers, axis=axis, keepdims=True) if numbers.size else numbers
    powers = np.asarray(np.frompyfunc(guarded(MP.exp), 1, 1)(shifted), dtype=object)
    return np.asarray(shifted, dtype=object), np.asarray(
        np.sum(powers, axis=axis, keepdims=True, initial=MP.mpf(0)), dtype=object
    )


def _softmax(func: Any, result: Any, x: Any, dim: int, *_: Any, **__: Any) -> Numbers:
    shifted, total = _exponentials(x, dim)
    return np.asarray(np.frompyfunc(guarded(lambda s, t: MP.exp(s) / t), 2, 1)(shifted, total), dtype=object)


def _log_softmax(func: Any, result: Any, x: Any, dim: int, *_: Any, **__: Any) -> Numbers:
    shifted, total = _exponentials(x, dim)
    return np.asarray(shifted - np.frompyfunc(guarded(MP.log), 1, 1)(total), dtype=object)


def _softmax_backward(func: Any, result: Any, g: Any, y: Any, dim: int, *_: Any) -> Numbers:
    grad, out = as_numbers(g), as_numbers(y)
    axis = dim if grad.ndim else None
    return np.asarray(out * (grad - np.sum(grad * out, axis=axis, keepdims=True)), dtype=object)


def _log_softmax_backward(func: Any, result: Any, g: Any, y: Any, dim: int, *_: Any) -> Numbers:
    grad, out = as_numbers(g), as_numbers(y)
    axis = dim if grad.ndim else None
    powers = np.frompyfunc(guarded(MP.exp), 1, 1)(out)
    return np.asarray(grad - powers * np.sum(grad, axis=axis, keepdims=True), dtype=object)


def _logsumexp(func: Any, result: Any, x: Any, dim: Any, keepdim: bool = False, **_: Any) -> Numbers:
    axes = _axes(x, dim)
    top = np.max(as_numbers(x), axis=axes, keepdims=True)
    total = np.sum(np.frompyfunc(guarded(MP.exp), 1, 1)(as_numbers(x) - top), axis=axes, keepdims=True)
    out = np.asarray(np.frompyfunc(guarded(MP.log), 1, 1)(total) + top, dtype=object)
    return out if keepdim else np.asarray(np.squeeze(out, axis=axes), dtype=object)


def _spread(func: Any, result: Any, x: Any, *args: Any, **named: Any) -> Any:
    """`var`, `std` and their pairs with the mean, by all three of their signatures."""
    name, overload = func.overloadpacket.__name__, func._overloadname
    keepdim = bool(named.get("keepdim", False))
    if overload == "default":
        dim, correction = None, float(args[0] if args else named.get("unbiased", True))
    elif overload == "dim":
        dim, correction = args[0], float(args[1] if len(args) > 1 else named.get("unbiased", True))
        keepdim = args[2] if len(args) > 2 else keepdim
    else:
        dim, asked = args[0] if args else named.get("dim"), named.get("correction")
        correction = 1.0 if asked is None else float(asked)
    axes, numbers = _axes(x, dim), as_numbers(x)
    count = MP.mpf(int(np.prod([x.shape[axis] for axis in axes], initial=1)))
    mean = np.sum(numbers, axis=axes, keepdims=True, initial=MP.mpf(0)) / count
    total = np.sum((numbers - mean) ** 2, axis=axes, keepdims=True, initial=MP.mpf(0))
    out = np.asarray(np.frompyfunc(guarded(divided), 2, 1)(total, count - MP.mpf(correction)), dtype=object)
    if name.startswith("std"):
        out = np.asarray(np.frompyfunc(guarded(MP.sqrt), 1, 1)(out), dtype=object)
    if not keepdim:
        out, mean = np.asarray(np.squeeze(out, axis=axes), dtype=object), np.asarray(np.squeeze(mean, axis=axes), dtype=object)
    return (out, mean) if name.endswith("_mean") else out


REDUCTIONS: Final[dict[str, Rule]] = {
    "sum": _sum, "mean": _mean, "amax": _extreme(np.max), "amin": _extreme(np.min), "max": _extreme(np.max), "min": _extreme(np.min),
    "sort": _sort, "topk": _topk, **dict.fromkeys(("median", "nanmedian", "mode"), _picked), "prod": _prod, "cumsum": _running(np.add),
    "cumprod": _running(np.multiply), "_softmax": _softmax, "_log_softmax": _log_softmax, "_softmax_backward_data": _softmax_backward,
    "_log_softmax_backward_data": _log_softmax_backward, "logsumexp": _logsumexp, "logcumsumexp": _logcumsumexp,
    **dict.fromkeys(("var", "std", "var_mean", "std_mean"), _spread),
}  # fmt: skip
