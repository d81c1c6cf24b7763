"""Generated programs: what the language gives against NumPy, which evaluates the same tree while the text is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.program.building import answer, tensors

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Term:
    """A piece of text and what it is worth: an array of shape [2, 3] (or one that broadcasts to it), or a plain number."""

    text: str
    value: Any

    @property
    def plain(self) -> bool:
        return isinstance(self.value, int | float)


X = np.array([[0.3, -1.2, 0.7], [1.1, 0.4, -0.6]])
Y = np.array([0.9, -0.2, 1.4])
LEAVES = [
    Term("x", X),
    Term("y", Y),
    Term("s", np.array(0.75)),
    Term("n", 3),
    Term("0.5", 0.5),
    Term("2", 2),
    Term("x[1]", X[1]),
]
LEAVES += [
    Term("x[:, 1:2]", X[:, 1:2]),
    Term("x.shape[1]", 3),
    Term("x.T.mT", X),
    Term("y[None]", Y[None]),
    Term("len(x)", 2),
    Term("x.mean()", X.mean()),
]


def _tensor(term: Term) -> Term:
    return Term(f"({term.text} + zeros(2, 3))", term.value + np.zeros((2, 3)))


def _softmax(z: Array) -> Array:
    e = np.exp(z - z.max(1, keepdims=True))
    return np.asarray(e / e.sum(1, keepdims=True))


def _binary(symbol: str, a: Term, b: Term) -> Term:
    apply = {"+": np.add, "-": np.subtract, "*": np.multiply}[symbol]
    value = apply(a.value, b.value)
    return Term(f"({a.text} {symbol} {b.text})", value.item() if a.plain and b.plain else value)


def _one(kind: str, a: Term) -> Term:
    t = _tensor(a)
    forms: dict[str, Term] = {
        "tanh": Term(f"tanh({t.text})", np.tanh(t.value)),
        "method": Term(f"{t.text}.sin()", np.sin(t.value)),
        "F": Term(f"F.relu({t.text})", np.maximum(t.value, 0)),
        "softmax": Term(f"torch.softmax({t.text}, dim=1)", _softmax(t.value)),
        "sum": Term(f"{t.text}.sum(0)", t.value.sum(0)),
        "keep": Term(f"{t.text}.mean(dim=1, keepdim=True)", t.value.mean(1, keepdims=True)),
        "clamp": Term(f"clamp({t.text}, -1, 1)", t.value.clip(-1, 1)),
        "negative": Term(f"-{a.text}", -a.value),
        "row": Term(f"{t.text}[-1]", t.value[-1]),
        "part": Term(f"{t.text}[:, ::2].sum()", t.value[:, ::2].sum()),
        "flip": Term(f"{t.text}[[1, 0]]", t.value[::-1]),
        "maximum": Term(f"max({t.text}, dim=1, keepdim=True).values", t.value.max(1, keepdims=True)),
        "minimum": Term(f"min({t.text}, 0)[0]", t.value.min(0)),
        "divide": Term(f"({t.text} / 4)", t.value / 4),
        "square": Term(f"tanh({t.text}) ** 2", np.tanh(t.value) ** 2),
        "matrix": Term(f"({t.text} @ {t.text}.T @ x / 8)", t.value @ t.value.T @ X / 8),
        "comprehension": Term(f"sum([{a.text} * i for i in range(n)])", a.value * 3),
        "stack": Term(
            f"stack([row * i for i, row in enumerate({t.text})])", np.stack([row * i for i, row in enumerate(t.value)])
        ),
        "abs": Term(f"abs({a.text})", abs(a.value)),
        "cast": Term(f"({t.text} > 0.1).double()", (t.value > 0.1).astype(float)),
    }
    return forms[kind]


ONE = [
    "tanh", "method", "F", "softmax", "sum", "keep", "clamp", "negative", "row", "part", "flip", "maximum", "minimum",
    "divide", "square",
]  # fmt: skip
ONE += ["matrix", "comprehension", "stack", "abs", "cast"]


def _two(kind: str, a: Term, b: Term) -> Term:
    if kind in "+-*":
        return _binary(kind, a, b)
    s, t = _tensor(a), _tensor(b)
    forms = {
        "where": Term(f"where({s.text} > {b.text}, {s.text}, {t.text})", np.where(s.value > b.value, s.value, t.value)),
        "maximum": Term(f"maximum({s.text}, {t.text})", np.maximum(s.value, t.value)),
        "cat": Term(f"cat([{s.text}, {t.text}], dim=0)[1:3]", np.concatenate([s.value, t.value])[1:3]),
        "chosen": Term(f"({a.text} if x.shape[0] == 2 else {b.text})", a.value),
        "einsum": Term(f"einsum('ij,ij->i', {s.text}, {t.text})[:, None]", (s.value * t.value).sum(1, keepdims=True)),
        "total": Term(f"sum([{s.text}, {t.text}])", s.value + t.value),
    }
    return forms[kind]


TERMS = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.one_of(
        st.builds(_one, st.sampled_from(ONE), inner),
        st.builds(_two, st.sampled_from(["+", "-", "*", "where", "maximum", "cat", "chosen", "einsum", "total"]), inner, inner),
    ),
    max_leaves=8,
)


@st.composite
def programs(draw: st.DrawFn) -> tuple[str, Array]:
    """Several lines: assignments, an augmented one, a loop; and what the last is worth."""
    lines: list[str] = []
    value: Any = np.zeros((2, 3))
    lines.append("out = zeros(2, 3)")
    for index in range(draw(st.integers(1, 3))):
        term = draw(TERMS)
        shape = draw(st.sampled_from(["plain", "augmented", "loop", "condition", "list"]))
        if shape == "plain":
            lines += [f"v{index} = {term.text}", f"out = out + v{index}"]
            value = value + term.value
        elif shape == "augmented":
            lines.append(f"out += {term.text}")
            value = value + term.value
        elif shape == "loop":
            lines += [f"for i in range({index + 2}):", f"    out = out / 2 + i * {term.text}"]
            for i in range(index + 2):
                value = value / 2 + i * term.value
        elif shape == "condition":
            lines += [f"if n > {index + 2}:", f"    out = out - {term.text}", "else:", "    pass"]
            value = value - term.value if index + 2 < 3 else value
        else:
            lines += [
                "hs = [out]",
                "for _ in range(2):",
                f"    hs.append(tanh(hs[-1] + {term.text}))",
                "out = stack(hs).mean(0)",
            ]
            states = [value]
            for _ in range(2):
                states.append(np.tanh(states[-1] + term.value))
            value = np.stack([np.broadcast_to(s, (2, 3)) for s in states]).mean(0)
    return "\n".join([*lines, "return out"]), np.broadcast_to(value, (2, 3))


@settings(max_examples=60, deadline=None)
@given(programs())
def test_agrees_with_numpy(program: tuple[str, Array]) -> None:
    text, expected = program
    got = answer(text, tensors(x=X, y=Y, s=0.75), {"n": 3})["output"]
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-9, atol=1e-9)
