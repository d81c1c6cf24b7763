"""A parsed query → Query: names, tensors, lists of tensors, parameters.

One tensor or a list of tensors? `[[1, 2], [3, 4]]` is a matrix for `softmax` and two vectors for `cat`. An operation's signature
decides. For a program or a function, and where an operation's signatures differ, a list is one tensor if it can be one; else it
is a list of tensors if a member has the object form, or if its members are lists that do not fit together (`[[1, 2], [3]]`).
`NAME.0`, `NAME.1`… is another spelling of a list.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from app.catalogue.read import find
from app.errors import PullbackError
from app.limits import TENSOR_COUNT_LIMIT
from app.protocols.describe import describe
from app.protocols.json_tensors import RaggedError, tensor
from app.protocols.native.query_body import QueryBody, read_body
from app.protocols.strict_json import OutOfRange
from app.protocols.tensor_names import checked_names, joined
from app.query import Input, Parameter, Query, TensorData

_NO_LISTS: Final[tuple[frozenset[str], frozenset[str]]] = (frozenset(), frozenset())
TENSOR_FIELDS: Final = ("inputs", "cotangent", "tangent", "expected")


def query(value: Any, known: Mapping[str, TensorData] = MappingProxyType({})) -> Query:
    """The query that a parsed JSON value spells; tensors that came another way stand in it as TensorData.

    Arguments:
        known: those that it spells of `inputs`, `cotangent` and `tangent`, each read as one tensor, by their paths.

    Raises `bad_request`, `bad_parameter`, `bad_tensor`, `unknown_operation`.
    """
    body = read_body(value)
    _check_names(body)
    inputs = _inputs(body, known)
    lists = {name for name, member in inputs.items() if type(member) is tuple}
    cotangent = {
        name: known.get(f"cotangent.{name}") or tensor(member, f"cotangent.{name}") for name, member in body.cotangent.items()
    }
    tangent = _one_by_one(body.tangent, "tangent", lists)
    expected = _one_by_one(body.expected, "expected", lists)
    _check_count(inputs, cotangent, tangent, expected)
    return Query(
        operation=body.operation,
        program=body.program,
        function=body.function,
        inputs=inputs,
        parameters={name: _parameter(member, f"parameters.{name}") for name, member in body.parameters.items()},
        want=tuple(body.want),
        wrt=None if body.wrt is None else tuple(body.wrt),
        of=body.of,
        cotangent=cotangent,
        tangent=tangent,
        batched=tuple(body.batched),
        expected=expected,
        format=body.format,
        dtype=body.dtype,
        encoding=body.encoding,
        seed=body.seed,
        timeout_s=body.timeout_s,
    )


# --- names -----------------------------------------------------------------------------------------------------------


def _check_names(body: QueryBody) -> None:
    _check_count(body.inputs, body.cotangent, body.tangent, body.expected)
    for field in (*TENSOR_FIELDS, "parameters"):
        checked_names(getattr(body, field), field)
    for name in body.parameters:
        if name in body.inputs:
            raise PullbackError(
                "bad_request",
                f"{name!r} stands in `inputs` and in `parameters`.",
                at=f"parameters.{name}",
                expected="each name in one of the two",
                fix="Keep tensors in `inputs` and plain values in `parameters`.",
            )


# --- tensors ---------------------------------------------------------------------------------------------------------


def _inputs(body: QueryBody, known: Mapping[str, TensorData]) -> dict[str, Input]:
    always, perhaps = _NO_LISTS if body.operation is None else _list_names(body.operation)
    read: dict[str, Input] = {}
    for name, value in body.inputs.items():
        at = f"inputs.{name}"
        if name in always and (type(value) is list or name not in perhaps):
            read[name] = _members(value, at)
        elif at in known:
            read[name] = known[at]
        elif name in perhaps or body.operation is None:
            read[name] = _tensor_or_list(value, at)
        else:
            read[name] = tensor(value, at)
    return joined(read)


@lru_cache(maxsize=1024)
def _list_names(operation: str) -> tuple[frozenset[str], frozenset[str]]:
    """The operation's inputs for which a list is always a list of tensors, and those that are something else in some signature.

    `spacing` of `gradient` stands in both: it is a list of tensors or one number.
    """
    kinds: dict[str, set[str]] = {}
    for signature in find(operation).signatures:
        for argument in signature.arguments:
            kinds.setdefault(argument.name, set()).add(argument.kind)
    with_lists = {name for name, argument_kinds in kinds.items() if "tensors" in argument_kinds}
    always = frozenset(name for name in with_lists if "tensor" not in kinds[name])
    return always, frozenset(name for name in with_lists if len(kinds[name]) > 1)


def _members(value: Any, at: str) -> tuple[TensorData, ...]:
    if type(value) is not list:
        raise PullbackError(
            "bad_tensor",
            "This input is a list of tensors.",
            at=at,
            expected="a list of tensors",
            given="one tensor" if type(value) in (dict, TensorData) else describe(value),
            fix="Send [tensor, tensor, …].",
        )
    if len(value) > TENSOR_COUNT_LIMIT:
        _refuse_count(len(value), at)
    return tuple([tensor(member, f"{at}[{index}]") for index, member in enumerate(value)])


def _tensor_or_list(value: Any, at: str) -> Input:
    try:
        return tensor(value, at)
    except PullbackError as refused:
        if type(value) is not list:
            raise
        kinds = set(map(type, value))
        if dict in kinds:
            return _members(value, at)
        if kinds != {list} or not isinstance(refused, RaggedError):
            raise
        try:
            return _members(value, at)
        except PullbackError:
            raise refused from None


def _one_by_one(sent: Mapping[str, Any], field: str, lists: set[str]) -> dict[str, TensorData]:
    """name → tensor; what is given for a list of tensors, as `NAME.0`, `NAME.1`…"""
    read: dict[str, TensorData] = {}
    for name, value in sent.items():
        at = f"{field}.{name}"
        members_of = _members(value, at) if name in lists else None
        members = (
            {name: tensor(value, at)} if members_of is None else {f"{name}.{i}": member for i, member in enumerate(members_of)}
        )
        twice = next((key for key in members if key in read or (key != name and key in sent)), None)
        if twice is not None:
            raise PullbackError("bad_request", f"{twice!r} is given twice.", at=f"{field}.{twice}", expected="each name once")
        read.update(members)
    return read


def _check_count(inputs: Mapping[str, Any], *others: Mapping[str, Any]) -> None:
    count = sum([len(value) if type(value) is tuple else 1 for value in inputs.values()]) + sum(map(len, others))
    if count > TENSOR_COUNT_LIMIT:
        _refuse_count(count, "inputs")


def _refuse_count(count: int, at: str) -> None:
    raise PullbackError(
        "bad_request",
        f"The query has {count} tensors, which is too many.",
        at=at,
        expected=f"at most {TENSOR_COUNT_LIMIT} tensors",
        given=str(count),
        fix="Stack them into one tensor.",
    )


# --- parameters ------------------------------------------------------------------------------------------------------


_PLAIN: Final = {str, bool, float, type(None)}
_IN_RANGE: Final[dict[type, str]] = {int: "an integer of 64 bits", OutOfRange: "a number that float64 holds"}


def _parameter(value: Any, at: str) -> Parameter:
    kind = type(value)
    if kind in _PLAIN or (kind is int and -(1 << 63) <= value < 1 << 63):
        return value  # type: ignore[no-any-return]
    if kind is list:
        if set(map(type, value)) <= _PLAIN:
            return tuple(value)
        return tuple([_parameter(member, f"{at}[{index}]") for index, member in enumerate(value)])
    raise PullbackError(
        "bad_parameter",
        "A number of a parameter is out of range." if kind in (int, OutOfRange) else "A parameter must be a plain value.",
        at=at,
        expected=_IN_RANGE.get(kind, "a number, string, boolean, null, or a list of these"),
        given=describe(value),
        fix="A tensor goes into `inputs`." if kind in (dict, TensorData) else None,
    )
