"""The native protocol: a body with its headers → Query, a list of queries → bodies, Answer → body.

Knows which format speaks which media type, and how a query and an answer lie in a safetensors file (docs/contract.md, section 2). Refuses
to know sockets, HTTP, and how anything is computed.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from app.bounded_cache import BoundedCache
from app.errors import PullbackError
from app.limits import Limits
from app.protocols import strict_json
from app.protocols.content import JSON, SAFETENSORS, decompressed, media_type, negotiate
from app.protocols.describe import describe, nearest
from app.protocols.json_numbers import dumps
from app.protocols.message import Cut
from app.protocols.native import json_answer, native_query, safetensors_format
from app.protocols.native.native_query import TENSOR_FIELDS
from app.query import Answer, Encoding, Query, SparseData, TensorData

__all__ = ["JSON", "SAFETENSORS", "negotiate", "read", "split", "write"]

# Of one list: a tenth of a second of small queries on one worker, 0.6 MB of the longest example (580 bytes).
QUERY_COUNT_LIMIT: Final = 1000
# Pairs of this part, with a trailing axis of 2, are one complex number.
_COMPLEX_OF: Final = {"float64": "complex128", "float32": "complex64"}


def read(
    body: memoryview,
    content_type: str | None,
    content_encoding: str | None,
    limits: Limits,
    value: dict[str, Any] | None = None,
    tensors: Mapping[str, TensorData] = MappingProxyType({}),
    family: Hashable = None,
) -> Query:
    """The query in a body, whose tensors are views of it where it is binary. `value`, `tensors`, `family`: as `Message` has them.

    Raises `unsupported_media_type`, `body_too_large`, `bad_json`, `duplicate_key`, `json_depth`, `bad_binary`, `bad_request`,
    `bad_parameter`, `bad_tensor`, `unknown_operation`.
    """
    kind = media_type(content_type)
    plain = decompressed(body, content_encoding, limits.body_bytes)
    if kind == SAFETENSORS:
        return native_query.query(_from_file(plain))
    if value is None:
        return native_query.query(strict_json.parse(plain))
    like = None if family is None else _families.get(family)
    if like is not None:
        inputs, cotangent = (
            {name: tensors[f"{field}.{name}"] for name in names} for field, names in zip(_TAKEN, like[1:], strict=True)
        )
        return like.query.of_tensors(inputs, cotangent)
    unread = {name: member for name, member in value.items() if name not in TENSOR_FIELDS} if tensors else None
    query = native_query.query(strict_json.again(plain, value, unread), tensors)
    sent = {f"{field}.{name}": tensor for field in _TAKEN for name, tensor in getattr(query, field).items()}
    if family is not None and len(sent) == len(tensors) and all(tensors.get(path) is tensor for path, tensor in sent.items()):
        _families.keep(family, _Family(query.of_tensors({}, {}), tuple(query.inputs), tuple(query.cotangent)))
    return query


_TAKEN: Final = ("inputs", "cotangent")
# 2,800 of the median pasted program (500 characters), 64 of the longest texts that are taken apart.
_FAMILIES_BYTES: Final = 4 << 20
_FAMILY_BYTES: Final = 1000  # of a query of two inputs without its text, and of its names: 0.9 kB measured


class _Family(NamedTuple):
    """A query without its tensors, which hangs on no shape, and the names of its inputs and cotangents."""

    query: Query
    inputs: tuple[str, ...]
    cotangent: tuple[str, ...]


def _family_bytes(family: _Family) -> int:
    names = sum(map(len, (*family.inputs, *family.cotangent)))
    return _FAMILY_BYTES + len(family.query.program or "") + names


_families: Final[BoundedCache[Hashable, _Family]] = BoundedCache(_FAMILIES_BYTES, _family_bytes)


def split(
    body: memoryview, content_type: str | None, content_encoding: str | None, accept: str | None, limits: Limits
) -> list[bytes]:
    """The queries of a JSON list, each as the JSON body of its own, so that one that is wrong spoils no other.

    Raises `not_acceptable`, `unsupported_media_type`, `body_too_large`, `bad_json`, `json_depth`, `bad_request`.
    """
    negotiate(accept, (JSON,))
    if media_type(content_type) != JSON:
        raise PullbackError(
            "unsupported_media_type",
            "A list of queries is JSON.",
            at="Content-Type",
            expected=JSON,
            given=describe(content_type),
            fix="Send binary tensors as base64, or each query to /v1/query.",
        )
    queries = strict_json.elements(decompressed(body, content_encoding, limits.body_bytes))
    if len(queries) > QUERY_COUNT_LIMIT:
        raise PullbackError(
            "bad_request",
            f"The list has {len(queries)} queries, which is too many.",
            expected=f"at most {QUERY_COUNT_LIMIT} queries",
            given=str(len(queries)),
            fix="Send several lists.",
        )
    return queries


def write(answer: Answer, media_type: str, encoding: Encoding) -> list[bytes | memoryview]:
    """The body of an answer, in pieces that are not joined. `encoding` is that of tensors in JSON."""
    return _to_file(answer) if media_type == SAFETENSORS else [json_answer.write(answer, encoding)]


# --- a query in a file -----------------------------------------------------------------------------------------------


def _from_file(body: memoryview) -> dict[str, Any]:
    """The query's JSON value, with the file's tensors in their places."""
    file = safetensors_format.read(body)
    if "query" not in file.metadata:
        raise PullbackError(
            "bad_request",
            "The safetensors file has no query.",
            at="__metadata__",
            expected='the key "query"',
            given=describe(dict(file.metadata)),
            fix='Write it with metadata={"query": json.dumps({"operation": …, "want": […]})}.',
        )
    value = strict_json.parse(file.metadata["query"].encode(), name="the query in __metadata__")
    if type(value) is not dict:
        return value  # type: ignore[no-any-return]  # refused where every query is
    pairs = _pair_names(value, file.metadata)
    for name, tensor in file.tensors.items():
        _put(value, name, _as_complex(tensor, name) if name in pairs else tensor)
    lost = next((name for name in pairs if name not in file.tensors), None)
    if lost is not None:
        raise PullbackError(
            "bad_request", "`complex` names a tensor that the file does not have.", at="complex", given=describe(lost)
        )
    return value


def _pair_names(value: dict[str, Any], metadata: Mapping[str, str]) -> set[str]:
    """The tensors that are pairs of parts: listed as `complex` in the query, or as a JSON list in the metadata's key of that name."""
    listed = value.pop("complex", None)
    if listed is None and "complex" in metadata:
        listed = strict_json.parse(metadata["complex"].encode(), name="`complex` in __metadata__")
    if listed is None:
        return set()
    if type(listed) is not list or not all(type(name) is str for name in listed):
        raise PullbackError(
            "bad_request",
            "`complex` must be a list of tensor names.",
            at="complex",
            expected='["inputs.x"]',
            given=describe(listed),
        )
    return set(listed)


def _as_complex(tensor: TensorData, name: str) -> TensorData:
    if tensor.dtype in _COMPLEX_OF and tensor.shape[-1:] == (2,):
        return TensorData(_COMPLEX_OF[tensor.dtype], tensor.shape[:-1], tensor.data)
    raise PullbackError(
        "bad_tensor",
        "A tensor listed as complex must be pairs.",
        at=name,
        expected="F64 or F32 with a trailing axis of 2",
        given=f"{tensor.dtype} of shape {list(tensor.shape)}",
    )


def _put(value: dict[str, Any], name: str, tensor: TensorData) -> None:
    field, _, rest = name.partition(".")
    if field not in TENSOR_FIELDS or not rest:
        meant = nearest(field, TENSOR_FIELDS)
        raise PullbackError(
            "bad_request",
            f"The tensor {describe(name)[11:]} has no place in a query.",
            at=name,
            expected="inputs.NAME, cotangent.NAME, tangent.NAME, expected.NAME",
            given=describe(name),
            fix=f"Name it {meant if meant else 'inputs'}.{rest or name}.",
        )
    place = value.get(field)
    if place is None:
        place = value[field] = {}
    if type(place) is dict and rest in place:
        raise PullbackError(
            "bad_request", f"{describe(name)[11:]} is in the query's JSON and in the file.", at=name, expected="each name once"
        )
    if type(place) is dict:  # anything else is refused where every query is
        place[rest] = tensor


# --- an answer in a file ---------------------------------------------------------------------------------------------


def cut(answer: Answer) -> Cut:
    """The file of an answer cut at its tensors' bytes.

    Arguments:
        answer: its results are kinds of tensors, real and not empty.
    """
    tensors: dict[str, TensorData] = {}
    _without_tensors(answer.results, "", tensors)
    header, *data = _to_file(answer)
    order = {id(tensor.data): place for place, tensor in enumerate(tensors.values())}
    places = tuple(order[id(piece)] for piece in data)
    return Cut((bytes(header), *[b""] * len(data)), places, SAFETENSORS, binary=True)


def _to_file(answer: Answer) -> list[bytes | memoryview]:
    tensors: dict[str, TensorData] = {}
    rest = _without_tensors(answer.results, "", tensors) or {}
    pairs = [name for name, tensor in tensors.items() if tensor.dtype == "complex128"]
    rest |= {"notes": json_answer.notes(answer.notes), "plan": answer.plan}
    if pairs:
        rest["complex"] = pairs
    text = dumps(json_answer.json_value(rest)).decode()
    return safetensors_format.write(tensors, {"answer": text})


def _without_tensors(tree: Any, path: str, tensors: dict[str, TensorData]) -> Any:
    """What of `tree` is no tensor (None where nothing is); its tensors go into `tensors` by their paths."""
    if isinstance(tree, TensorData):
        tensors[path] = tree
        return None
    if isinstance(tree, SparseData):
        tensors[f"{path}.indices"], tensors[f"{path}.values"] = tree.indices, tree.values
        return json_answer.sparse_head(tree)
    if not isinstance(tree, Mapping):
        return tree
    plain_members = {}
    for key, member in tree.items():
        plain = _without_tensors(member, f"{path}.{key}" if path else key, tensors)
        if plain is not None or member is None:
            plain_members[key] = plain
    return plain_members if plain_members or not tree else None
