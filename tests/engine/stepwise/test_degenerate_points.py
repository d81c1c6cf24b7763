"""Where a factorisation has no derivative a note says so, of single queries and of batches, and nowhere else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from app.catalogue.facts import values
from app.engine.stepwise.degenerate_points import SECOND_TESTS, TESTS
from app.query import Query
from tests.engine.asking import ENGINE, ask, data

RANK_1 = [[1.0, 2.0], [2.0, 4.0]]
RANK_2 = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]
# Of rank 1 and 2 too, their last pivot or eigenvalue 0 on some processors and 1e-17 on others.
ROUNDED_1 = [[0.1, 0.2], [0.3, 0.6]]
TALL = [[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]]
JORDAN = [[2.0, 1.0], [0.0, 2.0]]
NEARLY_JORDAN = [[2.0, 1.0], [1e-18, 2.0]]
EYE = [[1.0, 0.0], [0.0, 1.0]]
REGULAR = [[1.0, 2.0], [3.0, 5.0]]
# Program in x → matrices at which it has no derivative.
DEGENERATE: dict[str, list[Any]] = {
    "linalg.qr(x)[0]": [RANK_1, RANK_2, ROUNDED_1],
    "qr(x)[1]": [RANK_1, RANK_2, ROUNDED_1],
    "linalg.lu(x)[2]": [RANK_1, RANK_2, ROUNDED_1],
    "linalg.lu_factor_ex(x)[0]": [RANK_1, RANK_2, ROUNDED_1],
    "lu(x)[0]": [RANK_2],
    "linalg.eigvals(x).real.sum()": [JORDAN, NEARLY_JORDAN],
    "linalg.eig(x)[1].abs()": [JORDAN],
    "linalg.eigh(x)[1]": [EYE],
    "linalg.svd(x)[0]": [EYE],
    "U, S, Vh = linalg.svd(x)\nU @ Vh": [RANK_1, RANK_2, ROUNDED_1],
    "x.svd()[2]": [EYE],
    "pca_lowrank(x)[1]": [RANK_1],
    "svd_lowrank(x)[1]": [RANK_1, RANK_2],
    "y = x + 0.0\nlinalg.pinv(y)": [RANK_1, RANK_2],
    "linalg.lstsq(x, ones_like(x)).solution": [RANK_1, RANK_2],
    "linalg.cond(x)": [RANK_1, RANK_2],
}
# And those that are differentiable at the same matrices.
REGULAR_THERE = (
    ("linalg.svd(x)[1]", EYE), ("linalg.eigh(x)[0]", EYE), ("linalg.svdvals(x)", RANK_1), ("linalg.eigvals(x).real.sum()", EYE),
    ("U, S, V = linalg.svd(x)\nS.sum()", EYE), ("L, V = linalg.eigh(x)\nL.sum()", EYE), ("L, V = linalg.eigh(x)\nW = V * 2\nL.sum()", EYE),
    ("L, V = linalg.eigh(x)\nL.sum() + V.detach().sum() + V.argmax()", EYE), ("Q, R = linalg.qr(x)\nx.sum()", RANK_1),
    ("linalg.qr(x)[0]", JORDAN), ("linalg.pinv(x)", JORDAN), ("linalg.matrix_norm(x)", RANK_1), ("linalg.det(x)", RANK_1),
    ("linalg.svd(x)[0]", RANK_1), ("x.svd()[2]", RANK_2), ("linalg.svd(x, full_matrices=False)[2]", TALL),
)  # fmt: skip


def _codes(text: str, x: Any, **more: Any) -> list[str]:
    seed = 1 if "lowrank" in text else None
    answer = ask(program=text, inputs={"x": np.array(x)}, want=["vjp"], seed=seed, **more)
    return [note.message for note in answer.notes if note.code == "singular_point"]


@pytest.mark.parametrize("text", DEGENERATE)
def test_a_matrix_without_a_derivative_is_noted(text: str) -> None:
    for x in DEGENERATE[text]:
        (message,) = _codes(text, x)
        assert any(line in message for line in text.splitlines())
        regular = REGULAR if len(x) == 2 else [[2.0, 1.0, 0.0], [0.5, 5.0, 1.0], [0.0, 1.0, 9.0]]
        assert _codes(text, [regular, x], batched=("x",)) == [message]
        if "pca" not in text:  # it subtracts the mean, and so has deficient rank wherever it has as many columns as rows
            assert not _codes(text, regular)
            assert not _codes(text, [regular, regular], batched=("x",))


@pytest.mark.parametrize(("text", "x"), REGULAR_THERE, ids=str)
def test_what_has_a_derivative_there_is_not_noted(text: str, x: Any) -> None:
    assert not _codes(text, x)


def test_vectors_of_a_vanishing_singular_value_are_free_where_numbers_are_left() -> None:
    assert _codes("linalg.svd(x, full_matrices=False)[0]", TALL)
    assert _codes("linalg.svd(x, full_matrices=False)[2]", np.array(TALL).T)


@pytest.mark.parametrize(
    "text",
    ["linalg.lu(x)[2]", "linalg.lu_factor_ex(x)[0]", "lu(x)[0]", "linalg.qr(x)[0]", "linalg.pinv(x)"],
)
def test_complex_matrices_are_told_apart_as_real_ones(text: str) -> None:
    swapped = [[0.0, 1.0], [2.0, 0.0]]
    for x in (RANK_1, REGULAR, swapped):
        noted = [
            note.code
            for note in ask(
                program=text, inputs={"x": np.array(x) * (1 + 0j)}, want=["jvp"], tangent={"x": np.ones((2, 2)) + 0j}
            ).notes
        ]
        assert ("singular_point" in noted) == (x is RANK_1)


def test_members_of_a_batched_list_are_looked_at_as_single_tensors() -> None:
    for first, noted in ((RANK_1, True), (REGULAR, False)):
        xs = tuple(data(np.array([first, REGULAR]), bare=False) for _ in range(2))
        query = Query(program="linalg.qr(xs[0]).R + xs[1]", inputs={"xs": xs}, batched=("xs",), want=("vjp",))
        assert ("singular_point" in [note.code for note in ENGINE.answer(query).notes]) == noted


def test_what_the_derivative_asked_for_does_not_pass_is_not_noted() -> None:
    program = "L, V = linalg.eigh(x)\nL.sum() * y, V.sum() * y"
    inputs = {"x": np.array(EYE), "y": np.array(2.0)}

    def codes(**more: Any) -> list[str]:
        return [note.code for note in ask(program=program, inputs=inputs, **more).notes if note.code == "singular_point"]

    assert not codes(want=["gradient"], of="output0")
    assert not codes(want=["vjp"], wrt=("y",))
    assert codes(want=["gradient"], of="output1")
    assert codes(want=["gradient", "jvp"], of="output0", tangent={"x": np.array(EYE)})
    assert codes(want=["vjp"])


def test_single_operations_are_noted_too_and_not_answered_by_recipes() -> None:
    for x, noted in ((REGULAR, 0), (RANK_1, 1), (REGULAR, 0), (RANK_1, 1)):
        answer = ask(operation="linalg.qr", inputs={"A": np.array(x)}, want=["vjp", "jvp"])
        assert sum(note.code == "singular_point" for note in answer.notes) == noted
    assert not _codes_of_values(RANK_1)


def _codes_of_values(x: Any) -> list[str]:
    answer = ask(operation="linalg.qr", inputs={"A": np.array(x)}, want=["outputs"])
    return [note.code for note in answer.notes]


def test_every_test_has_its_sentence() -> None:
    assert set(TESTS) == set(values("degenerate"))
    assert set(SECOND_TESTS) == set(values("degenerate_twice"))


# Of rank 1, symmetric: its eigenvalue 0 is a double one, and so is its singular value.
DOUBLE_ZERO = [[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [3.0, 6.0, 9.0]]
APART = [[2.0, 1.0, 0.0], [1.0, 5.0, 1.0], [0.0, 1.0, 9.0]]


@pytest.mark.parametrize(
    "text",
    [
        "linalg.eigvalsh(x).sum()", "L, V = linalg.eigh(x)\nL.sum()", "linalg.eigvals(x).real.sum()", "linalg.eig(x)[0].abs().sum()",
        "linalg.svdvals(x).sum()", "U, S, V = linalg.svd(x)\nS.sum()", "linalg.matrix_norm(x, 'nuc')", "x.norm(p='nuc')",
    ],
)  # fmt: skip
def test_second_derivatives_by_values_that_repeat_are_noted(text: str) -> None:
    """Of `eigvalsh(x).sum()`, which is the trace, PyTorch gives 0.46 for 0."""

    def noted(x: Any, want: str, **more: Any) -> list[str]:
        answer = ask(program=text, inputs={"x": np.array(x)}, want=[want], **more)
        return [note.message for note in answer.notes if "second derivatives" in note.message]

    for _ in range(3):  # and where a recipe would answer
        assert noted(DOUBLE_ZERO, "hvp")
        assert not noted(APART, "hvp")
        assert not noted(DOUBLE_ZERO, "gradient")
    assert noted([APART, DOUBLE_ZERO], "hessian", batched=("x",))
    assert not noted([APART, APART], "hessian", batched=("x",))


def test_a_norm_without_singular_values_has_second_derivatives_there() -> None:
    answer = ask(program="linalg.matrix_norm(x) + linalg.norm(x, 'fro')", inputs={"x": np.array(DOUBLE_ZERO)}, want=["hessian"])
    assert not answer.notes


@pytest.mark.parametrize(("text", "is_said"), [
    ("linalg.pinv(x, hermitian=True)", True), ("linalg.pinv(x, 1e-15, True)", True), ("linalg.pinv(x)", False),
    ("linalg.pinv(x, hermitian=False)", False), ("x.pinverse() + (x > 0) * True", False), ("linalg.eigvalsh(x)", True),
])  # fmt: skip
def test_a_matrix_of_which_one_triangle_is_read_is_said(text: str, is_said: bool) -> None:
    answer = ask(program=text, inputs={"x": np.array(REGULAR)}, want=["vjp"])
    assert ("convention" in [note.code for note in answer.notes]) == is_said
