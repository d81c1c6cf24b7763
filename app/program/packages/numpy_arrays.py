"""NumPy's arrays, which are tensors here: methods that NumPy means otherwise than PyTorch, and what of a computation stays an array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from app.program.reading.source import Refusal
from app.program.semantics.graph_values import Value, example, is_tensor

Operation = Callable[[str, tuple[Value, ...], dict[str, Value]], Value]
_ARRAY: Final = "array"  # marks the node of an array
# Methods that are an operation of another name, or mean what another method does.
_RENAMED: Final = {"max": "amax", "min": "amin", "dot": "matmul", "copy": "clone", "clip": "clamp", "ravel": "flatten"}
_INSTEAD: Final = {
    "sort": "Write `a = torch.sort(a).values`.", "resize": "Write `a = a.reshape(…)`.", "view": "Write `.reshape(…)`.",
    "partition": "Write `torch.sort(a).values`.", "searchsorted": "Write `torch.searchsorted(a, v)`.",
}  # fmt: skip


def is_array(value: Value) -> bool:
    """Whether a tensor is what NumPy made."""
    return is_tensor(value) and _ARRAY in value.meta


def marked(value: Value) -> Value:
    """`value`, an array from here on where it is a tensor."""
    if is_tensor(value):
        value.meta[_ARRAY] = True
    return value


def of_operands(value: Value, *operands: Value) -> Value:
    """What an operator gives: an array of arrays and numbers, a tensor where one of them is a tensor."""
    tensors = [operand for operand in operands if is_tensor(operand)]
    return marked(value) if tensors and all(map(is_array, tensors)) else value


def method(operation: Operation, array: Any, name: str, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value | None:
    """`array.name(…)` where NumPy means something else than PyTorch; None for every other method."""
    if name in _INSTEAD:
        raise Refusal(f"`.{name}()` of an array is not in the language.", _INSTEAD[name])
    if name in ("mean", "std", "var") and not (example(array).is_floating_point() or example(array).is_complex()):
        array = operation("mul", (array, 1.0), {})
    if name in ("std", "var"):
        return _spread(operation, array, name, args, kwargs)
    if name in ("repeat", "cumsum", "cumprod"):
        return _along(operation, array, name, args, kwargs)
    if name == "transpose":
        axes = args[0] if len(args) == 1 and isinstance(args[0], tuple | list) else args
        return operation("permute", (array, tuple(axes) or tuple(range(example(array).ndim))[::-1]), {})
    if name == "ptp":
        return operation("sub", (operation("amax", (array, *args), kwargs), operation("amin", (array, *args), kwargs)), {})
    if name == "nonzero":
        return operation("nonzero", (array,), {"as_tuple": True})
    if name == "round" and len(args) == 1:
        return operation("round", (array,), {"decimals": args[0]})
    if name in _RENAMED:
        return operation(_RENAMED[name], (array, *args), kwargs)
    return operation("mean", (array, *args), kwargs) if name == "mean" else None


def _spread(operation: Operation, array: Value, name: str, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
    """The standard deviation or variance, which divides by n."""
    if len(args) > 1:
        raise Refusal(f"`.{name}()` of an array takes an axis by position here.", "Give the others by name: `ddof=1`.")
    rest = {key: value for key, value in kwargs.items() if key != "ddof"}
    return operation(name, (array, *args), {**rest, "correction": kwargs.get("ddof", 0)})


def _along(operation: Operation, array: Value, name: str, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
    """What goes along the elements one after the other where no axis is named."""
    names = ("repeats", "axis") if name == "repeat" else ("axis",)
    options = {**dict(zip(names, args, strict=False)), **kwargs}
    if not options.keys() <= set(names):
        raise Refusal(f"`.{name}()` of an array takes {' and '.join(names)} here.", "Leave the others out.")
    axis = options.get("axis")
    whole = operation("reshape", (array, (-1,)), {}) if axis is None else array
    along = 0 if axis is None else axis
    if name == "repeat":
        return operation("repeat_interleave", (whole, options["repeats"]), {"dim": along})
    return operation(name, (whole, along), {})
