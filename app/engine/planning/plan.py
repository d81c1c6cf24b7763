"""The Plan of a query: what will be computed, by which method, and what it costs; refused here if it breaks a limit.

Knows shapes, dtypes and costs. Refuses to know values: nothing is allocated before a Plan exists.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch

from app.engine.planning.cost import Cost
from app.engine.tensors import is_differentiable
from app.errors import PullbackError
from app.limits import Limits

Method = Literal["none", "reverse", "forward"]

# One backward costs about twice its forward (Griewank & Walther, Evaluating Derivatives, 2nd ed., section 4.6); so does one
# forward-mode pass.
PASS_FLOPS: Final = 2.0
# Rows of a Jacobian that run together: below 64 chunking only costs time, above 512 only memory (measured).
ROWS_AT_MOST: Final = 512
# Operations whose forward-mode derivative PyTorch 2.13 gets wrong (cross-checked: ⟨v, Jᵗu⟩ ≠ ⟨Jv, u⟩).
FORWARD_WRONG: Final = frozenset(
    {
        "scatter_reduce", "nn.functional.max_unpool1d", "nn.functional.max_unpool2d", "nn.functional.max_unpool3d",
    }
)  # fmt: skip
# Operations without a forward-mode derivative; asking would cost a failed attempt.
FORWARD_MISSING: Final = frozenset(
    {
        "cdist", "nn.functional.multi_margin_loss", "nn.functional.multilabel_margin_loss", "ormqr", "tensor_split", "index_reduce",
        "nn.functional.embedding_bag", "nn.functional.grid_sample", "nn.functional.pdist", "segment_reduce",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Result:
    """A tensor of the Function or of the answer, before it exists."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.elements * self.dtype.itemsize


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
    """

    wrt: tuple[Result, ...]
    outputs: tuple[Result, ...]
    method: Method
    passes: int
    rows: int
    flops: float
    peak_bytes: int

    def report(self, device: str) -> dict[str, Any]:
        return {
            "method": self.method,
            "passes": self.passes,
            "flops": round(self.flops),
            "peak_bytes": self.peak_bytes,
            "device": device,
        }


def jacobian_method(wrt: Sequence[Result], outputs: Sequence[Result], operations: frozenset[str]) -> Method:
    """Whichever takes fewer passes: one for each input element in forward mode, one for each output element in reverse.

    Complex functions: forward mode where an output is complex (its columns are ∂f/∂z, or ∂f/∂x of a real input), reverse where
    only an input is (PyTorch's convention for real functions of complex inputs).
    """
    if any(o.dtype.is_complex for o in outputs):
        return "forward"
    if any(i.dtype.is_complex for i in wrt) or operations & (FORWARD_WRONG | FORWARD_MISSING):
        return "reverse"
    columns, rows = sum(i.elements for i in wrt), sum(o.elements for o in outputs)
    return "forward" if columns < rows else "reverse"  # on equal terms reverse mode has less to set up (measured)


def make(
    *,
    want: Sequence[str],
    wrt: Sequence[Result],
    outputs: Sequence[Result],
    of: Result | None,
    operations: frozenset[str],
    cost: Cost | None,
    several: int,
    samples: int,
    diagonal: bool,
    limits: Limits,
) -> Plan:
    """The Plan, refused where it breaks a limit.

    Arguments:
        want: kinds of the contract's section 4.
        of: the scalar (or log-likelihood) output that `gradient`, `hessian`, `hvp`, `fisher` are of.
        operations: names of the operations that the Function calls.
        several: cotangents or tangents in one query.
        samples: of a batched query, else 1; shapes are then one sample's.
        diagonal: the format is not dense, so Jacobians and Hessians are not sized in full here (they are where they prove dense).

    Raises:
        PullbackError: `result_too_large` or `too_costly`, with the numbers.
    """
    smooth = [o for o in outputs if is_differentiable(o.dtype)]
    columns, rows = sum(i.elements for i in wrt), sum(o.elements for o in smooth)
    method: Method = "none"
    passes = 1
    sizes: dict[str, int] = {"outputs": sum(o.bytes for o in outputs)} if "outputs" in want else {}
    input_bytes = sum(i.bytes for i in wrt)
    width = max((i.dtype.itemsize for i in (*wrt, *smooth)), default=8)
    for kind in want:
        if kind in ("gradient", "vjp", "hvp", "fisher_diagonal"):
            sizes[kind] = input_bytes * (several if kind in ("vjp", "hvp") else 1)
            passes += {"gradient": 1, "vjp": several, "hvp": 1 + several, "fisher_diagonal": of.elements if of else 1}[kind]
            method = "reverse" if method == "none" else method
        elif kind == "jvp":
            sizes[kind] = several * sum(o.bytes for o in smooth)
            passes += several
            method = "forward" if method == "none" else method
        elif kind == "jacobian":
            method = jacobian_method(wrt, smooth, operations)
            count = columns if method == "forward" else rows
            sizes[kind] = max(columns, rows) * width if diagonal else rows * columns * width
            passes += 1 if diagonal else count
        elif kind == "hessian":
            sizes[kind] = input_bytes if diagonal else columns * columns * width
            passes += 1 + (1 if diagonal else columns)
            method = "reverse"
        elif kind == "fisher":
            sizes[kind] = sum(i.elements**2 for i in wrt) * width
            passes += of.elements if of else 1
            method = "reverse"
        elif kind in ("explain", "check"):
            passes += 30
    total = samples * sum(sizes.values())
    if total > limits.result_bytes:
        raise _too_large(sizes, samples, total, limits)
    one = cost or Cost(0.0, 0, 0)
    flops = samples * one.flops * (1 + PASS_FLOPS * (passes - 1))
    per_row = max(1, 2 * one.bytes + columns * width)
    budget = max(limits.memory_bytes // 4, 1)
    chunk = max(1, min(ROWS_AT_MOST, budget // per_row))
    tall = any(kind in want for kind in ("jacobian", "hessian", "fisher", "fisher_diagonal")) or several > 1
    together = min(chunk, max(passes - 1, 1)) if tall else 1
    kept = one.live_bytes if set(want) <= {"outputs"} else 2 * one.bytes
    peak = samples * (kept + input_bytes) + together * per_row * (1 if tall else 0) + 2 * total
    if flops > limits.flops or peak > limits.memory_bytes:
        raise _too_costly(flops, peak, limits)
    return Plan(tuple(wrt), tuple(outputs), method, passes, chunk, flops, peak)


def check_result_size(what: str, size: int, limits: Limits) -> None:
    """Refuse a result that turned out larger than the Plan could know, before it is allocated."""
    if size > limits.result_bytes:
        raise _too_large({what: size}, 1, size, limits)


def _too_large(sizes: dict[str, int], samples: int, total: int, limits: Limits) -> PullbackError:
    worst = max(sizes, key=lambda kind: sizes[kind])
    ways = {
        "jacobian": 'Ask for "vjp" or "jvp" with the directions you need, or for "format": "diagonal".',
        "hessian": 'Ask for "hvp" with the directions you need, or for "format": "diagonal".',
        "fisher": 'Ask for "fisher_diagonal".',
    }
    return PullbackError(
        "result_too_large",
        f"The answer would have {total:,} bytes ({worst} alone {samples * sizes[worst]:,}); the limit is {limits.result_bytes:,}.",
        at=f"want.{worst}",
        expected=f"at most {limits.result_bytes:,} bytes",
        given=f"{total:,} bytes",
        fix=ways.get(worst, "Send smaller inputs, or reduce the result in a program before it is returned."),
    )


def _too_costly(flops: float, peak: int, limits: Limits) -> PullbackError:
    memory = peak > limits.memory_bytes
    given = f"{peak:,} bytes at the peak" if memory else f"{flops:.3g} floating-point operations"
    limit = f"{limits.memory_bytes:,} bytes" if memory else f"{limits.flops:.3g} floating-point operations"
    return PullbackError(
        "too_costly",
        f"The computation would take {given}; the limit is {limit}.",
        expected=f"at most {limit}",
        given=given,
        fix="Send smaller inputs, ask for `vjp` or `jvp` instead of `jacobian` or `hessian`, or split the query.",
    )
