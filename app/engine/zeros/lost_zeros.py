"""Says of zeros and infinities in outputs and first derivatives where they are none, and of tiny float64 numbers with few right digits.

What underflows or overflows on the way, or is rounded to its limit (1 − tanh² at 25), leaves a zero that looks like a result. Where
one may be that, the same steps are computed from the same numbers in 360 digits. A number that hangs on the last bits of what was sent
is none of these: it is computed from numbers a bit beside them too.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from app.engine.batching import sample_of
from app.engine.computation import Computation
from app.engine.kinds import KINDS
from app.engine.planning.prepare import Prepared
from app.engine.precision.exact_arithmetic.numbers import MP, Numbers, as_numbers
from app.engine.precision.reference import exactly
from app.engine.precision.runs import Run
from app.engine.stepwise.point import REFUSALS, Point, Ref, to_double
from app.engine.stepwise.trace import trace_steps
from app.engine.tensors import is_differentiable
from app.engine.zeros.telling_zeros import (
    ResultKey,
    Telling,
    has_telling_zeros,
    is_connected,
    is_looked_at,
    is_tiny,
    least_of,
    result_keys,
    sized,
    spread,
    telling,
    tensors_of,
)
from app.engine.zeros.true_zeros import Suspect, are_explained

# 1 − (1 − 1e-308) has a digit of its own in so many, and what rounding leaves of a true zero is below every float64.
_DIGITS: Final = 360
# Numbers of so many digits, 10 µs each (measured of densities): two runs take 100 ms.
_BUDGET: Final = 5_000
# Numbers are moved by as many roundings: with fewer, those of 1e16, 1 and −1e16 may fall so that their sum stays.
_BESIDE: Final = 4
# Samples of a batch whose zeros are looked at: 10 µs each.
_SAMPLES: Final = 64
# A number that changes by more where its inputs change by a rounding is not known in their dtype.
_SHARE: Final = 0.5
# Of float64's sixteen digits fewer than four are right.
_FEW: Final = 1e-4

Floats = npt.NDArray[Any]


def note_lost_zeros(computation: Computation, tree: Mapping[str, Any]) -> None:
    """A note for each tensor of the answer with zeros that are none, and for such an output of which derivatives alone are wanted."""
    prepared = computation.prepared
    tells, samples = telling(prepared), prepared.samples
    if tells is None or not _has_suspects(tree):
        return
    results = _looked_at(computation, tree)
    leaves = {name: leaf.detach().numpy(force=True) for name, leaf in computation.leaves.items()}
    for sample in (None,) if samples is None else _with_zeros(results.values(), samples):
        axes = {name: computation.query.is_batched(name) for name in leaves}
        here = leaves if sample is None else {name: leaf[sample] if axes[name] else leaf for name, leaf in leaves.items()}
        own = results if sample is None else {key: own[sample] for key, own in results.items()}
        suspects = {
            key: suspect
            for key, values in own.items()
            if (suspect := _suspect(prepared, key, values, tells, here.values)).open.any()
        }
        alone = computation if sample is None or not suspects else sample_of(computation, axes, sample, computation.notes)
        if suspects and _note(alone, suspects):
            return


def _has_suspects(tree: Mapping[str, Any]) -> bool:
    """Whether a number that is looked at is zero, tiny or infinite: of most answers none is, which is seen in a tenth of the time."""
    for kind in filter(is_looked_at, tree):
        for values in tensors_of(tree[kind], kind).values():
            sizes = list(map(abs, values.ravel().tolist()))
            if sizes and not least_of(values.dtype) <= min(sizes) <= max(sizes) < math.inf and _is_suspect(values).any():
                return True
    return False


def _is_suspect(values: Floats) -> Floats:
    return np.asarray((values == 0) | np.isinf(values) | is_tiny(values))


def _suspect(
    prepared: Prepared, key: ResultKey, values: Floats, tells: Telling, leaves: Callable[[], Iterable[Floats]]
) -> Suspect:
    """A result, and where it is infinite or tiny, or zero if its zeros tell."""
    sizes = sized(prepared, key, values)
    is_open = is_tiny(values)
    if has_telling_zeros(sizes, tells, leaves):
        is_open |= np.isinf(values) | spread(sizes == 0, values)
    return Suspect(values, is_open)


def _with_zeros(results: Iterable[Floats], samples: int) -> list[int]:
    """The first samples that have a zero somewhere, or a tiny number."""
    zeros = [_is_suspect(values).reshape(samples, -1).any(1) for values in results]
    return np.flatnonzero(np.any(zeros, 0))[:_SAMPLES].tolist() if zeros else []


def _looked_at(computation: Computation, tree: Mapping[str, Any]) -> dict[ResultKey, Floats]:
    """What is looked at of the answer; not a derivative by what leads nowhere."""
    prepared, results = computation.prepared, {}
    for kind in filter(is_looked_at, tree):
        tensors = tensors_of(tree[kind], kind)
        for key in result_keys(kind, prepared):
            if key.path in tensors and (key.leaf is None or is_connected(prepared.function, key.leaf)):
                results[key] = tensors[key.path]
    return results


def _note(computation: Computation, suspects: Mapping[ResultKey, Suspect]) -> bool:
    """Whether the exact numbers were asked for, which is done once."""
    try:
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the answer's own road has warned
            outputs = [
                (ResultKey("outputs", name), value.detach().numpy(force=True))
                for name, value in computation.evaluation.outputs.items()
            ]
            others = {key: Suspect(own, _is_suspect(own)) for key, own in outputs}
            looked_at = {**others, **suspects}
            if are_explained(computation, looked_at):
                return False
            look = Look(computation)
            for key, own in looked_at.items():
                lost = look.lost(key, own) if own.open.any() else None
                if lost is not None:
                    _say(computation, key, own.values, *lost)
    except REFUSALS:  # a step that PyTorch refuses in float64, or alone: then nothing is known
        pass
    return True


def _say(computation: Computation, key: ResultKey, own: Floats, index: tuple[int, ...], right: Any, count: int) -> None:
    is_output = key.kind == "outputs" and computation.query.want != ("outputs",)
    derived = " Derivatives through it may be wrong too." if is_output else ""
    more = f", and {count - 1} more such" if count > 1 else ""
    where = f" at {list(index)}" if index else ""
    if own[index] == 0 or np.isinf(own[index]):
        what = "infinite" if own[index] else "0"
        words = (
            f"`{key.path}` is {what}{where}{more}, and the true number there is {MP.nstr(right, 2)}, which {own.dtype} holds: what makes it "
            "underflows, overflows or is rounded to its limit on the way."
        )
    else:
        digits = max(0, int(-MP.log10(abs(own[index] - right) / abs(right))))
        words = (
            f"`{key.path}` is {own[index]:.6g}{where}{more}, and the true number there is {MP.nstr(right, 6)}: {digits} of its digits are right, as "
            "larger numbers cancel on the way or one is rounded to its limit."
        )
    computation.notes.say("rounded", f'{words}{derived} "precision" in "want" says which step.', key.path)


def _number(own: Any) -> Any:
    return MP.mpf(float(own))


class Look:
    """The exact numbers of one query at one point."""

    def __init__(self, computation: Computation) -> None:
        self._computation = computation
        function = computation.prepared.function
        self._trace = trace_steps(Point(function, computation.leaves, computation.query.seed))
        self._eps = max(torch.finfo(dtype).eps for dtype in computation.dtypes if is_differentiable(dtype))
        self._runs: dict[tuple[str, bool], Run | None] = {}

    def lost(self, key: ResultKey, suspect: Suspect) -> tuple[tuple[int, ...], Any, int] | None:
        """Of the numbers that are wrong, and the true ones known and held by the dtype, the index of the first, what it is, and their count."""
        own = suspect.values
        limits = np.finfo(own.dtype)
        least = 2 * float(limits.smallest_subnormal)
        right = self.right(key, suspect, is_beside=False)
        if right is None:
            return None
        lost = [
            index
            for index in map(tuple, np.argwhere(suspect.open).tolist())
            if least <= abs(right[index]) <= float(limits.max)
            and not abs(right[index] - _number(own[index])) <= max(_FEW * abs(right[index]), least)
        ]
        beside = self.right(key, suspect, is_beside=True) if lost else None
        if beside is None:
            return None
        lost = [
            index
            for index in lost
            if abs(beside[index] - right[index]) <= _SHARE * min(abs(right[index]), abs(right[index] - _number(own[index])))
        ]
        return (lost[0], right[lost[0]], len(lost)) if lost else None

    def right(self, key: ResultKey, suspect: Suspect, *, is_beside: bool) -> Numbers | None:
        """The exact numbers of a result, or those of numbers a bit beside the inputs; None where they cannot be had."""
        kind, name, leaf = key
        if name is None:
            seeds = self._seeds(kind)
            run = None if seeds is None else self._run(kind, seeds, is_beside)
            return None if run is None or leaf is None else run.cotangents.get(self._trace.leaves[leaf])  # no path leads there
        if not KINDS[kind].demand.derives:
            run = self._run("", {}, is_beside)
            return None if run is None else run.values[self._output(name)]
        output = self._computation.evaluation.outputs[name]
        index = tuple(np.argwhere(suspect.open)[0][: output.dim()])
        row = torch.zeros_like(output, dtype=torch.float64)
        row[index] = 1.0
        run = self._run(f"{key.path}{index}", {self._output(name): row}, is_beside)
        one = (
            None if run is None else self._along_tangents(run) if leaf is None else run.cotangents.get(self._trace.leaves[leaf])
        )
        if one is None:
            return None
        whole = np.full(suspect.values.shape, MP.nan, dtype=object)
        whole[index] = one
        return whole

    def _along_tangents(self, run: Run) -> Any:
        tangents, _ = self._computation.tangents
        pairs = [(run.cotangents.get(self._trace.leaves[name]), tangent) for name, tangent in tangents.items()]
        return sum(np.sum(cotangent * as_numbers(to_double(t))) for cotangent, t in pairs if cotangent is not None)

    def _output(self, name: str) -> Ref:
        return self._trace.outputs[self._computation.prepared.function.outputs.index(name)]

    def _seeds(self, kind: str) -> dict[Ref, Tensor] | None:
        computation = self._computation
        vectors, count = computation.cotangents if kind == "vjp" or computation.query.weighted else ({}, None)
        if count is not None:
            return None
        if kind == "gradient":
            of = computation.prepared.of or ""
            vectors = {of: vectors.get(of, torch.ones_like(computation.evaluation.outputs[of]))}
        return {self._output(name): to_double(vector.detach()) for name, vector in vectors.items()}

    def _run(self, key: str, seeds: Mapping[Ref, Tensor], is_beside: bool) -> Run | None:
        """A run from these cotangents; the key of none takes any, as the forward of each is the same."""
        known = [own for (name, beside), own in self._runs.items() if beside == is_beside and key in ("", name)]
        if known:
            return known[0]
        draw = random.Random(0)  # noqa: S311

        def beside(number: Any) -> Any:
            return number * (1 + _BESIDE * self._eps * draw.uniform(-1, 1))

        run = exactly(self._trace, seeds, _DIGITS, _BUDGET, beside if is_beside else None)
        self._runs[key, is_beside] = None if run is None else run[0]
        return self._runs[key, is_beside]
