"""A batched query: every sample answered on its own, all of them at once under vmap, or one by one where vmap cannot."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import Tensor

from app.engine.adjoint import CODE as CONTRADICTION
from app.engine.autodiff.cotangents import Vectors
from app.engine.autodiff.freivalds import UncertifiedError, certify_sample
from app.engine.autodiff.thinning import can_thin, thinned, values_of
from app.engine.computation import Computation
from app.engine.confirmation import Check, confirm
from app.engine.errors import Attempt
from app.engine.kinds import KINDS
from app.engine.kinds import results as single_results
from app.engine.notes import Notes
from app.engine.per_sample import Sample
from app.engine.tensors import SparseTensor, is_differentiable, to_torch
from app.errors import PullbackError
from app.query import MATRICES, TensorData

Tree = dict[str, Any]
# Kinds of samples with NaN or infinity of which one each is computed alone: 32 take 20 ms, 3,000 took 2 s where vmap took 14 ms (measured).
_PATTERNS: Final = 32
# Numbers whose kinds are looked at in one step: half a megabyte of float64, which a cache holds.
_LOOKED_AT_ONCE: Final = 1 << 16


def results(computation: Computation) -> Tree:
    """The tree of `computation.results`, every tensor with a leading axis of samples. Raises PullbackError."""
    single = next((kind for kind in computation.query.want if KINDS[kind].of_one_point), None)
    if single is not None:
        raise PullbackError(
            "bad_request",
            f"`{single}` looks at one point, so it does not go with `batched`.",
            at="want",
            fix="Send one sample, without `batched`.",
        )
    samples = computation.prepared.samples or 1
    axes = {name: computation.query.is_batched(name) for name in computation.leaves}
    # One sample by the ordinary road: it finds everything that is wrong with the query, and says the notes.
    first = sample_of(computation, axes, 0, computation.notes)
    alone = single_results(first)
    if samples == 1:
        return dict(_stacked([alone]))
    paired = computation.is_complex and not MATRICES.isdisjoint(computation.query.want)
    if (
        computation.query.format == "dense"
        and not paired
        and all(KINDS[kind].per_sample is not None for kind in computation.query.want)
    ):
        with Attempt() as attempt, first.evaluation.slow_rows_noted():
            vectors, dims = _vectors(computation, first)
            together: Tree = _like(alone, _vmapped(computation, axes, vectors, dims))
            certify_sample(together, 0, alone)
            for index in _looked_at(samples, [leaf for name, leaf in computation.leaves.items() if axes[name]]):
                certify_sample(together, index, single_results(sample_of(computation, axes, index, Notes())))
            confirm(_checks(computation), computation, axes, vectors, dims, together)
            return together
        why = (
            "Another way of computing the same samples gives something else than vmap"
            if isinstance(attempt.error, UncertifiedError)
            else "An operation has no batching rule"
        )
        computation.notes.say("fallback", f"{why}, so the samples ran one by one.", "plan")
    if computation.query.format != "dense" and not paired:
        with Attempt():
            return _thinned(computation, axes, first, alone)
    forms = first.layouts.forms  # of `auto`: what it is for one sample it is for all
    rest = [_alone(computation, axes, index, forms) for index in range(1, samples)]
    computation.layouts = first.layouts
    return dict(_stacked([alone, *rest]))


def _checks(computation: Computation) -> dict[str, Check]:
    return {kind: check for kind in computation.query.want if (check := KINDS[kind].confirm) is not None}


def _alone(computation: Computation, axes: Mapping[str, bool], index: int, forms: Mapping[str, str]) -> Tree:
    """What sample `index` gives; of its notes those that another sample need not have."""
    notes = Notes()
    tree = single_results(sample_of(computation, axes, index, notes, forms))
    for note in notes.all():
        if note.code == CONTRADICTION:
            computation.notes.say(note.code, f"Sample {index}: {note.message}", note.at)
    return tree


def _thinned(computation: Computation, axes: Mapping[str, bool], first: Computation, alone: Tree) -> Tree:
    """All samples at once, densely, and of their matrices the entries of the first sample's layouts.

    Raises NotImplementedError where a kind or a layout does not go so, UncertifiedError where another road disagrees.
    """
    samples, wanted = computation.prepared.samples or 1, computation.query.want
    limit = computation.limits.result_bytes
    if any(KINDS[kind].per_sample is None for kind in wanted) or not can_thin(first.layouts, samples, limit):
        raise NotImplementedError
    vectors, dims = _vectors(computation, first)
    together = _like(alone, _vmapped(computation, axes, vectors, dims))
    tree = {kind: thinned(kind, value, first.layouts) if kind in MATRICES else value for kind, value in together.items()}
    certify_sample(values_of(tree, samples), 0, values_of(alone, None))
    for index in _not_finite(samples, [leaf for name, leaf in computation.leaves.items() if axes[name]]) - {0}:
        sample = single_results(sample_of(computation, axes, index, Notes(), first.layouts.forms))
        certify_sample(values_of(tree, samples), index, values_of(sample, None))
    confirm(_checks(computation), computation, axes, vectors, dims, together)
    computation.layouts = first.layouts
    return tree


def _like(alone: Tree, together: Any) -> Any:
    """Of `together` what one sample has alone: outputs that depend on no input have no derivative there, and zeros under vmap."""
    if not isinstance(alone, Mapping) or not isinstance(together, Mapping):
        return together
    return {key: _like(member, together[key]) for key, member in alone.items()}


def _looked_at(samples: int, batched: Sequence[Tensor]) -> list[int]:
    """Besides the first the samples that are computed alone: the last, one between, and those that stand for all with NaN or infinity.

    Where a kernel passes NaN on, the batching rule of the same operator may give zero (`logit` with `eps`).
    """
    between = random.Random(samples).randrange(1, samples)  # noqa: S311 - a choice, no secret
    return sorted({between, samples - 1, *_not_finite(samples, batched)} - {0})


def _not_finite(samples: int, batched: Sequence[Tensor]) -> set[int]:
    """Of the samples that have NaN or infinity those that stand for all, and one more.

    A rule that errs does so wherever an element is what it errs at. So each element is NaN, and each infinity, in one of them where it
    is in any, with as little else as can be; and whatever stands together does so in one of them, of up to `_PATTERNS` kinds.
    """
    flat = [_numbers(leaf).reshape(samples, -1) for leaf in batched if is_differentiable(leaf.dtype) and leaf.numel()]
    unusual = torch.zeros(samples, dtype=torch.bool, device=flat[0].device if flat else "cpu")
    for numbers in flat:
        # It passes NaN on; truth values of all numbers would take memory.
        ends = torch.aminmax(numbers, dim=1)
        unusual |= ~(ends.min.isfinite() & ends.max.isfinite())
    rows = torch.nonzero(unusual).flatten()
    if not len(rows):
        return set()
    first: dict[bytes, int] = {}  # what is not finite in a sample → one such sample
    count = max(1, _LOOKED_AT_ONCE // sum(numbers.shape[1] for numbers in flat))
    for part in (rows[start : start + count] for start in range(0, len(rows), count)):
        kinds = torch.cat([_kinds(numbers[part]) for numbers in flat], 1).cpu().numpy()
        for row, own in zip(part.tolist(), kinds, strict=True):
            first.setdefault(own.tobytes(), row)
    chosen = {int(rows[random.Random(samples).randrange(len(rows))])}  # noqa: S311 - a choice, no secret
    covered = np.zeros(1, np.uint8)
    for position, pattern in enumerate(sorted(first, key=lambda pattern: len(pattern) - pattern.count(0))):
        own = np.frombuffer(pattern, np.uint8)
        if position < _PATTERNS or (own & ~covered).any():
            chosen.add(first[pattern])
        covered = covered | own
    return chosen


def _numbers(leaf: Tensor) -> Tensor:
    return torch.view_as_real(leaf.detach()) if leaf.is_complex() else leaf.detach()


def _kinds(numbers: Tensor) -> Tensor:
    """Of each number 0 where it is finite, else a bit that says how it is not."""
    return numbers.isnan() + 2 * numbers.isposinf().byte() + 4 * numbers.isneginf().byte()


def sample_of(
    computation: Computation, axes: Mapping[str, bool], index: int, notes: Notes, forms: Mapping[str, str] | None = None
) -> Computation:
    """Sample `index` as a query of its own: its slice of the leaves, cotangents and tangents."""
    leaves = {name: leaf[index] if axes[name] else leaf for name, leaf in computation.leaves.items()}
    outputs = {result.name: len(result.shape) for result in computation.prepared.plan.outputs}
    inputs = {name: leaf.dim() for name, leaf in leaves.items()}
    query = replace(
        computation.query,
        batched=(),
        cotangent={
            name: _slice(data, index, outputs.get(name), computation, f"cotangent.{name}")
            for name, data in computation.query.cotangent.items()
        },
        tangent={
            name: _slice(data, index, inputs.get(name), computation, f"tangent.{name}")
            for name, data in computation.query.tangent.items()
        },
    )
    cache = computation.layout_cache
    return Computation(query, computation.prepared, leaves, notes, computation.limits, cache, fixed_forms=forms or {})


def _slice(data: TensorData, index: int, rank: int | None, computation: Computation, at: str) -> TensorData:
    """One sample's cotangent: the slice of a batch of them; one without a batch axis is shared by all samples."""
    if rank is None or len(data.shape) <= rank:
        return data
    count = data.shape[0]
    if count != computation.prepared.samples:
        raise PullbackError(
            "bad_cotangent",
            f"Its leading axis has length {count}, and the batch has {computation.prepared.samples} samples.",
            at=at,
            expected=f"leading axis {computation.prepared.samples}",
            given=f"shape {list(data.shape)}",
        )
    size = data.data.nbytes // count
    return replace(data, shape=data.shape[1:], data=data.data.cast("B")[index * size : (index + 1) * size])


def _stacked(trees: list[Any]) -> Any:
    first = trees[0]
    if isinstance(first, SparseTensor):
        return _stacked_sparse(trees)
    if isinstance(first, Tensor):
        return torch.stack([tree.detach() for tree in trees])
    return {key: _stacked([tree[key] for tree in trees]) for key in first}


def _stacked_sparse(trees: Sequence[SparseTensor]) -> SparseTensor:
    """Coordinates with the sample's number before them; the patterns of samples may differ."""
    indices = [
        torch.cat([torch.full((1, tree.indices.shape[1]), sample, device="cpu"), tree.indices.cpu()])
        for sample, tree in enumerate(trees)
    ]
    holds: Literal["everywhere", "here"] = "everywhere" if all(tree.holds == "everywhere" for tree in trees) else "here"
    return SparseTensor((len(trees), *trees[0].shape), torch.cat(indices, 1), torch.cat([tree.values for tree in trees]), holds)


def _vmapped(computation: Computation, axes: Mapping[str, bool], vectors: Mapping[str, Vectors], dims: Any) -> Tree:
    forms = {kind: form for kind in computation.query.want if (form := KINDS[kind].per_sample) is not None}
    leaves = {name: leaf.detach() for name, leaf in computation.leaves.items()}

    def one(leaves: Mapping[str, Tensor], vectors: Mapping[str, Vectors]) -> Tree:
        sample = Sample(computation, leaves, vectors)
        return {kind: form(sample) for kind, form in forms.items()}

    in_dims = ({name: 0 if axes[name] else None for name in leaves}, dims)
    chunk = None if computation.prepared.plan.rows >= (computation.prepared.samples or 1) else computation.prepared.plan.rows
    with torch.set_grad_enabled(bool(computation.prepared.wrt)):
        together: Tree = torch.func.vmap(one, in_dims=in_dims, randomness="same", chunk_size=chunk)(leaves, vectors)
    return together


def _vectors(computation: Computation, first: Computation) -> tuple[dict[str, Vectors], dict[str, dict[str, int | None]]]:
    """Cotangents and tangents of all samples, and which of their axes vmap runs over."""
    vectors: dict[str, Vectors] = {}
    dims: dict[str, dict[str, int | None]] = {}
    needed = {KINDS[kind].demand.vectors for kind in computation.query.want}
    for what, sent in (("cotangent", computation.query.cotangent), ("tangent", computation.query.tangent)):
        if what not in needed:
            continue
        single, num_vectors = first.cotangents if what == "cotangent" else first.tangents
        if num_vectors is not None:
            raise NotImplementedError("several vectors for each sample")  # the loop answers these
        vectors[what], dims[what] = {}, {}
        for name, value in single.items():
            data = sent.get(name)
            if data is not None and len(data.shape) > value.dim():
                rows = [
                    _sample_vector(computation, what, name, index, value) for index in range(computation.prepared.samples or 1)
                ]
                vectors[what][name], dims[what][name] = torch.stack(rows), 0
            else:
                vectors[what][name], dims[what][name] = value, None
    return vectors, dims


def _sample_vector(computation: Computation, what: str, name: str, index: int, like: Tensor) -> Tensor:
    data = (computation.query.cotangent if what == "cotangent" else computation.query.tangent)[name]
    return to_torch(_slice(data, index, like.dim(), computation, f"{what}.{name}"), str(like.device)).to(like.dtype)
