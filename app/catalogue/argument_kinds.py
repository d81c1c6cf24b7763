"""The kinds of plain arguments: which values each takes, and what they become."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from app.catalogue.entry import Argument
from app.query import DTYPE_BYTES, Parameter

INTEGER_LIMIT: Final = (
    1 << 31
)  # sizes, counts and paddings: no tensor here has more elements, and some kernels narrow to 32 bits
# PyTorch's own word for "to the end".
_TO_THE_END: Final = ((1 << 63) - 1,)
_TO_THE_END_NAMES: Final = ("start", "end")
# Lists in which null means "as the input has it" (adaptive pooling).
_WITH_HOLES: Final = ("output_size",)
_NONFINITE: Final = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}

# Kind → what it takes, in words.
WORDS: Final[dict[str, str]] = {
    "number": "a number",
    "integer": "an integer",
    "boolean": "true or false",
    "string": "a string",
    "dtype": f"a dtype: {', '.join(DTYPE_BYTES)}",
    "numbers": "a list of numbers",
    "integers": "a list of integers",
    "booleans": "a list of true and false",
    "tensor": "a tensor",
    "tensors": "a list of tensors",
}


class WrongKindError(Exception):
    """A value that its argument does not take; the text says why, where the kind alone does not."""


def converted(argument: Argument, value: Parameter) -> Any:
    """`value` as the call takes it: a list as a tuple, a bare value where a list is meant as `argument` says.

    Raises:
        WrongKindError: the kind does not take this value.
    """
    if value is None:
        if argument.optional:
            return None
        raise WrongKindError("null")
    return _READERS[argument.kind](argument, value)


def _number(argument: Argument, value: Parameter) -> Any:
    if isinstance(value, str) and value in _NONFINITE:
        return _NONFINITE[value]
    if not isinstance(value, int | float):  # PyTorch's scalars are truth values too: fill(x, value=True)
        raise WrongKindError
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        raise WrongKindError("it has more than 64 bits; write it as a floating number")
    return value


def _integer(argument: Argument, value: Parameter) -> Any:
    if isinstance(value, bool) or not isinstance(value, int):
        whole = isinstance(value, float) and value.is_integer()
        raise WrongKindError(f"write {int(value)}" if whole and isinstance(value, float) else "")
    if abs(value) > INTEGER_LIMIT and not (argument.name in _TO_THE_END_NAMES and value in _TO_THE_END):
        raise WrongKindError(f"it must lie between -{INTEGER_LIMIT} and {INTEGER_LIMIT}")
    return value


def _boolean(argument: Argument, value: Parameter) -> Any:
    if not isinstance(value, bool):
        raise WrongKindError("write true or false" if value in (0, 1) else "")
    return value


def _string(argument: Argument, value: Parameter) -> Any:
    if not isinstance(value, str):
        raise WrongKindError
    return value


def _dtype(argument: Argument, value: Parameter) -> Any:
    name = value.removeprefix("torch.") if isinstance(value, str) else ""
    if name not in DTYPE_BYTES:
        raise WrongKindError
    return name


def _list_of(member: Callable[[Argument, Parameter], Any]) -> Callable[[Argument, Parameter], Any]:
    def read(argument: Argument, value: Parameter) -> Any:
        if not isinstance(value, tuple | list):
            single = member(argument, value)
            return single if argument.bare else (single,)
        if argument.nested and value and all(isinstance(inner, tuple | list) for inner in value):
            return tuple(tuple(member(argument, leaf) for leaf in inner) for inner in value)  # type: ignore[union-attr]
        return tuple(None if leaf is None and argument.name in _WITH_HOLES else member(argument, leaf) for leaf in value)

    return read


_READERS: Final[dict[str, Callable[[Argument, Parameter], Any]]] = {
    "number": _number,
    "integer": _integer,
    "boolean": _boolean,
    "string": _string,
    "dtype": _dtype,
    "numbers": _list_of(_number),
    "integers": _list_of(_integer),
    "booleans": _list_of(_boolean),
}
