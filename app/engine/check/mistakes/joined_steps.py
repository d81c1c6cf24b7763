"""A logarithm of a softmax as the one step that people differentiate it as."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import fx
from torch.nn import functional

from app.engine.check.mistakes.case import Case, moved_to
from app.engine.stepwise.point import Point, name_of, step_of


def with_log_softmax_joined(case: Case) -> Case | None:
    """The same of the program with log(softmax(x)) as `log_softmax`; None where it has none."""
    function, copy, copies = case.objective.point.function, fx.Graph(), dict[fx.Node, fx.Node]()
    copy.output(copy.graph_copy(function.graph, copies))
    logarithms = [node for node in copy.nodes if node.op == "call_function" and name_of(node) == "log" and _is_of_softmax(node)]
    for node in logarithms:
        _join(copy, node)
    if not logarithms:
        return None
    point = case.objective.point
    joined = Point(dataclasses.replace(function, held_graph=copy), point.leaves, case.seed, wide=point.wide)
    return Case(
        case.name,
        case.ours,
        case.expected,
        case.relative,
        moved_to(case.objective, joined),
        case.seed,
        loosest=case.loosest,
        written=case.written,
    )


def _is_of_softmax(node: fx.Node) -> bool:
    inside = node.args[0] if len(node.args) == 1 else None
    return (
        isinstance(inside, fx.Node)
        and inside.op == "call_function"
        and name_of(inside) == "softmax"
        and _axis(inside) is not None
    )


def _axis(softmax: fx.Node) -> int | None:
    axis: Any = softmax.kwargs.get("dim", softmax.args[1] if len(softmax.args) > 1 else None)
    return axis if isinstance(axis, int) else None


def _join(graph: fx.Graph, node: fx.Node) -> None:
    softmax, step = node.all_input_nodes[0], step_of(node)
    with graph.inserting_before(node):
        new = graph.call_function(functional.log_softmax, (softmax.args[0],), {"dim": _axis(softmax)})
    new.meta = {"step": None if step is None else dataclasses.replace(step, operation="log_softmax")}
    node.replace_all_uses_with(new)
    graph.erase_node(node)
