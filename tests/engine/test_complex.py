"""Complex functions: Jacobians are ∂f/∂z of holomorphic ones, gradients are PyTorch's conjugate Wirtinger derivatives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from app.query import SparseData
from tests.engine.asking import array, ask, results, whole

Z = np.array([0.5 + 1.0j, -1.0 + 0.25j])


def test_the_jacobian_of_a_holomorphic_function() -> None:
    answered = results(
        operation="exp",
        inputs={"input": Z},
        want=["jacobian", "jvp", "vjp"],
        tangent={"input": [1j, 2.0]},
        cotangent={"output": [1j, 2.0]},
    )
    np.testing.assert_allclose(answered["jacobian"]["output"]["input"], np.diag(np.exp(Z)), atol=1e-14)
    np.testing.assert_allclose(answered["jvp"]["output"], np.exp(Z) * [1j, 2.0])
    np.testing.assert_allclose(answered["vjp"]["input"], np.conj(np.exp(Z)) * [1j, 2.0])


def test_the_jacobian_of_the_fourier_transform_is_its_matrix() -> None:
    n = 5
    answered = results(operation="fft.fft", inputs={"input": np.arange(n) * 0.1}, want=["jacobian"])
    k = np.arange(n)
    np.testing.assert_allclose(answered["jacobian"]["output"]["input"], np.exp(-2j * np.pi * np.outer(k, k) / n), atol=1e-13)


def test_the_gradient_of_a_real_loss_points_uphill() -> None:
    """L = |z|² has the conjugate Wirtinger gradient 2z (PyTorch's convention), and the note says so."""
    answer = ask(program="(z * conj(z)).real.sum()", inputs={"z": Z}, want=["gradient"])
    np.testing.assert_allclose(np.frombuffer(answer.results["gradient"]["z"].data, complex), 2 * Z)
    assert "complex" in [note.code for note in answer.notes]


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_every_complex_dtype(dtype: str) -> None:
    answered = results(operation="sin", inputs={"input": Z.astype(dtype)}, want=["outputs", "vjp"])
    assert answered["outputs"]["output"].dtype == answered["vjp"]["input"].dtype == dtype


# --- ∂f/∂z and ∂f/∂z̄ ---------------------------------------------------------------------------------------------------

# Program of z, its two derivatives as matrices over flattened output and input, by hand.
W = np.array([[1.0 + 2.0j, 0.5], [-1.0j, 2.0]])
PAIRS = [
    ("z.conj()", lambda z: (np.zeros((2, 2)), np.eye(2))),
    ("z * z.conj()", lambda z: (np.diag(z.conj()), np.diag(z))),
    ("z.real", lambda z: (np.eye(2) / 2, np.eye(2) / 2)),
    ("z.imag", lambda z: (np.eye(2) / 2j, -np.eye(2) / 2j)),
    ("abs(z)", lambda z: (np.diag(z.conj() / abs(z) / 2), np.diag(z / abs(z) / 2))),
    ("z.abs() ** 2", lambda z: (np.diag(z.conj()), np.diag(z))),
    ("z.angle()", lambda z: (np.diag(-0.5j / z), np.diag(0.5j / z.conj()))),
    ("view_as_real(z)[:, 1]", lambda z: (np.eye(2) / 2j, -np.eye(2) / 2j)),
    ("exp(z) + z.conj().flip(0)", lambda z: (np.diag(np.exp(z)), np.eye(2)[::-1])),
    ("(z * z.conj()).sum().real.reshape(1)", lambda z: (z.conj()[None], z[None])),
    ("complex(z.imag, z.real)", lambda z: (np.zeros((2, 2)), 1j * np.eye(2))),
]
SINGLE = [
    ("exp(z)", lambda z: np.diag(np.exp(z))),
    ("z * z", lambda z: np.diag(2 * z)),
    ("z.conj().conj() * 2", lambda z: 2 * np.eye(2)),
    ("z.conj().exp().conj()", lambda z: np.diag(np.exp(z))),
    ("z ** 3 / z.sum()", lambda z: np.diag(3 * z**2 / z.sum()) - np.outer(z**3, np.ones(2)) / z.sum() ** 2),
    ("fft.fft(z)", lambda z: np.array([[1, 1], [1, -1.0]])),
    ("w @ z", lambda z: W),
    ("linalg.solve(w, z)", lambda z: np.linalg.inv(W)),
    ("sin(z).flip(0)", lambda z: np.diag(np.cos(z))[::-1]),
    ("where(z.real > 0, z * 2, z * 3)", lambda z: np.diag(np.where(z.real > 0, 2.0, 3.0))),
    ("z.cumsum(0)", lambda z: np.tril(np.ones((2, 2)))),
    ("mm(w.mH, z.reshape(2, 1)).reshape(2)", lambda z: W.conj().T),
]


@pytest.mark.parametrize("wanted", ["dense", "auto", "sparse"])
@pytest.mark.parametrize(("program", "expected"), PAIRS, ids=[program for program, _ in PAIRS])
def test_what_is_not_holomorphic_has_two_derivatives(program: str, expected: Any, wanted: str) -> None:
    answer = ask(program=program, inputs={"z": Z}, want=["jacobian"], format=wanted)
    pair = answer.results["jacobian"]["output"]["z"]
    assert set(pair) == {"z", "conj_z"}
    form = "dense" if wanted == "dense" else answer.plan["formats"]["jacobian.output.z"]
    for name, matrix in zip(("z", "conj_z"), expected(Z), strict=True):
        np.testing.assert_allclose(whole(pair[name], form, matrix.shape), matrix, atol=1e-14)
        assert isinstance(pair[name], SparseData) == (form == "sparse")
    assert "not_holomorphic" in [note.code for note in answer.notes]


@pytest.mark.parametrize("wanted", ["dense", "auto", "sparse", "diagonal"])
@pytest.mark.parametrize(("program", "expected"), SINGLE, ids=[program for program, _ in SINGLE])
def test_what_is_holomorphic_has_one(program: str, expected: Any, wanted: str) -> None:
    inputs = {"z": Z, "w": W} if "w" in program.replace("where", "") else {"z": Z}
    answer = ask(program=program, inputs=inputs, wrt=("z",), want=["jacobian"], format=wanted)
    result = answer.results["jacobian"]["output"]["z"]
    form = "dense" if wanted == "dense" else answer.plan["formats"]["jacobian.output.z"]
    if form == "diagonal":
        np.testing.assert_allclose(array(result), np.diag(expected(Z)), atol=1e-14)
    else:
        np.testing.assert_allclose(whole(result, form, (2, 2)), expected(Z), atol=1e-14)
    assert "not_holomorphic" not in [note.code for note in answer.notes]


def test_one_input_may_be_conjugated_and_the_other_not() -> None:
    answer = ask(program="a * b.conj()", inputs={"a": Z, "b": Z + 1}, want=["jacobian"])
    by = answer.results["jacobian"]["output"]
    np.testing.assert_allclose(array(by["a"]), np.diag((Z + 1).conj()))
    np.testing.assert_allclose(array(by["b"]["conj_z"]), np.diag(Z))
    assert not array(by["b"]["z"]).any()


@pytest.mark.parametrize("wanted", ["dense", "auto", "sparse"])
@pytest.mark.parametrize("program", ["fft.fft(x)", "fft.rfft(x)", "exp(x * 1j)", "complex(x, x.flip(0))", "(x * 1j).cumsum(0)"])
def test_a_complex_function_of_real_numbers_keeps_its_imaginary_part(program: str, wanted: str) -> None:
    x = np.array([0.3, -1.2, 0.7, 2.0])
    answer = ask(program=program, inputs={"x": x}, want=["outputs", "jacobian"], format=wanted)
    shape = (*answer.results["outputs"]["output"].shape, 4)
    form = "dense" if wanted == "dense" else answer.plan["formats"]["jacobian.output.x"]
    answered = whole(answer.results["jacobian"]["output"]["x"], form, shape)
    step = 1e-6
    for column in range(4):
        ahead, behind = (
            array(ask(program=program, inputs={"x": x + sign * step * np.eye(4)[column]}).results["outputs"]["output"])
            for sign in (1, -1)
        )
        np.testing.assert_allclose(answered[:, column], (ahead - behind) / (2 * step), atol=1e-8)


@pytest.mark.parametrize("wanted", ["dense", "sparse"])
def test_the_samples_of_a_batch_have_pairs_too(wanted: str) -> None:
    z = np.stack([Z, Z + 1j])
    pair = ask(program="z * z.conj()", inputs={"z": z}, want=["jacobian"], batched=("z",), format=wanted).results["jacobian"]
    for name, entries in (("z", z.conj()), ("conj_z", z)):
        result = pair["output"]["z"][name]
        expected = np.stack([np.diag(row) for row in entries])
        np.testing.assert_allclose(whole(result, wanted, (2, 2, 2)), expected)


@pytest.mark.parametrize("wanted", ["dense", "auto", "sparse"])
def test_the_hessian_of_a_real_function_of_complex_numbers(wanted: str) -> None:
    """L = Σ|z|⁴ + Re(z₀·z₁): g = 2·∂L/∂z̄ = 4·z·|z|² + (z̄₁, z̄₀), so ∂g/∂z = 8·|z|² on the diagonal and ∂g/∂z̄ = 4·z² and ones beside it."""
    answer = ask(
        program="(z.abs() ** 4).sum() + (z[0] * z[1]).real",
        inputs={"z": Z},
        want=["hessian", "hvp"],
        tangent={"z": [1j, 2]},
        format=wanted,
    )
    pair = answer.results["hessian"]["z"]["z"]
    form = "dense" if wanted == "dense" else answer.plan["formats"]["hessian.z.z"]
    first, second = (whole(pair[name], form, (2, 2)) for name in ("z", "conj_z"))
    np.testing.assert_allclose(first, np.diag(8 * abs(Z) ** 2), atol=1e-13)
    np.testing.assert_allclose(second, np.diag(4 * Z**2) + np.eye(2)[::-1], atol=1e-13)
    t = np.array([1j, 2])
    np.testing.assert_allclose(array(answer.results["hvp"]["z"]), first @ t + second @ t.conj(), atol=1e-13)


def test_products_agree_with_the_pair() -> None:
    """J·t = A·t + B·t̄ and vjp = Aᴴ·c + Bᵀ·c̄."""
    t, c = np.array([1j, 2.0 - 1j]), np.array([0.5 + 1j, -1j])
    answered = results(
        program="z * z.conj() + exp(z).flip(0)", inputs={"z": Z}, want=["jacobian", "jvp", "vjp"], tangent={"z": t},
        cotangent={"output": c},
    )  # fmt: skip
    a, b = answered["jacobian"]["output"]["z"]["z"], answered["jacobian"]["output"]["z"]["conj_z"]
    np.testing.assert_allclose(answered["jvp"]["output"], a @ t + b @ t.conj())
    np.testing.assert_allclose(answered["vjp"]["z"], a.conj().T @ c + b.T @ c.conj())
