"""The `openapi.json` of one model, of the shape that Tesseract's clients read: paths, `differentiable_arrays`, encodings.

What they read is listed nowhere; it is what `tesseract_core/sdk`, `tesseract_torch` and `tesseract_jax` look up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from app import __version__
from app.protocols.models import Model, ModelInput, ModelOutput, ModelParameter
from app.protocols.tesseract import arrays
from app.protocols.tesseract.actions import ACTIONS, DERIVATIVES
from app.protocols.tesseract.negotiation import COMPRESSIONS, FORMATS, GPU_TRANSPORTS

# Any rank: `null`, as the runtime itself writes it. Left out, a batched call would be made of one with a leading axis.
_ANY_SHAPE: Final = None
_NUMBER_LIST: Final = {"type": "array", "items": {"type": "number"}}
_PARAMETER_TYPES: Final[dict[str, Any]] = {
    "number": {"type": "number"},
    "integer": {"type": "integer"},
    "boolean": {"type": "boolean"},
    "string": {"type": "string"},
    "dtype": {"type": "string"},
    "numbers": _NUMBER_LIST,
    "integers": {"type": "array", "items": {"type": "integer"}},
    "booleans": {"type": "array", "items": {"type": "boolean"}},
    "list": {"type": "array"},
}
_PATHS: Final = {"type": "array", "items": {"type": "string"}}
_VECTORS: Final = {"type": "object", "additionalProperties": {"$ref": "#/components/schemas/EncodedArray"}}
_FIELDS: Final[dict[str, Mapping[str, Any]]] = {
    "jacobian": {"jac_inputs": _PATHS, "jac_outputs": _PATHS},
    "jacobian_vector_product": {"jvp_inputs": _PATHS, "jvp_outputs": _PATHS, "tangent_vector": _VECTORS},
    "vector_jacobian_product": {"vjp_inputs": _PATHS, "vjp_outputs": _PATHS, "cotangent_vector": _VECTORS},
}


def document(model: Model) -> dict[str, Any]:
    """The OpenAPI document of `model`; its paths stand without the prefix, as clients expect."""
    endpoints = [name for name in ACTIONS if name not in DERIVATIVES or _has_derivative(model)]
    return {
        "openapi": "3.1.0",
        "info": {"title": model.name, "version": __version__, "description": model.summary},
        "paths": {f"/{name}": _post(name) for name in endpoints} | {"/health": _health()},
        "components": {"schemas": _schemas(model, endpoints)},
        "x-supported-output-formats": list(FORMATS),
        "x-supported-gpu-transports": list(GPU_TRANSPORTS),
        "x-supported-compressions": list(COMPRESSIONS),
    }


def _has_derivative(model: Model) -> bool:
    return bool(model.differentiable_inputs) and any(output.differentiable for output in model.outputs)


def _post(name: str) -> dict[str, Any]:
    title = "".join(word.capitalize() for word in name.split("_"))
    reference = {"$ref": f"#/components/schemas/{title}InputSchema"}
    return {
        "post": {
            "summary": title,
            "operationId": name,
            "requestBody": {"required": True, "content": {"application/json": {"schema": reference}}},
            "responses": {
                "200": {"description": "The result.", "content": {"application/json": {"schema": {"type": "object"}}}}
            },
        }
    }


def _health() -> dict[str, Any]:
    return {"get": {"summary": "Health", "operationId": "health", "responses": {"200": {"description": "It answers."}}}}


def _schemas(model: Model, endpoints: Sequence[str]) -> dict[str, Any]:
    inputs = {"$ref": "#/components/schemas/Apply_InputSchema"}
    arguments: list[ModelInput | ModelParameter] = [*model.inputs, *model.parameters]
    differentiable = _has_derivative(model)
    schemas: dict[str, Any] = {
        "EncodedArray": _array([]),
        "Apply_InputSchema": {
            "type": "object",
            "properties": _properties(model),
            "required": [argument.name for argument in arguments if argument.required],
        },
        "Apply_OutputSchema": {
            "type": "object",
            "properties": {output.name: _output(output) for output in model.usual_outputs},
        },
        "ApplyInputSchema": {
            "type": "object",
            "properties": {"inputs": inputs},
            "required": ["inputs"],
            "additionalProperties": False,
            "differentiable_arrays": {_path(spec): _array_type(spec) for spec in model.differentiable_inputs}
            if differentiable
            else {},
            "field_order": {"": list(dict.fromkeys(argument.name for argument in arguments))},
        },
        "ApplyOutputSchema": {
            "$ref": "#/components/schemas/Apply_OutputSchema",
            "differentiable_arrays": {
                _path(output): {"shape": _ANY_SHAPE, "dtype": _output_dtype(model)}
                for output in model.usual_outputs
                if output.differentiable and differentiable
            },
            "field_order": {"": [output.name for output in model.usual_outputs]},
        },
        "AbstractEvalInputSchema": {"type": "object", "properties": {"inputs": {"type": "object"}}, "required": ["inputs"]},
    }
    for name in endpoints:
        if name in _FIELDS:
            title = "".join(word.capitalize() for word in name.split("_"))
            properties = {"inputs": inputs, **_FIELDS[name]}
            schemas[f"{title}InputSchema"] = {"type": "object", "properties": properties, "required": list(properties)}
    return schemas


def _properties(model: Model) -> dict[str, Any]:
    """Inputs and parameters in one object; what may be either is an array here, as that is what carries a derivative."""
    properties: dict[str, Any] = {parameter.name: _parameter(parameter) for parameter in model.parameters}
    for spec in model.inputs:
        array = _array(["DIFFERENTIABLE"] if spec in model.differentiable_inputs else [], spec.dtype)
        properties[spec.name] = {"type": "array", "items": array} if spec.several else array
        if spec.meaning:
            properties[spec.name] = {**properties[spec.name], "description": spec.meaning}
    if model.may_draw:
        when = "" if model.random else " Needed where dropout is asked for."
        properties["seed"] = {"type": "integer", "description": f"Decides the random numbers.{when}"}
    return properties


def _parameter(parameter: ModelParameter) -> dict[str, Any]:
    schema = dict(_PARAMETER_TYPES[parameter.kind])
    if not parameter.required:
        schema["default"] = parameter.default
    return {**schema, "description": parameter.meaning} if parameter.meaning else schema


def _array(flags: Sequence[str], dtype: str | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "object_type": {"const": "array", "type": "string", "default": "array"},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
            "dtype": {"type": "string", "enum": list(arrays.DTYPES), "examples": [dtype or "float64"]},
            "data": {"type": "object"},
        },
        "required": ["shape", "dtype", "data"],
        "additionalProperties": False,
        "array_flags": list(flags),
    }


def _output(output: ModelOutput) -> dict[str, Any]:
    array = _array(["DIFFERENTIABLE"] if output.differentiable else [])
    return {"type": "array", "items": array} if output.several else array


def _path(spec: ModelInput | ModelOutput) -> str:
    return f"{spec.name}.[]" if spec.several else spec.name


def _array_type(spec: ModelInput) -> dict[str, Any]:
    shape = None if spec.shape is None else [axis if isinstance(axis, int) else None for axis in spec.shape]
    return {"shape": shape, "dtype": arrays.name_of(spec.dtype or "float64")}


def _output_dtype(model: Model) -> str:
    """Of a function its first differentiable input's; an operation's outputs follow its inputs."""
    return arrays.name_of(next((spec.dtype for spec in model.differentiable_inputs if spec.dtype), "float64"))
