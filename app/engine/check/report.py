"""Compares three derivatives: PyTorch's, that of finite differences, and the client's own (docs/contract.md, section 4, `check`).

Cost: at most 500 forwards for the differences and as many for a closer look, or 2 seconds of each; beyond that random directions and a
sample of the elements are checked, and `checked` says so.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor

from app.engine.check.agreement import WORST, Compared, compare
from app.engine.check.autodiff_faults import constant_path, disagreement
from app.engine.check.client_precision import client_precision
from app.engine.check.conventions import convention
from app.engine.check.finite_differences import Budget, Numeric
from app.engine.check.judgement import Verdict, of_autodiff, of_client, tolerances_of_all
from app.engine.check.mistakes.case import Case
from app.engine.check.mistakes.hypotheses import explanations_at
from app.engine.check.mistakes.own_backwards import wrong_backwards
from app.engine.check.objective import Curvature, Differentiated, Objective, jacobian, weighted
from app.engine.check.open_digits import is_near
from app.engine.check.reasons import Reason
from app.engine.explain.report import number
from app.engine.stepwise.detached import detached_values, with_withheld_detached
from app.engine.stepwise.point import Point, Points, to_double
from app.engine.tensors import is_differentiable

_KINKS: Final = 50  # elements named in the answer: a page of them


def check(
    points: Points,
    wrt: Sequence[str],
    cotangents: Mapping[str, Tensor] | None,
    expected: Mapping[str, Tensor],
    of: str | None,
    kind: str,
) -> dict[str, Any]:
    """Input → verdict, as JSON values.

    Arguments:
        points: the tensors of `wrt` are floating or complex; float32 is checked in float64.
        cotangents: output → tensor of its shape, or with one more leading axis; ones where left out. Unused by `jacobian`.
        expected: input → what the client believes the derivative to be, of any shape.
        of: the output that a gradient or Jacobian is of, where there are several.
        kind: `gradient`, `vjp`, `jacobian` or `hessian` (of each input by itself, as many rows as it has elements).

    Raises:
        What PyTorch raises where the Function cannot be run or differentiated at these leaves.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ask = _Ask(tuple(wrt), cotangents, of, kind)
        whole = points.widest(ask.objective)
        # What a client derives is the program as it is written, in which what is detached is a constant.
        written = _as_written(whole, points.seed) if expected else whole
        derivatives = {} if kind == "hessian" else whole.derivative()
        budgets = {name: Budget.of(whole) for name in ("first", "closer")}
        numeric: dict[int, Numeric] = {}  # of the last objective
        report: dict[str, Any] = {}
        for name in wrt:
            objective: Differentiated = written if name in expected and written.held else whole
            if kind == "hessian" and not whole.point.leaves[name].is_complex():
                objective = Curvature(written if objective is written else whole, name)
            ours = derivatives[name] if name in derivatives else objective.derivative()[name]
            if id(objective) not in numeric:
                numeric = {id(objective): Numeric(objective)}
            believed = expected.get(name)
            report[name] = _report(objective, numeric[id(objective)], name, ours, believed, points.leaves, budgets, points.seed)
        return report


def confirms(points: Points, name: str, cotangents: Mapping[str, Tensor]) -> bool:
    """Whether differences, of 60 digits where float64's do not settle, confirm PyTorch's derivative by an input, and see no kink."""
    report = check(points, (name,), cotangents, {}, None, "vjp")[name]
    return report["agrees"] is True and "kinks" not in report


def _as_written(whole: Objective, seed: int | None) -> Objective:
    point = with_withheld_detached(whole.point, seed)
    return replace(whole, point=point, held=detached_values(point))


@dataclass(frozen=True, slots=True)
class _Ask:
    wrt: tuple[str, ...]
    cotangents: Mapping[str, Tensor] | None
    of: str | None
    kind: str

    def objective(self, point: Point) -> Objective:
        is_whole = self.kind == "jacobian"
        objective = jacobian(point, self.wrt, self.of) if is_whole else weighted(point, self.wrt, self.cotangents, self.of)
        objective.values({})  # refuses what the point does
        return objective


def _report(
    objective: Differentiated,
    numeric: Numeric,
    name: str,
    ours: Tensor,
    expected: Tensor | None,
    leaves: Mapping[str, Tensor],
    budgets: Mapping[str, Budget],
    seed: int | None,
) -> dict[str, Any]:
    wide = None if expected is None else to_double(expected if is_differentiable(expected.dtype) else expected.double())
    believed = None if wide is None else _in_rows(objective, name, ours, wide)
    precision = None if expected is None else client_precision(objective.point, leaves, expected, ours)
    compared = compare(objective, numeric, name, ours, believed, budgets["first"], budgets["closer"])
    if believed is not None and precision is not None:
        verdict = of_client(objective, numeric, name, compared, believed, precision)
        if verdict.agrees is False and precision.may_be is not None:
            narrow = replace(precision, dtype=precision.may_be, may_be=None)
            other = of_client(objective, numeric, name, compared, believed, narrow)
            if other.agrees is not False and is_near(objective, name, ours, believed, narrow):
                verdict = replace(other, agrees=None, reason=Reason.SHORT, note=None)
    else:
        verdict = of_autodiff(objective, numeric, name, compared)
    shape = (*objective.lead, *objective.point.leaves[name].shape)
    another_shape = wide is not None and believed is None
    agrees = False if another_shape else verdict.agrees
    report = _numbers(verdict, compared, shape) | {"agrees": agrees}
    if another_shape and wide is not None:
        report |= {"max_error": None, "shape": {"autodiff": list(shape), "expected": list(wide.shape)}}
    if agrees is not False and objective.held and (note := constant_path(objective.point, name)) is not None:
        report |= {"note": f"{report['note']} {note}" if "note" in report else note}
    claims: list[dict[str, Any]] = []
    if agrees is False and wide is not None and (another_shape or bool(verdict.off.any())) and not objective.combined:
        levels = tolerances_of_all(verdict, ours, 0.0 if precision is None else precision.eps)
        written = 0.0 if precision is None else precision.last_decimal
        claims = explanations_at(Case(name, ours.reshape(shape), wide, levels[0], objective, seed, written=written), levels)
    if agrees is False and _is_autodiff_in_question(verdict, compared) and (not claims or _is_all_at_kinks(verdict)):
        backwards = wrong_backwards(objective.point, name, seed)
        claim = None if backwards else convention(objective.point) or disagreement(objective.point, name)
        claim = None if claim is not None and claim["code"] == "cut_path" and objective.held else claim
        claims = [*backwards, *claims]
        if claim is not None and (claim["code"] != "kink" or wide is None or _is_all_at_kinks(verdict)):
            claims = [claim, *claims]
        claims = [*_opposite_of_differences(verdict, compared), *claims]
    report |= {"likely": claims[0]} if claims else {}
    return report | ({"also_possible": claims[1:]} if claims or wide is not None else {})


def _is_autodiff_in_question(verdict: Verdict, compared: Compared) -> bool:
    """Whether what is wrong may be so for a fault of PyTorch's derivative: not where the client is wrong and differences confirm it."""
    confirmed = torch.isfinite(compared.values.abs()) & ~compared.contradicted & ~verdict.kinks
    return not bool((verdict.off & confirmed).any()) and (
        bool(verdict.off.any()) or compared.agrees is not True or verdict.believed is None
    )


def _opposite_of_differences(verdict: Verdict, compared: Compared) -> list[dict[str, Any]]:
    """The claim that the client's derivative has the wrong sign, where PyTorch's, with which mistakes are compared, is wrong itself."""
    believed, numeric = verdict.believed, compared.values
    if believed is None or not bool(compared.contradicted.any()) or not bool(torch.isfinite(numeric.abs()).all()):
        return []
    telling = numeric.abs() > verdict.tolerance
    if not bool(telling.any()) or not bool(((believed + numeric).abs() <= verdict.tolerance).all()):
        return []
    return [{"code": "sign", "message": "Yours has the opposite sign: it is what differences give, times -1.", "factor": -1.0}]


def _is_all_at_kinks(verdict: Verdict) -> bool:
    """Whether the client is wrong at nothing but kinks, where any number that is no subgradient looks like a factor or a sum of ours."""
    return bool(verdict.off.any()) and not bool((verdict.off & ~verdict.kinks).any())


def _in_rows(objective: Differentiated, name: str, ours: Tensor, wide: Tensor) -> Tensor | None:
    """The client's derivative in the shape [rows, *input] of ours; None where it has another shape than it should."""
    if isinstance(objective, Objective) and objective.combined:
        believed = objective.contracted(wide, name)
        return None if believed is None else believed
    if tuple(wide.shape) != (*objective.lead, *objective.point.leaves[name].shape):
        return None
    return wide.reshape(ours.shape)


def _numbers(verdict: Verdict, compared: Compared, shape: Sequence[int]) -> dict[str, Any]:
    """`max_error` and `tolerance` are those of the element that is off by the most tolerances."""
    error, tolerance = verdict.error.reshape(-1), verdict.tolerance.reshape(-1)
    ratio = _ratio(verdict).reshape(-1)
    at = int(ratio.argmax()) if ratio.numel() else None
    report: dict[str, Any] = {
        "agrees": verdict.agrees,
        "max_error": 0.0 if at is None else number(float(error[at])),
        "tolerance": 0.0 if at is None else number(float(tolerance[at])),
        "worst": _worst(verdict, compared, shape),
        "checked": "all" if compared.whole else "directions",
    }
    if compared.exact:
        report["witness"] = "mpmath"
    if bool(verdict.kinks.any()):
        report["kinks"] = verdict.kinks.reshape(tuple(shape)).nonzero().tolist()[:_KINKS]
    if verdict.reason is not None:
        report["reason"] = verdict.reason.value
    return report if verdict.note is None else report | {"note": verdict.note}


def _ratio(verdict: Verdict) -> Tensor:
    """Errors in tolerances; those of the client before all others."""
    ratio = verdict.error / verdict.tolerance.clamp(min=1e-300)
    return torch.where(verdict.off, ratio + 1.0, ratio)


def _worst(verdict: Verdict, compared: Compared, shape: Sequence[int]) -> list[dict[str, Any]]:
    ours, values = compared.ours.reshape(-1), compared.values.reshape(-1)
    known = ~torch.isnan(values.abs())
    order = _ratio(verdict).reshape(-1)
    if verdict.believed is None:
        order = torch.where(known | ~torch.isfinite(ours.abs()), order, -1.0)
    elements = []
    for index in order.topk(min(WORST, order.numel())).indices.tolist():
        element = [int(i) for i in torch.unravel_index(torch.tensor(index), tuple(shape))] if len(shape) else []
        entry: dict[str, Any] = {"index": element, "autodiff": number(ours[index].item())}
        if bool(known[index]):
            entry["numeric"] = number(values[index].item())
        if verdict.believed is not None:
            entry["expected"] = number(verdict.believed.reshape(-1)[index].item())
        entry["tolerance"] = number(float(verdict.tolerance.reshape(-1)[index]))
        elements.append(entry)
    return elements
