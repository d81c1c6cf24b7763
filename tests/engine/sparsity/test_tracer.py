"""Proven patterns hold every entry that is not zero: over the catalogue, PyTorch's own samples, random programs and known traps."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from torch import Tensor

from app.catalogue.read import find, operations
from app.errors import PullbackError
from app.limits import Limits
from app.program.compiler import build_program
from app.program.function import Function
from app.program.operation import build_operation
from app.protocols.native import bodies
from tests.engine.asking import ENGINE
from tests.engine.sparsity.soundness import dense_rows, missing, traced, traced_gradient
from tests.op_db import cases, differentiable_page

SMALL = 200  # elements of all inputs and outputs: each row of the dense derivative is a backward
REFUSALS = (RuntimeError, NotImplementedError, ValueError, TypeError, IndexError)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Thousands of tiny backwards: a second thread only waits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _examples() -> Iterator[tuple[str, Function, dict[str, Tensor], tuple[str, ...]]]:
    """Name, function, leaves and the inputs to differentiate by of each example of the catalogue that has a derivative."""
    for name, operation in operations().items():
        if operation.order == 0 or "vjp" not in operation.example["want"]:
            continue
        query = bodies.read(memoryview(orjson.dumps(operation.example)), "application/json", None, Limits())
        prepared = ENGINE.prepared(query)
        leaves = ENGINE._preparer.leaves(query, prepared.dtypes)
        yield name, prepared.function, leaves, prepared.wrt


def _outputs(function: Function) -> list[Tensor]:
    (nodes,) = next(node for node in reversed(function.graph.nodes) if node.op == "output").args
    return [node.meta["val"] for node in nodes]


def _point(leaves: Mapping[str, Tensor], wrt: tuple[str, ...]) -> dict[str, Tensor]:
    return {name: leaf.detach().clone().requires_grad_(name in wrt) for name, leaf in leaves.items()}


def _jacobian_faults(function: Function, leaves: Mapping[str, Tensor], wrt: tuple[str, ...]) -> tuple[int, bool] | None:
    """(entries that the patterns miss, whether they are exact); None where PyTorch refuses the derivative."""
    point = _point(leaves, wrt)
    torch.default_generator.manual_seed(0)
    try:
        outputs = function.call(*(point[name] for name in function.leaves))
        matrices = dense_rows(outputs, [point[name] for name in wrt])
    except REFUSALS:
        return None
    outside, inside, there = missing(traced(function, leaves, wrt), matrices)
    return outside, inside == there


def _hessian_faults(function: Function, leaves: Mapping[str, Tensor], wrt: tuple[str, ...]) -> tuple[int, bool] | None:
    """The same of the gradient of a weighted sum of the first real output that has one."""

    def total(*values: Tensor) -> tuple[Tensor, ...]:
        torch.default_generator.manual_seed(0)
        output = next(o for o in function.call(*values) if o.requires_grad and not o.dtype.is_complex)
        return ((output * torch.linspace(0.5, 1.5, output.numel(), dtype=output.dtype).reshape(output.shape)).sum(),)

    scalar = replace(function, call=total, outputs=("output",))
    point = _point(leaves, wrt)
    inputs = [point[name] for name in wrt]
    try:
        (value,) = total(*(point[name] for name in function.leaves))
        first = torch.autograd.grad(value, inputs, create_graph=True, allow_unused=True)
        matrices = dense_rows(first, inputs)
    except (*REFUSALS, StopIteration):
        return None
    outside, inside, there = missing(traced_gradient(scalar, leaves, wrt, 0), matrices)
    return outside, inside == there


@pytest.mark.parametrize(("faults", "tight", "at_least"), [(_jacobian_faults, 0.75, 430), (_hessian_faults, 0.8, 400)])
def test_the_catalogue_misses_no_entry(faults: Any, tight: float, at_least: int) -> None:
    """And most patterns are exact: sound alone would be everything everywhere."""
    wrong, exact, count = [], 0, 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, function, leaves, wrt in _examples():
            result = faults(function, leaves, wrt)
            if result is None:
                continue
            count += 1
            exact += result[1]
            if result[0]:
                wrong.append((name, result[0]))
    assert not wrong
    assert count >= at_least
    assert exact >= tight * count, f"{exact} of {count}"


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128, torch.float32])
def test_the_samples_of_pytorch_miss_no_entry(dtype: torch.dtype) -> None:
    wrong, count = [], 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for case in itertools.islice(cases(differentiable_page, 2, dtype), 1, None, 2 if dtype == torch.float64 else 8):
            if isinstance(case, str):
                continue
            inputs = {name: tuple(value) if isinstance(value, list) else value for name, value in case.inputs.items()}
            try:
                function = build_operation(find(case.operation), inputs, case.parameters)
            except (PullbackError, *REFUSALS):
                continue
            leaves = {}
            for name, value in inputs.items():
                leaves.update({f"{name}.{k}": t for k, t in enumerate(value)} if isinstance(value, tuple) else {name: value})
            wrt = tuple(n for n in function.leaves if leaves[n].dtype.is_floating_point or leaves[n].dtype.is_complex)
            if not wrt or sum(value.numel() for value in (*leaves.values(), *_outputs(function))) > SMALL:
                continue
            result = _jacobian_faults(function, leaves, wrt)
            count += result is not None
            if result is not None and result[0]:
                wrong.append((case.operation, case.number, result[0]))
    assert not wrong
    assert count > (200 if dtype == torch.float64 else 25)


_STEPS = (
    "{a} * {b}", "{a} + {b}", "{a} - {b}.roll(1, 0)", "{a}.flip(1)", "tanh({a})", "relu({a})", "{a}[1:].sum(0) + {b}",
    "softmax({a}, dim=1)", "{a}.cumsum(0)", "cat([{a}[:1], {b}[1:]])", "where({a} > 0, {a}, {b})", "{a} @ {b}.T @ {b}",
    "{a}.sort(0)[0]", "{a} / (1 + {b}.mean())", "maximum({a}, {b})", "{a}.T.reshape(3, 4)", "tril({a}) + {b}",
    "{a}.amax(1, keepdim=True) * {b}", "stack([{a}, {b}]).sum(0)", "clamp({a}, -0.5, 0.5)", "{a}[:, [2, 0, 1, 3]]",
    "{a}.gather(0, {b}.argsort(0))", "nn.functional.pad({a}, (1, 0))[:, :4]", "exp({a} - 1000) + {b}",
    "({a}.unsqueeze(0) * ones(2, 1, 1)).prod(0)", "{a} * ({b} > 0)", "{a}.detach() * {b}", "nn.functional.layer_norm({a}, [4])",
    "{a}.unfold(1, 2, 1).sum(2).sum(1, keepdim=True) + {b}", "linalg.vector_norm({a}, dim=0) * {b}",
)  # fmt: skip


def _random_program(generator: np.random.Generator) -> str:
    names = ["x", "y"]
    lines = []
    for number in range(int(generator.integers(2, 7))):
        step = _STEPS[int(generator.integers(len(_STEPS)))]
        a, b = (names[int(generator.integers(max(0, len(names) - 3), len(names)))] for _ in range(2))
        lines.append(f"s{number} = {step.format(a=a, b=b)}")
        names.append(f"s{number}")
    return "\n".join([*lines, f"return {names[-1]} + 0 * {names[-2]}"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_random_programs_miss_no_entry(dtype: torch.dtype) -> None:
    generator = np.random.default_rng(3)
    count = 0
    for _ in range(25):
        text = _random_program(generator)
        leaves = {name: torch.from_numpy(generator.standard_normal((3, 4))).to(dtype) for name in ("x", "y")}
        function = build_program(text, leaves, {}, dtype)
        for faults in (_jacobian_faults, _hessian_faults):
            result = faults(function, leaves, ("x", "y"))
            count += result is not None
            assert result is None or not result[0], text
    assert count > 40


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("relu(x - 100) + x.flip(0) * 0", 8),
        ("x * exp(y - 1000)", 4),
        ("where(x > 0, x, x.flip(0))", 8),
        ("fmax(x, x.flip(0) - 100)", 8),
        ("nansum(stack([x, x.flip(0)]), 0)", 8),
        ("x.detach() + x.flip(0)", 4),
        ("(diag(x) * tril(ones(4, 4))).sum(0)", 4),
        ("zeros_like(x) + floor(x) + sign(x)", 0),
        ("x.expand(3, 4)[1]", 4),
        ("x.scatter(0, arange(4) // 2, y * x)", 6),
        ("index_put(x * 0 + 1, [arange(4) // 2], x.flip(0))", 6),
        ("t = zeros(4, 4)\nreturn diagonal_scatter(t, x).sum(1)", 4),
        ("(eye(4) * 2.0) @ x", 4),
        ("nn.functional.conv2d(x.reshape(1, 1, 2, 2), k, padding=1).reshape(4)", 12),
    ],
)
def test_known_traps(text: str, entries: int) -> None:
    """The derivative is zero at this point, or everywhere by a constant; the pattern says what can be."""
    leaves = {
        "x": torch.tensor([1.0, 2.0, -3.0, 4.0], dtype=torch.float64),
        "y": torch.ones(4, dtype=torch.float64),
        "k": torch.tensor([[[[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]]], dtype=torch.float64),
    }
    function = build_program(text, leaves, {}, torch.float64)
    (one,) = traced(function, leaves, ("x",))
    assert one.pattern.matrix is not None
    assert one.pattern.matrix.nnz == entries
