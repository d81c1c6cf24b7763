"""Compares three derivatives: PyTorch's, that of finite differences, and the client's own (docs/contract.md, section 4, `check`).

Cost: at most 500 forwards for the differences and as many for a closer look, or 2 seconds of each; beyond that random directions and a
sample of the elements are checked, and `checked` says so.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from app.engine.check.agreement import RELATIVE, WORST, Compared, compare, largest
from app.engine.check.autodiff_faults import disagreement
from app.engine.check.conventions import convention
from app.engine.check.finite_differences import Budget, Numeric
from app.engine.check.hypotheses import Case, likely
from app.engine.check.objective import Objective, jacobian, weighted
from app.engine.explain.report import number
from app.engine.stepwise.point import REFUSALS, Point, widened
from app.engine.tensors import is_differentiable
from app.program.function import Function

# A derivation computed in less than float64 (its dtype, or that of the inputs that it was made from) may be off by so much of its
# largest element: eps is 1.2e-7, 9.8e-4 and 7.8e-3, and a mean over 10^4 elements, or a softmax over 10^3, loses three digits, less in
# the short ones, which accumulate in float32.
_PRECISION: Final[Mapping[torch.dtype, float]] = {
    torch.float32: 1e-3, torch.complex64: 1e-3, torch.float16: 5e-2, torch.bfloat16: 2e-1, torch.complex32: 5e-2,
}  # fmt: skip
# Where the same derivative in the sent dtype is off by some amount, another order of the same operations may be by four times that.
_NARROW_SLACK: Final = 4
# Plain numbers that float32 holds exactly were computed in float32: its eps, with room for a thousand roundings.
_FLOAT32_SLACK: Final = 1e-4
# Numbers printed with three to eight decimals are taken as rounded there, so half of the last digit is forgiven, with 2 % for the
# rounding of the decimal itself. With fewer they are meant as they stand (0.5), with more they are no printout.
_FEWEST_DIGITS, _MOST_DIGITS = 3, 9
_HALF_A_DIGIT: Final = 0.51
_ROUNDED_AT_MOST: Final = 1e-3  # and never more than this of the largest element: three digits do not prove a derivative
_KINKS: Final = 50  # elements named in the answer: a page of them


def check(
    function: Function,
    leaves: Mapping[str, Tensor],
    wrt: Sequence[str],
    cotangents: Mapping[str, Tensor] | None,
    expected: Mapping[str, Tensor],
    of: str | None,
    kind: str,
    seed: int | None = None,
) -> dict[str, Any]:
    """Input → verdict, as JSON values.

    Arguments:
        leaves: the input tensors, those of `wrt` floating or complex; float32 is checked in float64.
        cotangents: output → tensor of its shape, or with one more leading axis; ones where left out. Unused by `jacobian`.
        expected: input → what the client believes the derivative to be, of any shape.
        of: the output that a gradient or Jacobian is of, where there are several.
        kind: `gradient`, `vjp` or `jacobian`.

    Raises:
        What PyTorch raises where the Function cannot be run or differentiated at these leaves.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ask = _Ask(tuple(wrt), cotangents, of, kind)
        objective = _objective(function, leaves, ask, seed)
        derivatives = objective.derivative()
        narrow = _narrow(function, leaves, ask, seed) if expected and objective.point.wide else {}
        numeric = Numeric(objective)
        budget, closer = Budget.of(objective), Budget.of(objective)
        report: dict[str, Any] = {}
        for name in wrt:
            own = expected.get(name)
            compared = compare(objective, numeric, name, derivatives[name], own, budget, closer)
            loose = _looseness(leaves, own, derivatives[name], narrow.get(name))
            report[name] = _verdict(objective, name, compared, own, loose)
        return report


@dataclass(frozen=True, slots=True)
class _Ask:
    wrt: tuple[str, ...]
    cotangents: Mapping[str, Tensor] | None
    of: str | None
    kind: str

    def objective(self, point: Point) -> Objective:
        if self.kind == "jacobian":
            return jacobian(point, self.wrt, self.of)
        return weighted(point, self.wrt, self.cotangents, self.of)


def _objective(function: Function, leaves: Mapping[str, Tensor], ask: _Ask, seed: int | None) -> Objective:
    """In float64; in the dtypes that were sent, where a step insists on them."""
    try:
        objective = ask.objective(Point(function, leaves, seed))
        objective.values({})
    except REFUSALS:
        objective = ask.objective(Point(function, leaves, seed, wide=False))
    return objective


def _narrow(function: Function, leaves: Mapping[str, Tensor], ask: _Ask, seed: int | None) -> dict[str, Tensor]:
    """The derivative in the dtypes that were sent, for what rounding alone does to it; empty where these are float64."""
    if all(leaf.dtype not in _PRECISION for leaf in leaves.values()):
        return {}
    derivatives = ask.objective(Point(function, leaves, seed, wide=False)).derivative()
    return {name: widened(value) for name, value in derivatives.items()}


# Against what the client believes.


def _looseness(leaves: Mapping[str, Tensor], expected: Tensor | None, ours: Tensor, narrow: Tensor | None) -> float:
    """What a right derivation may be off by, relative to its largest element: by its precision, that of the inputs, its printed digits."""
    loose = max([RELATIVE, *(_PRECISION.get(leaf.dtype, 0.0) for leaf in leaves.values())])
    if narrow is not None and narrow.shape == ours.shape and largest(ours):
        loose = max(loose, _NARROW_SLACK * largest(narrow - ours) / largest(ours))
    if expected is None or not expected.numel():
        return loose
    loose = max(loose, _PRECISION.get(expected.dtype, 0.0))
    if expected.dtype != torch.float64 or not largest(expected):
        return loose
    digits = next(
        (d for d in range(_MOST_DIGITS) if torch.allclose(expected, (expected * 10**d).round() / 10**d, rtol=1e-12, atol=0)),
        None,
    )
    if digits is not None and digits < _FEWEST_DIGITS:
        return loose  # plain numbers, meant as they stand
    if torch.equal(expected, expected.float().double()):
        loose = max(loose, _FLOAT32_SLACK)  # computed in float32, sent as plain numbers
    half = 0.0 if digits is None else _HALF_A_DIGIT * 10.0**-digits / largest(expected)
    return max(loose, half) if half < _ROUNDED_AT_MOST else loose


def _verdict(objective: Objective, name: str, compared: Compared, expected: Tensor | None, loose: float) -> dict[str, Any]:
    shape = (*objective.lead, *objective.point.leaves[name].shape)
    ours, values, low, high, error = (
        t.reshape(shape) for t in (compared.ours, compared.values, compared.low, compared.high, compared.error)
    )
    agrees, tolerance, claim = compared.agrees, compared.tolerance, None
    same_shape: Tensor | None = None
    worst_error: float | None = float(error.max()) if error.numel() else 0.0
    if not agrees:
        claim = convention(objective.point) or disagreement(objective.point, name)
    if expected is not None and not objective.combined:
        wide = widened(expected if is_differentiable(expected.dtype) else expected.double())
        tolerance = max(tolerance, loose * largest(ours))
        if wide.shape == ours.shape:
            same_shape = wide
            apart = (ours - wide).abs()
            apart = torch.where(_between(wide, low, high) | (ours == wide), 0.0, apart)
            error = torch.maximum(error, torch.nan_to_num(apart, torch.inf))
            worst_error = float(error.max()) if error.numel() else 0.0
            right = bool((torch.nan_to_num(apart, torch.inf) <= tolerance).all())
        else:
            right, worst_error = False, None
        if not right:
            claim = likely(Case(name, ours, wide, max(loose, 4 * RELATIVE), objective)) or claim
        agrees = agrees and right
    verdict: dict[str, Any] = {
        "agrees": agrees,
        "max_error": None if worst_error is None else number(worst_error),
        "tolerance": tolerance,
        "worst": _worst(ours, values, same_shape, error),
        "checked": "all" if compared.whole else "directions",
    }
    if expected is not None and same_shape is None:
        verdict["shape"] = {"autodiff": list(shape), "expected": list(expected.shape)}
    return verdict | _remarks(compared, ~torch.isnan(low)) | ({} if claim is None else {"likely": claim})


def _remarks(compared: Compared, kinks: Tensor) -> dict[str, Any]:
    remarks: dict[str, Any] = {}
    if bool(kinks.any()):
        remarks["kinks"] = kinks.nonzero().tolist()[:_KINKS]
        remarks["note"] = (
            "At a kink the one-sided derivatives differ and every value between them is right; PyTorch takes one of these."
        )
    return remarks if compared.note is None else remarks | {"note": compared.note}


def _between(expected: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Where it is a subgradient like ours."""
    return torch.zeros_like(low, dtype=torch.bool) if expected.is_complex() else (expected >= low) & (expected <= high)


def _worst(ours: Tensor, values: Tensor, expected: Tensor | None, error: Tensor) -> list[dict[str, Any]]:
    flat = error.reshape(-1)
    known = ~torch.isnan(values.abs()).reshape(-1)
    telling = known | ~torch.isfinite(ours.abs()).reshape(-1)
    order = flat if expected is not None else torch.where(telling, flat, -1.0)
    elements = []
    for index in order.topk(min(WORST, order.numel())).indices.tolist():
        place = [int(i) for i in torch.unravel_index(torch.tensor(index), ours.shape)] if ours.ndim else []
        entry: dict[str, Any] = {"index": place, "autodiff": number(ours.reshape(-1)[index].item())}
        if bool(known[index]):
            entry["numeric"] = number(values.reshape(-1)[index].item())
        if expected is not None:
            entry["expected"] = number(expected.reshape(-1)[index].item())
        elements.append(entry)
    return elements
