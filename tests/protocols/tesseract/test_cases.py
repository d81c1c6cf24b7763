"""Cases in Tesseract Core's language-neutral form, endpoint, payload and expected result, and what every codec must do both ways."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.catalogue.read import operations
from app.protocols.json_numbers import dumps
from app.protocols.models import Models, of_operation
from app.protocols.tesseract import arrays
from app.protocols.tesseract.negotiation import negotiated
from app.protocols.tesseract.schema import document
from app.query import TensorData
from tests.protocols.asking import Reply, ask

CASES: list[dict[str, Any]] = json.loads(Path(__file__).with_name("cases.json").read_text())
DTYPES = ["float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool", "complex64", "complex128"]


def asked(case: dict[str, Any], accept: str | None = None) -> Reply:
    return ask(f"tesseract.{case['endpoint']}", case["payload"], accept=accept, model=case["tesseract"])


def decoded(value: Any) -> Any:
    """Replies with arrays as NumPy arrays, as the SDK reads them: by `object_type`."""
    if isinstance(value, dict) and value.get("object_type") == "array":
        data = value["data"]
        assert set(value) == {"object_type", "shape", "dtype", "data"}
        if data["encoding"] == "base64":
            return np.frombuffer(base64.b64decode(data["buffer"]), value["dtype"]).reshape(value["shape"])
        return np.array(data["buffer"], value["dtype"]).reshape(value["shape"])
    if isinstance(value, dict):
        return {key: decoded(member) for key, member in value.items()}
    return [decoded(member) for member in value] if isinstance(value, list) else value


def assert_expected(actual: Any, expected: Any) -> None:
    if isinstance(expected, dict) and expected.keys() == {"shape", "dtype", "values"}:
        assert actual.dtype.name == expected["dtype"]
        assert list(actual.shape) == expected["shape"]
        wanted = np.array(expected["values"], expected["dtype"]).reshape(expected["shape"])
        np.testing.assert_allclose(actual, wanted, rtol=1e-12) if actual.dtype.kind in "fc" else np.testing.assert_array_equal(
            actual, wanted
        )
    elif isinstance(expected, dict):
        assert actual.keys() == expected.keys()
        for key, member in expected.items():
            assert_expected(actual[key], member)
    elif isinstance(expected, list) and actual and isinstance(actual, list):
        assert len(actual) == len(expected)
        for one, other in zip(actual, expected, strict=True):
            assert_expected(one, other)
    else:
        assert actual == expected


@pytest.mark.parametrize("case", [case for case in CASES if "expected" in case], ids=lambda case: case["name"])
@pytest.mark.parametrize("accept", [None, "application/json", "application/json+base64"])
def test_case(case: dict[str, Any], accept: str | None) -> None:
    reply = asked(case, accept)
    assert reply.status == 200, reply.raw
    assert_expected(decoded(reply.json()), case["expected"])


@pytest.mark.parametrize("case", [case for case in CASES if "error" in case], ids=lambda case: case["name"])
def test_refusal(case: dict[str, Any]) -> None:
    reply = asked(case)
    assert reply.status == case["status"], reply.raw
    (detail,) = reply.json()["detail"]
    assert set(detail) == {"type", "loc", "msg"}
    assert detail["type"] == case["error"]["type"], detail
    assert case["error"]["loc"] in (None, detail["loc"]), detail
    assert len(reply.raw) < 2000


def test_there_are_enough_cases() -> None:
    assert sum("expected" in case for case in CASES) >= 30
    assert {case["endpoint"] for case in CASES} == {
        "apply", "jacobian", "jacobian_vector_product", "vector_jacobian_product", "abstract_eval",
    }  # fmt: skip


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"3", b'{"inputs": {}, "inputs": {}}', b"[" * 5000, b"\xff\xfe"])
def test_bodies_that_are_no_call(body: bytes) -> None:
    reply = ask("tesseract.apply", body, model="square")
    assert reply.status == 422, reply.raw
    assert isinstance(reply.json()["detail"], list)


def test_a_compressed_bomb_is_refused() -> None:
    reply = ask("tesseract.apply", gzip.compress(b" " * (4 << 20)), encoding="gzip", model="square")
    assert reply.status == 413
    assert isinstance(reply.json()["detail"], str)


def test_shapes_larger_than_a_body_are_refused() -> None:
    call = {"inputs": {"input": {"shape": [1 << 30], "dtype": "float64"}}}
    assert ask("tesseract.abstract_eval", call, model="square").status == 413


def test_an_unknown_model_is_not_found() -> None:
    reply = ask("tesseract.apply", {"inputs": {}}, model="softmaxx")
    assert reply.status == 404
    assert "softmax" in reply.json()["detail"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0), (2, 3)])
@pytest.mark.parametrize("encoding", ["base64", "json"])
def test_array_both_ways(dtype: str, shape: tuple[int, ...], encoding: arrays.Encoding) -> None:
    values = (np.arange(np.prod(shape, dtype=int)) % 2 * 1.5).astype(dtype).reshape(shape)
    tensor = TensorData(dtype, shape, memoryview(values.tobytes()))
    written = json.loads(dumps(arrays.write(tensor, encoding)))
    assert decoded(written).tobytes() == values.tobytes()
    back = arrays.read(written, "inputs.x")
    assert (back.dtype, back.shape, bytes(back.data)) == (dtype, shape, values.tobytes())


@pytest.mark.parametrize("encoding", ["base64", "json"])
def test_numbers_that_are_none_survive(encoding: arrays.Encoding) -> None:
    values = np.array([np.nan, np.inf, -np.inf, 0.5])
    tensor = TensorData("float64", (4,), memoryview(values.tobytes()))
    written = json.loads(dumps(arrays.write(tensor, encoding)))
    np.testing.assert_array_equal(decoded(written), values)
    assert bytes(arrays.read(written, "inputs.x").data) == values.tobytes()


def test_bfloat16_is_written_as_float32() -> None:
    tensor = TensorData("bfloat16", (2,), memoryview(np.array([0x3FC0, 0xBF00], np.uint16).tobytes()))
    written = json.loads(dumps(arrays.write(tensor, "base64")))
    assert written["dtype"] == "float32"
    np.testing.assert_array_equal(decoded(written), [1.5, -0.5])


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (None, "json+base64"),
        ("", "json+base64"),
        ("*/*", "json+base64"),
        ("application/*; gpu_transport=none", "json+base64"),
        ("application/json", "json"),
        ("application/json+base64; compression=none", "json+base64"),
        ("application/json;q=0.1, application/json+base64;q=0.2", "json+base64"),
        ("text/html, application/json", "json"),
        ("application/json+binref, */*;q=0.5", "json+base64"),
    ],
)
def test_negotiation(accept: str | None, form: str) -> None:
    assert negotiated(accept) == form


@pytest.mark.parametrize(
    "accept",
    ["text/html", "application/json+binref", "application/json; compression=lz4", "*/*; gpu_transport=cuda_ipc", "*/*;q=0"],
)
def test_what_cannot_be_given_is_not_acceptable(accept: str) -> None:
    reply = ask("tesseract.apply", {"inputs": {"input": [1.0]}}, accept=accept, model="square")
    assert reply.status == 406
    assert reply.json()["detail"]["available_formats"] == ["json+base64", "json"]


def test_every_model_has_a_schema_of_the_shape_that_clients_read() -> None:
    for name in operations():
        model = of_operation(name)
        schema = document(model)
        parts = schema["components"]["schemas"]
        assert all(path.count("/") == 1 for path in schema["paths"])
        differentiable = parts["ApplyInputSchema"]["differentiable_arrays"]
        assert ("/jacobian" in schema["paths"]) == bool(differentiable), name
        for path in differentiable:
            assert path.removesuffix(".[]") in parts["Apply_InputSchema"]["properties"], name
        for path in parts["ApplyOutputSchema"]["differentiable_arrays"]:
            assert path.removesuffix(".[]") in parts["Apply_OutputSchema"]["properties"], name
        for kind in differentiable.values():
            assert kind["dtype"] in arrays.DTYPES


def test_a_schema_says_the_shapes_of_a_function() -> None:
    entry = {
        "name": "f",
        "description": "",
        "signature": {
            "inputs": [{"name": "x", "dtype": "float32", "shape": [3, "n"]}, {"name": "k", "dtype": "int64", "shape": None}],
            "parameters": [{"name": "scale", "kind": "number", "required": False, "default": 1.0}],
            "outputs": [{"name": "y"}],
        },
    }
    parts = document(Models([entry]).function("f"))["components"]["schemas"]
    assert parts["ApplyInputSchema"]["differentiable_arrays"] == {"x": {"shape": [3, None], "dtype": "float32"}}
    assert parts["Apply_InputSchema"]["required"] == ["x", "k"]
    assert parts["Apply_InputSchema"]["properties"]["scale"] == {"type": "number", "default": 1.0}
    assert list(parts["Apply_OutputSchema"]["properties"]) == ["y"]
