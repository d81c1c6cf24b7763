"""The example query of an operation: a reviewed one, or the handsomest of its samples, small and rounded, and tried."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator
from typing import Any, Final

import torch
from torch import Tensor

from app.catalogue.call import Drawing
from app.catalogue.dtypes import dtype_name
from app.catalogue.entry import Operation
from app.catalogue.introspect.calls.examples import EXAMPLES
from app.catalogue.introspect.calls.probe import tensors_of
from app.catalogue.introspect.calls.samples import REFUSALS, Sample, Tensors, tried

_SIZES: Final = (3, 2, 4, 0)  # dimensions are cut to this; 0 leaves them
# Values of floating tensors, where any will do; positive ones where the first are out of the domain.
_VALUES: Final = ((-1.5, 0.7, 2.2, -0.4, 1.1, 0.3, -0.8), (0.7, 0.4, 0.2, 0.9, 0.5), (1.5, 2.2, 1.1, 3.4))
# Samples that are tried as an example, the smallest first, of the 16 of each OpInfo in several dtypes (samples.py).
_CANDIDATES: Final = 60
_IDEAL: Final = 6  # elements
_MATRICES: Final = ("linalg.", "cholesky", "geqrf", "logdet", "lu", "matrix_exp", "ormqr", "qr", "svd", "triangular_solve")
_BARE: Final = (torch.float64, torch.int64, torch.bool)


def example(operation: Operation, samples: list[Sample]) -> tuple[dict[str, Any], Sample]:
    """The query and the sample that it states.

    Raises:
        LookupError: no sample can be stated.
    """
    if operation.name in EXAMPLES:
        return _query(operation, samples[0]), samples[0]
    candidates: list[tuple[tuple[int, ...], Sample]] = []
    for sample in itertools.islice(sorted(samples, key=_size), _CANDIDATES):
        for small in _smaller(sample):
            candidates.append((_merit(operation, small), small))
            break
        if candidates and candidates[-1][0][:3] == (0, 0, 0):
            break
    if not candidates:
        raise LookupError(f"{operation.name}: no sample can be shown")
    best = min(candidates, key=lambda candidate: candidate[0])[1]
    return _query(operation, best), best


def _size(sample: Sample) -> tuple[bool, bool, int, int]:
    leaves = list(sample.leaves().values())
    empty, scalar = any(t.numel() == 0 for t in leaves), all(t.dim() == 0 for t in leaves)
    return empty, scalar, abs(sample.elements() - _IDEAL), len(sample.parameters)


def _smaller(sample: Sample) -> Iterator[Sample]:
    """The sample with cut dimensions and handsome values, the first that runs and gives finite results."""
    for size, values in itertools.product(_SIZES, (*_VALUES, None)):
        if values is not None and not _may_refill(sample):
            continue
        pool = None if values is None else itertools.cycle(values)
        tensors: Tensors = {
            name: tuple(_cut(member, size, pool) for member in value) if isinstance(value, tuple) else _cut(value, size, pool)
            for name, value in sample.tensors.items()
        }
        small = tried(sample.bound.operation, tensors, sample.parameters)
        if small is not None and small.bound.signature is sample.bound.signature and _is_finite(small):
            yield small


def _may_refill(sample: Sample) -> bool:
    """Whether its floating tensors may have any values; square matrices may have to be symmetric or invertible."""
    floating = [tensor for tensor in sample.leaves().values() if tensor.dtype == torch.float64]
    square = any(tensor.dim() > 1 and tensor.shape[-1] == tensor.shape[-2] for tensor in floating)
    return bool(floating) and not (square and sample.bound.operation.name.startswith(_MATRICES))


def _cut(tensor: Tensor, size: int, pool: Iterator[float] | None) -> Tensor:
    if size:
        tensor = tensor[tuple(slice(0, size) for _ in range(tensor.dim()))]
    if pool is not None and tensor.dtype == torch.float64:
        return torch.tensor([next(pool) for _ in range(tensor.numel())], dtype=tensor.dtype).reshape(tensor.shape)
    if tensor.is_complex():
        return torch.view_as_complex(torch.view_as_real(tensor.resolve_conj()).round(decimals=2))
    if tensor.is_floating_point():
        tensor = tensor.round(decimals=2)
    return tensor.clone() + 0 if tensor.dtype != torch.bool else tensor.clone()  # no negative zeros


def _merit(operation: Operation, sample: Sample) -> tuple[int, ...]:
    """Smaller is better: shows a derivative, has elements, no 0-d alone, a good size."""
    leaves = list(sample.leaves().values())
    return (
        int(operation.order > 0 and not _has_gradient(sample)),
        int(any(t.numel() == 0 for t in leaves)),
        int(all(t.dim() == 0 for t in leaves)),
        abs(sample.elements() - _IDEAL),
    )


def _is_finite(sample: Sample) -> bool:
    tensors = [*sample.leaves().values(), *(tensor for _, tensor in tensors_of(sample.run()))]
    return all(bool(torch.isfinite(t).all()) for t in tensors if t.is_floating_point() or t.is_complex())


def _differentiable_inputs(sample: Sample) -> list[str]:
    """The inputs with respect to which a VJP of the sample exists and is finite."""
    names = dict.fromkeys(name if name in sample.tensors else name.rpartition(".")[0] for name in sample.leaves())
    return [name for name in names if _has_gradient(sample, name)]


def _has_gradient(sample: Sample, name: str | None = None) -> bool:
    """Whether a VJP with respect to one input, or to all that are floating, exists and is finite."""
    leaves = {
        leaf: tensor.detach().clone().requires_grad_()
        if (tensor.is_floating_point() or tensor.is_complex()) and (name is None or name in (leaf, leaf.rpartition(".")[0]))
        else tensor
        for leaf, tensor in sample.leaves().items()
    }
    wrt = [tensor for tensor in leaves.values() if tensor.requires_grad]
    copies = {leaf: tensor.clone() if tensor.requires_grad else tensor for leaf, tensor in leaves.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            differentiable = [tensor for _, tensor in tensors_of(sample.run(copies)) if tensor.requires_grad]
            gradients = (
                torch.autograd.grad(
                    differentiable, wrt, [torch.ones_like(tensor) for tensor in differentiable], allow_unused=True
                )
                if differentiable
                else ()
            )
        except REFUSALS:
            return False
    reached = [gradient for gradient in gradients if gradient is not None]
    return bool(reached) and all(bool(torch.isfinite(gradient).all()) for gradient in reached)


def draws(sample: Sample) -> bool:
    """Whether the call draws random numbers."""
    with Drawing() as drawing:
        sample.run()
    return bool(drawing.seen)


def _query(operation: Operation, sample: Sample) -> dict[str, Any]:
    leaves = list(sample.leaves().values())
    floating = [t for t in leaves if t.is_floating_point() or t.is_complex()]
    # JavaScript drops the point of 1.0, so that an all-integral list becomes int64. Where everything is integral it is promoted again.
    mixed = operation.order == 0 or len(floating) < len(leaves) or not all(_is_integral(t) for t in floating)
    query: dict[str, Any] = {"operation": operation.name}
    if sample.tensors:
        query["inputs"] = {
            name: [_stated(t, bool(floating), mixed) for t in value]
            if isinstance(value, tuple)
            else _stated(value, bool(floating), mixed)
            for name, value in sample.tensors.items()
        }
    defaults = {a.name: a.default for a in sample.bound.signature.arguments if not a.required}
    said = {name: _value(value) for name, value in sample.parameters.items()}
    said = {name: value for name, value in said.items() if name not in defaults or value != defaults[name]}
    if said:
        query["parameters"] = said
    differentiable = True if _has_gradient(sample) else _differentiable_inputs(sample)
    query["want"] = ["outputs", "vjp"] if differentiable else ["outputs"]
    if isinstance(differentiable, list) and differentiable:
        query["wrt"] = differentiable
    if draws(sample):
        query["seed"] = 0
    return query


def _is_integral(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float64 and all(float(value).is_integer() for value in tensor.flatten().tolist())


def _stated(tensor: Tensor, floating: bool, mixed: bool) -> Any:
    """A tensor as JSON: bare where its dtype cannot be misread."""
    name = dtype_name(tensor.dtype)
    if tensor.is_complex():
        return {"data": torch.view_as_real(tensor.resolve_conj()).tolist(), "dtype": name}
    clear = floating if tensor.dtype == torch.int64 else not (mixed and _is_integral(tensor))
    if tensor.dtype in _BARE and clear and tensor.numel():
        return tensor.tolist()
    return {"data": tensor.tolist(), "dtype": name, **({} if tensor.numel() else {"shape": list(tensor.shape)})}


def _value(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_value(member) for member in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return float(f"{value:.4g}") if isinstance(value, float) else value
