"""What PyTorch computes together is confirmed by a single pass, and computed one by one where that says otherwise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from app.engine.autodiff.freivalds import UncertifiedError, certify, certify_sample, combined
from tests.engine.asking import array, ask, results


def test_the_jacobian_of_cdist_is_right_though_its_batched_backward_is_wrong() -> None:
    """∂|x-z|/∂x = (x-z)/|x-z|; under vmap PyTorch 2.13 gives another sign for some rows, without a word."""
    x, z = np.array([[0.3], [-1.2]]), np.array([[0.5], [-2.0], [1.5]])
    answer = ask(operation="cdist", inputs={"x1": x, "x2": z}, wrt=("x1",), want=["jacobian"])
    expected = np.zeros((2, 3, 2, 1))
    for i in range(2):
        expected[i, :, i, 0] = np.sign(x[i] - z[:, 0])
    np.testing.assert_allclose(array(answer.results["jacobian"]["output"]["x1"]), expected, atol=1e-14)


def test_a_wrong_row_is_seen() -> None:
    rows = torch.eye(4, dtype=torch.float64)
    certify((rows, None), (combined(rows), None))
    wrong = rows.clone()
    wrong[2, 1] = 1e-6
    with pytest.raises(UncertifiedError):
        certify((wrong,), (combined(rows),))
    with pytest.raises(UncertifiedError):
        certify((rows,), (None,))
    endless = rows.clone()
    endless[2, 1] = float("inf")
    with pytest.raises(UncertifiedError):
        certify((endless,), (combined(rows),))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_wrong_row_is_seen_in_half_precision(dtype: torch.dtype) -> None:
    rows = torch.eye(4, dtype=dtype)
    single = combined(rows)
    certify((rows,), (single * (1 + torch.finfo(dtype).eps),))
    rows[1, 2] = 0.5
    with pytest.raises(UncertifiedError):
        certify((rows,), (single,))


def test_the_first_sample_must_be_what_it_is_alone() -> None:
    tree = {"vjp": {"x": torch.tensor([[1.0, float("nan")], [3.0, 4.0]])}}
    certify_sample(tree, 0, {"vjp": {"x": torch.tensor([1.0, float("nan")])}})
    with pytest.raises(UncertifiedError):
        certify_sample(tree, 0, {"vjp": {"x": torch.tensor([1.5, float("nan")])}})


def test_a_jacobian_that_is_not_finite_is_given_row_by_row() -> None:
    jacobian = results(operation="sqrt", inputs={"input": [0.0, 4.0]}, want=["jacobian"])["jacobian"]["output"]["input"]
    np.testing.assert_array_equal(np.diag(jacobian), [np.inf, 0.25])
