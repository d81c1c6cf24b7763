"""Pages about server and models in the Open Inference Protocol: metadata, configuration, readiness, the list of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from app import __version__
from app.errors import PullbackError
from app.protocols.content import JSON
from app.protocols.message import Message, Server, Written
from app.protocols.models import PROGRAM, Model, ModelInput
from app.protocols.oip.datatypes import NAMES
from app.protocols.oip.inference import VERSION
from app.protocols.oip.selection import KINDS
from app.protocols.routes import PageRequest

PLATFORM: Final = "pytorch_autograd"
EXTENSIONS: Final = ("binary_tensor_data", "model_configuration", "model_repository", "parameters", "statistics")
# An axis of any extent; a shape of one of them alone stands for any rank too, which the protocol cannot say.
_ANY: Final = -1
_EXAMPLE_DTYPES: Final = {bool: "bool", int: "int64"}


def server(_: PageRequest) -> Written:
    """`GET /v2`."""
    return _json({"name": "pullback", "version": __version__, "extensions": EXTENSIONS})


def live(_: PageRequest) -> Written:
    return _json({"live": True})


def ready(request: PageRequest) -> Written:
    """Status 503 while no worker answers: clients read the status alone."""
    return _json({"ready": request.ready}, 200 if request.ready else 503)


def models(request: PageRequest) -> Written:
    """`GET /v2/models`, as KServe has it."""
    return _json({"models": [PROGRAM, *request.models]})


def index(message: Message, of: Server) -> Written:
    """`POST /v2/repository/index` of the model repository extension."""
    return _json([{"name": name, "version": VERSION, "state": "READY", "reason": ""} for name in (PROGRAM, *of.models)])


def model(request: PageRequest) -> Written:
    """`GET /v2/models/{model}`, differentiability in `properties`. Raises PullbackError: `unknown_operation`."""
    model = _find(request)
    if model is None:
        return _json(_PROGRAM)
    return _json(
        {
            "name": model.name,
            "versions": [VERSION],
            "platform": PLATFORM,
            "inputs": _inputs(model),
            "outputs": _outputs(model),
            "properties": _properties(model),
        }
    )


def model_ready(request: PageRequest) -> Written:
    model = _find(request)
    name = PROGRAM if model is None else model.name
    return _json({"name": name, "ready": request.ready}, 200 if request.ready else 503)


def config(request: PageRequest) -> Written:
    """`GET /v2/models/{model}/config` of the model configuration extension."""
    model = _find(request)
    tensors = ([], []) if model is None else (_inputs(model), _outputs(model))
    inputs, outputs = (
        [{"name": t["name"], "data_type": f"TYPE_{t['datatype']}", "dims": t["shape"]} for t in side] for side in tensors
    )
    name = PROGRAM if model is None else model.name
    return _json(
        {"name": name, "platform": PLATFORM, "backend": "pullback", "max_batch_size": 0, "input": inputs, "output": outputs}
    )


def statistics(request: PageRequest) -> Written:
    """`GET /v2/models[/{model}]/stats`: of the model, or of all that have been asked. Durations in nanoseconds."""
    names: Sequence[str] = sorted(request.counts)
    if "model" in request.parameters:
        model = _find(request)
        names = [PROGRAM if model is None else model.name]
    return _json({"model_stats": [_statistics(name, request) for name in names]})


def _statistics(name: str, request: PageRequest) -> Mapping[str, Any]:
    counts = request.counts.get(name)
    succeeded, failed = (counts.succeeded, counts.failed) if counts else (0, 0)
    zero = _duration(0, 0.0)
    spent = (
        {
            "success": _duration(succeeded, counts.success_s),
            "fail": _duration(failed, counts.failure_s),
            "queue": _duration(succeeded, counts.queue_s),
            "compute_input": zero,
            "compute_infer": _duration(succeeded, counts.compute_s),
            "compute_output": _duration(succeeded, counts.encode_s),
        }
        if counts
        else dict.fromkeys(("success", "fail", "queue", "compute_input", "compute_infer", "compute_output"), zero)
    )
    return {
        "name": name,
        "version": VERSION,
        "last_inference": round(counts.last * 1e3) if counts else 0,
        "inference_count": succeeded,
        "execution_count": succeeded,
        "inference_stats": {**spent, "cache_hit": zero, "cache_miss": zero},
        "batch_stats": [],
    }


def _duration(count: int, seconds: float) -> Mapping[str, int]:
    return {"count": count, "ns": round(seconds * 1e9)}


def _find(request: PageRequest) -> Model | None:
    """The model of the path; None for `program`. Raises PullbackError: `unknown_operation`."""
    if request.parameters.get("version") not in (None, VERSION):
        raise PullbackError(
            "unknown_operation",
            "There is no such version.",
            at="version",
            expected=VERSION,
            fix="Ask for this one, or for none.",
        )
    name = request.parameters["model"]
    return None if name == PROGRAM else request.models.find(name)


def _json(value: Any, status: int = 200) -> Written:
    return Written(JSON, (orjson.dumps(value),), status=status)


# --- a model's tensors -----------------------------------------------------------------------------------------------


def _inputs(model: Model) -> list[Mapping[str, Any]]:
    """The inputs that every call needs; which others there are is said in `properties`."""
    return [
        {"name": f"{i.name}.0" if i.several else i.name, "datatype": _datatype(model, i), "shape": _shape(i.shape)}
        for i in model.inputs
        if i.required
    ]


def _outputs(model: Model) -> list[Mapping[str, Any]]:
    """What comes where nothing is requested: the outputs and one VJP for each differentiable input."""
    plain = [
        {
            "name": f"{output.name}.0" if output.several else output.name,
            "datatype": NAMES["float64" if output.differentiable else "int64"],
            "shape": [_ANY],
        }
        for output in model.usual_outputs
    ]
    derivatives = [
        {"name": f"vjp.{i.name}{'.0' if i.several else ''}", "datatype": _datatype(model, i), "shape": _shape(i.shape)}
        for i in model.differentiable_inputs
        if i.required
    ]
    return [*plain, *derivatives]


def _shape(shape: tuple[int | str, ...] | None) -> list[int]:
    return [_ANY] if shape is None else [axis if isinstance(axis, int) else _ANY for axis in shape]


def _datatype(model: Model, tensor: ModelInput) -> str:
    """The datatype of an input: of a function as annotated; an operation takes many, so that of its example stands here."""
    if tensor.dtype is not None:
        return NAMES[tensor.dtype]
    value = ((model.example or {}).get("inputs") or {}).get(tensor.name)
    while isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, dict):
        return NAMES[value.get("dtype", "float64")]
    return NAMES["float64" if tensor.differentiable else _EXAMPLE_DTYPES.get(type(value), "float64")]


def _properties(model: Model) -> Mapping[str, str]:
    """Strings, as the specification has them."""
    inputs = [i.name for i in model.differentiable_inputs]
    outputs = [o.name for o in model.outputs if o.differentiable] if inputs else []
    properties = {
        "subject": model.subject,
        "summary": model.summary,
        "documentation": model.documentation,
        "differentiable": ", ".join(inputs),
        "order": str(model.order),
        "rank": "any" if model.subject == "operation" else "",
        "optional_inputs": ", ".join(i.name for i in model.inputs if not i.required),
        "parameters": ", ".join(f"{p.name}: {p.kind}{'' if p.required else ' (optional)'}" for p in model.parameters),
        "derivatives": ", ".join(".".join((kind, *roles)) for kind, roles in KINDS.items()) if inputs else "",
        "cotangents": ", ".join(f"cotangent.{name}" for name in outputs),
        "tangents": ", ".join(f"tangent.{name}" for name in inputs),
        "seed": "required" if model.random else "needed where dropout is asked for" if model.may_draw else "",
    }
    return {key: text for key, text in properties.items() if text}


_PROGRAM: Final = {
    "name": PROGRAM,
    "versions": [VERSION],
    "platform": PLATFORM,
    "inputs": [],
    "outputs": [],
    "properties": {
        "summary": "A program, whose text is the request's parameter `program`; its inputs and outputs are the text's own.",
        "parameters": "program: string, and the program's own",
        "derivatives": ", ".join(".".join((kind, *roles)) for kind, roles in KINDS.items()),
    },
}
