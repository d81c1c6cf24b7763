"""Loops over rows, run again for more of them, cost and give what they do when they are read anew; what is another loop is read anew."""

from __future__ import annotations

import random

import pytest
import torch

from app.engine.planning.replay.row_loops import row_loop
from app.engine.planning.replay.same_ranks import SameRanks
from app.errors import PullbackError
from app.query import Query
from tests.engine.asking import ask
from tests.engine.planning.replay.test_reading import asked
from tests.engine.planning.replay.test_same_ranks import anew, assert_the_same, parts, used

HEADERS = ("for t in range(len(x)):", "for t in range(x.shape[0]):", "for t in range(x.size(0)):")
TENSORS = frozenset({"x", "y", "w", "v", "h"})


def of_rows(text: str, rows: int, columns: int = 3, others: int | None = None, h: tuple[int, ...] | None = None) -> Query:
    shapes = {
        "x": (rows, columns),
        "y": (rows if others is None else others, columns),
        "w": (columns, columns),
        "v": (columns,),
    }
    return asked(text, {**shapes, "h": (columns,) if h is None else h}, torch.float64)


def learnt(query: Query) -> SameRanks:
    known, built = SameRanks(), anew(query)
    assert built is not None
    known.learn(query, parts(query)[0], built)
    return known


def expression(rng: random.Random, names: list[str], depth: int = 0) -> str:
    if depth > 2 or rng.random() < 0.2:
        return rng.choice(names)
    one, other = expression(rng, names, depth + 1), expression(rng, names, depth + 1)
    return rng.choice(
        (
            f"({one} + {other})", f"({one} * {other})", f"({one} - 0.5 * {other})", f"torch.tanh({one})", f"({one} @ w)", f"-{one}",
            f"F.softmax({one}, dim=-1)", f"({one}).sigmoid()", f"F.relu({one} @ w + v)", f"({one} * {one}.sum())", f"torch.sin({one} * 2)",
        )
    )  # fmt: skip


def loop(rng: random.Random) -> str:
    names = ["x[t]", "h", "v"]
    before = []
    if rng.random() < 0.4:
        before.append(f"a = {expression(rng, ['h', 'v'])}")
        names.append("a")
    if rng.random() < 0.3:
        before.append(f"c = {rng.choice(('0.5', '2', '0', '-1.5'))}")
        names.append("c * x[t]")
    if rng.random() < 0.4:
        names.append("y[t]")
    lines, ends = [], ["h"]
    for _ in range(rng.randint(1, 3)):
        name = rng.choice(("h", "a", "d", "c"))
        lines.append(f"    {name} = {expression(rng, names)}")
        names.append(name)
        ends.append(name)
    if rng.random() < 0.8:
        lines.append(f"    h = torch.tanh(h + {expression(rng, names)})")
    end = f"return ({rng.choice(ends)} * v).sum() + ({rng.choice(ends)} ** 2).sum()"
    return "\n".join([*before, rng.choice(HEADERS), *lines, end])


@pytest.mark.parametrize("part", range(4))
@pytest.mark.share(2)
def test_random_loops_are_the_same_for_more_rows(part: int) -> None:
    rng = random.Random(part)
    count = 0
    for _ in range(7):
        text = loop(rng)
        first = of_rows(text, rng.choice((4, 4, 5)))
        if anew(first) is None:
            continue
        known = learnt(first)
        for rows in (rng.randint(5, 9), rng.choice((4, 12, 3, 1)), 6):
            count += assert_the_same(known, of_rows(text, rows, rng.choice((3, 3, 5, 1))))
    assert count > 3


CELL = "    h = torch.tanh(x[t] @ w + h @ w + v)"
OF_ROWS = [
    f"{HEADERS[0]}\n{CELL}\nreturn (h ** 2).sum()",
    f"a = h * 2\n{HEADERS[1]}\n    d = h + a\n    h = torch.tanh(x[t] + y[t] * d)\n    e = h.sum()\nreturn h, d",
    f"{HEADERS[2]}\n    a = h * x[t]\n    h = F.relu(a @ w)\n    u = a * 2\nreturn a.mean()",  # the last turn's h is needed by none
    f"s = 0\n{HEADERS[0]}\n    s = s + (x[t] * v).sum()\nreturn s",
    f"{HEADERS[0]}\n    h = x[t] * h[0] + y[t]\nz = h @ w\nreturn z.sum() / 2",
]


@pytest.mark.parametrize("text", OF_ROWS)
def test_loops_over_rows_are_planned_from_a_shorter_one(text: str) -> None:
    known = learnt(of_rows(text, 4))
    for rows, columns in ((5, 3), (9, 3), (7, 5), (4, 4), (40, 3)):
        assert assert_the_same(known, of_rows(text, rows, columns)), (rows, columns)


def test_what_the_first_turn_begins_with_may_have_another_shape() -> None:
    text = f"{HEADERS[0]}\n    h = torch.tanh(h * v + x[t])\nreturn h.sum()"
    known = learnt(of_rows(text, 4, h=(1,)))
    for rows, h in ((6, 1), (7, 3), (5, 1)):
        assert assert_the_same(known, of_rows(text, rows, h=(h,)))


OTHERS = [
    f"{HEADERS[0]}\n    h = h * x[t] * t\nreturn h.sum()",
    f"{HEADERS[0]}\n    h = h * x[t]\nreturn h.sum() * t",
    f"c = 1\n{HEADERS[0]}\n    c = (c + 1) % 7\n    h = h * x[t] * (c // 6)\nreturn h.sum()",
    f"a = h\nb = h\nd = h\n{HEADERS[0]}\n    d = b\n    b = a\n    a = d * x[t] + y[t]\nreturn a.sum()",
    f"{HEADERS[0]}\n    if t > 5:\n        h = h * 2\n    h = h + x[t]\nreturn h.sum()",
    f"{HEADERS[0]}\n    h = h + x[t]\nreturn h.sum() * len(x)",
    f"n = len(x)\n{HEADERS[0]}\n    h = h * n + x[t]\nreturn h.sum()",
    f"{HEADERS[0]}\n    h = h + x[t - 1]\nreturn h.sum()",
    f"{HEADERS[0]}\n    h = h + x[t]\n    x = x * 2\nreturn h.sum()",
    f"o = []\n{HEADERS[0]}\n    o.append(h + x[t])\nreturn torch.stack(o).sum()",
    f"{HEADERS[0]}\n    h += x[t]\nreturn h.sum()",
    f"{HEADERS[0]}\n    h = h.unsqueeze(0)\nreturn h.sum()",
    f"{HEADERS[0]}\n    h = torch.cat([h, x[t]])\nreturn h.sum()",
    f"{HEADERS[0]}\n    for u in range(2):\n        h = h + x[t]\nreturn h.sum()",
    f"{HEADERS[0]}\n    h = h + x[t]\n    break\nreturn h.sum()",
    f"{HEADERS[0]}\n    h = h + x[t]\nelse:\n    h = h * 2\nreturn h.sum()",
    f"idx = [0] * 900\n{HEADERS[0]}\n    h = h + x[t][idx].sum()\nreturn h.sum()",
    f"len = lambda a: 4\n{HEADERS[0]}\n    h = h + x[t]\nreturn h.sum()",
    "for t in range(len(y)):\n    h = h + x[t]\nreturn h.sum()",
]


@pytest.mark.parametrize("text", OTHERS)
def test_other_loops_are_not_taken_for_these(text: str) -> None:
    first = of_rows(text, 4)
    if anew(first) is None:
        assert row_loop(text, TENSORS, frozenset()) is None or "h + x[t]" in text
        return
    known = learnt(first)
    for rows in (5, 6, 9, 12):
        assert_the_same(known, of_rows(text, rows))


def test_rows_that_are_missing_are_refused_as_they_are_anew() -> None:
    text = f"{HEADERS[0]}\n    h = h + x[t] * y[t]\nreturn h.sum()"
    known = learnt(of_rows(text, 4))
    assert used(known, of_rows(text, 8, others=6)) is None
    assert_the_same(known, of_rows(text, 6, others=8))


def test_a_loop_that_is_too_long_is_refused_as_it_is_anew() -> None:
    """After a short one, and by a process that knows none."""
    text = HEADERS[0] + "\n" + "    h = torch.tanh(h * 2 + x[t] * v)\n" * 12 + "return h.sum()"
    assert anew(of_rows(text, 60)) is None
    known = learnt(of_rows(text, 4))
    assert used(known, of_rows(text, 60)) is None
    for rows in (4, 60):
        inputs = {"x": [[0.1] * 2] * rows, "v": [1.0, 2.0], "h": [0.0, 0.0]}
        if rows == 4:
            ask(program=text, inputs=inputs, want=["gradient"])
            continue
        with pytest.raises(PullbackError, match="more than 2,000 steps"):
            ask(program=text, inputs=inputs, want=["gradient"])
