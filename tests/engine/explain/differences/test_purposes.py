"""explain of steps whose derivative is another than that of their value on purpose: it says so where that shows."""

from __future__ import annotations

from typing import Final

import pytest
import torch

from tests.engine.building import explained

_CTC: Final = "F.ctc_loss({}, tensor([[1]]), tensor([2]), tensor([1]))"
_QUANTIZED: Final = "fake_quantize_per_tensor_affine(x, 0.1, 0, -128, 127)"


@pytest.mark.parametrize(
    ("text", "shape", "words"),
    [
        (_CTC.format("x"), (2, 1, 3), "takes its input for the result of a log_softmax"),
        (_CTC.format("log_softmax(x, -1)"), (2, 1, 3), ""),
        (f"{_QUANTIZED} ** 2", (3,), "straight through its rounding"),
        ("w = F.gumbel_softmax(x, hard=True)\nw * tensor([1.0, 2.0, 4.0])", (1, 3), "passes the gradient of the soft choice"),
        ("F.gumbel_softmax(x)", (1, 3), ""),
        ("distributions.Gamma(x, 1.0).rsample()", (3,), "implicit reparameterisation"),
        ("distributions.Beta(x, 1 + x).rsample() ** 2", (3,), "implicit reparameterisation"),
        ("distributions.Exponential(x).rsample()", (3,), ""),
    ],
)
def test_a_convention_is_said_where_it_shows(text: str, shape: tuple[int, ...], words: str) -> None:
    x = torch.linspace(0.31, 1.27, shape[-1], dtype=torch.float64).expand(shape).clone()
    entry = explained(text, seed=1, x=x)["inputs"]["x"]
    assert entry["verdict"] == "differentiable"
    reasons = [
        finding["because"]["reason"] for finding in entry["findings"] if "zero in every" not in finding["because"]["reason"]
    ]
    assert bool(reasons) is bool(words)
    assert all(words in reason for reason in reasons)


def test_where_a_sampler_changes_its_steps_nothing_jumps() -> None:
    entry = explained("distributions.Dirichlet(x).rsample() ** 2", seed=1, x=[2.0, 1.0])["inputs"]["x"]
    assert entry["verdict"] == "differentiable"
