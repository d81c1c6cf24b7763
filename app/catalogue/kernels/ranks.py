"""How many axes a tensor may have. PyTorch's own loops refuse more than 64, and its planning of a view takes time without end."""

from __future__ import annotations

from collections.abc import Iterable
from types import EllipsisType
from typing import Any, Final

from app.catalogue.kernels.unsafe_values import UnsafeValuesError
from app.query import RANK_LIMIT

# Operations that take long lists of integers which are no shape: lengths, places to cut, elements.
_LONG_LISTS: Final = frozenset(
    {"split", "split_with_sizes", "tensor_split", "hsplit", "vsplit", "dsplit", "nn.functional.ctc_loss", "tensor"}
)


def check_arguments(operation: str, values: Iterable[Any]) -> None:
    """A shape, or an index with its new axes, is no longer than a tensor may have axes. Raises UnsafeValuesError, `too_costly`.

    Arguments:
        operation: its catalogue name; `[]` is indexing, where a list names elements and a tuple axes.
        values: of the call, positional and by keyword.
    """
    if operation in _LONG_LISTS:
        return
    plain = 0
    for value in values:
        if isinstance(value, int):
            plain += 1
        elif not isinstance(value, list | tuple) or (isinstance(value, list) and operation == "[]"):
            continue
        elif len(value) > RANK_LIMIT and all(isinstance(member, int | slice | EllipsisType | None) for member in value):
            raise _too_many(len(value))
    if plain > RANK_LIMIT:
        raise _too_many(plain)


def check_result(result: Any) -> None:
    """No tensor of `result` has too many axes. Raises UnsafeValuesError, `too_costly`."""
    if isinstance(result, list | tuple):
        for member in result:
            check_result(member)
    elif getattr(result, "ndim", 0) > RANK_LIMIT:
        raise _too_many(result.ndim)


def _too_many(axes: int) -> UnsafeValuesError:
    return UnsafeValuesError(
        "size",
        f"It would make a tensor of {axes:,} axes; the limit is {RANK_LIMIT}.",
        f"at most {RANK_LIMIT} axes",
        f"{axes:,}",
        code="too_costly",
    )
