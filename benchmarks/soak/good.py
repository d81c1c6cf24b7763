"""Good queries with what PyTorch says of them in this process: small, programs, lists, compressed, and up to 10 MB both ways."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import orjson
import safetensors.numpy
import torch
from numpy.typing import NDArray

Array = NDArray[Any]
SAFETENSORS: Final = "application/vnd.safetensors"
JSON: Final = "application/json"
# Both sides run the same kernels; a batch of queries may sum in another order.
_RELATIVE: Final = 1e-9
_RELATIVE_OF_FLOAT32: Final = 1e-5


@dataclass(frozen=True, slots=True)
class Good:
    """A query and the check of its answer: `is_right(status, body)`."""

    name: str
    path: str
    body: bytes
    is_right: Callable[[int, bytes], bool]
    headers: Mapping[str, str] = field(default_factory=dict)


def _agree(one: Array, other: Array) -> bool:
    relative = _RELATIVE_OF_FLOAT32 if other.dtype == np.float32 else _RELATIVE
    return one.shape == other.shape and one.dtype == other.dtype and bool(np.allclose(one, other, rtol=relative, atol=1e-12))


def _tensor(value: Mapping[str, Any]) -> Array:
    """A tensor of a JSON answer."""
    data = value["data"]
    if isinstance(data, str):
        return np.frombuffer(base64.b64decode(data), value["dtype"]).reshape(value["shape"])
    return np.array(data, value["dtype"]).reshape(value["shape"])


def _json_check(expected: Mapping[str, Array]) -> Callable[[int, bytes], bool]:
    """`expected`: by paths into the answer, as `vjp.input`."""

    def is_right(status: int, body: bytes) -> bool:
        return status == 200 and _holds(orjson.loads(body), expected)

    return is_right


def _holds(answer: Any, expected: Mapping[str, Array]) -> bool:
    for path, array in expected.items():
        value = answer
        for part in path.split("."):
            value = value.get(part, {})
        if "data" not in value or not _agree(_tensor(value), array):
            return False
    return True


def _file_check(expected: Mapping[str, Array]) -> Callable[[int, bytes], bool]:
    def is_right(status: int, body: bytes) -> bool:
        if status != 200:
            return False
        tensors = safetensors.numpy.load(body)
        return all(name in tensors and _agree(tensors[name], array) for name, array in expected.items())

    return is_right


def softmax(random: np.random.Generator) -> Good:
    x = random.standard_normal(10)
    leaf = torch.tensor(x, requires_grad=True)
    y = torch.softmax(leaf, 0)
    (g,) = torch.autograd.grad(y, leaf, torch.ones_like(y))
    query = {
        "operation": "softmax", "inputs": {"input": x.tolist()}, "parameters": {"dim": 0}, "want": ["outputs", "vjp"],
        "cotangent": {"output": [1.0] * 10},
    }  # fmt: skip
    expected = {"outputs.output": y.detach().numpy(), "vjp.input": g.numpy()}
    return Good("softmax", "/v1/query", orjson.dumps(query), _json_check(expected), {"Content-Type": JSON})


def hessian(random: np.random.Generator) -> Good:
    x = random.standard_normal(6)
    leaf = torch.tensor(x, requires_grad=True)
    (g,) = torch.autograd.grad((torch.sin(leaf) * leaf.exp()).sum(), leaf, create_graph=True)
    h = torch.stack([torch.autograd.grad(each, leaf, retain_graph=True)[0] for each in g])
    query = {"program": "return (sin(x) * exp(x)).sum()", "inputs": {"x": x.tolist()}, "want": ["hessian"]}
    return Good("hessian", "/v1/query", orjson.dumps(query), _json_check({"hessian.x.x": h.numpy()}), {"Content-Type": JSON})


def perceptron(random: np.random.Generator) -> Good:
    """A gradient through a program, as a safetensors file both ways."""
    arrays = {
        name: random.standard_normal(shape)
        for name, shape in {"x": (64, 100), "W1": (100, 50), "b1": (50,), "W2": (50, 10)}.items()
    }
    leaves = {name: torch.tensor(value, requires_grad=name != "x") for name, value in arrays.items()}
    loss = torch.logsumexp(torch.tanh(leaves["x"] @ leaves["W1"] + leaves["b1"]) @ leaves["W2"], 1).mean()
    names = ["W1", "b1", "W2"]
    gradients = torch.autograd.grad(loss, [leaves[name] for name in names])
    query = {"program": "return logsumexp(tanh(x @ W1 + b1) @ W2, 1).mean()", "want": ["gradient"], "wrt": names}
    body = safetensors.numpy.save(
        {f"inputs.{name}": value for name, value in arrays.items()}, {"query": orjson.dumps(query).decode()}
    )
    expected = {f"gradient.{name}": g.numpy() for name, g in zip(names, gradients, strict=True)}
    return Good("perceptron", "/v1/query", body, _file_check(expected), {"Content-Type": SAFETENSORS, "Accept": SAFETENSORS})


def large(random: np.random.Generator, elements: int) -> Good:
    """`elements` of float32 in, and in again as cotangent; as many out twice."""
    x = random.standard_normal(elements).astype(np.float32)
    leaf = torch.tensor(x, requires_grad=True)
    y = torch.tanh(leaf)
    (g,) = torch.autograd.grad(y, leaf, torch.tensor(x))
    query = orjson.dumps({"operation": "tanh", "want": ["outputs", "vjp"]}).decode()
    body = safetensors.numpy.save({"inputs.input": x, "cotangent.output": x}, {"query": query})
    expected = {"outputs.output": y.detach().numpy(), "vjp.input": g.numpy()}
    headers = {"Content-Type": SAFETENSORS, "Accept": SAFETENSORS}
    return Good(f"tanh of {elements}", "/v1/query", body, _file_check(expected), headers)


def numbers(random: np.random.Generator, elements: int, *, compressed: bool = False) -> Good:
    """A list of numbers in JSON, answered in base64."""
    x = random.standard_normal(elements)
    leaf = torch.tensor(x, requires_grad=True)
    (g,) = torch.autograd.grad((leaf * leaf.cos()).sum(), leaf)
    query = {
        "program": "return (x * cos(x)).sum()", "inputs": {"x": x.tolist()}, "want": ["gradient"], "encoding": "base64"
    }  # fmt: skip
    body, headers = orjson.dumps(query), {"Content-Type": JSON}
    if compressed:
        body, headers = gzip.compress(body, 1), {"Content-Type": JSON, "Content-Encoding": "gzip"}
    name = f"{elements} numbers{', gzip' if compressed else ''}"
    return Good(name, "/v1/query", body, _json_check({"gradient.x": g.numpy()}), headers)


def list_of_queries(random: np.random.Generator) -> Good:
    """A list of queries, one of which is refused."""
    singles = [softmax(random) for _ in range(8)]
    bodies = [single.body for single in singles]
    body = b"[" + b",".join([*bodies[:4], b'{"operation": "no_such_operation"}', *bodies[4:]]) + b"]"

    def is_right(status: int, reply: bytes) -> bool:
        if status != 200:
            return False
        answers = orjson.loads(reply)
        refused = answers.pop(4)
        good = all(single.is_right(200, orjson.dumps(answer)) for single, answer in zip(singles, answers, strict=True))
        return good and refused.get("code") == "unknown_operation"

    return Good("list of 9", "/v1/queries", body, is_right, {"Content-Type": JSON})


def mix(random: np.random.Generator) -> list[tuple[float, Good]]:
    """Good queries with their weights."""
    cases: list[tuple[float, Good]] = []
    for _ in range(4):
        cases += [(12.0, softmax(random)), (4.0, hessian(random)), (4.0, perceptron(random)), (1.0, list_of_queries(random))]
    for _ in range(2):
        cases += [(1.0, numbers(random, 3_000)), (1.0, numbers(random, 3_000, compressed=True)), (1.0, numbers(random, 50_000))]
        cases += [(1.0, large(random, 10_000)), (1.0, large(random, 125_000))]
    # 5 MB twice: 10 MB in, 10 MB out.
    return [*cases, (0.7, large(random, 1_250_000))]
