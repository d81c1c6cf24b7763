"""A derivation by hand, and the mistakes that people make in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

Formula = Callable[..., Tensor]


@dataclass(frozen=True)
class Derivation:
    """A program and what is wanted of it by `wrt`, as a formula of its inputs by name.

    Attributes:
        text, inputs: the program, and its inputs in float64.
        wrt: the input.
        right: the derivative.
        wrong: mistake → the formula with it, and the codes that may name it, the first of which is its own; "?" where it may have no name.
        kind: of the derivative, as `check` has it.
    """

    text: str
    inputs: Mapping[str, Tensor]
    wrt: str
    right: Formula
    wrong: Mapping[str, tuple[Formula, str]]
    kind: str = "gradient"
