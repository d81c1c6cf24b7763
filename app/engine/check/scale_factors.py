"""What a factor between two derivatives may be equal to: the sizes that a program divides by, its axes, the 2 of a square.

Knows a program's sizes. Refuses to know derivatives.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch import fx

from app.engine.stepwise.point import REFUSALS, argument_of, name_of
from app.engine.stepwise.trace import StepRecord, StepTrace
from app.engine.tensors import is_differentiable

_MEANS: Final = frozenset({"mean", "nanmean", "avg_pool1d", "avg_pool2d", "var", "std"})
_SUMS: Final = frozenset({"sum", "nansum", "einsum", "dot", "matmul", "norm"})
_SQUARES: Final = frozenset({"pow", "square", "mse_loss", "dot", "vdot", "norm", "var"})
_LOSSES: Final = frozenset(
    {
        "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "cross_entropy", "nll_loss", "binary_cross_entropy", "kl_div", "poisson_nll_loss",
        "binary_cross_entropy_with_logits", "hinge_embedding_loss", "soft_margin_loss", "gaussian_nll_loss", "cosine_embedding_loss",
        "margin_ranking_loss", "multi_margin_loss", "multilabel_margin_loss", "multilabel_soft_margin_loss", "triplet_margin_loss",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Factor:
    """`value` > 0, what it is; `weak`: a size that may be equal by chance, so one element alone does not prove it."""

    value: float
    meaning: str
    weak: bool


def factors_of(local: StepTrace, name: str) -> list[Factor]:
    """Factors that a derivation with respect to the input `name` may be off by, the most telling first."""
    found = [*_averages(local), *_totals(local), *_twos(local), *_sizes(local, name)]
    return [factor for factor in found if factor.value > 0 and factor.value != 1]


def _averages(local: StepTrace) -> Iterator[Factor]:
    """A mean in the program, taken as a sum."""
    for ran in local.ran:
        count = _averaged(local, ran)
        if count is not None and count != 1:
            what = _called(local, ran, count)
            yield Factor(count, f"{what}: sum instead of mean", weak=False)
            if _squares(local):
                yield Factor(
                    count / 2,
                    f"half of {what}: sum instead of mean, and the 2 from the derivative of a square is missing",
                    weak=True,
                )


def _averaged(local: StepTrace, ran: StepRecord) -> float | None:
    """By how much the step's sum is larger than its mean."""
    name = name_of(ran.node)
    if name in _MEANS and len(ran.outputs) == 1 and ran.outputs[0].numel():
        return ran.inputs[0].numel() / ran.outputs[0].numel()
    if name in _LOSSES and "mean" in str(argument_of(ran.node, "reduction", "mean")) and not ran.outputs[0].ndim:
        total = _total(local, ran)
        mean = float(ran.outputs[0])
        return total / mean if total is not None and mean else None
    return None


def _total(local: StepTrace, ran: StepRecord) -> float | None:
    """The loss of a step with its reduction set to a sum."""
    at = {parent[0]: tensor.detach() for parent, tensor in zip(ran.parents, ran.inputs, strict=True)}
    args = [at.get(a, a) if isinstance(a, fx.Node) else a for a in ran.node.args]
    kwargs = {key: at.get(a, a) if isinstance(a, fx.Node) else a for key, a in ran.node.kwargs.items()}
    if argument_of(ran.node, "reduction", None) in args:
        args[args.index(argument_of(ran.node, "reduction", None))] = "sum"
    else:
        kwargs["reduction"] = "sum"
    try:
        with local.point.ready(), torch.no_grad():
            return float(local.point.call(ran.node, args, kwargs, ran.state))
    except REFUSALS:
        return None


def _called(local: StepTrace, ran: StepRecord, count: float) -> str:
    """What the number of averaged things is to a person."""
    batch = count in _batch_sizes(local)
    everything = count == ran.inputs[0].numel()
    if batch and everything:
        return "the number of elements, which is the batch size"
    return "the batch size" if batch else "the number of elements" if everything else "the number of elements averaged"


def _batch_sizes(local: StepTrace) -> set[int]:
    leaves = [local.values[ref] for ref in local.leaves.values()]
    return {leaf.shape[0] for leaf in leaves if leaf.ndim > 1}


def _totals(local: StepTrace) -> Iterator[Factor]:
    """A sum in the program, taken as a mean."""
    for ran in local.ran:
        function = name_of(ran.node)
        is_sum = function in _SUMS or (function in _LOSSES and argument_of(ran.node, "reduction", "") == "sum")
        if not is_sum or not ran.inputs or not ran.outputs[0].numel():
            continue
        count = ran.inputs[0].numel() / ran.outputs[0].numel()
        for size in {count, *_batch_sizes(local)}:
            if size > 1 and float(size).is_integer():
                yield Factor(1 / size, f"one over {_called(local, ran, size)}: mean instead of sum", weak=size != count)


def _twos(local: StepTrace) -> Iterator[Factor]:
    square = any(name_of(ran.node) in _SQUARES for ran in local.ran)
    yield Factor(
        0.5, "the 2 from the derivative of a square is missing" if square else "a factor of 2 is missing", weak=not square
    )
    yield Factor(2.0, "one factor of 2 too many", weak=True)


def _squares(local: StepTrace) -> bool:
    return any(name_of(ran.node) in _SQUARES for ran in local.ran)


def _sizes(local: StepTrace, name: str) -> Iterator[Factor]:
    leaf = local.values[local.leaves[name]]
    sizes: dict[float, str] = {}
    for batch in sorted(_batch_sizes(local)):
        sizes.setdefault(batch, "the batch size")
    sizes.setdefault(leaf.numel(), f"the number of elements of `{name}`")
    for other, ref in local.leaves.items():
        value = local.values[ref]
        if is_differentiable(value.dtype):
            for axis, size in enumerate(value.shape):
                sizes.setdefault(size, f"the size of axis {axis} of `{other}`")
    for length, meaning in sizes.items():
        if length > 1:
            yield Factor(float(length), meaning, weak=True)
            yield Factor(1 / length, f"one over {meaning}", weak=True)
