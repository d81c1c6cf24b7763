"""What normalisation in training leaves in its buffers, beside PyTorch's own modules."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from app.errors import PullbackError
from tests.engine.asking import results

X = np.random.default_rng(0).normal(size=(5, 3, 4))


@pytest.mark.parametrize(
    ("layer", "make"),
    [
        ("nn.BatchNorm1d(3)", lambda: nn.BatchNorm1d(3)),
        ("nn.BatchNorm1d(3, momentum=None)", lambda: nn.BatchNorm1d(3, momentum=None)),
        ("nn.BatchNorm1d(3, momentum=0.7, affine=False)", lambda: nn.BatchNorm1d(3, momentum=0.7, affine=False)),
        ("nn.InstanceNorm1d(3, track_running_stats=True)", lambda: nn.InstanceNorm1d(3, track_running_stats=True)),
        ("nn.BatchNorm1d(3, track_running_stats=False)", lambda: nn.BatchNorm1d(3, track_running_stats=False)),
    ],
)
def test_evaluation_after_training(layer: str, make: Any) -> None:
    norm = make().double()
    x = torch.tensor(X, requires_grad=True)
    for k in range(3):
        norm(x * (k + 1))
    norm.eval()
    wanted = norm(x) ** 2
    wanted.sum().backward()
    text = f"norm = {layer}\nfor k in range(3):\n    norm(x * (k + 1))\nnorm.eval()\nnorm(x) ** 2"
    answer = results(program=text, inputs={"x": X}, want=("outputs", "vjp"), wrt=("x",), seed=0)
    np.testing.assert_allclose(answer["outputs"]["output"], wanted.detach(), 1e-10, 1e-12)
    assert x.grad is not None
    np.testing.assert_allclose(answer["vjp"]["x"], x.grad, 1e-10, 1e-12)


@pytest.mark.parametrize(
    "reading",
    ["norm.running_var", "norm.state_dict()['running_var']", "list(norm.buffers())[1]", "copy.deepcopy(norm).running_var"],
)
def test_buffers_are_read_after_training(reading: str) -> None:
    norm = nn.BatchNorm1d(3).double()
    norm(torch.tensor(X))
    norm(torch.tensor(2 * X))
    wanted = eval(reading, {"norm": norm, "copy": copy})  # noqa: S307 (a text of this test)
    text = f"norm = nn.BatchNorm1d(3)\nnorm(x)\nnorm(2 * x)\n{reading} * 1"
    np.testing.assert_allclose(results(program=text, inputs={"x": X}, seed=0)["outputs"]["output"], wanted, 1e-10)


def test_what_is_sent_is_where_training_begins() -> None:
    norm = nn.BatchNorm1d(3).double()
    norm.running_mean.fill_(2.0)  # type: ignore[union-attr]
    norm(torch.tensor(X))
    wanted = norm.eval()(torch.tensor(X))
    text = "norm = nn.BatchNorm1d(3)\nnorm(x)\nnorm.eval()\nnorm(x)"
    sent = {"x": X, "norm.running_mean": np.full(3, 2.0)}
    np.testing.assert_allclose(results(program=text, inputs=sent, seed=0)["outputs"]["output"], wanted.detach(), 1e-10)


@pytest.mark.parametrize(
    ("taken", "read"),
    [
        ("m = norm.running_mean", "m"),
        ("m = norm.state_dict()", "m['running_mean']"),
        ("m = dict(norm.named_buffers())", "m['running_mean']"),
        ("norm(x)\nm = norm.state_dict()", "m['running_mean']"),
    ],
)
def test_a_buffer_under_another_name_is_the_buffer(taken: str, read: str) -> None:
    norm = nn.BatchNorm1d(3).double()
    names: dict[str, Any] = {"norm": norm, "x": torch.tensor(X)}
    exec(f"{taken}\nnorm(2 * x)\nnorm(x)", names)  # noqa: S102 (a text of this test)
    wanted = eval(read, names)  # noqa: S307
    text = f"norm = nn.BatchNorm1d(3)\n{taken}\nnorm(2 * x)\nnorm(x)\n{read} * 1"
    np.testing.assert_allclose(results(program=text, inputs={"x": X}, seed=0)["outputs"]["output"], wanted, 1e-10)


_FUNCTION = "m = torch.zeros(3)\nv = torch.ones(3)\nF = torch.nn.functional\n"


@pytest.mark.parametrize(
    "reading",
    [
        "F.batch_norm(x, m, v, training=True)\nF.batch_norm(x, m, v)",
        "F.batch_norm(x, m, v, None, None, True)\nm.sum()",
        "part = m[:1]\nF.batch_norm(x, m, v, training=True)\npart * 2",
        "F.batch_norm(x, running_mean=m, running_var=v, training=True)\nv",
        "norm = nn.BatchNorm1d(3)\nF.batch_norm(x, norm.running_mean, norm.running_var, training=True)\nnorm.eval()\nnorm(x)",
    ],
)
def test_statistics_that_the_function_changed_are_refused_where_they_are_read(reading: str) -> None:
    with pytest.raises(PullbackError, match="changed these running statistics") as refused:
        results(program=_FUNCTION + reading, inputs={"x": X}, seed=0)
    assert "nn.BatchNorm1d" in str(refused.value.fix)


def test_statistics_of_the_function_that_nothing_reads_afterwards_are_left_alone() -> None:
    sent = {"x": X, "m": np.zeros(3), "v": np.ones(3)}
    text = "before = m.sum()\nfor k in range(3):\n    y = torch.nn.functional.batch_norm(x, m, v, training=True)\n(y ** 3 + before).sum()"
    answer = results(program=text, inputs=sent, want=("outputs", "gradient"), wrt=("x",))
    x = torch.tensor(X, requires_grad=True)
    wanted = (nn.functional.batch_norm(x, None, None, training=True) ** 3).sum()
    (grad,) = torch.autograd.grad(wanted, x)
    np.testing.assert_allclose(answer["outputs"]["output"], wanted.detach(), 1e-10, 1e-12)
    np.testing.assert_allclose(answer["gradient"]["x"], grad, 1e-10, 1e-10)
