"""Python's containers and parsers in a program mean what they mean in Python."""

from __future__ import annotations

import pytest

from app.errors import PullbackError
from tests.program.building import answer, tensors

BEGIN = "import argparse\nparser = argparse.ArgumentParser()\n"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("parser.add_argument('--k', type=float, default='0.5')", 0.5),
        ("parser.add_argument('--k', type=int, default='3')", 3.0),
        ("parser.set_defaults(k=3)\nparser.add_argument('--k', type=int)", 3.0),
        ("parser.set_defaults(k=3)\nparser.add_argument('--k', type=int, default=5)", 5.0),
        ("parser.add_argument('--k', type=int, default=5)\nparser.set_defaults(k=3)", 3.0),
    ],
)
def test_a_parser_takes_defaults_as_argparse_does(lines: str, expected: float) -> None:
    (value,) = answer(f"{BEGIN}{lines}\nreturn x * parser.parse_args([]).k", tensors(x=1.0)).values()
    assert value.item() == expected


def test_a_parser_that_is_given_words_is_refused() -> None:
    with pytest.raises(PullbackError, match=r"Line 4.*arguments"):
        answer(f"{BEGIN}parser.add_argument('--k', default=0.1)\nk = parser.parse_args(['--k', '2']).k\nx * k", tensors(x=1.0))


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("c = Counter({'a': 3})\nk = c['a']", 3.0),
        ("c = Counter([1, 2, 1])\nc.update({1: 5})\nk = c[1]", 7.0),
        ("c = Counter('aab')\nc.update('a')\nk = c['a']", 3.0),
        ("c = Counter([1])\nk = c[4] + 2", 2.0),
        ("c = Counter([1, 1, 2])\nk = c.most_common(1)[0][1]", 2.0),
        ("c = Counter([1])\nc[1] += 1\nc[2] += 1\nk = c[1] + 10 * c[2]", 12.0),
    ],
)
def test_a_counter_counts(lines: str, expected: float) -> None:
    (value,) = answer(f"from collections import Counter\n{lines}\nreturn x * k", tensors(x=1.0)).values()
    assert value.item() == expected


def test_takewhile_ends_where_a_condition_on_a_tensor_fails() -> None:
    text = "from itertools import takewhile\nreturn sum(takewhile(lambda v: v > 0, x))"
    (value,) = answer(text, tensors(x=[1.5, 2.0, -2.0, 3.0])).values()
    assert value.item() == 3.5


def test_a_list_is_searched_up_to_the_place() -> None:
    (value,) = answer("y = [1, 3, x]\ny.remove(3)\nreturn x * (y.index(1) + len(y))", tensors(x=1.0)).values()
    assert value.item() == 2.0
