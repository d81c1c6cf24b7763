"""The probable mistakes in a derivation: a table of hypotheses, each claimed only where making it gives what the client has.

Nothing is claimed of a derivative that is zero, or of one element where any number would do: a false claim is worse than none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import torch

from app.engine.check.mistakes import chain_rule, curvature, rearrangements, scale_factors, step_mistakes
from app.engine.check.mistakes.altered_programs import altered, taken_for_another, with_attention_in_steps
from app.engine.check.mistakes.case import Case, Claim
from app.engine.check.mistakes.joined_steps import with_log_softmax_joined
from app.engine.check.mistakes.left_out_steps import inner_term, left_out
from app.engine.stepwise.point import REFUSALS

_LISTED: Final = 6  # explanations in an answer; one more would help nobody


def explanations(case: Case) -> list[dict[str, Any]]:
    """All hypotheses that fit, as JSON, the likeliest first."""
    if not bool(torch.isfinite(case.expected).all() & torch.isfinite(case.ours).all()) or not case.expected.numel():
        return []
    claims = _claims(case, HYPOTHESES) or _claims(case, FURTHER) or _claims(case, VALUES) or _claims(case, LAST)
    claims.sort(key=lambda claim: claim.rank)
    return [claim.as_json() for claim in {claim.message: claim for claim in claims}.values()][:_LISTED]


def explanations_at(case: Case, levels: Sequence[float]) -> list[dict[str, Any]]:
    """Those at the first of the levels, strictest first, at which some fit; the derivatives under hypotheses are the same at all of them.

    Arguments:
        levels: what two equal derivatives may differ by, relative to an element, in rising order.
    """
    for level in levels:
        at_level = Case(
            case.name, case.ours, case.expected, level, case.objective, case.seed, loosest=levels[-1], written=case.written
        )
        claims = explanations(at_level)
        if claims or not at_level.may_fit_loosely:
            return claims
    return []


def _claims(case: Case, table: tuple[Callable[[Case], Iterator[Claim]], ...]) -> list[Claim]:
    claims: list[Claim] = []
    for hypothesis in table:
        try:
            claims += hypothesis(case)
        except REFUSALS:
            continue  # it cannot be made at these shapes
    return claims


def within_attention(case: Case) -> Iterator[Claim]:
    """The same mistakes in the steps that attention is made of."""
    if (in_steps := with_attention_in_steps(case)) is not None:
        for claim in _claims(in_steps, HYPOTHESES):
            yield replace(claim, message=f"Within attention, written out as two products and a softmax: {claim.message}")


def within_log_softmax(case: Case) -> Iterator[Claim]:
    """Those in wrong rules where a logarithm of a softmax is one step, as in p - y."""
    if (joined := with_log_softmax_joined(case)) is not None:
        yield from step_mistakes.wrong_rules(joined)


# In the order of simplicity, which is that of likelihood.
HYPOTHESES: Final[tuple[Callable[[Case], Iterator[Claim]], ...]] = (
    scale_factors.sign, scale_factors.known_factor, rearrangements.shape, rearrangements.transpose, rearrangements.missing_sum,
    rearrangements.extra_sum, rearrangements.conjugate, rearrangements.asymmetric, curvature.gauss_newton,
    curvature.of_steps, curvature.of_elements, curvature.in_place_of_curvature, curvature.of_one_part, step_mistakes.softmax,
    step_mistakes.wrong_rules, step_mistakes.inner_derivative, rearrangements.wrong_variable, step_mistakes.term,
    step_mistakes.statistics, step_mistakes.sign_of_term, step_mistakes.factor_of_step, altered, step_mistakes.conjugate_of_step,
    rearrangements.parts, rearrangements.shifted, rearrangements.moved,
)  # fmt: skip
# Where none of these fits: a program that lacks something, each a derivative of its own; and what says less.
FURTHER: Final[tuple[Callable[[Case], Iterator[Claim]], ...]] = (
    within_attention, within_log_softmax, chain_rule.cotangent, chain_rule.passed_over, chain_rule.on_the_way, chain_rule.one_path, taken_for_another,
    inner_term, left_out,
)  # fmt: skip
# Many values in the place of many others: the dearest.
VALUES: Final[tuple[Callable[[Case], Iterator[Claim]], ...]] = (chain_rule.other_value,)
LAST: Final[tuple[Callable[[Case], Iterator[Claim]], ...]] = (
    rearrangements.by_a_value, scale_factors.any_factor, rearrangements.with_factor,
)  # fmt: skip
