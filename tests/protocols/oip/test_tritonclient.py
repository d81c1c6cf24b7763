"""NVIDIA's client of the Open Inference Protocol, unmodified, against a real server: every call that it has for HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as tritonclient
import tritonclient.http.aio as aio
from tritonclient.utils import InferenceServerException

from tests.server import Server


@pytest.fixture
def client(speaking: Server) -> Iterator[Any]:
    with tritonclient.InferenceServerClient(f"127.0.0.1:{speaking.port}", concurrency=4) as client:
        yield client


def tensor(name: str, value: Any, datatype: str = "FP64", *, binary: bool = True, of: Any = tritonclient) -> Any:
    array = np.asarray(value)
    sent = of.InferInput(name, list(array.shape), datatype)
    sent.set_data_from_numpy(array, binary_data=binary)
    return sent


def test_server_and_models_describe_themselves(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("softmax")
    assert not client.is_model_ready("softmaxx")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    described = client.get_model_metadata("nn.functional.conv2d")
    assert [spec["name"] for spec in described["inputs"]] == ["input", "weight"]
    assert {"output", "vjp.input", "vjp.weight"} == {spec["name"] for spec in described["outputs"]}
    assert described["properties"]["differentiable"] == "input, weight, bias"
    assert client.get_model_metadata("argmax")["properties"]["order"] == "0"
    assert [spec["name"] for spec in client.get_model_metadata("argmax")["outputs"]] == ["output"]
    rosenbrock = client.get_model_metadata("rosenbrock", "1")
    assert rosenbrock["inputs"] == [{"name": "x", "datatype": "FP64", "shape": [-1]}]
    assert client.get_model_config("rosenbrock")["input"] == [{"name": "x", "data_type": "TYPE_FP64", "dims": [-1]}]
    assert client.get_model_metadata("program")["platform"] == "pytorch_autograd"
    names = {row["name"] for row in client.get_model_repository_index()}
    assert {"softmax", "rosenbrock", "program"} <= names


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("datatype", ["FP64", "FP32", "FP16"])
def test_values_and_gradients(client: Any, binary: bool, datatype: str) -> None:
    dtype = {"FP64": np.float64, "FP32": np.float32, "FP16": np.float16}[datatype]
    x = np.linspace(-1, 1, 6, dtype=dtype).reshape(2, 3)
    reply = client.infer("tanh", [tensor("input", x, datatype, binary=binary)], request_id="some id")
    assert reply.get_response()["id"] == "some id"
    tolerance = 1e-2 if datatype == "FP16" else 1e-6
    np.testing.assert_allclose(reply.as_numpy("output"), np.tanh(x), rtol=tolerance)
    np.testing.assert_allclose(reply.as_numpy("vjp.input"), 1 - np.tanh(x) ** 2, rtol=tolerance)
    assert reply.as_numpy("vjp.input").dtype == dtype


def test_bfloat16(client: Any) -> None:
    bfloat16 = tritonclient.InferInput("input", [2], "BF16")
    bfloat16._raw_data = np.array([0x3FC0, 0xBF00], np.uint16).tobytes()  # 1.5, -0.5
    bfloat16._parameters["binary_data_size"] = 4
    reply = client.infer("mul", [bfloat16, tensor("other", np.float64(2.0).reshape(()))])
    np.testing.assert_array_equal(np.asarray(reply.as_numpy("output"), np.float32), [3.0, -1.0])


@pytest.mark.parametrize("request_coding", [None, "gzip", "deflate"])
@pytest.mark.parametrize("response_coding", [None, "gzip", "deflate"])
def test_compression(client: Any, request_coding: str | None, response_coding: str | None) -> None:
    x = np.linspace(-1, 1, 1000)
    reply = client.infer(
        "sin",
        [tensor("input", x)],
        request_compression_algorithm=request_coding,
        response_compression_algorithm=response_coding,
    )
    np.testing.assert_allclose(reply.as_numpy("vjp.input"), np.cos(x))


def test_scalars_empty_tensors_and_numbers_that_are_none(client: Any) -> None:
    assert client.infer("exp", [tensor("input", np.float64(0.0))]).as_numpy("output").shape == ()
    assert client.infer("exp", [tensor("input", np.zeros((0, 3)))]).as_numpy("vjp.input").shape == (0, 3)
    for binary in (True, False):
        strange = np.array([np.nan, np.inf, -np.inf, 0.0])
        asked = [tritonclient.InferRequestedOutput("output", binary_data=binary)]
        reply = client.infer("clone", [tensor("input", strange, binary=binary)], outputs=asked)
        np.testing.assert_array_equal(reply.as_numpy("output"), strange)


def test_derivatives_by_name(client: Any) -> None:
    x = np.array([1.0, 2.0])
    names = ["output", "gradient.x", "hessian.x.x", "hvp.x", "jvp.output", "jacobian.output.x"]
    reply = client.infer(
        "rosenbrock",
        [tensor("x", x), tensor("tangent.x", np.array([1.0, 0.0]))],
        outputs=[tritonclient.InferRequestedOutput(name) for name in names],
    )
    np.testing.assert_allclose(reply.as_numpy("gradient.x"), [-400.0, 200.0])
    np.testing.assert_allclose(reply.as_numpy("hessian.x.x"), [[402.0, -400.0], [-400.0, 200.0]])
    np.testing.assert_allclose(reply.as_numpy("hvp.x"), [402.0, -400.0])
    assert reply.as_numpy("jvp.output") == -400.0


def test_a_program(client: Any) -> None:
    text = "p = softmax(x @ w, dim=1)\nreturn {'loss': -log(p[:, k]).sum(), 'p': p}"
    inputs = [tensor("x", np.ones((2, 3))), tensor("w", np.eye(3))]
    reply = client.infer("program", inputs, parameters={"program": text, "k": 1}, timeout=20_000_000)
    assert {output["name"] for output in reply.get_response()["outputs"]} == {"loss", "p", "vjp.x", "vjp.w"}
    np.testing.assert_allclose(reply.as_numpy("loss"), 2 * np.log(3))


def test_refusals_reach_the_user(client: Any) -> None:
    x = [tensor("input", np.ones(3))]
    for ask, words in (
        (lambda: client.infer("softmaxx", x), "softmax"),
        (lambda: client.infer("softmax", x, parameters={"dim": 4}), "range"),
        (lambda: client.infer("sin", x, outputs=[tritonclient.InferRequestedOutput("gradient.input")]), "sum"),
        (lambda: client.load_model("softmax"), "loaded"),
        (lambda: client.unload_model("softmax"), "loaded"),
        (lambda: client.register_system_shared_memory("a", "/a", 8), "memory"),
        (client.get_system_shared_memory_status, "memory"),
        (client.get_cuda_shared_memory_status, "memory"),
        (client.get_trace_settings, "no settings of traces"),
        (lambda: client.update_trace_settings("sin", {"trace_level": ["OFF"]}), "no settings of traces"),
        (lambda: client.get_trace_settings("sin"), "GET /metrics"),
        (client.get_log_settings, "PULLBACK_LOG_FORMAT"),
        (lambda: client.update_log_settings({"log_info": True}), "no settings of traces or logs"),
        (lambda: client.infer("sin", x, outputs=[tritonclient.InferRequestedOutput("output", class_count=2)]), "topk"),
        (lambda: client.get_model_metadata("softmaxx"), "softmax"),
    ):
        with pytest.raises(InferenceServerException) as refused:
            ask()
        assert words in refused.value.message(), refused.value.message()
    shared = tritonclient.InferInput("input", [2], "FP64")
    shared.set_shared_memory("region", 16)
    with pytest.raises(InferenceServerException, match="shared memory"):
        client.infer("sin", [shared])


def test_statistics_count_what_was_asked(client: Any) -> None:
    def counts() -> tuple[int, int]:
        (row,) = client.get_inference_statistics("cos")["model_stats"]
        return row["inference_stats"]["success"]["count"], row["inference_stats"]["fail"]["count"]

    before = counts()
    for _ in range(3):
        client.infer("cos", [tensor("input", np.ones(2))])
    with pytest.raises(InferenceServerException):
        client.infer("cos", [tensor("input", np.ones(2))], outputs=[tritonclient.InferRequestedOutput("vjp.nothing")])
    after = counts()
    assert (after[0] - before[0], after[1] - before[1]) == (3, 1)
    (row,) = client.get_inference_statistics("cos")["model_stats"]
    assert row["inference_stats"]["compute_infer"]["ns"] > 0
    assert "cos" in {other["name"] for other in client.get_inference_statistics()["model_stats"]}


def test_many_at_once(client: Any) -> None:
    asked = [client.async_infer("square", [tensor("input", np.float64(k).reshape(1))]) for k in range(16)]
    assert [float(one.get_result().as_numpy("output")[0]) for one in asked] == [k * k for k in range(16)]


def test_aio(speaking: Server) -> None:
    async def ask() -> None:
        async with aio.InferenceServerClient(f"127.0.0.1:{speaking.port}") as client:
            assert await client.is_server_ready()
            assert await client.is_model_ready("softmax")
            x = np.linspace(0, 1, 300)
            for coding in (None, "gzip", "deflate"):
                reply = await client.infer(
                    "sin",
                    [tensor("input", x, of=aio)],
                    request_compression_algorithm=coding,
                    response_compression_algorithm=coding,
                )
                np.testing.assert_allclose(reply.as_numpy("vjp.input"), np.cos(x))
            replies = await asyncio.gather(
                *(client.infer("square", [tensor("input", np.full(1, float(k)), of=aio)]) for k in range(16))
            )
            assert [float(reply.as_numpy("output")[0]) for reply in replies] == [k * k for k in range(16)]
            with pytest.raises(InferenceServerException, match="softmax"):
                await client.infer("softmaxx", [tensor("input", x, of=aio)])

    asyncio.run(ask())
