"""The envelope of a query in JSON: its fields, their types and ranges, and every refusal of them in our words."""

from __future__ import annotations

import itertools
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic.config import JsonDict

from app.errors import PullbackError
from app.limits import TENSOR_COUNT_LIMIT
from app.protocols.describe import describe, nearest
from app.query import WANTS, ComputeDtype, Encoding, Format

_UNIQUE: Final[JsonDict] = {"uniqueItems": True}  # what `_refuse_repetition` refuses
Names = Annotated[list[str], Field(fail_fast=True, min_length=1, max_length=TENSOR_COUNT_LIMIT, json_schema_extra=_UNIQUE)]
Tree = dict[str, Any]
# mypy takes no computed Literal; pydantic does, and refuses other words with all of these.
_Want: Any = Literal[tuple(WANTS)]


def _outputs_alone() -> list[str]:
    return ["outputs"]


# pydantic follows every `$ref` that it sees, and knows none of OpenAPI's, so they are put in when it is done.
_VALUES: Final = "x-values"


def _map_of(schema: str) -> WithJsonSchema:
    """Where OpenAPI finds what the names lead to; the values themselves are read later, each at its place."""
    return WithJsonSchema({"type": "object", _VALUES: f"#/components/schemas/{schema}"})


Tensors = Annotated[Tree, _map_of("Tensor")]


class QueryBody(BaseModel):
    """One gradient query. Exactly one of `operation`, `program`, `function`; unknown fields are refused; one forward pass serves all
    that is wanted. A field that is null is left out."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    operation: str | None = Field(
        None, description="A name of the catalogue (`GET /v1/operations`): `softmax`, `nn.functional.conv2d`, `linalg.pinv`."
    )
    program: str | None = Field(
        None,
        description="A small text in a subset of Python that composes operations; `return`, or a last bare expression, is the output; "
        '`return {"loss": a, "p": b}` gives several, by name.',
    )
    function: str | None = Field(None, description="The name of a function kept on this server (`GET /v1/functions`).")
    # Factories, as pydantic copies a mutable default deeply for every query.
    inputs: Annotated[Tree, _map_of("Input")] = Field(
        default_factory=dict,
        description="Name → tensor, or → list of tensors where the operation takes a list (`cat`, `stack`, `einsum`; their gradients "
        "are named `tensors.0`, `tensors.1`…). For an operation the names are those of its signature.",
    )
    parameters: Annotated[Tree, _map_of("Parameter")] = Field(
        default_factory=dict, description="Non-tensor arguments: name → number, string, boolean, null or list of these."
    )
    want: Annotated[list[_Want], Field(fail_fast=True, min_length=1, max_length=TENSOR_COUNT_LIMIT)] = Field(
        default_factory=_outputs_alone,
        description="What to answer; the answer's schema says what each is.",
        json_schema_extra={"default": ["outputs"], **_UNIQUE},
    )
    wrt: Names | None = Field(
        None, description="Inputs to differentiate with respect to; default: every floating or complex input."
    )
    of: str | None = Field(
        None,
        description="The output that `gradient`, `hessian`, `hvp`, `fisher` are of; needed only where there is more than one.",
    )
    cotangent: Tensors = Field(
        default_factory=dict,
        description="Output name → tensor of that output's shape, for `vjp`. Left out: ones, and a note says so. A leading extra axis "
        "on every cotangent = several cotangents in one query, and every `vjp` then has that leading axis.",
    )
    tangent: Tensors = Field(
        default_factory=dict,
        description="Input name → tensor of that input's shape, for `jvp` and `hvp`; a leading extra axis as for `cotangent`.",
    )
    batched: Annotated[list[str], Field(fail_fast=True, max_length=TENSOR_COUNT_LIMIT)] = Field(
        default_factory=list,
        description="Inputs whose leading axis is a batch; the query is answered per sample and every result has a leading batch axis. "
        "Per-sample gradients are `batched` + `gradient`.",
        json_schema_extra=_UNIQUE,
    )
    expected: Tensors = Field(default_factory=dict, description="What you believe the derivative to be, by input, for `check`.")
    format: Format = Field(
        "dense",
        description="For `jacobian` and `hessian`: `auto` sends `diagonal` (shape of the input), `block` ([n, output[1:]…, "
        "input[1:]…]), `sparse` or `dense`, the smallest that the graph proves; `plan.formats` says which, `plan.colours` in how many "
        "passes. `diagonal` sends the true diagonal, with a note where the rest is not proved zero. The pattern is propagated through "
        "the graph; nothing is proved by numbers.",
    )
    dtype: ComputeDtype | None = Field(None, description="Compute in this; default: as the inputs come.")
    encoding: Encoding = Field("list", description="Tensors of a JSON reply.")
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] | None = Field(
        None, description="Needed by random operations; the same seed, worker and device give the same answer."
    )
    timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, description="The deadline in seconds; capped by the server's."
    )


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


def json_schema() -> dict[str, Any]:
    """The query's schema as OpenAPI shows it; the null that every optional field takes is not shown, for it is to be left out."""
    schema = QueryBody.model_json_schema()
    schema["description"] = " ".join(schema["description"].split())
    # Exactly one of the three, said by what must not be: of `oneOf` beside properties, makers of typed clients keep no properties.
    pairs = [{"required": [one, other]} for one, other in itertools.combinations(SUBJECTS, 2)]
    none = {"not": {"anyOf": [{"required": [subject]} for subject in SUBJECTS]}}
    schema["not"] = {"anyOf": [*pairs, none]}
    schema.pop("title")
    schema["properties"] = {name: _without_null(field) for name, field in schema["properties"].items()}
    return schema


def _without_null(field: dict[str, Any]) -> dict[str, Any]:
    hidden = ("title", "anyOf", _VALUES)
    shown = {key: value for key, value in field.items() if key not in hidden and (key, value) != ("default", None)}
    if _VALUES in field:
        shown["additionalProperties"] = {"$ref": field[_VALUES]}
    for choice in field.get("anyOf", ()):
        if choice != {"type": "null"}:
            shown |= choice
    return shown


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
            _refuse_field(key, value)
    try:
        body = QueryBody.model_validate({key: member for key, member in value.items() if member is not None})
    except ValidationError as error:
        raise _refusal(error) from None
    subjects = [name for name in SUBJECTS if getattr(body, name) is not None]
    if len(subjects) != 1:
        raise PullbackError(
            "bad_request",
            "A query names exactly one of operation, program and function.",
            expected="one of operation, program, function",
            given=" and ".join(subjects) or "none",
            fix="Leave the others out." if subjects else 'Send, for example, "operation": "softmax".',
        )
    for field in ("want", "wrt", "batched"):
        _refuse_repetition(getattr(body, field), field)
    return body


_FIELD_SET: Final = frozenset(FIELDS)


def _refuse_field(key: str, query: dict[str, Any]) -> None:
    meant = nearest(key, FIELDS)
    where = "inputs" if type(query[key]) in (list, dict) else "parameters"
    fix = f"Write `{meant}`." if meant else f'Leave it out, or send it in "{where}": {{"{key[:64]}": …}}.'
    raise PullbackError(
        "bad_request",
        f"A query has no field {key[:64]!r}.",
        at=key[:64],
        expected=f"the fields {', '.join(FIELDS)}",
        given=repr(key[:64]),
        fix=fix,
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


# What stands in the objects of a query, where something else was sent.
_OBJECTS: Final = {
    "cotangent": 'Write {"output": …}: one tensor for each output, by its name.',
    "tangent": 'Write {"x": …}: one tensor for each input, by its name.',
    "expected": 'Write {"x": …}: one derivative for each input, by its name.',
    "inputs": 'Write {"x": …}: each tensor by its name.',
    "parameters": 'Write {"dim": 0}: each value by its name.',
}


def _correction(first: Any) -> str | None:
    if first["type"] == "list_type" and type(first["input"]) is str:
        return f'Write ["{first["input"][:64]}"].'
    if first["type"] in ("dict_type", "mapping_type") and first["loc"]:
        return _OBJECTS.get(str(first["loc"][0]))
    if first["type"] != "literal_error" or type(first["input"]) is not str:
        return None
    meant = nearest(first["input"], str(first["ctx"]["expected"]).replace("'", "").replace(" or ", ", ").split(", "))
    return f'Write "{meant}".' if meant else None
