"""Sparse results and pairs on the wire: in JSON as the schema says, in safetensors as tensors of their own, the same numbers in both."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import orjson
import pytest
import safetensors
import safetensors.numpy
from jsonschema import Draft202012Validator

from app import __version__
from app.front.openapi.document import document
from tests.server import Server

JSON, SAFETENSORS = "application/json", "application/vnd.safetensors"
HEAT = {"program": "x + 1e-5*(x.roll(1,0)-2*x+x.roll(-1,0))", "want": ["jacobian"], "inputs": {"x": [1.0, 2.0, 3.0, 4.0, 5.0]}}
COMPLEX = {
    "program": "z * z.conj().roll(1, 0)",
    "want": ["jacobian"],
    "inputs": {"z": {"data": [[1.0, 2.0], [0.5, -1.0]], "dtype": "complex128"}},
}


def _asked(server: Server, query: dict[str, Any], accept: str) -> httpx.Response:
    reply = server.http.post("/v1/query", content=orjson.dumps(query), headers={"Content-Type": JSON, "Accept": accept})
    assert reply.status_code == 200, reply.text
    return reply


@pytest.mark.parametrize("query", [HEAT, COMPLEX], ids=["real", "complex"])
@pytest.mark.parametrize("wanted", ["sparse", "auto", "diagonal", "dense"])
def test_an_answer_fits_the_schema(server: Server, query: dict[str, Any], wanted: str) -> None:
    answer = _asked(server, query | {"format": wanted}, JSON).json()
    schema = {"$ref": "#/components/schemas/Answer", "components": document(__version__)["components"]}
    Draft202012Validator(schema).validate(answer)
    assert ("formats" in answer["plan"]) == (wanted != "dense")


def test_json_and_safetensors_hold_the_same(server: Server) -> None:
    query = HEAT | {"format": "sparse", "dtype": "float32"}
    text = _asked(server, query, JSON).json()["jacobian"]["output"]["x"]
    body = _asked(server, query, SAFETENSORS).content
    file = safetensors.numpy.load(body)
    with_names = {"jacobian.output.x.indices", "jacobian.output.x.values"}
    assert set(file) == with_names
    np.testing.assert_array_equal(file["jacobian.output.x.indices"], text["indices"]["data"])
    np.testing.assert_array_equal(file["jacobian.output.x.values"], np.array(text["values"]["data"], dtype=np.float32))
    assert text["indices"]["dtype"] == "int64"
    assert text["indices"]["shape"] == [2, 15]
    header = orjson.loads(body[8 : 8 + int.from_bytes(body[:8], "little")])
    rest = orjson.loads(header["__metadata__"]["answer"])["jacobian"]["output"]["x"]
    assert rest == {"layout": "coo", "shape": [5, 5], "dtype": "float32", "holds": "everywhere"}
    dense = np.array(
        _asked(server, query | {"format": "dense"}, JSON).json()["jacobian"]["output"]["x"]["data"], dtype=np.float32
    )
    np.testing.assert_array_equal(dense[tuple(file["jacobian.output.x.indices"])], file["jacobian.output.x.values"])


def test_complex_pairs_go_as_pairs_of_parts(server: Server) -> None:
    body = _asked(server, COMPLEX | {"format": "sparse"}, SAFETENSORS).content
    file = safetensors.numpy.load(body)
    values = file["jacobian.output.z.conj_z.values"]
    assert values.shape[-1] == 2
    header = orjson.loads(body[8 : 8 + int.from_bytes(body[:8], "little")])
    answer = orjson.loads(header["__metadata__"]["answer"])
    assert set(answer["complex"]) == {"jacobian.output.z.z.values", "jacobian.output.z.conj_z.values"}
    z = np.array([1 + 2j, 0.5 - 1j])
    expected = np.zeros((2, 2), complex)
    expected[[0, 1], [1, 0]] = z
    dense = np.zeros((2, 2), complex)
    dense[tuple(file["jacobian.output.z.conj_z.indices"])] = values[:, 0] + 1j * values[:, 1]
    np.testing.assert_allclose(dense, expected)


def test_a_hundred_thousand_inputs_are_answered(server: Server) -> None:
    x = np.linspace(0, 1, 100_000)
    body = safetensors.numpy.save(
        {"inputs.x": x}, metadata={"query": orjson.dumps(HEAT | {"inputs": {}, "format": "sparse"}).decode()}
    )
    reply = server.http.post("/v1/query", content=body, headers={"Content-Type": SAFETENSORS, "Accept": SAFETENSORS})
    assert reply.status_code == 200
    file = safetensors.numpy.load(reply.content)
    assert file["jacobian.output.x.values"].shape == (300_000,)
    assert sorted(set(file["jacobian.output.x.values"].round(12))) == [1e-5, 1 - 2e-5]
