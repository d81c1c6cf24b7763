"""A program at a point, and what explain has to say of its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

D: Final = "differentiable"
K: Final = "kink"
S: Final = "singular"
P: Final = "piecewise_constant"
X: Final = "disconnected"

Verdict = str | tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """`verdicts`: input → its verdict, or those that are as right; `elements`, `line`, `word`: of the first input, where given."""

    text: str
    inputs: Mapping[str, Any]
    verdicts: Mapping[str, Verdict]
    elements: list[list[int]] | None = None
    line: int | None = None
    word: str = ""
    seed: int | None = None

    @property
    def title(self) -> str:
        return f"{self.text} at {next(iter(self.inputs.values()))}"


def at(*numbers: float) -> dict[str, Any]:
    """The point of a program in x."""
    return {"x": list(numbers)}


def case(text: str, inputs: Mapping[str, Any], verdicts: Verdict | Mapping[str, Verdict], **more: Any) -> Case:
    """`verdicts`: of the first input, unless it is said otherwise."""
    of_each = verdicts if isinstance(verdicts, Mapping) else {next(iter(inputs)): verdicts}
    return Case(text, inputs, of_each, **more)
