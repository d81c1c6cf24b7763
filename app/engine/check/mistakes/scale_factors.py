"""What a factor between two derivatives may be equal to: the sizes that a program divides by, its axes, the 2 of a square."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import fx

from app.catalogue.facts import operations_with
from app.engine.stepwise.point import REFUSALS, argument_of, name_of
from app.engine.stepwise.trace import StepRecord, StepTrace
from app.engine.tensors import is_differentiable


@dataclass(frozen=True, slots=True)
class Factor:
    """`value` > 0, what it is; `weak`: a size that may be equal by chance, so one element alone does not prove it."""

    value: float
    meaning: str
    weak: bool


def factors_of(trace: StepTrace, name: str) -> list[Factor]:
    """Factors that a derivation with respect to the input `name` may be off by, the most telling first."""
    factors = [*_averages(trace), *_totals(trace), *_twos(trace), *_sizes(trace, name)]
    return [factor for factor in factors if factor.value > 0 and factor.value != 1]


def _averages(trace: StepTrace) -> Iterator[Factor]:
    """A mean in the program, taken as a sum."""
    for record in trace.records:
        count = _averaged(trace, record)
        if count is not None and count != 1:
            what = _called(trace, record, count)
            yield Factor(count, f"{what}: sum instead of mean", weak=False)
            if _squares(trace):
                yield Factor(
                    count / 2,
                    f"half of {what}: sum instead of mean, and the 2 from the derivative of a square is missing",
                    weak=True,
                )


def _averaged(trace: StepTrace, record: StepRecord) -> float | None:
    """By how much the step's sum is larger than its mean."""
    name = name_of(record.node)
    if name in operations_with("reduces", "mean") and len(record.outputs) == 1 and record.outputs[0].numel():
        return record.inputs[0].numel() / record.outputs[0].numel()
    if (
        name in operations_with("loss")
        and "mean" in str(argument_of(record.node, "reduction", "mean"))
        and not record.outputs[0].ndim
    ):
        total = _total(trace, record)
        mean = float(record.outputs[0])
        return total / mean if total is not None and mean else None
    return None


def _total(trace: StepTrace, record: StepRecord) -> float | None:
    """The loss of a step with its reduction set to a sum."""
    at = {parent[0]: tensor.detach() for parent, tensor in zip(record.parents, record.inputs, strict=True)}
    args = [at.get(a, a) if isinstance(a, fx.Node) else a for a in record.node.args]
    kwargs = {key: at.get(a, a) if isinstance(a, fx.Node) else a for key, a in record.node.kwargs.items()}
    if argument_of(record.node, "reduction", None) in args:
        args[args.index(argument_of(record.node, "reduction", None))] = "sum"
    else:
        kwargs["reduction"] = "sum"
    try:
        with trace.point.ready(), torch.no_grad():
            return float(trace.point.call(record.node, args, kwargs, record.state))
    except REFUSALS:
        return None


def _called(trace: StepTrace, record: StepRecord, count: float) -> str:
    """What the number of averaged things is to a person."""
    batch = count in _batch_sizes(trace)
    everything = count == record.inputs[0].numel()
    if batch and everything:
        return "the number of elements, which is the batch size"
    return "the batch size" if batch else "the number of elements" if everything else "the number of elements averaged"


def _batch_sizes(trace: StepTrace) -> set[int]:
    leaves = [trace.values[ref] for ref in trace.leaves.values()]
    return {leaf.shape[0] for leaf in leaves if leaf.ndim > 1}


def _totals(trace: StepTrace) -> Iterator[Factor]:
    """A sum in the program, taken as a mean."""
    for record in trace.records:
        function = name_of(record.node)
        is_sum = function in operations_with("reduces", "sum") or (
            function in operations_with("loss") and argument_of(record.node, "reduction", "") == "sum"
        )
        if not is_sum or not record.inputs or not record.outputs[0].numel():
            continue
        count = record.inputs[0].numel() / record.outputs[0].numel()
        for size in {count, *_batch_sizes(trace)}:
            if size > 1 and float(size).is_integer():
                yield Factor(1 / size, f"one over {_called(trace, record, size)}: mean instead of sum", weak=size != count)


def _twos(trace: StepTrace) -> Iterator[Factor]:
    square = any(name_of(record.node) in operations_with("squares") for record in trace.records)
    yield Factor(
        0.5, "the 2 from the derivative of a square is missing" if square else "a factor of 2 is missing", weak=not square
    )
    yield Factor(2.0, "one factor of 2 too many", weak=True)


def _squares(trace: StepTrace) -> bool:
    return any(name_of(record.node) in operations_with("squares") for record in trace.records)


def _sizes(trace: StepTrace, name: str) -> Iterator[Factor]:
    leaf = trace.values[trace.leaves[name]]
    sizes: dict[float, str] = {}
    for batch in sorted(_batch_sizes(trace)):
        sizes.setdefault(batch, "the batch size")
    sizes.setdefault(leaf.numel(), f"the number of elements of `{name}`")
    for other, ref in trace.leaves.items():
        value = trace.values[ref]
        if is_differentiable(value.dtype):
            for axis, size in enumerate(value.shape):
                sizes.setdefault(size, f"the size of axis {axis} of `{other}`")
    for length, meaning in sizes.items():
        if length > 1:
            yield Factor(float(length), meaning, weak=True)
            yield Factor(1 / length, f"one over {meaning}", weak=True)
