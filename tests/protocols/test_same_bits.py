"""The same gradient through every protocol, asked by their real clients, is the same to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tritonclient.http as tritonclient
import umbridge
from tesseract_core import Tesseract

from tests.protocols.operations import CASES, Array, Case
from tests.server import Server

Gradients = dict[str, Array]
FUNCTIONS: dict[str, dict[str, tuple[int, ...]]] = {
    "banana_log_density": {"x": (2,)},
    "gaussian_log_density": {"x": (3,), "mean": (3,), "log_scale": (3,)},
    "heat_step": {"u": (6,)},
    "mlp_loss": {"x": (4, 3), "target": (4, 2), "w1": (3, 5), "b1": (5,), "w2": (5, 2), "b2": (2,)},
    "rosenbrock": {"x": (4,)},
}


def native(server: Server, query: dict[str, Any], inputs: Gradients, cotangent: Array) -> Gradients:
    body = {
        **query,
        "inputs": {name: _sent(value) for name, value in inputs.items()},
        "want": ["vjp"],
        "cotangent": {"output": _sent(cotangent)},
    }
    reply = server.http.post("/v1/query", json=body)
    assert reply.status_code == 200, reply.text
    return {
        name: np.array(gradient["data"], np.float64).reshape(gradient["shape"])
        for name, gradient in reply.json()["vjp"].items()
    }


def _sent(value: Array) -> dict[str, Any]:
    return {"data": value.flatten().tolist(), "shape": list(value.shape), "dtype": "float64"}


def open_inference(
    server: Server, model: str, inputs: Gradients, parameters: dict[str, Any], cotangent: Array, *, binary: bool
) -> Gradients:
    tensors = []
    for name, value in {**inputs, "cotangent.output": cotangent}.items():
        tensor = tritonclient.InferInput(name, list(value.shape), "FP64")
        tensor.set_data_from_numpy(value, binary_data=binary)
        tensors.append(tensor)
    wanted = [tritonclient.InferRequestedOutput(f"vjp.{name}", binary_data=binary) for name in inputs]
    with tritonclient.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        reply = client.infer(model, tensors, outputs=wanted, parameters=parameters)
    return {name: reply.as_numpy(f"vjp.{name}") for name in inputs}


def um_bridge(server: Server, function: str, inputs: Gradients, cotangent: Array) -> Gradients:
    model = umbridge.HTTPModel(server.url, function)
    config = {"shapes": {name: list(value.shape) for name, value in inputs.items()}}
    vectors = [value.flatten().tolist() for value in inputs.values()]
    sens = cotangent.flatten().tolist()
    return {
        name: np.array(model.gradient(0, index, vectors, sens, config)).reshape(value.shape)
        for index, (name, value) in enumerate(inputs.items())
    }


def tesseract(server: Server, model: str, inputs: Gradients, parameters: dict[str, Any], cotangent: Array) -> Gradients:
    remote = Tesseract.from_url(f"{server.url}/tesseract/{model}")
    gradients: Gradients = remote.vector_jacobian_product(
        {**inputs, **parameters}, list(inputs), ["output"], {"output": cotangent}
    )
    return gradients


def assert_same(first: Gradients, second: Gradients) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert value.shape == second[name].shape
        assert value.tobytes() == second[name].astype(np.float64).tobytes(), name


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.operation)
def test_of_an_operation(speaking: Server, case: Case) -> None:
    inputs, cotangent, parameters = case.inputs(), case.cotangent(), dict(case.parameters)
    expected = native(speaking, {"operation": case.operation, "parameters": parameters}, inputs, cotangent)
    for binary in (False, True):
        answered = open_inference(speaking, case.operation, inputs, parameters, cotangent, binary=binary)
        assert_same(expected, answered)
    assert_same(expected, tesseract(speaking, case.operation, inputs, parameters, cotangent))
    assert_same(expected, um_bridge(speaking, case.function, inputs, cotangent))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_of_a_packaged_function(speaking: Server, function: str) -> None:
    random = np.random.default_rng(3)
    inputs = {name: random.standard_normal(shape) for name, shape in FUNCTIONS[function].items()}
    cotangent = random.standard_normal((6,) if function == "heat_step" else ())
    expected = native(speaking, {"function": function}, inputs, cotangent)
    for binary in (False, True):
        assert_same(expected, open_inference(speaking, function, inputs, {}, cotangent, binary=binary))
    assert_same(expected, tesseract(speaking, function, inputs, {}, cotangent))
    assert_same(expected, um_bridge(speaking, function, inputs, cotangent))


def test_every_packaged_function_is_compared(speaking: Server) -> None:
    listed = {entry["name"] for entry in speaking.http.get("/v1/functions").json()["functions"]}
    assert {name for name in listed if not name.startswith("same_")} == set(FUNCTIONS)
