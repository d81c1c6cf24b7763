"""How many axes a tensor may have. PyTorch's own loops refuse more than 64, and its planning of a view takes time without end."""

from __future__ import annotations

from collections.abc import Iterable
from types import EllipsisType
from typing import Any

from app.catalogue.facts import operations_with, short
from app.catalogue.kernels.unsafe_values import UnsafeValuesError
from app.query import RANK_LIMIT


def check_arguments(operation: str, values: Iterable[Any]) -> None:
    """A shape, or an index with its new axes, is no longer than a tensor may have axes. Raises UnsafeValuesError, `too_costly`.

    Arguments:
        operation: its catalogue name; `[]` is indexing, where a list names elements and a tuple axes.
        values: of the call, positional and by keyword.
    """
    if operation == "tensor" or short(operation) in operations_with("long_lists"):
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
