"""Bessel functions: SciPy's values on the whole line, in place of PyTorch's, and no derivative, as there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special

from app.catalogue.better import bessel


@pytest.mark.parametrize("name", ["j0", "j1", "y0", "y1"])
def test_as_scipy_has_them(name: str) -> None:
    own: Callable[..., Any] = getattr(bessel, f"bessel_{name}")
    right, pytorch = getattr(special, name), getattr(torch.special, f"bessel_{name}")
    x = np.concatenate([np.linspace(1e-7, 60, 4001), [4.9999999, 5.0, 5.0000001, 40.0], -np.linspace(0.1, 60, 401)])
    tensor = torch.tensor(x)
    np.testing.assert_allclose(own(tensor).numpy(), right(x), rtol=1e-14, atol=2e-15)
    assert not np.allclose(pytorch(tensor).numpy(), right(x), rtol=1e-7, atol=1e-7, equal_nan=True), "PyTorch has mended them"
    ends = torch.tensor([0.0, -0.0, np.nan, np.inf, -np.inf], dtype=torch.float64)
    assert torch.equal(own(ends).nan_to_num(7.0), pytorch(ends).nan_to_num(7.0))
    narrow = own(tensor.float())
    assert narrow.dtype == torch.float32
    np.testing.assert_allclose(narrow.numpy(), right(tensor.float().double().numpy()), rtol=1e-5, atol=1e-6)
    assert not own(torch.ones(2, requires_grad=True)).requires_grad
    assert own(torch.tensor([1, 7])).dtype == torch.float32


def test_the_airy_function() -> None:
    x = np.concatenate([np.linspace(-30, 20, 2001), [-2.09, -2.0899999]])
    np.testing.assert_allclose(bessel.airy_ai(torch.tensor(x)).numpy(), special.airy(x)[0], rtol=1e-12, atol=1e-13)
    right = special.airy(x[:1116])[0]
    assert not np.allclose(torch.special.airy_ai(torch.tensor(x[:1116])).numpy(), right, rtol=1e-7, atol=1e-9), (
        "PyTorch has mended it"
    )
    ends = torch.tensor([0.0, -0.0, np.nan, np.inf, -np.inf], dtype=torch.float64)
    assert torch.equal(bessel.airy_ai(ends).nan_to_num(7.0), torch.special.airy_ai(ends).nan_to_num(7.0))
    assert not bessel.airy_ai(torch.ones(2, requires_grad=True)).requires_grad
    assert bessel.airy_ai(torch.tensor([1, -7])).dtype == torch.float32
