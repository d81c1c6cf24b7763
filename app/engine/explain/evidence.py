"""The numbers behind explain: which steps bend, jump or end near the point, and what that does to the whole Function and its gradient.

Cost, in forwards of the whole Function: 1 to take it apart; 19 for all steps, each at its own inputs (8 for large points); only where
a step is suspicious 19 to 29 for the outputs, 13 with a backward for the elements, and at most 8 for each of 4 inputs to tell who jumps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, reduce
from typing import Any, Final

import torch
from torch import Tensor

from app.catalogue.facts import operations_with, values
from app.engine.explain.findings import Finding
from app.engine.stepwise.one_sided import (
    COARSE,
    FINE,
    EvaluateAt,
    Marks,
    classify,
    displaced,
    random_direction,
    random_like,
    scale_of,
)
from app.engine.stepwise.point import REFUSALS, Hole, Point, Ref, name_of
from app.engine.stepwise.trace import StepRecord, StepTrace, is_drawn_implicitly, trace_steps
from app.engine.tensors import is_differentiable

LARGE: Final = 200_000  # elements of all tensors together: one direction from here on
HUGE: Final = 20_000_000  # and none from here on
# What a step must do so that a whole can do this.
_MARKS_FROM: Final[Mapping[str, frozenset[str]]] = {
    "jump": frozenset({"jump", "switch", "edge", "singular"}),
    "singular": frozenset({"jump", "singular", "edge"}),
    "edge": frozenset({"jump", "switch", "edge"}),
}
_KINK_CHANGE: Final = 1e-6  # a gradient that bends changes by at least this fraction of itself
_APART: Final = 1e-3  # the farthest probe is 2^-17 of the matrix: eigenvalues nearer than a hundred of that may meet
_DIRECTIONS: Final = 3  # random, each at two steps and to both sides, four gradients: 1 to 12 give the same reports (measured)
# In each the tied elements that have not won yet are raised at random: with 1 some of 5 are missed, 4 to 32 give the same (measured).
_TIE_ROUNDS: Final = 8
_LEAVES: Final = 4  # inputs that are moved alone, to see whose the jump is: each costs another look, and so many are told apart
# `renorm` divides by the norm plus 1e-7 from its limit on (measured, PyTorch 2.13.0): its value jumps there
# by so little that quotients see neither a jump nor a bend.
_RENORM: Final = "renorm"
_RENORM_JUMP: Final = 1e-6  # ten times that 1e-7


@dataclass
class Evidence:
    """What was seen around the point.

    Attributes:
        directions: how many were looked along; 0: too large, or not in float64.
        steps: step → how each of its outputs behaves at its own inputs, suspicious steps only.
        outputs: how each of the Function's outputs behaves where its inputs move; None where no step was suspicious.
        moving: the inputs that reach a suspicious step, by a derivative or beside one that leads to an output.
        kinks: input → elements at which its gradient is not continuous.
        jumps: inputs that make an output jump, or end its domain.
        gradient: input → gradient of the sum of all outputs, as PyTorch takes it.
        weighted: tensor → its cotangent, where the outputs' are random: the gradient without accidental zeros.
        checked: input → what differences of the whole showed of it (app/engine/explain/differences/cross_check.py).
    """

    trace: StepTrace
    directions: int = 0
    steps: dict[StepRecord, list[Marks]] = field(default_factory=dict)
    outputs: list[Marks] | None = None
    moving: tuple[str, ...] = ()
    kinks: dict[str, Tensor] = field(default_factory=dict)
    jumps: dict[str, Marks] = field(default_factory=dict)
    gradient: dict[str, Tensor] = field(default_factory=dict)
    weighted: dict[Ref, Tensor] = field(default_factory=dict)
    checked: dict[str, list[Finding]] = field(default_factory=dict)


def evidence_at(point: Point) -> Evidence:
    """What is seen around a point: looked for once, whoever asks. Raises what PyTorch raises in the forward."""
    return point.once(_looked)


def _looked(point: Point) -> Evidence:
    with torch.enable_grad():
        return gather(point.once(trace_steps))


def gather(trace: StepTrace) -> Evidence:
    """Spends the probes."""
    evidence = Evidence(trace)
    live = [ref for ref in dict.fromkeys(trace.outputs) if trace.live[ref]]
    if not live:
        return evidence
    ones = trace.backward({ref: torch.ones_like(trace.values[ref]) for ref in live})
    evidence.gradient = {name: ones[ref] for name, ref in trace.leaves.items() if ref in ones}
    evidence.weighted = trace.backward(weights_of(trace, live))
    size = sum(tensor.numel() for tensor in trace.values.values())
    if not trace.point.wide or size > HUGE:
        return evidence
    evidence.directions = 1 if size > LARGE else 2
    with torch.no_grad():
        evidence.steps = {record: marks for record in trace.records if (marks := _step(trace, record, evidence.directions))}
    evidence.moving = _moving(evidence, live)
    if evidence.moving:
        _look_from_outside(evidence)
    return evidence


def weights(tensor: Tensor, which: int = 0) -> Tensor:
    """Positive random cotangents, others for each `which`: with the same ones p and 1 - p cancel."""
    return random_like(tensor.abs(), 5 + 1000 * which).abs().to(tensor.dtype)  # apart from the numbers of the directions


def weights_of(trace: StepTrace, refs: Iterable[Ref]) -> dict[Ref, Tensor]:
    """The cotangents of some of the Function's outputs."""
    return {ref: weights(trace.values[ref], trace.outputs.index(ref)) for ref in refs}


def _step(trace: StepTrace, record: StepRecord, directions: int) -> list[Marks] | None:
    """How a step behaves at its own inputs; None where there is nothing suspicious."""
    moves = [bool(trace.depends[p]) and is_differentiable(t.dtype) for p, t in zip(record.parents, record.inputs, strict=True)]
    if (
        name_of(record.node) in operations_with("differentiable")
        or not any(moves)
        or not any(ref in trace.needed for ref in record.refs())
    ):
        return None
    if name_of(record.node) in operations_with("unordered") and _are_stays_apart(record.outputs[0].detach()):
        return None  # analytic: a jump is another order
    if is_drawn_implicitly(record):
        return None  # the sampler's steps jump, the derivative is not theirs
    inputs = [tensor.detach() for tensor in record.inputs]

    @cache
    def directions_of(direction: int) -> dict[int, Tensor]:
        if direction == 2:
            return {j: by + directions_of(1)[j] for j, by in directions_of(0).items()}
        # Each input its own direction: a tie of two inputs that move alike would stay a tie.
        return {j: random_direction(t, 10 * direction + j) for j, t in enumerate(inputs) if moves[j]}

    def evaluate(step: float, direction: int) -> Sequence[Tensor] | None:
        at = [displaced(t, step, directions_of(direction)[j]) if moves[j] else t for j, t in enumerate(inputs)]
        try:
            return trace.again(record, at)
        except REFUSALS:
            return None

    marks = classify(evaluate, [output.detach() for output in record.outputs], directions)
    if name_of(record.node) == _RENORM:
        marks = [replace(marks[0], kink=marks[0].kink | _at_its_limit(trace, record))]
    if (period := period_of(trace, record)) is not None:  # a jump by 1 is nothing beside 1e6
        marks = [replace(marks[0], jump=marks[0].jump | is_at_jump(record, period))]
    needed = [m if ref in trace.needed else None for m, ref in zip(marks, record.refs(), strict=True)]
    return marks if any(m is not None and bool(m.any.any()) for m in needed) else None


def _at_its_limit(trace: StepTrace, record: StepRecord) -> Tensor:
    """Where a slice that `renorm` is given has the largest norm that it leaves as it is."""
    args, kwargs = trace.arguments[record.node]
    positional: list[Any] = list(args[1:])
    p, dim, most = positional + [kwargs[name] for name in ("p", "dim", "maxnorm") if name in kwargs]
    value = record.inputs[0].detach()
    others = [axis for axis in range(value.dim()) if axis != dim % value.dim()]
    norms = torch.linalg.vector_norm(value, p, others, keepdim=True) if others else value.abs()
    near: Tensor = (norms - most).abs() <= _RENORM_JUMP * abs(most)
    return near.expand_as(value)


def _are_stays_apart(eigenvalues: Tensor) -> bool:
    """Whether the eigenvalues of each matrix are all different, by more than what is moved here."""
    gaps = (eigenvalues[..., :, None] - eigenvalues[..., None, :]).abs()
    gaps = gaps + torch.diag_embed(torch.full_like(gaps[..., 0], torch.inf))
    return bool((gaps.amin((-2, -1)) > _APART * eigenvalues.abs().amax(-1)).all()) if eigenvalues.numel() else False


def _moving(evidence: Evidence, live: Sequence[Ref]) -> tuple[str, ...]:
    trace = evidence.trace
    reached = frozenset[str]().union(*(trace.depends[p] for record in evidence.steps for p in record.parents))
    led = frozenset[str]().union(*(trace.live[ref] for ref in live))
    return tuple(name for name in trace.leaves if name in reached & led)


def _look_from_outside(evidence: Evidence) -> None:
    trace = evidence.trace
    base = [trace.values[ref] for ref in trace.outputs]
    with torch.no_grad():
        seen = classify(_mover(trace, evidence.moving), base, evidence.directions)
    has_kinks = any(bool(marks.any.any()) for marks in seen) or any(name_of(r.node) == _RENORM for r in evidence.steps)
    evidence.outputs = [_possible(evidence, marks) for marks in seen]
    if not has_kinks:
        return
    evidence.kinks = _kinks(evidence)
    if any(bool((marks.jump | marks.edge | marks.singular).any()) for marks in evidence.outputs):
        for name in evidence.moving[:_LEAVES]:
            with torch.no_grad():
                alone = evidence.outputs if len(evidence.moving) == 1 else classify(_mover(trace, (name,)), base, 1)
            for marks in (_possible(evidence, m) for m in alone):
                if bool((marks.jump | marks.edge | marks.singular).any()):
                    evidence.jumps[name] = marks


def _possible(evidence: Evidence, marks: Marks) -> Marks:
    """The marks of a whole that its steps can make: what is made of bends alone neither jumps nor has an infinite slope.

    sqrt(|x| + 1e-20) looks like a square root from afar, but none of its steps is one at its own input.
    """
    kinds = {kind for steps in evidence.steps.values() for step in steps for kind in step.kinds()}
    impossible = {name: torch.zeros_like(marks.kink) for name, makers in _MARKS_FROM.items() if not kinds & makers}
    return replace(marks, **impossible)


def _mover(trace: StepTrace, names: Sequence[str]) -> EvaluateAt:
    """The outputs where the inputs `names` are moved."""
    point = trace.point

    @cache
    def directions_of(direction: int) -> dict[str, Tensor]:
        if direction == 2:
            return {name: by + directions_of(1)[name] for name, by in directions_of(0).items()}
        return {name: random_direction(point.leaves[name], 10 * direction + 100 + k) for k, name in enumerate(names)}

    def evaluate(step: float, direction: int) -> Sequence[Tensor] | None:
        try:
            return point.run({name: displaced(point.leaves[name], step, by) for name, by in directions_of(direction).items()})
        except REFUSALS:
            return None

    return evaluate


def gradient_at(evidence: Evidence, leaves: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """The weighted gradient at other leaves, for the inputs that move; None where the point is refused."""
    trace = evidence.trace
    at = {name: leaf.detach().requires_grad_() for name, leaf in leaves.items()}
    try:
        outputs = {k: o for k, o in enumerate(trace.point.run(at)) if o.requires_grad}
        cotangents = [weights(o, k) for k, o in outputs.items()]
        gradients = torch.autograd.grad(list(outputs.values()), list(at.values()), cotangents, allow_unused=True)
    except REFUSALS:
        return None
    return {name: torch.zeros_like(at[name]) if g is None else g for name, g in zip(at, gradients, strict=True)}


def _kinks(evidence: Evidence) -> dict[str, Tensor]:
    """Elements whose gradient does not come together as the point is approached from several sides."""
    point = evidence.trace.point
    leaves = {name: point.leaves[name] for name in evidence.moving}
    here = gradient_at(evidence, leaves)
    if here is None:
        return {}
    together = _stays_apart(evidence, leaves, here, tuple(leaves))
    kinks = {}
    for name, mask in together.items():
        if len(leaves) > 1 and bool(mask.any()):
            # Where it comes together as long as the others stay, the bend is theirs: x * sign(y).
            mask = mask & _stays_apart(evidence, leaves, here, (name,))[name]
        if bool(mask.any()):
            kinks[name] = _with_ties(evidence, name, here[name], mask)
    return kinks


def _stays_apart(
    evidence: Evidence, leaves: Mapping[str, Tensor], here: Mapping[str, Tensor], moved: Sequence[str]
) -> dict[str, Tensor]:
    """Of each of `moved`, where the gradient stays apart from itself the nearer the point is, as only these inputs move."""
    near: dict[float, list[dict[str, Tensor]]] = {COARSE[2]: [], FINE[1]: []}
    for direction in range(_DIRECTIONS):
        by = {
            name: random_direction(leaf, 20 * direction + k) for k, (name, leaf) in enumerate(leaves.items()) if name in moved
        }
        for step, gradients in near.items():
            for side in (step, -step):
                gradient = gradient_at(evidence, {n: leaf + side * by[n] if n in by else leaf for n, leaf in leaves.items()})
                if gradient is not None:
                    gradients.append(gradient)
    masks = {}
    for name in moved:
        coarse, fine = (_spread_of([here[name]] + [g[name] for g in near[step]]) for step in (COARSE[2], FINE[1]))
        sizes = (g[name].abs().nan_to_num(0, 0, 0) for step in near for g in near[step])
        size = reduce(torch.maximum, sizes, torch.zeros_like(here[name].abs()))
        least = _KINK_CHANGE * size + 1e-9 * (size.max() if size.numel() else 0)
        masks[name] = (fine > least) & (fine > 0.25 * coarse)
    return masks


def _spread_of(gradients: Sequence[Tensor]) -> Tensor:
    """How far apart the gradients are, element by element; those that are not finite are left out (they are another finding)."""
    if gradients[0].is_complex():
        return _spread_of([g.real for g in gradients]) + _spread_of([g.imag for g in gradients])
    high = reduce(
        torch.maximum, (g.where(torch.isfinite(g), -torch.inf) for g in gradients)
    )  # two at a time: they may be large
    low = reduce(torch.minimum, (g.where(torch.isfinite(g), torch.inf) for g in gradients))
    return torch.where(high >= low, high - low, 0.0)


def _with_ties(evidence: Evidence, name: str, here: Tensor, mask: Tensor) -> Tensor:
    """Among many equal elements a few random directions do not let each win: the others are raised until no new one does."""
    leaf = evidence.trace.point.leaves[name]
    if leaf.is_complex():
        return mask
    for number in range(_TIE_ROUNDS):
        others = torch.isin(leaf, leaf[mask]) & ~mask
        if not bool(others.any()):
            break
        raised = leaf + COARSE[2] * scale_of(leaf) * random_like(leaf, 50 + number).abs() * others
        gradient = gradient_at(evidence, {name: raised})
        if gradient is None:
            break
        change = (gradient[name] - here).abs()
        new = others & (change > 1e-3 * (here.abs() + gradient[name].abs()))
        if not bool(new.any()):
            break
        mask = mask | new
    return mask


def period_of(trace: StepTrace, record: StepRecord) -> Tensor | None:
    """How far apart a step's jumps are, of the shape of its first tensor; None where it is no such step."""
    where = values("jumps_at").get(name_of(record.node))
    if where is None or not record.inputs or record.inputs[0].is_complex():
        return None
    x, (args, kwargs) = record.inputs[0].detach(), trace.arguments[record.node]
    if not isinstance(args[0] if args else None, Hole):
        return None  # what is divided is no tensor
    period: Any = 10.0 ** -kwargs.get("decimals", 0)
    if where == "multiples":
        period = args[1] if len(args) > 1 else kwargs["other"]
        period = trace.values[period.ref] if isinstance(period, Hole) else period
    by = torch.as_tensor(period, dtype=x.dtype, device=x.device).detach().abs()
    return by.expand_as(x) if by.ndim <= x.ndim and by.numel() in (1, x.numel()) else None


def is_at_jump(record: StepRecord, period: Tensor) -> Tensor:
    """Where a step whose jumps are a `period` apart stands on one that is not at zero: there two pieces may meet."""
    x = record.inputs[0].detach()
    is_multiple = torch.isfinite(x) & (x != 0) & (torch.fmod(x, period) == 0)
    return is_multiple if values("jumps_at")[name_of(record.node)] != "halves" else torch.zeros_like(is_multiple)


def is_coarse(record: StepRecord, period: Tensor) -> Tensor:
    """Where the next number is as far away as the next jump."""
    size = record.inputs[0].detach().abs()
    return torch.isfinite(size) & (size.nextafter(torch.full_like(size, torch.inf)) - size >= period)
