"""The proven patterns of a function's outputs, or of the gradient of one, by each input."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor

from app.engine.sparsity.pattern import Pattern
from app.engine.sparsity.storage import Values
from app.engine.sparsity.tracer import Trace, trace
from app.program.differentiation.custom_functions import APPLY

_LOG = logging.getLogger("pullback.sparsity")
# Programs that call autograd themselves: it detaches what it saves, so `detach` says nothing of the client's intent there.
_TRANSFORMS: Final = ("grad", "vjp", "jvp", "jac", "hessian", "vmap", "linearize")
_OPERATIONS_KNOWN: Final = 512  # sets of operations, as in by_convention.py


@dataclass(frozen=True, slots=True, eq=False)
class Dependence:
    """Of one output on one input: pattern `[output elements, input elements]`, and what of it hangs on values.

    held: entries of all patterns at once, while the steps were followed.
    """

    pattern: Pattern
    values: Values
    held: int = 0


@lru_cache(_OPERATIONS_KNOWN)
def differentiates_itself(operations: frozenset[str]) -> bool:
    """Whether a function calls autograd, by the names of its operations."""
    return any(word in name for name in operations for word in _TRANSFORMS)


@lru_cache(_OPERATIONS_KNOWN)
def has_own_backward(operations: frozenset[str]) -> bool:
    """Whether a `torch.autograd.Function` or a hook is among the operations, by their names.

    What its value depends on proves nothing of the derivative that it gives, and the derivative of that need not be symmetric.
    """
    return any(name.endswith(APPLY) for name in operations)


def dependences(
    run: Callable[[Mapping[str, Tensor]], Sequence[Tensor | None]],
    leaves: Mapping[str, Tensor],
    wrt: Sequence[str],
    limit: int,
    *,
    differentiates: bool,
    operations: frozenset[str] = frozenset(),
    static: bool = True,
) -> list[dict[str, Dependence]]:
    """For each result of `run(leaves)`: input → its dependence on it.

    Arguments:
        limit: entries of a pattern; longer ones are full.
        differentiates: `run` uses autograd (a gradient), so the leaves require grad.
        operations: that the function calls, by their names.
        static: no branch of the function was chosen by values.
    """
    traced = _traced(run, leaves, wrt, limit, differentiates, operations)
    if len(wrt) > 1 and any(t.pattern.is_full for t in traced):
        # Together they are too many or too dense: each input for itself.
        alone = [_traced(run, leaves, [name], limit, differentiates, operations) for name in wrt]
        return [
            {name: _dependence(traces[index].pattern, traces[index], static) for name, traces in zip(wrt, alone, strict=True)}
            for index in range(len(traced))
        ]
    result = []
    for one in traced:
        start = 0
        by_input = {}
        for name in wrt:
            stop = start + leaves[name].numel()
            part = one.pattern if len(wrt) == 1 else one.pattern.between(start, stop)
            by_input[name] = _dependence(part, one, static)
            start = stop
        result.append(by_input)
    return result


def _dependence(pattern: Pattern, traced: Trace, static: bool) -> Dependence:
    copy = Values()
    copy.add(traced.values)
    copy.chosen |= not static
    return Dependence(pattern, copy, traced.held)


def _traced(
    run: Callable[[Mapping[str, Tensor]], Sequence[Tensor | None]],
    leaves: Mapping[str, Tensor],
    wrt: Sequence[str],
    limit: int,
    differentiates: bool,
    operations: frozenset[str],
) -> list[Trace]:
    # Memory of their own, so that nothing else is read through it; on the CPU, where patterns are.
    point: dict[str, Tensor] = {name: leaf.detach().to("cpu", copy=True) for name, leaf in leaves.items()}
    elsewhere = any(leaf.device.type != "cpu" for leaf in leaves.values())
    if has_own_backward(operations):
        return _unproved(run, leaves)
    graph = differentiates or differentiates_itself(operations)
    try:
        with torch.set_grad_enabled(graph), torch.device("cpu") if elsewhere else nullcontext():
            for name in wrt:
                point[name].requires_grad_(graph)
            return trace(lambda: run(point), [point[n] for n in wrt], list(point.values()), limit, cut=not graph)
    except (RuntimeError, TypeError) as error:
        # Tensors without memory, modes that do not go together: nothing is proved.
        _LOG.info("no pattern: %s", error)
        return _unproved(run, leaves)


def _unproved(run: Callable[[Mapping[str, Tensor]], Sequence[Tensor | None]], leaves: Mapping[str, Tensor]) -> list[Trace]:
    return [Trace(Pattern(0 if r is None else r.numel()), Values()) for r in run(leaves)]
