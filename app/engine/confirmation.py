"""Confirms derivatives of a batch that vmap computed together, sample by sample, by another way through PyTorch.

The other reference: the forward alone under vmap, and then ordinary autograd's backward through it, in a random combination for each sample.
It shares no batching rule of a backward formula and no forward mode with what it confirms. The forward's batching rules, which it does
share, are confirmed by single samples (`freivalds.certify_sample`). A combination that is not confirmed costs only time: the samples
then run one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor

from app.engine.autodiff.cotangents import Vectors
from app.engine.autodiff.freivalds import UncertifiedError, weights
from app.engine.computation import Computation
from app.engine.per_sample import Sample
from app.engine.tensors import is_differentiable

Tree = Mapping[str, Any]

# Roundings that two orders of the same sums may differ by, as for rows (freivalds.close); in half precision the other way is computed in
# float64 and what is confirmed has one rounding a step: with more than that the samples run one by one.
_ROUNDINGS: Final = 1e3
_HALF_ROUNDINGS: Final = 16
_HALF: Final = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Reference:
    """The forward of all samples, with ordinary autograd's graph.

    Attributes:
        wrt: name → the leaf, [samples, …] where it is batched.
        batched: name → whether it is.
        outputs: name → [samples, …].
        of: the scalar output, [samples]; None where there is none.
        vectors: `cotangent` and `tangent` → name → [samples, …].
    """

    wrt: Mapping[str, Tensor]
    batched: Mapping[str, bool]
    outputs: Mapping[str, Tensor]
    of: Tensor | None
    vectors: Mapping[str, Vectors]
    samples: int

    def backward(self, heads: list[Tensor], cotangents: list[Tensor], *, again: bool = False) -> dict[str, Tensor]:
        """Σ cotangent·head, differentiated: for a batched leaf each sample's own."""
        rows = torch.autograd.grad(
            heads,
            list(self.wrt.values()),
            cotangents,
            create_graph=again,
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        return dict(zip(self.wrt, rows, strict=True))


Check: TypeAlias = Callable[[Reference, Tree], None]


def confirm(
    checks: Mapping[str, Check],
    computation: Computation,
    axes: Mapping[str, bool],
    vectors: Mapping[str, Vectors],
    dims: Any,
    together: Tree,
) -> None:
    """Compare every derivative of `together`, a tree of [samples, …] tensors, with the other reference.

    Arguments:
        checks: kind → how its derivative is compared.

    Raises UncertifiedError where they differ in a value, in the places that are not finite, or where the other way has none.
    """
    if not checks:
        return
    with torch.enable_grad():
        reference = _reference(computation, axes, vectors, dims)
        for kind, check in checks.items():
            check(reference, together[kind])


def _reference(computation: Computation, axes: Mapping[str, bool], vectors: Mapping[str, Vectors], dims: Any) -> Reference:
    leaves = {name: _in_float64(leaf.detach()) for name, leaf in computation.leaves.items()}
    wrt = {name: leaves[name].requires_grad_() for name in computation.prepared.wrt}
    samples = computation.prepared.samples or 1

    def forward(leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
        sample = Sample(computation, leaves, {})
        return sample.outputs({})

    in_dims = ({name: 0 if axes[name] else None for name in leaves},)
    outputs = torch.func.vmap(forward, in_dims=in_dims, randomness="same")(leaves)
    of = computation.prepared.of
    spread = {
        what: {
            name: _in_float64(value if dims[what][name] == 0 else value.expand(samples, *value.shape))
            for name, value in each.items()
        }
        for what, each in vectors.items()
    }
    return Reference(
        wrt,
        {name: axes[name] for name in wrt},
        outputs,
        outputs[of].reshape(samples) if of in outputs else None,
        spread,
        samples,
    )


def _in_float64(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float64) if tensor.dtype in _HALF else tensor


def _weights(like: Tensor) -> Tensor:
    return weights(like.numel(), like.dtype, str(like.device)).reshape(like.shape)


def gradient(reference: Reference, result: Tree) -> None:
    """A random combination of the samples' scalars, differentiated. It and the others raise UncertifiedError where `result` is another."""
    of = _scalar(reference)
    weights = _weights(of)
    _compare_all(reference, reference.backward([of], [weights]), result, weights)


def vjp(reference: Reference, result: Tree) -> None:
    """The cotangents, each sample's times a random number."""
    cotangents = reference.vectors["cotangent"]
    weights = _weights(next(iter(reference.outputs.values())).reshape(reference.samples, -1)[:, :1].reshape(-1).real.detach())
    heads = [reference.outputs[name] for name in cotangents]
    expected = reference.backward(
        heads, [_scaled(cotangents[name], weights).to(head.dtype) for name, head in zip(cotangents, heads, strict=True)]
    )
    _compare_all(reference, expected, result, weights)


def jvp(reference: Reference, result: Tree) -> None:
    """⟨c, J·t⟩ = ⟨Jᵗ·c, t⟩, for each sample; summed over the samples where an input is shared by them."""
    heads = {name: value for name, value in reference.outputs.items() if name in result and value.requires_grad}
    weights = {name: _weights(value.detach()) for name, value in heads.items()}
    gradients = reference.backward(list(heads.values()), list(weights.values())) if heads else {}
    tangents = reference.vectors["tangent"]
    left = [(weights[name].conj() * result[name].to(weights[name].dtype)).real for name in heads]
    right = [(gradients[name].conj() * _of_leaf(reference, name, tangents[name])).real for name in gradients]
    if not gradients:
        return
    named = list(zip(right, gradients, strict=True))
    together, expected = (
        _per_sample(left, reference.samples),
        torch.stack([_rows(each, reference, name) for each, name in named]).sum(0),
    )
    bound = _per_sample([each.abs() for each in left], reference.samples)
    bound = bound + torch.stack([_rows(each.abs(), reference, name) for each, name in named]).sum(0)
    if not all(reference.batched[name] for name in gradients):
        together, expected, bound = together.sum(0, keepdim=True), expected.sum(0, keepdim=True), bound.sum(0, keepdim=True)
    _compare(together, expected, bound, _least(result))


def jacobian(reference: Reference, result: Tree) -> None:
    """A random combination of each sample's rows."""
    for output, row in result.items():
        head = reference.outputs[output]
        if not head.requires_grad:
            continue
        weights = _weights(head.detach())
        gradients = reference.backward([head], [weights])

        def contracted(name: str, row: Tree = row, weights: Tensor = weights) -> tuple[Tensor, Tensor]:
            full = row[name].to(weights.dtype).reshape(reference.samples, weights[0].numel(), -1)
            flat = weights.reshape(reference.samples, 1, -1)
            return (flat @ full).reshape(reference.samples, -1), (flat.abs() @ full.abs()).reshape(reference.samples, -1)

        for name, expected in gradients.items():
            combined, bound = contracted(name)
            _compare_leaf(reference, name, combined, expected, bound, _eps_of(row[name]))


def hessian(reference: Reference, result: Tree) -> None:
    """The gradient along a random direction, differentiated again."""
    first, weights = _first(reference)
    for name, gradient in first.items():
        if not gradient.requires_grad or not reference.batched[name]:
            continue
        direction = _weights(gradient.detach())
        for other, expected in reference.backward([gradient], [direction]).items():
            full = _scaled(result[name][other].to(direction.dtype), weights).reshape(
                reference.samples, direction[0].numel(), -1
            )
            flat = direction.reshape(reference.samples, 1, -1)
            bound = (flat.abs() @ full.abs()).reshape(reference.samples, -1)
            _compare_leaf(
                reference, other, (flat @ full).reshape(reference.samples, -1), expected, bound, _eps_of(result[name][other])
            )
    if not all(reference.batched[name] for name in first):
        raise UncertifiedError  # the blocks of an input that the samples share are sums there


def hvp(reference: Reference, result: Tree) -> None:
    """The gradient along the tangents, differentiated again: a Hessian is symmetric."""
    first, weights = _first(reference)
    tangents = reference.vectors["tangent"]
    heads = {name: gradient for name, gradient in first.items() if gradient.requires_grad}
    if not all(reference.batched[name] for name in heads):
        raise UncertifiedError
    expected = (
        reference.backward(list(heads.values()), [tangents[name].to(head.dtype) for name, head in heads.items()])
        if heads
        else {}
    )
    _compare_all(reference, expected, result, weights)


def _first(reference: Reference) -> tuple[dict[str, Tensor], Tensor]:
    of = _scalar(reference)
    weights = _weights(of)
    return reference.backward([of], [weights], again=True), weights


def _scalar(reference: Reference) -> Tensor:
    if reference.of is None or not reference.of.requires_grad:
        raise UncertifiedError
    return reference.of


def _scaled(rows: Tensor, weights: Tensor) -> Tensor:
    return rows.to(_wider(rows.dtype)) * weights.reshape(-1, *[1] * (rows.dim() - 1)).to(_wider(rows.dtype))


def _wider(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype in _HALF else dtype


def _of_leaf(reference: Reference, name: str, tangents: Tensor) -> Tensor:
    """The tangents of a leaf that the samples share are all the same."""
    return tangents if reference.batched[name] else tangents[0]


def _rows(values: Tensor, reference: Reference, name: str) -> Tensor:
    if reference.batched[name]:
        return values.reshape(reference.samples, -1).sum(1)
    return torch.cat([values.sum().reshape(1), values.new_zeros(reference.samples - 1)])


def _per_sample(parts: list[Tensor], samples: int) -> Tensor:
    return torch.stack([part.reshape(samples, -1).sum(1) for part in parts]).sum(0)


def _compare_all(reference: Reference, gradients: Mapping[str, Tensor], result: Tree, weights: Tensor) -> None:
    for name, expected in gradients.items():
        rows = _scaled(result[name], weights).reshape(reference.samples, -1)
        _compare_leaf(reference, name, rows, expected, rows.abs(), _eps_of(result[name]))


def _compare_leaf(reference: Reference, name: str, rows: Tensor, expected: Tensor, bound: Tensor, eps: float) -> None:
    """`rows`, [samples, elements], each with its own scale; their sum where the samples share the leaf."""
    if not reference.batched[name]:
        rows, bound, expected = rows.sum(0, keepdim=True), bound.sum(0, keepdim=True), expected.reshape(1, -1)
    _compare(rows, expected.reshape(rows.shape), bound, eps)


def _eps_of(rows: Tensor) -> float:
    if rows.dtype in _HALF:
        return torch.finfo(rows.dtype).eps * _HALF_ROUNDINGS
    return torch.finfo(rows.dtype).eps * _ROUNDINGS if is_differentiable(rows.dtype) else 0.0


def _least(result: Tree) -> float:
    return max((_eps_of(value) for value in result.values()), default=0.0)


def _compare(rows: Tensor, expected: Tensor, bound: Tensor, eps: float) -> None:
    rows, expected, bound = rows.detach(), expected.detach(), bound.detach()
    finite = torch.isfinite(rows)
    if not torch.equal(finite, torch.isfinite(expected)):
        raise UncertifiedError
    error = torch.where(finite, (rows - expected).abs(), 0.0)
    scale = torch.where(torch.isfinite(bound), torch.maximum(bound, expected.abs().nan_to_num()), 0.0)
    scale = scale.reshape(scale.shape[0], -1).amax(1) if scale.dim() > 1 and scale.shape[1] else scale
    error = error.reshape(error.shape[0], -1).amax(1) if error.dim() > 1 and error.shape[1] else error
    if bool((error > eps * scale).any()):
        raise UncertifiedError
