"""The eight calls of UM-Bridge 1.0: the kept functions as models with flat float64 vectors.

https://um-bridge-benchmarks.readthedocs.io, "Protocol"; what its servers check, and in which order, is the specification.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Final

import orjson

from app.errors import PullbackError
from app.protocols import strict_json
from app.protocols.content import JSON, decompressed
from app.protocols.describe import describe
from app.protocols.message import Asked, Message, OutputType, Server, Written
from app.protocols.models import Model
from app.protocols.routes import PageRequest
from app.protocols.umbridge import vectors
from app.query import FLOATING_DTYPES, Answer, Parameter, Query, TensorData

VERSION: Final = 1.0  # of the protocol, https://um-bridge-benchmarks.readthedocs.io
# Keys of `config` that are not the function's parameters.
_SHAPES: Final = "shapes"
_SEED: Final = "seed"
_ALLOW_NAN: Final = "allow_nan"


@dataclass(frozen=True)
class _Call:
    """One call's body, as far as every call reads it."""

    fields: Mapping[str, Any]
    model: Model
    config: Mapping[str, Any]

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return vectors.shapes(self.model, self.config.get(_SHAPES))

    @property
    def nonfinite(self) -> bool:
        return self.config.get(_ALLOW_NAN) is True


def info(request: PageRequest) -> Written:
    """`GET /Info`: the models, single vectors first."""
    spoken = [model for model in request.models.functions.values() if vectors.is_spoken(model)]
    return _json({"protocolVersion": VERSION, "models": [model.name for model in sorted(spoken, key=vectors.rank)]})


def model_info(message: Message, server: Server) -> Written:
    """`POST /ModelInfo`: what the model supports."""
    call = _call(message, server)
    differentiable = _is_differentiable(call, server)
    return _json(
        {
            "support": {
                "Evaluate": True,
                "Gradient": differentiable,
                "ApplyJacobian": differentiable,
                "ApplyHessian": differentiable,
            }
        }
    )


def input_sizes(message: Message, server: Server) -> Written:
    """`POST /InputSizes`."""
    return _json({"inputSizes": [vectors.size(shape) for shape in _call(message, server).shapes.values()]})


def output_sizes(message: Message, server: Server) -> Written:
    """`POST /OutputSizes`, from shapes alone."""
    call = _call(message, server)
    outputs = server.outputs(_query(call, _zeros(call, call.shapes, server.limits.body_bytes)), True)
    return _json({"outputSizes": [vectors.size(output.shape) for output in outputs.values()]})


def evaluate(message: Message, server: Server) -> Asked:
    """`POST /Evaluate`: F(input), one vector for each output."""
    call = _call(message, server)
    query = _query(call, _inputs(call))
    return Asked(query, partial(_write_outputs, call=call))


def gradient(message: Message, server: Server) -> Asked:
    """`POST /Gradient`: Jᵀ·sens of one output and one input."""
    point = _Point(message, server, ("outWrt",), ("inWrt",))
    fields: dict[str, Any] = {"want": ("vjp",), "wrt": point.inputs, "cotangent": point.sens()}
    return Asked(point.query(fields), partial(_write_vector, call=point.call, kind="vjp", name=point.inputs[0]))


def apply_jacobian(message: Message, server: Server) -> Asked:
    """`POST /ApplyJacobian`: J·vec of one output and one input."""
    point = _Point(message, server, ("outWrt",), ("inWrt",))
    fields: dict[str, Any] = {"want": ("jvp",), "wrt": point.inputs, "tangent": point.vec(point.inputs[0])}
    return Asked(point.query(fields), partial(_write_vector, call=point.call, kind="jvp", name=point.output))


def apply_hessian(message: Message, server: Server) -> Asked:
    """`POST /ApplyHessian`: ∂/∂x_in2 [(∂F_out/∂x_in1)ᵀ·sens] · vec."""
    point = _Point(message, server, ("outWrt",), ("inWrt1", "inWrt2"))
    first, second = point.inputs
    fields: dict[str, Any] = {
        "want": ("hvp",),
        "wrt": tuple(dict.fromkeys(point.inputs)),
        "of": point.output,
        "weighted": True,
        "cotangent": point.sens(),
        "tangent": point.vec(second),
    }
    return Asked(point.query(fields), partial(_write_vector, call=point.call, kind="hvp", name=first))


# --- what a call names -----------------------------------------------------------------------------------------------


class _Point:
    """The body of a derivative's call, checked in the protocol's order: model, support, vectors, indices."""

    def __init__(self, message: Message, server: Server, outputs: tuple[str, ...], inputs: tuple[str, ...]) -> None:
        self.call = call = _call(message, server)
        if not _is_differentiable(call, server):
            raise PullbackError(
                "not_differentiable",
                f"`{call.model.name}` has no derivative: its inputs or outputs are not real numbers.",
                at="name",
            )
        self._tensors = _inputs(call)
        self._outputs: Mapping[str, OutputType] = server.outputs(_query(call, self._tensors), False)
        self.output = _named(call, outputs[0], list(self._outputs))
        self.inputs = tuple(_named(call, field, list(call.shapes)) for field in inputs)

    def sens(self) -> dict[str, TensorData]:
        return {self.output: _vector(self.call, "sens", self._outputs[self.output].shape)}

    def vec(self, name: str) -> dict[str, TensorData]:
        return {name: _vector(self.call, "vec", self.call.shapes[name])}

    def query(self, fields: Mapping[str, Any]) -> Query:
        return _query(self.call, self._tensors, **fields)


def _call(message: Message, server: Server) -> _Call:
    """The content type is not looked at: half of the clients send none."""
    body = decompressed(message.body, message.content_encoding, server.limits.body_bytes)
    fields = strict_json.parse(body)
    if type(fields) is not dict or type(fields.get("name")) is not str:
        raise PullbackError(
            "bad_request",
            "The body names no model.",
            at="name",
            expected='an object with "name"',
            given=describe(fields.get("name") if type(fields) is dict else fields),
        )
    model = server.models.function(fields["name"])
    if not vectors.is_spoken(model):
        raise PullbackError("unknown_function", f"`{model.name}` has complex inputs, which this protocol lacks.", at="name")
    config = fields.get("config")
    if config is not None and type(config) is not dict:
        raise PullbackError("bad_request", "`config` is an object.", at="config", expected="an object", given=describe(config))
    return _Call(fields, model, config or {})


def _is_differentiable(call: _Call, server: Server) -> bool:
    if not call.model.differentiable_inputs:
        return False
    try:
        outputs = server.outputs(_query(call, _zeros(call, vectors.shapes(call.model, None), server.limits.body_bytes)), False)
    except PullbackError:
        # Two inputs' free axes may have to differ: then only a call with its own shapes tells.
        return True
    return any(output.dtype in FLOATING_DTYPES for output in outputs.values())


def _named(call: _Call, field: str, names: list[str]) -> str:
    value = call.fields.get(field)
    if type(value) is not int or not 0 <= value < len(names):
        raise PullbackError(
            "bad_parameter",
            f"`{field}` is an index from 0 to {len(names) - 1}.",
            at=field,
            expected=f"an integer from 0 to {len(names) - 1}",
            given=describe(value),
        )
    return names[value]


def _inputs(call: _Call) -> dict[str, TensorData]:
    listed = call.fields.get("input")
    if type(listed) is not list:
        raise PullbackError(
            "bad_request", "`input` is a list of vectors.", at="input", expected="a list of lists", given=describe(listed)
        )
    if len(listed) != len(call.model.inputs):
        raise PullbackError(
            "shape_mismatch",
            f"`{call.model.name}` has {len(call.model.inputs)} inputs; {len(listed)} vectors came.",
            at="input",
            expected=f"{len(call.model.inputs)} vectors: {', '.join(spec.name for spec in call.model.inputs)}",
            given=f"{len(listed)} vectors",
        )
    return {
        spec.name: _sized(vectors.listed(vector), shape, spec.dtype or "float64", f"input[{index}]")
        for index, (vector, (spec, shape)) in enumerate(
            zip(listed, zip(call.model.inputs, call.shapes.values(), strict=True), strict=True)
        )
    }


def _vector(call: _Call, field: str, shape: tuple[int, ...]) -> TensorData:
    return _sized(vectors.listed(call.fields.get(field)), shape, "float64", field)


def _sized(vector: list[Any], shape: tuple[int, ...], dtype: str, at: str) -> TensorData:
    if len(vector) != vectors.size(shape):
        raise PullbackError(
            "shape_mismatch",
            f"`{at}` has {len(vector)} elements; there must be {vectors.size(shape)}.",
            at=at,
            expected=f"{vectors.size(shape)} numbers, shape {list(shape)} in row-major order",
            given=f"{len(vector)} numbers",
            fix='Other shapes go into "config": {"shapes": {"NAME": [2, 3]}}.',
        )
    return vectors.read(vector, shape, dtype, at)


def _zeros(call: _Call, shapes: Mapping[str, tuple[int, ...]], limit_bytes: int) -> dict[str, TensorData]:
    return {spec.name: vectors.zeros(shapes[spec.name], spec.dtype or "float64", limit_bytes) for spec in call.model.inputs}


def _query(call: _Call, tensors: Mapping[str, TensorData], **fields: Any) -> Query:
    known = call.model.parameter_names
    parameters: dict[str, Parameter] = {}
    for name, value in call.config.items():
        if name in known:
            parameters[name] = _plain(value, f"config.{name}")
        elif name not in (_SHAPES, _SEED, _ALLOW_NAN):
            raise PullbackError(
                "bad_parameter",
                f"`{call.model.name}` has no parameter {name[:64]!r}.",
                at=f"config.{name[:64]}",
                expected=", ".join((_SHAPES, _SEED, _ALLOW_NAN, *known)),
                fix="Leave it out.",
            )
    seed = None if _SEED in known else call.config.get(_SEED)
    if seed is not None and (type(seed) is not int or not 0 <= seed < 1 << 63):
        raise PullbackError("bad_parameter", "`seed` is an integer, not negative.", at="config.seed", given=describe(seed))
    return Query(function=call.model.name, inputs=dict(tensors), parameters=parameters, dtype="float64", seed=seed, **fields)


def _plain(value: Any, at: str) -> Parameter:
    if value is None or type(value) in (bool, int, float, str):
        return value  # type: ignore[no-any-return]
    if type(value) is list:
        return tuple(_plain(member, at) for member in value)
    raise PullbackError("bad_parameter", "A parameter is a plain value.", at=at, given=describe(value))


# --- replies ---------------------------------------------------------------------------------------------------------


def _write_outputs(answer: Answer, call: _Call) -> Written:
    outputs = answer.results["outputs"]
    return _json(
        {"output": [vectors.write(outputs[name], f"output {name}", nonfinite=call.nonfinite) for name in outputs]},
        nonfinite=call.nonfinite,
    )


def _write_vector(answer: Answer, call: _Call, kind: str, name: str) -> Written:
    result = answer.results[kind].get(name)
    if result is None:
        raise PullbackError("not_differentiable", f"The output `{name}` carries no derivative.", at="outWrt")
    return _json({"output": vectors.write(result, f"{kind} {name}", nonfinite=call.nonfinite)}, nonfinite=call.nonfinite)


def _json(value: Any, *, nonfinite: bool = False) -> Written:
    """Python's own writer where NaN is asked for: it is the one that writes the literals."""
    return Written(JSON, (json.dumps(value).encode() if nonfinite else orjson.dumps(value),))
