"""Queries whose integers, lengths and shapes are hostile, made out of the catalogue's own examples.

A mutation changes one argument: its integers become negative, huge, the least, decreasing, equal, or random; it gets longer, shorter or
empty; a floating tensor gets a NaN, or loses a row. A hostile query has one mutation, or two.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.catalogue.entry import Argument, Operation
from app.query import Parameter

Array = NDArray[Any]
Value = Any  # an Array, a tuple of Arrays, or a plain value
LEAST32: Final = -(2**31)
# Optional arguments are tried with these, so that the kernels behind them are reached too.
TRIED: Final[dict[str, tuple[Any, ...]]] = {
    "boolean": (True, False),
    "integer": (1, 0, 2, -1),
    "integers": ((1,), (1, 1), (0, 1)),
    "number": (1.0, 2.0),
    "tensor": (),
}
_STRINGS: Final[dict[str, tuple[str, ...]]] = {
    "mode": ("max", "mean", "nearest", "bilinear", "bicubic", "reflect", "circular", "constant"),
    "padding_mode": ("border", "reflection"),
    "reduction": ("none", "sum"),
    "reduce": ("prod", "amax", "mean", "max", "min"),
    "driver": ("gelss", "gelsd", "gelsy"),
    "rounding_mode": ("trunc", "floor"),
}


# Examples reach one kernel of an operation; these reach others. (operation, inputs, parameters)
MORE: Final[tuple[tuple[str, dict[str, Any], dict[str, Any]], ...]] = (
    ("nn.functional.embedding_bag", {"input": [0, 2, 1], "weight": [[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]], "offsets": [0, 2]}, {}),
    ("nn.functional.embedding_bag", {"input": [0, 2, 1], "weight": [[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]], "offsets": [0, 2]}, {"mode": "max"}),
    ("nn.functional.embedding_bag", {"input": [0, 2], "weight": [[0.1, 0.2], [0.3, 0.4]], "offsets": [0, 2]}, {"include_last_offset": True}),
    ("segment_reduce", {"data": [1.0, 2.5, 3.0, 4.0], "offsets": [0, 1, 4]}, {"reduce": "max"}),
    ("nn.functional.ctc_loss", {"log_probs": [[[-1.1, -1.2, -1.0]] * 2] * 4, "targets": [1, 2, 1], "input_lengths": [4, 3],
     "target_lengths": [2, 1]}, {}),
    ("linalg.lstsq", {"input": [[1.0, 2.0], [3.0, 5.0], [1.0, 1.0]], "b": [[1.0], [2.0], [1.0]]}, {"driver": "gelss"}),
    ("lu_unpack", {"LU_data": [[[4.0, 0.5], [0.25, 2.0]]] * 2, "LU_pivots": [[1, 2]] * 2}, {}),
    ("linalg.ldl_solve", {"LD": [[4.0, 0.5, 0.1], [0.25, 2.0, 0.3], [0.2, 0.1, 1.0]], "pivots": [-2, -2, 3], "B": [[1.0], [2.0], [3.0]]}, {}),
    ("linalg.lu_solve", {"LU": [[[4.0, 0.5], [0.25, 2.0]]] * 2, "pivots": [[1, 2]] * 2, "B": [[[1.0], [2.0]]] * 2}, {}),
    ("nn.functional.grid_sample", {"input": [[[[1.0, 2.0], [3.0, 4.0]]]], "grid": [[[[0.1, 0.2], [0.3, 0.4]]]]}, {"padding_mode": "border"}),
    ("nn.functional.grid_sample", {"input": [[[[[1.0, 2.0], [3.0, 4.0]]] * 2]], "grid": [[[[[0.1, 0.2, 0.1]]]]]}, {"padding_mode": "reflection"}),
    ("linalg.eigvals", {"A": [[1.0 + (i == j) + i * j % 3 for i in range(6)] for j in range(6)]}, {}),
    ("nn.functional.nll_loss", {"input": [[[-1.0, -2.0], [-0.5, -0.1]]], "target": [[0, 1]], "weight": [1.0, 2.0]}, {"ignore_index": 1}),
    ("nn.functional.max_unpool2d", {"input": [[[[1.0, 2.0]]]], "indices": [[[[0, 5]]]]}, {"kernel_size": (2, 2)}),
    ("div", {"input": [7, -7, 5], "other": [2, -2, 3]}, {"rounding_mode": "trunc"}),
)  # fmt: skip
# Arguments whose integers are of 32 bits.
_NARROW: Final = ("LU_pivots", "pivots")


@dataclass(frozen=True)
class Plain:
    """One call: arguments by their names, tensors as arrays."""

    operation: str
    inputs: Mapping[str, Value]
    parameters: Mapping[str, Parameter]

    def changed(self, name: str, value: Value) -> Plain:
        if name in self.inputs:
            return replace(self, inputs={**self.inputs, name: value})
        return replace(self, parameters={**self.parameters, name: value})

    def __str__(self) -> str:
        def shown(value: Value) -> str:
            if isinstance(value, tuple) and value and isinstance(value[0], np.ndarray):
                return "[" + ", ".join(map(shown, value)) + "]"
            if isinstance(value, np.ndarray):
                text = str(value.tolist()) if value.size <= 24 else f"{str(value.ravel()[:24].tolist())[:-1]}, …]"
                return f"{value.dtype}{list(value.shape)} {text}"
            return repr(value)

        parts = [f"{name}={shown(value)}" for name, value in (*self.inputs.items(), *self.parameters.items())]
        return f"{self.operation}({', '.join(parts)})"


def more(name: str) -> Iterator[Plain]:
    """The calls of `MORE` of one operation."""
    for operation, inputs, parameters in MORE:
        if operation == name:
            arrays = {key: np.array(value, dtype="int32" if key in _NARROW else None) for key, value in inputs.items()}
            yield Plain(name, arrays, parameters)


def extended(base: Plain, operation: Operation, draw: random.Random) -> Iterator[Plain]:
    """`base` with one optional argument more: a plain value, or a tensor of integers or like one that is there."""
    arrays = [value for value in base.inputs.values() if isinstance(value, np.ndarray)]
    for argument in {a.name: a for signature in operation.signatures for a in signature.arguments}.values():
        if argument.name in base.inputs or argument.name in base.parameters:
            continue
        for value in _tried(argument, arrays, draw):
            if isinstance(value, np.ndarray):
                yield replace(base, inputs={**base.inputs, argument.name: value})
            else:
                yield replace(base, parameters={**base.parameters, argument.name: value})


def _tried(argument: Argument, arrays: Sequence[Array], draw: random.Random) -> Iterator[Value]:
    if argument.kind == "string":
        yield from _STRINGS.get(argument.name, ())
    elif argument.kind == "tensor" and arrays:
        like = draw.choice(arrays)
        yield from (
            like.copy(),
            np.arange(2),
            np.array([0, len(like) if like.ndim else 1]),
            np.ones(like.shape[-1:], like.dtype),
        )
    else:
        yield from TRIED.get(argument.kind, ())


def integral(base: Plain) -> Plain | None:
    """`base` with its floating tensors as whole numbers, among them 0; None where there is none."""
    if not any(isinstance(v, np.ndarray) and v.dtype.kind == "f" for v in base.inputs.values()):
        return None
    inputs = {
        name: np.round(value).astype("int64") if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value
        for name, value in base.inputs.items()
    }
    return replace(base, inputs=inputs)


def extremes(base: Plain) -> Iterator[Plain]:
    """Every pair of extreme integers in two arguments at once, where all tensors are integral; in each signed dtype."""
    names = [name for name, value in base.inputs.items() if isinstance(value, np.ndarray)]
    if not 0 < len(names) < 3 or len(names) != len(base.inputs) or any(base.inputs[name].dtype.kind != "i" for name in names):
        return
    for dtype in ("int8", "int16", "int32", "int64"):
        info = np.iinfo(dtype)
        few = np.array([info.min, info.min + 1, -2, -1, 1, 2, 6, info.max - 1, info.max, 70], dtype)
        pairs = (np.repeat(few, len(few)), np.tile(few, len(few)))
        yield replace(base, inputs={name: pairs[index].copy() for index, name in enumerate(names)})


def not_finite(base: Plain) -> Iterator[Plain]:
    """A NaN, an infinity in one element of each floating tensor, one tensor at a time."""
    for name, value in base.inputs.items():
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size:
            for number in (np.nan, np.inf):
                changed = value.copy()
                changed.reshape(-1)[0] = number
                yield base.changed(name, changed)


def hostile(base: Plain, draw: random.Random, *, tensors_only: bool = False) -> Plain:
    """One or two mutations of `base`; of its tensors only, or of its plain integers too, which then may be sizes beyond all memory."""
    names = [*base.inputs, *(name for name, value in base.parameters.items() if _is_integral(value) and not tensors_only)]
    if not names:
        return base
    names += 2 * [name for name, value in base.inputs.items() if isinstance(value, np.ndarray) and value.dtype.kind == "i"]
    for name in sorted({draw.choice(names) for _ in range(draw.choice((1, 1, 2)))}):
        value = base.inputs[name] if name in base.inputs else base.parameters[name]
        base = base.changed(name, _mutated(value, draw))
    return base


def _is_integral(value: Parameter) -> bool:
    if isinstance(value, tuple):
        return all(_is_integral(member) for member in value)
    return isinstance(value, int) and not isinstance(value, bool)


def _mutated(value: Value, draw: random.Random) -> Value:
    if isinstance(value, tuple) and value and isinstance(value[0], np.ndarray):
        index = draw.randrange(len(value))
        return (*value[:index], _mutated(value[index], draw), *value[index + 1 :])
    if isinstance(value, np.ndarray):
        kind = value.dtype.kind
        return draw.choice(_INTEGERS if kind == "i" else _BYTES if kind in "ub" else _FLOATS)(value, draw)
    if isinstance(value, tuple):
        return draw.choice(_LISTS)(value, draw)
    return _number(int(value), draw)


def _number(value: int, draw: random.Random) -> int:
    return draw.choice((-1, -2, 0, value + 1, value + 2, -value, 3 * value + 1, 7, 2**31 - 1, LEAST32, 1 << 30, 1000))


def _elements(limit: int) -> Callable[[Array, random.Random], Array]:
    """Some elements from a hostile few; values up to `limit` and beyond fit no small tensor's rows."""

    def change(array: Array, draw: random.Random) -> Array:
        info = np.iinfo(array.dtype) if array.dtype.kind in "iu" else np.iinfo("uint8")
        few = [v for v in (-1, -2, info.min, info.max, limit, limit + 1, 10**6, 10**12, 0) if info.min <= v <= info.max]
        changed = array.copy()
        flat = changed.reshape(-1)
        for _ in range(draw.choice((1, 1, 2, max(flat.size, 1)))):
            if flat.size:
                flat[draw.randrange(flat.size)] = draw.choice(few)
        return changed

    return change


def _all(array: Array, draw: random.Random) -> Array:
    info = np.iinfo(array.dtype) if array.dtype.kind in "iu" else np.iinfo("uint8")
    return np.full_like(array, draw.choice([v for v in (-1, info.min, info.max, 0, 1, 1000) if info.min <= v <= info.max]))


def _longer(array: Array, draw: random.Random) -> Array:
    return (
        array
        if array.ndim == 0
        else np.concatenate([array, array[-1:] if len(array) else np.zeros((1, *array.shape[1:]), array.dtype)])
    )


def _shorter(array: Array, draw: random.Random) -> Array:
    if array.ndim == 0:
        return array.reshape(1)
    axis = draw.randrange(array.ndim)
    return np.ascontiguousarray(np.take(array, range(max(array.shape[axis] - 1, 0)), axis=axis))


def _empty(array: Array, draw: random.Random) -> Array:
    if array.ndim == 0:
        return np.zeros(0, array.dtype)
    axis = draw.randrange(array.ndim)
    return np.zeros([0 if index == axis else extent for index, extent in enumerate(array.shape)], array.dtype)


def _more_axes(array: Array, draw: random.Random) -> Array:
    return np.repeat(array[None], draw.choice((1, 2, 3)), axis=0)


def _fewer_axes(array: Array, draw: random.Random) -> Array:
    return np.ascontiguousarray(array[0]) if array.ndim and len(array) else array


def _decreasing(array: Array, draw: random.Random) -> Array:
    return np.sort(array, axis=None)[::-1].reshape(array.shape).copy()


def _random(array: Array, draw: random.Random) -> Array:
    high = 3 * array.size + 2
    return np.array([draw.randrange(-2, high) for _ in range(array.size)]).astype(array.dtype).reshape(array.shape)


def _other_integers(array: Array, draw: random.Random) -> Array:
    return array.astype(draw.choice(("int32", "int64", "int16", "uint8")))


def _not_finite(array: Array, draw: random.Random) -> Array:
    changed = array.copy()
    if changed.size:
        changed.reshape(-1)[draw.randrange(changed.size)] = draw.choice((np.nan, np.inf, -np.inf, 1e300, 0.0))
    return changed


def _single(array: Array, draw: random.Random) -> Array:
    return array.astype("float32") if array.dtype == np.float64 else array


_SHAPES: Final = (_longer, _shorter, _empty, _more_axes, _fewer_axes)
_INTEGERS: Final = (_elements(3), _elements(8), _elements(50), _all, _decreasing, _random, _random, _other_integers, *_SHAPES)
_BYTES: Final = (_elements(3), _all, *_SHAPES)
_FLOATS: Final = (_not_finite, _single, *_SHAPES)


def _one_member(value: tuple[Any, ...], draw: random.Random) -> tuple[Any, ...]:
    if not value:
        return (_number(1, draw),)
    index = draw.randrange(len(value))
    member = value[index]
    other = _one_member(member, draw) if isinstance(member, tuple) else _number(int(member), draw)
    return (*value[:index], other, *value[index + 1 :])


_LISTS: Final[tuple[Callable[[tuple[Any, ...], random.Random], tuple[Any, ...]], ...]] = (
    _one_member,
    _one_member,
    lambda value, draw: value[:-1],
    lambda value, draw: (*value, value[-1] if value else 1),
    lambda value, draw: (),
    lambda value, draw: tuple(reversed(value)),
    lambda value, draw: (value[0],) * len(value) if value else value,
)
