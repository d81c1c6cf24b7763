"""Mistakes of the chain rule: a step passed over, one path alone, a value in another's place."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor, fx

from app.engine.check.mistakes.case import Case, Claim, place_of
from app.engine.check.mistakes.rules.wrong_rules import dropped
from app.engine.check.objective import Objective
from app.engine.explain.findings import operation_of
from app.engine.stepwise.point import REFUSALS, Ref, step_of
from app.engine.stepwise.trace import StepRecord, VjpRule, step_vjp

_ANY: Final = 12  # values of the program that are tried in the place of one: more only cost time
_NEAR: Final = 1e-6  # a step from a value that crosses no kink unless it is at one
_GENTLY: Final = 1e-2  # of a derivative, over such a step; where it jumps at a kink it is half of itself and more
_RUN: Final = 4  # steps that are passed over together: a layer has a product, a bias, an activation, a normalisation
_USES: Final = 3  # of a value: of two, each alone is the other left out, which another hypothesis tries

# What a value may be mistaken for: the record, which of its inputs, and those that stand at the same place of the text.
Relation = Callable[[Case, StepRecord, int, Sequence[StepRecord]], Ref | None]


def cotangent(case: Case) -> Iterator[Claim]:
    """The client's cotangent is not applied, or applied twice; the product with the Jacobian itself."""
    objective = case.objective
    if not isinstance(objective, Objective) or objective.combined or objective.conjugate:
        return
    ones = tuple({name: torch.ones_like(c) for name, c in row.items()} for row in objective.rows)
    if all(bool((c == 1).all()) for row in objective.rows for c in row.values()):
        return
    twice = tuple({name: c * c for name, c in row.items()} for row in objective.rows)
    for rows, text in (
        (ones, "The cotangent is not applied: yours is the derivative of the sum of the outputs."),
        (twice, "The cotangent is applied twice."),
    ):
        other = replace(objective, rows=rows).derivative()[case.name].reshape(case.ours.shape)
        if case.fits(other) and case.elements(other) > 1:
            yield Claim("cotangent", text)
    forward = _forward(case, objective)
    if case.fits(forward) and case.elements(case.expected) > 1:
        yield Claim("cotangent", "Yours is J·c, as forward mode gives it with the cotangent for a tangent: a VJP is Jᵀ·c.")


def _forward(case: Case, objective: Objective) -> Tensor | None:
    """J·c, where the one cotangent has the shape of the input."""
    (name, c), *others = objective.rows[0].items()
    leaf = objective.point.leaves[case.name]
    if others or len(objective.rows) > 1 or c.shape != leaf.shape or leaf.is_complex() or c.is_complex():
        return None
    with torch.enable_grad():
        x, u = leaf.detach().clone().requires_grad_(), torch.zeros_like(c).requires_grad_()
        output = dict(zip(objective.point.function.outputs, objective.point.run({case.name: x}), strict=True))[name]
        (row,) = torch.autograd.grad(output, x, u, create_graph=True)
        (product,) = torch.autograd.grad(row, u, c)
    return product.reshape(case.ours.shape)


def passed_over(case: Case) -> Iterator[Claim]:
    """A step gives one of its inputs the gradient that comes to it, as it is: here alone, whenever its place of the text is passed, or with
    those before it."""
    for records in (*_together(case), *_runs(case)):
        first = records[0]
        rules = {record.node: _passing(j) for record in records if (j := _entry(case, record)) is not None}
        if len(rules) == len(records) and case.fits(case.under(rules)):
            text = f"The derivative of `{operation_of(first.node)}` is missing{place_of(first.node)}"
            more = (
                ""
                if step_of(records[-1].node) == step_of(first.node)
                else f", with that of what it takes{place_of(records[-1].node)}"
            )
            yield Claim("missing_factor", f"{text}{more}: the chain rule multiplies by it there.")
            return


def _entry(case: Case, record: StepRecord) -> int | None:
    """The input by which a derivative comes to a step and that has the shape of its output."""
    shape = record.outputs[0].shape
    live = (j for j, parent in enumerate(record.parents) if case.name in case.trace.live[parent])
    return next((j for j in live if record.inputs[j].shape == shape), None)


def _runs(case: Case) -> Iterator[list[StepRecord]]:
    """Steps one after the other, the last first: a layer of a network."""
    maker = case.trace.maker
    for record in case.trace.records:
        run = [record]
        while (
            len(run) < _RUN
            and (j := _entry(case, run[-1])) is not None
            and (before := maker.get(run[-1].parents[j])) is not None
        ):
            run.append(before)
            yield list(run)


def _passing(j: int) -> VjpRule:
    def rule(record: StepRecord, cotangents: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        gradients = list(step_vjp(record, cotangents))
        return [cotangents[0] if k == j else gradient for k, gradient in enumerate(gradients)]

    return rule


def _together(case: Case) -> Iterator[list[StepRecord]]:
    """Each step on the way from the input alone; then all that stand at one place of the text, as the turns of a loop do."""
    live = [r for r in case.trace.records if any(case.name in case.trace.live[parent] for parent in r.parents)]
    for record in live:
        yield [record]
    places: dict[Any, list[StepRecord]] = defaultdict(list)
    for record in live:
        places[step_of(record.node)].append(record)
    for step, records in places.items():
        if step is not None and len(records) > 1:
            yield records


def on_the_way(case: Case) -> Iterator[Claim]:
    """The derivative by a value that the program makes of the input."""
    objective, trace = case.objective, case.trace
    if not isinstance(objective, Objective) or objective.combined or case.elements(case.expected) < 2:
        return
    where = dict(zip(objective.point.function.outputs, trace.outputs, strict=True))
    reached = [trace.backward({where[name]: c for name, c in row.items()}) for row in objective.rows]
    for record in reversed(trace.records):
        ref = (record.node, 0)
        shape = (*objective.lead, *trace.values[ref].shape)
        if ref in trace.outputs or case.name not in trace.live[ref] or shape != tuple(case.expected.shape):
            continue
        rows = [row[ref] for row in reached if ref in row]
        if len(rows) == len(reached) and case.fits(torch.stack(rows).reshape(shape)):
            yield Claim(
                "wrong_variable",
                f"Yours is the derivative by the value of `{operation_of(record.node)}`{place_of(record.node)}, not by "
                f"`{case.name}`: that of the steps before it is missing.",
            )
            return


def one_path(case: Case) -> Iterator[Claim]:
    """Of several steps that take a value, the share of one alone."""
    uses: dict[Ref, list[tuple[StepRecord, int]]] = defaultdict(list)
    for record in case.trace.records:
        for j, parent in enumerate(record.parents):
            if case.name in case.trace.live[parent]:
                uses[parent].append((record, j))
    for ref, takers in uses.items():
        for only, _ in takers if len(takers) >= _USES else ():
            if case.fits(case.under({record.node: dropped(j) for record, j in takers if record is not only})):
                text = f"Of the {len(takers)} steps that take {_called(case, ref)}, yours has the share of `{operation_of(only.node)}`"
                yield Claim(
                    "missing_term", f"Terms are missing. {text}{place_of(only.node)} alone: the others belong to it too."
                )
                return


def _called(case: Case, ref: Ref) -> str:
    names = {leaf: f"`{name}`" for name, leaf in case.trace.leaves.items()}
    return names.get(ref) or f"the value of `{operation_of(ref[0])}`{place_of(ref[0])}"


def other_value(case: Case) -> Iterator[Claim]:
    """A step's derivative is taken where one of its inputs has another value of the program: before or after a step, a turn earlier or later."""
    if case.elements(case.expected) < 2:
        return
    for records in _together(case):
        for j in range(len(records[0].inputs)):
            if not _moves_with(case, records[0], j):
                continue
            own = _called(case, records[0].parents[j]) if len(records) == 1 else "its own"
            where = f"In the derivative of `{operation_of(records[0].node)}`{place_of(records[0].node)}"
            for code, text, chosen in (*_transposes(records, j, own), *_values_instead(case, records, j)):
                rules = {record.node: _with_input(case, j, value) for record, value in chosen}
                if _makes_a_difference(case, rules) and case.fits(case.under(rules)):
                    yield Claim(code, f"{where} {text} stands where {own} belongs.")
                    return


# A code, what stands there, and the steps with the values.
_Instead = tuple[str, str, list[tuple[StepRecord, Tensor]]]


def _transposes(records: Sequence[StepRecord], j: int, own: str) -> Iterator[_Instead]:
    """The transpose of an input of a product."""
    x = records[0].inputs[j]
    if len(records[0].inputs) > 1 and x.ndim > 1 and x.shape[-1] == x.shape[-2] and not torch.equal(x, x.mT):
        yield "transposed_product", f"the transpose of {own}", [(record, record.inputs[j].mT) for record in records]


def _values_instead(case: Case, records: Sequence[StepRecord], j: int) -> Iterator[_Instead]:
    """What may stand in the place of an input, by a relation that is the same for all the steps; of one step alone any value."""
    for text, relation in _RELATIONS:
        refs = ((record, relation(case, record, j, records)) for record in records)
        chosen = [(record, ref) for record, ref in refs if ref is not None and _may_replace(case, ref, record.inputs[j])]
        if chosen:
            what = text if len(records) > 1 else _called(case, chosen[0][1])
            yield "wrong_value", what, [(record, case.trace.values[ref]) for record, ref in chosen]
    if len(records) == 1:
        others = (ref for ref in case.trace.values if _may_replace(case, ref, records[0].inputs[j]))
        for ref in itertools.islice(others, _ANY):
            yield "wrong_value", _called(case, ref), [(records[0], case.trace.values[ref])]


def _may_replace(case: Case, ref: Ref, own: Tensor) -> bool:
    value = case.trace.values[ref]
    return value.shape == own.shape and value.dtype == own.dtype and not torch.equal(value, own)


def _before(case: Case, record: StepRecord, j: int, records: Sequence[StepRecord]) -> Ref | None:
    maker = case.trace.maker.get(record.parents[j])
    shape = record.inputs[j].shape
    return None if maker is None else next((p for p in maker.parents if case.trace.values[p].shape == shape), None)


def _after(case: Case, record: StepRecord, j: int, records: Sequence[StepRecord]) -> Ref | None:
    shape = record.inputs[j].shape
    takers = (r for r in case.trace.records if r is not record and record.parents[j] in r.parents)
    return next(((r.node, 0) for r in takers if r.outputs[0].shape == shape), None)


def _own_output(case: Case, record: StepRecord, j: int, records: Sequence[StepRecord]) -> Ref | None:
    return (record.node, 0)


def _in_turn(by: int) -> Relation:
    def relation(case: Case, record: StepRecord, j: int, records: Sequence[StepRecord]) -> Ref | None:
        at = records.index(record) + by
        if 0 <= at < len(records):
            return records[at].parents[j] if j < len(records[at].parents) else None
        # Of the last turn: what the step that makes it has made last.
        maker = case.trace.maker.get(record.parents[j]) if by > 0 else None
        alike = [r for r in case.trace.records if maker is not None and step_of(r.node) == step_of(maker.node)]
        return (alike[-1].node, 0) if alike and alike[-1] is not maker else None

    return relation


_RELATIONS: Final[tuple[tuple[str, Relation], ...]] = (
    ("the value before the last step that made it", _before),
    ("the value after the next step", _after),
    ("its own output", _own_output),
    ("the value of the next turn of the loop", _in_turn(1)),
    ("the value of the turn of the loop before", _in_turn(-1)),
)


def _with_input(case: Case, j: int, value: Tensor) -> VjpRule:
    """The step's own rule at another value of one of its inputs."""

    def rule(record: StepRecord, cotangents: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        inputs = [value.detach() if k == j else own.detach() for k, own in enumerate(record.inputs)]
        inputs = [x.clone().requires_grad_(own.requires_grad) for x, own in zip(inputs, record.inputs, strict=True)]
        with torch.enable_grad():
            outputs = case.trace.again(record, inputs)
        return step_vjp(replace(record, inputs=tuple(inputs), outputs=tuple(outputs)), cotangents)

    return rule


def _makes_a_difference(case: Case, rules: Mapping[fx.Node, VjpRule]) -> bool:
    """Whether some of the rules gives another gradient than the step's own, of ones: a whole backward pass costs more than to see it."""
    return any(record.node in rules and _apart(record, rules[record.node]) > 0 for record in case.trace.records)


def _apart(record: StepRecord, rule: VjpRule) -> float:
    """By how much the rule's gradients differ from the step's own, of ones, beside the largest."""
    ones: list[Tensor | None] = [torch.ones_like(o) if o.requires_grad else None for o in record.outputs]
    try:
        pairs = zip(rule(record, ones), step_vjp(record, ones), strict=True)
        known = [(a, b) for a, b in pairs if a is not None and b is not None and a.numel()]
    except REFUSALS:
        return 0.0
    largest = max((float(own.abs().max()) for _, own in known), default=0.0)
    return max((float((other - own).abs().max()) for other, own in known), default=0.0) / max(largest, 1e-300)


def _moves_with(case: Case, record: StepRecord, j: int) -> bool:
    """Whether the step's derivative moves gently with an input: where it only picks by it, as a maximum does, many values pick alike."""
    value = record.inputs[j].detach()
    return value.dtype.is_floating_point and 0 < _apart(record, _with_input(case, j, value * (1 + _NEAR) + _NEAR)) < _GENTLY
