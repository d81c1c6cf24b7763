"""Puts the checks before PyTorch's kernels, once for a process.

A check stands in the dispatcher, at the kernel itself. So it holds whoever calls: an operation, a step of a program, a composite
function, a backward formula, a sample under vmap, an example tensor while a graph is built; fakes, which have no values, never
come there. What has no row in `FACTS` costs nothing. (`torch.library.get_kernel` documents this use; a call that is checked costs
3.5 µs more.)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import torch
from torch import Tensor
from torch.library import Library, get_kernel

from app.catalogue.kernels import amounts, checks, cuda_checks, recurrent
from app.catalogue.kernels.checks import Check

_DEVICES: Final = ("CPU", "CUDA")
# Where sizes alone decide, fakes are checked too; a composite function has no kernel of its own, and one for all devices.
_SIZES: Final = (*_DEVICES, "Meta")
_CPU: Final = ("CPU",)
_COMPOSITE: Final = ("CompositeImplicitAutograd",)


@dataclass(frozen=True, slots=True)
class Fact:
    """A kernel by its name in the dispatcher, and what must hold before it runs.

    Attributes:
        by_number: runs it where a tensor argument may be a plain number: the dispatcher hands that to Python without the 0-d tensor
            around it, and the kernel itself cannot be called so.
        keys: the dispatch keys that the check stands at.
        around: runs it, handed what does and its arguments by their names.
    """

    kernel: str
    check: Check
    by_number: Callable[..., Tensor] | None = None
    keys: tuple[str, ...] = _DEVICES
    around: Callable[[Callable[[Mapping[str, Any]], Any], Mapping[str, Any]], Any] | None = None


def _divide(*, self: Any, other: Any, rounding_mode: str | None) -> Tensor:
    """The quotient by the kernels that have no check (`out` makes it another one), with a plain number's precision and dtype."""
    if rounding_mode is None:
        return torch.true_divide(self, other)
    device = next(value.device for value in (self, other) if isinstance(value, Tensor))
    out = torch.empty(0, dtype=torch.result_type(self, other), device=device)
    return torch.div(self, other, rounding_mode=rounding_mode, out=out)


def _evaluate(name: str) -> Callable[..., Tensor]:
    """The polynomial `name`, by its kernel for `out`."""

    def by_number(*, x: Any, n: Any) -> Tensor:
        dtype = torch.result_type(x, n)
        device = next(value.device for value in (x, n) if isinstance(value, Tensor))
        out = torch.empty(0, dtype=dtype if dtype.is_floating_point else torch.get_default_dtype(), device=device)
        evaluated: Tensor = getattr(torch.special, name)(x, n, out=out)
        return evaluated

    return by_number


def _zeta(*, self: Any, other: Any) -> Tensor:
    """With a plain number as a tensor of the dtype that the two are computed in."""
    dtype = torch.result_type(self, other)
    device = next(value.device for value in (self, other) if isinstance(value, Tensor))
    dtype = dtype if dtype.is_floating_point else torch.get_default_dtype()
    summed: Tensor = torch.special.zeta(*(torch.as_tensor(value, dtype=dtype, device=device) for value in (self, other)))
    return summed


_POLYNOMIALS: Final = (
    *(f"{shifted}chebyshev_polynomial_{kind}" for shifted in ("", "shifted_") for kind in "tuvw"),
    *("hermite_polynomial_h", "hermite_polynomial_he", "laguerre_polynomial_l", "legendre_polynomial_p"),
)
# Each row but the embedding's cost a crash, or gave memory of others back, in PyTorch 2.13.0 on the CPU.
FACTS: Final = (
    Fact("_ctc_loss", checks.ctc_loss),
    Fact("_ctc_loss.Tensor", checks.ctc_loss),
    Fact("segment_reduce", checks.segment_reduce),
    Fact("embedding", checks.embedding),
    Fact("_embedding_bag", checks.embedding_bag),
    Fact("_embedding_bag_forward_only", checks.embedding_bag),
    Fact("lu_unpack", checks.lu_unpack),
    Fact("linalg_ldl_solve", checks.ldl_solve),
    Fact("linalg_lstsq", checks.lstsq),
    Fact("_pdist_forward", checks.pdist),
    Fact("div.Tensor_mode", checks.truncated_division, _divide),
    Fact("lcm", checks.least_common_multiple),
    Fact("grid_sampler_2d", checks.finite("grid")),
    Fact("grid_sampler_3d", checks.finite("grid")),
    Fact("grid_sampler_2d_backward", checks.finite("grid")),
    Fact("grid_sampler_3d_backward", checks.finite("grid")),
    Fact("_linalg_eigvals", checks.finite("self", "A")),
    Fact("fractional_max_pool2d", checks.fractional_pool),
    Fact("fractional_max_pool3d", checks.fractional_pool),
    *(
        Fact(f"{kind}.input", checks.recurrent, keys=_COMPOSITE, around=recurrent.counted)
        for kind in ("lstm", "gru", "rnn_tanh", "rnn_relu")
    ),
    Fact("poisson", checks.poisson, keys=_CPU),
    # These do not crash: they never end, take minutes, or memory before anybody has reckoned it.
    Fact("bincount", amounts.bincount),
    Fact("mvlgamma", amounts.terms),
    Fact("histogram.bin_ct", amounts.histogram),
    Fact("_histogramdd_bin_edges", amounts.histogram_of_many),
    Fact("_histogramdd_from_bin_cts", amounts.histogram_of_many),
    Fact("binomial", checks.binomial),
    *(Fact(f"special_{name}", checks.polynomial, _evaluate(name)) for name in _POLYNOMIALS),
    Fact("special_zeta", checks.zeta, _zeta),
    Fact("polygamma", checks.polygamma),
    Fact("unbind.int", amounts.unbind, keys=_SIZES),
    Fact("split.Tensor", amounts.split, keys=_SIZES),
    Fact("split_with_sizes", amounts.split_with_sizes, keys=_SIZES),
    Fact("chunk", amounts.chunk, keys=_COMPOSITE),
    Fact("tensor_split.sections", amounts.sections, keys=_COMPOSITE),
    Fact("tensor_split.indices", amounts.indices, keys=_COMPOSITE),
    Fact("tensor_split.tensor_indices_or_sections", amounts.read_indices, keys=_COMPOSITE),
    Fact("combinations", amounts.combinations, keys=_COMPOSITE),
)

_OF_SIZES: Final = {fact.kernel: fact for fact in FACTS if fact.keys is _SIZES}

_CUDA: Final = ("CUDA",)
# The kernels that assert on a GPU what they refuse on the CPU: their names and whether a place may be told from the end.
_ALONG: Final = (
    "gather", "index_select", "index_add", "index_add_", "index_copy", "index_copy_", "index_reduce", "index_reduce_", "scatter.src",
    "scatter.value", "scatter.reduce", "scatter.value_reduce", "scatter_add", "scatter_reduce.two", "scatter_.src", "scatter_.value",
    "scatter_.reduce", "scatter_.value_reduce", "scatter_add_", "scatter_reduce_.two",
)  # fmt: skip
FACTS_ON_CUDA: Final = (
    *(Fact(name, cuda_checks.along(), keys=_CUDA) for name in _ALONG),
    *(Fact(f"index_fill_.int_{kind}", cuda_checks.along(wraps=True), keys=_CUDA) for kind in ("Scalar", "Tensor")),
    *(Fact(name, cuda_checks.indices, keys=_CUDA) for name in ("index.Tensor", "_index_put_impl_")),
    *(Fact(name, cuda_checks.flat, keys=_CUDA) for name in ("take", "put_")),
    Fact("masked_scatter_", cuda_checks.masked_scatter, keys=_CUDA),
    Fact("nll_loss_forward", cuda_checks.classes(-1), keys=_CUDA),
    Fact("nll_loss2d_forward", cuda_checks.classes(1), keys=_CUDA),
    Fact("multi_margin_loss", cuda_checks.classes(-1), keys=_CUDA),
    Fact("multilabel_margin_loss_forward", cuda_checks.targets_of_classes, keys=_CUDA),
    Fact("binary_cross_entropy", cuda_checks.probabilities("self", "target"), keys=_CUDA),
    Fact("bernoulli_.Tensor", cuda_checks.probabilities("p"), keys=_CUDA),
    Fact("poisson", cuda_checks.rates, keys=_CUDA),
    Fact("multinomial", cuda_checks.weights_to_draw_by, keys=_CUDA),
    Fact("repeat_interleave.Tensor", cuda_checks.repeats, keys=_CUDA),
    *(Fact(f"max_unpool{rank}d", cuda_checks.unpooled, keys=_CUDA) for rank in (2, 3)),
    Fact("embedding_renorm_", cuda_checks.renormed, keys=_CUDA),
    *(Fact(name, cuda_checks.asserted, keys=_CUDA) for name in ("_assert_async", "_assert_async.msg")),
    # cuDNN's own, which PyTorch takes in the place of `_ctc_loss`.
    *(Fact(name, checks.ctc_loss, keys=_CUDA) for name in ("_cudnn_ctc_loss", "_cudnn_ctc_loss.Tensor")),
)


@cache
def size_check(func: Any) -> Callable[[tuple[Any, ...], Mapping[str, Any]], None] | None:
    """The check of a call of the operator `func` that looks at sizes alone, for whoever sees it called on fakes.

    PyTorch has Python of its own in the place of some kernels for fakes (`split`), and that goes round for as many results as there are.
    """
    fact = _OF_SIZES.get(f"{func.overloadpacket.__name__}.{func._overloadname}".removesuffix(".default"))
    if fact is None or func.namespace != "aten":
        return None
    arguments = _arguments_of(func._schema.arguments)
    return lambda args, kwargs: fact.check(arguments(args, kwargs))


@cache
def install() -> Library:
    """Registers every check with the dispatcher. The Library holds the registration, so it must live on."""
    return register((*FACTS, *FACTS_ON_CUDA))


def register(facts: Iterable[Fact]) -> Library:
    """The checks of `facts`, registered for as long as the Library lives."""
    library = Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch says that a kernel is overridden, which is what is meant
        for fact in facts:
            for key in fact.keys:
                runtime = "AutogradCPU" if key in _COMPOSITE else key  # a composite's own key is only an alias of the others
                if torch._C._dispatch_has_computed_kernel_for_dispatch_key(f"aten::{fact.kernel}", runtime):
                    kernel = _checked(fact, runtime)
                    library.impl(fact.kernel, kernel, key, with_keyset=True, allow_override=True)  # type: ignore[no-untyped-call]
    return library


def _checked(fact: Fact, key: str) -> Callable[..., Any]:
    """The kernel with its check before it."""
    kernel = get_kernel(f"aten::{fact.kernel}", key)
    name, _, overload = fact.kernel.partition(".")
    declared = getattr(getattr(torch.ops.aten, name), overload or "default")._schema.arguments
    named = _arguments_of(declared)
    tensors = tuple(argument.name for argument in declared if str(argument.type) == "Tensor")

    def checked(keys: Any, *args: Any, **kwargs: Any) -> Any:
        arguments = named(args, kwargs)
        fact.check(arguments)
        if fact.by_number is not None and not all(isinstance(arguments[name], Tensor) for name in tensors):
            return fact.by_number(**arguments)
        if fact.around is not None:
            return fact.around(lambda each: kernel.call_boxed(keys, *[each[argument.name] for argument in declared]), arguments)
        return kernel.call_boxed(keys, *args, **kwargs)

    return checked


def _arguments_of(declared: Iterable[Any]) -> Callable[[tuple[Any, ...], Mapping[str, Any]], dict[str, Any]]:
    """What makes the arguments of a call by name, defaults included, of those that the operator declares."""
    names = tuple(argument.name for argument in declared)
    defaults = {argument.name: argument.default_value for argument in declared if argument.has_default_value()}
    return lambda args, kwargs: {**defaults, **dict(zip(names, args, strict=False)), **kwargs}
