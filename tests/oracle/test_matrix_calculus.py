"""Identities of matrix calculus: gradients, Jacobians and Hessians against the formulas of the books."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.engine.asking import results
from tests.oracle.identities import BY_S, BY_VECTOR, BY_X, HESSIANS, JACOBIANS, Expected, point

CASES = [
    *(("gradient", "X", text, expected) for text, expected in BY_X.items()),
    *(("gradient", "S", text, expected) for text, expected in BY_S.items()),
    *(("gradient", "x", text, expected) for text, expected in BY_VECTOR.items()),
    *(("jacobian", "x", text, expected) for text, expected in JACOBIANS.items()),
    *(("hessian", "x", text, expected) for text, expected in HESSIANS.items()),
]


@pytest.mark.parametrize(("kind", "by", "text", "expected"), CASES, ids=[f"{kind} of {text}" for kind, _, text, _ in CASES])
def test_an_identity(kind: str, by: str, text: str, expected: Expected) -> None:
    known = vars(point())
    letters = [name for name in known if re.search(rf"(?<![\w.']){name}\b(?![\w'(])", text)]
    answer = results(program=text, inputs={name: known[name] for name in letters}, wrt=(by,), want=[kind])[kind]
    ours = answer[by] if kind == "gradient" else answer["output" if kind == "jacobian" else by][by]
    right = np.asarray(expected(point()))
    # The books' formulas and PyTorch's have some ten factors each, of matrices with condition numbers below 1,000.
    np.testing.assert_allclose(ours, right, rtol=1e-9, atol=1e-10 * max(1.0, float(np.abs(right).max())))


def test_there_are_a_hundred_and_fifty() -> None:
    assert len(CASES) >= 150
