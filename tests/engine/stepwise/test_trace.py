"""A traced Function: which tensor depends on which input, picks of several outputs, lists of tensors, and one backward pass."""

from __future__ import annotations

import torch

from app.engine.stepwise.point import Point
from app.engine.stepwise.trace import StepTrace, trace_steps
from tests.engine.building import explained, program, tensors


def traced(text: str, **numbers: object) -> StepTrace:
    leaves = tensors(numbers)
    return trace_steps(Point(program(text, leaves), leaves, None))


def test_a_list_of_tensors_and_an_axis_are_no_pick() -> None:
    trace = traced("cat([x, y], 0)", x=[1.0, 2.0], y=[3.0])
    assert torch.equal(trace.values[trace.outputs[0]], torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    assert trace.live[trace.outputs[0]] == {"x", "y"}


def test_a_pick_is_no_step_of_its_own() -> None:
    trace = traced("values, places = sort(x)\nvalues * 2", x=[2.0, 1.0])
    assert len(trace.records) == 2
    assert [len(record.outputs) for record in trace.records] == [2, 1]
    assert trace.live[trace.records[0].refs()[1]] == frozenset()


def test_one_backward_pass_is_that_of_autograd() -> None:
    trace = traced("h = tanh(x) * y\n(h + x).sum()", x=[0.3, -0.2], y=[2.0, 5.0])
    reached = trace.backward({trace.outputs[0]: torch.ones((), dtype=torch.float64)})
    x = torch.tensor([0.3, -0.2], dtype=torch.float64)
    y = torch.tensor([2.0, 5.0], dtype=torch.float64)
    torch.testing.assert_close(reached[trace.leaves["x"]], (1 - torch.tanh(x) ** 2) * y + 1)
    torch.testing.assert_close(reached[trace.leaves["y"]], torch.tanh(x))


def test_a_slice_by_a_tensor_and_random_numbers_are_the_same_again() -> None:
    leaves = tensors({"x": [1.0, 2.0, 3.0, 4.0]})
    trace = trace_steps(Point(program("F.dropout(x[1:], 0.5, True)", leaves), leaves, 3))
    last = trace.records[-1]
    (again,) = trace.again(last, [tensor.detach() for tensor in last.inputs])
    assert torch.equal(again, last.outputs[0])


def test_a_step_that_refuses_two_arguments_passes_the_derivatives_of_the_others() -> None:
    inputs = explained(
        "nn.functional.batch_norm(x, m, v, w)",
        x=[[1.0, 2.0], [3.0, 5.0], [0.0, 1.0]],
        m=[0.5, 0.25],
        v=[1.0, 2.0],
        w=[1.0, 3.0],
    )["inputs"]
    assert {name: entry["verdict"] for name, entry in inputs.items()} == {
        "x": "differentiable", "w": "differentiable", "m": "disconnected", "v": "disconnected",
    }  # fmt: skip
