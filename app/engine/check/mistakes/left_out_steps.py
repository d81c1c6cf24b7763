"""Mistakes that are the right derivative of a program that lacks something: an operand, a step, an argument, or a sign."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import torch
from torch import Tensor, fx
from torch.autograd.graph import Node

from app.catalogue.facts import operations_with
from app.catalogue.read import find
from app.engine.check.mistakes.altered_programs import Change, is_number, programs_that_fit, with_argument, with_target
from app.engine.check.mistakes.case import Case, Claim, place_of
from app.engine.explain.findings import operation_of
from app.engine.stepwise.point import name_of
from app.engine.stepwise.trace import StepRecord, VjpRule, step_vjp
from app.errors import PullbackError

_SUMS: Final = {"add": (torch.sub, "-"), "sub": (torch.add, "+")}
_PRODUCTS: Final = operations_with("combines", "product")
_QUOTIENTS: Final = operations_with("wrong_rules", "unsquared_divisor")
_EDGES: Final = 40  # of a step's own graph: its inner terms; `kl_divergence` of two Gaussians has some 20
_FACTORS: Final = ((0.0, "missing_term", "A term is missing"), (-1.0, "sign_of_term", "The sign of one term is wrong"))
_WHICH: Final = ("first", "second")
# Of these another hypothesis speaks: along which axis, and which reduction.
_OTHERS: Final = frozenset({"dim", "axis", "keepdim", "reduction", "eps", "unbiased", "correction", "dtype"})


def left_out(case: Case) -> Iterator[Claim]:
    """Every program that lacks one thing and has the client's derivative."""
    return programs_that_fit(case, (_operand, _opposite, _step, _default, _renamed))


def inner_term(case: Case) -> Iterator[Claim]:
    """A term is left out, or has the opposite sign, within a step that PyTorch makes of several: a likelihood, a loss."""
    for record in case.trace.records:
        edges = [(node, edge) for node in _inner_nodes(record) for edge in range(len(node.next_functions))]
        for node, edge in edges[:_EDGES]:
            for by, code, text in _FACTORS:
                if case.fits(case.under({record.node: _through(node, edge, by)})):
                    inner = node.name().removesuffix("0").removesuffix("Backward").lower()
                    where = (
                        f"within `{operation_of(record.node)}`{place_of(record.node)}, on the way back through its `{inner}`"
                    )
                    yield Claim(code, f"{text} {where}.")
                    return


def _inner_nodes(record: StepRecord) -> list[Node]:
    """The nodes of a step's own autograd graph, from its outputs on; none of a step that is one."""
    nodes = dict.fromkeys(output.grad_fn for output in record.outputs if output.grad_fn is not None)
    queue = list(nodes)
    while queue:
        for node, _ in queue.pop().next_functions:
            if node is not None and node.next_functions and node not in nodes and len(nodes) < _EDGES:
                nodes[node] = None
                queue.append(node)
    return list(nodes) if len(nodes) > 1 else []


def _through(node: Node, edge: int, by: float) -> VjpRule:
    """The step's own rule with what one of its inner nodes gives one of its arguments times a number."""

    def turned(gradients: tuple[Tensor | None, ...], _: Any) -> tuple[Tensor | None, ...]:
        return tuple(g if g is None or k != edge else g * by for k, g in enumerate(gradients))

    def rule(record: StepRecord, cotangents: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        handle = node.register_hook(turned)
        try:
            return step_vjp(record, cotangents)
        finally:
            handle.remove()

    return rule


def _operand(node: fx.Node) -> Iterator[Change]:
    """One of the two operands of a sum or a product is not there, neither in the value nor in the derivative."""
    if name_of(node) not in (*_SUMS, *_PRODUCTS, *_QUOTIENTS) or len(node.args) != 2:
        return
    for gone, rest in ((1, node.args[0]), (0, node.args[1])):
        if not isinstance(rest, fx.Node) or (gone == 0 and name_of(node) in _QUOTIENTS):
            continue
        own = node.args[gone]
        what = f"The {own:g}" if is_number(own) else f"The {_WHICH[gone]} operand"
        change = _negated if gone == 0 and name_of(node) == "sub" else _replaced_by(1 - gone)
        yield "left_out", f"{what} of `{operation_of(node)}` is left out", change


def _opposite(node: fx.Node) -> Iterator[Change]:
    """A sum where the program has a difference, or the other way round."""
    if name_of(node) in _SUMS and len(node.args) == 2:
        target, sign = _SUMS[name_of(node)]
        yield "sign_of_term", f"`{sign}` is taken where the program has `{operation_of(node)}`", with_target(target)


def _step(node: fx.Node) -> Iterator[Change]:
    """A step that keeps the shape of its one tensor is not there."""
    if (
        len(node.all_input_nodes) != 1
        or name_of(node) in (*_SUMS, *_PRODUCTS, *_QUOTIENTS, "neg")
        or node.args[:1] != (node.all_input_nodes[0],)
    ):
        return
    value, entering = node.meta.get("val"), node.all_input_nodes[0].meta.get("val")
    if isinstance(value, Tensor) and isinstance(entering, Tensor) and value.shape == entering.shape:
        yield "left_out", f"`{operation_of(node)}` is left out", _replaced_by(0)
        yield "applied_twice", f"`{operation_of(node)}` is applied twice", _applied_twice


def _applied_twice(graph: fx.Graph, node: fx.Node) -> None:
    with graph.inserting_before(node):
        once = graph.call_function(node.target, node.args, node.kwargs)  # type: ignore[arg-type]  # a call, as all steps here
    once.meta = dict(node.meta)
    node.args = (once, *node.args[1:])


def _renamed(node: fx.Node) -> Iterator[Change]:
    """A tensor that the operation takes by name is taken as another of its arguments: weights of samples for those of classes."""
    try:
        own = inspect.signature(node.target).parameters  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return
    for key, value in node.kwargs.items():
        for name, other in own.items():
            if (
                isinstance(value, fx.Node)
                and name not in node.kwargs
                and other.default is None
                and "Tensor" in str(other.annotation)
            ):
                yield (
                    "other_argument",
                    f"`{key}` of `{operation_of(node)}` is taken as its `{name}`",
                    _with_other_name(key, name),
                )


def _with_other_name(key: str, name: str) -> Callable[[fx.Graph, fx.Node], None]:
    def change(graph: fx.Graph, node: fx.Node) -> None:
        node.kwargs = {name if k == key else k: value for k, value in node.kwargs.items()}

    return change


def _default(node: fx.Node) -> Iterator[Change]:
    """An argument is forgotten: the operation is differentiated with its default."""
    names = _parameters(node)
    for position, (name, default) in enumerate(names):
        if name in _OTHERS or default is inspect.Parameter.empty:
            continue
        text = f"`{operation_of(node)}` is differentiated with its default `{name}`"
        if name in node.kwargs and not _is_same(node.kwargs[name], default):
            yield "default_argument", text, _without_keyword(name)
        elif 0 < position < len(node.args) and not _is_same(node.args[position], default):
            yield "default_argument", text, with_argument(position, default)


def _parameters(node: fx.Node) -> list[tuple[str, Any]]:
    """The parameters of what a step calls with their defaults; its keywords alone where neither PyTorch nor the catalogue tells them."""
    try:
        return [(name, of.default) for name, of in inspect.signature(node.target).parameters.items()]  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return _parameters_of_catalogue(node) or [(name, None) for name in node.kwargs]


def _parameters_of_catalogue(node: fx.Node) -> list[tuple[str, Any]]:
    """Those of an operation that is called in one way alone, so that places tell names."""
    try:
        signatures = find(operation_of(node)).signatures
    except PullbackError:
        return []
    arguments = signatures[0].arguments if len(signatures) == 1 else ()
    return [(a.name, inspect.Parameter.empty if a.required else a.default) for a in arguments]


def _is_same(own: Any, default: Any) -> bool:
    return not isinstance(own, fx.Node) and own == default


def _replaced_by(position: int) -> Callable[[fx.Graph, fx.Node], None]:
    def change(graph: fx.Graph, node: fx.Node) -> None:
        node.replace_all_uses_with(node.args[position])  # type: ignore[arg-type]  # a node, as was asked before

    return change


def _negated(graph: fx.Graph, node: fx.Node) -> None:
    node.target, node.args = torch.neg, (node.args[1],)


def _without_keyword(name: str) -> Callable[[fx.Graph, fx.Node], None]:
    def change(graph: fx.Graph, node: fx.Node) -> None:
        node.kwargs = {key: value for key, value in node.kwargs.items() if key != name}

    return change
