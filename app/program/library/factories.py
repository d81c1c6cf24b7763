"""Tensors that a program makes out of plain numbers: `zeros(3, 3)`, `arange(n)`, `tensor([1.0, 2.0])`, `randn(4)`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch

from app.catalogue.call import DTYPES as CONTRACT_DTYPES
from app.program.reading.source import Refusal
from app.program.semantics import sizes, static
from app.program.semantics.aside import aside
from app.program.semantics.graph_values import Emit, MultiOutput, Value, example, is_tensor
from app.program.semantics.trace import ELEMENT_LIMIT

DTYPES: Final[dict[str, torch.dtype]] = CONTRACT_DTYPES | {
    "double": torch.float64, "half": torch.float16, "long": torch.int64, "short": torch.int16, "cdouble": torch.complex128,
    "cfloat": torch.complex64,
}  # fmt: skip
# `torch.float` and `torch.int` are 32 bits wide; the bare words are Python's.
TORCH_DTYPES: Final = DTYPES | {"float": torch.float32, "int": torch.int32}
PYTHON_DTYPES: Final = DTYPES | {"float": torch.float64, "int": torch.int64}
# Which of Python's types a dtype is where it is called, or asked for by `isinstance`: their words are dtypes as values.
PYTHON_NAMES: Final = {torch.float64: "float", torch.int64: "int", torch.bool: "bool", torch.complex128: "complex"}


# PyTorch's old names of dtypes, where they are not called: `x.type(torch.DoubleTensor)`.
TENSOR_TYPES: Final = {
    "FloatTensor": "float32", "DoubleTensor": "float64", "HalfTensor": "float16", "LongTensor": "int64", "IntTensor": "int32",
    "BoolTensor": "bool", "ByteTensor": "uint8",
}  # fmt: skip


class Device:
    """Where all tensors are; `x.device` gives it, and giving it to a maker changes nothing."""

    type: Final = "cpu"


DEVICE: Final = Device()

# Which dtype a maker takes where none is named: the query's floating one, always or only if a number in it is floating; or int64.
_ALWAYS, _BY_VALUE, _INTEGER = "always", "by_value", "integer"


@dataclass(frozen=True, slots=True)
class Factory:
    """A maker: PyTorch's function, the rule of its default dtype, whether it takes a size, whether it draws random numbers."""

    make: Callable[..., Any]
    dtype: str
    sized: bool = False
    random: bool = False


FACTORIES: Final[dict[str, Factory]] = {
    "zeros": Factory(torch.zeros, _ALWAYS, sized=True),
    "ones": Factory(torch.ones, _ALWAYS, sized=True),
    "full": Factory(torch.full, _BY_VALUE),
    "eye": Factory(torch.eye, _ALWAYS),
    "arange": Factory(torch.arange, _BY_VALUE),
    "linspace": Factory(torch.linspace, _ALWAYS),
    "logspace": Factory(torch.logspace, _ALWAYS),
    "tensor": Factory(torch.tensor, _BY_VALUE),
    "scalar_tensor": Factory(torch.scalar_tensor, _ALWAYS),
    "tril_indices": Factory(torch.tril_indices, _INTEGER),
    "triu_indices": Factory(torch.triu_indices, _INTEGER),
    "hann_window": Factory(torch.hann_window, _ALWAYS),
    "hamming_window": Factory(torch.hamming_window, _ALWAYS),
    "blackman_window": Factory(torch.blackman_window, _ALWAYS),
    "bartlett_window": Factory(torch.bartlett_window, _ALWAYS),
    "kaiser_window": Factory(torch.kaiser_window, _ALWAYS),
    "fft.fftfreq": Factory(torch.fft.fftfreq, _ALWAYS),
    "fft.rfftfreq": Factory(torch.fft.rfftfreq, _ALWAYS),
    "rand": Factory(torch.rand, _ALWAYS, sized=True, random=True),
    "randn": Factory(torch.randn, _ALWAYS, sized=True, random=True),
    "randint": Factory(torch.randint, _INTEGER, random=True),
    "normal": Factory(torch.normal, _ALWAYS, random=True),
    "randperm": Factory(torch.randperm, _INTEGER, random=True),
}
ALIASES: Final = {
    "as_tensor": "tensor",
    "asarray": "tensor",
    "from_numpy": "tensor",
    "Tensor": "tensor",
    **dict.fromkeys(
        ("FloatTensor", "DoubleTensor", "LongTensor", "IntTensor", "ShortTensor", "CharTensor", "ByteTensor", "BoolTensor"),
        "tensor",
    ),
    "empty": "zeros",
}
# Constructors as of the time before PyTorch 0.4 → their dtype; None: the query's own.
_TYPED: Final[dict[str, torch.dtype | None]] = {
    "Tensor": None, "FloatTensor": None, "DoubleTensor": None, "LongTensor": torch.int64, "IntTensor": torch.int32,
    "ShortTensor": torch.int16, "CharTensor": torch.int8, "ByteTensor": torch.uint8, "BoolTensor": torch.bool,
}  # fmt: skip
# `x.new_zeros(3)`: the maker, in the dtype of x.
NEW: Final = {"new_empty": "zeros", "new_zeros": "zeros", "new_ones": "ones", "new_full": "full", "new_tensor": "tensor"}

_DROPPED: Final[dict[str, str]] = {
    "out": "Assign the result to a name: leave `out` out.",
    "names": "Axes have numbers here: leave `names` out.",
}


# Arguments that mean nothing here: all tensors are dense, on the worker's device, and random numbers follow the query's seed.
_IGNORED: Final = ("device", "generator", "layout", "memory_format", "pin_memory", "non_blocking", "requires_grad", "inplace")


def keywords_of(name: str, kwargs: Mapping[str, Value]) -> dict[str, Value]:
    """Keyword arguments that a call may have, dtypes by their names resolved, `device=x.device` left out.

    Raises:
        Refusal: for arguments that decide about devices, memory and autograd.
    """
    taken: dict[str, Value] = {}
    for keyword, value in kwargs.items():
        if keyword in _IGNORED:
            continue
        if value is DEVICE or value is None or value is False:
            if keyword in _DROPPED:
                continue
        elif keyword in _DROPPED:
            raise Refusal(f"`{name}` does not take `{keyword}` in a program.", _DROPPED[keyword])
        taken[keyword] = dtype_of(value) if keyword == "dtype" and value is not None else value
    return taken


def dtype_of(value: Value) -> torch.dtype:
    """A dtype out of `torch.float32` or the string `"float32"`."""
    if isinstance(value, torch.dtype):
        return value
    if isinstance(value, str) and value.removeprefix("torch.") in TORCH_DTYPES:
        return TORCH_DTYPES[value.removeprefix("torch.")]
    if isinstance(value, str) and value.removeprefix("torch.") in TENSOR_TYPES:
        return TORCH_DTYPES[TENSOR_TYPES[value.removeprefix("torch.")]]
    raise Refusal(f"{static.named(value).capitalize()} is not a dtype.", f"Use one of {', '.join(sorted(DTYPES))}.")


def new_tensor(
    emit: Emit,
    name: str,
    args: tuple[Value, ...],
    kwargs: Mapping[str, Value],
    dtype: torch.dtype,
    real: bool,
    stack: Callable[[Emit, Value], Value] | None = None,
) -> Value:
    """The step that makes a tensor out of plain numbers.

    Arguments:
        dtype: the floating dtype of the query.
        real: the examples are no fakes, so sizes are proved on the meta device before memory is taken.
        stack: makes one tensor of a list that holds tensors.
    """
    keywords = keywords_of(name, kwargs)
    if name in _TYPED:
        keywords.setdefault("dtype", _TYPED[name] or dtype)
        if all(isinstance(size, int) for size in args):  # `torch.Tensor(3, 4)`: sizes; `torch.Tensor()`: nothing yet
            name, args = "zeros", args or (0,)
    hands_on = name != "tensor"  # `torch.as_tensor(x)`; `torch.tensor(x)` copies the numbers alone, as all of them do of a list
    name = ALIASES.get(name, name)
    factory = FACTORIES[name]
    if name == "tensor" and args:
        if is_tensor(args[0]) and len(args) == 1:
            is_of_it = keywords.get("dtype") in (None, example(args[0]).dtype)
            value = args[0] if is_of_it else emit("to", torch.Tensor.to, (args[0], keywords["dtype"]), {})
            return value if hands_on else _numbers_alone(emit, emit("clone", torch.clone, (value,), {}))
        if stack is not None and _holds_tensor(args[0]):
            return _numbers_alone(emit, stack(emit, args[0]))
    if factory.sized and args and (len(args) > 1 or isinstance(args[0], int)):
        args = (tuple(args),)
    _check_plain(name, (*args, *keywords.values()))
    if keywords.get("dtype") is None:
        chosen = _default(factory.dtype, [*args, *keywords.values()], dtype)
        keywords.pop("dtype", None)
        if chosen is not None:
            keywords["dtype"] = chosen
    if real and name != "tensor":
        _check_size(name, factory, args, keywords)
    return emit(name, factory.make, args, keywords, random=factory.random)


def _numbers_alone(emit: Emit, value: Value) -> Value:
    return emit("tensor", torch.Tensor.detach, (value,), {})


def _default(rule: str, values: list[Any], dtype: torch.dtype) -> torch.dtype | None:
    if rule == _ALWAYS:
        return dtype
    if rule == _BY_VALUE and _holds(values, float):
        return dtype
    if rule == _BY_VALUE and _holds(values, complex):
        return torch.promote_types(dtype, torch.complex64)
    return None


def _holds(value: Any, kind: type) -> bool:
    if isinstance(value, list | tuple):
        static.members_in(value)
        return any(_holds(member, kind) for member in value)
    return isinstance(value, kind)


def _holds_tensor(value: Value) -> bool:
    static.members_in(value)
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, list | tuple):
            stack += item
        elif is_tensor(item) or isinstance(item, MultiOutput):
            return True
    return False


def _check_plain(name: str, values: tuple[Value, ...]) -> None:
    for value in values:
        if is_tensor(value) or isinstance(value, MultiOutput):
            raise Refusal(
                f"`{name}` takes plain numbers that are known before tensors run, not a tensor.",
                f"Use a parameter of the query, `x.shape[0]`, or multiply: `{name}(…) * t`.",
            )
        if isinstance(value, int) and abs(value) > ELEMENT_LIMIT and name not in ("full", "tensor", "scalar_tensor", "arange"):
            raise Refusal(
                f"`{name}` would make a tensor of {value:,} elements or more; the limit is {ELEMENT_LIMIT:,}.",
                code="too_costly",
            )


def _check_size(name: str, factory: Factory, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
    try:
        with aside():
            plain, named = sizes.plain((args, keywords))
            size = factory.make(*plain, **{**named, "device": "meta"}).numel()
    except (RuntimeError, TypeError, ValueError):
        return  # the step itself fails then, with PyTorch's reason
    if size > ELEMENT_LIMIT:
        raise Refusal(f"`{name}` would make a tensor of {size:,} elements; the limit is {ELEMENT_LIMIT:,}.", code="too_costly")
