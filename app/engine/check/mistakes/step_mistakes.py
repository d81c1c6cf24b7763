"""Mistakes in the derivative of a single step: a wrong rule, a term, a sign or a factor of its own; each is tried by making it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import fx

from app.catalogue.facts import operations_with, values
from app.engine.check.mistakes.case import Case, Claim, place_of
from app.engine.check.mistakes.rules.loss_rules import softmax_diagonal
from app.engine.check.mistakes.rules.wrong_rules import (
    RULES,
    SLOPES,
    constant,
    dropped,
    identity,
    scaled,
    scaled_occurrence,
    slope,
    unconjugated,
)
from app.engine.check.mistakes.scale_factors import exponent_of, factors_of
from app.engine.explain.findings import operation_of
from app.engine.stepwise.point import Hole, name_of
from app.engine.stepwise.trace import StepRecord, VjpRule
from app.program.semantics.graph_values import mapped


def softmax(case: Case) -> Iterator[Claim]:
    rules = {record.node: rule for record in case.trace.records if (rule := softmax_diagonal(record)) is not None}
    for chosen in (*({node: rule} for node, rule in rules.items()), rules):
        if chosen and case.fits(case.under(chosen)):
            yield Claim(
                "softmax_diagonal",
                f"Only the diagonal of softmax's Jacobian is used{place_of(next(iter(chosen)))}: every output depends on every input, "
                "∂yᵢ/∂xⱼ = yᵢ (δᵢⱼ - yⱼ), so the terms with i ≠ j are missing.",
            )
            return


def wrong_rules(case: Case) -> Iterator[Claim]:
    """Rules of which the catalogue's facts say that people use them there."""
    for node, records in _alike(case).items():
        for rule in values("wrong_rules").get(name_of(node), ()):
            at = place_of(node)
            wrong: VjpRule
            if rule == "identity" and case.name not in case.trace.live[records[0].parents[0]]:
                continue  # it is that of the first argument
            if rule == "identity":
                text = f"The derivative of `{operation_of(node)}` itself is missing{at}: the chain rule multiplies by it there."
                claim, wrong = Claim("missing_activation_derivative", text), identity
            elif rule in SLOPES:
                text = f"The derivative of `{operation_of(node)}` {SLOPES[rule][0]}{at}."
                claim, wrong = Claim("wrong_rule", text), slope(rule)
            else:
                code, text, wrong = RULES[rule]
                claim = Claim(code, text.format(op=operation_of(node), at=at))
            if _any_fits(case, records, wrong) and not _is_dropped(case, node):
                yield claim


def _is_dropped(case: Case, node: fx.Node) -> bool:
    """Whether treating the step as constant gives the client's derivative too: that says more than a wrong rule which comes to nothing."""
    return case.fits(case.under({node: constant}))


def _alike(case: Case) -> dict[fx.Node, Sequence[StepRecord]]:
    """Each step of the way from the input, with the others of its name: a rule that is wrong once is wrong everywhere."""
    live = [record for record in case.trace.records if any(case.name in case.trace.live[p] for p in record.parents)]
    return {
        record.node: [record, *(r for r in live if r is not record and name_of(r.node) == name_of(record.node))]
        for record in live
    }


def _any_fits(case: Case, records: Sequence[StepRecord], rule: VjpRule) -> bool:
    """Whether the rule fits at the first step alone, or at it and all others of its name, of which it is then the first."""
    if case.fits(case.under({records[0].node: rule})):
        return True
    first = records[0].node == min((r.node for r in records), key=[r.node for r in case.trace.records].index)
    return first and len(records) > 1 and case.fits(case.under({record.node: rule for record in records}))


def inner_derivative(case: Case) -> Iterator[Claim]:
    """All of the chain rule's factors of what stands inside a step are missing: e^(-x²) for its own derivative."""
    maker = case.trace.maker
    for record in case.trace.records:
        inside: dict[fx.Node, VjpRule] = {}
        step: StepRecord | None = record
        while step is not None:
            live = [j for j, parent in enumerate(step.parents) if case.name in case.trace.live[parent]]
            if len(live) != 1 or (step is not record and step.inputs[live[0]].shape != step.outputs[0].shape):
                break
            if step is not record:
                inside[step.node] = _passed(live[0])
            step = maker.get(step.parents[live[0]])
        if len(inside) > 1 and step is None and case.fits(case.under(inside)):
            text = f"The derivative of what stands inside `{operation_of(record.node)}` is missing{place_of(record.node)}"
            yield Claim("missing_activation_derivative", f"{text}: the chain rule multiplies by it.")
            return


def _passed(position: int) -> VjpRule:
    """The derivative by one input taken as 1."""
    return lambda record, cotangents: [cotangents[0] if j == position else None for j in range(len(record.inputs))]


def term(case: Case) -> Iterator[Claim]:
    """One of the paths from the input to the output is treated as constant."""
    yield from _occurrences(case, 0.0)
    for record in case.trace.records:
        for j, parent in enumerate(record.parents):
            others = any(case.name in case.trace.live[p] for k, p in enumerate(record.parents) if k != j)
            again = sum(parent in other.parents for other in case.trace.records) > 1
            if case.name not in case.trace.live[parent] or not (others or again):
                continue
            is_product = others and name_of(record.node) in operations_with("combines", "product")
            if is_product and case.fits(case.under({record.node: _doubled(dropped(j))})):
                yield _symmetric(record)
            if case.fits(case.under({record.node: dropped(j)})):
                what = (
                    f"one argument of `{operation_of(record.node)}`"
                    if len(record.parents) > 1
                    else f"`{operation_of(record.node)}`"
                )
                yield Claim(
                    "missing_term",
                    f"A term is missing: yours is ours with {what} treated as constant{place_of(record.node)}, although it depends on "
                    f"`{case.name}` too.",
                )


def _doubled(rest: VjpRule) -> VjpRule:
    return lambda record, cotangents: [None if gradient is None else 2 * gradient for gradient in rest(record, cotangents)]


def _symmetric(record: StepRecord) -> Claim:
    return Claim(
        "symmetric_assumed",
        f"Two terms are taken as equal: yours is twice what is left where one argument of `{operation_of(record.node)}`"
        f"{place_of(record.node)} is treated as constant, as 2·A·x is for xᵗ·A·x of a symmetric A.",
    )


def _occurrences(case: Case, factor: float) -> Iterator[Claim]:
    """The share of one of several places in which a step takes the same tensor, as x ** x does, is times `factor`: 0 or -1."""
    for record in case.trace.records:
        holes: list[Hole] = []
        mapped(case.trace.arguments[record.node], Hole, holes.append)
        refs = [hole.ref for hole in holes]
        for number, ref in enumerate(refs):
            if refs.count(ref) < 2 or case.name not in case.trace.live[ref]:
                continue
            rest = scaled_occurrence(case.trace, number, factor)
            if not factor and case.fits(case.under({record.node: _doubled(rest)})):
                yield _symmetric(record)
            if case.fits(case.under({record.node: rest})):
                where = f"`{operation_of(record.node)}`{place_of(record.node)}, which takes it in {refs.count(ref)} places"
                yield (
                    Claim("sign_of_term", f"The sign of one term is wrong: that of one argument of {where}.")
                    if factor
                    else Claim(
                        "missing_term", f"A term is missing: yours is ours with one argument treated as constant in {where}."
                    )
                )
                break


def statistics(case: Case) -> Iterator[Claim]:
    """Mean and spread of the input treated as constants, all together or one of them."""
    nodes = [
        record.node for record in case.trace.records
        if name_of(record.node) in operations_with("statistic") and any(case.name in case.trace.live[p] for p in record.parents)
    ]  # fmt: skip
    sets: list[Mapping[fx.Node, VjpRule]] = [dict.fromkeys(nodes[:k], constant) for k in range(2, len(nodes) + 1)]
    for chosen in sets:
        if case.fits(case.under(chosen)):
            names = ", ".join(f"`{operation_of(node)}`" for node in chosen)
            text = f"{names} are treated as constants{place_of(next(iter(chosen)))}, although they depend on `{case.name}` too."
            yield Claim("statistics_constant", text)
            return


def sign_of_term(case: Case) -> Iterator[Claim]:
    """One path's share has the opposite sign."""
    if not case.same(-case.ours, case.expected):
        yield from _occurrences(case, -1.0)
    for record in case.trace.records:
        live = [j for j, parent in enumerate(record.parents) if case.name in case.trace.live[parent]]
        for j in live:
            if case.same(-case.ours, case.expected):
                return
            if case.fits(case.under({record.node: scaled(-1.0, j)})):
                yield Claim(
                    "sign_of_term",
                    f"The sign of one term is wrong: that of `{operation_of(record.node)}`{place_of(record.node)}.",
                )


def factor_of_step(case: Case) -> Iterator[Claim]:
    """A factor that only one term has: its mean, its exponent, its constant."""
    if case.factor(case.ours, case.expected) is not None:
        return  # all terms have it
    for factor in factors_of(case.trace, case.name):
        if factor.node is not None and case.fits(case.under({factor.node: scaled(factor.value)})):
            yield Claim("factor_of_term", f"In one term {_lower(factor.meaning)}.", factor.value)
    for record in case.trace.records:
        n = exponent_of(record)
        if n is not None and n not in (0, 1) and case.fits(case.under({record.node: scaled(1 / n)})):
            what = "2 from the derivative of a square" if n == 2 else f"exponent {n:g} that the power rule multiplies by"
            yield Claim("factor_of_term", f"In one term the {what} is missing{place_of(record.node)}.", 1 / n)


def _lower(meaning: str) -> str:
    return meaning[0].lower() + meaning[1:]


def conjugate_of_step(case: Case) -> Iterator[Claim]:
    """A complex step pulled back without its conjugate."""
    for record in case.trace.records:
        if any(t.is_complex() for t in record.inputs) and case.fits(case.under({record.node: unconjugated})):
            what = f"`{operation_of(record.node)}`{place_of(record.node)}"
            yield Claim("conjugate", f"The conjugate is missing in the derivative of {what}: reverse mode multiplies by it.")
