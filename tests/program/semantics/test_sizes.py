"""Sizes as numbers of a program: a reading that serves other sizes answers what a fresh one answers, and refuses what it refuses."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

import orjson
import pytest
import torch
from torch import fx

from app.limits import Limits
from app.program.semantics import sizes
from app.road import Request, Road

_SIZES: Final = ("x.shape[0]", "x.shape[-1]", "x.size(0)", "len(x)", "x.numel()", "x.size()[1]", "list(x.shape)[0]")
_NUMBERS: Final = (
    "{a} + {b}", "{a} - 1", "{a} * {b}", "{a} // 2", "{a} / {b}", "math.sqrt({a})", "{a} ** -0.5", "max({a}, {b})", "min({a}, 3)", "{a} % 3",
    "float({a})", "round({a} / 3)", "abs({a} - 4)", "1.0 / ({a} - 2)", "sum(x.shape)", "np.prod(x.shape)", "({a} if {a} > 3 else {b})",
    "math.log({a})", "divmod({a}, 2)[0]", "torch.tensor({a})", "len(range({a}))", "math.gcd({a}, 6)", "f'{{{a}}}'.count('4')", "{a} << 1",
)  # fmt: skip
_TENSORS: Final = (
    "y * ({n})", "y / ({n})", "torch.tanh(y * ({n}))", "y.reshape(-1, x.shape[-1])", "y.reshape({i}, -1)", "y.reshape(-1)[:{i}]", "y[:{i}]",
    "y[{i} - 1]", "y[-{i}:]", "y.sum() * torch.arange({i}, dtype=y.dtype)", "torch.cat([y.reshape(-1), torch.zeros({i})])",
    "torch.eye({i}) * y.mean()",
    "torch.tril(torch.ones({i}, {i})) * y.sum()", "y.new_zeros({i}, 2) + y.mean()", "torch.full(({i},), {n}) * y.mean()",
    "y.unsqueeze(0).expand({i}, *y.shape)",
    "F.layer_norm(y, y.shape[-1:])", "F.softmax(y / ({n}), dim=-1)", "torch.roll(y, {i}, 0)", "F.pad(y, (0, {i}))", "torch.stack([y.sum()] * {i})",
    "torch.where(y > ({n}), y, y * ({n}))", "y.clamp(-1, {n})", "F.dropout(y, 1 / ({i} + 2))", "nn.Linear(y.shape[-1], 2)(y)", "y.narrow(0, 0, {i})",
    "vmap(lambda r: r * ({n}))(y)", "torch.func.grad(lambda z: (z * ({n})).sum())(y)", "torch.cumsum(y, 0) / {i}", "y.topk({i}, dim=0).values",
    "sum([y * k for k in range({i})])",
)  # fmt: skip
_LINES: Final = (
    "y = {t}", "y = {t}", "y = {t}", "k = {n}\ny = y * k", "if {n} > 3:\n    y = {t}", "for j in range({i}):\n    y = y * 0.5 + j", "k = {n}",
    "y = y.clone()\ny[:{i}] += {n}", "d = {{'a': {n}}}\ny = y * d['a']", "f = lambda z, k={n}: z * k\ny = f(y)", "assert {n} > 0",
)  # fmt: skip


def _ask(road: Road, query: dict[str, Any]) -> tuple[int, bytes]:
    body = memoryview(orjson.dumps(query))
    reply = road.answer(Request("query", "x", "application/json", None, None, body), lambda _: None)
    return reply.status, b"".join(bytes(piece) for piece in reply.buffers)


def _text(draw: random.Random, answers: Callable[[str], bool]) -> str:
    """A program of lines that go well for the first sizes."""

    def number() -> str:
        one, other = (draw.choice(_SIZES) for _ in range(2))
        return draw.choice(_NUMBERS).format(a=one, b=other) if draw.random() < 0.7 else one

    def line() -> str:
        whole = draw.choice((draw.choice(_SIZES), f"({draw.choice(_SIZES)} // 2)", f"min({draw.choice(_SIZES)}, 3)"))
        tensor = draw.choice(_TENSORS).format(n=number(), i=whole)
        return draw.choice(_LINES).format(n=number(), i=whole, t=tensor)

    lines = ["y = x * 1.0"]
    for _ in range(8):
        longer = [*lines, line()]
        if len(lines) < 4 and answers("\n".join([*longer, "return y.sum()"])):
            lines = longer
    return "\n".join([*lines, "return y.sum()"])


@pytest.mark.parametrize("part", range(4))
def test_random_programs_answer_as_fresh_ones_do(part: int) -> None:
    read_again = 0
    for number in range(part, 40, 4):
        draw = random.Random(number)

        def query(text: str, rows: int, columns: int, draw: random.Random = draw) -> dict[str, Any]:
            x = [[round(draw.uniform(-1, 2), 3) for _ in range(columns)] for _ in range(rows)]
            return {"program": text, "inputs": {"x": x}, "want": ["gradient"], "seed": 1}

        road = Road(Limits(), "cpu")
        text = _text(draw, lambda text: _ask(road, query(text, 4, 3))[0] == 200)  # noqa: B023
        for rows, columns in ((4, 3), (5, 3), (draw.randint(1, 7), draw.randint(1, 7)), (2, 6)):
            asked = query(text, rows, columns)
            answer = _ask(road, asked)
            assert answer == _ask(Road(Limits(), "cpu"), asked), f"{rows} × {columns}:\n{text}"
            read_again += answer[0] == 200
    assert read_again > 20, "most of them go well"


@pytest.mark.parametrize(
    "text",
    [
        "x / (0.0 * (3 - len(x)))",
        "x / torch.tensor([0.0 * (3 - len(x))])",
        "x * (-0.0 + 0.0 * (3 - len(x)))",
        "k = 0.0 * (3 - len(x))\nif f'{k}' == '-0.0':\n    return x * 2\nreturn x",
        "k = 0.0 * (3 - len(x))\nreturn x * len(f'{k}')",
        "k = 0.0 * (3 - len(x))\nw = nn.Parameter(torch.full((2,), k))\nreturn (1 / w).sum() + x.sum()",
        "w = torch.tensor([0.0 * (3 - len(x))], requires_grad=True)\nreturn x / w",
    ],
)
def test_a_zero_keeps_its_sign_for_other_sizes(text: str) -> None:
    road = Road(Limits(), "cpu")
    for x in ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0]):
        asked = {"program": text, "inputs": {"x": x}, "want": ["outputs", "vjp"], "seed": 1, "wrt": ["x"]}
        assert _ask(road, asked) == _ask(Road(Limits(), "cpu"), asked)


@pytest.mark.parametrize(
    "text",
    [
        "a = len(x)\nfor i in range(40):\n  a = (a + a) / 2\nreturn x * a",
        "a, b = len(x), 1\nfor i in range(60):\n  a, b = b, a + b\nreturn x * b",
        "h = len(x)\nfor i in range(40):\n  h = h + (8 - h % 8) % 8\nreturn x * h",
        "n = 0\nfor i in range(3000):\n  n += len(x)\nreturn x / n",
        "s = 1\nfor i in range(400):\n  s *= 1 - 1 / (len(x) + i)\nreturn x * s",
    ],
)
def test_a_long_history_of_a_number_is_settled(text: str) -> None:
    """It took a time exponential in the turns, or more calls than Python allows."""
    road = Road(Limits(), "cpu")
    for count in (3, 4, 5):
        asked = {"program": text, "inputs": {"x": [1.0] * count}, "want": ["vjp"]}
        answer = _ask(road, asked)
        assert answer[0] == 200
        assert answer == _ask(Road(Limits(), "cpu"), asked)


def test_what_is_asked_of_sizes_is_bounded() -> None:
    graph = fx.Graph()
    node = graph.placeholder("x")
    node.meta["val"] = torch.zeros(3)
    with sizes.unsettled():
        numbers = [sizes.extent(node, 0) * number for number in range(10_000)]
        for number in numbers:
            sizes.settled(number)
    assert len(node.meta["asked"]) < 1000
