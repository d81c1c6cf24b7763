"""Sizes that only values decide are reckoned before anything of them is made."""

from __future__ import annotations

import resource
from typing import Any

import numpy as np
import pytest
import torch

from app.catalogue.kernels.unsafe_values import UnsafeValuesError
from app.engine.planning import value_sizes
from app.errors import PullbackError
from tests.engine.asking import ask, results

HUGE: tuple[tuple[dict[str, Any], str], ...] = (
    ({"operation": "bincount", "inputs": {"input": np.array([1, 10**9])}}, "inputs.input"),
    ({"operation": "bincount", "inputs": {"input": np.array([1])}, "parameters": {"minlength": 10**9}}, "parameters.minlength"),
    ({"operation": "repeat_interleave", "inputs": {"input": np.ones(2), "repeats": np.array([10**9, 5])}}, "inputs.repeats"),
    ({"operation": "nn.functional.one_hot", "inputs": {"input": np.array([0, 10**9])}}, "inputs"),
    ({"operation": "bincount", "inputs": {"input": np.array([[1, 2], [1, 10**9]])}, "batched": ("input",)}, "inputs.input"),
    ({"program": "y = x * 2\nreturn repeat_interleave(y, n)", "inputs": {"x": np.ones(2), "n": np.array([10**9, 5])}}, "2:8"),
    ({"program": "zeros(n.max().item()) + x.sum()", "inputs": {"x": np.ones(3), "n": np.array([10**10])}}, "1:1"),
    ({"program": "x.repeat(int(n))", "inputs": {"x": np.ones(3), "n": np.array(10**9)}}, "1:1"),
    ({"program": "eye(int(n)) @ x", "inputs": {"x": np.ones(3), "n": np.array(10**6)}}, "1:1"),
    ({"program": "bincount(n) * x[0]", "inputs": {"x": np.ones(2), "n": np.array([10**10])}, "want": ("gradient",)}, "1:1"),
)


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize(("query", "at"), HUGE)
def test_a_huge_result_is_refused_from_the_values(query: dict[str, Any], at: str) -> None:
    before = peak_bytes()
    with pytest.raises(PullbackError) as refusal:
        ask(**query)
    error = refusal.value
    assert (error.code, error.at) == ("too_costly", at)
    assert error.expected
    assert error.given
    assert error.fix
    assert peak_bytes() - before < 1 << 30


def test_samples_whose_values_decide_other_sizes_are_refused() -> None:
    with pytest.raises(PullbackError) as refusal:
        ask(operation="bincount", inputs={"input": np.array([[1, 2], [1, 7]])}, batched=("input",))
    assert refusal.value.code == "shape_mismatch"
    assert refusal.value.given == "[8]"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"operation": "bincount", "inputs": {"input": np.array([0, 3, 3])}}, [1, 0, 0, 2]),
        ({"operation": "bincount", "inputs": {"input": np.array([[0, 1], [1, 1]])}, "batched": ("input",)}, [[1, 1], [0, 2]]),
        ({"program": "repeat_interleave(x, n)", "inputs": {"x": np.array([1.0, 2.0]), "n": np.array([2, 1])}}, [1, 1, 2]),
        ({"operation": "masked_select", "inputs": {"input": np.array([1.0, 2.0]), "mask": np.array([False, True])}}, [2]),
        ({"program": "x[n > 1] * 2", "inputs": {"x": np.array([1.0, 2.0]), "n": np.array([1, 2])}}, [4]),
        ({"operation": "unique", "inputs": {"input": np.array([2.0, 1.0, 2.0])}}, [1, 2]),
        ({"operation": "nonzero", "inputs": {"input": np.array([0.0, 3.0])}}, [[1]]),
    ],
)
def test_sizes_of_values_that_fit_are_answered(query: dict[str, Any], expected: Any) -> None:
    outputs = results(want=("outputs",), **query)["outputs"]
    np.testing.assert_array_equal(next(iter(outputs.values())), expected)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The operators that are asked for the shapes of their results."""
    asked, by_shapes = list[Any](), value_sizes._by_shapes

    def looked(*args: Any) -> Any:
        asked.append(args[0])
        return by_shapes(*args)

    monkeypatch.setattr(value_sizes, "_by_shapes", looked)
    return asked


def test_shapes_tell_once_for_all_calls_of_the_same_ones(looks: list[Any]) -> None:
    x = torch.ones(3)
    with value_sizes.LimitedCounter(200) as counter:
        for _ in range(3):
            x = x.cumsum(0)
        x[None].cumsum(0)
        with pytest.raises(UnsafeValuesError, match=r"\[4, 10\]"):
            torch.ones(4, 10)
    assert len(looks) == 3
    assert counter.bytes == 48


def test_a_mistake_of_pytorch_in_shapes_alone_refuses_nothing() -> None:
    """Its shapes of an LSTM cell, which GPUs alone have, ask the biases for their device even where there are none (2.13.0)."""
    gates, state = torch.zeros(1, 8), torch.zeros(1, 2)
    operator = torch.ops.aten._thnn_fused_lstm_cell.default
    with pytest.raises(AttributeError):
        operator(gates.to("meta"), gates.to("meta"), state.to("meta"))
    assert value_sizes.result_size(operator, (gates, gates, state), {}) is None


def test_a_small_pointwise_step_is_not_looked_at_and_a_large_one_is(looks: list[Any]) -> None:
    row = torch.ones(100)
    with value_sizes.LimitedCounter(4000):
        torch.addcmul(row[:3], row[:3], row[:3]).clamp(0.0)
        assert not looks
        row * row[:, None][:5]
        assert len(looks) == 1
        with pytest.raises(UnsafeValuesError, match=r"\[100, 100\]"):
            row * row[:, None]
