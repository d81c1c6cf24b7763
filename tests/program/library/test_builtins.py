"""Python's own functions in a program."""

from __future__ import annotations

import pytest

from tests.program.building import answer, tensors

ZIPPED = """\
out = 0 * x
try:
    for a, b in zip([1, 2], OTHERS, strict=True):
        out = out + a * b * x
except ValueError:
    out = 100 * x
return out
"""


@pytest.mark.parametrize(("others", "expected"), [("[3, 4]", 11.0), ("[3]", 100.0), ("[3, 4, 5]", 100.0)])
def test_zip_that_is_strict_takes_as_many_of_each(others: str, expected: float) -> None:
    (value,) = answer(ZIPPED.replace("OTHERS", others), tensors(x=1.0)).values()
    assert value.item() == expected
