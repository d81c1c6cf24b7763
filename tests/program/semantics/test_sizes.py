"""Sizes as numbers of a program: a reading that serves other sizes answers what a fresh one answers, and refuses what it refuses."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

import orjson
import pytest

from app.limits import Limits
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
