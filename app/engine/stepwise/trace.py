"""A Function taken apart at a point: every step with an autograd graph of its own, so that each path can be followed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final

import torch
from torch import Tensor, fx

from app.catalogue.facts import operations_with
from app.catalogue.kernels.unsafe_values import UnsafeValuesError
from app.engine.stepwise.flatness import LookAt, is_constant_between_jumps
from app.engine.stepwise.one_sided import perturbed, random_like
from app.engine.stepwise.point import REFUSALS, Hole, Interpreter, Point, Ref, name_of, step_of
from app.engine.tensors import is_differentiable
from app.program.errors import tensors_in
from app.program.semantics.graph_values import mapped

# What PyTorch raises where a step has no derivative formula.
_NO_FORMULA: Final = (RuntimeError, NotImplementedError)

# And where its formula solves with a singular matrix: a class that torch.linalg has without naming it among its own.
_UNSOLVABLE: Final[type[RuntimeError]] = vars(torch.linalg)["LinAlgError"]

# Steps that write into their first tensor; where they write all of it, nothing of it is left, and no derivative leads there.
_WRITING: Final = operations_with("overwrites") | {"copy_"}

# The backward functions of `torch._standard_gamma` and `distributions.Dirichlet`, on which Beta, Chi2, StudentT and others are built.
_SAMPLERS: Final = ("StandardGammaBackward", "_DirichletBackward")
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
        records: the steps in the order in which they ran; picks of one of several outputs are not steps.
        values: every tensor.
        outputs: where the Function's outputs are.
        depends, live, firm: tensor → names of floating leaves on which its value depends in any way; to which a derivative
            leads; to which one leads that is not zero almost everywhere.
        needed: the tensors on which some output depends.
        arguments: step → its arguments, with a `Hole` in the place of every tensor.
    """

    point: Point
    records: list[StepRecord] = field(default_factory=list)
    values: dict[Ref, Tensor] = field(default_factory=dict)
    outputs: tuple[Ref, ...] = ()
    leaves: dict[str, Ref] = field(default_factory=dict)
    depends: dict[Ref, frozenset[str]] = field(default_factory=dict)
    live: dict[Ref, frozenset[str]] = field(default_factory=dict)
    firm: dict[Ref, frozenset[str]] = field(default_factory=dict)
    needed: set[Ref] = field(default_factory=set)
    arguments: dict[fx.Node, tuple[Any, Any]] = field(default_factory=dict)

    @cached_property
    def maker(self) -> dict[Ref, StepRecord]:
        """Tensor → the step that made it; for those who read a trace that is whole, as `last_of_line` is."""
        return {ref: record for record in self.records for ref in record.refs()}

    @cached_property
    def last_of_line(self) -> dict[tuple[int, str], fx.Node]:
        """A line of the program, by its number and text → the last step that stands in it."""
        placed = [(step, record.node) for record in self.records if (step := step_of(record.node)) is not None]
        return {(step.line, step.text): node for step, node in placed}

    def again(self, record: StepRecord, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The outputs of one step at other inputs, with the same random numbers. Raises what PyTorch raises."""
        self.point.forwards += 1 / max(1, len(self.records))
        at = dict(zip(record.parents, inputs, strict=True))
        args, kwargs = mapped(self.arguments[record.node], Hole, lambda hole: at[hole.ref])
        with self.point.ready():
            return list(tensors_in(self.point.call(record.node, args, kwargs, record.state)))

    def backward(
        self, cotangents: Mapping[Ref, Tensor], override: Mapping[fx.Node, VjpRule] | None = None
    ) -> dict[Ref, Tensor]:
        """One backward pass: the cotangent of every tensor that is reached, from those given.

        Arguments:
            override: steps whose derivative is to be replaced by another rule.
        """
        reached: dict[Ref, Tensor] = dict(cotangents)
        for record in reversed(self.records):
            incoming = [reached.get(ref) for ref in record.refs()]
            if all(cotangent is None for cotangent in incoming):
                continue
            rule = (override or {}).get(record.node, step_vjp)
            for parent, cotangent in zip(record.parents, rule(record, incoming), strict=True):
                if cotangent is not None:
                    reached[parent] = reached[parent] + cotangent if parent in reached else cotangent
        return reached


def step_vjp(record: StepRecord, cotangents: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The step's own rule: what its autograd graph makes of `cotangents`; None for an input that none reaches."""
    at = [j for j in range(len(record.inputs)) if any(row[j] for row in record.passes)]
    pairs = [(o, c) for o, c in zip(record.outputs, cotangents, strict=True) if c is not None and o.requires_grad]
    rows: list[Tensor | None] = [None] * len(record.inputs)
    if not at or not pairs:
        return rows
    outputs, outgrads = zip(*pairs, strict=True)
    inputs = [record.inputs[j] for j in at]
    try:
        gradients = torch.autograd.grad(outputs, inputs, outgrads, retain_graph=True, allow_unused=True)
    except RuntimeError as error:
        # A rule may solve with the eigenvectors, which a defective matrix has too few of.
        if not depends_on_phase(error) and not isinstance(error, _UNSOLVABLE):
            raise
        gradients = tuple(torch.full_like(x, torch.nan) for x in inputs)  # there is none
    for j, gradient in zip(at, gradients, strict=True):
        rows[j] = gradient
    return rows


def depends_on_phase(error: BaseException) -> bool:
    """Whether PyTorch refuses cotangents of complex eigenvectors because they depend on the factors e^{iφ}, which are arbitrary."""
    return "up to multiplication by e^{i phi}" in str(error)


def trace_steps(point: Point) -> StepTrace:
    """Runs every step once, with its own graph, and follows every path. Raises what PyTorch raises in the forward."""
    trace = StepTrace(point)
    point.forwards += 1
    with torch.enable_grad(), point.ready():
        outputs = _Tracer(trace).run(*point.function.leaves)
    trace.outputs = tuple(hole.ref for hole in outputs)
    trace.needed = needed_for(trace, trace.outputs)
    return trace


class _Tracer(Interpreter):
    """Walks the graph with a `Hole` in the place of every tensor; it is called with the names of the leaves."""

    def __init__(self, trace: StepTrace) -> None:
        super().__init__(trace.point)
        self._trace = trace

    def run_node(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            return self._leaf(node, super().run_node(node))
        if node.op == "output":
            return super().run_node(node)
        arguments = self.fetch_args_kwargs_from_env(node)
        return arguments[0][0][arguments[0][1]] if _is_pick(node, arguments[0]) else self._step(node, arguments)

    def _leaf(self, node: fx.Node, name: str) -> Hole:
        trace, ref = self._trace, (node, 0)
        trace.values[ref], trace.leaves[name] = self.point.leaves[name], ref
        own = frozenset([name]) if is_differentiable(self.point.leaves[name].dtype) else frozenset[str]()
        trace.depends[ref] = trace.live[ref] = trace.firm[ref] = own
        return Hole(ref)

    def _step(self, node: fx.Node, arguments: Any) -> Any:
        trace = self._trace
        parents: dict[Ref, None] = {}
        mapped(arguments, Hole, lambda hole: parents.setdefault(hole.ref))
        inputs = {ref: _leaf(trace.values[ref]) for ref in parents}
        state = tuple(self.point.random_state())
        result = _called(trace, node, arguments, inputs, state)
        outputs: list[Tensor] = []

        def keep(tensor: Tensor) -> Hole:
            outputs.append(tensor)
            return Hole((node, len(outputs) - 1))

        structure = mapped(result, Tensor, keep)
        trace.arguments[node] = arguments
        passes, nil, refused = _connections(tuple(inputs.values()), outputs)
        record = StepRecord(node, tuple(parents), tuple(inputs.values()), tuple(outputs), state, passes, (), refused)
        if _overwrites(trace, record, nil):
            record = replace(record, passes=((False, *passes[0][1:]),))
        record = replace(record, flat=_flat(trace, record, nil))
        trace.records.append(record)
        for k, output in enumerate(outputs):
            ref = (node, k)
            trace.values[ref] = output.detach()
            trace.depends[ref] = frozenset[str]().union(*(trace.depends[p] for p in parents))
            trace.live[ref] = frozenset[str]().union(*(trace.live[p] for j, p in enumerate(parents) if record.passes[k][j]))
            firm = (trace.firm[p] for j, p in enumerate(parents) if record.passes[k][j] and not record.flat[k][j])
            trace.firm[ref] = frozenset[str]().union(*firm)
        return structure


def _is_pick(node: fx.Node, args: Sequence[Any]) -> bool:
    """Whether a call only takes one of a step's several outputs; `cat([a, b], 0)` looks like it but is given a list of nodes."""
    return (
        len(args) == 2 and isinstance(node.args[0], fx.Node) and isinstance(args[0], list | tuple) and isinstance(args[1], int)
    )


def _called(trace: StepTrace, node: fx.Node, arguments: Any, inputs: dict[Ref, Tensor], state: Sequence[Tensor]) -> Any:
    """The step's result. Some steps refuse an argument that requires grad: then it is one that no derivative leads to."""

    def attempt() -> Any:
        args, kwargs = mapped(arguments, Hole, lambda hole: inputs[hole.ref])
        return trace.point.call(node, args, kwargs, state)

    try:
        return attempt()
    except REFUSALS as error:
        floating = [ref for ref, tensor in inputs.items() if tensor.requires_grad]
        is_for_none = "does not support automatic differentiation" in str(error)  # of complex numbers
        if not is_for_none and (len(floating) < 2 or "differentiable" not in str(error)):
            raise
    whole = dict(inputs)
    inputs |= {ref: whole[ref].detach() for ref in floating}
    result = attempt()
    for ref in floating:  # as many as it takes: `batch_norm` refuses its running mean and its running variance
        inputs[ref] = whole[ref]
        try:
            result = attempt()
        except REFUSALS:
            inputs[ref] = whole[ref].detach()
    return result


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
            gradients: list[Tensor | None] = []
            try:
                gradients += _gradients(output, [inputs[j] for j in at])
            except UnsafeValuesError:  # there is a formula, and these values are refused to it
                raise
            except _NO_FORMULA as error:
                if depends_on_phase(error):  # as a random cotangent does, and others need not
                    for j in at:
                        row[j] = True
                    passes.append(tuple(row))
                    nil.append(zero)
                    continue
                refused = True
                gradients += [_alone(output, inputs[j]) for j in at]
            for j, gradient in zip(at, gradients, strict=True):
                row[j] = gradient is not None
                zero[j] = gradient is not None and gradient.numel() > 0 and not bool((gradient != 0).any())
        passes.append(tuple(row))
        nil.append(zero)
    return tuple(passes), nil, refused


def writes(node: fx.Node) -> bool:
    """Whether a step writes into its first tensor."""
    return name_of(node) in _WRITING


def _overwrites(trace: StepTrace, record: StepRecord, nil: list[list[bool]]) -> bool:
    """Whether a step writes over all of its first tensor, wherever that is."""
    if not writes(record.node) or len(record.outputs) != 1 or not record.inputs or not nil[0][0]:
        return False
    others = [tensor.detach() for tensor in record.inputs[1:]]
    where = [
        parent for parent, tensor in zip(record.parents, record.inputs, strict=True) if not is_differentiable(tensor.dtype)
    ]
    if any(trace.depends[parent] for parent in where):  # at another point it writes elsewhere
        return False
    try:
        (output,) = trace.again(record, [perturbed(record.inputs[0], 1.0, 3), *others])
    except REFUSALS:
        return False
    return output.shape == record.outputs[0].shape and torch.equal(output, record.outputs[0].detach())


def _alone(output: Tensor, leaf: Tensor) -> Tensor | None:
    try:
        return _gradients(output, [leaf])[0]
    except _NO_FORMULA:
        return None


def _gradients(output: Tensor, inputs: Sequence[Tensor]) -> Sequence[Tensor | None]:
    """One VJP with a random cotangent, for ones are blind to some steps (softmax)."""
    return torch.autograd.grad(output, inputs, random_like(output, 1), retain_graph=True, allow_unused=True)


def _flat(trace: StepTrace, record: StepRecord, nil: list[list[bool]]) -> tuple[tuple[bool, ...], ...]:
    return tuple(tuple(zero and _is_flat(trace, record, k, j) for j, zero in enumerate(row)) for k, row in enumerate(nil))


def _is_flat(trace: StepTrace, record: StepRecord, k: int, j: int) -> bool:
    """Whether output k's derivative with respect to input j is zero wherever we look, although the value moves.

    At the other inputs as they are, and at others: atan2(0, x) is 0 or pi, atan2(0.1, x) is not.
    """
    if name_of(record.node) in operations_with("flat"):
        return not record.inputs[j].is_complex()
    own = [tensor.detach() for tensor in record.inputs]
    moved = [perturbed(t, 1.0, 7 + i) if is_differentiable(t.dtype) and i != j else t for i, t in enumerate(own)]
    surroundings = [own] if all(a is b for a, b in zip(own, moved, strict=True)) else [own, moved]
    return all(is_constant_between_jumps(_look_of(trace, record, k, j, inputs), own[j]) for inputs in surroundings)


def _look_of(trace: StepTrace, record: StepRecord, k: int, j: int, inputs: Sequence[Tensor]) -> LookAt:
    def look(at: Tensor) -> tuple[Tensor, bool] | None:
        own = at.clone().requires_grad_()
        try:
            output = trace.again(record, [*inputs[:j], own, *inputs[j + 1 :]])[k]
            if not output.requires_grad:
                return None
            (gradient,) = _gradients(output, [own])
        except REFUSALS:
            return None
        return output.detach(), gradient is not None and not bool((gradient != 0).any())

    return look


def is_drawn_implicitly(record: StepRecord) -> bool:
    """Whether samples are differentiated implicitly, through the distribution, and not through the steps that drew them."""
    if not record.state:
        return False
    seen, ahead = set[Any](), [output.grad_fn for output in record.outputs if output.grad_fn is not None]
    while ahead:
        function = ahead.pop()
        if function in seen:
            continue
        seen.add(function)
        if any(name in function.name() for name in _SAMPLERS):
            return True
        ahead += [before for before, _ in function.next_functions if before is not None]
    return False


def needed_for(trace: StepTrace, outputs: Iterable[Ref]) -> set[Ref]:
    """The tensors on which the values of `outputs` depend, these included."""
    needed = set(outputs)
    for record in reversed(trace.records):
        if any(ref in needed for ref in record.refs()):
            needed.update(record.parents)
    return needed
