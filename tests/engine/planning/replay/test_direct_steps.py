"""Steps that are counted without a mode cost what a mode counts, for whatever sizes and strides."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import fx

from app.engine.planning.bounded_counter import BoundedCounter
from app.engine.planning.replay.attention import is_self_attention
from app.engine.planning.replay.direct_steps import direct
from app.engine.planning.replay.geometries import Geometry, geometries, on_zeros
from app.engine.planning.replay.same_ranks import SameRanks
from app.protocols.native import native_query
from app.query import Query
from tests.engine.planning.replay.random_steps import program
from tests.engine.planning.replay.test_same_ranks import anew, assert_the_same, parts

POINTWISE = [
    "x + y", "x - y", "x * y", "x / y", "2 + x", "2 - x", "2 * x", "x - 2", "x / 3", "x ** 2", "x.pow(0.5)", "-x",
    "x + x.T.T * 2.5",
]  # fmt: skip
ALONE = [
    "torch.tanh(x)", "x.exp()", "F.relu(x)", "F.gelu(x)", "x.sigmoid()", "x.abs().sqrt()", "torch.erf(x)", "x.sum()", "x.mean()", "x.norm()",
    "torch.log1p(x.abs())", "x.sum(dim=0)", "x.sum(1, keepdim=True)", "x.mean((0, 1))", "torch.softmax(x, 0)", "x.log_softmax(dim=-1)",
]  # fmt: skip
PRODUCTS = ["x @ y.T", "x @ y[0]", "x[0] @ y.T", "x[0] @ y[0]", "torch.matmul(x.t(), y)", "F.linear(x, y, x[:, 0])", "x.T @ x"]
VIEWS = [
    "x.t()", "x.transpose(0, 1)", "x.unsqueeze(0)", "x[0]", "x[:, 1:]", "x[..., None, -1]", "x.view(len(x), 1, -1)",
    "x.permute(1, 0)", "x[:, 1:] * 2",
]  # fmt: skip


@pytest.mark.parametrize("expression", POINTWISE + ALONE + PRODUCTS + VIEWS)
def test_what_runs_directly_costs_what_a_mode_counts(expression: str) -> None:
    def query(rows: int, columns: int) -> Query:
        value = torch.linspace(0.1, 1, rows * columns, dtype=torch.float64).reshape(rows, columns).tolist()
        program = f"a = {expression}\nx, y = x.T, y.T\nb = {expression}\nreturn a, b"
        return native_query.query({"program": program, "inputs": {"x": value, "y": value}})

    known, first = SameRanks(), anew(query(3, 3))
    assert first is not None
    known.learn(query(3, 3), parts(query(3, 3))[0], first)
    steps = [node for node in first.function.graph.nodes if node.op == "call_function"]
    assert any(direct(node) is not None for node in steps)
    assert sum(assert_the_same(known, query(size, size)) for size in (2, 3, 4, 9)) == 4
    for rows, columns in ((1, 1), (4, 2), (1, 5), (5, 1)):
        assert_the_same(known, query(rows, columns))


@pytest.mark.parametrize(
    "expression", ["x[x > 0]", "x[[0, 1]]", "torch.sum(x, 0, dtype=torch.float32)", "2 / x", "x @ x @ x.unsqueeze(0)"]
)
def test_what_calls_more_than_one_kernel_is_watched(expression: str) -> None:
    built = anew(native_query.query({"program": f"return {expression}", "inputs": {"x": [[1.5, 2.0], [3.0, 4.0]]}}))
    assert built is not None
    last = [node for node in built.function.graph.nodes if node.op == "call_function"][-1]
    assert direct(last) is None


@pytest.mark.parametrize(
    "text", ["return x.repeat(4, 40) @ x.repeat(4, 40).T", "y = x @ x.T\nfor _ in range(4):\n    y = y @ y\nreturn y"]
)
def test_what_would_make_much_is_left_to_fakes(text: str) -> None:
    def query(rows: int) -> Query:
        value: Any = [[0.01] * 8] * rows
        return native_query.query({"program": text, "inputs": {"x": value}})

    known, first = SameRanks(), anew(query(2))
    assert first is not None
    known.learn(query(2), parts(query(2))[0], first)
    assert known.built(query(3), *parts(query(3))) is not None
    assert known.built(query(500), *parts(query(500))) is None


def described(value: Any) -> Any:
    """Shape, strides and dtype, without the strides that say nothing."""
    if isinstance(value, tuple):
        return tuple(map(described, value))
    assert isinstance(value, Geometry)
    strides = [stride for stride, extent in zip(value.strides, value.shape, strict=True) if extent != 1]
    return value.shape, value.elements and strides, value.dtype, value.is_row_major


def is_counted(node: fx.Node) -> bool:
    """Whether a step is counted by geometries: then as a mode counts it, and its result is where PyTorch puts it."""
    rule, counter, watching = direct(node), BoundedCounter(), BoundedCounter()
    args, kwargs = fx.map_arg((node.args, node.kwargs), lambda source: geometries(source.meta["val"]))
    result = NotImplemented if rule is None else rule(counter, args, kwargs)
    if result is NotImplemented:
        return False
    args, kwargs = on_zeros(args), on_zeros(kwargs)
    with watching, torch.no_grad():
        seen = node.target(*args, **kwargs)  # type: ignore[operator]
    counts = [(each.flops, each.bytes, each.largest, each.scratch) for each in (counter, watching)]
    assert counts[0] == counts[1], (str(node.target), args, counts)
    assert described(result) == described(geometries(seen)), (str(node.target), args)
    return True


@pytest.mark.parametrize(
    ("text", "shapes", "is_known"),
    [
        ("x + y", {"x": [(1, 3), (1, 1)], "y": [(3, 1, 1), (1, 7, 12)]}, False),  # a stride of an axis with one member decides
        ("x + y", {"x": [(1, 3), (3, 1)], "y": [(3, 1, 1), (1, 1, 1)]}, True),
        ("x @ y", {"x": [(1, 2, 3), (3, 3, 1)], "y": [(3, 2), (2, 1)]}, False),  # x.transpose(0, 1) of one sequence
        ("x @ y", {"x": [(1, 2, 3), (6, 3, 1)], "y": [(3, 2), (2, 1)]}, True),
    ],
)
def test_axes_with_one_member(text: str, shapes: dict[str, Any], is_known: bool) -> None:
    inputs = {name: torch.rand(shape, dtype=torch.float64).tolist() for name, (shape, _) in shapes.items()}
    built = anew(native_query.query({"program": f"return {text}", "inputs": inputs}))
    assert built is not None
    *placeholders, step, _ = built.function.graph.nodes
    for node, (shape, strides) in zip(placeholders, shapes.values(), strict=True):
        node.meta["val"] = torch.empty_strided(shape, strides, dtype=torch.float64)
    assert is_counted(step) is is_known


@pytest.mark.parametrize("part", range(2))
def test_each_step_is_counted_as_a_mode_counts_it(part: int) -> None:
    rng, count = random.Random(100 + part), 0
    for _ in range(4):
        shapes = {name: tuple(rng.choice((1, 2, 3, 4)) for _ in range(rng.choice((1, 2, 2, 3)))) for name in "xy"}
        inputs = {name: torch.rand(shape, dtype=torch.float64).tolist() for name, shape in shapes.items()}

        def built(text: str, inputs: dict[str, Any] = inputs) -> Any:
            return anew(native_query.query({"program": text, "inputs": inputs, "seed": 0}))

        function = built(program(rng, ("x", "y"), lambda text, built=built: built(text) is not None)).function  # type: ignore[misc]
        count += sum(is_counted(node) for node in function.graph.nodes if node.op == "call_function")
    assert count > 15


@pytest.mark.parametrize("shape", [(2, 5, 8), (1, 5, 8), (5, 1, 8), (1, 1, 8)])
@pytest.mark.parametrize("options", ["batch_first=True", "batch_first=False", "bias=False", "add_zero_attn=True"])
def test_attention_is_counted_as_a_mode_counts_it(options: str, shape: tuple[int, ...]) -> None:
    text = f"a, w = nn.MultiheadAttention(8, 2, {options})(x, x, x)\nreturn a, w"
    built = anew(native_query.query({"program": text, "inputs": {"x": torch.rand(shape).tolist()}, "seed": 0}))
    assert built is not None
    (step,) = [node for node in built.function.graph.nodes if is_self_attention(node)]
    assert is_counted(step) == ("batch" in options)


WINDOWS = [
    "F.max_pool2d(x, 2)", "nn.MaxPool2d(2)(x)", "nn.MaxPool2d(3, 1, 1)(x)", "nn.MaxPool2d((1, 2), stride=(2, 1), dilation=2)(x)",
    "F.max_pool2d(x[0], (2, 1), padding=(1, 0))", "nn.Conv2d(x.shape[1], 2, 1)(x)", "nn.Conv2d(x.shape[1], 2, 2, padding=1)(x)",
    "nn.Conv2d(x.shape[1], 2, (1, 2), stride=(2, 1), bias=False)(x)", "nn.Conv2d(x.shape[1], x.shape[1], 2, 1, 1, 2, groups=x.shape[1])(x)",
    "F.conv2d(x, x[:1], padding=1)",
]  # fmt: skip


def windows_of(graph: fx.Graph) -> list[fx.Node]:
    """Its convolutions and pools."""
    names = {node: getattr(node.target, "__name__", "") for node in graph.nodes}
    return [node for node, name in names.items() if "pool" in name or "conv" in name]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("text", WINDOWS)
def test_windows_are_counted_as_a_mode_counts_them(text: str, dtype: str) -> None:
    """Also where an axis has one member, and kernels might take the axes in another order."""
    count = 0
    for shape in ((1, 1, 4, 4), (2, 3, 5, 4), (1, 3, 1, 1), (3, 1, 1, 1), (1, 2, 1, 3), (2, 1, 3, 1)):
        data = torch.rand(shape, dtype=torch.float64).tolist()
        query = {"program": f"return {text}", "inputs": {"x": data}, "dtype": dtype, "seed": 0}
        built = anew(native_query.query(query))
        if built is not None:
            count += sum(is_counted(node) for node in windows_of(built.function.graph))
    assert count > 1


@pytest.mark.parametrize("text", ["nn.MaxPool2d(2, ceil_mode=True)(x)", "F.max_pool2d(x, 2, return_indices=True)[0]"])
def test_other_windows_are_watched(text: str) -> None:
    built = anew(native_query.query({"program": f"return {text}", "inputs": {"x": torch.rand(1, 2, 5, 5).tolist()}}))
    assert built is not None
    assert [direct(node) for node in windows_of(built.function.graph)] == [None]
