"""Witnesses: numbers computed beside a query's results, which are finite where nothing besides these need be said of them.

A note may hang on the numbers of a step: that it overflows, that its matrix is nearly singular. Where a bound that costs little excludes
it, a recipe may answer; where it does not, the whole road decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from app.catalogue.facts import operations_with
from app.engine.planning.prepare import Prepared
from app.engine.stepwise.bounds import BoundedStep, bounded_steps
from app.engine.stepwise.degenerate_points import may_be_twice_degenerate
from app.engine.stepwise.overflow import hides_overflow, step_dtypes
from app.engine.stepwise.point import name_of
from app.engine.tensors import fourth_powers, is_differentiable, is_narrow
from app.program.errors import tensors_in
from app.program.function import Function
from app.program.graph_runner import GraphRunner
from app.query import SECOND, Query

Results = dict[fx.Node, Any]
# (the results of the steps that are watched; the outputs) → a number that is finite where nothing is to be said.
Witness = Callable[[Results, Sequence[Tensor]], Tensor]


class Witnessed:
    """A Function's call that gives its outputs, and behind them the witnesses, which carry no derivative.

    Arguments:
        watched: the steps whose results the witnesses look at.
    """

    def __init__(self, function: Function, watched: Sequence[fx.Node], witnesses: Sequence[Witness]) -> None:
        self._count = len(function.outputs)
        self._watched = watched
        self._witnesses = witnesses
        self._run = GraphRunner(function.graph, function.dtype, watched=watched)

    def __call__(self, *leaves: Tensor) -> tuple[Tensor, ...]:
        results = self._run(*leaves)
        outputs = results[: self._count]
        watched = dict(zip(self._watched, results[self._count :], strict=True))
        with torch.no_grad():
            return outputs + tuple([witness(watched, outputs) for witness in self._witnesses])


class Watch(NamedTuple):
    """What a recipe calls, and how many `witnesses` stand behind the outputs."""

    call: Callable[..., tuple[Tensor, ...]]
    witnesses: int


def watch(query: Query, prepared: Prepared, *, is_binary: bool) -> Watch | None:
    """The Function of a query with the witnesses of all that may be noted of its steps; None where no bound of that costs little.

    Arguments:
        is_binary: the numbers that come may be NaN or infinite.
    """
    function = prepared.function
    watched: dict[fx.Node, None] = {}
    witnesses: list[Witness] = []
    if prepared.wrt:
        matrices = bounded_steps(function, function.graph, prepared.wrt)
        if matrices is None or (SECOND & set(query.want) and may_be_twice_degenerate(function.graph)):
            return None
        watched.update(dict.fromkeys(node for step in matrices for node in (step.matrix, step.node)))
        witnesses += [partial(_bounded, step) for step in matrices]
        may_overflow = _may_overflow(query, prepared)  # a finite number that came may be infinite there
        steps = [node for node in function.graph.nodes if node.op == "call_function"]
        if "outputs" not in query.want and (is_binary or may_overflow or not all(map(is_bounded, steps))):
            floating = [output.dtype.is_floating_point for output in prepared.plan.outputs]
            witnesses += [partial(_total_of_output, index) for index, is_floating in enumerate(floating) if is_floating]
        if may_overflow:
            _watch_overflow(function, watched, witnesses)
    return Watch(Witnessed(function, list(watched), witnesses) if witnesses else function.call, len(witnesses))


def is_bounded(node: fx.Node) -> bool:
    """Whether a step makes finite numbers of finite ones: as it is asked (`round(x, 5)` multiplies first), and of what it is asked."""
    asked = (*node.args[1:], *node.kwargs.values())
    is_plain = not any(isinstance(value, torch.dtype) for value in asked) and not (name_of(node) == "round" and asked)
    real = not any(value.is_complex() for each in node.all_input_nodes for value in tensors_in(each.meta.get("val")))
    return name_of(node) in operations_with("bounded") and is_plain and real


def _total_of_output(index: int, _: Results, outputs: Sequence[Tensor]) -> Tensor:
    """Of an output of which derivatives are wanted alone: one that is NaN carries a note, however finite these are."""
    return outputs[index].sum()


def _bounded(step: BoundedStep, results: Results, _: Sequence[Tensor]) -> Tensor:
    return step.bound(results)


def _may_overflow(query: Query, prepared: Prepared) -> bool:
    """Whether a step that overflows in a narrow dtype, and not in float64, is noted: where derivatives are wanted."""
    dtypes = step_dtypes(prepared.function.pattern).union(prepared.dtypes.values())
    return set(query.want) != {"outputs"} and any(map(is_narrow, dtypes))


def _watch_overflow(function: Function, watched: dict[fx.Node, None], witnesses: list[Witness]) -> None:
    """A witness for each step that may overflow; of views, whose numbers are another's, there is none."""
    for node in function.graph.nodes:
        floating = [value for value in tensors_in(node.meta.get("val")) if is_differentiable(value.dtype)]
        if node.op == "call_function" and not is_bounded(node) and not all(value._is_view() for value in floating):
            watched[node] = None
            witnesses.append(partial(_total, node))
        if hides_overflow(node):
            watched.update(dict.fromkeys(node.all_input_nodes))
            witnesses.append(partial(_total_of_powers, node))


def _total_of_powers(node: fx.Node, results: Results, _: Sequence[Tensor]) -> Tensor:
    """Of what a step is given: it is finite where none of that is so large that a number within the step overflows."""
    floating = [
        value for source in node.all_input_nodes for value in tensors_in(results[source]) if is_differentiable(value.dtype)
    ]
    return torch.stack([fourth_powers(value).to(torch.float64) for value in floating]).sum()


def _total(node: fx.Node, results: Results, _: Sequence[Tensor]) -> Tensor:
    """Of the numbers of a step, which is not finite where one of them is not."""
    sums = [value.sum() for value in tensors_in(results[node]) if is_differentiable(value.dtype)]
    return sums[0] if len(sums) == 1 else torch.stack([each.to(torch.float64) for each in sums]).sum()
