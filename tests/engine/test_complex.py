"""Complex functions: Jacobians are ∂f/∂z of holomorphic ones, gradients are PyTorch's conjugate Wirtinger derivatives."""

from __future__ import annotations

import numpy as np
import pytest

from tests.engine.asking import ask, results

Z = np.array([0.5 + 1.0j, -1.0 + 0.25j])


def test_the_jacobian_of_a_holomorphic_function() -> None:
    found = results(
        operation="exp",
        inputs={"input": Z},
        want=["jacobian", "jvp", "vjp"],
        tangent={"input": [1j, 2.0]},
        cotangent={"output": [1j, 2.0]},
    )
    np.testing.assert_allclose(found["jacobian"]["output"]["input"], np.diag(np.exp(Z)), atol=1e-14)
    np.testing.assert_allclose(found["jvp"]["output"], np.exp(Z) * [1j, 2.0])
    np.testing.assert_allclose(found["vjp"]["input"], np.conj(np.exp(Z)) * [1j, 2.0])


def test_the_jacobian_of_the_fourier_transform_is_its_matrix() -> None:
    n = 5
    found = results(operation="fft.fft", inputs={"input": np.arange(n) * 0.1}, want=["jacobian"])
    k = np.arange(n)
    np.testing.assert_allclose(found["jacobian"]["output"]["input"], np.exp(-2j * np.pi * np.outer(k, k) / n), atol=1e-13)


def test_the_gradient_of_a_real_loss_points_uphill() -> None:
    """L = |z|² has the conjugate Wirtinger gradient 2z (PyTorch's convention), and the note says so."""
    answer = ask(program="(z * conj(z)).real.sum()", inputs={"z": Z}, want=["gradient"])
    np.testing.assert_allclose(np.frombuffer(answer.results["gradient"]["z"].data, complex), 2 * Z)
    assert "complex" in [note.code for note in answer.notes]


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_every_complex_dtype(dtype: str) -> None:
    found = results(operation="sin", inputs={"input": Z.astype(dtype)}, want=["outputs", "vjp"])
    assert found["outputs"]["output"].dtype == found["vjp"]["input"].dtype == dtype
