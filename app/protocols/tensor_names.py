"""Names in a query: identifiers, and `NAME.0`, `NAME.1`… for the members of a list of tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from app.errors import PullbackError
from app.limits import NAME_LIMIT
from app.protocols.describe import describe
from app.query import Input, TensorData


def checked_names(names: Iterable[str], field: str) -> None:
    """Raises PullbackError: `bad_request` for what is no name of an input, output or parameter."""
    for name in names:
        if not name.isidentifier() or len(name) > NAME_LIMIT or name.startswith("__"):
            _check_name(name, field)


def _check_name(name: str, field: str) -> None:
    """A name is an identifier; `tensors.0` or `output.1` names a member of a list."""
    first, *rest = name.split(".")
    if (
        len(name) <= NAME_LIMIT
        and not name.startswith("__")
        and first.isidentifier()
        and all(p.isidentifier() or _is_index(p) for p in rest)
    ):
        return
    raise PullbackError(
        "bad_request",
        f"A name in `{field}` is not a name.",
        at=field,
        expected=f"letters, digits and _ (tensors.0 for a member of a list), at most {NAME_LIMIT} characters, not beginning with __",
        given=describe(name),
    )


def _is_index(text: str) -> bool:
    return text.isascii() and text.isdigit() and (text == "0" or text[0] != "0") and len(text) < 5


def joined(read: Mapping[str, Input]) -> dict[str, Input]:
    """`NAME.0`, `NAME.1`… become the list NAME. Raises PullbackError: `bad_request` where a member is missing."""
    if not any("." in name for name in read):
        return dict(read)
    whole: dict[str, Input] = {}
    members: dict[str, dict[int, TensorData]] = {}
    for name, value in read.items():
        base, _, index = name.rpartition(".")
        if base and _is_index(index) and isinstance(value, TensorData):
            members.setdefault(base, {})[int(index)] = value
        else:
            whole[name] = value
    for base, by_index in members.items():
        if base in whole:
            raise PullbackError(
                "bad_request",
                f"{base!r} stands in `inputs` as a whole and by members.",
                at=f"inputs.{base}",
                expected="one of the two",
            )
        missing = next((i for i in range(len(by_index)) if i not in by_index), None)
        if missing is not None:
            raise PullbackError(
                "bad_request",
                f"The list {base!r} lacks its member {missing}.",
                at=f"inputs.{base}.{missing}",
                expected=f"{base}.0 to {base}.{len(by_index) - 1}",
                given=", ".join(f"{base}.{i}" for i in sorted(by_index)[:8]),
            )
        whole[base] = tuple([by_index[i] for i in range(len(by_index))])
    return whole
