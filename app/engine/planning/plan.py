"""The Plan of a query: what will be computed, by which method, and what it costs; refused here if it breaks a limit.

Nothing is allocated before a Plan exists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

from app.catalogue.facts import operations_with, short, values
from app.catalogue.read import without_derivative
from app.engine.planning.cost import WIDENING, Cost
from app.engine.planning.demand import SMALLER, Demand, Method, Result, Sizes, Wanted
from app.errors import PullbackError
from app.limits import Limits

# One backward costs about twice its forward (Griewank & Walther, Evaluating Derivatives, 2nd ed., section 4.6); so does one
# forward-mode pass.
PASS_FLOPS: Final = 2.0
# Rows of a Jacobian that run together: below 64 chunking only costs time, above 512 only memory (measured).
ROWS_AT_MOST: Final = 512
# Rows that run together may fill a quarter of the memory: the estimate of what one row takes is no bound (a step may need several
# times its result while it runs), and the results and inputs want theirs besides.
_ROWS_SHARE: Final = 0.25
_NARROW: Final = 4  # bytes of an element: what has fewer is half precision
# Of an entry of a pattern, from the tracing of the steps to the places of the passes' numbers: measured as the growth of a fresh process with
# one, three, ten and 1,500 entries a row: 150, 100, 95 and 150 bytes, the dense part apart.
PATTERN_BYTES: Final = 110
# Of an entry of the patterns that are held at once while the steps are followed: measured as the growth of a fresh process whose results have few
# entries and whose steps have many (`cdist(x, y).sum()`, `(x @ y).sum()`, `cumsum(x, 0)[-1:]`, the sum of a convolution): 5.8 to 7.4 bytes.
_FOLLOWED_BYTES: Final = 8
# Entries that are not counted: so many are followed while a Function is built (followed_outputs.py), which says nothing of what it held.
_FOLLOWED_BESIDE: Final = 4 << 16

_OPERATIONS_KNOWN: Final = 512  # sets of operations of which a fact is remembered, some 100 kB: 384 pasted programs have 368


@dataclass(frozen=True, slots=True)
class Plan:
    """How a query will be answered.

    Attributes:
        wrt: the leaves to differentiate with respect to, in order.
        outputs: the Function's outputs.
        method: of the Jacobian, or of the derivatives wanted.
        passes: forwards and backwards in all, as PyTorch runs them before they are stacked.
        rows: rows of a Jacobian or Hessian that run together.
        flops: floating-point operations in all, estimated.
        peak_bytes: memory in all, estimated from above.
        row_bytes: of one more row that runs together with others; together: rows that `peak_bytes` counts.
    """

    wrt: tuple[Result, ...]
    outputs: tuple[Result, ...]
    method: Method
    passes: int
    rows: int
    flops: float
    peak_bytes: int
    row_bytes: int
    together: int

    @property
    def flops_of_one(self) -> float:
        """Of one forward of every sample."""
        return self.flops / (1 + PASS_FLOPS * (self.passes - 1))

    def report(self, device: str) -> dict[str, Any]:
        return {
            "method": self.method,
            "passes": self.passes,
            "flops": round(self.flops),
            "peak_bytes": self.peak_bytes,
            "device": device,
        }


@lru_cache(_OPERATIONS_KNOWN)
def has_forward_mode(operations: frozenset[str]) -> bool:
    """Whether PyTorch's forward mode is there, and right, for all of them as far as is known; asking would cost a failed attempt."""
    return values("forward").keys().isdisjoint(map(short, operations))


@lru_cache(_OPERATIONS_KNOWN)
def is_differentiable_everywhere(operations: frozenset[str]) -> bool:
    """Whether all of them are known to have a derivative at every point."""
    return operations_with("differentiable").issuperset(map(short, operations))


@lru_cache(_OPERATIONS_KNOWN)
def has_no_derivative(operations: frozenset[str]) -> bool:
    """Whether there is one, and none of them has a derivative: nothing that they give depends differentiably on anything."""
    return bool(operations) and without_derivative().issuperset(operations)


def jacobian_method(wrt: Sequence[Result], outputs: Sequence[Result], operations: frozenset[str]) -> Method:
    """Whichever takes fewer passes: one for each input element in forward mode, one for each output element in reverse.

    Complex functions: forward mode where an output is complex (its columns are ∂f/∂z, or ∂f/∂x of a real input), reverse where
    only an input is (PyTorch's convention for real functions of complex inputs).
    """
    if any(o.dtype.is_complex for o in outputs):
        return "forward"
    if any(i.dtype.is_complex for i in wrt) or not has_forward_mode(operations):
        return "reverse"
    columns, rows = sum(i.elements for i in wrt), sum(o.elements for o in outputs)
    return "forward" if columns < rows else "reverse"  # on equal terms reverse mode has less to set up (measured)


def make(
    *,
    demands: Wanted,
    sizes: Sizes,
    cost: Cost | None,
    samples: int,
    limits: Limits,
) -> Plan:
    """The Plan, refused where it breaks a limit.

    Arguments:
        demands: of the kinds that are wanted, in their order.
        sizes: of one sample.
        cost: of one forward of one sample; None where it could not be planned.
        samples: of a batched query, else 1.

    Raises:
        PullbackError: `result_too_large` or `too_costly`, with the numbers.
    """
    result_bytes = {kind: demand.bytes(sizes) for kind, demand in demands.items()}
    total = samples * sum(result_bytes.values())
    if total > limits.result_bytes:
        raise _too_large(result_bytes, samples, total, limits, demands)
    passes = 1 + sum([demand.passes(sizes) for demand in demands.values()])
    one = cost or Cost(0.0, 0, 0)
    flops = samples * one.flops * (1 + PASS_FLOPS * (passes - 1))
    of_one = _derivative_bytes(demands, one, sizes)
    # Of one row: its derivative and the row itself.
    per_row = max(1, of_one + sizes.columns * sizes.width)
    budget = max(int(limits.memory_bytes * _ROWS_SHARE), 1)
    rows = max(1, min(ROWS_AT_MOST, budget // per_row))
    together = min(rows, max(passes - 1, 1)) if demands.by_rows or sizes.num_vectors > 1 else 0
    derives = demands.derives and sizes.is_differentiated
    # Cotangents or tangents of outputs that are views of less: `expand` makes nothing, and what is sent against it is whole.
    held = of_one + sizes.differentiable_bytes if derives else one.live_bytes + one.scratch_bytes
    held += _report_bytes(demands, one, sizes) + _difference_bytes(demands, sizes)
    # The results count twice: as tensors, and as the bytes or text that they are sent as; and what is made of them before.
    blocks = _dense_blocks(demands, sizes)
    is_thinned = bool(blocks) and not sizes.is_complex and samples * min(blocks) <= limits.result_bytes
    at_once = _ALONE if blocks and not is_thinned and samples > 1 else samples
    working = at_once * sum([working(sizes) for working in demands.working])
    patterns = PATTERN_BYTES * demands.patterns_of(sizes)
    whole = min(sum(blocks), limits.result_bytes // samples) if is_thinned else 0
    confirmed = at_once * _confirmation_bytes(demands, one, sizes, whole) if samples > 1 and derives else 0
    inputs = samples * sizes.wrt_bytes
    peak = patterns + confirmed + at_once * held + inputs + max(together - 1, 0) * per_row + 2 * total + working
    if flops > limits.flops or peak > limits.memory_bytes:
        raise _too_costly(flops, peak, limits)
    return Plan(sizes.wrt, sizes.outputs, _method(demands, sizes), passes, rows, flops, peak, per_row, max(together, 1))


def _derivative_bytes(demands: Wanted, one: Cost, sizes: Sizes) -> int:
    """What autograd keeps of a forward, and what its derivative makes of it and holds on its way; a second derivative does that again."""
    modes = demands.modes
    in_forward_mode = demands.order > 1 or "forward" in modes or ("cheapest" in modes and sizes.method == "forward")
    scratch = one.forward_mode_scratch_bytes if in_forward_mode else one.backward_scratch_bytes
    return demands.order * (2 * one.bytes + scratch) + sizes.reused_bytes


# Of inputs and outputs, in float64: measured 2.0 to 3.0 (`heaviside` in float64, float32, bfloat16).
_DIFFERENCE_COPIES: Final = 3


def _difference_bytes(demands: Wanted, sizes: Sizes) -> int:
    """What is held where no step has a derivative, and a product along a direction is one of differences."""
    if not (sizes.without_derivative and "forward" in demands.modes):
        return 0
    ends = (*sizes.wrt, *sizes.differentiable)
    return _DIFFERENCE_COPIES * sum(result.bytes * WIDENING.get(result.dtype, 1) for result in ends)


# Of what the confirmation of a batch holds at a time, of each of its tensors: measured (`python -m tests.oracle.plan_sweep`, batched).
_CONFIRMING_COPIES: Final = 5
_CONFIRMED_IN: Final = 8  # bytes: half precision is confirmed in float64


# Samples that are held where they are computed one by one: the first, from which the others take their form, and the latest.
_ALONE: Final = 2


def _dense_blocks(demands: Wanted, sizes: Sizes) -> list[int]:
    """Bytes that each block of the matrices by their patterns would have if it were dense (thinning.py: where all are small they are)."""
    ends = [sizes.differentiable if by_outputs else sizes.wrt for patterns, by_outputs in demands.patterns if patterns(sizes)]
    rows = [row for end in ends for row in end]
    return [row.bytes * leaf.elements for row in rows for leaf in sizes.wrt]


def _confirmation_bytes(demands: Wanted, one: Cost, sizes: Sizes, whole: int) -> int:
    """What confirms a sample of a batch: the other road's forward and backward, and the results beside theirs.

    Arguments:
        whole: bytes of the matrices by their patterns where they are computed densely and thinned; else 0.
    """
    wide = _CONFIRMED_IN // sizes.width if sizes.width < _NARROW else 1
    results = whole or (sum(demand.bytes(sizes) for demand in demands.values()) if sizes.dense else 0)
    ends = sizes.differentiable_bytes + sizes.wrt_bytes
    derivatives = _derivative_bytes(demands, one, sizes) if sizes.dense or whole else 0
    return wide * (derivatives + _CONFIRMING_COPIES * (ends + results)) + whole


# Of what one of the operators of a step makes, while the step is run and differentiated: the scores of an attention, and their softmax.
_LOOKED_WITHIN: Final = 4
# Of inputs and of the largest tensor, where an output is floating and depends on them by no derivative (measured: 0.8 of what `heaviside` takes,
# three times what `randn_like` does).
_LOOKS_WITHOUT_DERIVATIVE: Final = (2, 5)


def _report_bytes(demands: Wanted, one: Cost, sizes: Sizes) -> int:
    """What `explain`, `check` and `precision` hold besides, which compute in float64 whatever was sent.

    Where no output can carry a derivative they have nothing to look at but one run of their own.
    """
    if not demands.looks:
        return 0
    copies = demands.copies if sizes.is_differentiated else 0
    looks = [look(sizes) for look in demands.looks]
    most = max(of_inputs for of_inputs, _ in looks), max(of_largest for _, of_largest in looks)
    few = _LOOKS_WITHOUT_DERIVATIVE if sizes.differentiable else (1, 1)
    of_inputs, of_largest = most if sizes.is_differentiated else (min(most[0], few[0]), min(most[1], few[1]))
    if not of_largest:
        return 0
    wide: int = max(WIDENING.get(result.dtype, 1) for result in (*sizes.wrt, *sizes.outputs))
    largest = max(one.largest_value_bytes, sizes.differentiable_bytes, sizes.wrt_bytes)
    within = max(one.largest_bytes - largest, 0)  # made by an operator within a step, and held while that runs
    looked = copies * one.bytes + of_largest * largest + _LOOKED_WITHIN * within + of_inputs * sizes.wrt_bytes
    return wide * looked + (one.wide_scratch_bytes if sizes.is_differentiated else 0)


def _method(demands: Wanted, sizes: Sizes) -> Method:
    """That of the Jacobian where it is wanted, else that of the largest derivative: of one by rows, or of the first."""
    first = demands.modes[0] if demands.modes else "none"
    return sizes.method if first == "cheapest" or "cheapest" in demands.modes else first


def check_result_size(what: str, size: int, limits: Limits) -> None:
    """Refuse a result that turned out larger than the Plan could know, before it is allocated."""
    if size > limits.result_bytes:
        raise _too_large({what: size}, 1, size, limits, {})


# Of an entry of an answer: a value of a wide dtype, or a narrow one and a part of its place.
_ANSWERED_BYTES: Final = 8


def entries_at_most(plan: Plan, limits: Limits) -> int:
    """Entries of a pattern that fit the memory beside what is planned, and that could be answered: beyond, a pattern is full."""
    fitting = _lines(plan) + max(limits.memory_bytes - plan.peak_bytes, 0) // PATTERN_BYTES
    return max(min(fitting, limits.result_bytes // _ANSWERED_BYTES), 1)


def _lines(plan: Plan) -> int:
    """Entries of a pattern that has one on each line."""
    return max(sum(leaf.elements for leaf in plan.wrt), sum(output.elements for output in plan.outputs))


def followed(plan: Plan, *, passes: int, together: int, entries: int, held: int, results: int) -> Plan:
    """The Plan as it was followed.

    Arguments:
        passes: in all; together: that ran together.
        entries: of the patterns of the results, of which those that the plan knew are counted; held: of all patterns at once, on the way.
        results: bytes in all.
    """
    patterns = max(PATTERN_BYTES * (entries - _lines(plan)), _FOLLOWED_BYTES * (held - _FOLLOWED_BESIDE), 0)
    peak_bytes = plan.peak_bytes + patterns + max(together - plan.together, 0) * plan.row_bytes + 2 * results
    flops = plan.flops_of_one * (1 + PASS_FLOPS * (passes - 1))
    return replace(plan, passes=passes, flops=flops, peak_bytes=peak_bytes)


def check_passes(plan: Plan, passes: int, size: int, limits: Limits) -> None:
    """Refuse passes that turned out more than the Plan could know; `size`: bytes of their results."""
    flops = plan.flops_of_one * PASS_FLOPS * passes
    if flops > limits.flops or plan.peak_bytes + size > limits.memory_bytes:
        raise _too_costly(flops, plan.peak_bytes + size, limits)


def _too_large(
    sizes: Mapping[str, int], samples: int, total: int, limits: Limits, demands: Mapping[str, Demand]
) -> PullbackError:
    worst = max(sizes, key=lambda kind: sizes[kind])
    return PullbackError(
        "result_too_large",
        f"The answer would have {total:,} bytes ({worst} alone {samples * sizes[worst]:,}); the limit is {limits.result_bytes:,}.",
        at=f"want.{worst}",
        expected=f"at most {limits.result_bytes:,} bytes",
        given=f"{total:,} bytes",
        fix=demands[worst].instead if worst in demands else SMALLER,
    )


def _too_costly(flops: float, peak: int, limits: Limits) -> PullbackError:
    memory = peak > limits.memory_bytes
    needed = f"{peak:,} bytes at the peak" if memory else f"{flops:.3g} floating-point operations"
    limit = f"{limits.memory_bytes:,} bytes" if memory else f"{limits.flops:.3g} floating-point operations"
    return PullbackError(
        "too_costly",
        f"The computation would take {needed}; the limit is {limit}.",
        expected=f"at most {limit}",
        given=needed,
        fix="Send smaller inputs, ask for `vjp` or `jvp` instead of `jacobian` or `hessian`, or split the query.",
    )
