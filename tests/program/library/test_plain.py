"""NumPy's functions in a program: each against NumPy itself, or refused where PyTorch's of that name is another."""

from __future__ import annotations

import numpy as np
import pytest

from app.errors import PullbackError
from tests.program.building import answer, tensors


@pytest.mark.parametrize(
    "expression",
    [
        "np.std(a)", "np.var(a)", "np.std(a, axis=0).sum()", "np.var(a, ddof=1)", "np.std([1.0, 2.0, 4.0])", "np.median(a)",
        "np.median(a, axis=1)[0]", "np.median([1.0, 2.0, 3.0, 4.0])", "np.mod(-1, 3)", "np.mod(-a, 3).sum()", "np.remainder(-1, 3)",
        "np.fmod(-1, 3)", "np.split(a, 2)[1].sum()", "np.split(a, [1])[1].sum()", "np.sort(-a, axis=0)[0, 1]", "np.sort([3.0, 1.0])[0]",
        "np.interp([0.5, 9.0], [0.0, 1.0], [2.0, 4.0]).sum()",
        "np.convolve([1.0, 2.0, 4.0], [1.0, -1.0], \"valid\")[1]", "np.minimum.accumulate(-a[0])[1]", "np.trapezoid(a[1])", "a[:, np.newaxis].sum()",
    ],
)  # fmt: skip
def test_functions_of_numpy_mean_what_numpy_means(expression: str) -> None:
    a = np.array([[1.0, 2.0], [3.0, 5.5]])
    program = f"import numpy as np\na = np.array([[1.0, 2.0], [3.0, 5.5]])\nreturn x * {expression}"
    (value,) = answer(program, tensors(x=1.0)).values()
    assert value.item() == pytest.approx(float(eval(expression, {"np": np, "a": a})), rel=1e-12)  # noqa: S307 - an expression of the table above


@pytest.mark.parametrize("name", ["gradient", "nonzero"])
def test_names_of_numpy_that_pytorch_has_for_something_else_are_refused(name: str) -> None:
    with pytest.raises(PullbackError, match=r"Line 2.*another"):
        answer(f"import numpy as np\nreturn x * np.{name}(np.array([3.0, 1.0]))[0]", tensors(x=1.0))
