"""Every decoder, in this process: whatever bytes come at any endpoint of any protocol, a worker answers or refuses; it never breaks."""

from __future__ import annotations

import base64
import gzip
import zlib
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from app.errors import PullbackError
from app.front.openapi.example_queries import examples
from app.limits import Limits
from app.protocols import strict_json
from app.protocols.content import decompressed
from app.protocols.native.bodies import read, split
from app.protocols.registry import READINGS
from tests.protocols.asking import ask
from tests.share import is_whole

SETTINGS: Final = settings(
    max_examples=300 if is_whole() else 100,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
LIMITS: Final = Limits(body_bytes=1 << 20, result_bytes=1 << 20)
SAFETENSORS: Final = "application/vnd.safetensors"

_JSON: Final = [orjson.dumps(example.query) for example in examples().values()]
_BASE64: Final = orjson.dumps(
    {
        "operation": "exp",
        "inputs": {
            "input": {
                "data": base64.b64encode(np.arange(3.0).tobytes()).decode(),
                "dtype": "float64",
                "shape": [3],
                "encoding": "base64",
            }
        },
    }
)
_FILE: Final = save(
    {"inputs.input": np.arange(6.0).reshape(2, 3)}, {"query": '{"operation": "exp", "want": ["outputs", "vjp"]}'}
)
_PARAMETERS: Final[dict[str, dict[str, str]]] = {
    "oip": {"model": "exp"},
    "umbridge": {},
    "tesseract": {"target": "exp", "model": "exp", "name": "exp"},
}
_FOREIGN: Final = [
    orjson.dumps({"inputs": [{"name": "input", "shape": [2], "datatype": "FP64", "data": [1.0, 2.0]}], "outputs": [{"name": "vjp.input"}]}),
    orjson.dumps({"inputs": [{"name": "input", "shape": [1], "datatype": "FP32", "parameters": {"binary_data_size": 4}}]}) + b"\0\0\0\0",
    orjson.dumps({"name": "rosenbrock", "input": [[1.0, 2.0]], "config": {}, "outWrt": 0, "inWrt": 0, "sens": [1.0], "vec": [1.0, 2.0]}),
    orjson.dumps({"name": "rosenbrock", "input": [[1.0, 2.0]], "config": {"shapes": {"x": [2]}}, "outWrt": 0, "inWrt1": 0, "inWrt2": 0}),
    orjson.dumps({"inputs": {"input": [1.0, 2.0]}, "vjp_inputs": ["input"], "vjp_outputs": ["output"], "cotangent_vector": {"output": [1, 1]}}),
    orjson.dumps({"inputs": {"input": {"object_type": "array", "shape": [1], "dtype": "float64",
                                     "data": {"buffer": "AAAAAAAAAAA=", "encoding": "base64"}}}}),
]  # fmt: skip
_PIECES: Final = (
    b'"', b"{", b"}", b"[", b"]", b",", b":", b"null", b"NaN", b"-Infinity", b"1e999", b"-0", b"01", b"1" * 400, b"\\u0000", b"\\ud800", b"\xff",
    b"\xed\xa0\x80", b"[" * 200, b'{"a":' * 200, b'"__metadata__"', b'"data_offsets":[0,99]', b'"shape":[-1]', b'"shape":[9999999999999]', b"F64",
    b"BF16", b'"dtype":"complex64"', b'"encoding":"base64"', b"=", b"\0" * 8, b"\x7f" * 8, b'"binary_data_size":-1', b'"binary_data_size":1e9',
)  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, bodies: list[bytes]) -> bytes:
    """A good body in which up to four places hold something else; or noise."""
    data = draw(st.one_of(st.sampled_from(bodies), st.sampled_from(bodies), st.binary(max_size=60)))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from([0, 1, 1, 3, 8, 40])))
        data = data[:start] + draw(st.one_of(st.sampled_from(_PIECES), st.binary(max_size=8))) + data[end:]
    return data


def refusal_of(decode: Callable[..., object], *arguments: Any) -> PullbackError | None:
    """What a decoder refuses with; whatever else it raises fails the test."""
    try:
        decode(*arguments)
    except PullbackError as error:
        return error
    return None


CONTENT_TYPES: Final = st.sampled_from(
    [None, "application/json", SAFETENSORS, "application/octet-stream", "text/plain", "", ";;", "a/b/c"]
)
ENCODINGS: Final = st.sampled_from([None, None, None, "gzip", "deflate", "gzip, gzip", "br", "identity", ","])
ACCEPTED: Final = st.sampled_from([None, "*/*", "application/json", SAFETENSORS, "text/html;q=0", "a;q=x", ",,", "*/*;q=nan"])


@SETTINGS
@given(damaged([*_JSON, _BASE64, _FILE]), CONTENT_TYPES, ENCODINGS, ACCEPTED)
def test_native_bodies_are_queries_or_refused(
    body: bytes, content_type: str | None, encoding: str | None, accept: str | None
) -> None:
    for decode, asked in ((read, (content_type, encoding)), (split, (content_type, encoding, accept))):
        refusal = refusal_of(decode, memoryview(body), *asked, LIMITS)
        assert refusal is None or (400 <= refusal.status < 500 and len(refusal.detail) < 1300)


@SETTINGS
@given(damaged([b"[" + b",".join(_JSON[:3]) + b"]", *_JSON]))
def test_json_is_read_or_refused(body: bytes) -> None:
    for decode in (strict_json.parse, strict_json.elements):
        refusal = refusal_of(decode, memoryview(body))
        assert refusal is None or refusal.code in ("bad_json", "bad_request", "duplicate_key", "json_depth")


@SETTINGS
@given(
    damaged(
        [
            gzip.compress(b"x" * 1000, mtime=0),
            zlib.compress(b"x" * 1000),
            zlib.compress(b"\0" * (1 << 22)),
            b"\x1f\x8b\x08",
            b"",
        ]
    ),
    ENCODINGS,
)
def test_what_is_compressed_is_unpacked_within_the_limit_or_refused(body: bytes, encoding: str | None) -> None:
    limit = 1 << 20
    refusal = refusal_of(lambda: len(decompressed(memoryview(body), encoding, limit)) <= limit or pytest.fail("too much"))
    assert refusal is None or refusal.code in ("bad_binary", "unsupported_media_type", "body_too_large")


@pytest.mark.parametrize("endpoint", sorted(READINGS))
def test_every_endpoint_of_every_protocol_answers_or_refuses(endpoint: str) -> None:
    bodies = [*_JSON[:4], _BASE64, _FILE] if endpoint == "query" else _FOREIGN

    @settings(SETTINGS, max_examples=150 if is_whole() else 50)
    @given(damaged(bodies), CONTENT_TYPES, ENCODINGS, ACCEPTED, st.sampled_from([None, "0", "5", "-1", "x", "99999999999"]))
    def answers(body: bytes, content_type: str | None, encoding: str | None, accept: str | None, length: str | None) -> None:
        parameters: dict[str, Any] = dict(_PARAMETERS.get(endpoint.partition(".")[0], {}))
        if length is not None:
            parameters["inference_header_content_length"] = length
        reply = ask(endpoint, body, accept=accept, encoding=encoding, content_type=content_type, **parameters)
        assert reply.status in {200, 400, 404, 405, 406, 413, 415, 422, 507}, reply.raw[:300]

    answers()
