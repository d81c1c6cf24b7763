"""Says of results where they are not finite and which step made them so first, and where a derivative's finite numbers are none, or rounding."""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, fx

from app.catalogue.dtypes import dtype_name
from app.catalogue.facts import sentence, values
from app.engine.computation import Computation
from app.engine.notes import Notes
from app.engine.stepwise.conditioning import ill_conditioned_steps
from app.engine.stepwise.degenerate_points import degenerate_steps, twice_degenerate_steps
from app.engine.stepwise.first_nonfinite import broken_derivative, broken_value
from app.engine.stepwise.overflow import first_overflow, hides_overflow
from app.engine.stepwise.point import REFUSALS, Point, name_of, step_of, to_double
from app.engine.stepwise.trace import StepTrace, trace_steps
from app.engine.tensors import SparseTensor, is_differentiable, is_narrow
from app.errors import PullbackError
from app.program.errors import tensors_in
from app.program.function import Function, Step
from app.query import MATRICES, SECOND

# What the search for the step takes, in multiples of the plan: measured 1.4 to 4.0 (`sinh` in complex64, `log`, quotients), in half precision 1.6
# to 5.9.
_TRACED, _TRACED_HALF = 4, 6
_HALF: Final = (torch.float16, torch.bfloat16)
# Which passes an entry comes from hangs on the form; what is proved zero comes from none.
_OTHER_FORMS: Final = (
    ' As passes multiply zeros by infinity there, `"format": "dense"` may have NaN where this form has a number or a zero that is proved, '
    "and the other way round."
)
# An error by more than half of the largest number of a derivative leaves no digit of any, even in base 2.
_LOST: Final = 0.5
# Of numbers that are not zero ordinary rounding loses up to 1 of 20 beside larger ones, and 1 of 9 where there are nine (gradients of losses,
# normalisations and attention in half precision, measured); a formula that cancels loses more.
_LOST_SHARE: Final = 1 / 8
# What float64 itself leaves of terms of size 1 to 1e5 that cancel; a zero beside it may be right.
_DUST: Final = 1e-10
# They run again where that adds little to the plan: at most some 10 ms of one core, and no more memory than a printed gradient's note takes.
_AGAIN_FLOPS: Final = 1e7
_AGAIN_BYTES: Final = 16 << 20
# What that takes, in multiples of the plan: 3.4 (`hvp` of a cube), 5.8 (`exp`) to 10.9 (`cumsum`) measured.
_AGAIN: Final = 12


def note_nonfinite(computation: Computation, derivatives: Mapping[str, Any]) -> bool:
    """A note for each tensor in the tree `derivatives` that is not finite, naming the first step that made it.

    Returns whether there is one that is finite.
    """
    paths = {path: _finite(value) for kind, tree in derivatives.items() for path, value in _leaves(tree, kind)}
    bad = [path for path, is_finite in paths.items() if not is_finite]
    if not bad:
        return bool(paths)
    step = None
    if computation.prepared.samples is None and _fits_again(computation):
        _count_search(computation)
        step = first_step(computation)
    maker = "" if step is None else f" The first step that made it: line {step.line}, `{step.text}`."
    for path in bad:
        is_structured = computation.query.format != "dense" and path.partition(".")[0] in MATRICES
        words = f"The derivative at `{path}` is infinite or NaN in places.{maker}{_OTHER_FORMS if is_structured else ''}"
        computation.notes.say("non_finite", words, path)
    return len(bad) < len(paths)


def note_undefined(computation: Computation, *, of_one: bool) -> None:
    """A note for each output that is NaN, of derivatives that are finite: a function has none where it has no value.

    So too for a single number that is infinite at finite inputs, where the derivative may be that of x² or a zero that is none; of more
    numbers one may be infinite on purpose, as a mask is.

    Arguments:
        of_one: all derivatives that are wanted are of one output.
    """
    prepared = computation.prepared
    try:
        outputs = _outputs_here(computation)
    except REFUSALS:  # a step without a batching rule: then nothing is known
        return
    for name, output in outputs.items():
        if (name != prepared.of and of_one) or _finite(output):
            continue
        path = f"outputs.{name}"
        if bool(torch.isnan(output).any()):
            words = "is NaN in places: the function is not defined there, and a derivative of it, though finite, says nothing."
            computation.notes.say("non_finite", f"`{path}` {words}", path)
        elif output.numel() == (prepared.samples or 1) and all(map(_finite, computation.leaves.values())):
            words = "is infinite, and the inputs are not: a derivative of it, though finite, may be wrong."
            computation.notes.say("non_finite", f"`{path}` {words}", path)


def _outputs_here(computation: Computation) -> dict[str, Tensor]:
    """The outputs at the query's point; of a batch those of all samples."""
    if computation.prepared.samples is None:
        return dict(computation.evaluation.outputs)
    return _outputs_of_samples(computation, wide=False)


def _outputs_of_samples(computation: Computation, *, wide: bool) -> dict[str, Tensor]:
    """The outputs of all samples of a batch; `wide`: in float64."""
    query, function = computation.query, computation.prepared.function

    def outputs(leaves: Mapping[str, Tensor]) -> list[Tensor]:
        return list(Point(function, leaves, query.seed, wide=wide).run({}))

    batched = [name for name in computation.leaves if query.is_batched(name)]
    dims = ({name: 0 if name in batched else None for name in computation.leaves},)
    with torch.no_grad():
        try:
            rows = torch.func.vmap(outputs, in_dims=dims, randomness="same")(dict(computation.leaves))
        except REFUSALS:  # a step without a batching rule
            samples = range(computation.prepared.samples or 0)
            each = [outputs({n: t[i] if n in batched else t for n, t in computation.leaves.items()}) for i in samples]
            rows = [torch.stack(row) for row in zip(*each, strict=True)]
    return dict(zip(function.outputs, rows, strict=True))


def note_overflow(computation: Computation, outputs: Mapping[str, Tensor]) -> bool:
    """A note for each output that is infinite or NaN because its dtype is narrow: in float64 the same steps are finite there.

    Returns whether one was said.
    """
    narrow = {n: o for n, o in outputs.items() if is_narrow(o.dtype) and not _finite(o)}
    if not narrow or not _fits_again(computation):
        return False
    _count_search(computation)
    try:
        wide, step = _in_float64(computation)
    except REFUSALS:  # a step that insists on the dtype, or has no batching rule: then nothing is known
        return False
    is_said = False
    maker = "" if step is None else f" The first step that made it: line {step.line}, `{step.text}`."
    for name, output in narrow.items():
        if wide[name].shape == output.shape and bool((torch.isfinite(wide[name]) & ~torch.isfinite(output)).any()):
            path = f"outputs.{name}"
            words = f"`{path}` is infinite or NaN in places; the same steps in float64 are finite there, and not in {dtype_name(output.dtype)}."
            computation.notes.say("non_finite", words + maker, path)
            is_said = True
    return is_said


def _fits_again(computation: Computation) -> bool:
    """Whether there is memory to run all steps again and keep what they give, in these dtypes and in float64."""
    return computation.prepared.plan.peak_bytes * _search_times(computation) <= computation.limits.memory_bytes


def _search_times(computation: Computation) -> int:
    return _TRACED if computation.dtypes.isdisjoint(_HALF) else _TRACED_HALF


def _count_search(computation: Computation) -> None:
    """The plan is said with what a search takes, as there is one."""
    computation.plan_times = max(computation.plan_times, _search_times(computation))


def note_lost(computation: Computation) -> None:
    """A note where a step overflows in a narrow dtype, and not in float64, although what is made of it is finite: that may be wrong."""
    query, prepared = computation.query, computation.prepared
    if not computation.may_overflow or _was_finite(computation) or not _fits_again(computation):
        return
    batched = [name for name in computation.leaves if query.is_batched(name)]
    try:
        node = first_overflow(prepared.function, computation.leaves, query.seed, batched, partial(_count_search, computation))
    except REFUSALS:  # a step that insists on the dtype, or has no batching rule: then nothing is known
        return
    step = None if node is None else step_of(node)
    if node is not None and step is not None:
        value = "a number within this step" if hides_overflow(node) else "a value here"
        words = (
            f"Line {step.line}, `{step.text}`: {value} is infinite or NaN in the dtype that was sent, and finite in float64: the "
            "derivatives through it may be wrong, even where they are finite. Send float64."
        )
        computation.notes.say("non_finite", words, f"{step.line}:{step.column}")


def _was_finite(computation: Computation) -> bool:
    """Every step of the forward that gave the answer was looked at, and was finite."""
    sums = None if computation.prepared.samples is not None else computation.evaluation.step_sums
    return sums is not None and sums.is_finite


def _in_float64(computation: Computation) -> tuple[dict[str, Tensor], Step | None]:
    """The outputs in float64, and the first step that is finite there and not in the dtypes that were sent; of a batch no step."""
    query, function = computation.query, computation.prepared.function
    if computation.prepared.samples is not None:
        return _outputs_of_samples(computation, wide=True), None
    with torch.no_grad():
        points = [Point(function, computation.leaves, query.seed, wide=is_wide) for is_wide in (True, False)]
        wide, _ = (point.run({}) for point in points)
    here, sent = (point.results() for point in points)
    first = next((node for node in points[0].nodes if _overflows(node, here, sent)), None)
    return dict(zip(function.outputs, wide, strict=True)), None if first is None else step_of(first)


def _overflows(node: fx.Node, wide: Mapping[fx.Node, Any], narrow: Mapping[fx.Node, Any]) -> bool:
    pairs = zip(tensors_in(wide[node]), tensors_in(narrow[node]), strict=True)
    return any(
        w.shape == n.shape and is_differentiable(n.dtype) and bool((torch.isfinite(w) & ~torch.isfinite(n)).any())
        for w, n in pairs
    )


def note_degenerate(computation: Computation, *, of_one: bool) -> None:
    """A note for each step that has no derivative at this point, or one with few digits, where PyTorch gives finite numbers all the same.

    Arguments:
        of_one: all derivatives that are wanted are of one output.
    """
    query, prepared = computation.query, computation.prepared
    batched = [name for name in computation.leaves if query.is_batched(name)]
    outputs = (prepared.of,) if of_one and prepared.of else None
    there = (prepared.function, computation.leaves, query.seed, batched, prepared.wrt, outputs)
    if not SECOND.isdisjoint(query.want):
        for node in twice_degenerate_steps(*there):
            _say_at_step(computation, node, "singular_point", sentence(values("degenerate_twice")[name_of(node)]))
    if _is_excluded_by_bounds(computation):
        return
    singular = degenerate_steps(*there)
    for node in singular:
        _say_at_step(computation, node, "singular_point", sentence(values("degenerate")[name_of(node)]))
    for node, condition in ill_conditioned_steps(*there):
        if node not in singular:
            digits = round(math.log10(condition))
            words = (
                f"The matrix is nearly singular here (its condition number is {condition:.1e}): up to {digits} digits of a derivative "
                'through it may be lost, more than half of those that its dtype has. "precision" says how many are right.'
            )
            _say_at_step(computation, node, "ill_conditioned", words)


def _is_excluded_by_bounds(computation: Computation) -> bool:
    """Whether bounds of what the steps gave in the forward exclude all such notes: else all steps are run again."""
    steps = computation.bounded_steps
    if not steps:
        return steps is not None
    results = computation.evaluation.results
    try:
        with torch.no_grad():
            return bool(results) and all(step.is_excluded(results) for step in steps)
    except REFUSALS:  # of a matrix that is empty, or of whole numbers
        return False


def _say_at_step(computation: Computation, node: fx.Node, code: str, words: str) -> None:
    step = step_of(node)
    if step is None or computation.query.program is None:
        computation.notes.say(code, words, name_of(node) if step is None else step.operation)
    else:
        computation.notes.say(code, f"Line {step.line}, `{step.text}`: {words}", f"{step.line}:{step.column}")


def _leaves(tree: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(tree, Tensor):
        yield path, tree
    elif isinstance(tree, SparseTensor):
        yield path, tree.values
    elif isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from _leaves(value, f"{path}.{name}")


def _finite(value: Tensor) -> bool:
    # The sum is finite wherever every element is, unless it overflows: then look closely.
    return cmath.isfinite(value.sum().item()) or bool(torch.isfinite(value).all())


def first_step(computation: Computation) -> Step | None:
    """The step, in the order of the backward pass, that first turned a finite cotangent into one that is not.

    A step whose value is not finite already counts as the maker, for what follows from it cannot be finite.
    """
    try:
        trace = computation.points.narrow.once(trace_steps)
    except REFUSALS:  # PyTorch refuses a step alone that it took within the whole: then no step is named
        return None
    value = broken_value(trace, trace.values.keys())
    if value is not None:
        return step_of(value[0].node)
    broken = broken_derivative(trace, trace.backward(_ones(trace)))
    return None if broken is None else step_of(broken.record.node)


def _ones(trace: StepTrace) -> dict[Any, Tensor]:
    return {ref: torch.ones_like(trace.values[ref]) for ref in dict.fromkeys(trace.outputs) if trace.live[ref]}


def note_rounding_alone(computation: Computation, numbers: Mapping[str, Any], results: Callable[[Computation], Any]) -> None:
    """A note for each tensor in the tree `numbers` of which half precision leaves no digit, or none of many of its numbers.

    Where terms cancel (a saturated softmax, 1 − p of a p near 1), what is left of two or three digits is rounding alone, and looks like a
    derivative.

    Arguments:
        numbers: outputs and derivatives, without reports on one point.
        results: what computes such a tree.
    """
    prepared = computation.prepared
    dtypes = computation.dtypes.intersection(_HALF)
    is_costly = prepared.plan.flops > _AGAIN_FLOPS or prepared.plan.peak_bytes > _AGAIN_BYTES
    # What is drawn in another dtype is another number.
    if not numbers or not dtypes or is_costly or prepared.function.random:
        return
    computation.plan_times = max(computation.plan_times, _AGAIN)
    query = replace(computation.query, want=tuple(numbers))
    wide = Computation(
        query, replace(prepared, function=_steps_in_float64(prepared.function, computation.query.seed), patterns=None),
        {name: to_double(leaf) for name, leaf in computation.leaves.items()}, Notes(), computation.limits, computation.layout_cache,
    )  # fmt: skip
    try:
        right = results(wide)
    except (*REFUSALS, PullbackError):  # a step that insists on the dtype: then nothing is known
        return
    names = " and ".join(sorted(map(dtype_name, dtypes)))
    for path, own, exact in _pairs(numbers, right, ""):
        lost, count = _lost(own, exact, dtypes, prepared.samples)
        if lost:
            which = (
                f"No digit of `{path}` is right"
                if lost == count
                else f"Of {lost} of {count} numbers of `{path}` no digit is right"
            )
            computation.notes.say(
                "rounded",
                f"{which}: what {names} leaves of {'it' if lost == count else 'them'} is rounding alone. In float64 the same steps give other "
                "numbers, from the same inputs. Send float64.",
                path,
            )


def _steps_in_float64(function: Function, seed: int | None) -> Function:
    """The same steps, each in float64 and complex128."""
    leaves = function.leaves

    def call(*tensors: Tensor) -> tuple[Tensor, ...]:
        own = dict(zip(leaves, tensors, strict=True))
        return tuple(Point(function, own, seed).run(own))

    return replace(function, call=call)


def _pairs(own: Any, right: Any, path: str) -> Iterator[tuple[str, Tensor, Tensor]]:
    """The tensors of two trees that stand in the same place."""
    if isinstance(own, Mapping):
        for name, value in own.items():
            if name in right:
                yield from _pairs(value, right[name], f"{path}.{name}" if path else name)
    elif isinstance(own, SparseTensor):
        if isinstance(right, SparseTensor) and torch.equal(own.indices, right.indices):
            yield path, own.values, right.values
    elif isinstance(own, Tensor) and isinstance(right, Tensor) and own.shape == right.shape:
        yield path, own, right


def _lost(own: Tensor, right: Tensor, dtypes: Collection[torch.dtype], samples: int | None) -> tuple[int, int]:
    """How many numbers have no right digit, and of how many: all where none has; 0 where they are few. Of a batch in the sample that has most.

    A tensor has none where its largest error is as large as its numbers; else each number is looked at, but for zeros.
    """
    if not own.numel() or not is_differentiable(own.dtype):
        return 0, 0
    narrow = own.dtype if own.dtype in _HALF else next(iter(dtypes))
    own, right = (to_double(tensor.detach()) for tensor in (own, right))
    rows = samples if samples is not None and own.dim() and own.shape[0] == samples else 1
    own, right = own.reshape(rows, -1), right.reshape(rows, -1)
    size, error = right.abs(), (own - right).abs()
    # Numbers that finite ones of the dtype are apart near zero: what is smaller is zero in it.
    least = torch.finfo(narrow).tiny * torch.finfo(narrow).eps

    def is_lost(size: Tensor, error: Tensor, is_zero: Tensor) -> Tensor:
        is_large = torch.isfinite(error) & torch.isfinite(size) & (error > _LOST * size) & (error > 2 * least)
        return is_large & ~(is_zero & (size <= _DUST))

    if bool(is_lost(size.amax(1), error.amax(1), (own == 0).all(1)).any()):
        return own.shape[1], own.shape[1]
    lost, count = is_lost(size, error, own == 0).sum(1), ((own != 0) | (right != 0)).sum(1)
    worst = int(lost.argmax())
    pair = int(lost[worst]), int(count[worst])
    return pair if pair[0] > _LOST_SHARE * pair[1] else (0, 0)
