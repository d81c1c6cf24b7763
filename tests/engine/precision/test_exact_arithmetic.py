"""Numbers of 60 digits mean what PyTorch's calls mean: over the whole catalogue they agree with float64 where float64 loses nothing."""

from __future__ import annotations

import contextlib
from typing import Any

import orjson
import pytest

from app.catalogue.read import find, operations
from app.engine.precision.exact_arithmetic.numbers import MP
from app.engine.precision.exact_arithmetic.pointwise import BINARY, UNARY
from app.errors import PullbackError
from app.limits import Limits
from app.protocols.native import bodies
from tests.engine.asking import ENGINE

# Where PyTorch 2.13's float64 really has fewer digits at the example: what was measured, and why.
FEWER = {
    "digamma": "trigamma is computed with an asymptotic series that starts too early: 9.4 digits",
    "polygamma": "the same series: 9.3 digits of the value",
    "nn.functional.group_norm": "a gradient of 5e-7 that is left of terms of 1",
    "nn.functional.hardsigmoid": "the slope 1/6 is a float32 constant: 7.5 digits",
    "sum": "0.1 + 0.2 - 0.3",
}
REFUSED = {"not_differentiable", "operation_failed"}


@pytest.mark.parametrize("name", sorted(operations()))
def test_float64_is_right(name: str) -> None:
    example = {k: v for k, v in find(name).example.items() if k not in ("cotangent", "tangent", "expected", "batched")}
    body = orjson.dumps({**example, "want": ["precision"], "dtype": "float64"})
    try:
        answer = ENGINE.answer(bodies.read(memoryview(body), None, None, Limits()))
    except PullbackError as error:
        if error.code not in REFUSED:
            raise
        pytest.skip(f"{error.code}: it has no derivative at its example, or draws random numbers")
    reports: dict[str, Any] = answer.results["precision"]
    lost = {leaf: report for leaf, report in reports.items() if report["because"] is not None}
    assert bool(lost) == (name in FEWER), lost


@pytest.mark.parametrize("name", [*UNARY, *BINARY])
def test_no_number_is_too_long(name: str) -> None:
    """Numbers of a million digits, which exp(1e6) has in steps, are computed at once or refused; some took minutes."""
    function = UNARY.get(name) or BINARY[name]
    for huge in (MP.mpf(10) ** 700_000, MP.mpf(10) ** 300, MP.mpf(2) ** 15_000, MP.mpf(10) ** -700_000):
        for x in (huge, -huge):
            for numbers in ((x,),) if name in UNARY else ((x, MP.mpf(1.5)), (MP.mpf(1.5), x), (x, x)):
                with contextlib.suppress(NotImplementedError):
                    function(*numbers)
