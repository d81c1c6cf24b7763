"""One operation as a Function: its outputs' names, its graph, whether it draws, and how PyTorch's refusals read."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

from app.catalogue.entry import Operation
from app.catalogue.read import find
from app.errors import PullbackError
from app.program.function import Function
from app.program.operation import build_operation
from app.query import DTYPE_BYTES, Parameter
from tests.many import assert_of_every_operation

DTYPES = {name: getattr(torch, name) for name in DTYPE_BYTES}


def build(name: str, inputs: dict[str, Tensor | tuple[Tensor, ...]], **parameters: Parameter) -> Function:
    return build_operation(find(name), inputs, parameters)


def numbers(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(*shape, dtype=torch.float64, generator=generator) + 0.25


def _tensor(value: Any) -> Tensor:
    if isinstance(value, dict):
        dtype = DTYPES[value["dtype"]]
        data = torch.tensor(value["data"], dtype=torch.float64 if dtype.is_complex else dtype)
        return torch.view_as_complex(data).to(dtype) if dtype.is_complex else data
    read = torch.tensor(value)
    return torch.tensor(value, dtype=torch.float64) if read.is_floating_point() else read


def _inputs(operation: Any) -> dict[str, Tensor | tuple[Tensor, ...]]:
    """The example's tensors; a list is one of tensors where the signature says so."""
    leaves: dict[str, Tensor | tuple[Tensor, ...]] = {}
    lists = {a.name for s in operation.signatures for a in s.arguments if a.kind == "tensors"}
    for name, value in operation.example.get("inputs", {}).items():
        leaves[name] = tuple(_tensor(member) for member in value) if name in lists else _tensor(value)
    return leaves


def _assert_graph_and_callable_say_the_same(operation: Operation) -> None:
    inputs = _inputs(operation)
    parameters = {n: tuple(v) if isinstance(v, list) else v for n, v in operation.example.get("parameters", {}).items()}
    function = build_operation(operation, inputs, parameters)
    leaves = [t for value in inputs.values() for t in (value if isinstance(value, tuple) else (value,))]
    torch.manual_seed(0)
    called = function.call(*leaves)
    torch.manual_seed(0)
    walked = _walk(function, leaves)
    assert len(called) == len(function.outputs) == len(walked)
    for one, other in zip(called, walked, strict=True):
        torch.testing.assert_close(one, other, equal_nan=True)
    assert function.random == ("seed" in operation.example)
    assert function.title == operation.name
    assert len(set(function.outputs)) == len(function.outputs)
    for node, step in function.steps():
        assert (step.line, step.column, step.operation) == (1, 1, operation.name)
        assert step.text.startswith(f"{operation.name}(")
        assert "val" in node.meta


@pytest.mark.filterwarnings("ignore:.*is deprecated")
def test_graph_and_callable_say_the_same() -> None:
    assert_of_every_operation(_assert_graph_and_callable_say_the_same)


def _walk(function: Function, leaves: list[Tensor]) -> list[Tensor]:
    values: dict[fx.Node, Any] = {}
    remaining = iter(leaves)
    for node in function.graph.nodes:
        if node.op == "placeholder":
            values[node] = next(remaining)
        elif node.op == "call_function":
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
            values[node] = node.target(*args, **kwargs)
    return [values[node] for node in next(reversed(function.graph.nodes)).args[0]]


OUTPUTS: list[tuple[str, dict[str, Tensor | tuple[Tensor, ...]], dict[str, Parameter], tuple[str, ...]]] = [
    ("softmax", {"input": numbers(3)}, {"dim": 0}, ("output",)),
    ("max", {"input": numbers(3)}, {"dim": 0}, ("values", "indices")),
    ("linalg.svd", {"A": numbers(3, 2)}, {}, ("U", "S", "Vh")),
    ("var_mean", {"input": numbers(3)}, {}, ("var", "mean")),
    ("split", {"tensor": numbers(5)}, {"split_size_or_sections": 2}, ("output.0", "output.1", "output.2")),
    ("unbind", {"input": numbers(1, 3)}, {}, ("output.0",)),
    ("meshgrid", {"tensors": (numbers(2), numbers(3))}, {}, ("output.0", "output.1")),
    ("atleast_1d", {"input": numbers(3)}, {}, ("output",)),
    ("atleast_1d", {"tensors": (numbers(3), numbers(2))}, {}, ("output.0", "output.1")),
    ("max_pool2d", {"input": numbers(1, 1, 4, 4)}, {"kernel_size": 2}, ("output",)),
    ("max_pool2d", {"input": numbers(1, 1, 4, 4)}, {"kernel_size": 2, "return_indices": True}, ("output", "indices")),
    ("unique", {"input": numbers(3)}, {"return_counts": True}, ("output", "counts")),
    ("unique", {"input": numbers(3)}, {"return_inverse": True, "return_counts": True}, ("output", "inverse_indices", "counts")),
    ("histogramdd", {"input": numbers(4, 2)}, {"bins": (2, 3)}, ("hist", "bin_edges.0", "bin_edges.1")),
    ("nonzero", {"input": numbers(2, 2)}, {"as_tuple": True}, ("output.0", "output.1")),
]


@pytest.mark.parametrize(("name", "inputs", "parameters", "outputs"), OUTPUTS, ids=lambda value: str(value)[:30])
def test_outputs_are_named(
    name: str, inputs: dict[str, Tensor | tuple[Tensor, ...]], parameters: dict[str, Parameter], outputs: tuple[str, ...]
) -> None:
    function = build(name, inputs, **parameters)
    assert function.outputs == outputs
    leaves = [t for value in inputs.values() for t in (value if isinstance(value, tuple) else (value,))]
    assert len(function.call(*leaves)) == len(outputs)


def test_leaves_keep_the_names_of_the_query() -> None:
    assert build("linalg.inv", {"self": numbers(2, 2)}).leaves == ("self",)
    assert build("cat", {"tensors": (numbers(2), numbers(3))}).leaves == ("tensors.0", "tensors.1")


def test_the_step_is_the_call_as_one_would_write_it() -> None:
    texts = [
        build("softmax", {"input": numbers(3)}, dim=-1),
        build("cat", {"tensors": (numbers(2), numbers(3))}, dim=0),
        build("conv2d", {"input": numbers(1, 1, 4, 4), "weight": numbers(1, 1, 2, 2)}, stride=(2, 2)),
    ]
    assert [function.steps()[0][1].text for function in texts] == [
        "softmax(input, dim=-1)",
        "cat([tensors.0, tensors.1], dim=0)",
        "nn.functional.conv2d(input, weight, stride=[2, 2])",
    ]


def test_a_call_draws_only_where_it_does() -> None:
    assert build("dropout", {"input": numbers(3)}).random
    assert not build("dropout", {"input": numbers(3)}, training=False).random
    assert not build("rrelu", {"input": numbers(3)}).random
    assert build("rrelu", {"input": numbers(3)}, training=True).random
    heads: dict[str, Tensor | tuple[Tensor, ...]] = {name: numbers(1, 1, 3, 4) for name in ("query", "key", "value")}
    assert not build("scaled_dot_product_attention", heads).random
    assert build("scaled_dot_product_attention", heads, dropout_p=0.5).random


def test_fakes_are_planned_and_data_dependent_shapes_pass_through() -> None:
    with FakeTensorMode():
        function = build("softmax", {"input": torch.empty(1000, 1000)}, dim=1)
        assert function.static
        assert function.steps()[0][0].meta["val"].shape == (1000, 1000)
        with pytest.raises((DynamicOutputShapeException, DataDependentOutputException)):
            build("nonzero", {"input": torch.empty(3)})
    assert not build("nonzero", {"input": numbers(3)}).static


def test_a_function_of_fakes_runs_on_real_tensors() -> None:
    with FakeTensorMode():
        function = build("softmax", {"input": torch.empty(3, dtype=torch.float64)}, dim=0)
    point = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    (output,) = function.call(point)
    assert torch.equal(output, torch.softmax(point, 0))
    assert output.requires_grad


@pytest.mark.parametrize("fake", [False, True])
def test_pytorchs_refusal_reads_well(fake: bool) -> None:
    def refuse() -> PullbackError:
        with pytest.raises(PullbackError) as caught:
            build("conv2d", {"input": torch.ones(1, 2, 5, 5), "weight": torch.ones(3, 4, 3, 3)})
        return caught.value

    if fake:
        with FakeTensorMode():
            error = refuse()
    else:
        error = refuse()
    assert error.code == "shape_mismatch"
    assert "[1, 2, 5, 5]" in error.detail
    assert "[3, 4, 3, 3]" in error.detail
    assert "nn.functional.conv2d(input: tensor, weight: tensor" in str(error.expected)
    assert "/" not in error.detail.replace("and/or", "")
    assert "FakeTensor" not in error.detail


def test_every_dtype_of_the_contract_can_be_asked_for() -> None:
    for name, dtype in DTYPES.items():
        function = build("to", {"input": numbers(3)}, dtype=name)
        assert function.call(numbers(3))[0].dtype == dtype
