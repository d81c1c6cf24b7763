"""The JSON schemas of what travels on `/v1`: query, tensors, answer, explain, check, problem, catalogue entry."""

from __future__ import annotations

from typing import Final, get_args

from app.errors import CODES
from app.front.openapi.catalogue_schemas import CATALOGUE
from app.front.openapi.schema_parts import Schema, mapping, record, ref, text
from app.protocols.native.query_body import json_schema
from app.query import DTYPE_BYTES, RANK_LIMIT, WANTS, Encoding, Wanted

_NON_FINITE: Final = {"type": "string", "enum": ["NaN", "Infinity", "-Infinity"]}
_SHAPE: Final = {"type": "array", "items": {"type": "integer", "minimum": 0}, "maxItems": RANK_LIMIT}
_DTYPE: Final = {"type": "string", "enum": list(DTYPE_BYTES)}
# What a list holds is told in words: a schema that refers to itself is one that makers of typed clients drop, and all that uses it.
_NESTED: Final = {
    "type": "array",
    "items": {},
    "description": f"Elements, or lists of the same form and length, at most {RANK_LIMIT} deep: all of one level are elements, or all are lists.",
}
_VERDICTS: Final = ["differentiable", "piecewise_constant", "not_differentiable", "disconnected", "kink", "singular"]

_TENSORS: Final[dict[str, Schema]] = {
    "Element": {
        "anyOf": [{"type": "number"}, {"type": "boolean"}, _NON_FINITE],
        "description": "One element. Non-finite numbers are strings, in and out; they are never null.",
    },
    "Elements": {
        "anyOf": [ref("Element"), _NESTED],
        "description": "One element, or nested or flat lists of them.",
    },
    "TensorObject": record(
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
        "oneOf": [ref("Element"), _NESTED, ref("TensorObject")],
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
    "ResultTensor": record(
        {
            "shape": _SHAPE,
            "dtype": _DTYPE,
            "data": {"anyOf": [ref("Elements"), {"type": "string", "contentEncoding": "base64"}]},
            "encoding": {"type": "string", "enum": list(get_args(Encoding))},
        },
        ("shape", "dtype", "data"),
        description="A tensor of an answer, always in the object form.",
    ),
    "SparseTensor": record(
        {
            "layout": {"type": "string", "const": "coo"},
            "shape": {
                **_SHAPE,
                "description": "Of the whole: [output…, input…]; of a batched query with a leading batch axis.",
            },
            "dtype": _DTYPE,
            "indices": {**ref("ResultTensor"), "description": "int64 [rank, entries], row-major, without duplicates."},
            "values": {**ref("ResultTensor"), "description": "[entries]. Explicit zeros may stand among them."},
            "holds": {
                "type": "string",
                "enum": ["everywhere", "here"],
                "description": "Every position that can be non-zero is present: for any values of these shapes (`everywhere`), or "
                "where the pattern depends on values (a sort, a maximum, a `where`, a computed index, a branch) at this point.",
            },
        },
        ("layout", "shape", "dtype", "indices", "values", "holds"),
        description="A Jacobian or Hessian by coordinates. In safetensors: the tensors PATH.indices and PATH.values, the rest in the answer.",
    ),
    "Derivative": {
        "anyOf": [
            ref("ResultTensor"),
            ref("SparseTensor"),
            record(
                {name: {"anyOf": [ref("ResultTensor"), ref("SparseTensor")]} for name in ("z", "conj_z")},
                ("z", "conj_z"),
                additionalProperties=False,
                description="∂f/∂z and ∂f/∂z̄ of a function of complex numbers that is not proved to be holomorphic: "
                "df = z·dz + conj_z·dz̄. Of a Hessian, the derivatives of the gradient, which is 2·∂f/∂z̄ by PyTorch's convention.",
            ),
        ],
        "description": "One block of a Jacobian or Hessian, in the form that `plan.formats` names.",
    },
}

_PARAMETER: Final[dict[str, Schema]] = {
    "Parameter": {
        "anyOf": [
            {"type": ["number", "string", "boolean", "null"]},
            {"type": "array", "items": {}, "description": "A list of plain values, which may be lists themselves."},
        ],
        "description": "A plain value: number, string, boolean, null, or a list of these.",
    }
}

_NUMBERS: Final[Schema] = {
    "type": "array",
    "items": {"anyOf": [ref("Element"), {"type": "array", "items": ref("Element"), "description": "A complex number."}]},
}
_FINDING_KEYS: Final = ("verdict", "because", "instead", "elements")
_FINDING: Final[dict[str, Schema]] = {
    "verdict": {"type": "string", "enum": _VERDICTS},
    "because": {
        "anyOf": [ref("ExplainedStep"), {"type": "null"}],
        "description": "The step that decides, with its reason; null where there is nothing to explain.",
    },
    "instead": {"type": ["string", "null"], "description": "A way out, where one is known."},
    "elements": {
        "type": "array",
        "items": {"type": "array", "items": {"type": "integer"}},
        "description": "The elements concerned, by index; at most 50 of them.",
    },
    "elements_total": {"type": "integer", "description": "How many they are, where they are more."},
    "subgradient": {**_NUMBERS, "description": "Of a kink: what PyTorch gives for each of the elements."},
    "derivative": {
        **_NUMBERS,
        "description": "What the function itself has there, by differences, where PyTorch's number is wrong.",
    },
}

_TENSOR_MAP: Final = mapping(ref("ResultTensor"), "Name → tensor.")
_DERIVATIVES: Final = mapping(mapping(ref("Derivative"), "Input → derivative."), "Name → input → derivative.")
_REPORTS: Final[dict[str, Schema]] = {
    "precision": mapping(ref("Precision"), "Input → report."),
    "explain": ref("Explain"),
    "check": mapping(ref("Check"), "Input → verdict."),
}


def _result(kind: str, wanted: Wanted) -> Schema:
    schema = {0: _REPORTS.get(kind, {"type": "object"}), 1: _TENSOR_MAP, 2: _DERIVATIVES}[wanted.levels]
    return {**schema, "description": wanted.meaning}


_ANSWER: Final[dict[str, Schema]] = {
    "Answer": record(
        {kind: _result(kind, wanted) for kind, wanted in WANTS.items()}
        | {
            "notes": {"type": "array", "items": ref("Note"), "description": "What to know of this answer."},
            "plan": ref("Plan"),
        },
        description="What was wanted, by kind, and how it was computed. With several outputs they are named as PyTorch names "
        "them (`values`, `indices`); a single one is `output`.",
    ),
    "Note": record({"code": {"type": "string"}, "at": {"type": "string"}, "message": {"type": "string"}}, ("code", "message")),
    "Plan": record(
        {
            "method": text("How the derivatives were taken: `reverse`, `forward`…"),
            "passes": {"type": "integer"},
            "flops": {"type": ["number", "null"]},
            "peak_bytes": {"type": ["integer", "null"]},
            "device": {"type": "string"},
            "formats": mapping(
                text("`diagonal`, `block`, `sparse` or `dense`."),
                "Path of a Jacobian or Hessian → its form, where not asked dense.",
            ),
            "colours": mapping({"type": "integer"}, "Path of a Jacobian or Hessian → the passes that it took."),
        },
        description="The plan that was followed.",
    ),
    "Explain": record(
        {
            "inputs": mapping(ref("Verdict"), "Input → verdict."),
            "outputs": mapping(ref("Verdict"), "Output → verdict."),
            "steps": {"type": "array", "items": ref("ExplainedStep")},
            "probed": {
                "type": "boolean",
                "description": "There, and false, where kinks and jumps were not looked for: the tensors are too large, or not to be had in float64.",
            },
        },
        ("inputs", "outputs", "steps"),
        description='Answers "why is my gradient None (or zero, or NaN)?"',
    ),
    "Verdict": record(
        _FINDING | {"findings": {"type": "array", "items": ref("Finding"), "description": "All findings, the gravest first."}},
        (*_FINDING_KEYS, "findings"),
        description="What is known of one input or output: the gravest finding, and all of them.",
    ),
    "Finding": record(_FINDING, _FINDING_KEYS),
    "ExplainedStep": record(
        {
            "line": {"type": ["integer", "null"]},
            "text": {"type": ["string", "null"]},
            "operation": {"type": ["string", "null"]},
            "formula": {"type": ["string", "null"], "description": "PyTorch's own derivative formula, where it has one."},
            "reason": {"type": ["string", "null"]},
        }
    ),
    "Precision": record(
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
            "outputs": {**mapping(ref("Digits"), "Output → right digits of its value.")},
            "reason": {"type": "string", "description": "Why the reference may itself be in question."},
        },
        ("digits", "dtype", "reference", "worst", "because", "instead", "outputs"),
    ),
    "Digits": record({"worst": {"type": "number"}, "median": {"type": "number"}}, ("worst", "median")),
    "Check": record(
        {
            "agrees": {"type": ["boolean", "null"], "description": "null: cannot tell, and `reason` says why."},
            "max_error": {
                "anyOf": [ref("Element"), {"type": "null"}],
                "description": "The difference at the element that is off by the most tolerances, the first of `worst`.",
            },
            "tolerance": {
                "anyOf": [ref("Element"), {"type": "null"}],
                "description": "The tolerance of that element. Each has its own: six digits of itself, and what the precision in which "
                "`expected` was computed (by the dtypes, or as its digits show) and its printed digits leave in doubt there.",
            },
            "worst": {
                "type": "array",
                "items": {"type": "object"},
                "description": "The worst elements: index, each value there, and its tolerance.",
            },
            "checked": {
                "type": "string",
                "enum": ["all", "directions"],
                "description": "Whether every element was compared, or a sample of them and random directions.",
            },
            "witness": {
                "const": "mpmath",
                "description": "Where float64 could not decide, differences were taken in 60 digits.",
            },
            "kinks": {"type": "array", "items": {}, "description": "Elements at a kink: every subgradient agrees there."},
            "reason": {"type": "string", "description": "Why it cannot be told."},
            "note": {"type": "string", "description": "A convention, a kink, or that PyTorch's own derivative is wrong here."},
            "shape": {"type": "object", "description": "Both shapes, where that of `expected` is another."},
            "likely": {
                "anyOf": [ref("LikelyMistake"), {"type": "null"}],
                "description": "The likeliest mistake in `expected`, named only where making it gives `expected`.",
            },
            "also_possible": {
                "type": "array",
                "items": ref("LikelyMistake"),
                "description": "The other mistakes that fit as well, the likeliest first.",
            },
        },
        ("agrees", "max_error", "tolerance"),
    ),
    "LikelyMistake": record(
        {
            "code": {"type": "string"},
            "message": {"type": "string"},
            "factor": {**_NUMBERS["items"], "description": "Yours divided by ours, of a constant factor."},
        },
        ("code", "message"),
    ),
}

_PROBLEM: Final[dict[str, Schema]] = {
    "Problem": record(
        {
            "type": text("`urn:pullback:error:` and the code."),
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "code": {"type": "string", "enum": list(CODES)},
            "detail": text("One sentence that a person can act on."),
            "at": text("A path into the query (`inputs.weight`), or line:column in a program."),
            "expected": text("What should have stood there."),
            "given": text("What did, shortened."),
            "fix": text("What to send instead."),
            "problems": {
                "type": "array",
                "items": ref("ProgramProblem"),
                "description": "Where several lines of a program cannot be read: all of them, this one first.",
            },
            "request_id": {"type": "string"},
        },
        ("type", "title", "status", "code", "detail"),
        description="A refusal (RFC 9457).",
    ),
    "ProgramProblem": record(
        {
            "code": {"type": "string", "enum": list(CODES)},
            "detail": text("One sentence that a person can act on."),
            "at": text("line:column in the program."),
            "expected": text("What should have stood there."),
            "given": text("What did, shortened."),
            "fix": text("What to write instead."),
        },
        ("code", "detail"),
    ),
}

SCHEMAS: Final[dict[str, Schema]] = _TENSORS | _PARAMETER | {"Query": json_schema()} | _ANSWER | _PROBLEM | CATALOGUE
