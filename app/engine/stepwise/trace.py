"""A Function taken apart at a point: every step with an autograd graph of its own, so that each path can be followed.

Knows which tensor of which step depends on which input, and whether a derivative passes. Refuses to know what that means to a person.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, fx

from app.engine.stepwise.one_sided import random_like, spread
from app.engine.stepwise.point import REFUSALS, Hole, Point, Ref, replaced
from app.engine.tensors import is_differentiable
from app.program.errors import tensors_in

# What PyTorch raises where a step has no derivative formula.
_NO_FORMULA: Final = (RuntimeError, NotImplementedError)
# A step whose derivative is zero at all of these spreads around its point, while its value changes, is piecewise constant.
_SPREADS: Final = (1.0, 10.0, 100.0)

# The cotangents of a step's inputs, given those of its outputs (None: no cotangent came).
VjpRule = Callable[["StepRecord", Sequence[Tensor | None]], Sequence[Tensor | None]]


@dataclass(frozen=True, slots=True, eq=False)
class StepRecord:
    """One step as it ran.

    Attributes:
        parents: the tensors that it was given, each once; `inputs` are detached copies that require grad where they can.
        outputs: its tensors, attached to `inputs` only.
        passes: `passes[k][j]`: a derivative leads from output k to input j.
        flat: `flat[k][j]`: that derivative is zero at the point and at others, though the value changes (round, sign).
        refused: PyTorch has no formula for some of its inputs, and says so only when asked.
    """

    node: fx.Node
    parents: tuple[Ref, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    state: tuple[Tensor, ...]
    passes: tuple[tuple[bool, ...], ...]
    flat: tuple[tuple[bool, ...], ...]
    refused: bool

    def refs(self) -> list[Ref]:
        return [(self.node, k) for k in range(len(self.outputs))]


@dataclass
class StepTrace:
    """`point.function` taken apart.

    Attributes:
        ran: the steps in the order in which they ran; picks of one of several outputs are not steps.
        values: every tensor.
        outputs: where the Function's outputs are.
        depends, live, firm: tensor → names of floating leaves on which its value depends in any way; to which a derivative
            leads; to which one leads that is not zero almost everywhere.
        needed: the tensors on which some output depends.
    """

    point: Point
    ran: list[StepRecord] = field(default_factory=list)
    values: dict[Ref, Tensor] = field(default_factory=dict)
    outputs: tuple[Ref, ...] = ()
    leaves: dict[str, Ref] = field(default_factory=dict)
    depends: dict[Ref, frozenset[str]] = field(default_factory=dict)
    live: dict[Ref, frozenset[str]] = field(default_factory=dict)
    firm: dict[Ref, frozenset[str]] = field(default_factory=dict)
    needed: set[Ref] = field(default_factory=set)
    _structure: dict[fx.Node, Any] = field(default_factory=dict)
    _shape: dict[fx.Node, tuple[Any, Any]] = field(default_factory=dict)

    @property
    def maker(self) -> dict[Ref, StepRecord]:
        """Tensor → the step that made it."""
        return {ref: ran for ran in self.ran for ref in ran.refs()}

    def again(self, ran: StepRecord, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The outputs of one step at other inputs, with the same random numbers. Raises what PyTorch raises."""
        self.point.forwards += 1 / max(1, len(self.ran))
        at = dict(zip(ran.parents, inputs, strict=True))
        args, kwargs = replaced(self._shape[ran.node], Hole, lambda hole: at[hole.ref])
        with self.point.ready():
            return list(tensors_in(self.point.call(ran.node, args, kwargs, ran.state)))

    def sweep(self, cotangents: Mapping[Ref, Tensor], override: Mapping[fx.Node, VjpRule] | None = None) -> dict[Ref, Tensor]:
        """One backward pass: the cotangent of every tensor that is reached, from those given.

        Arguments:
            override: steps whose derivative is to be replaced by another rule.
        """
        found: dict[Ref, Tensor] = dict(cotangents)
        for ran in reversed(self.ran):
            incoming = [found.get(ref) for ref in ran.refs()]
            if all(cotangent is None for cotangent in incoming):
                continue
            pull = (override or {}).get(ran.node, step_vjp)
            for parent, cotangent in zip(ran.parents, pull(ran, incoming), strict=True):
                if cotangent is not None:
                    found[parent] = found[parent] + cotangent if parent in found else cotangent
        return found


def step_vjp(ran: StepRecord, cotangents: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The step's own rule: what its autograd graph makes of `cotangents`; None for an input that none reaches."""
    at = [j for j in range(len(ran.inputs)) if any(row[j] for row in ran.passes)]
    pairs = [(o, c) for o, c in zip(ran.outputs, cotangents, strict=True) if c is not None and o.requires_grad]
    found: list[Tensor | None] = [None] * len(ran.inputs)
    if not at or not pairs:
        return found
    outputs, given = zip(*pairs, strict=True)
    gradients = torch.autograd.grad(outputs, [ran.inputs[j] for j in at], given, retain_graph=True, allow_unused=True)
    for j, gradient in zip(at, gradients, strict=True):
        found[j] = gradient
    return found


def trace_steps(point: Point) -> StepTrace:
    """Runs every step once, with its own graph, and follows every path. Raises what PyTorch raises in the forward."""
    local = StepTrace(point)
    for name, node in point.placeholders.items():
        ref = (node, 0)
        leaf = point.leaves[name]
        local._structure[node] = Hole(ref)
        local.values[ref], local.leaves[name] = leaf, ref
        own = frozenset([name]) if is_differentiable(leaf.dtype) else frozenset[str]()
        local.depends[ref] = local.live[ref] = local.firm[ref] = own
    point.forwards += 1
    with torch.enable_grad(), point.ready():
        for node in point.nodes:
            _run(local, node)
    local.outputs = tuple(local._structure[node].ref for node in point.output_nodes)
    local.needed = needed_for(local, local.outputs)
    return local


def _run(local: StepTrace, node: fx.Node) -> None:
    arguments = replaced((node.args, node.kwargs), fx.Node, local._structure.__getitem__)
    if _is_pick(node, local):
        local._structure[node] = arguments[0][0][arguments[0][1]]
        return
    parents: dict[Ref, None] = {}
    replaced(arguments, Hole, lambda hole: parents.setdefault(hole.ref))
    inputs = {ref: _leaf(local.values[ref]) for ref in parents}
    state = tuple(local.point.random_state())
    result = _called(local, node, arguments, inputs, state)
    outputs: list[Tensor] = []

    def keep(tensor: Tensor) -> Hole:
        outputs.append(tensor)
        return Hole((node, len(outputs) - 1))

    local._structure[node] = replaced(result, Tensor, keep)
    local._shape[node] = arguments
    passes, nil, refused = _connections(tuple(inputs.values()), outputs)
    ran = StepRecord(node, tuple(parents), tuple(inputs.values()), tuple(outputs), state, passes, (), refused)
    ran = StepRecord(node, ran.parents, ran.inputs, ran.outputs, state, passes, _flat(local, ran, nil), refused)
    local.ran.append(ran)
    for k, output in enumerate(outputs):
        ref = (node, k)
        local.values[ref] = output.detach()
        local.depends[ref] = frozenset[str]().union(*(local.depends[p] for p in parents))
        local.live[ref] = frozenset[str]().union(*(local.live[p] for j, p in enumerate(parents) if passes[k][j]))
        firm = (local.firm[p] for j, p in enumerate(parents) if passes[k][j] and not ran.flat[k][j])
        local.firm[ref] = frozenset[str]().union(*firm)


def _called(local: StepTrace, node: fx.Node, arguments: Any, inputs: dict[Ref, Tensor], state: Sequence[Tensor]) -> Any:
    """The step's result. Some steps refuse an argument that requires grad: then it is one that no derivative leads to."""

    def attempt() -> Any:
        args, kwargs = replaced(arguments, Hole, lambda hole: inputs[hole.ref])
        return local.point.call(node, args, kwargs, state)

    try:
        return attempt()
    except REFUSALS as error:
        floating = [ref for ref, tensor in inputs.items() if tensor.requires_grad]
        if len(floating) < 2 or "differentiable" not in str(error):
            raise
    whole = dict(inputs)
    for without in (*([ref] for ref in floating), floating):
        inputs |= whole | {ref: whole[ref].detach() for ref in without}
        try:
            return attempt()
        except REFUSALS:
            continue
    return attempt()


def _is_pick(node: fx.Node, local: StepTrace) -> bool:
    """Whether it only takes one of a step's several outputs."""
    first = node.args[0] if node.args else None
    return (
        isinstance(first, fx.Node)
        and not isinstance(local._structure[first], Hole)
        and len(node.args) == 2
        and isinstance(node.args[1], int)
    )


def _leaf(value: Tensor) -> Tensor:
    copy = value.detach()
    return copy.requires_grad_() if is_differentiable(copy.dtype) else copy


def _connections(
    inputs: Sequence[Tensor], outputs: Sequence[Tensor]
) -> tuple[tuple[tuple[bool, ...], ...], list[list[bool]], bool]:
    """For every output and input: whether a derivative passes, whether it is zero at the point; and whether PyTorch refuses."""
    at = [j for j, tensor in enumerate(inputs) if tensor.requires_grad]
    passes, nil, refused = [], [], False
    for output in outputs:
        row, zero = [False] * len(inputs), [False] * len(inputs)
        if output.requires_grad and at:
            found: list[Tensor | None] = []
            try:
                found += _gradients(output, [inputs[j] for j in at])
            except _NO_FORMULA:
                refused = True
                found += [_alone(output, inputs[j]) for j in at]
            for j, gradient in zip(at, found, strict=True):
                row[j] = gradient is not None
                zero[j] = gradient is not None and gradient.numel() > 0 and not bool((gradient != 0).any())
        passes.append(tuple(row))
        nil.append(zero)
    return tuple(passes), nil, refused


def _alone(output: Tensor, leaf: Tensor) -> Tensor | None:
    try:
        return _gradients(output, [leaf])[0]
    except _NO_FORMULA:
        return None


def _gradients(output: Tensor, inputs: Sequence[Tensor]) -> Sequence[Tensor | None]:
    """One VJP with a random cotangent, for ones are blind to some steps (softmax)."""
    return torch.autograd.grad(output, inputs, random_like(output, 1), retain_graph=True, allow_unused=True)


def _flat(local: StepTrace, ran: StepRecord, nil: list[list[bool]]) -> tuple[tuple[bool, ...], ...]:
    return tuple(tuple(zero and _is_flat(local, ran, k, j) for j, zero in enumerate(row)) for k, row in enumerate(nil))


def _is_flat(local: StepTrace, ran: StepRecord, k: int, j: int) -> bool:
    """Whether output k's derivative with respect to input j is zero wherever we look, although the value moves."""
    changed = False
    for number, width in enumerate(_SPREADS):
        inputs = [tensor.detach() for tensor in ran.inputs]
        inputs[j] = spread(inputs[j], width, number).requires_grad_()
        try:
            output = local.again(ran, inputs)[k]
            if output.shape != ran.outputs[k].shape or not output.requires_grad:
                return False
            (gradient,) = _gradients(output, [inputs[j]])
        except REFUSALS:
            continue
        if gradient is None or bool((gradient != 0).any()):
            return False
        changed = changed or not torch.equal(output, ran.outputs[k])
    return changed


def needed_for(local: StepTrace, outputs: Iterable[Ref]) -> set[Ref]:
    """The tensors on which the values of `outputs` depend, these included."""
    needed = set(outputs)
    for ran in reversed(local.ran):
        if any(ref in needed for ref in ran.refs()):
            needed.update(ran.parents)
    return needed
