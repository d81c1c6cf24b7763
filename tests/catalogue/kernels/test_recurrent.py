"""Recurrent networks in a plan: a few steps count for all, and shapes, strides and values are PyTorch's."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from app.catalogue.kernels import recurrent
from app.catalogue.operator_mode import OperatorMode
from app.engine.planning.bounded_counter import BoundedCounter, UnboundedError
from app.engine.planning.cost import Counter
from tests.engine.asking import ask

NETWORKS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("GRU", {}),
    ("LSTM", {"num_layers": 2, "bidirectional": True}),
    ("RNN", {"batch_first": True, "nonlinearity": "relu"}),
)
STEPS = 40


def _tensors(result: Any) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else [tensor for member in result for tensor in _tensors(member)]


def _run(name: str, options: dict[str, Any], *, on_fakes: bool, counter: OperatorMode) -> list[Tensor]:
    torch.manual_seed(0)
    with FakeTensorMode() if on_fakes else contextlib.nullcontext(), torch.no_grad():
        network = getattr(torch.nn, name)(3, 4, **options, dtype=torch.float64)
        data = torch.randn((2, STEPS, 3) if "batch_first" in options else (STEPS, 2, 3), dtype=torch.float64)
        with counter:
            return _tensors(network(data))


@pytest.mark.parametrize("on_fakes", [True, False])
@pytest.mark.parametrize(("name", "options"), NETWORKS)
def test_few_steps_count_for_all(name: str, options: dict[str, Any], on_fakes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    some, every = Counter(), Counter()
    results = _run(name, options, on_fakes=on_fakes, counter=some)
    monkeypatch.setattr(recurrent, "_FEW", STEPS)
    expected = _run(name, options, on_fakes=on_fakes, counter=every)
    assert some.flops == pytest.approx(every.flops, rel=0.1)
    assert some.bytes == pytest.approx(every.bytes, rel=0.1)
    assert (some.largest, some.scratch) == (every.largest, every.scratch)
    for one, other in zip(results, expected, strict=True):
        assert (one.shape, one.stride(), one.dtype) == (other.shape, other.stride(), other.dtype)
        assert on_fakes or torch.equal(one, other)


def test_who_follows_the_steps_sees_all() -> None:
    class Seeing(OperatorMode):
        steps = 0

        def dispatch(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            self.steps += func is torch.ops.aten.tanh_.default
            return func(*args, **kwargs)

    seeing = Seeing()
    _run("GRU", {}, on_fakes=False, counter=seeing)
    assert seeing.steps == STEPS


def test_many_steps_are_not_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.engine.planning.bounded_counter.SMALL_BYTES", 8 * 2 * 4 * STEPS)
    with pytest.raises(UnboundedError):
        _run("GRU", {}, on_fakes=False, counter=BoundedCounter())


def test_over_the_service() -> None:
    """4 ms a step on fakes were half a minute."""
    answer = ask(program="return nn.GRU(3, 3)(torch.zeros(5000, 3))[0].shape", inputs={}, seed=0)
    assert answer.results["outputs"]
