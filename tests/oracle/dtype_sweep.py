"""`python -m tests.oracle.dtype_sweep`: PyTorch's samples in every dtype beside JAX in float64, where it has the function, and differences.

Differences are of the function's values in float64 and share no derivative with what is asked. A second run takes up what the first has left.
"""

from __future__ import annotations

import functools
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import jax
import numpy as np
import torch

from app.catalogue.facts import values
from app.engine.tensors import from_torch, to_torch
from app.errors import PullbackError
from app.query import Answer, Query, TensorData
from tests.engine.asking import ENGINE, Array
from tests.op_db import Case
from tests.oracle import sweeping
from tests.oracle.jax_operations import OPERATIONS
from tests.oracle.sweeping import Asked, small_samples

RESULTS: Final = Path("build/dtypes.jsonl")
DTYPES: Final = (torch.float64, torch.complex128, torch.bfloat16, torch.float16, torch.float32, torch.complex64)
KINDS: Final = ("outputs", "vjp", "jvp", "jacobian")
_SAMPLES: Final = 3  # of each operation; chosen
_SMALL: Final = 60  # elements of all inputs, so that a Jacobian stays quick; chosen
_STEP: Final = 2.0**-10  # of a five-point rule: its error is h⁴, 1e-12
# What a rounding of every input moves the derivative by, times this: the roundings on the way to it are some more; chosen.
_ROUNDINGS: Final = 30
# Of sums of some ten terms, in roundings; and what differences lose.
_OWN, _OF_DIFFERENCES = 60, 1e-6
# Points near the sample at which float64's own roundings are measured, the most that they may be of the terms, and how many times the largest
# of them another dtype's may be; chosen.
_NEAR, _RESIDUE, _RESIDUES = 8, 1e-10, 4
_SAYS_SO: Final = ("non_finite", "precision", "rounded", "overflow", "modes_disagree", "kink")
# Whose derivative is a convention that values do not show, and those that round in the wide dtype as well.
_LEFT_OUT: Final = values("convention").keys() | values("reads_triangle").keys() | {"bfloat16", "half", "float", "cfloat"}
Point = dict[str, Array]


def every(names: tuple[str, ...] | None = None, dtypes: tuple[torch.dtype, ...] = DTYPES) -> Iterator[Asked]:
    """All of PyTorch's small samples of operations that have a derivative, in every dtype they take, and each kind."""
    return small_samples(KINDS, dtypes, names, _SAMPLES, _SMALL, _LEFT_OUT)


def _query(case: Case) -> Query:
    inputs = {
        name: tuple(from_torch(t.resolve_conj().resolve_neg().contiguous()) for t in value)
        if isinstance(value, list)
        else from_torch(value.resolve_conj().resolve_neg().contiguous())
        for name, value in case.inputs.items()
    }
    parameters = {name: tuple(value) if isinstance(value, list) else value for name, value in case.parameters.items()}
    return Query(operation=case.operation, inputs=inputs, parameters=parameters, seed=1)


def _wide(tensor: torch.Tensor) -> Array:
    kind = torch.complex128 if tensor.is_complex() else torch.float64 if tensor.is_floating_point() else tensor.dtype
    return np.array(tensor.detach().resolve_conj().resolve_neg().to(kind).numpy())


class Oracle:
    """The function of a sample in float64: PyTorch's values and, where it has the function, JAX's."""

    def __init__(self, case: Case) -> None:
        self.case, self._asked = case, _query(case)
        self.point: Point = {}
        for name, value in case.inputs.items():
            for index, tensor in enumerate(value if isinstance(value, list) else [value]):
                self.point[f"{name}.{index}" if isinstance(value, list) else name] = _wide(tensor)
        self.floating = [name for name, value in self.point.items() if value.dtype.kind in "fc"]

    def at(self, point: Point) -> dict[str, Array]:
        """PyTorch's, in float64 and complex128."""
        outputs = ENGINE.answer(self.query_at(point)).results["outputs"]
        return {name: _wide(to_torch(value, "cpu")) for name, value in outputs.items() if isinstance(value, TensorData)}

    def query_at(self, point: Point) -> Query:
        """The operation at other numbers, in float64 and complex128."""
        inputs = {
            name: tuple(from_torch(torch.tensor(point[f"{name}.{i}"])) for i in range(len(value)))
            if isinstance(value, tuple)
            else from_torch(torch.tensor(point[name]))
            for name, value in self._asked.inputs.items()
        }
        return replace(self._asked, inputs=inputs)

    def moved(self, shift: float, seed: int) -> Point:
        """The point with every floating number moved by so much of itself at most."""
        rng = np.random.default_rng(seed)
        return {n: v * (1 + shift * rng.uniform(-1, 1, v.shape)) if n in self.floating else v for n, v in self.point.items()}

    def pushed(self, point: Point, tangent: Point, sides: tuple[int, ...] = (1, -1)) -> dict[str, Array]:
        """J·tangent by a five-point rule; `sides` of one sign: one-sided, by Richardson's."""
        at: Callable[[float], dict[str, Array]] = lambda s: self.at(  # noqa: E731
            {name: value + s * _STEP * tangent[name] if name in tangent else value for name, value in point.items()}
        )
        if len(sides) == 2:
            near, back, far, behind = at(1), at(-1), at(2), at(-2)
            return {
                n: (8 * (near[n] - back[n]) - (far[n] - behind[n])) / (12 * _STEP) for n in near if near[n].dtype.kind in "fc"
            }
        (side,) = sides
        here, near, far = at(0), at(0.5 * side), at(0.25 * side)
        return {
            n: (8 * (far[n] - here[n]) - 2 * (near[n] - here[n])) / (side * _STEP) for n in near if near[n].dtype.kind in "fc"
        }

    def pushed_by_jax(self, tangent: Point, point: Point | None = None) -> dict[str, Array] | None:
        """The same by JAX, at the sample or at `point`; None where it has not the function."""
        at = self.point if point is None else point
        of = OPERATIONS.get(self.case.operation)
        if of is None:
            return None
        moving = {name: at[name] for name in self.floating}

        def function(leaves: Mapping[str, Any]) -> Any:
            held = {**at, **leaves}
            inputs = {
                name: [held[f"{name}.{i}"] for i in range(len(value))] if isinstance(value, list) else held[name]
                for name, value in self.case.inputs.items()
            }
            return of(**inputs, **self.case.parameters)

        try:
            with jax.enable_x64(True):
                _, out = jax.jvp(function, (moving,), (tangent,))
                pushed = [np.asarray(value) for value in jax.tree.leaves(out)]
        except (TypeError, ValueError, NotImplementedError, IndexError, ZeroDivisionError):
            return None  # a parameter that JAX has not, or a form of it
        return dict(zip(self.at(self.point), pushed, strict=False))

    def tangent(self, seed: int) -> Point:
        rng = np.random.default_rng(seed)
        drawn = {name: rng.standard_normal(self.point[name].shape) for name in self.floating}
        return {
            name: t + 1j * rng.standard_normal(t.shape) if self.point[name].dtype.kind == "c" else t
            for name, t in drawn.items()
        }


def _pairs(
    question: Asked, answer: Answer, tangent: Point, cotangent: Point, pushed: Point
) -> Iterator[tuple[str, Any, Any, Any]]:
    """What was answered and what is right of it along `tangent`, and the size of the terms that both are sums of."""
    results = answer.results[question.kind]
    if question.kind == "jvp":
        for name, value in results.items():
            yield name, _wide(to_torch(value, "cpu")), pushed[name], np.abs(pushed[name])
    elif question.kind == "vjp":
        gradients = {name: _wide(to_torch(value, "cpu")) for name, value in results.items()}
        got = sum(float(np.real(np.vdot(gradients[name], tangent[name]))) for name in gradients)
        right = sum(float(np.real(np.vdot(cotangent[name], pushed[name]))) for name in cotangent)
        size = sum(float(np.abs(gradients[n] * tangent[n]).sum()) for n in gradients)
        yield (
            "the product",
            np.array(got),
            np.array(right),
            np.array(size + sum(float(np.abs(cotangent[n] * pushed[n]).sum()) for n in cotangent)),
        )
    else:
        for name, row in results.items():
            total: Any = 0.0
            terms: Any = 0.0
            for of, value in row.items():
                parts = (
                    [(value, tangent[of])]
                    if isinstance(value, TensorData)
                    else [(value["z"], tangent[of]), (value["conj_z"], tangent[of].conj())]
                )
                for part, along in parts:
                    matrix = _wide(to_torch(part, "cpu"))
                    total = total + np.tensordot(matrix, along, along.ndim)
                    terms = terms + np.tensordot(np.abs(matrix), np.abs(along), along.ndim)
            yield name, total, pushed[name], terms


def _off(
    question: Asked, answer: Answer, tangent: Point, cotangent: Point, pushed: Point, slack: float, share: float = 0.0
) -> str:
    eps = torch.finfo(question.dtype).eps
    for name, got, right, size in _pairs(question, answer, tangent, cotangent, pushed):
        if got.shape != right.shape:
            return f"{name} has shape {list(got.shape)}, not {list(right.shape)}"
        finite = np.isfinite(got) & np.isfinite(right)
        if not (np.isfinite(got) == np.isfinite(right)).all():
            return f"{name} is finite at other places"
        scale = np.maximum(
            np.max(np.abs(size), initial=0.0, where=np.isfinite(size)), np.max(np.abs(right), initial=0.0, where=finite)
        )
        error = np.max(np.abs(got - right), initial=0.0, where=finite)
        if error > (_OWN * eps + share) * scale + slack:
            return f"{name} is off by {error:.3g} of {scale:.3g}, slack {slack:.2g}"
    return ""


def _slack(question: Asked, oracle: Oracle, wide: Point, tangent: Point, pushed: Point) -> float:
    """What roundings of the inputs move the derivative by: all that a narrow dtype can be held to."""
    eps = torch.finfo(question.dtype).eps
    shift = max(eps, 2.0**-30)
    other = oracle.pushed(oracle.moved(shift, 5), tangent)
    sizes = [
        float(np.abs(other[n] - pushed[n])[np.isfinite(other[n]) & np.isfinite(pushed[n])].sum()) for n in other if n in pushed
    ]
    largest = max((float(np.abs(v).max(initial=0.0)) for v in wide.values() if v.dtype.kind in "fc"), default=0.0)
    return _ROUNDINGS * ((eps / shift) * math.fsum(sizes) + eps * largest)


def _residue(question: Asked, oracle: Oracle, tangent: Point, cotangent: Point) -> float:
    """What PyTorch's derivative in float64 is off by beside JAX's near the point, in roundings of the dtype.

    A rule that divides by a small number, as layer_norm of one element does by sqrt(eps), leaves as many roundings in every dtype. What is
    more than roundings of float64 is a wrong rule, and excuses nothing.
    """
    narrower = float(torch.finfo(question.dtype).eps / torch.finfo(torch.float64).eps)
    more = {
        "jvp": {"tangent": {n: from_torch(torch.tensor(t)) for n, t in tangent.items()}},
        "vjp": {"cotangent": {n: from_torch(torch.tensor(c)) for n, c in cotangent.items()}},
    }.get(question.kind, {})
    worst = 0.0
    for seed in range(_NEAR):
        point = oracle.moved(_STEP, seed)
        right = oracle.pushed_by_jax(tangent, point)
        if right is None:
            return 0.0
        answer = ENGINE.answer(replace(oracle.query_at(point), want=(question.kind,), **more))  # type: ignore[arg-type]
        for _, got, value, size in _pairs(question, answer, tangent, cotangent, right):
            error = float(np.max(np.abs(got - value), initial=0.0)) if got.shape == value.shape else math.inf
            if not error <= _RESIDUE * float(np.max(np.abs(size), initial=0.0)):
                return 0.0
            worst = max(worst, error)
    return _RESIDUES * narrower * worst


def complaint(question: Asked) -> str:
    """What is wrong with the reply; empty where nothing is."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            return _complaint(question, Oracle(question.case))
        except PullbackError as refusal:
            return f"refused: {refusal.code}"


def _complaint(question: Asked, oracle: Oracle) -> str:
    query, tangent = _query(question.case), oracle.tangent(1)
    wide = oracle.at(oracle.point)
    if question.kind == "outputs":
        return _outputs_off(question, oracle, wide)
    along = {n: from_torch(torch.tensor(t).to(question.dtype)) for n, t in tangent.items()}
    tangent = {n: _wide(to_torch(t, "cpu")) for n, t in along.items()}
    pushed = oracle.pushed(oracle.point, tangent)
    reach = ENGINE.answer(replace(query, want=("jvp",), wrt=None)).results["jvp"]
    rng = np.random.default_rng(9)
    sent = {n: from_torch(torch.tensor(rng.standard_normal(v.shape)).to(to_torch(v, "cpu").dtype)) for n, v in reach.items()}
    cotangent = {n: _wide(to_torch(c, "cpu")) for n, c in sent.items()}
    more = {"jvp": {"tangent": along}, "vjp": {"cotangent": sent}}.get(question.kind, {})
    answer = ENGINE.answer(replace(query, want=(question.kind,), **more))  # type: ignore[arg-type]
    pushed = {n: v for n, v in pushed.items() if n in reach}
    if any(not np.isfinite(wide[n]).all() for n in reach):
        return "cannot tell: a value that is not finite"
    slack = _slack(question, oracle, wide, tangent, pushed)
    wrong = _off(question, answer, tangent, cotangent, pushed, slack, _OF_DIFFERENCES)
    by_jax = oracle.pushed_by_jax(tangent) if wrong or question.kind == "jvp" else None
    if wrong and by_jax is not None:
        slack += _residue(question, oracle, tangent, cotangent)
    beside = (
        "" if by_jax is None or not set(pushed) <= set(by_jax) else _off(question, answer, tangent, cotangent, by_jax, slack)
    )
    if not wrong or (by_jax is not None and not beside):
        return (
            f"jax: {beside}" if beside and not wrong else ""
        )  # a kink or a large third derivative, of which differences say nothing
    left, right = (oracle.pushed(oracle.point, tangent, (side,)) for side in (-1, 1))
    if any(not np.allclose(left[n], right[n], rtol=1e-3, atol=1e-3, equal_nan=True) for n in pushed):
        return "cannot tell: a kink, or no derivative in all directions"
    said = sorted({note.code for note in answer.notes} & set(_SAYS_SO))
    return f"{'noted' if said else 'wrong'}: {wrong} {said or ''} {'beside JAX too' if by_jax is not None else ''}"


def _outputs_off(question: Asked, oracle: Oracle, wide: Point) -> str:
    """Values in the narrow dtype beside those in the wide one, and these beside JAX's."""
    answer = ENGINE.answer(_query(question.case))
    rng = np.random.default_rng(5)
    eps = torch.finfo(question.dtype).eps
    moved = {n: v * (1 + eps * rng.uniform(-1, 1, v.shape)) if n in oracle.floating else v for n, v in oracle.point.items()}
    other = oracle.at(moved)
    for name, right in wide.items():
        got = _wide(to_torch(answer.results["outputs"][name], "cpu"))
        if got.shape != right.shape or right.dtype.kind not in "fc":
            continue
        finite = np.isfinite(got) & np.isfinite(right)
        slack = _ROUNDINGS * float(np.sum(np.abs(other[name] - right), where=finite & np.isfinite(other[name])))
        error = float(np.max(np.abs(got - right), initial=0.0, where=finite))
        scale = float(np.max(np.abs(right), initial=0.0, where=finite))
        said = sorted({note.code for note in answer.notes} & set(_SAYS_SO))
        if not (np.isfinite(got) == np.isfinite(right)).all() and not said:
            return f"wrong: {name} is finite at other places"
        if error > _OWN * eps * scale + slack:
            return f"{'noted' if said else 'wrong'}: {name} is off by {error:.3g} of {scale:.3g}"
    return ""


main = functools.partial(
    sweeping.run, "tests.oracle.dtype_sweep", __doc__, RESULTS, every(), lambda question: question.title, complaint
)

if __name__ == "__main__":
    main(sys.argv[1:])
