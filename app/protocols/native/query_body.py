"""The envelope of a query in JSON: its fields, their types and ranges, and every refusal of them in our words.

Knows the table of section 2 of the contract. Refuses to know tensors, names and operations: `inputs` stays as it was parsed.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.errors import PullbackError
from app.limits import TENSOR_COUNT_LIMIT
from app.protocols.describe import describe, nearest
from app.query import ComputeDtype, Encoding, Format, Want

Names = Annotated[list[str], Field(fail_fast=True, min_length=1, max_length=TENSOR_COUNT_LIMIT)]
Tree = dict[str, Any]


def _outputs_alone() -> list[Want]:
    return ["outputs"]


class QueryBody(BaseModel):
    """A query as JSON spells it; a field that is null is left out."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    operation: str | None = None
    program: str | None = None
    function: str | None = None
    # Factories, as pydantic copies a mutable default deeply for every query.
    inputs: Tree = Field(default_factory=dict)
    parameters: Tree = Field(default_factory=dict)
    want: Annotated[list[Want], Field(fail_fast=True, min_length=1, max_length=TENSOR_COUNT_LIMIT)] = Field(
        default_factory=_outputs_alone
    )
    wrt: Names | None = None
    of: str | None = None
    cotangent: Tree = Field(default_factory=dict)
    tangent: Tree = Field(default_factory=dict)
    batched: Annotated[list[str], Field(fail_fast=True, max_length=TENSOR_COUNT_LIMIT)] = Field(default_factory=list)
    expected: Tree = Field(default_factory=dict)
    format: Format = "dense"
    dtype: ComputeDtype | None = None
    encoding: Encoding = "list"
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] | None = None
    timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None


FIELDS: Final = tuple(QueryBody.model_fields)
SUBJECTS: Final = ("operation", "program", "function")

# pydantic's kind of error → (code, what was expected). A wrong kind of value is a wrong structure; a value of the right kind that
# is not allowed is a wrong content. Kinds that are not here are structure, told in pydantic's words.
_KINDS: Final[dict[str, tuple[str, str]]] = {
    "string_type": ("bad_request", "a string"),
    "dict_type": ("bad_request", "an object"),
    "list_type": ("bad_request", "a list"),
    "int_type": ("bad_request", "an integer"),
    "float_type": ("bad_request", "a number"),
    "too_short": ("bad_request", "a list of at least one name"),
    "too_long": ("bad_request", f"a list of at most {TENSOR_COUNT_LIMIT} names"),
    "literal_error": ("bad_parameter", "one of {expected}"),
    "greater_than": ("bad_parameter", "a number greater than {gt}"),
    "greater_than_equal": ("bad_parameter", "an integer of at least {ge}"),
    "less_than": ("bad_parameter", "an integer below 2^63"),
    "finite_number": ("bad_parameter", "a finite number"),
}


def read_body(value: Any) -> QueryBody:
    """The envelope that a parsed JSON value spells.

    Raises `bad_request` for a wrong structure (an unknown field, a wrong kind of value, not exactly one of operation, program and
    function) and `bad_parameter` for a value that is not allowed.
    """
    if type(value) is not dict:
        raise PullbackError(
            "bad_request",
            "A query is a JSON object.",
            expected="an object",
            given=describe(value),
            fix='Send {"operation": …, "inputs": {…}}; a list of queries goes to /v1/queries.',
        )
    for key in value:
        if key not in _FIELD_SET:
            _refuse_field(key)
    try:
        body = QueryBody.model_validate({key: member for key, member in value.items() if member is not None})
    except ValidationError as error:
        raise _refusal(error) from None
    given = [name for name in SUBJECTS if getattr(body, name) is not None]
    if len(given) != 1:
        raise PullbackError(
            "bad_request",
            "A query names exactly one of operation, program and function.",
            expected="one of operation, program, function",
            given=" and ".join(given) or "none",
            fix="Leave the others out." if given else 'Send, for example, "operation": "softmax".',
        )
    for field in ("want", "wrt", "batched"):
        _refuse_repetition(getattr(body, field), field)
    return body


_FIELD_SET: Final = frozenset(FIELDS)


def _refuse_field(key: str) -> None:
    meant = nearest(key, FIELDS)
    raise PullbackError(
        "bad_request",
        f"A query has no field {key[:64]!r}.",
        at=key[:64],
        expected=f"the fields {', '.join(FIELDS)}",
        given=repr(key[:64]),
        fix=f"Write `{meant}`." if meant else "Leave it out.",
    )


def _refuse_repetition(names: list[str] | None, field: str) -> None:
    if names is None or len(set(names)) == len(names):
        return
    seen: set[str] = set()
    index = 0
    while names[index] not in seen:
        seen.add(names[index])
        index += 1
    raise PullbackError(
        "bad_request",
        f"`{field}` names the same twice.",
        at=f"{field}[{index}]",
        expected="each name once",
        given=describe(names[index]),
    )


def _refusal(error: ValidationError) -> PullbackError:
    first = error.errors(include_url=False)[0]
    at = str(first["loc"][0]) + "".join(f"[{part}]" for part in first["loc"][1:] if type(part) is int)
    code, expected = "bad_request", first["msg"]
    if first["type"] in _KINDS:
        code, words = _KINDS[first["type"]]
        expected = words.format(**{key: str(value).replace("'", "") for key, value in first.get("ctx", {}).items()})
    return PullbackError(
        code,
        f"`{at}` must be {expected}." if first["type"] in _KINDS else f"`{at}`: {expected}.",
        at=at,
        expected=expected,
        given=describe(first["input"]),
        fix=_correction(first),
    )


def _correction(first: Any) -> str | None:
    if first["type"] != "literal_error" or type(first["input"]) is not str:
        return None
    meant = nearest(first["input"], str(first["ctx"]["expected"]).replace("'", "").replace(" or ", ", ").split(", "))
    return f'Write "{meant}".' if meant else None
