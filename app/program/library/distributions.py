"""`torch.distributions` in a program: a distribution is its class and parameters; each question to it is one step."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch import distributions as kinds

from app.program.differentiation import nesting
from app.program.reading.source import Refusal
from app.program.semantics import static
from app.program.semantics.graph_values import Emit, Value, fixed
from app.program.semantics.static import named
from app.program.semantics.values import Method

_CLASSES: Final = frozenset(
    {"Bernoulli", "Beta", "Binomial", "Categorical", "Cauchy", "Chi2", "ContinuousBernoulli", "Dirichlet", "Exponential", "FisherSnedecor",
     "Gamma", "Geometric", "Gumbel", "HalfCauchy", "HalfNormal", "Independent", "InverseGamma", "Kumaraswamy", "LKJCholesky", "Laplace",
     "LogNormal", "LogisticNormal", "LowRankMultivariateNormal", "MixtureSameFamily", "Multinomial", "MultivariateNormal",
     "NegativeBinomial", "Normal", "OneHotCategorical", "OneHotCategoricalStraightThrough", "Pareto", "Poisson", "RelaxedBernoulli",
     "RelaxedOneHotCategorical", "StudentT", "TransformedDistribution", "Uniform", "VonMises", "Weibull", "Wishart"}
)  # fmt: skip
_TRANSFORMS: Final = frozenset(
    {"AbsTransform", "AffineTransform", "CatTransform", "ComposeTransform", "ExpTransform", "PowerTransform", "SigmoidTransform",
     "SoftmaxTransform", "SoftplusTransform", "StackTransform", "StickBreakingTransform", "TanhTransform"}
)  # fmt: skip
ANSWERS: Final = (
    "log_prob", "cdf", "icdf", "entropy", "perplexity", "enumerate_support", "log_abs_det_jacobian", "inv", "forward",
)  # fmt: skip
DRAWN: Final = ("sample", "rsample", "sample_n")
_ATTRIBUTES: Final = frozenset(
    {"mean", "mode", "variance", "stddev", "batch_shape", "event_shape", "loc", "scale", "probs", "logits", "rate", "concentration",
     "concentration0", "concentration1", "df", "low", "high", "covariance_matrix", "precision_matrix", "scale_tril", "temperature",
     "total_count", "param_shape"}
)  # fmt: skip
# A matrix of 4096 by 4096, or as many members of a batch: PyTorch draws one in 0.4 s (measured), one of 10,000 by 10,000 in 9 s.
_ELEMENT_LIMIT: Final = 1 << 24
_SHAPES: Final = ("batch_shape", "event_shape", "param_shape")


@dataclass(frozen=True, slots=True, eq=False)
class DistributionValue:
    """A distribution or a transform of one, by its class and what it was made with."""

    kind: str
    args: tuple[Value, ...]
    kwargs: dict[str, Value]


class Distributions:
    """Distributions of one program.

    Attributes:
        is_trying: whether an `except` may take what is raised: then the parameters are checked, as PyTorch does.
    """

    def __init__(self, is_trying: Callable[[], bool]) -> None:
        self.is_trying = is_trying

    def resolve(self, emit: Emit, name: str) -> Any:
        """What a call of `torch.distributions.NAME` does."""
        short = name.rpartition(".")[2]
        if short == "kl_divergence" or short == "kl":
            return functools.partial(self._divergence, emit)
        if short in _CLASSES or short in _TRANSFORMS:
            return functools.partial(self._constructed, emit, short)
        raise Refusal(f"There is no distribution `{short}` here.", f"There are {', '.join(sorted(_CLASSES))}.")

    def _constructed(self, emit: Emit, kind: str, args: tuple[Value, ...], kwargs: dict[str, Value]) -> DistributionValue:
        value = _distribution(kind, args, kwargs)
        if kind in _CLASSES and kwargs.get("validate_args", True) and self.is_trying():
            emit(f"distributions.{kind}", checked, (_encoded(value),), {})
        return value

    def _divergence(self, emit: Emit, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        values = (*args, *kwargs.values())
        if len(values) != 2 or not all(isinstance(value, DistributionValue) for value in values):
            raise Refusal("`kl_divergence` takes two distributions.", "Write `kl_divergence(Normal(m, s), Normal(0.0, 1.0))`.")
        return emit("distributions.kl_divergence", divergence, tuple(_encoded(value) for value in values), {})

    def attribute(self, emit: Emit, owner: DistributionValue, name: str) -> Value:
        """`d.mean`, `d.scale`…"""
        if name in ANSWERS or name in DRAWN:
            return Method(owner, name)
        if name not in _ATTRIBUTES:
            raise Refusal(f"A distribution has no `.{name}` here.", f"It has {', '.join(sorted(_ATTRIBUTES))}; `.log_prob(x)`.")
        if name in _SHAPES:
            plain = mapped_examples(_encoded(owner))
            return tuple(getattr(_built(plain), name))
        return emit(f"distributions.{owner.kind}", asked, (name, _encoded(owner), None), {})

    def method(
        self, emit: Emit, owner: DistributionValue, name: str, args: tuple[Value, ...], kwargs: Mapping[str, Value]
    ) -> Value:
        """`d.log_prob(x)`, `d.rsample()`, `d.entropy()`…"""
        values = (*args, *kwargs.values())
        if name in DRAWN:
            if owner.kind == "VonMises":  # PyTorch draws it in a loop that NaN never leaves
                raise Refusal("`VonMises` cannot be sampled here.", "Ask for its `.log_prob(x)`.")
            shape = values[0] if values else ()
            shape = (shape,) if isinstance(shape, int) else tuple(shape)
            if owner.kind == "Normal" and name == "rsample":
                noise = emit(
                    f"distributions.{owner.kind}.{name}", fixed(noise_like, shape), (_encoded(owner),), {}, random=True
                )
                return emit(f"distributions.{owner.kind}.{name}", of_noise, (_encoded(owner), noise), {})
            target = fixed(drawn, "sample" if name != "rsample" else "rsample", shape)
            sample = emit(f"distributions.{owner.kind}.{name}", target, (_encoded(owner),), {}, random=True)
            sample.meta["live"] = sample.meta["live"] and name == "rsample"  # the others are drawn under `no_grad`
            return sample
        if name == "expand" and values:
            shape = values[0] if isinstance(values[0], tuple | list) else values
            _check_elements(owner.kind, *(size for size in shape if isinstance(size, int)))
            return DistributionValue("expanded", (owner, tuple(shape)), {})
        if name in ANSWERS or (owner.kind in _TRANSFORMS and name == "__call__"):
            if any(isinstance(value, DistributionValue) for value in values):
                raise Refusal(f"`.{name}` takes tensors.")
            numbers = tuple(float(v) if isinstance(v, int) and not isinstance(v, bool) else v for v in values)
            return emit(f"distributions.{owner.kind}.{name}", asked, (name, _encoded(owner), numbers), {})
        raise Refusal(
            f"A distribution has no `.{name}()` here.",
            "It has `.log_prob(x)`, `.rsample()`, `.sample()`, `.entropy()`, `.cdf(x)`.",
        )


def checked(value: Any) -> Tensor:
    """Raises PyTorch's ValueError where the parameters are out of range; else gives nothing of use."""
    _built(value, validate=True)
    return torch.zeros(())


def _distribution(kind: str, args: tuple[Value, ...], kwargs: dict[str, Value]) -> DistributionValue:
    options = {key: value for key, value in kwargs.items() if key != "validate_args"}
    if kind == "LKJCholesky":
        size = args[0] if args else options.get("dim")
        if isinstance(size, int):
            _check_elements(kind, size, size)
    return DistributionValue(kind, args, options)


def _check_elements(kind: str, *sizes: int) -> None:
    """Refuses distributions over so many elements that making one, which every question does anew, takes seconds."""
    if math.prod(max(size, 1) for size in sizes) > _ELEMENT_LIMIT:
        raise Refusal(
            f"`{kind}` over more than {_ELEMENT_LIMIT:,} elements is too large.", "Use smaller sizes.", code="too_costly"
        )


def _encoded(value: Value) -> Value:
    """A distribution as an argument of a step: nested tuples in which tensors are found."""
    static.members_in(value)
    if isinstance(value, DistributionValue):
        return (
            "distribution",
            value.kind,
            tuple(map(_encoded, value.args)),
            tuple((k, _encoded(v)) for k, v in value.kwargs.items()),
        )
    if isinstance(value, list | tuple):
        return ("list", *map(_encoded, value))
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if nesting.leaves(value) or value is None or isinstance(value, float | bool):
        return value
    raise Refusal(f"A distribution is made of tensors and numbers, not of {named(value)}.")


def mapped_examples(value: Any) -> Any:
    """An encoded distribution with the example tensors in the place of the steps."""
    from app.program.semantics.graph_values import example, mapped_nodes

    return mapped_nodes(value, example)


def _built(value: Any, validate: bool = False) -> Any:
    """An encoded distribution as PyTorch's own. Its parameters are not checked: what they cannot be gives NaN, and a note."""
    if not isinstance(value, tuple):
        return value
    if value[0] == "list":
        return [_built(member) for member in value[1:]]
    _, kind, args, kwargs = value
    members = [_built(member) for member in args]
    if kind == "expanded":
        return members[0].expand(torch.Size(members[1]))
    options = {key: _built(member) for key, member in kwargs}
    if kind in _TRANSFORMS:
        return getattr(kinds.transforms, kind)(*members, **options)
    return getattr(kinds, kind)(*_promoted(kind, members), validate_args=validate, **options)


def _promoted(kind: str, args: list[Any]) -> list[Any]:
    """Whole numbers as floating ones, where they are parameters and not counts."""
    counts = kind in ("Independent", "Binomial", "Multinomial", "NegativeBinomial", "LKJCholesky")
    return [float(a) if isinstance(a, int) and not isinstance(a, bool) and not counts else a for a in args]


def divergence(left: Any, right: Any) -> Tensor:
    """KL(left ‖ right), of encoded distributions."""
    return kinds.kl_divergence(_built(left), _built(right))


def asked(name: str, encoded: Any, args: tuple[Any, ...] | None) -> Any:
    """An attribute (`args` is None) or the answer of a method of an encoded distribution."""
    owner = _built(encoded)
    if args is None:
        return getattr(owner, name)
    if name == "inv":
        return owner.inv(*args)
    if name == "forward":
        return owner(*args)
    values = [torch.as_tensor(value) if isinstance(value, float) else value for value in args]
    return getattr(owner, name)(*values)


def noise_like(shape: tuple[int, ...], encoded: Any) -> Tensor:
    """What PyTorch draws for a sample of `Normal`: its shape alone hangs on the parameters, so that derivatives pass it by."""
    owner = _built(encoded)
    whole = (*shape, *owner.loc.shape)
    return torch.normal(owner.loc.new_zeros(whole), owner.loc.new_ones(whole))


def of_noise(encoded: Any, noise: Tensor) -> Tensor:
    """`Normal(loc, scale).rsample()` of what was drawn."""
    owner = _built(encoded)
    sample: Tensor = owner.loc + noise * owner.scale
    return sample


def drawn(name: str, shape: tuple[int, ...], encoded: Any) -> Tensor:
    """A sample of an encoded distribution."""
    sample: Tensor = getattr(_built(encoded), name)(torch.Size(shape))
    return sample
