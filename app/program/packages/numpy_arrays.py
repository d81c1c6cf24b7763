"""NumPy's arrays, which are tensors here: methods that NumPy means otherwise than PyTorch, and what of a computation stays an array."""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from app.program.reading.bound_names import bound_names
from app.program.reading.source import Refusal
from app.program.semantics.graph_values import Value, example, is_tensor

Operation = Callable[[str, tuple[Value, ...], dict[str, Value]], Value]
ARRAY: Final = "array"  # marks the node of an array
# Methods that are an operation of another name, or mean what another method does.
_RENAMED: Final = {"max": "amax", "min": "amin", "dot": "matmul", "copy": "clone", "clip": "clamp", "ravel": "flatten"}
_INSTEAD: Final = {
    "sort": "Write `a = torch.sort(a).values`.", "resize": "Write `a = a.reshape(…)`.", "view": "Write `.reshape(…)`.",
    "partition": "Write `torch.sort(a).values`.", "searchsorted": "Write `torch.searchsorted(a, v)`.",
}  # fmt: skip
_METHODS: Final = (*_RENAMED, "mean", "std", "var", "repeat", "cumsum", "cumprod", "transpose", "ptp", "round")
# What only tensors have, and only PyTorch's functions take; first names of its modules.
_OF_TENSORS: Final = frozenset(dir(torch.Tensor)) - frozenset(dir(np.ndarray))
_OF_PYTORCH: Final = ("torch", "nn", "F", "optim", "functional", "autograd", "Variable")


def is_alone(tree: ast.Module, lines: Sequence[str]) -> bool:
    """Whether a text imports NumPy or JAX and has nothing of PyTorch: its inputs are arrays, and derivatives pass NumPy's functions."""
    if not any("import numpy" in line or "import jax" in line for line in lines) or any("torch" in line for line in lines):
        return False
    nodes = list(ast.walk(tree))
    packages = {
        (alias.asname or alias.name).partition(".")[0]
        for node in nodes
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    own = bound_names(tree.body) | {node.arg for node in nodes if isinstance(node, ast.arg)}
    return not any(_is_of_pytorch(node, packages, own) for node in nodes)


def _is_of_pytorch(node: ast.AST, packages: Collection[str], own: Collection[str]) -> bool:
    if isinstance(node, ast.Name):
        return node.id in _OF_PYTORCH and node.id not in own
    if isinstance(node, ast.keyword):
        return node.arg in ("dim", "keepdim")
    if not isinstance(node, ast.Attribute) or node.attr not in _OF_TENSORS:
        return False
    root: ast.expr = node
    while isinstance(root, ast.Attribute):
        root = root.value
    return not (isinstance(root, ast.Name) and root.id in (*packages, "self"))


def _interpolated(x: Any, xp: Any, fp: Any) -> Tensor:
    """`np.interp(x, xp, fp)`: straight lines between the points, and the first and last value beyond them."""
    x, xp, fp = (
        each if isinstance(each, Tensor) else torch.tensor(each, dtype=torch.get_default_dtype()) for each in (x, xp, fp)
    )
    left = (torch.searchsorted(xp.detach().contiguous(), x.detach().contiguous()) - 1).clamp(0, xp.numel() - 2)
    slope = (fp[left + 1] - fp[left]) / (xp[left + 1] - xp[left])
    inside = fp[left] + slope * (x - xp[left])
    return torch.where(x < xp[0], fp[0], torch.where(x > xp[-1], fp[-1], inside))


def _convolved(a: Tensor, v: Tensor, mode: str = "full") -> Tensor:
    """`np.convolve(a, v, mode)`."""
    longer, shorter = (a, v) if a.numel() >= v.numel() else (v, a)
    whole = torch.nn.functional.conv1d(longer[None, None], shorter.flip(0)[None, None], padding=shorter.numel() - 1)[0, 0]
    if mode == "full":
        return whole
    extent = longer.numel() if mode == "same" else longer.numel() - shorter.numel() + 1
    begin = (whole.numel() - extent) // 2
    return whole[begin : begin + extent]


def _running_maximum(a: Tensor, axis: int = 0) -> Tensor:
    return torch.cummax(a, axis).values


def _running_minimum(a: Tensor, axis: int = 0) -> Tensor:
    return torch.cummin(a, axis).values


def _sorted(a: Tensor, axis: int = -1) -> Tensor:
    return torch.sort(a, axis).values


# NumPy's functions that PyTorch has no one operation for.
COMPOSED: Final[dict[str, Callable[..., Tensor]]] = {
    "interp": _interpolated, "convolve": _convolved, "maximum.accumulate": _running_maximum, "minimum.accumulate": _running_minimum,
    "sort": _sorted,
}  # fmt: skip


def is_array(value: Value) -> bool:
    """Whether a tensor is what NumPy made."""
    return is_tensor(value) and ARRAY in value.meta


def marked(value: Value) -> Value:
    """`value`, an array from here on where it is a tensor."""
    if is_tensor(value):
        value.meta[ARRAY] = True
    return value


def of_operands(value: Value, *operands: Value) -> Value:
    """What an operator gives: an array of arrays and numbers, a tensor where one of them is a tensor."""
    tensors = [operand for operand in operands if is_tensor(operand)]
    return marked(value) if tensors and all(map(is_array, tensors)) else value


def function(operation: Operation, name: str, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value | None:
    """`np.name(array, …)` where an array's method of the name means what NumPy does; None for every other function."""
    if name not in _METHODS or not args or not is_tensor(args[0]):
        return None
    return method(operation, args[0], name, args[1:], kwargs)


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
