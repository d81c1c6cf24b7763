"""A batched query: every sample answered on its own, all of them at once under vmap, or one by one where vmap cannot.

Knows the functional form of each kind for one sample (torch.func). Refuses to know formats and programs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor

from app.engine.autodiff.cotangents import Vectors
from app.engine.autodiff.evaluation import Notes
from app.engine.autodiff.freivalds import UncertifiedError, certify_first
from app.engine.kinds import Job
from app.engine.kinds import results as single_results
from app.engine.tensors import is_differentiable, to_torch
from app.errors import PullbackError
from app.program.errors import is_memory
from app.query import TensorData

Tree = dict[str, Any]
_WITHOUT_VMAP: Final = frozenset({"fisher", "fisher_diagonal"})
_REFUSED: Final = frozenset({"explain", "check"})


def results(job: Job) -> Tree:
    """The tree of `job.results`, every tensor with a leading axis of samples. Raises PullbackError."""
    refused = [kind for kind in job.query.want if kind in _REFUSED]
    if refused:
        raise PullbackError(
            "bad_request",
            f"`{refused[0]}` looks at one point, so it does not go with `batched`.",
            at="want",
            fix="Send one sample, without `batched`.",
        )
    samples = job.prepared.samples or 1
    axes = {name: name in job.query.batched or name.rpartition(".")[0] in job.query.batched for name in job.leaves}
    # One sample by the ordinary road: it finds everything that is wrong with the query, and says the notes.
    first = _sample(job, axes, 0, job.notes)
    alone = single_results(first)
    if samples == 1:
        return dict(_stacked([alone]))
    if job.query.format == "dense" and not _WITHOUT_VMAP & set(job.query.want):
        try:
            with first.evaluation.slow_rows_noted():
                together = _vmapped(job, axes, first)
                certify_first(together, alone)
                return together
        except (RuntimeError, NotImplementedError, ValueError) as error:
            if is_memory(error):
                raise
            why = (
                "The first sample alone gives something else than under vmap"
                if isinstance(error, UncertifiedError)
                else "An operation has no batching rule"
            )
            job.notes.say("fallback", f"{why}, so the samples ran one by one.", "plan")
    rest = [single_results(_sample(job, axes, index, Notes())) for index in range(1, samples)]
    job.forms.update(first.forms)
    return dict(_stacked([alone, *rest]))


def _sample(job: Job, axes: Mapping[str, bool], index: int, notes: Notes) -> Job:
    """Sample `index` as a query of its own: its slice of the leaves, cotangents and tangents."""
    leaves = {name: leaf[index] if axes[name] else leaf for name, leaf in job.leaves.items()}
    outputs = {result.name: len(result.shape) for result in job.prepared.plan.outputs}
    inputs = {name: leaf.dim() for name, leaf in leaves.items()}
    query = replace(
        job.query,
        batched=(),
        cotangent={
            name: _slice(data, index, outputs.get(name), job, f"cotangent.{name}") for name, data in job.query.cotangent.items()
        },
        tangent={
            name: _slice(data, index, inputs.get(name), job, f"tangent.{name}") for name, data in job.query.tangent.items()
        },
    )
    return Job(query, job.prepared, leaves, notes, job.limits)


def _slice(data: TensorData, index: int, rank: int | None, job: Job, at: str) -> TensorData:
    """One sample's cotangent: the slice of a batch of them; one without a batch axis is shared by all samples."""
    if rank is None or len(data.shape) <= rank:
        return data
    count = data.shape[0]
    if count != job.prepared.samples:
        raise PullbackError(
            "bad_cotangent",
            f"Its leading axis has length {count}, and the batch has {job.prepared.samples} samples.",
            at=at,
            expected=f"leading axis {job.prepared.samples}",
            given=f"shape {list(data.shape)}",
        )
    size = data.data.nbytes // count
    return replace(data, shape=data.shape[1:], data=data.data.cast("B")[index * size : (index + 1) * size])


def _stacked(trees: list[Any]) -> Any:
    first = trees[0]
    if isinstance(first, Tensor):
        return torch.stack([tree.detach() for tree in trees])
    return {key: _stacked([tree[key] for tree in trees]) for key in first}


def _vmapped(job: Job, axes: Mapping[str, bool], first: Job) -> Tree:
    kinds = {kind: _FUNCTIONAL[kind] for kind in job.query.want}
    leaves = {name: leaf.detach() for name, leaf in job.leaves.items()}
    vectors, dims = _vectors(job, first)

    def one(leaves: Mapping[str, Tensor], vectors: Mapping[str, Vectors]) -> Tree:
        sample = _Sample(job, leaves, vectors)
        return {kind: compute(sample) for kind, compute in kinds.items()}

    in_dims = ({name: 0 if axes[name] else None for name in leaves}, dims)
    chunk = None if job.prepared.plan.rows >= (job.prepared.samples or 1) else job.prepared.plan.rows
    found: Tree = torch.func.vmap(one, in_dims=in_dims, randomness="same", chunk_size=chunk)(leaves, vectors)
    return found


def _vectors(job: Job, first: Job) -> tuple[dict[str, Vectors], dict[str, dict[str, int | None]]]:
    """Cotangents and tangents of all samples, and which of their axes vmap runs over."""
    vectors: dict[str, Vectors] = {}
    dims: dict[str, dict[str, int | None]] = {}
    for what, sent, wanted in (
        ("cotangent", job.query.cotangent, "vjp" in job.query.want),
        ("tangent", job.query.tangent, bool({"jvp", "hvp"} & set(job.query.want))),
    ):
        if not wanted:
            continue
        single, several = first.cotangents if what == "cotangent" else first.tangents
        if several:
            raise NotImplementedError("several vectors for each sample")  # the loop answers these
        vectors[what], dims[what] = {}, {}
        for name, value in single.items():
            data = sent.get(name)
            if data is not None and len(data.shape) > value.dim():
                rows = [_sample_vector(job, what, name, index, value) for index in range(job.prepared.samples or 1)]
                vectors[what][name], dims[what][name] = torch.stack(rows), 0
            else:
                vectors[what][name], dims[what][name] = value, None
    return vectors, dims


def _sample_vector(job: Job, what: str, name: str, index: int, like: Tensor) -> Tensor:
    data = (job.query.cotangent if what == "cotangent" else job.query.tangent)[name]
    return to_torch(_slice(data, index, like.dim(), job, f"{what}.{name}"), str(like.device)).to(like.dtype)


class _Sample:
    """One sample inside vmap: the Function as a pure function of `wrt`."""

    def __init__(self, job: Job, leaves: Mapping[str, Tensor], vectors: Mapping[str, Vectors]) -> None:
        self.function = job.prepared.function
        self.leaves = leaves
        self.wrt = {name: leaves[name] for name in job.prepared.wrt}
        self.vectors = vectors
        self.of = job.prepared.of
        self.seed = job.query.seed
        self.method = job.prepared.plan.method

    def all(self, wrt: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self.function.random and self.seed is not None:
            torch.manual_seed(self.seed)
        leaves = {**self.leaves, **wrt}
        return dict(zip(self.function.outputs, self.function.call(*(leaves[n] for n in self.function.leaves)), strict=True))

    def smooth(self, wrt: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: value for name, value in self.all(wrt).items() if is_differentiable(value.dtype)}

    def scalar(self, wrt: Mapping[str, Tensor]) -> Tensor:
        return self.all(wrt)[self.of or ""].reshape(())


def _vjp(sample: _Sample) -> Any:
    names = tuple(sample.vectors["cotangent"])

    def chosen(wrt: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = sample.all(wrt)
        return {name: found[name] for name in names}

    backward = torch.func.vjp(chosen, sample.wrt)[1]
    return backward(dict(sample.vectors["cotangent"]))[0]


def _jacobian(sample: _Sample) -> Any:
    transform = torch.func.jacfwd if sample.method == "forward" else torch.func.jacrev
    return transform(sample.smooth)(sample.wrt)


def _hvp(sample: _Sample) -> Any:
    backward = torch.func.vjp(torch.func.grad(sample.scalar), sample.wrt)[1]
    return backward(dict(sample.vectors["tangent"]))[0]


_FUNCTIONAL: Final[dict[str, Callable[[_Sample], Any]]] = {
    "outputs": lambda sample: sample.all({}),
    "gradient": lambda sample: torch.func.grad(sample.scalar)(sample.wrt),
    "vjp": _vjp,
    "jvp": lambda sample: torch.func.jvp(sample.smooth, (sample.wrt,), (dict(sample.vectors["tangent"]),))[1],
    "jacobian": _jacobian,
    "hessian": lambda sample: torch.func.jacrev(torch.func.grad(sample.scalar))(sample.wrt),
    "hvp": _hvp,
}
