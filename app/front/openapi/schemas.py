"""The JSON schemas of what travels on `/v1`: query, tensors, answer, explain, check, problem, catalogue entry.

Knows the words and shapes of the contract (sections 1 to 6). Refuses to know addresses and statuses.
"""

from __future__ import annotations

from typing import Any, Final, get_args

from app.catalogue.entry import KINDS
from app.errors import CODES
from app.query import DTYPE_BYTES, WANTS, ComputeDtype, Encoding, Format

Schema = dict[str, Any]


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _map(value: Schema, description: str, **more: Any) -> Schema:
    return {"type": "object", "additionalProperties": value, "description": description, **more}


def _object(properties: dict[str, Schema], required: tuple[str, ...] = (), **more: Any) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required), **more}


def _text(description: str) -> Schema:
    return {"type": "string", "description": description}


_NON_FINITE: Final = {"type": "string", "enum": ["NaN", "Infinity", "-Infinity"]}
_SHAPE: Final = {"type": "array", "items": {"type": "integer", "minimum": 0}, "maxItems": 32}
_DTYPE: Final = {"type": "string", "enum": list(DTYPE_BYTES)}
_NAMES: Final = {"type": "array", "items": {"type": "string", "minLength": 1}}
_VERDICTS: Final = ["differentiable", "piecewise_constant", "not_differentiable", "disconnected", "kink", "singular"]

_TENSORS: Final[dict[str, Schema]] = {
    "Element": {
        "anyOf": [{"type": "number"}, {"type": "boolean"}, _NON_FINITE],
        "description": "One element. Non-finite numbers are strings, in and out; they are never null.",
    },
    "Elements": {
        "anyOf": [ref("Element"), {"type": "array", "items": ref("Elements")}],
        "description": "Nested or flat elements.",
    },
    "TensorObject": _object(
        {
            "data": {
                "anyOf": [ref("Elements"), {"type": "string", "contentEncoding": "base64"}],
                "description": "Nested lists; or a flat list, row-major, with `shape`; or with `encoding: base64` the "
                "little-endian row-major bytes, with `shape` and `dtype`. A complex element is a pair [re, im].",
            },
            "dtype": {**_DTYPE, "description": "Left out: as for a bare list."},
            "shape": {**_SHAPE, "description": "May be left out for nested data."},
            "encoding": {"type": "string", "enum": list(get_args(Encoding)), "default": "list"},
        },
        ("data",),
        additionalProperties=False,
        description="A tensor with its dtype, shape and encoding.",
        examples=[{"data": [1, 2, 3, 4], "dtype": "float32", "shape": [2, 2]}],
    ),
    "Tensor": {
        "oneOf": [ref("Element"), {"type": "array", "items": ref("Elements")}, ref("TensorObject")],
        "description": "A bare number or nested list (all integers: int64, any float: float64, booleans: bool; integers become "
        "float64 where a derivative is wanted with respect to them), or the object form.",
        "examples": [[[1.0, 2.0], [3.0, 4.0]]],
    },
    "Input": {
        "anyOf": [
            ref("Tensor"),
            {"type": "array", "items": ref("TensorObject"), "description": "A list of tensors."},
        ],
        "description": "A tensor; or a list of tensors where the operation takes a list (`cat`, `stack`, `einsum`).",
    },
    "ResultTensor": _object(
        {
            "shape": _SHAPE,
            "dtype": _DTYPE,
            "data": {"anyOf": [ref("Elements"), {"type": "string", "contentEncoding": "base64"}]},
            "encoding": {"type": "string", "enum": list(get_args(Encoding))},
        },
        ("shape", "dtype", "data"),
        description="A tensor of an answer, always in the object form.",
    ),
}

_PARAMETER: Final[dict[str, Schema]] = {
    "Parameter": {
        "anyOf": [
            {"type": ["number", "string", "boolean", "null"]},
            {"type": "array", "items": ref("Parameter")},
        ],
        "description": "A plain value: number, string, boolean, null, or a list of these.",
    }
}

_QUERY_FIELDS: Final[dict[str, Schema]] = {
    "operation": _text("A name of the catalogue (`GET /v1/operations`): `softmax`, `nn.functional.conv2d`, `linalg.pinv`."),
    "program": _text(
        "A small text in a subset of Python that composes operations; `return`, or a last bare expression, is the output; "
        '`return {"loss": a, "p": b}` gives several, by name.'
    ),
    "function": _text("The name of a function kept on this server (`GET /v1/functions`)."),
    "inputs": _map(
        ref("Input"),
        "Name → tensor, or → list of tensors where the operation takes a list (`cat`, `stack`, `einsum`; their gradients are "
        "named `tensors.0`, `tensors.1`…). For an operation the names are those of its signature.",
    ),
    "parameters": _map(ref("Parameter"), "Non-tensor arguments: name → number, string, boolean, null or list of these."),
    "want": {
        "type": "array",
        "items": {"type": "string", "enum": list(WANTS)},
        "minItems": 1,
        "default": ["outputs"],
        "description": "What to answer. `gradient`, `hessian` and `hvp` are of one real scalar output; `vjp` is Jᵀ·cotangent, "
        "`jvp` J·tangent; `fisher` and `fisher_diagonal` are the means over samples of g·gᵀ and g², the output being one "
        "log-likelihood a sample; `explain` reports where and why there is a derivative or none; `check` compares autodiff, "
        "finite differences and `expected`; `precision` tells how many digits of each derivative are right, and which step lost them.",
    },
    "wrt": {**_NAMES, "description": "Inputs to differentiate with respect to; default: every floating or complex input."},
    "of": _text("The output that `gradient`, `hessian`, `hvp`, `fisher` are of; needed only where there is more than one."),
    "cotangent": _map(
        ref("Tensor"),
        "Output name → tensor of that output's shape, for `vjp`. Left out: ones, and a note says so. A leading extra axis on "
        "every cotangent = several cotangents in one query, and every `vjp` then has that leading axis.",
    ),
    "tangent": _map(
        ref("Tensor"),
        "Input name → tensor of that input's shape, for `jvp` and `hvp`; a leading extra axis as for `cotangent`.",
    ),
    "batched": {
        **_NAMES,
        "description": "Inputs whose leading axis is a batch; the query is answered per sample and every result has a leading "
        "batch axis. Per-sample gradients are `batched` + `gradient`.",
    },
    "expected": _map(ref("Tensor"), "What you believe the derivative to be, by input, for `check`."),
    "format": {
        "type": "string",
        "enum": list(get_args(Format)),
        "default": "dense",
        "description": "For `jacobian` and `hessian`: `auto` sends `diagonal`, `block` or `dense`, "
        "whichever the operation proves; the reply says which.",
    },
    "dtype": {
        "type": "string",
        "enum": list(get_args(ComputeDtype)),
        "description": "Compute in this; default: as the inputs come.",
    },
    "encoding": {
        "type": "string",
        "enum": list(get_args(Encoding)),
        "default": "list",
        "description": "Tensors of a JSON reply.",
    },
    "seed": {
        "type": "integer",
        "minimum": -(1 << 63),
        "maximum": (1 << 63) - 1,
        "description": "Needed by random operations; the same seed, worker and device give the same answer.",
    },
    "timeout_s": {"type": "number", "exclusiveMinimum": 0, "description": "The deadline in seconds; capped by the server's."},
}

_QUERY: Final[dict[str, Schema]] = {
    "Query": _object(
        _QUERY_FIELDS,
        additionalProperties=False,
        oneOf=[{"required": [subject]} for subject in ("operation", "program", "function")],
        description="One gradient query. Exactly one of `operation`, `program`, `function`; unknown fields are refused; one "
        "forward pass serves all that is wanted.",
    )
}

_TENSOR_MAP: Final = _map(ref("ResultTensor"), "Name → tensor.")
_TENSOR_MAPS: Final = _map(_TENSOR_MAP, "Name → name → tensor.")
# Shapes as in section 3 of the contract.
_RESULTS: Final[dict[str, tuple[Schema, str]]] = {
    "outputs": (_TENSOR_MAP, "Output → its value."),
    "gradient": (_TENSOR_MAP, "Input → shape of input."),
    "vjp": (_TENSOR_MAP, "Input → shape of input (a leading axis more with several cotangents)."),
    "jvp": (_TENSOR_MAP, "Output → shape of output (a leading axis more with several tangents)."),
    "jacobian": (
        _TENSOR_MAPS,
        "Output → input → shape [output…, input…]; the diagonal or the blocks alone if `format` asked so.",
    ),
    "hessian": (_TENSOR_MAPS, "Input → input → shape [input…, input…]."),
    "hvp": (_TENSOR_MAP, "Input → shape of input."),
    "fisher": (_TENSOR_MAP, "Input → shape [n, n], n the number of the input's elements."),
    "fisher_diagonal": (_TENSOR_MAP, "Input → shape of input."),
    "explain": (ref("Explain"), "The differentiability report."),
    "precision": (
        _map(ref("Precision"), "Input → report."),
        "The right digits of each derivative, by comparison with a wider run.",
    ),
    "check": (_map(ref("Check"), "Input → verdict."), "The verdict on each derivative."),
}

_ANSWER: Final[dict[str, Schema]] = {
    "Answer": _object(
        {kind: {**schema, "description": text} for kind, (schema, text) in _RESULTS.items()}
        | {
            "notes": {"type": "array", "items": ref("Note"), "description": "What to know of this answer."},
            "plan": ref("Plan"),
        },
        description="What was wanted, by kind, and how it was computed. With several outputs they are named as PyTorch names "
        "them (`values`, `indices`); a single one is `output`.",
    ),
    "Note": _object({"code": {"type": "string"}, "at": {"type": "string"}, "message": {"type": "string"}}, ("code", "message")),
    "Plan": _object(
        {
            "method": _text("How the derivatives were taken: `reverse`, `forward`…"),
            "passes": {"type": "integer"},
            "flops": {"type": ["number", "null"]},
            "peak_bytes": {"type": ["integer", "null"]},
            "device": {"type": "string"},
        },
        description="The plan that was followed.",
    ),
    "Explain": _object(
        {
            "inputs": _map(ref("Verdict"), "Input → verdict."),
            "outputs": _map(ref("Verdict"), "Output → verdict."),
            "steps": {"type": "array", "items": ref("ExplainedStep")},
        },
        description='Answers "why is my gradient None (or zero, or NaN)?"',
    ),
    "Verdict": _object(
        {
            "verdict": {"type": "string", "enum": _VERDICTS, "description": "The gravest of the findings."},
            "because": {
                "anyOf": [ref("ExplainedStep"), {"type": "null"}],
                "description": "The step that decides, with its reason.",
            },
            "instead": {"type": ["string", "null"], "description": "A way out, where one is known."},
            "elements": {"type": "array", "description": "The elements concerned, by index."},
            "findings": {"type": "array", "items": {"type": "object"}, "description": "All findings, where there are several."},
        },
        ("verdict",),
    ),
    "ExplainedStep": _object(
        {
            "line": {"type": ["integer", "null"]},
            "text": {"type": ["string", "null"]},
            "operation": {"type": ["string", "null"]},
            "formula": {"description": "PyTorch's own derivative formula, where it has one."},
            "reason": {"type": ["string", "null"]},
        }
    ),
    "Precision": _object(
        {
            "digits": {**ref("Digits"), "description": "Of the derivative: decimal digits that are right."},
            "dtype": {"type": "string", "description": "The dtype that was computed in."},
            "reference": {
                "type": "string",
                "enum": ["float64", "mpmath", "float64 with random rounding"],
                "description": "What it was compared with: a run in float64, one in 60 to 600 digits, or, where neither can judge, "
                "the mean of eight float64 runs whose every result was moved by a rounding error: an estimate.",
            },
            "worst": {
                "type": "array",
                "items": {"type": "object"},
                "description": "The worst elements: index and both values.",
            },
            "because": {
                "anyOf": [ref("ExplainedStep"), {"type": "null"}],
                "description": "The step that lost digits beyond ordinary rounding, in the derivative or else in an output.",
            },
            "instead": {
                "type": ["string", "null"],
                "description": "A better formula, named only where it has been tried and has more right digits.",
            },
            "outputs": {**_map(ref("Digits"), "Output → right digits of its value.")},
            "reason": {"type": "string", "description": "Why the reference may itself be in question."},
        },
        ("digits", "dtype", "reference", "worst", "because", "instead", "outputs"),
    ),
    "Digits": _object({"worst": {"type": "number"}, "median": {"type": "number"}}, ("worst", "median")),
    "Check": _object(
        {
            "agrees": {"type": "boolean"},
            "max_error": {"anyOf": [ref("Element"), {"type": "null"}]},
            "tolerance": {"anyOf": [ref("Element"), {"type": "null"}]},
            "worst": {
                "type": "array",
                "items": {"type": "object"},
                "description": "The worst elements: index and each value there.",
            },
            "likely": {
                "anyOf": [ref("LikelyMistake"), {"type": "null"}],
                "description": "The mistake in `expected`, named only where undoing it makes the two agree.",
            },
        },
        ("agrees", "max_error", "tolerance"),
    ),
    "LikelyMistake": _object({"code": {"type": "string"}, "message": {"type": "string"}}, ("code", "message")),
}

_PROBLEM: Final[dict[str, Schema]] = {
    "Problem": _object(
        {
            "type": _text("`urn:pullback:error:` and the code."),
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "code": {"type": "string", "enum": list(CODES)},
            "detail": _text("One sentence that a person can act on."),
            "at": _text("A path into the query (`inputs.weight`), or line:column in a program."),
            "expected": _text("What should have stood there."),
            "given": _text("What did, shortened."),
            "fix": _text("What to send instead."),
            "request_id": {"type": "string"},
        },
        ("type", "title", "status", "code", "detail"),
        description="A refusal (RFC 9457).",
    )
}

_CATALOGUE: Final[dict[str, Schema]] = {
    "OperationSummary": _object(
        {"name": {"type": "string"}, "summary": {"type": "string"}, "tags": {"type": "array", "items": {"type": "string"}}},
        ("name", "summary", "tags"),
    ),
    "OperationList": _object({"operations": {"type": "array", "items": ref("OperationSummary")}}, ("operations",)),
    "Argument": _object(
        {
            "name": {"type": "string"},
            "kind": {"type": "string", "enum": list(KINDS)},
            "required": {"type": "boolean"},
            "default": {"description": "Where it is not required."},
            "optional": {"type": "boolean", "description": "null is a value that it takes."},
            "keyword_only": {"type": "boolean"},
            "differentiable": {"type": "boolean"},
            "meaning": {"type": "string"},
        },
        ("name", "kind", "required"),
        description="One argument, in call order.",
    ),
    "Signature": _object(
        {
            "arguments": {"type": "array", "items": ref("Argument")},
            "outputs": {
                "type": "array",
                "items": _object(
                    {
                        "name": {"type": "string"},
                        "differentiable": {"type": "boolean"},
                        "several": {"type": "boolean", "description": "A list whose length the call decides: NAME.0, NAME.1…"},
                    },
                    ("name", "differentiable"),
                ),
            },
        },
        ("arguments", "outputs"),
    ),
    "Operation": _object(
        {
            "name": {"type": "string"},
            "summary": {"type": "string"},
            "documentation": _text("A link to its PyTorch page."),
            "tags": {"type": "array", "items": {"type": "string"}},
            "aliases": {"type": "array", "items": {"type": "string"}, "description": "Other names under which it is found."},
            "order": {"type": "integer", "description": "How often it can be differentiated: 0, 1, or 2 for twice and more."},
            "signatures": {"type": "array", "items": ref("Signature"), "description": "The overloads; names and kinds choose."},
            "formula": {"type": ["object", "null"], "description": "PyTorch's derivative formula, `backward` and `forward`."},
            "example": {"type": "object", "description": "A query that works as it stands."},
        },
        ("name", "summary", "documentation", "tags", "signatures", "formula", "example"),
    ),
    "FunctionList": _object({"functions": {"type": "array", "items": ref("Function")}}, ("functions",)),
    "Function": _object(
        {
            "name": {"type": "string"},
            "description": {"type": "string"},
            "program": _text("The file's text."),
            "signature": {"type": "object", "description": "`inputs` (name, dtype, shape), `parameters`, `outputs`."},
            "example": {"type": "object", "description": "A query that works as it stands."},
            "error": ref("Problem"),
        },
        ("name",),
        description="A program kept on this server under a name. A broken file is listed with its error.",
    ),
}

SCHEMAS: Final[dict[str, Schema]] = _TENSORS | _PARAMETER | _QUERY | _ANSWER | _PROBLEM | _CATALOGUE
