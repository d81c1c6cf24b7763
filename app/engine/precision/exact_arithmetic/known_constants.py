"""Constants that a program computes from whole numbers and π, such as √2, exact where the program holds their float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any, Final

import numpy as np
import torch
from torch.utils._pytree import tree_leaves

from app.engine.precision.exact_arithmetic.numbers import MP
from app.engine.precision.exact_arithmetic.tensor import ExactTensor, Ledger
from app.engine.stepwise.point import name_of, step_of
from app.engine.stepwise.trace import StepTrace

# Plain numbers of these steps may be tensors just as well.
_ARITHMETIC: Final = frozenset({"add", "sub", "mul", "truediv", "pow", "div", "multiply", "divide", "subtract"})
# Numbers whose square roots, logarithms and shares of π people write: in normal densities, entropies, decibels, angles.
_NUMBERS: Final = (2, 3, 5, 6, 7, 8, 10)
_SHARES: Final = ((1, 1), (2, 1), (3, 1), (4, 1), (1, 2), (1, 3), (1, 4), (1, 6), (1, 180), (3, 2))


def with_known_constants(trace: StepTrace, ledger: Ledger) -> StepTrace:
    """`trace` with exact numbers in the place of plain ones that are the float64 of a known constant.

    Where the text has its digits (`1.4142135623730951`), that number is meant. Those within PyTorch's own formulas are made exact too, by
    `ledger.constant`.
    """
    arguments = dict(trace.arguments)
    written: set[float] = set()
    for record in trace.records:
        step = step_of(record.node)
        args, kwargs = arguments[record.node]
        if step is not None and name_of(record.node) in _ARITHMETIC and not kwargs and isinstance(args, tuple | list):
            arguments[record.node] = (tuple(_exact(arg, step.text, ledger) for arg in args), kwargs)
        written.update(value for value in tree_leaves(arguments[record.node]) if isinstance(value, float))
    ledger.constant = lambda value: value if value in written else _exact(value, "", ledger)
    return replace(trace, arguments=arguments)


def _exact(value: Any, text: str, ledger: Ledger) -> Any:
    if not isinstance(value, float) or abs(value) not in _known() or repr(abs(value))[:16] in text:
        return value
    number = MP.sign(value) * _known()[abs(value)]()
    return ExactTensor(torch.tensor(value, dtype=torch.float64), np.array(number, dtype=object), ledger)


@cache
def _known() -> Mapping[float, Callable[[], Any]]:
    """Float64 → the constant in as many digits as are set. Its neighbours too: what is computed in two steps may be one of them."""
    known: dict[float, Callable[[], Any]] = {}
    for constant in _constants():
        value = float(constant())
        for near in (math.nextafter(value, 0.0), math.nextafter(value, math.inf)):
            known.setdefault(near, constant)
        known[value] = constant
    return known


def _constants() -> Iterator[Callable[[], Any]]:
    for n in _NUMBERS:
        for root in (2, 3) if n != 8 else (2,):
            yield lambda n=n, root=root: MP.root(n, root)  # type: ignore[misc]
            yield lambda n=n, root=root: 1 / MP.root(n, root)  # type: ignore[misc]
        yield lambda n=n: MP.log(n)  # type: ignore[misc]
        yield lambda n=n: 1 / MP.log(n)  # type: ignore[misc]
    for above, below in _SHARES:
        yield lambda p=above, q=below: MP.pi * p / q  # type: ignore[misc]
        yield lambda p=above, q=below: q / (MP.pi * p)  # type: ignore[misc]
        yield lambda p=above, q=below: MP.sqrt(MP.pi * p / q)  # type: ignore[misc]
        yield lambda p=above, q=below: MP.sqrt(q / (MP.pi * p))  # type: ignore[misc]
    yield from (lambda: MP.e + 0, lambda: 2 / MP.sqrt(MP.pi), lambda: MP.log(MP.pi), lambda: MP.log(2 * MP.pi))
    yield from (lambda: MP.log(2 * MP.pi) / 2, lambda: MP.mpf(1) / 3, lambda: MP.mpf(2) / 3)
