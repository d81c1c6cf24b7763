"""UM-Bridge's calls beside its suite: numbers that are right, shapes from `config`, odd clients, hostile bodies; and its own client."""

from __future__ import annotations

import gzip
import math
from typing import Any

import numpy as np
import pytest
import umbridge

from app.protocols.models import Models
from app.protocols.umbridge import vectors
from app.query import TensorData
from tests.protocols.asking import Reply, ask
from tests.server import Server


def call(path: str, **fields: Any) -> Reply:
    return ask(f"umbridge.{path}", fields)


def output(path: str, **fields: Any) -> Any:
    reply = call(path, **fields)
    assert reply.status == 200, reply.raw
    return reply.json()["output"]


def rosenbrock(x: np.ndarray[Any, Any]) -> tuple[float, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Value, gradient and Hessian at two numbers."""
    a, b = x
    value = 100 * (b - a * a) ** 2 + (1 - a) ** 2
    gradient = np.array([-400 * a * (b - a * a) - 2 * (1 - a), 200 * (b - a * a)])
    return value, gradient, np.array([[1200 * a * a - 400 * b + 2, -400 * a], [-400 * a, 200.0]])


@pytest.mark.parametrize("x", [[0.0, 0.0], [1.0, 1.0], [-1.2, 1.0], [3, -2]])
def test_rosenbrock(x: list[float]) -> None:
    value, gradient, hessian = rosenbrock(np.array(x, np.float64))
    at = {"name": "rosenbrock", "input": [x], "config": {}, "outWrt": 0}
    vec = [0.5, -2.0]
    np.testing.assert_allclose(output("Evaluate", **at), [[value]])
    np.testing.assert_allclose(output("Gradient", **at, inWrt=0, sens=[3.0]), 3 * gradient)
    np.testing.assert_allclose(output("ApplyJacobian", **at, inWrt=0, vec=vec), [gradient @ vec])
    np.testing.assert_allclose(
        output("ApplyHessian", **at, inWrt1=0, inWrt2=0, sens=[3.0], vec=vec), 3 * hessian @ vec, atol=1e-9
    )


def test_mixed_second_derivatives_of_several_inputs_agree_with_differences() -> None:
    random = np.random.default_rng(0)
    point = [random.standard_normal(2).tolist() for _ in range(3)]
    common = {"name": "gaussian_log_density", "config": {}, "outWrt": 0, "sens": [1.5]}
    step = 1e-5
    for first in range(3):
        for second in range(3):
            vec = random.standard_normal(2)
            ahead, behind = ([list(v) for v in point] for _ in range(2))
            ahead[second] = (np.array(point[second]) + step * vec).tolist()
            behind[second] = (np.array(point[second]) - step * vec).tolist()
            numeric = (
                np.array(output("Gradient", **common, inWrt=first, input=ahead))
                - np.array(output("Gradient", **common, inWrt=first, input=behind))
            ) / (2 * step)
            product = output("ApplyHessian", **common, inWrt1=first, inWrt2=second, input=point, vec=vec.tolist())
            np.testing.assert_allclose(product, numeric, rtol=1e-5, atol=1e-6)  # central differences lose about ten digits


def test_shapes_come_from_config() -> None:
    config = {"shapes": {"u": [5]}}
    assert call("InputSizes", name="heat_step", config=config).json() == {"inputSizes": [5]}
    assert call("OutputSizes", name="heat_step", config=config).json() == {"outputSizes": [5]}
    assert call("InputSizes", name="heat_step", config={"shapes": [[7]]}).json() == {"inputSizes": [7]}
    network = {"shapes": {"x": [4, 3], "target": [4, 2], "w1": [3, 5], "w2": [5, 2]}}
    assert call("InputSizes", name="mlp_loss", config=network).json() == {"inputSizes": [12, 8, 15, 5, 10, 2]}
    sens = np.arange(5.0)
    heat = output("Gradient", name="heat_step", config=config, input=[[0.0] * 5], outWrt=0, inWrt=0, sens=sens.tolist())
    np.testing.assert_allclose(heat, sens + 0.1 * (np.roll(sens, 1) - 2 * sens + np.roll(sens, -1)))


def test_parameters_come_from_config() -> None:
    assert output("Evaluate", name="rosenbrock", input=[[0, 0]], config={"a": 3.0}) == [[9.0]]
    reply = call("Evaluate", name="rosenbrock", input=[[0, 0]], config={"c": 3.0})
    assert reply.json()["error"]["type"] == "InvalidInput"
    assert "a, b" in reply.json()["error"]["message"]


def test_a_bare_number_is_a_vector_of_one() -> None:
    """MATLAB writes one so."""
    listed = output("Gradient", name="rosenbrock", input=[[1, 2]], outWrt=0, inWrt=0, sens=[2])
    assert output("Gradient", name="rosenbrock", input=[[1, 2]], outWrt=0, inWrt=0, sens=2) == listed


def test_infinite_results_are_said_in_words_unless_they_are_asked_for() -> None:
    huge = {"name": "rosenbrock", "input": [[1e200, 1.0]]}
    reply = call("Evaluate", **huge)
    assert (reply.status, reply.json()["error"]["type"]) == (500, "InvalidOutput")
    assert output("Evaluate", **huge, config={"allow_nan": True}) == [[math.inf]]


@pytest.mark.parametrize("shape", [[3], [2, 2], "2", [-1], [2.0], None, [1 << 60]])
def test_shapes_that_do_not_fit_are_refused(shape: Any) -> None:
    reply = call("OutputSizes", name="banana_log_density", config={"shapes": {"x": shape}})
    assert reply.status == 400, reply.raw
    assert reply.json()["error"]["type"] == "InvalidInput"


HOSTILE: dict[str, Any] = {
    "nothing": b"",
    "not JSON": b"[",
    "a list": [],
    "no name": {},
    "a name that is a number": {"name": 3},
    "a name twice": b'{"name": "rosenbrock", "name": "rosenbrock"}',
    "no input": {"name": "rosenbrock"},
    "input a number": {"name": "rosenbrock", "input": 3},
    "vectors of text": {"name": "rosenbrock", "input": [["a", "b"]]},
    "vectors in vectors": {"name": "rosenbrock", "input": [[[1], [2]]]},
    "vectors of null": {"name": "rosenbrock", "input": [[None, 1]]},
    "a number beyond float64": b'{"name": "rosenbrock", "input": [[1e999, 1]]}',
    "config a list": {"name": "rosenbrock", "input": [[0, 0]], "config": []},
    "shapes of an unknown input": {"name": "rosenbrock", "input": [[0, 0]], "config": {"shapes": {"y": [2]}}},
    "a parameter that is an object": {"name": "rosenbrock", "input": [[0, 0]], "config": {"a": {}}},
    "a seed that is text": {"name": "rosenbrock", "input": [[0, 0]], "config": {"seed": "x"}},
    "deep": b'{"name": "rosenbrock", "input": ' + b"[" * 5000 + b"]" * 5000 + b"}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bodies_are_refused_in_the_protocol_s_shape(name: str) -> None:
    reply = ask("umbridge.Evaluate", HOSTILE[name])
    assert reply.status == 400, reply.raw
    assert list(reply.json()) == ["error"]
    assert set(reply.json()["error"]) == {"type", "message"}
    assert reply.json()["error"]["type"] == "InvalidInput"
    assert len(reply.raw) < 2000


def test_what_is_too_large_keeps_its_status() -> None:
    reply = call("OutputSizes", name="heat_step", config={"shapes": {"u": [1 << 40]}})
    assert (reply.status, reply.json()["error"]["type"]) == (413, "BodyTooLarge")
    bomb = ask("umbridge.Evaluate", gzip.compress(b" " * (4 << 20)), encoding="gzip")
    assert (bomb.status, bomb.json()["error"]["type"]) == (413, "BodyTooLarge")


VECTORS: list[tuple[str, tuple[int, ...], list[float]]] = [
    ("float64", (2,), [1.5, -0.25]),
    ("float64", (2, 2), [1.0, 2.0, 3.0, 4.0]),
    ("float64", (), [3.0]),
    ("float64", (0,), []),
    ("int64", (2,), [3.0, -4.0]),
    ("bool", (2,), [1.0, 0.0]),
]


@pytest.mark.parametrize(("dtype", "shape", "vector"), VECTORS)
def test_vector_both_ways(dtype: str, shape: tuple[int, ...], vector: list[float]) -> None:
    tensor = vectors.read(vector, shape, dtype, "input[0]")
    assert (tensor.dtype, tensor.shape) == (dtype, shape)
    assert vectors.write(tensor, "output", nonfinite=False) == vector


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int32", "uint8"])
def test_every_real_dtype_is_written_as_its_exact_numbers(dtype: str) -> None:
    raw = {"bfloat16": np.array([0x3FC0], np.uint16)}.get(
        dtype, np.array([1.5 if "float" in dtype else 7], dtype.replace("b", ""))
    )
    if dtype == "uint8":
        raw = np.array([7], np.uint8)
    tensor = TensorData(dtype, (1,), memoryview(raw.tobytes()))
    assert vectors.write(tensor, "output", nonfinite=False) == [1.5 if "float" in dtype else 7]


def test_complex_results_and_complex_inputs_are_no_part_of_it() -> None:
    with pytest.raises(vectors.InvalidOutputError):
        vectors.write(TensorData("complex64", (1,), memoryview(bytes(8))), "output", nonfinite=False)
    entry = {
        "name": "wave",
        "description": "",
        "signature": {
            "inputs": [{"name": "z", "dtype": "complex128", "shape": [2]}],
            "parameters": [],
            "outputs": [{"name": "output"}],
        },
    }
    assert not vectors.is_spoken(Models([entry]).function("wave"))


def test_its_own_client(speaking: Server) -> None:
    assert umbridge.supported_models(speaking.url)[0] == "banana_log_density"
    model = umbridge.HTTPModel(speaking.url, "rosenbrock")
    assert model.supports_evaluate()
    assert model.supports_gradient()
    assert model.supports_apply_jacobian()
    assert model.supports_apply_hessian()
    config = {"shapes": {"x": [3]}, "b": 10.0}
    assert model.get_input_sizes(config) == [3]
    assert model.get_output_sizes(config) == [1]
    point = [[0.5, 0.25, 0.0625]]
    assert model(point, config) == [[0.25 + 0.5625]]
    assert model.gradient(0, 0, point, [1.0], config) == [-1.0, -1.5, 0.0]
    assert model.apply_jacobian(0, 0, point, [1.0, 0.0, 0.0], config) == [-1.0]
    assert len(model.apply_hessian(0, 0, 0, point, [1.0], [1.0, 0.0, 0.0], config)) == 3
    with pytest.raises(Exception, match="InvalidInput"):
        model([[1.0]], config)
    with pytest.raises(Exception, match="not supported by server"):
        umbridge.HTTPModel(speaking.url, "nothing")
