"""What a tensor has after a dot: `x.shape`, `x.T`, `x.float()`, `x.sum(0)`; and what it has elsewhere but not here."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import fx

from app.program.library import factories
from app.program.library.factories import DEVICE, NEW, PYTHON_DTYPES, TORCH_DTYPES, dtype_of, keywords_of
from app.program.library.lookup import call, lookup_method, nearest
from app.program.packages import numpy_arrays
from app.program.reading.source import Refusal
from app.program.semantics import static
from app.program.semantics.graph_values import Emit, MultiOutput, Value, example, is_tensor
from app.program.semantics.questions import Example
from app.program.semantics.values import Inert

# What a tensor has in PyTorch but not here, and what to do.
_INSTEAD: Final[dict[str, str]] = {
    "register_hook": "Leave it out: ask for the derivative with the query's \"want\".", "to_dense": "Leave it out: tensors are dense.",
    "storage": "Use indexing.", "data_ptr": "Use indexing.", "stride": "Use indexing.",
}  # fmt: skip
# Kinds of tensors that there are none of: all are dense and, as `torch.cuda.is_available()` says too, on no accelerator.
_NO_OTHERS: Final = ("is_cuda", "is_mps", "is_xpu", "is_meta", "is_sparse", "is_quantized", "is_nested", "is_mkldnn")
# Methods that mean nothing here: the tensor itself.
NOTHING: Final = frozenset({
    "requires_grad_", "retain_grad", "cuda", "cpu", "pin_memory", "share_memory_", "coalesce", "rename", "refine_names",
    "mps", "xpu",
})  # fmt: skip
# What `x.type()` calls a tensor.
_TYPE_NAMES: Final = {
    torch.float64: "Double", torch.float32: "Float", torch.float16: "Half", torch.bfloat16: "BFloat16", torch.int64: "Long", torch.int32: "Int",
    torch.int16: "Short", torch.int8: "Char", torch.uint8: "Byte", torch.bool: "Bool",
}  # fmt: skip
_CASTS: Final = frozenset(TORCH_DTYPES) - {
    "float64",
    "float32",
    "float16",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint8",
    "complex128",
    "complex64",
}


def attribute(emit: Emit, tensor: fx.Node, name: str) -> Value:
    """`tensor.name` without a call."""
    value = example(tensor)
    if name == "shape":
        return value.sizes
    if name == "size" and numpy_arrays.is_array(tensor):
        return value.numel()
    if name in ("ndim", "dtype"):
        return value.ndim if name == "ndim" else value.dtype
    if name == "device":
        return DEVICE
    if name == "data":
        return emit("data", torch.Tensor.detach, (tensor,), {})
    if name in ("T", "mT", "H", "mH"):
        return _transposed(emit, tensor, name)
    if name in ("real", "imag"):
        return emit(name, getattr(torch, name), (tensor,), {})
    if name in _NO_OTHERS:
        return False
    if name in _INSTEAD:
        raise Refusal(f"`.{name}` is not in the language.", _INSTEAD[name])
    if name in ("is_complex", "is_floating_point") or lookup_method(name):
        raise Refusal(f"`.{name}` is called here, not read.", f"Write `.{name}()`.")
    raise _no_method(name)


def _transposed(emit: Emit, tensor: fx.Node, name: str) -> Value:
    axes = example(tensor).ndim
    if name in ("mT", "mH"):
        function = torch.adjoint if name == "mH" else torch.transpose
        return emit("adjoint", function, (tensor,), {}) if name == "mH" else emit("transpose", function, (tensor, -2, -1), {})
    if name == "H":
        return emit("adjoint", torch.adjoint, (tensor,), {}) if axes == 2 else emit("conj", torch.conj, (tensor,), {})
    if axes == 2:
        return emit("t", torch.t, (tensor,), {})
    return emit("permute", torch.permute, (tensor, tuple(range(axes))[::-1]), {})


def method(
    emit: Emit, tensor: fx.Node, name: str, args: tuple[Value, ...], kwargs: Mapping[str, Value], default: torch.dtype
) -> Value:
    """`tensor.name(*args, **kwargs)`. `default`: the floating dtype of the query."""
    value = example(tensor)
    if name in (
        "size",
        "dim",
        "ndimension",
        "numel",
        "nelement",
        "is_complex",
        "is_floating_point",
        "element_size",
        "get_device",
    ):
        return _known(value, name, args, kwargs)
    if name in _CASTS and not args:
        return _cast(emit, tensor, TORCH_DTYPES[name])
    if name == "type" and not (args or kwargs):
        return f"torch.{_TYPE_NAMES.get(value.dtype, 'Float')}Tensor"
    if name == "astype":
        return _cast(emit, tensor, dtype_of(args[0] if args else kwargs.get("dtype")))
    if name in ("to", "type"):
        return _to(emit, tensor, args, kwargs)
    if name == "type_as":
        return _cast(emit, tensor, _dtype_like(args))
    if name in ("is_contiguous", "is_leaf"):
        return True
    if name == "numpy":
        return _as_numpy(emit, tensor, kwargs)
    if name == "detach":
        return emit("detach", torch.Tensor.detach, (tensor,), {})
    if name == "contiguous":
        return emit("contiguous", torch.Tensor.contiguous, (tensor,), {})
    if name == "clone":
        return emit("clone", torch.clone, (tensor,), {})
    if name in NEW or name == "new":  # `x.new(2, 3)`, `x.new([1.0, 2.0])`: PyTorch's own before 0.4
        maker = NEW.get(name) or ("tensor" if args and isinstance(args[0], list) else "zeros")
        options = {"dtype": value.dtype, **kwargs}
        return factories.new_tensor(emit, maker, args or ((0,),), options, default, real=False)
    if name in _INSTEAD:
        raise Refusal(f"`.{name}()` is not in the language.", _INSTEAD[name])
    resolved = lookup_method(name)
    if resolved is None:
        raise _no_method(name)
    operation, function = resolved
    return call(emit, operation, function, f".{name}", (tensor, *args), kwargs)


def _as_numpy(emit: Emit, tensor: fx.Node, kwargs: Mapping[str, Value]) -> Value:
    if not kwargs.get("force"):
        refuse_as_numpy(tensor)
    return emit("detach", torch.Tensor.detach, (tensor,), {})


def refuse_as_numpy(tensor: fx.Node) -> None:
    """Raises PyTorch's refusal where a tensor requires grad and NumPy asks for its numbers: `x.numpy()`, `np.array(x)`."""
    if tensor.meta.get("live"):
        raise Refusal(
            "PyTorch refuses this: can't call numpy() on a tensor that requires grad, as its derivative would be lost.",
            "Write `.detach().numpy()` where no derivative is wanted, else stay with tensors: `torch.sin(x)` for `np.sin`.",
            code="operation_failed",
            raises="RuntimeError",
        )


def _no_method(name: str) -> Refusal:
    near = nearest(name, ("shape", "size", "ndim", "numel", "detach", "float", "double", "long"))
    return Refusal(f"A tensor has no `.{name}` here.", f"Nearest names: {', '.join(near)}." if near else None)


def _known(value: Example, name: str, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> Any:
    """Reads that the shape and dtype alone answer."""
    if name == "size":
        axis = args[0] if args else kwargs.get("dim")
        return value.sizes if axis is None else size(value, static.integer(axis, "The axis of `.size`"))
    if name in ("numel", "nelement"):
        return value.numel()
    known = {
        "dim": value.ndim, "ndimension": value.ndim, "is_complex": value.is_complex(), "is_floating_point": value.is_floating_point(),
        "element_size": value.element_size(), "get_device": DEVICE,
    }  # fmt: skip
    return known[name]


def size(value: Example, axis: int) -> int:
    if not -value.ndim <= axis < value.ndim:
        raise Refusal(
            f"Axis {axis} is out of range: the tensor has {value.ndim} axes.",
            code="shape_mismatch",
            given=str(list(value.shape)),
        )
    return value.size(axis)


def _cast(emit: Emit, tensor: fx.Node, dtype: torch.dtype) -> Value:
    return tensor if example(tensor).dtype == dtype else emit("to", torch.Tensor.to, (tensor, dtype), {})


def _dtype_like(args: tuple[Value, ...]) -> torch.dtype:
    if len(args) == 1 and is_tensor(args[0]):
        return example(args[0]).dtype
    raise Refusal("`.type_as` takes one tensor.")


def _to(emit: Emit, tensor: fx.Node, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> Value:
    named = {k: v for k, v in kwargs.items() if k not in ("copy", "device", "non_blocking", "memory_format")}
    wanted = [a for a in (*args, *keywords_of(".to", named).values()) if a is not None and not _is_device(a)]
    if not wanted:
        return tensor
    if len(wanted) == 1 and is_tensor(wanted[0]):
        return _cast(emit, tensor, example(wanted[0]).dtype)
    return _cast(emit, tensor, dtype_of(wanted[0]))


def moves_a_leaf(name: str, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> bool:
    """Whether a call gives another tensor than itself of a leaf of PyTorch's default dtype, float32, on the CPU: then that is no leaf."""
    wanted = (*args, *kwargs.values())
    if any(isinstance(value, str) and value.partition(":")[0] in ("cuda", "mps", "xpu") for value in wanted):
        return True
    if name in ("to", "type"):
        return any(isinstance(value, torch.dtype) and value != torch.float32 for value in wanted)
    return name in ("double", "half", "bfloat16", "cuda")


def _is_device(value: Value) -> bool:
    if isinstance(value, str):
        return value.partition(":")[0] in ("cpu", "cuda", "mps", "xpu")
    return value is DEVICE or isinstance(value, bool | Inert) or (isinstance(value, int) and not is_tensor(value))


def is_single(tensor: fx.Node) -> bool:
    """Whether a tensor has one element, so that Python may ask whether it holds."""
    return example(tensor).is_single()


def is_floating_value(value: Value) -> bool:
    return isinstance(value, float) or (is_tensor(value) and example(value).is_floating_point())


def matched(emit: Emit, left: Value, right: Value) -> tuple[Value, Value]:
    """The two sides of `@`, whole numbers beside floating ones made floating: NumPy does so, PyTorch refuses in words about dtypes."""
    if not (is_tensor(left) and is_tensor(right)):
        return left, right
    kinds = [example(left).dtype, example(right).dtype]
    whole = [not (kind.is_floating_point or kind.is_complex) for kind in kinds]
    if whole[0] == whole[1]:
        return left, right
    if whole[0]:
        return emit("to", torch.Tensor.to, (left, kinds[1]), {}), right
    return left, emit("to", torch.Tensor.to, (right, kinds[0]), {})


def output_attribute(pick: Any, outputs: MultiOutput, name: str) -> Value:
    """`max(x, 1).values`."""
    if name in outputs.fields:
        return pick(outputs, outputs.fields.index(name))
    names = ", ".join(f"`.{field}`" for field in outputs.fields) or ", ".join(
        f"[{i}]" for i in range(min(len(outputs.values), 4))
    )
    raise Refusal(f"`{outputs.operation}` gives several tensors, and none is `.{name}`.", f"Take {names}.")


def indexed(emit: Emit, tensor: fx.Node, index: Value) -> Value:
    """`tensor[index]`: integers, slices, None, `...`, masks, lists and integer tensors."""
    parts = index if isinstance(index, tuple) else (index,)
    if numpy_arrays.is_array(tensor) and any(map(_runs_back, parts)):
        tensor, parts = _turned(emit, tensor, parts)
        index = parts
    for part in parts:
        _check_index(part)
    single = [i for i, part in enumerate(parts) if _is_position(part)]
    others = any(isinstance(part, list | tuple | range) or (is_tensor(part) and not _is_position(part)) for part in parts)
    if single and not others:
        return _at_positions(emit, tensor, parts)
    return emit("[]", operator.getitem, (tensor, index), {})


def _check_index(part: Value) -> None:
    if isinstance(part, slice) and isinstance(part.step, int) and part.step < 1:
        raise Refusal("A tensor cannot be sliced with a step below 1.", "Write `flip(x, (0,))` to reverse an axis.")
    if part is None or part is Ellipsis or is_tensor(part) or isinstance(part, int | slice | list | range | tuple):
        return
    if isinstance(part, MultiOutput):
        raise Refusal(
            f"`{part.operation}` gives several tensors; an index is one.", f"Take `.{(part.fields or ('values',))[-1]}`."
        )
    raise Refusal(
        f"{static.named(part).capitalize()} cannot index a tensor.", "Use integers, slices, lists or integer tensors."
    )


def _runs_back(part: Value) -> bool:
    return isinstance(part, slice) and isinstance(part.step, int) and part.step < 0


def _turned(emit: Emit, array: fx.Node, parts: tuple[Value, ...]) -> tuple[fx.Node, tuple[Value, ...]]:
    """`a[::-1]` of an array: the axis is turned round, and the slice runs forward."""
    plain = [part for part in parts if part is not None]
    if not all(part is Ellipsis or isinstance(part, int | slice) for part in plain):
        raise Refusal("A slice with a step below 0 stands beside integers and slices here.", "Take it on a line of its own.")
    left = plain.index(Ellipsis) if Ellipsis in plain else len(plain)
    forward: list[Value] = []
    axes: list[int] = []
    for number, part in enumerate(plain):
        axis = number if number <= left else example(array).ndim - len(plain) + number
        if not _runs_back(part):
            continue
        length = example(array).extent(axis)
        start, stop, step = part.indices(length)
        axes.append(axis)
        forward.append(slice(length - 1 - start, max(length - 1 - stop, length - 1 - start), -step))
    rest = iter(forward)
    turned: fx.Node = emit("flip", torch.flip, (array, tuple(axes)), {})
    return turned, tuple(next(rest) if _runs_back(part) else part for part in parts)


def _is_position(part: Value) -> bool:
    if not is_tensor(part):
        return False
    tensor = example(part)
    return (
        tensor.ndim == 0
        and not tensor.is_floating_point()
        and not tensor.is_complex()
        and tensor.dtype not in (torch.bool, torch.uint8)
    )


def _at_positions(emit: Emit, tensor: fx.Node, parts: tuple[Value, ...]) -> Value:
    """Positions that 0-d tensors hold, read without looking at their values: so the step can be planned and run per sample."""
    plain = tuple(slice(None) if is_tensor(part) else part for part in parts)
    if any(part != slice(None) for part in plain):
        tensor = emit("[]", operator.getitem, (tensor, plain), {})
    rank = example(tensor).ndim
    index = [part for part in parts if is_tensor(part) or part is None or part is Ellipsis or isinstance(part, slice)]
    if Ellipsis in index:
        where = index.index(Ellipsis)
        index[where : where + 1] = [slice(None)] * (rank - len(index) + 1)
    positions = [part if is_tensor(part) else None for part in index]
    return emit("[]", torch.ops.aten.index.Tensor, (tensor, positions), {})


def members(emit: Emit, tensor: fx.Node) -> MultiOutput:
    """The parts of `tensor` along its first axis, as PyTorch iterates."""
    if example(tensor).ndim == 0:
        raise Refusal("A 0-d tensor has no members to go through.", "It is one number.")
    parts: MultiOutput = emit("unbind", torch.unbind, (tensor,), {})
    return parts


def python_dtype(name: str) -> torch.dtype | None:
    """The dtype that a bare word means: `float64`, `float`, `long`."""
    return PYTHON_DTYPES.get(name)
