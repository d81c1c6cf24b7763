"""Random programs in every form: PyTorch's rows, one at a time, and difference quotients beside them; claims tried at other points."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from app.query import SparseData
from tests.engine.asking import Array, array, ask, whole
from tests.oracle.structured_programs import SCALARS, SIZE, complex_program, in_python, looking_program, real_program

PROGRAMS = 40
FORMS = ("auto", "sparse", "diagonal")
# What rounding leaves of terms that cancel, as a share of the row's largest entry.
DUST = 1e-13


@pytest.fixture(autouse=True)
def doubles() -> Iterator[None]:
    """The programs' own factories make float64 in Python too, as the engine's do of float64 inputs."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def rows(output: Tensor, x: Tensor) -> Array:
    matrix = np.zeros((output.numel(), x.numel()))
    if output.requires_grad:
        for number, element in enumerate(output.reshape(-1)):
            (gradient,) = torch.autograd.grad(element, x, retain_graph=True, allow_unused=True)
            if gradient is not None:
                matrix[number] = gradient.detach().numpy()
    return matrix


def right(text: str, point: Array, weights: Array, want: str) -> Array | None:
    """None where PyTorch refuses."""
    x = torch.tensor(point, requires_grad=True)
    try:
        y = in_python(text)(x)
        if want == "jacobian":
            return rows(y, x)
        first = torch.autograd.grad((y * torch.tensor(weights)).sum(), x, create_graph=True)[0]
        return rows(first, x)
    except RuntimeError:
        return None


def assert_rows(got: Array, expected: Array, scale: Array, text: str) -> None:
    """Each row by its own size; where PyTorch's row has 0 · ∞ an exact zero is as right."""
    largest = np.where(np.isfinite(scale), np.abs(scale), 0).max(1, keepdims=True)
    finite = np.isfinite(expected)
    assert (np.isfinite(got) | ~finite).all(), text
    assert (np.abs(np.where(finite, got - expected, 0)) <= 1e-9 * largest).all(), f"{text}\n{got}\n{expected}"


@pytest.mark.parametrize("want", ["jacobian", "hessian"])
@pytest.mark.parametrize("seed", range(PROGRAMS))
@pytest.mark.share(4, of="want")
def test_a_real_program(seed: int, want: str) -> None:
    assert_forms(real_program(seed), seed, want)


@pytest.mark.parametrize("seed", range(PROGRAMS // 4))
def test_a_program_that_looks_at_values(seed: int) -> None:
    assert_forms(looking_program(seed), seed, "hessian" if seed % 2 else "jacobian")


@pytest.mark.parametrize("text", SCALARS)
def test_a_hessian_of_a_class(text: str) -> None:
    assert_forms(text.format(x="x"), SCALARS.index(text), "hessian", forms=("auto", "diagonal"), special_first=True)


def assert_forms(text: str, seed: int, want: str, forms: Sequence[str] = FORMS, *, special_first: bool = False) -> None:
    """At four points: each form holds PyTorch's rows, and what it says of other points holds at them.

    `special_first`: at two points, of which the first has zeros.
    """
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=SIZE)
    points = [rng.normal(size=SIZE) for _ in range(2)]
    points += [np.where(points[0] > 0.3, 0.0, points[0]), -np.abs(points[1])]
    points = [points[2], points[1]] if special_first else points
    if want == "hessian":
        lines = text.split("\n")
        asked = "\n".join([*lines[:-1], f"return ({lines[-1].removeprefix('return ')} * w).sum()"])
    else:
        asked = text
    matrices = [right(text, point, weights, want) for point in points]
    for form in forms:
        patterns = []
        for point, matrix in zip(points, matrices, strict=True):
            if matrix is None:
                continue
            inputs = {"x": point} if want == "jacobian" else {"x": point, "w": weights}
            answer = ask(program=asked, inputs=inputs, want=(want,), format=form, wrt=("x",))
            result = answer.results[want]["output" if want == "jacobian" else "x"]["x"]
            came = next(iter(answer.plan["formats"].values()))
            partial = "not_diagonal" in {note.code for note in answer.notes}
            got = whole(result, came, (SIZE, SIZE))
            assert_rows(got, np.diag(np.diag(matrix)) if partial else matrix, matrix, f"{form} of\n{asked}\nat {point}")
            patterns.append(_claimed(result, came, partial, {note.code for note in answer.notes}))
        for claimed in patterns:
            for matrix in matrices:
                if claimed is not None and matrix is not None:
                    sizes = np.nan_to_num(np.abs(matrix))
                    assert not ((sizes > DUST * sizes.max(1, keepdims=True)) & ~claimed).any(), f"not everywhere: {asked}"


def _claimed(result: Any, came: str, partial: bool, codes: set[str]) -> Array | None:
    """Where an answer says that entries can be, at any point; None where it says nothing of other points."""
    if came == "diagonal" and not partial and not {"here", "branch"} & codes:
        return np.eye(SIZE, dtype=bool)
    if isinstance(result, SparseData) and result.holds == "everywhere":
        pattern = np.zeros((SIZE, SIZE), dtype=bool)
        pattern[tuple(array(result.indices))] = True
        return pattern
    return None


def quotients(text: str, point: Array) -> tuple[Array, Array]:
    """(∂f/∂z, ∂f/∂z̄) by central differences; of a real input the derivative, and zeros."""
    program, step = in_python(text), 1e-6

    def along(direction: Array) -> Array:
        ahead, behind = (program(torch.tensor(point + sign * step * direction)) for sign in (1, -1))
        quotient: Array = ((ahead - behind) / (2 * step)).reshape(-1).numpy()
        return quotient

    by_real = np.stack([along(unit) for unit in np.eye(SIZE)], 1)
    if not np.iscomplexobj(point):
        return by_real, np.zeros_like(by_real)
    by_imaginary = np.stack([along(1j * unit) for unit in np.eye(SIZE)], 1)
    return (by_real - 1j * by_imaginary) / 2, (by_real + 1j * by_imaginary) / 2


@pytest.mark.parametrize("seed", range(PROGRAMS))
def test_a_complex_program(seed: int) -> None:
    rng = np.random.default_rng(seed)
    text = complex_program(seed)
    x = rng.normal(size=SIZE) + (1j * rng.normal(size=SIZE) if "complex(x, x.flip(0))" not in text else 0)
    expected = quotients(text, x)
    shape = (*in_python(text)(torch.tensor(x)).shape, SIZE)
    for form in ("dense", "auto", "sparse"):
        answer = ask(program=text, inputs={"x": x}, want=("jacobian",), format=form)
        result = answer.results["jacobian"]["output"]["x"]
        came = answer.plan["formats"]["jacobian.output.x"] if form != "dense" or "formats" in answer.plan else "dense"
        pair = (result["z"], result["conj_z"]) if isinstance(result, Mapping) else (result, None)
        for one, quotient in zip(pair, expected, strict=True):
            got = np.zeros_like(quotient) if one is None else whole(one, came, shape, len(shape) - 1).reshape(-1, SIZE)
            largest = max(1.0, *(float(np.abs(each).max()) for each in expected))
            np.testing.assert_allclose(got, quotient, 1e-5, 1e-6 * largest, err_msg=f"{form} of\n{text}")
