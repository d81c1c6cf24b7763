"""Writes into tensors: `y[i] = v`, `y += z`, `y.clamp_(0)`, `F.relu(y, inplace=True)`, each as a new value of the same tensor.

Shapes and dtypes are held to PyTorch's rules for writes: a tensor keeps both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import Tensor, fx

from app.catalogue.dtypes import dtype_name
from app.program.function import OTHER_DATA
from app.program.library.lookup import call, lookup_method
from app.program.reading.source import Refusal
from app.program.semantics import aliases, static
from app.program.semantics.graph_values import Emit, MultiOutput, Value, example, fixed, is_tensor
from app.program.semantics.trace import Trace


def _filled(tensor: Tensor, value: Any) -> Tensor:
    return torch.as_tensor(value, dtype=tensor.dtype, device=tensor.device).expand(tensor.shape).clone()


def _copied(tensor: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    return source.to(tensor.dtype).expand(tensor.shape).clone()


def _diagonal_filled(tensor: Tensor, value: float, wrap: bool = False) -> Tensor:
    return tensor.clone().fill_diagonal_(value, wrap)


def _drawn(name: str, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    drawn: Tensor = getattr(torch.empty_like(tensor), name)(*args, **kwargs)
    return drawn


# Writes that no operation of another name does.
_OWN: Final[dict[str, Callable[..., Tensor]]] = {
    "zero_": torch.zeros_like, "fill_": _filled, "copy_": _copied, "fill_diagonal_": _diagonal_filled,
}  # fmt: skip
_DRAWN: Final = ("normal_", "uniform_", "exponential_", "bernoulli_", "log_normal_", "cauchy_", "geometric_", "random_")
# What changes the shape of the tensor object, not what is in its memory.
_RESHAPED: Final = ("unsqueeze_", "squeeze_", "t_", "transpose_", "swapaxes_", "swapdims_", "detach_")
# What reaches for memory itself.
_REFUSED: Final = {
    "resize_": "`x = x.reshape(…)`", "resize_as_": "`x = x.reshape(y.shape)`", "set_": "`x = y`", "share_memory_": "leaving the line out",
    "as_strided_": "`x = x.as_strided(…)`", "apply_": "operations on whole tensors", "map_": "operations on whole tensors",
}  # fmt: skip


def method(
    trace: Trace,
    emit: Emit,
    tensor: fx.Node,
    name: str,
    args: tuple[Value, ...],
    kwargs: Mapping[str, Value],
    *,
    initial: bool = False,
) -> Value | None:
    """`tensor.name_(…)`: the tensor, written into. None where PyTorch has no such method."""
    if name in _REFUSED:
        raise Refusal(f"`.{name}()` is not in the language.", f"Instead: {_REFUSED[name]}.")
    if name in _OWN:
        value = emit(name, _OWN[name], (tensor, *args), dict(kwargs))
    elif name in _DRAWN:
        options = {key: value for key, value in kwargs.items() if key != "generator"}
        value = emit(name, fixed(_drawn, name), (tensor, *args), options, random=True, initial=initial)
    else:
        resolved = lookup_method(name.removesuffix("_"))
        if resolved is None or not hasattr(Tensor, name):
            return None
        value = call(emit, *resolved, f".{name}", (tensor, *args), kwargs)
    if not is_tensor(value):
        raise Refusal(f"`.{name}()` is not in the language.")
    if name in _RESHAPED:
        trace.rebind(tensor, value)
        return tensor
    return write(trace, emit, tensor, value, name)


def write(trace: Trace, emit: Emit, tensor: fx.Node, value: Value, what: str) -> fx.Node:
    """`tensor`, holding `value` from here on."""
    fit = fitted(emit, tensor, value, what)
    trace.write(fit.meta["step"], tensor, fit)
    return tensor


def fitted(emit: Emit, tensor: fx.Node, value: Value, what: str) -> fx.Node:
    """`value` in the shape and dtype of `tensor`. Raises PyTorch's refusals of a write that would change them."""
    if not is_tensor(value):
        raise Refusal(f"`{what}` gives no tensor here.")
    old, new = example(tensor), example(value)
    if not new.has_shape_of(old):
        raise Refusal(
            f"`{what}` writes into a tensor of shape {list(old.shape)}, and the result has the shape {list(new.shape)}.",
            "Assign the result: `y = y + z` makes a new tensor.",
            code="shape_mismatch",
            expected=str(list(old.shape)),
            given=str(list(new.shape)),
        )
    if old.dtype == new.dtype:
        return value if "step" in value.meta else emit(what, torch.clone, (value,), {})  # type: ignore[no-any-return]
    if not torch.can_cast(new.dtype, old.dtype):
        names = [dtype_name(t.dtype) for t in (new, old)]
        raise Refusal(
            f"`{what}` gives {names[0]}, which cannot be written into a tensor of {names[1]}.",
            "Make the tensor floating first: `y = y.double()`.",
            code="operation_failed",
        )
    return emit(what, torch.Tensor.to, (value, old.dtype), {})  # type: ignore[no-any-return]


def set_item(trace: Trace, emit: Emit, tensor: fx.Node, index: Value, value: Value) -> None:
    """`tensor[index] = value`."""
    if isinstance(value, MultiOutput) or not (is_tensor(value) or static.is_number(value) or isinstance(value, list | tuple)):
        raise Refusal(f"{static.named(value).capitalize()} cannot be written into a tensor.", "Write a tensor or a number.")
    if isinstance(value, list | tuple):
        static.plain(value)
    if _is_whole(index) and is_tensor(value) and example(value).has_shape_of(example(tensor)):
        written = emit("[]=", _copied, (tensor, value), {})
    else:
        written = emit("[]=", aliases.item_set, (tensor, index, value), {})
    trace.write(written.meta["step"], tensor, written)


def _is_whole(index: Value) -> bool:
    return index is Ellipsis or (isinstance(index, slice) and index == slice(None))


def set_data(trace: Trace, emit: Emit, tensor: fx.Node, value: fx.Node) -> None:
    """`tensor.data = value`: a write that no derivative sees, and no tensor that shows the memory that `tensor` had."""
    if not example(value).has_shape_of(example(tensor)):
        raise Refusal("`.data = …` keeps the shape of the tensor here.", "Assign to a name.", code="shape_mismatch")
    enabled, trace.grad_enabled = trace.grad_enabled, False
    try:
        taken = emit(OTHER_DATA, torch.Tensor.detach, (value,), {})
        aliases.parted(tensor, trace.now(tensor))
        write(trace, emit, tensor, taken, ".data")
    finally:
        trace.grad_enabled = enabled
