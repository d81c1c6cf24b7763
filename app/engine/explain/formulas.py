"""The derivative formula of a step as PyTorch writes it, found by the autograd nodes that the step left."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from torch import Tensor

FILE: Final = Path(__file__).with_name("formulas.json")
_NODES: Final = 24  # autograd nodes looked at in one step: a composite such as an attention has about ten


@cache
def formulas() -> Mapping[str, str]:
    """Name of an autograd node (`SoftmaxBackward0`) → formula."""
    table: dict[str, str] = json.loads(FILE.read_text())["formulas"]
    return table


def formula_of(outputs: Sequence[Tensor]) -> str | None:
    """The formula of the step that gave `outputs`, which are attached to its inputs only; of a composite, one for each part."""
    names = list(dict.fromkeys(name for output in outputs if output.grad_fn is not None for name in _names(output.grad_fn)))
    known = [(name, formulas()[name]) for name in names if name in formulas()]
    if len(known) == 1:
        return known[0][1]
    return "; ".join(f"{name.rstrip('0123456789').removesuffix('Backward')}: {text}" for name, text in known) or None


def _names(first: Any) -> Iterator[str]:
    """Class names of the autograd nodes from the output to the inputs, breadth first."""
    queue, seen = [first], {first}
    while queue and len(seen) <= _NODES:
        node = queue.pop(0)
        yield type(node).__name__
        for parent, _ in node.next_functions:
            if parent is not None and parent not in seen and type(parent).__name__ != "AccumulateGrad":
                seen.add(parent)
                queue.append(parent)
