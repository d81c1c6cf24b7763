"""An inference request's JSON object and the bytes behind it: their types, their order, and every refusal of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.errors import PullbackError
from app.limits import NAME_LIMIT, TENSOR_COUNT_LIMIT
from app.protocols import strict_json
from app.protocols.describe import describe
from app.protocols.json_tensors import checked_shape, tensor
from app.protocols.oip.datatypes import DATATYPES, as_complex, from_wire
from app.query import TensorData

# The header that says where the JSON ends and the tensors' bytes begin (extension_binary_data.md).
JSON_LENGTH: Final = "inference-header-content-length"
Name = Annotated[str, Field(min_length=1, max_length=NAME_LIMIT)]


class Input(BaseModel):
    """`$request_input` of the specification; `shape` and `data` stay as they were parsed."""

    model_config = ConfigDict(strict=True, frozen=True)
    name: Name
    datatype: str
    shape: list[Any]
    parameters: dict[str, Any] = Field(default_factory=dict)
    data: Any = None


class Output(BaseModel):
    """`$request_output`."""

    model_config = ConfigDict(strict=True, frozen=True)
    name: Name
    parameters: dict[str, Any] = Field(default_factory=dict)


class Request(BaseModel):
    """`$inference_request`."""

    model_config = ConfigDict(strict=True, frozen=True)
    id: str | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    inputs: Annotated[list[Input], Field(max_length=TENSOR_COUNT_LIMIT)]
    outputs: Annotated[list[Output], Field(max_length=TENSOR_COUNT_LIMIT)] = Field(default_factory=list)


def read(
    body: memoryview, json_length: str | None, value: dict[str, Any] | None = None
) -> tuple[Request, dict[str, TensorData]]:
    """The request in a decompressed body, and its tensors by name; those that came as bytes are views of it.

    Arguments:
        json_length: the header of that name, None where there is none: all of the body is JSON.
        value: what the JSON spells, where it has been read already, as `Message` has it.

    Raises:
        PullbackError: `bad_binary`, `bad_json`, `duplicate_key`, `json_depth`, `bad_request`, `bad_tensor`.
    """
    text, rest = _split(body, json_length)
    try:
        request = Request.model_validate(strict_json.parse(text) if value is None else strict_json.again(text, value))
    except ValidationError as error:
        raise _refusal(error) from None
    tensors: dict[str, TensorData] = {}
    for sent in request.inputs:
        if sent.name in tensors:
            raise PullbackError(
                "bad_request",
                f"The input {sent.name!r} is given twice.",
                at="inputs",
                expected="each name once",
                given=sent.name,
            )
        tensors[sent.name], rest = _tensor(sent, rest)
    if len(rest):
        raise PullbackError(
            "bad_binary",
            f"{len(rest)} bytes follow the last tensor.",
            at="inputs",
            expected="as many bytes as the inputs' binary_data_size say together",
            fix="Correct binary_data_size, or the header Inference-Header-Content-Length.",
        )
    _check_outputs(request)
    return request, tensors


def _split(body: memoryview, json_length: str | None) -> tuple[memoryview, memoryview]:
    if json_length is None:
        return body, body[:0]
    text = json_length.strip()
    # A length of more than 18 digits is longer than any body; Python would convert thousands of digits slowly.
    size = int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else -1
    if not 0 < size <= len(body):
        raise PullbackError(
            "bad_binary",
            "The header Inference-Header-Content-Length does not fit the body.",
            at="Inference-Header-Content-Length",
            expected=f"the length of the JSON part: an integer from 1 to {len(body)}, the size of the (decompressed) body",
            given=describe(json_length),
            fix="Leave it out where the body is JSON alone; a body of bare tensor bytes (length 0) is not read here.",
        )
    return body[:size], body[size:]


def _tensor(sent: Input, rest: memoryview) -> tuple[TensorData, memoryview]:
    """The input's tensor, and the bytes that are left."""
    at = f"inputs.{sent.name}"
    if sent.datatype not in DATATYPES:
        raise PullbackError(
            "bad_tensor",
            "The datatype is not read here.",
            at=f"{at}.datatype",
            expected=f"one of {', '.join(DATATYPES)}",
            given=describe(sent.datatype),
        )
    kind = DATATYPES[sent.datatype]
    if sent.parameters:
        _refuse_shared_memory(sent.parameters, at)
    size = sent.parameters.get("binary_data_size")
    if size is None:
        data = tensor({"data": _present(sent.data, at), "dtype": kind.dtype, "shape": sent.shape}, at)
    elif sent.data is not None:
        raise PullbackError("bad_request", "The input has `data` and `binary_data_size`.", at=at, expected="one of the two")
    elif type(size) is not int or not 0 <= size <= len(rest):
        raise PullbackError(
            "bad_binary",
            "binary_data_size does not fit the bytes behind the JSON.",
            at=f"{at}.parameters.binary_data_size",
            expected=f"an integer from 0 to {len(rest)}, the bytes that are left",
            given=describe(size),
        )
    else:
        shape = checked_shape(sent.shape, f"{at}.shape", kind.dtype)
        data, rest = from_wire(rest[:size], sent.datatype, shape, at), rest[size:]
    if flag(sent.parameters, "complex", f"{at}.parameters"):
        data = as_complex(data, at)
    return data, rest


def _present(data: Any, at: str) -> Any:
    if data is None:
        raise PullbackError(
            "bad_tensor",
            "The input has no data.",
            at=at,
            expected="`data`, or `parameters.binary_data_size` and the bytes behind the JSON",
        )
    return data


def _refuse_shared_memory(parameters: Mapping[str, Any], at: str) -> None:
    if any(key.startswith("shared_memory") for key in parameters):
        raise PullbackError(
            "bad_request",
            "This server reads no shared memory: a region's name would let one client read another's.",
            at=f"{at}.parameters.shared_memory_region",
            expected="`data`, or binary data behind the JSON",
            fix="Send the tensor itself.",
        )


def flag(parameters: Mapping[str, Any], name: str, at: str = "parameters", default: bool = False) -> bool:
    """A parameter that is true or false. Raises PullbackError: `bad_parameter` where it is something else."""
    value = parameters.get(name, default)
    if type(value) is not bool:
        raise PullbackError(
            "bad_parameter", f"`{name}` is true or false.", at=f"{at}.{name}", expected="true or false", given=describe(value)
        )
    return value


def _check_outputs(request: Request) -> None:
    if len({output.name for output in request.outputs}) < len(request.outputs):
        raise PullbackError("bad_request", "An output is requested twice.", at="outputs", expected="each name once")
    for output in request.outputs:
        if output.parameters:
            at = f"outputs.{output.name}"
            _refuse_shared_memory(output.parameters, at)
            if output.parameters.get("classification"):
                raise PullbackError(
                    "bad_request",
                    "The classification extension is not spoken here.",
                    at=f"{at}.parameters.classification",
                    fix="Leave it out (`class_count` in tritonclient), and ask the model `topk` for the largest values and their places.",
                )


def _refusal(error: ValidationError) -> PullbackError:
    first = error.errors(include_url=False)[0]
    at = "".join(f"[{part}]" if type(part) is int else f".{part}" for part in first["loc"]).removeprefix(".")
    return PullbackError(
        "bad_request",
        f"`{at or 'the body'}`: {first['msg']}.",
        at=at or None,
        expected='{"inputs": [{"name", "shape", "datatype", "data"}], "outputs": [{"name"}], "parameters": {}}',
        given=describe(first["input"]),
    )
