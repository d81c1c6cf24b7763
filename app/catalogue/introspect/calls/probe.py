"""Differentiability as measured: which inputs and outputs carry a derivative, how many times, and through which grad_fn."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

import torch
from torch import Tensor

from app.catalogue.entry import Operation, Signature
from app.catalogue.introspect.calls.samples import REFUSALS, Sample, leaf_argument

_SAMPLES: Final = 4  # probed for one signature, and
_VARIED: Final = 16  # those that give other arguments
# Nodes of the autograd graph that carry shapes and no mathematics.
_PLUMBING: Final = frozenset(
    {"ViewBackward0", "UnsafeViewBackward0", "ExpandBackward0", "ReshapeAliasBackward0", "CloneBackward0",
     "AliasBackward0", "ToCopyBackward0", "UnsqueezeBackward0", "SqueezeBackward1", "SqueezeBackward0"}
)  # fmt: skip


@dataclass(slots=True)
class Findings:
    """What the samples of one signature showed."""

    inputs: set[str] = field(default_factory=set)
    outputs: set[int] = field(default_factory=set)
    copied: set[str] = field(default_factory=set)
    order: int = 0
    nodes: tuple[str, ...] = ()  # grad_fn names of the sample with the fewest, outermost first
    ran: int = 0


def probe(operation: Operation, samples: list[Sample]) -> tuple[Operation, list[Findings]]:
    """`operation` with the measured flags, and what was found for each signature."""
    observed = []
    measured: list[Signature] = []
    for signature in operation.signatures:
        mine = [s for s in samples if s.bound.signature is signature]
        findings = Findings()
        for sample in _varied(mine):
            _probe_one(sample, findings)
        observed.append(findings)
        arguments = tuple(
            replace(a, differentiable=a.name in findings.inputs, copied=a.name in findings.copied) for a in signature.arguments
        )
        outputs = tuple(replace(o, differentiable=i in findings.outputs) for i, o in enumerate(signature.outputs))
        measured.append(Signature(arguments, outputs))
    order = max((findings.order for findings in observed), default=0)
    return replace(operation, signatures=tuple(measured), order=order), observed


def _varied(samples: list[Sample]) -> Iterator[Sample]:
    """Small samples with different names of arguments first: each input should be seen at least once."""
    seen: set[frozenset[str]] = set()
    ordered = sorted(samples, key=lambda s: (s.elements() == 0, s.elements()))
    first: list[Sample] = []
    rest: list[Sample] = []
    for sample in ordered:
        names = frozenset((*sample.tensors, *sample.parameters))
        (rest if names in seen else first).append(sample)
        seen.add(names)
    yield from first[:_VARIED] + rest[: max(0, _SAMPLES - len(first))]


def _probe_one(sample: Sample, findings: Findings) -> None:
    leaves = {name: tensor.detach().clone() for name, tensor in sample.leaves().items()}
    before = {name: tensor.clone() for name, tensor in leaves.items()}
    sample.run(leaves)
    findings.ran += 1
    nodes = grad_nodes(sample)
    if nodes and (not findings.nodes or len(nodes) < len(findings.nodes)):
        findings.nodes = nodes
    for name, tensor in leaves.items():
        argument = leaf_argument(name, sample.bound)
        if argument is None:
            continue
        # Not by version counters: batch_norm writes past them.
        if not torch.equal(tensor.nan_to_num(), before[name].nan_to_num()):
            findings.copied.add(argument.name)
        if tensor.is_floating_point() or tensor.is_complex():
            order = _derivative(sample, name, findings)
            if order:
                findings.inputs.add(argument.name)
                findings.order = max(findings.order, order)


def _derivative(sample: Sample, name: str, findings: Findings) -> int:
    """How often the outputs can be differentiated with respect to one leaf: 0, 1, or 2 for twice and more."""
    leaves = {other: tensor.detach().clone() for other, tensor in sample.leaves().items()}
    leaf = leaves[name].requires_grad_()
    # A function that writes to its argument refuses a leaf of the graph, and the call is given a copy anyway.
    leaves = {other: tensor.clone() if tensor is leaf else tensor for other, tensor in leaves.items()}
    try:
        outputs = list(tensors_of(sample.run(leaves)))
    except REFUSALS:
        return 0
    differentiable = [(index, tensor) for index, tensor in outputs if tensor.requires_grad]
    order = 0
    for index, output in differentiable:
        reached = _order(output, leaf)
        if reached:
            findings.outputs.add(index)
        order = max(order, reached)
    return order


def _order(output: Tensor, leaf: Tensor) -> int:
    cotangent = torch.ones_like(output).requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            (gradient,) = torch.autograd.grad(output, leaf, cotangent, create_graph=True, retain_graph=True, allow_unused=True)
        except REFUSALS:
            return 0
        if gradient is None:
            return 0
        if not gradient.requires_grad:
            return 2  # a constant derivative
        try:
            # The graph is kept for the other outputs.
            torch.autograd.grad(gradient, (leaf, cotangent), torch.ones_like(gradient), retain_graph=True, allow_unused=True)
        except REFUSALS:
            return 1
    return 2


def tensors_of(result: Any, at: int = 0, top: bool = True) -> Iterator[tuple[int, Tensor]]:
    """Tensors of a result with the index of the output that they belong to (0 for a list)."""
    if isinstance(result, Tensor):
        yield at, result
    elif isinstance(result, list | tuple):
        for index, member in enumerate(result):
            yield from tensors_of(member, index if top else at, top=False)


def grad_nodes(sample: Sample) -> tuple[str, ...]:
    """Names of the grad_fns of a sample's outputs, outermost first, without those that only move data."""
    floating = [name for name, tensor in sample.leaves().items() if tensor.is_floating_point() or tensor.is_complex()]
    queue, seen = _roots(sample, floating)
    for name in floating:  # some functions refuse a target that requires grad
        if not queue:
            queue, seen = _roots(sample, [name])
    names: dict[str, None] = {}
    while queue:
        node = queue.pop(0)
        if node is None or node in seen:
            continue
        seen.add(node)
        names.setdefault(node.name())
        queue.extend(parent for parent, _ in node.next_functions)
    working = tuple(name for name in names if name not in _PLUMBING)
    return working or tuple(names)


def _roots(sample: Sample, wrt: list[str]) -> tuple[list[Any], set[Any]]:
    """The grad_fns of a sample's outputs, and those of its inputs, at which to stop."""
    leaves = {name: tensor.detach().clone().requires_grad_(name in wrt) for name, tensor in sample.leaves().items()}
    # A function that writes to its argument refuses a leaf of the graph, and the call is given a copy anyway.
    copies = {name: tensor.clone() if name in wrt else tensor for name, tensor in leaves.items()}
    try:
        outputs = [tensor.grad_fn for _, tensor in tensors_of(sample.run(copies)) if tensor.grad_fn is not None]
    except REFUSALS:
        return [], set()
    ends = {tensor.grad_fn for tensor in copies.values() if tensor.grad_fn is not None}
    return [node for node in outputs if node not in ends], ends
