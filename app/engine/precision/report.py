"""The kind `precision` (docs/contract.md, section 4): how many digits of each derivative are right, and which step lost them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, fx

from app.catalogue.dtypes import dtype_name
from app.engine.explain.report import number
from app.engine.precision.blame import Blame, Investigation
from app.engine.precision.digits import Floats, full_digits, largest, right_digits
from app.engine.precision.exact_arithmetic.numbers import MP
from app.engine.precision.formula import Rewrite, Rewritten, formula_text, used
from app.engine.precision.reference import Reference, largest_of, reference
from app.engine.precision.rewrites import rewrites
from app.engine.precision.runs import array_of, run_steps
from app.engine.stepwise.point import REFUSALS, Point, step_of, to_double
from app.engine.stepwise.trace import StepTrace, trace_steps
from app.errors import PullbackError
from app.program.function import Function

_WORST: Final = 5  # elements that a report names, as `check` does (check/agreement.py)
# What ordinary rounding costs: a digit in a sum of a few thousand terms, a quarter of what the dtype holds in longer computations
# (factorisations of the catalogue's examples lose up to 1.7 of the 7.2 digits of float32).
_USUAL_LOSS: Final = 1.0
_USUAL_SHARE: Final = 0.25
# A better formula must win back at least that many digits.
_GAIN: Final = 1.0
_NO_FORMULA: Final = " No formula is known here that keeps the digits."
# Formulas tried at one point: each costs a forward and a backward.
_TRIES: Final = 32


@dataclass(frozen=True, slots=True)
class _Case:
    """One query: the Function taken apart in its own dtype and in float64, and what is right."""

    narrow: StepTrace
    wide: StepTrace
    wrt: tuple[str, ...]
    cotangents: Mapping[str, Tensor]
    right: Reference
    scale: float
    size: float

    def digits(self, name: str, derivative: Tensor) -> Floats:
        """The right digits of each element of the derivative with respect to `name`."""
        right = self.right.run.cotangents.get(self.wide.leaves[name])
        values = array_of(derivative)
        return self._compared(values, np.zeros(values.shape) if right is None else right, derivative.dtype, self.scale)

    def dtype_of(self, output: str) -> torch.dtype:
        names = self.narrow.point.function.outputs
        return self.narrow.values[self.narrow.outputs[names.index(output)]].dtype

    def output_digits(self, outputs: Sequence[Tensor]) -> dict[str, Floats]:
        """The right digits of each element of each floating output."""
        return {
            name: self._compared(array_of(value), self.right.run.values[ref], value.dtype, self.size)
            for name, ref, value in zip(self.narrow.point.function.outputs, self.wide.outputs, outputs, strict=True)
            if ref in self.right.run.values
        }

    def _compared(self, values: Any, right: Any, dtype: torch.dtype, scale: float) -> Floats:
        digits = right_digits(values, right, dtype, scale, self.right.zero)
        return digits if self.right.doubt is None else np.where(np.isfinite(values), digits, 0.0)


def precision(
    function: Function,
    leaves: Mapping[str, Tensor],
    cotangents: Mapping[str, Tensor],
    derivatives: Mapping[str, Tensor],
    seed: int | None = None,
) -> dict[str, Any]:
    """Input → report, as JSON values.

    Arguments:
        leaves: the input tensors, in the dtype that is asked about.
        cotangents: output → tensor of its shape: what is differentiated is Σ cotangent·output.
        derivatives: input → its derivative as the query's own road computes it, of the input's shape.

    Raises:
        What PyTorch raises where the Function cannot be run in its own dtype or in float64.
    """
    if function.random:
        raise PullbackError(
            "operation_failed",
            "`precision` compares several runs, and random numbers differ between them.",
            at="want",
            fix="Send the random numbers as an input.",
        )
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the answer's own road has warned
        case = _case(function, leaves, cotangents, tuple(derivatives), seed)
        outputs = [case.narrow.values[ref] for ref in case.narrow.outputs]
        of_outputs = case.output_digits(outputs)
        digits = {name: case.digits(name, derivative) for name, derivative in derivatives.items()}
        search = _Search(case, digits, of_outputs)
        return {name: _report(case, search, name, derivative) for name, derivative in derivatives.items()}


def _case(
    function: Function, leaves: Mapping[str, Tensor], cotangents: Mapping[str, Tensor], wrt: tuple[str, ...], seed: int | None
) -> _Case:
    narrow = trace_steps(Point(function, leaves, seed, wide=False))
    wide = trace_steps(Point(function, leaves, seed))
    seeds = {
        wide.outputs[function.outputs.index(name)]: to_double(cotangent.detach()) for name, cotangent in cotangents.items()
    }
    right = reference(wide, seeds, [leaves[name].dtype for name in wrt])
    size = max((largest(right.run.values[ref]) for ref in wide.leaves.values() if ref in right.run.values), default=1.0)
    return _Case(narrow, wide, wrt, cotangents, right, largest_of(right.run), size)


def _report(case: _Case, search: _Search, name: str, derivative: Tensor) -> dict[str, Any]:
    digits = search.digits[name]
    report: dict[str, Any] = {
        "digits": _summary(digits, derivative.dtype),
        "dtype": dtype_name(derivative.dtype),
        "reference": case.right.name,
        "worst": _worst(digits, derivative, case.right.run.cotangents.get(case.wide.leaves[name])),
        "because": None,
        "instead": None,
        "outputs": {output: _summary(each, case.dtype_of(output)) for output, each in search.outputs.items()},
    }
    blame = search.blame(name, derivative.dtype)
    if blame is not None:
        rewrite = search.better(name)
        if rewrite is None:
            report["because"] = _because(replace(blame, reason=blame.reason + _wider(case, search, name, derivative.dtype)))
        else:
            moved = blame if blame.node in [each.root for each in rewrite] else _moved(blame, rewrite[-1].root)
            report["because"] = _because(replace(moved, reason=moved.reason + search.left(name, rewrite, derivative.dtype)))
            report["instead"] = formula_text(case.narrow, rewrite)
    if case.right.doubt is not None:
        report["reason"] = case.right.doubt
    return report


class _Search:
    """Looks for the step that lost digits, and for formulas that do not."""

    def __init__(self, case: _Case, digits: Mapping[str, Floats], outputs: Mapping[str, Floats]) -> None:
        self._case, self.digits, self.outputs = case, digits, outputs
        self._tried: list[tuple[tuple[Rewrite, ...], dict[str, Floats], dict[str, Floats]]] | None = None

    def blame(self, name: str, dtype: torch.dtype) -> Blame | None:
        """The step that lost the digits of this derivative, or, where it is right, of an output."""
        lost = _is_lost(self.digits[name], dtype)
        output = next((name for name, digits in self.outputs.items() if _is_lost(digits, self._case.dtype_of(name))), None)
        if not lost and output is None:
            return None
        case = self._case
        seeds = {
            case.narrow.outputs[case.narrow.point.function.outputs.index(key)]: value for key, value in case.cotangents.items()
        }
        run = run_steps(case.narrow, seeds, lambda tensor: tensor)
        investigation = Investigation(case.narrow, run, case.right.run, case.right.zero, dtype)
        if lost:
            return investigation.of_gradient(case.narrow.leaves[name])
        return investigation.of_value(case.narrow.outputs[case.narrow.point.function.outputs.index(output)])

    def better(self, name: str) -> tuple[Rewrite, ...] | None:
        """Formulas by which this derivative, or an output where it is right already, has more right digits."""
        if self._tried is None:
            self._tried = list(self._trials())
        gains = [
            (_gain({name: self.digits[name], **self.outputs}, {name: d[name], **o}), rewrite) for rewrite, d, o in self._tried
        ]
        # Of those that win as much, the one that replaces most: the latest single step.
        order = {node: position for position, node in enumerate(self._case.narrow.point.function.graph.nodes)}
        best, rewrite = max(
            gains, key=lambda pair: (round(pair[0], 1), -len(pair[1]), order[pair[1][-1].root]), default=(0.0, ())
        )
        return rewrite if best >= _GAIN else None

    def left(self, name: str, rewrite: tuple[Rewrite, ...], dtype: torch.dtype) -> str:
        """What better formulas cannot win back, in words; nothing where they mend all."""
        digits = next(digits[name] for tried, digits, _ in self._tried or () if tried is rewrite)
        if not _is_lost(digits, dtype):
            return ""
        if digits.min() < self.digits[name].min() + _GAIN:
            return f" The better formula mends no more of this derivative's worst element than {digits.min():.1f} digits."
        return f" With the better formula {digits.min():.1f} digits are right."

    def _trials(self) -> list[tuple[tuple[Rewrite, ...], dict[str, Floats], dict[str, Floats]]]:
        candidates = rewrites(self._case.narrow.point.function.graph)[:_TRIES]
        choices: list[tuple[Rewrite, ...]] = [(candidate,) for candidate in candidates]
        by_root: dict[fx.Node, Rewrite] = {}
        for candidate in candidates:
            by_root.setdefault(candidate.root, candidate)
        together = used(self._case.narrow.point.function.graph, by_root)
        if len(together) > 1:
            choices.append(together)
        trials = []
        for choice in choices:
            measured = self._measured(choice)
            if measured is not None:
                trials.append((choice, *measured))
        return trials

    def _measured(self, choice: Sequence[Rewrite]) -> tuple[dict[str, Floats], dict[str, Floats]] | None:
        """The digits of derivatives and outputs where `choice` stands in the place of its steps."""
        case = self._case
        point = case.narrow.point
        leaves = {name: point.leaves[name].detach().requires_grad_() for name in case.wrt}
        try:
            with point.ready():
                outputs = Rewritten(point, choice).run(
                    *(leaves.get(name, point.leaves[name]) for name in point.function.leaves)
                )
            heads = [outputs[point.function.outputs.index(name)] for name in case.cotangents]
            derivatives = torch.autograd.grad(
                heads, list(leaves.values()), list(case.cotangents.values()), allow_unused=True, materialize_grads=True
            )
        except REFUSALS:
            return None
        digits = {name: case.digits(name, derivative) for name, derivative in zip(leaves, derivatives, strict=True)}
        return digits, case.output_digits([output.detach() for output in outputs])


def _gain(before: Mapping[str, Floats], after: Mapping[str, Floats]) -> float:
    """Digits won in the worst elements and in the medians together; less than zero where some worst element gets worse."""
    total = 0.0
    for name, digits in before.items():
        if not digits.size or name not in after:
            continue
        worst = float(after[name].min() - digits.min())
        if worst < -_GAIN:
            return worst
        total += worst + float(np.median(after[name]) - np.median(digits))
    return total


def _is_lost(digits: Floats, dtype: torch.dtype) -> bool:
    if not digits.size:
        return False
    whole = full_digits(dtype)
    usual = max(_USUAL_LOSS, _USUAL_SHARE * whole)
    # The worst of n ordinary sums happens to cancel n-fold.
    return bool(whole - digits.min() > usual + np.log10(digits.size) or whole - np.median(digits) > usual)


def _summary(digits: Floats, dtype: torch.dtype) -> dict[str, float]:
    whole = full_digits(dtype)
    worst, median = (float(digits.min()), float(np.median(digits))) if digits.size else (whole, whole)
    return {"worst": round(worst, 1), "median": round(median, 1)}


def _worst(digits: Floats, derivative: Tensor, right: Any) -> list[dict[str, Any]]:
    values = derivative.detach().cpu()
    rows = []
    for flat in np.argsort(digits.ravel(), kind="stable")[:_WORST].tolist():
        index = [int(i) for i in np.unravel_index(flat, digits.shape)]
        reference_value = 0.0 if right is None else right.ravel()[flat]
        rows.append(
            {"index": index, "value": number(values[tuple(index)].item()), "reference": number(_float(reference_value))}
        )
    return rows


def _float(value: Any) -> complex:
    return complex(value) if isinstance(value, complex | MP.mpc) else float(value)


def _moved(blame: Blame, root: fx.Node) -> Blame:
    """Blame is laid on the step that a better formula replaces; the reason keeps the step that it was found at."""
    if blame.node is root:
        return blame
    step = step_of(blame.node)
    at = "" if step is None else f"At line {step.line}, `{step.text}` ({step.operation}): "
    return Blame(root, at + blame.reason)


def _because(blame: Blame) -> dict[str, Any]:
    step = step_of(blame.node)
    if step is None:
        return {"reason": blame.reason}
    return {"line": step.line, "text": step.text, "operation": step.operation, "reason": blame.reason}


def _wider(case: _Case, search: _Search, name: str, dtype: torch.dtype) -> str:
    """The way out where no better formula is known: float64, if it gives what the narrow dtype cannot; else that there is none."""
    whole = full_digits(dtype)
    now = min(each.min(initial=whole) for each in (search.digits[name], *search.outputs.values()))
    there = min(whole, case.right.wide_digits)
    if whole >= full_digits(torch.float64):
        return f"{_NO_FORMULA} There is no wider dtype than float64: send what is left after the loss as an input, where it is known more exactly."
    if there < now + _GAIN:
        return f"{_NO_FORMULA} float64 does not keep them either."
    return f'{_NO_FORMULA} In float64 (`"dtype": "float64"`) {there:.1f} digits are right.'
