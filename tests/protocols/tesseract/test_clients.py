"""Tesseract's own clients, unmodified, against a real server: the SDK, tesseract-torch and tesseract-jax, one and many at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tesseract_core import Tesseract
from tesseract_jax import apply_tesseract as in_jax
from tesseract_torch import apply_tesseract as in_torch

from tests.server import Server


@pytest.fixture(autouse=True)
def _double_precision() -> Iterator[None]:
    before = jax.config.read("jax_enable_x64")  # type: ignore[no-untyped-call]
    jax.config.update("jax_enable_x64", True)  # type: ignore[no-untyped-call]
    yield
    jax.config.update("jax_enable_x64", before)  # type: ignore[no-untyped-call]


def remote(server: Server, name: str) -> Any:
    return Tesseract.from_url(f"{server.url}/tesseract/{name}")


def test_the_sdk(speaking: Server) -> None:
    matmul = remote(speaking, "matmul")
    a, b = np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]])
    inputs = {"input": a, "other": b}
    assert matmul.health() == {"status": "ok"}
    np.testing.assert_array_equal(matmul.apply(inputs)["output"], [[11.0]])
    jacobian = matmul.jacobian(inputs, ["input", "other"], ["output"])["output"]
    np.testing.assert_array_equal(jacobian["input"], b.T.reshape(1, 1, 1, 2))
    np.testing.assert_array_equal(jacobian["other"], a.reshape(1, 1, 2, 1))
    product = matmul.jacobian_vector_product(inputs, ["input"], ["output"], {"input": np.ones((1, 2))})
    np.testing.assert_array_equal(product["output"], [[7.0]])
    gradients = matmul.vector_jacobian_product(inputs, ["other"], ["output"], {"output": np.full((1, 1), 2.0)})
    np.testing.assert_array_equal(gradients["other"], [[2.0], [4.0]])
    shapes = matmul.abstract_eval(
        {"input": {"shape": [5, 2], "dtype": "float32"}, "other": {"shape": [2, 3], "dtype": "float32"}}
    )
    assert shapes == {"output": {"shape": [5, 3], "dtype": "float32"}}


def test_what_has_no_derivative_offers_none(speaking: Server) -> None:
    assert "jacobian" not in remote(speaking, "argmax").available_endpoints
    with pytest.raises(NotImplementedError):
        remote(speaking, "argmax").jacobian({"input": np.ones(2)}, ["input"], ["output"])


@pytest.mark.parametrize("form", ["json", "json+base64"])
def test_encodings(speaking: Server, form: str) -> None:
    clone = remote(speaking, "clone").with_encoding(output_format=form)
    for value in (
        np.array([np.nan, np.inf, -np.inf, 1.5]),
        np.float32(2.5),
        np.zeros((0, 2)),
        np.array([True, False]),
        np.arange(3),
    ):
        np.testing.assert_array_equal(clone.apply({"input": value})["output"], value)
    complex_numbers = np.array([1 + 2j])
    np.testing.assert_array_equal(clone.apply({"input": complex_numbers})["output"], complex_numbers)
    with pytest.raises(ValueError, match="does not accept"):
        clone.with_encoding(compression="lz4")


def test_refusals_reach_the_user(speaking: Server) -> None:
    with pytest.raises(ValidationError, match="dim"):
        remote(speaking, "softmax").apply({"input": np.ones(2), "dm": 0})
    with pytest.raises(ValidationError, match="shape"):
        remote(speaking, "sin").vector_jacobian_product({"input": np.ones(2)}, ["input"], ["output"], {"output": np.ones(3)})
    with pytest.raises(RuntimeError, match="no operation"):
        remote(speaking, "softmaxx").apply({"input": np.ones(2)})


# Of PyTorch's own forward mode, which scripts a table when it is first used.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_in_torch(speaking: Server) -> None:
    x = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3).requires_grad_()
    w = torch.linspace(0, 1, 12, dtype=torch.float64).reshape(4, 3).requires_grad_()
    here = torch.nn.functional.linear(x, w)
    there = in_torch(remote(speaking, "nn.functional.linear"), {"input": x, "weight": w})["output"]
    assert torch.equal(here, there)
    cotangent = torch.arange(8.0, dtype=torch.float64).reshape(2, 4)
    local_gradients, remote_gradients = (
        torch.autograd.grad(here, (x, w), cotangent),
        torch.autograd.grad(there, (x, w), cotangent),
    )
    assert all(torch.equal(one, other) for one, other in zip(local_gradients, remote_gradients, strict=True))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x.detach(), torch.ones_like(x))  # type: ignore[no-untyped-call]
        out = in_torch(remote(speaking, "sin"), {"input": dual})["output"]
        tangent = torch.autograd.forward_ad.unpack_dual(out).tangent  # type: ignore[no-untyped-call]
    torch.testing.assert_close(tangent, x.detach().cos())


def test_in_torch_in_single_precision(speaking: Server) -> None:
    x = torch.ones(3, requires_grad=True)
    in_torch(remote(speaking, "sin"), {"input": x})["output"].sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.float32


def test_in_jax(speaking: Server) -> None:
    tanh = remote(speaking, "tanh")
    x = jnp.linspace(-1, 1, 4)

    def f(x: Any) -> Any:
        return in_jax(tanh, {"input": x})["output"]

    np.testing.assert_allclose(jax.jit(f)(x), jnp.tanh(x), rtol=1e-14)
    np.testing.assert_allclose(
        jax.jit(jax.grad(lambda x: (f(x) ** 2).sum()))(x), jax.grad(lambda x: (jnp.tanh(x) ** 2).sum())(x), rtol=1e-12
    )
    np.testing.assert_allclose(jax.jacfwd(f)(x), jax.jacfwd(jnp.tanh)(x), rtol=1e-12)
    np.testing.assert_allclose(jax.jacrev(f)(x), jax.jacrev(jnp.tanh)(x), rtol=1e-12)
    np.testing.assert_allclose(jax.jvp(f, (x,), (jnp.ones(4),))[1], 1 - jnp.tanh(x) ** 2, rtol=1e-12)
    many = jax.vmap(lambda x: in_jax(tanh, {"input": x}, vmap_method="auto_experimental")["output"])
    np.testing.assert_allclose(many(jnp.ones((3, 4))), jnp.tanh(jnp.ones((3, 4))), rtol=1e-14)  # type: ignore[no-untyped-call]


def test_in_jax_with_parameters_and_lists(speaking: Server) -> None:
    softmax, cat = remote(speaking, "softmax"), remote(speaking, "cat")
    x = jnp.arange(6.0).reshape(2, 3)

    def f(x: Any) -> Any:
        return in_jax(softmax, {"input": x, "dim": 0}, vmap_method="auto_experimental")["output"]

    np.testing.assert_allclose(jax.jit(f)(x), jax.nn.softmax(x, axis=0), rtol=1e-14)
    # Of each matrix by itself: a leading axis that is put before it must not become the one that is summed over.
    np.testing.assert_allclose(jax.vmap(f)(jnp.stack([x, 2 * x]))[1], jax.nn.softmax(2 * x, axis=0), rtol=1e-14)
    gradient = jax.grad(lambda a: (in_jax(cat, {"tensors": [a, jnp.zeros(2)]})["output"] * jnp.arange(5.0)).sum())(jnp.ones(3))
    np.testing.assert_array_equal(gradient, [0.0, 1.0, 2.0])


def test_a_function_in_jax(speaking: Server) -> None:
    rosenbrock = remote(speaking, "rosenbrock")
    gradient = jax.jit(jax.grad(lambda x: in_jax(rosenbrock, {"x": x, "b": 10.0})["output"]))(jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(gradient, [-40.0, 20.0])


def test_many_threads_and_tasks(speaking: Server) -> None:
    square = remote(speaking, "square")
    squares: dict[int, float] = {}

    def ask(k: int) -> None:
        squares[k] = float(square.apply({"input": np.float64(k)})["output"])

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    async def gather() -> None:
        await asyncio.gather(*(asyncio.to_thread(ask, k) for k in range(16, 32)))

    asyncio.run(gather())
    assert squares == {k: float(k * k) for k in range(32)}
