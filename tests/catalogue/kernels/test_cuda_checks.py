"""The checks that stand before kernels on a GPU: put before the CPU's kernels, they refuse what those refuse, and nothing else."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import pytest
import torch
from torch import Tensor

from app.catalogue.introspect.opinfos import opinfos, seed_cpu
from app.catalogue.kernels import guard
from app.catalogue.kernels.unsafe_values import UnsafeValuesError

X: Final = torch.arange(12.0, dtype=torch.float64).reshape(3, 4)
ROW: Final = X[:1]
SCORES: Final = torch.randn(2, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def at(*places: int) -> Tensor:
    return torch.tensor(places)


# Kernel → calls that PyTorch refuses on the CPU for their values alone.
REFUSED: Final[dict[str, tuple[Callable[[], Any], ...]]] = {
    "gather": (lambda: X.gather(1, at(4)[None]), lambda: X.gather(0, at(-1)[None]), lambda: X[0, 0].gather(0, at(1))),
    "index_select": (lambda: X.index_select(0, at(3)), lambda: X.index_select(-1, at(-1))),
    "index_add": (lambda: X.index_add(0, at(3), ROW), lambda: X.index_add(0, at(-1), ROW)),
    "index_add_": (lambda: X.clone().index_add_(0, at(3), ROW),),
    "index_copy": (lambda: X.index_copy(0, at(3), ROW), lambda: X.index_copy(0, at(-1), ROW)),
    "index_copy_": (lambda: X.clone().index_copy_(0, at(3), ROW),),
    "index_reduce": (lambda: X.index_reduce(0, at(3), ROW, "prod"),),
    "index_reduce_": (lambda: X.clone().index_reduce_(0, at(3), ROW, "prod"),),
    "scatter.src": (lambda: X.scatter(0, at(3)[None], ROW), lambda: X.scatter(0, at(-1)[None], ROW)),
    "scatter.value": (lambda: X.scatter(0, at(3)[None], 1.0),),
    "scatter.reduce": (lambda: X.scatter(0, at(3)[None], ROW, reduce="add"),),
    "scatter.value_reduce": (lambda: X.scatter(0, at(3)[None], 1.0, reduce="add"),),
    "scatter_add": (lambda: X.scatter_add(0, at(3)[None], ROW),),
    "scatter_reduce.two": (lambda: X.scatter_reduce(0, at(3)[None], ROW, "sum"),),
    "scatter_.src": (lambda: X.clone().scatter_(0, at(3)[None], ROW),),
    "scatter_.value": (lambda: X.clone().scatter_(0, at(3)[None], 1.0),),
    "scatter_.reduce": (lambda: X.clone().scatter_(0, at(3)[None], ROW, reduce="add"),),
    "scatter_.value_reduce": (lambda: X.clone().scatter_(0, at(3)[None], 1.0, reduce="add"),),
    "scatter_add_": (lambda: X.clone().scatter_add_(0, at(3)[None], ROW),),
    "scatter_reduce_.two": (lambda: X.clone().scatter_reduce_(0, at(3)[None], ROW, "sum"),),
    "index_fill_.int_Scalar": (lambda: X.index_fill(0, at(3), 1.0), lambda: X.index_fill(0, at(-4), 1.0)),
    "index_fill_.int_Tensor": (lambda: X.index_fill(0, at(3), torch.tensor(1.0, dtype=torch.float64)),),
    "index.Tensor": (
        lambda: X[at(3)],
        lambda: X[at(-4)],
        lambda: X[:, at(0, 4)],
        lambda: X[torch.tensor([True, False, True]), at(0, 4)],
        lambda: X[None, :, at(4)],
    ),
    "_index_put_impl_": (
        lambda: X.index_put((at(3),), ROW),
        lambda: X.clone().index_put_((at(0), at(-5)), ROW[0, 0]),
        lambda: X.index_put((at(3),), ROW, accumulate=True),
    ),
    "take": (lambda: X.take(at(12)), lambda: X.take(at(-13))),
    "put_": (lambda: X.put(at(12), ROW[0, :1]), lambda: X.clone().put_(at(-13), ROW[0, :1])),
    "masked_scatter_": (lambda: X.masked_scatter(X > 3, ROW), lambda: X.masked_scatter(torch.tensor([True] * 4), ROW)),
    "nll_loss_forward": (
        lambda: torch.nn.functional.nll_loss(X, at(0, 1, 4)),
        lambda: torch.nn.functional.cross_entropy(X, at(0, -1, 2)),
        lambda: torch.nn.functional.nll_loss(X[0], torch.tensor(4)),
    ),
    "nll_loss2d_forward": (lambda: torch.nn.functional.nll_loss(SCORES, torch.full((2, 2, 2), 3)),),
    "multi_margin_loss": (
        lambda: torch.nn.functional.multi_margin_loss(X, at(0, 1, 4)),
        lambda: torch.nn.functional.multi_margin_loss(X, at(0, 1, -1)),
    ),
    "multilabel_margin_loss_forward": (
        lambda: torch.nn.functional.multilabel_margin_loss(X[0], at(0, 4, -1, -1)),
        lambda: torch.nn.functional.multilabel_margin_loss(X[0], at(0, -2, -1, -1)),
    ),
    "binary_cross_entropy": (
        lambda: torch.nn.functional.binary_cross_entropy(torch.tensor([0.5, 1.5]), torch.tensor([0.0, 1.0])),
        lambda: torch.nn.functional.binary_cross_entropy(torch.tensor([0.5, torch.nan]), torch.tensor([0.0, 1.0])),
    ),
    "bernoulli_.Tensor": (lambda: torch.bernoulli(torch.tensor([0.5, 1.5])), lambda: torch.bernoulli(torch.tensor([-0.5]))),
    "poisson": (lambda: torch.poisson(torch.tensor([1.0, -1.0])),),
    "multinomial": (
        lambda: torch.multinomial(torch.tensor([0.5, -0.5]), 1, True),
        lambda: torch.multinomial(torch.tensor([[0.5, 0.5], [0.0, 0.0]]), 1, True),
        lambda: torch.multinomial(torch.tensor([0.5, torch.inf]), 1, True),
        lambda: torch.multinomial(torch.tensor([0.5, torch.nan]), 1, True),
    ),
    "repeat_interleave.Tensor": (
        lambda: X.repeat_interleave(at(1, -1, 2), dim=0),
        lambda: torch.repeat_interleave(at(1, 1, 2), output_size=3),
    ),
    "max_unpool2d": (
        lambda: torch.nn.functional.max_unpool2d(SCORES, torch.full((2, 3, 2, 2), 16), [2]),
        lambda: torch.nn.functional.max_unpool2d(SCORES, torch.full((2, 3, 2, 2), -1), [2]),
    ),
    "max_unpool3d": (lambda: torch.nn.functional.max_unpool3d(SCORES[None], torch.full((1, 2, 3, 2, 2), 999), [2]),),
    "embedding_renorm_": (lambda: torch.embedding_renorm_(X.clone(), at(3), 1.0, 2.0),),
    "_assert_async": (lambda: torch._assert_async(torch.tensor(False)),),
    "_assert_async.msg": (lambda: torch._assert_async(torch.tensor(False), "no"),),
}
# Valid calls beside those of PyTorch's samples, at the edges of the checks.
TAKEN: Final[tuple[Callable[[], Any], ...]] = (
    lambda: X[at(-3, 2)],
    lambda: X[torch.tensor([True, False, True]), at(-4, 3)],
    lambda: X[torch.zeros(0, dtype=torch.int64)],
    lambda: X.index_fill(0, at(-3), 1.0),
    lambda: X.take(at(-12, 11)),
    lambda: X[0, 0].gather(0, at(0)),
    lambda: torch.nn.functional.cross_entropy(X, at(0, -100, 3)),
    lambda: torch.nn.functional.cross_entropy(X, at(7, 1, 3), ignore_index=7),
    lambda: torch.nn.functional.nll_loss(X[0], torch.tensor(3)),
    lambda: X.masked_scatter(X > 7, ROW),
    lambda: torch.multinomial(torch.tensor([[0.0, 2.0], [3.0, 0.0]]), 2, True),
    lambda: torch.repeat_interleave(at(0, 3), output_size=3),
    lambda: torch.bernoulli(torch.tensor([0.0, 1.0])),
    lambda: torch.vmap(lambda row, place: row.gather(0, place), in_dims=(0, 0))(X, at(0, 3, 1)[:, None]),
)
SAMPLED: Final = frozenset(
    {
        "gather", "index_select", "index_add", "index_copy", "index_reduce", "scatter", "scatter_add", "scatter_reduce", "index_fill",
        "__getitem__", "index_put", "take", "put", "take_along_dim", "masked_scatter", "nn.functional.nll_loss", "multinomial",
        "nn.functional.cross_entropy", "nn.functional.multi_margin_loss", "nn.functional.multilabel_margin_loss", "bernoulli",
        "nn.functional.binary_cross_entropy", "repeat_interleave", "nn.functional.max_unpool1d", "nn.functional.max_unpool2d",
        "nn.functional.max_unpool3d", "nn.functional.embedding", "nn.functional.one_hot", "nn.functional.max_pool2d",
        "nn.functional.interpolate", "unfold", "diagonal_scatter", "select_scatter", "sort", "cummax", "median",
    }
)  # fmt: skip


@contextmanager
def checked_on_the_cpu() -> Iterator[None]:
    library = guard.register(replace(fact, keys=("CPU",)) for fact in guard.FACTS_ON_CUDA)
    try:
        yield
    finally:
        library._destroy()  # type: ignore[no-untyped-call]


def test_every_check_is_tried() -> None:
    on_gpus_alone = {"_cudnn_ctc_loss", "_cudnn_ctc_loss.Tensor"}
    assert {fact.kernel for fact in guard.FACTS_ON_CUDA} - on_gpus_alone == set(REFUSED)


@pytest.mark.parametrize("kernel", REFUSED)
def test_what_the_cpu_refuses_for_its_values_is_refused_before_the_kernel(kernel: str) -> None:
    for call in REFUSED[kernel]:
        with pytest.raises((RuntimeError, IndexError, ValueError)) as refused:
            call()
        assert not isinstance(refused.value, UnsafeValuesError)
        with checked_on_the_cpu(), pytest.raises(UnsafeValuesError) as checked:
            call()
        assert checked.value.code == "operation_failed"
        assert checked.value.expected


def test_valid_values_pass() -> None:
    with checked_on_the_cpu():
        for call in TAKEN:
            call()


@pytest.mark.parametrize("name", sorted(SAMPLED))
def test_pytorchs_samples_pass_with_their_gradients(name: str) -> None:
    infos = [info for info in opinfos() if info.name == name]
    with checked_on_the_cpu(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for info in infos:
            dtype = torch.float64 if torch.float64 in info.supported_dtypes("cpu") else torch.int64
            seed_cpu(42)
            for sample in info.sample_inputs("cpu", dtype, requires_grad=info.supports_autograd and dtype == torch.float64):
                result = info.op(sample.input, *sample.args, **sample.kwargs)
                outputs = [o for o in (result if isinstance(result, tuple | list) else (result,)) if isinstance(o, Tensor)]
                differentiable = [o.sum() for o in outputs if o.requires_grad]
                if differentiable:
                    torch.autograd.backward(differentiable)
    assert infos
