"""The outputs that a request names: plain outputs, and derivatives as `vjp.IN`, `jacobian.OUT.IN`, `hessian.IN.IN2`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from app.errors import PullbackError
from app.query import Answer, TensorData, Want

# Kind → what its names are, in order.
KINDS: Final[dict[Want, tuple[str, ...]]] = {
    "vjp": ("IN",),
    "gradient": ("IN",),
    "jvp": ("OUT",),
    "jacobian": ("OUT", "IN"),
    "hessian": ("IN", "IN"),
    "hvp": ("IN",),
}


@dataclass(frozen=True, slots=True)
class Selected:
    """One requested output: `path` leads to its tensor in the answer's results."""

    name: str
    kind: Want
    path: tuple[str, ...]

    @property
    def inputs(self) -> tuple[str, ...]:
        """The inputs that it is a derivative with respect to."""
        return tuple(name for name, role in zip(self.path, KINDS.get(self.kind, ()), strict=False) if role == "IN")


def selected(name: str, inputs: Collection[str] = ()) -> Selected:
    """What an output's name asks for. Raises `bad_request`.

    Arguments:
        inputs: names of the inputs that were sent: they tell where one name ends and the next begins, as names of weights hold dots.
    """
    kind, _, rest = name.partition(".")
    for known, roles in KINDS.items():
        if kind == known and rest and not rest.isdigit():
            if len(roles) == 1:
                return Selected(name, known, (rest,))
            return Selected(name, known, _pair(name, rest, known, inputs))
    return Selected(name, "outputs", (name,))


def _pair(name: str, rest: str, kind: Want, inputs: Collection[str]) -> tuple[str, str]:
    """Two names: the second is an input, and so is the first of a Hessian; where none was sent, each is one word."""
    parts = rest.split(".")
    splits = [(".".join(parts[:k]), ".".join(parts[k:])) for k in range(1, len(parts))]
    for first, second in splits:
        if second in inputs and (kind == "jacobian" or first in inputs):
            return first, second
    words = _words(parts)
    if len(words) != len(KINDS[kind]):
        raise PullbackError(
            "bad_request",
            f"The output {name!r} names {len(words)} where `{kind}` has {len(KINDS[kind])}.",
            at="outputs",
            expected=".".join((kind, *KINDS[kind])),
            given=name,
        )
    return words[0], words[1]


def _words(parts: Sequence[str]) -> list[str]:
    """`output`, `0`, `x` → `output.0`, `x`: a number belongs to the list before it."""
    words: list[str] = []
    for part in parts:
        if part.isdigit() and words:
            words[-1] += f".{part}"
        else:
            words.append(part)
    return words


def everything(answer: Answer) -> list[Selected]:
    """Every tensor of an answer, as a request without `outputs` gets it."""
    selected = [Selected(name, "outputs", (name,)) for name in answer.results.get("outputs", {})]
    for kind in ("vjp", "jvp"):
        selected += [Selected(f"{kind}.{name}", kind, (name,)) for name in answer.results.get(kind, {})]
    return selected


def kinds(chosen: Iterable[Selected]) -> tuple[Want, ...]:
    """What is wanted, each kind once, in the order in which it is named."""
    return tuple(dict.fromkeys(one.kind for one in chosen))


def tensor_of(one: Selected, answer: Answer) -> TensorData:
    """The tensor of a requested output. Raises `bad_request` where the answer has none of that name."""
    value: Any = answer.results.get(one.kind, {})
    for name in one.path:
        if not isinstance(value, Mapping) or name not in value:
            known = ", ".join(value) if isinstance(value, Mapping) and value else "none"
            raise PullbackError(
                "bad_request",
                f"There is no output {one.name!r}: `{one.kind}` has no {name!r}.",
                at="outputs",
                expected=f"one of {known}",
                given=one.name,
            )
        value = value[name]
    if not isinstance(value, TensorData):  # the pair of a function that is not holomorphic
        raise PullbackError(
            "bad_request",
            f"{one.name!r} is not one tensor: the function is not holomorphic.",
            at="outputs",
            fix="Ask for `vjp`, or use /v1/query.",
        )
    return value
