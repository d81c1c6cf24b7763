"""The outputs that a request names: plain outputs, and derivatives as `vjp.IN`, `jacobian.OUT.IN`, `hessian.IN.IN2`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
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


@lru_cache(maxsize=4096)
def selected(name: str) -> Selected:
    """What an output's name asks for. Raises `bad_request`."""
    kind, _, rest = name.partition(".")
    for known, roles in KINDS.items():
        if kind == known and rest and not rest.isdigit():
            path = _names(rest)
            if len(path) != len(roles):
                raise PullbackError(
                    "bad_request",
                    f"The output {name!r} names {len(path)} where `{known}` has {len(roles)}.",
                    at="outputs",
                    expected=".".join((known, *roles)),
                    given=name,
                )
            return Selected(name, known, path)
    return Selected(name, "outputs", (name,))


def _names(text: str) -> tuple[str, ...]:
    """`output.x` → two names; `tensors.0` → one: a number belongs to the list before it."""
    names: list[str] = []
    for part in text.split("."):
        if part.isdigit() and names:
            names[-1] += f".{part}"
        else:
            names.append(part)
    return tuple(names)


def everything(answer: Answer) -> list[Selected]:
    """Every tensor of an answer, as a request without `outputs` gets it."""
    found = [Selected(name, "outputs", (name,)) for name in answer.results.get("outputs", {})]
    for kind in ("vjp", "jvp"):
        found += [Selected(f"{kind}.{name}", kind, (name,)) for name in answer.results.get(kind, {})]
    return found


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
