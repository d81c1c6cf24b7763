"""What bare lists are taken as: a kept function's annotations say it, else whether the program takes floating numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.engine.engine import Engine
from app.errors import PullbackError
from app.limits import Limits
from app.program.functions import load
from app.query import Query
from tests.engine.asking import ENGINE, array, data, results

TEXT = '''def shifted(x: float32[2], k: int32[2], z: complex64[2]):
    """Twice x, k as it is, z by x."""
    return {"double": 2 * x, "whole": k + 1, "turned": z * x}
'''


@pytest.fixture(scope="module")
def with_stored(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("kept")
    Path(folder / "shifted.py").write_text(TEXT)
    return Engine(Limits(), "cpu", load(str(folder)))


def dtypes(engine: Engine, *, bare: bool = True, x: Any = (0.1, 0.2), **fields: Any) -> dict[str, str]:
    inputs = {"x": data(x, bare=bare), "k": data([1, 2], bare=bare), "z": data([1.0, 0.5], bare=bare)}
    results = engine.answer(Query(function="shifted", inputs=inputs, **fields)).results
    return {name: tensor.dtype for name, tensor in results["outputs"].items()}


@pytest.mark.parametrize("x", [(0.1, 0.2), (1, 2)])
@pytest.mark.parametrize("wrt", [None, ("x",)])
def test_a_bare_list_has_the_annotations_dtype(with_stored: Engine, x: tuple[float, ...], wrt: tuple[str, ...] | None) -> None:
    assert dtypes(with_stored, x=x, wrt=wrt) == {"double": "float32", "whole": "int32", "turned": "complex64"}


def test_a_tensor_that_says_its_dtype_keeps_it(with_stored: Engine) -> None:
    assert dtypes(with_stored, bare=False)["double"] == "float64"


def test_the_querys_dtype_counts_before_the_annotations(with_stored: Engine) -> None:
    assert dtypes(with_stored, dtype="bfloat16")["double"] == "bfloat16"


def test_derivatives_have_it_too(with_stored: Engine) -> None:
    inputs = {"x": data([0.1, 0.2]), "k": data([1, 2]), "z": data([1.0, 0.5])}
    answer = with_stored.answer(Query(function="shifted", inputs=inputs, want=("jacobian",), wrt=("x",)))
    tensor = answer.results["jacobian"]["double"]["x"]
    assert tensor.dtype == "float32"
    assert array(tensor).tolist() == [[2.0, 0.0], [0.0, 2.0]]


@pytest.mark.parametrize(
    "program",
    [
        "x.sqrt()[x > 2].sum()",
        "torch.masked_select(x, x > 4).mean()",
        "if x.sum() > 3:\n    y = x.sqrt()\nelse:\n    y = x\nreturn y.sum()",
        "torch.linalg.lstsq(x.view(-1, 2), x.view(-1, 2)[:, :1]).solution.sum()",
    ],
)
@pytest.mark.parametrize("count", [4, 6000])
def test_whole_numbers_where_values_decide_a_shape(program: str, count: int) -> None:
    """Promoted as they are elsewhere: fakes cannot say whether the program takes floating numbers, a real run can."""
    x = np.arange(count) % 7 + np.arange(count) // 2
    whole, floating = (results(program=program, inputs={"x": point}, want=("vjp",)) for point in (x, x * 1.0))
    np.testing.assert_array_equal(whole["vjp"]["x"], floating["vjp"]["x"])


@pytest.mark.parametrize(
    "program",
    [
        *("gcd(x, x)", "lcm(x, x + 1)", "x & 1", "x | 4", "x ^ 3", "torch.bitwise_xor(x, x)", "x.bitwise_not()", "x << 1", "~x", "y = x & 1\nx + y"),
        *("zeros(9).index_add(0, x, ones(3))", "x.sqrt() + gcd(x, x)", "nn.functional.one_hot(x)", "torch.bincount(x)", "eye(9)[x]"),
    ],
)  # fmt: skip
def test_whole_numbers_where_only_they_are_taken(program: str) -> None:
    """Fakes take floating numbers for some of these; the kernels do not."""
    x = [6, 4, 1]
    sent, said = (ENGINE.answer(Query(program=program, inputs={"x": data(x, bare=bare)})) for bare in (True, False))
    assert {name: array(t).tolist() for name, t in sent.results["outputs"].items()} == {
        name: array(t).tolist() for name, t in said.results["outputs"].items()
    }


def test_what_fails_with_any_is_refused_as_floating() -> None:
    with pytest.raises(PullbackError, match="not positive-definite"):
        results(program="linalg.cholesky(x)", inputs={"x": [[1, 2], [2, 1]]})
