"""An inference request → Query, and an Answer → its reply: the Open Inference Protocol v2 with the binary tensor extension.

https://github.com/kserve/open-inference-protocol, and extension_binary_data.md and extension_parameters.md of Triton's server.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import orjson

from app.errors import PullbackError
from app.protocols import strict_json
from app.protocols.content import JSON, OCTETS, decompressed
from app.protocols.describe import describe, plain_parameter
from app.protocols.elements import PART
from app.protocols.json_numbers import dumps, numbers
from app.protocols.message import Asked, Buffer, Cut, Message, Server, Written
from app.protocols.models import PROGRAM, Model
from app.protocols.oip import envelope
from app.protocols.oip.datatypes import NAMES
from app.protocols.oip.selection import Selected, everything, kinds, selected, tensor_of
from app.protocols.tensor_names import checked_names, joined
from app.query import Answer, Input, Parameter, Query, TensorData, Want

VERSION: Final = "1"
# What belongs to the protocol or to the query as a whole, and is no argument of the model (extension_parameters.md).
_EXPECTED_PARAMETER: Final = 'a string, number or boolean; a list as a JSON string, "[1, 2]"'
_OURS: Final = frozenset({"program", "seed", "of", "timeout", "priority", "binary_data_output", "headers"})
# What begins with `[` there is text; elsewhere it is a list.
_TEXT_KINDS: Final = ("string", "dtype")
_MICROSECONDS: Final = 1_000_000  # in a second: `timeout` is in microseconds
# Below, a compressed reply is hardly smaller.
_COMPRESSED_FROM_BYTES: Final = 1024
_WINDOWS: Final = {"gzip": 31, "deflate": 15}
_LEVEL: Final = 1  # the quickest: numbers hardly get smaller at higher ones


def read(message: Message, server: Server) -> Asked:
    """The query of an inference request.

    Raises:
        PullbackError: every refusal of the request itself, and `unknown_operation`.
    """
    name = message.parameters["model"]
    _check_version(message.parameters.get("version"))
    model = None if name == PROGRAM else server.models.find(name)
    body = decompressed(message.body, message.content_encoding, server.limits.body_bytes)
    request, tensors = envelope.read(body, message.parameters.get(envelope.JSON_LENGTH), message.value)
    chosen = [selected(output.name, tensors) for output in request.outputs]
    query = _query(model, request, tensors, chosen)
    coding = _coding(message.parameters.get("accept-encoding"))
    write = partial(_write, request=request, chosen=chosen, model=name, coding=coding)
    cut = partial(_cut, request=request, chosen=chosen, model=name) if coding is None else None
    otherwise = None
    if not chosen and query.wrt is None:
        otherwise = Query(**{**_fields(query), "want": ("outputs",), "cotangent": {}, "tangent": {}})
    return Asked(query, write, otherwise, cut)


def _check_version(version: str | None) -> None:
    if version not in (None, VERSION):
        raise PullbackError(
            "unknown_operation",
            f"There is no version {version!r}.",
            at="version",
            expected=VERSION,
            given=version,
            fix="Ask for this one, or for none.",
        )


def _fields(query: Query) -> dict[str, Any]:
    return {name: getattr(query, name) for name in Query.__slots__}


# --- the query -------------------------------------------------------------------------------------------------------


def _query(
    model: Model | None, request: envelope.Request, tensors: Mapping[str, TensorData], chosen: Sequence[Selected]
) -> Query:
    inputs, cotangent, tangent = _places(tensors)
    wrt = tuple(dict.fromkeys(name for one in chosen for name in one.inputs))
    if any(one.kind == "jvp" for one in chosen) or wrt:
        wrt = tuple(dict.fromkeys((*wrt, *tangent)))
    everything_wanted: tuple[Want, ...] = ("outputs", "vjp", "jvp") if tangent else ("outputs", "vjp")
    parameters = request.parameters
    return Query(
        operation=model.name if model is not None and model.subject == "operation" else None,
        function=model.name if model is not None and model.subject == "function" else None,
        program=_program(parameters) if model is None else None,
        inputs=inputs,
        parameters=_arguments(model, parameters),
        want=kinds(chosen) or everything_wanted,
        wrt=wrt or None,
        of=_text(parameters, "of"),
        cotangent=cotangent,
        tangent=tangent,
        seed=_whole(parameters, "seed"),
        timeout_s=_timeout_s(parameters),
    )


def _places(tensors: Mapping[str, TensorData]) -> tuple[dict[str, Input], dict[str, TensorData], dict[str, TensorData]]:
    """(inputs, cotangents, tangents) by the prefixes of their names."""
    inputs: dict[str, TensorData] = {}
    others: dict[str, dict[str, TensorData]] = {"cotangent": {}, "tangent": {}}
    for name, tensor in tensors.items():
        field, _, rest = name.partition(".")
        if field in others and rest and not rest.isdigit():
            others[field][rest] = tensor
        else:
            inputs[name] = tensor
    for field, tensors in (("inputs", inputs), *others.items()):
        checked_names(tensors, field)
    return joined(inputs), others["cotangent"], others["tangent"]


def _program(parameters: Mapping[str, Any]) -> str:
    text = _text(parameters, "program")
    if text is None:
        raise PullbackError(
            "bad_request",
            "The model `program` takes its text in a parameter.",
            at="parameters.program",
            expected='"parameters": {"program": "return …"}',
        )
    return text


def _arguments(model: Model | None, parameters: Mapping[str, Any]) -> dict[str, Parameter]:
    """The model's plain arguments; a list comes as a JSON string, as the protocol has no lists."""
    plain: dict[str, Parameter] = {}
    known = {} if model is None else model.parameter_names
    for name, value in parameters.items():
        if (name in _OURS and name not in known) or name.startswith(("triton_", "sequence_")):
            continue
        kind = known[name].kind if name in known else None
        at = f"parameters.{name}"
        if type(value) is str and value[:1] == "[" and kind not in _TEXT_KINDS:
            value = strict_json.parse(value.encode(), name=f"the parameter {name[:64]!r}")
        plain[name] = plain_parameter(value, at, _EXPECTED_PARAMETER)
    checked_names(plain, "parameters")
    return plain


def _text(parameters: Mapping[str, Any], name: str) -> str | None:
    value = parameters.get(name)
    if value is not None and type(value) is not str:
        raise PullbackError("bad_parameter", f"`{name}` is a string.", at=f"parameters.{name}", given=describe(value))
    return value


def _whole(parameters: Mapping[str, Any], name: str) -> int | None:
    value = parameters.get(name)
    if value is not None and (type(value) is not int or not 0 <= value < 1 << 63):
        raise PullbackError(
            "bad_parameter",
            f"`{name}` is an integer, not negative.",
            at=f"parameters.{name}",
            expected="an integer from 0 to 2^63 - 1",
            given=describe(value),
        )
    return value


def _timeout_s(parameters: Mapping[str, Any]) -> float | None:
    """`timeout` is in microseconds; 0 means none."""
    value = _whole(parameters, "timeout")
    return value / _MICROSECONDS if value else None


# --- the reply -------------------------------------------------------------------------------------------------------


def _write(answer: Answer, request: envelope.Request, chosen: Sequence[Selected], model: str, coding: str | None) -> Written:
    text, tail = _parts(answer, request, chosen, model, partial(numbers, flat=True))
    # As Triton: the header only where bytes follow.
    headers = {envelope.JSON_LENGTH: str(len(text))} if any(len(tensor.data) for tensor in tail) else {}
    pieces: list[Buffer] = [text, *[tensor.data for tensor in tail]]
    return _compressed(Written(OCTETS if headers else JSON, pieces, headers), coding)


def _cut(answer: Answer, request: envelope.Request, chosen: Sequence[Selected], model: str) -> Cut | None:
    """The reply with gaps for numbers; None where some are text and some bytes."""
    shown: list[TensorData] = []

    def gap(tensor: TensorData) -> orjson.Fragment:
        shown.append(tensor)
        return orjson.Fragment(b"\0")  # which no JSON text has: in strings it is escaped

    text, tail = _parts(answer, request, chosen, model, gap)
    if shown and tail:
        return None
    results = [tensor for tensors in answer.results.values() for tensor in tensors.values()]
    order = tuple(next(i for i, result in enumerate(results) if result is tensor) for tensor in shown or tail)
    if not tail:
        return Cut(text.split(b"\0"), order, JSON, flat=True)
    return Cut((text, *[b""] * len(tail)), order, OCTETS, {envelope.JSON_LENGTH: str(len(text))}, binary=True)


def _parts(
    answer: Answer, request: envelope.Request, chosen: Sequence[Selected], model: str, shown: Callable[[TensorData], Any]
) -> tuple[bytes, list[TensorData]]:
    """The JSON part of a reply, its numbers as `shown` gives them, and the tensors whose bytes follow."""
    binary_default = envelope.flag(request.parameters, "binary_data_output")
    binary = {
        output.name: envelope.flag(output.parameters, "binary_data", f"outputs.{output.name}.parameters", binary_default)
        for output in request.outputs
    }
    described: list[dict[str, Any]] = []
    tail: list[TensorData] = []
    for one in chosen or everything(answer):
        tensor = tensor_of(one, answer)
        is_binary = binary.get(one.name, binary_default)
        described.append(_described(one.name, tensor, None if is_binary else shown))
        if is_binary:
            tail.append(tensor)
    head: dict[str, Any] = {"model_name": model, "model_version": VERSION}
    if request.id is not None:
        head["id"] = request.id
    if answer.notes:
        # Parameters are plain values, so the notes are one string.
        head["parameters"] = {"notes": " ".join(f"[{note.code}] {note.message}" for note in answer.notes)}
    return dumps({**head, "outputs": described}), tail


def _described(name: str, tensor: TensorData, shown: Callable[[TensorData], Any] | None) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    shape = tensor.shape
    if tensor.dtype in PART:
        parameters["complex"] = True
        shape = (*shape, 2)
    described: dict[str, Any] = {"name": name, "shape": shape, "datatype": NAMES[tensor.dtype]}
    if shown is None:
        parameters["binary_data_size"] = tensor.data.nbytes
    else:
        described["data"] = shown(tensor)
    if parameters:
        described["parameters"] = parameters
    return described


def _coding(accepted: str | None) -> str | None:
    """The coding that a reply is compressed by: where the client names one alone.

    Several are what HTTP libraries always send; compressing tensors for them would cost more than it saves.
    """
    name = (accepted or "").split(";")[0].strip().lower()
    return name if name in _WINDOWS else None


def _compressed(reply: Written, coding: str | None) -> Written:
    if coding is None or sum(len(piece) for piece in reply.buffers) < _COMPRESSED_FROM_BYTES:
        return reply
    stream = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOWS[coding])
    pieces = [*(stream.compress(memoryview(piece).cast("B")) for piece in reply.buffers if len(piece)), stream.flush()]
    return Written(reply.media_type, pieces, {**reply.headers, "content-encoding": coding})
