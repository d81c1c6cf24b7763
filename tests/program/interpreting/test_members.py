"""What a program asks of attributes: the answers are Python's."""

from __future__ import annotations

import pytest

from tests.program.building import answer, tensors

CACHED = """\
from functools import cached_property
class A:
    def __init__(self, x):
        self.x = x
    @cached_property
    def s(self):
        return self.x.sum()
a = A(x)
first = a.s
a.x = 2 * x
return first + a.s
"""

# What `__contains__` gives is a tensor, which is true or not by its number.
CONTAINS = """\
class Below:
    def __contains__(self, value):
        return value < 0
return x * (10 * (x in Below()) + (x not in Below()))
"""


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("x * (hasattr([1], 'foo') + hasattr({}, 'shape') + hasattr('s', 'append'))", 0.0),
        ("x * (hasattr([1], 'append') + hasattr({}, 'items') + hasattr('s', 'upper'))", 9.0),
        (CACHED, 6.0),
        (CONTAINS, 3.0),
    ],
)
def test_attributes_are_those_that_python_has(program: str, expected: float) -> None:
    (value,) = answer(program, tensors(x=3.0)).values()
    assert value.item() == expected
