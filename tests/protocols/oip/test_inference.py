"""The Open Inference Protocol's codec: one table of tensors read and written in both forms, selections, and hostile bodies."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from typing import Any

import numpy as np
import pytest

from app.protocols.oip.selection import selected
from tests.protocols.asking import Reply, ask

LENGTH = "inference-header-content-length"

# (datatype, shape, elements as JSON writes them flat, their bytes); identity of each through `clone` is the other way round.
TENSORS: list[tuple[str, list[int], list[Any], bytes]] = [
    ("FP64", [2], [1.5, -2.0], struct.pack("<2d", 1.5, -2.0)),
    ("FP64", [], [0.1], struct.pack("<d", 0.1)),
    ("FP64", [0], [], b""),
    ("FP64", [2, 0, 3], [], b""),
    ("FP64", [3], ["NaN", "Infinity", "-Infinity"], struct.pack("<3d", float("nan"), float("inf"), float("-inf"))),
    ("FP32", [2, 2], [1.0, 2.0, 3.0, 4.0], struct.pack("<4f", 1, 2, 3, 4)),
    ("FP16", [2], [1.5, 65504.0], struct.pack("<2e", 1.5, 65504.0)),
    ("BF16", [2], [1.5, -0.5], struct.pack("<2H", 0x3FC0, 0xBF00)),
    ("INT8", [2], [-128, 127], struct.pack("<2b", -128, 127)),
    ("INT16", [1], [-300], struct.pack("<h", -300)),
    ("INT32", [1], [1 << 30], struct.pack("<i", 1 << 30)),
    ("INT64", [1], [-(1 << 62)], struct.pack("<q", -(1 << 62))),
    ("UINT8", [2], [0, 255], bytes([0, 255])),
    ("BOOL", [2], [True, False], bytes([1, 0])),
]


def infer(
    model: str,
    inputs: list[dict[str, Any]],
    tail: bytes = b"",
    *,
    outputs: list[dict[str, Any]] | None = None,
    length: str | None = None,
    headers: dict[str, str] | None = None,
    **parameters: Any,
) -> Reply:
    body: dict[str, Any] = {"inputs": inputs}
    if outputs is not None:
        body["outputs"] = outputs
    if parameters:
        body["parameters"] = parameters
    text = json.dumps(body).encode()
    named = {"model": model, **(headers or {})}
    if tail or length is not None:
        named[LENGTH] = length if length is not None else str(len(text))
    return ask("oip.infer", text + tail, **named)


def entry(datatype: str, shape: list[int], data: Any = None, size: int | None = None, name: str = "input") -> dict[str, Any]:
    fields: dict[str, Any] = {"name": name, "shape": shape, "datatype": datatype}
    if data is not None:
        fields["data"] = data
    if size is not None:
        fields["parameters"] = {"binary_data_size": size}
    return fields


def parts(reply: Reply) -> tuple[dict[str, Any], bytes]:
    """A reply's JSON, and the bytes behind it."""
    assert reply.status == 200, reply.raw
    size = int(reply.headers.get(LENGTH, len(reply.raw)))
    return json.loads(reply.raw[:size]), reply.raw[size:]


@pytest.mark.parametrize(("datatype", "shape", "data", "raw"), TENSORS)
@pytest.mark.parametrize("sent", ["json", "binary"])
@pytest.mark.parametrize("wanted", ["json", "binary"])
def test_tensor_both_ways(datatype: str, shape: list[int], data: list[Any], raw: bytes, sent: str, wanted: str) -> None:
    inputs_entry = entry(datatype, shape, data) if sent == "json" else entry(datatype, shape, size=len(raw))
    outputs = [{"name": "output", "parameters": {"binary_data": wanted == "binary"}}]
    reply = infer("clone", [inputs_entry], raw if sent == "binary" else b"", outputs=outputs, length=None)
    (output,) = parts(reply)[0]["outputs"]
    assert (output["name"], output["shape"], output["datatype"]) == ("output", shape, datatype)
    if wanted == "json":
        assert output["data"] == data
        assert reply.media_type == "application/json"
    else:
        assert output["parameters"]["binary_data_size"] == len(raw)
        assert parts(reply)[1] == raw
        assert (LENGTH in reply.headers) == bool(raw)


@pytest.mark.parametrize(
    ("datatype", "raw", "wider", "values"),
    [
        ("UINT16", struct.pack("<2H", 1, 65535), "INT32", [1, 65535]),
        ("UINT32", struct.pack("<2I", 1, (1 << 32) - 1), "INT64", [1, (1 << 32) - 1]),
        ("UINT64", struct.pack("<2Q", 1, (1 << 63) - 1), "INT64", [1, (1 << 63) - 1]),
    ],
)
def test_unsigned_integers_come_back_wider(datatype: str, raw: bytes, wider: str, values: list[int]) -> None:
    reply = infer("clone", [entry(datatype, [2], size=len(raw))], raw)
    (output,) = parts(reply)[0]["outputs"]
    assert (output["datatype"], output["data"]) == (wider, values)


@pytest.mark.parametrize(("datatype", "code"), [("FP64", "d"), ("FP32", "f")])
def test_complex_numbers_are_pairs(datatype: str, code: str) -> None:
    raw = struct.pack(f"<4{code}", 1, 2, 3, 4)
    inputs_entry = entry(datatype, [2, 2], size=len(raw))
    inputs_entry["parameters"]["complex"] = True
    (output,) = parts(infer("conj", [inputs_entry], raw, outputs=[{"name": "output"}]))[0]["outputs"]
    assert (output["shape"], output["datatype"], output["data"]) == ([2, 2], datatype, [1, -2, 3, -4])
    assert output["parameters"]["complex"] is True


def test_tensors_are_read_where_they_lie_unaligned() -> None:
    """The first begins where the JSON ends, at whatever byte that is."""
    values = np.arange(5.0)
    for spaces in range(9):
        text = (
            json.dumps({"inputs": [entry("FP64", [5], size=40)], "outputs": [{"name": "vjp.input"}]}).encode() + b" " * spaces
        )
        reply = ask("oip.infer", text + values.tobytes(), model="sin", **{LENGTH: str(len(text))})
        (output,) = parts(reply)[0]["outputs"]
        np.testing.assert_allclose(output["data"], np.cos(values))


def test_nothing_requested_gives_outputs_and_every_vjp() -> None:
    reply = parts(infer("matmul", [entry("FP64", [2], [1, 2]), entry("FP64", [2], [3, 4], name="other")]))[0]
    assert [output["name"] for output in reply["outputs"]] == ["output", "vjp.input", "vjp.other"]
    assert "cotangent" in reply["parameters"]["notes"]


def test_nothing_requested_of_what_has_no_derivative_gives_outputs() -> None:
    reply = parts(infer("argmax", [entry("FP64", [2], [1, 2])]))[0]
    assert [output["name"] for output in reply["outputs"]] == ["output"]


@pytest.mark.parametrize(
    ("name", "shape", "data"),
    [
        ("output", [], [4.0]),
        ("gradient.x", [2], [2.0, 2.0]),
        ("vjp.x", [2], [6.0, 6.0]),
        ("jvp.output", [], [-2.0]),
        ("jacobian.output.x", [2], [2.0, 2.0]),
        ("hessian.x.x", [2, 2], [2.0, 0.0, 0.0, 2.0]),
        ("hvp.x", [2], [-4.0, 2.0]),
    ],
)
def test_each_kind_of_output(name: str, shape: list[int], data: list[float]) -> None:
    inputs = [
        entry("FP64", [2], [1, 1], name="x"),
        entry("FP64", [], [3], name="cotangent.output"),
        entry("FP64", [2], [-2, 1], name="tangent.x"),
    ]
    reply = parts(infer("program", inputs, outputs=[{"name": name}], program="(x ** 2).sum() + y", y=2))[0]
    assert reply["outputs"] == [{"name": name, "shape": shape, "datatype": "FP64", "data": data}]


@pytest.mark.parametrize(
    ("name", "kind", "path"),
    [
        ("output", "outputs", ("output",)),
        ("output.1", "outputs", ("output.1",)),
        ("vjp.tensors.0", "vjp", ("tensors.0",)),
        ("jacobian.output.0.tensors.1", "jacobian", ("output.0", "tensors.1")),
        ("hessian.x.y", "hessian", ("x", "y")),
        ("vjp", "outputs", ("vjp",)),
        ("vjp.layer.weight", "vjp", ("layer.weight",)),
        ("jacobian.output.layer.weight", "jacobian", ("output", "layer.weight")),
        ("jacobian.output.0.layer.weight", "jacobian", ("output.0", "layer.weight")),
        ("hessian.layer.weight.x", "hessian", ("layer.weight", "x")),
        ("hessian.layer.weight.layer.weight", "hessian", ("layer.weight", "layer.weight")),
        ("vjp.0", "outputs", ("vjp.0",)),
    ],
)
def test_names_of_outputs(name: str, kind: str, path: tuple[str, ...]) -> None:
    quantity = selected(name, ("x", "layer.weight"))
    assert (quantity.kind, quantity.path) == (kind, path)


def test_a_module_s_weights_are_inputs_by_their_names() -> None:
    text = "layer = nn.Linear(2, 1)\nreturn layer(x).sum()"
    inputs = [
        entry("FP64", [1, 2], [3, 4], name="x"),
        entry("FP64", [1, 2], [1, 1], name="layer.weight"),
        entry("FP64", [1], [0.5], name="layer.bias"),
    ]
    reply = infer("program", inputs, outputs=[{"name": "output"}, {"name": "gradient.layer.weight"}], program=text)
    assert [output["data"] for output in parts(reply)[0]["outputs"]] == [[7.5], [3.0, 4.0]]


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress], ids=["gzip", "deflate"])
def test_compressed_both_ways(compress: Any) -> None:
    coding = "gzip" if compress is gzip.compress else "deflate"
    values = np.arange(400.0)
    text = json.dumps({"inputs": [entry("FP64", [400], size=3200)], "parameters": {"binary_data_output": True}}).encode()
    reply = ask(
        "oip.infer",
        compress(text + values.tobytes()),
        encoding=coding,
        model="sin",
        accept_encoding=coding,
        **{LENGTH: str(len(text))},
    )
    assert reply.headers["content-encoding"] == coding
    plain = (gzip.decompress if coding == "gzip" else zlib.decompress)(reply.raw)
    first = plain[int(reply.headers[LENGTH]) :][:3200]
    np.testing.assert_allclose(np.frombuffer(first), np.sin(values))


def test_lists_of_codings_are_not_a_wish_for_compression() -> None:
    reply = infer("clone", [entry("FP64", [400], [0.0] * 400)], headers={"accept-encoding": "gzip, deflate"})
    assert "content-encoding" not in reply.headers


def test_id_and_version_are_echoed() -> None:
    body = {"id": "mine", "inputs": [entry("FP64", [1], [1])]}
    reply = parts(ask("oip.infer", body, model="sin", version="1"))[0]
    assert (reply["id"], reply["model_name"], reply["model_version"]) == ("mine", "sin", "1")
    assert "id" not in parts(infer("sin", [entry("FP64", [1], [1])]))[0]


def test_parameters() -> None:
    image = entry("FP64", [1, 1, 4, 4], [1.0] * 16)
    weight = entry("FP64", [1, 1, 2, 2], [1.0] * 4, name="weight")
    reply = parts(infer("nn.functional.conv2d", [image, weight], stride="[2, 2]", padding=1, priority=1, triton_x="y"))[0]
    assert reply["outputs"][0]["shape"] == [1, 1, 3, 3]
    drawn = [parts(infer("normal", [entry("FP64", [2], [0, 0], name="mean")], std=1.0, seed=5))[0] for _ in range(2)]
    assert drawn[0]["outputs"] == drawn[1]["outputs"]


def changed(**fields: Any) -> dict[str, Any]:
    return {**entry("FP64", [2], [1, 2]), **fields}


HOSTILE: dict[str, tuple[Any, int]] = {
    "not JSON": (b"{", 400),
    "nothing": (b"", 400),
    "a list": ([], 400),
    "no inputs": ({}, 400),
    "inputs no list": ({"inputs": {}}, 400),
    "an input no object": ({"inputs": [3]}, 400),
    "a name missing": ({"inputs": [{"shape": [1], "datatype": "FP64", "data": [1]}]}, 400),
    "an empty name": ({"inputs": [changed(name="")]}, 400),
    "a private name": ({"inputs": [changed(name="__class__")]}, 400),
    "a name with a slash": ({"inputs": [changed(name="../x")]}, 400),
    "the same twice": ({"inputs": [changed(), changed()]}, 400),
    "a key twice": (b'{"inputs": [], "inputs": []}', 400),
    "a negative extent": ({"inputs": [changed(shape=[-2])]}, 422),
    "a lying shape": ({"inputs": [changed(shape=[3])]}, 422),
    "a shape of 2^200 elements": ({"inputs": [changed(shape=[1 << 40] * 5)]}, 422),
    "a shape that is text": ({"inputs": [changed(shape="2")]}, 400),
    "no data": ({"inputs": [entry("FP64", [2])]}, 422),
    "an unknown datatype": ({"inputs": [changed(datatype="FP8")]}, 422),
    "bytes": ({"inputs": [changed(datatype="BYTES", data=["a", "b"])]}, 422),
    "text for numbers": ({"inputs": [changed(data=["a", "b"])]}, 422),
    "data and a size": ({"inputs": [changed(parameters={"binary_data_size": 16})]}, 400),
    "a size without bytes": ({"inputs": [entry("FP64", [2], size=16)]}, 400),
    "a negative size": ({"inputs": [entry("FP64", [2], size=-16)]}, 400),
    "a huge size": ({"inputs": [entry("FP64", [2], size=1 << 70)]}, 400),
    "shared memory in": ({"inputs": [changed(data=None, parameters={"shared_memory_region": "a"})]}, 400),
    "shared memory out": (
        {"inputs": [changed()], "outputs": [{"name": "output", "parameters": {"shared_memory_region": "a"}}]},
        400,
    ),
    "an output twice": ({"inputs": [changed()], "outputs": [{"name": "output"}] * 2}, 400),
    "an unknown output": ({"inputs": [changed()], "outputs": [{"name": "nothing"}]}, 400),
    "an unknown derivative": ({"inputs": [changed()], "outputs": [{"name": "vjp.nothing"}]}, 422),
    "a derivative of too few": ({"inputs": [changed()], "outputs": [{"name": "hessian.input"}]}, 400),
    "a gradient of no scalar": ({"inputs": [changed()], "outputs": [{"name": "gradient.input"}]}, 422),
    "a timeout that is negative": ({"inputs": [changed()], "parameters": {"timeout": -1}}, 422),
    "a timeout that is text": ({"inputs": [changed()], "parameters": {"timeout": "5s"}}, 422),
    "an object as parameter": ({"inputs": [changed()], "parameters": {"dim": {}}}, 422),
    "an unknown parameter": ({"inputs": [changed()], "parameters": {"nothing": 1}}, 422),
    "a flag of the request that is text": ({"inputs": [changed()], "parameters": {"binary_data_output": "yes"}}, 422),
    "a flag of an output that is a number": (
        {"inputs": [changed()], "outputs": [{"name": "output", "parameters": {"binary_data": 1}}]},
        422,
    ),
    "a flag of an input that is text": ({"inputs": [changed(parameters={"complex": "true"})]}, 422),
    "too many inputs": ({"inputs": [changed(name=f"x{i}") for i in range(300)]}, 400),
    "deep": (b'{"inputs": ' + b"[" * 5000 + b"]" * 5000 + b"}", 400),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bodies_are_refused_in_the_protocol_s_shape(name: str) -> None:
    body, status = HOSTILE[name]
    reply = ask("oip.infer", body, model="sin")
    assert reply.status == status, reply.raw
    assert list(reply.json()) == ["error"]
    assert isinstance(reply.json()["error"], str)
    assert len(reply.raw) < 2000


@pytest.mark.parametrize(
    "length", ["0", "-1", "1", "99999999999", "9" * 5000, "1e2", "NaN", "0x10", "", " ", "٣", "12.0", "12, 12"]
)
def test_a_wrong_header_length_is_refused(length: str) -> None:
    reply = infer("sin", [entry("FP64", [2], size=16)], bytes(16), length=length)
    assert reply.status == 400, reply.raw
    assert list(reply.json()) == ["error"]


def test_bytes_that_are_no_tensor_s_are_refused() -> None:
    assert infer("sin", [entry("FP64", [2], size=16)], bytes(17)).status == 400
    assert infer("sin", [entry("FP64", [2], size=15)], bytes(15)).status == 422
    assert infer("not_equal", [entry("BOOL", [1], size=1)], bytes([2])).status == 422
    assert infer("clone", [entry("UINT64", [1], size=8)], b"\xff" * 8).status == 422
    assert infer("clone", [entry("UINT16", [2], size=3)], bytes(3)).status == 422


def test_unknown_models_and_versions_are_refused() -> None:
    assert infer("softmaxx", [entry("FP64", [1], [1])]).status == 404
    assert "softmax" in infer("softmaxx", [entry("FP64", [1], [1])]).json()["error"]
    assert ask("oip.infer", {"inputs": [entry("FP64", [1], [1])]}, model="sin", version="2").status == 404


def test_the_text_of_a_program_is_needed() -> None:
    assert infer("program", [entry("FP64", [1], [1], name="x")]).status == 400
    assert infer("program", [entry("FP64", [1], [1], name="x")], program=3).status == 422
    assert infer("program", [entry("FP64", [1], [1], name="x")], program="import os").status == 422


def test_a_compressed_bomb_is_refused() -> None:
    reply = ask("oip.infer", gzip.compress(b" " * (4 << 20)), encoding="gzip", model="sin")
    assert reply.status == 413
    assert list(reply.json()) == ["error"]


@pytest.mark.parametrize("endpoint", ["oip.loading", "oip.settings", "oip.shared_memory"])
def test_what_is_not_offered_is_refused(endpoint: str) -> None:
    reply = ask(endpoint, {}, model="sin")
    assert reply.status == 400
    assert list(reply.json()) == ["error"]


def test_index_names_every_model() -> None:
    rows = ask("oip.index", b"").json()
    assert {"program", "softmax", "rosenbrock"} <= {row["name"] for row in rows}
    assert {row["state"] for row in rows} == {"READY"}
