"""Small inputs are planned on their values as on fakes: the same graph, outputs and refusals; what might be large is never made."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch

from app.catalogue.read import operations
from app.engine.planning.bounded_counter import BoundedCounter, UnboundedError, is_small
from app.engine.planning.build import Built, build, leaves_of
from app.engine.planning.prepare import results
from app.engine.tensors import to_torch
from app.errors import PullbackError
from app.program.functions import load
from app.protocols.native import native_query
from app.query import Query
from tests.share import share

FUNCTIONS = load(None)
STEPS = 2


def longer(tensor: Any, by: int) -> Any:
    """The list with its first members again behind it."""
    if isinstance(tensor, dict):
        return {**tensor, "data": longer(tensor["data"], by)} if set(tensor) == {"data", "dtype"} else tensor
    return tensor + (tensor * by)[:by] if isinstance(tensor, list) and tensor else tensor


def built(query: Query, *, on_fakes: bool) -> Built | PullbackError:
    leaves = dict(leaves_of(query.inputs))
    shapes = {name: data.shape for name, data in leaves.items()}
    try:
        return build(
            query,
            FUNCTIONS,
            shapes,
            lambda dtypes: {name: to_torch(data, "cpu").to(dtypes[name]) for name, data in leaves.items()},
            on_fakes=on_fakes,
        )
    except PullbackError as error:
        return error


def shown(result: Built | PullbackError) -> Any:
    """What a Function is, or why there is none."""
    if isinstance(result, PullbackError):
        return result.code, result.detail, result.at
    function = result.function
    named = (function.outputs, function.leaves, function.random, function.static, function.notes)
    graph = [
        (node.op, node.name, getattr(node.target, "__name__", type(node.target)), str(node.args), str(node.kwargs))
        for node in function.graph.nodes
    ]
    return graph, results(result), result.leaves, named


def assert_built_alike(query: Query) -> bool:
    """True where there is a Function."""
    on_values, on_fakes = built(query, on_fakes=False), built(query, on_fakes=True)
    assert shown(on_values) == shown(on_fakes)
    return isinstance(on_values, Built)


@pytest.mark.parametrize("part", range(3))
def test_operations_are_built_as_on_fakes(part: int) -> None:
    count = 0
    asked = share(product(list(operations().values())[part::3], range(STEPS)), STEPS, lambda case: case[0].name)
    for operation, by in asked:
        inputs = {name: longer(value, by) for name, value in operation.example["inputs"].items()}
        query = native_query.query({**operation.example, "inputs": inputs, "want": ["outputs"], "cotangent": {}, "seed": 0})
        count += assert_built_alike(query)
    assert count > 0.8 * len(asked)


@pytest.mark.parametrize(
    "text",
    [
        "return (x @ x.T).tanh().sum()",
        "h = x\nfor i in range(x.shape[0]):\n    h = h - 0.1 * sin(h)\nreturn h.pow(2).mean()",
        "y = x.clone()\ny[:, 0] *= 2\nreturn y.sum()",
        "i = argsort(x[0])\nreturn x[:, i].prod(dim=0).sum()",
        "if x.sum() > 0:\n    y = x * 2\nelse:\n    y = x\nreturn y.sum()",
        "return x[x > 0].sum()",
        "return x.tolist()[0][0] * x.sum()",
        "return nn.functional.dropout(x, 0.5).sum()",
        "g = torch.autograd.grad((x ** 3).sum(), x, create_graph=True)[0]\nreturn g.pow(2).sum()",
        "return x @ x",
        "return x.sum(dim=7)",
        "return x.reshape(5, 5)",
        "return zeros(3, 3) @ x",
    ],
)
def test_programs_are_built_as_on_fakes(text: str) -> None:
    value = [[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]]
    assert_built_alike(native_query.query({"program": text, "inputs": {"x": value}, "seed": 0}))


ONE = torch.ones(())


@pytest.mark.parametrize(
    "steps",
    [
        lambda: torch.tile(ONE, (1 << 29,)),
        lambda: torch.repeat_interleave(ONE.expand(2), torch.tensor([1 << 28, 1 << 28])),
        lambda: torch.nn.functional.pad(ONE.expand(1), (0, 1 << 29)),
        lambda: torch.cartesian_prod(*[ONE.expand(40)] * 6),
        lambda: torch.zeros(1 << 29) + ONE,
        lambda: ONE.expand(1 << 15, 1 << 14) + 1,
        lambda: torch.randn(1 << 29),
        lambda: ONE.expand(1 << 14, 1) @ ONE.expand(1, 1 << 14),
        lambda: ONE.expand(1 << 29).clone(),
        lambda: torch.empty(0, 1 << 29).sum(dim=0),
        lambda: torch.linalg.svd(ONE.expand(1 << 15, 1)),
        lambda: torch.nn.functional.interpolate(ONE.expand(1, 1, 2, 2), size=(1 << 15, 1 << 14)),
        lambda: torch.nn.functional.conv2d(ONE.expand(1, 1, 1, 1), ONE.expand(1, 1, 1, 1), padding=1 << 14),
        lambda: [ONE.clone().expand(1 << 12).clone() for _ in range(1 << 10)],
    ],
)
def test_what_would_be_large_is_not_made(steps: Callable[[], Any]) -> None:
    """Each takes megabytes or gigabytes of next to nothing: the step is stopped before it allocates."""
    with pytest.raises(UnboundedError), BoundedCounter() as counter, torch.no_grad():
        steps()
    assert counter.bytes <= 1 << 20


def test_an_empty_axis_hides_no_size() -> None:
    """The sum over an empty axis is not empty."""
    assert not is_small([(0, 1 << 30)])
    assert is_small([(0, 3), (4,)])


def test_small_steps_pass_and_reads_are_seen() -> None:
    largest = torch.ones(4, 1)
    with BoundedCounter() as counter:
        torch.linalg.svd(largest, full_matrices=True)
        torch.outer(largest[:, 0], largest[:, 0])
        torch.cdist(largest, largest)
        torch.cat([largest] * 5)
    assert not counter.has_read
    assert counter.bytes > 0
    with BoundedCounter() as reading:
        largest.sum().item()
    assert reading.has_read
