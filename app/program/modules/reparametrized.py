"""Weights that are computed from others at each call of their module: `weight_norm`, `spectral_norm`, `register_parametrization`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, fx, nn

from app.program.function import Step
from app.program.modules.layers import LayerValue, Weight
from app.program.reading.source import Refusal
from app.program.semantics.graph_values import Emit, Value, example, fixed, is_tensor
from app.program.semantics.static import named
from app.program.semantics.trace import Trace
from app.program.semantics.values import Instance, special

Invoke = Callable[[Value, tuple[Value, ...]], Value]
# Arguments by position after the module.
_OPTIONS: Final = {
    "weight_norm": {"name": "weight", "dim": 0},
    "spectral_norm": {"name": "weight", "n_power_iterations": 1, "eps": 1e-12, "dim": None},
}  # fmt: skip
NAMES: Final = (
    *(f"nn.utils.{place}{name}" for name in _OPTIONS for place in ("", "parametrizations.", f"{name}.")),
    "nn.utils.parametrize.register_parametrization", "parametrize.register_parametrization",
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Computed:
    """A weight that is computed.

    Attributes:
        sources: the layer's weights that it is computed from, by name.
        call: (emit, layer, their tensors) → its tensor.
    """

    sources: tuple[str, ...]
    call: Callable[[Emit, LayerValue, list[fx.Node]], Value]


class Reparametrizations:
    """Those of one program."""

    def __init__(self, trace: Trace, emit: Emit, invoke: Invoke) -> None:
        self._trace, self._emit, self._invoke = trace, emit, invoke

    def called(self, short: str, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> Value:
        """`weight_norm(layer, name="weight", dim=0)` and its like: the layer itself, changed."""
        kind, is_new = short.rpartition(".")[2], "parametriz" in short
        layer = args[0] if args else kwargs.get("module")
        if not isinstance(layer, LayerValue):
            raise Refusal(
                f"`{kind}` takes a module of PyTorch here, not {named(layer)}.",
                "Write `layer = nn.Linear(3, 4)`, then give it that; for a module of your own compute the weight in its `forward`.",
            )
        if kind == "register_parametrization":
            return self._registered(layer, *args[1:3], **kwargs)
        defaults = _OPTIONS[kind]
        options = {
            **defaults,
            **dict(zip(defaults, args[1:], strict=False)),
            **{k: v for k, v in kwargs.items() if k != "module"},
        }
        name = str(options.pop("name"))
        if set(options) - set(defaults) or any(is_tensor(value) for value in options.values()):
            raise Refusal(f"`{kind}` takes {', '.join(defaults)}.", "Give plain options.")
        value = self._first(layer, name)
        if kind == "weight_norm":
            self._weight_norm(layer, name, value, -1 if options["dim"] is None else options["dim"], is_new)
        else:
            dim = options["dim"]
            dim = int(layer.name.startswith("ConvTranspose")) if dim is None else dim
            self._spectral_norm(layer, name, value, (options["n_power_iterations"], options["eps"], dim), is_new)
        return layer

    def _first(self, layer: LayerValue, name: str) -> fx.Node:
        """What the weight begins with, which is no weight any more."""
        if name not in layer.weights:
            known = ", ".join(layer.weights) or "none"
            raise Refusal(
                f"`nn.{layer.name}` has no weight `{name}` to compute.", f"Its weights are {known}.", raises="AttributeError"
            )
        weight = layer.weights.pop(name)
        held = weight.initial if weight.node is None else weight.node
        return self._emit("detach", torch.Tensor.detach, (held,), {})  # type: ignore[no-any-return]

    def _hold(self, layer: LayerValue, name: str, value: Value, trained: bool = True) -> None:
        layer.weights[name] = Weight(value, parent=(layer, name), trained=trained)

    def _weight_norm(self, layer: LayerValue, name: str, value: fx.Node, dim: int, is_new: bool) -> None:
        names = (
            (f"parametrizations.{name}.original0", f"parametrizations.{name}.original1")
            if is_new
            else (f"{name}_g", f"{name}_v")
        )
        self._hold(layer, names[0], self._emit("weight_norm", fixed(_norms, dim), (value,), {}))
        self._hold(layer, names[1], self._emit("clone", torch.clone, (value,), {}))
        target = fixed(normed, dim)
        layer.computed[name] = Computed(names, lambda emit, _, tensors: emit("weight_norm", target, tuple(tensors), {}))

    def _spectral_norm(
        self, layer: LayerValue, name: str, value: fx.Node, options: tuple[int, float, int], is_new: bool
    ) -> None:
        target = fixed(_begun, is_new, options)
        shape = list(example(value).shape)
        rows = shape[options[2]]
        columns = int(torch.Size(shape).numel()) // max(rows, 1)
        target.abstract = lambda weight: (weight.new_empty(rows), weight.new_empty(columns))  # type: ignore[attr-defined]
        target.draws = True  # type: ignore[attr-defined]
        vectors = self._emit("spectral_norm", target, (value,), {}, random=True, initial=True)
        names = (f"{name}_orig", f"{name}_u", f"{name}_v")
        if is_new:
            within = f"parametrizations.{name}"
            names = (f"{within}.original", f"{within}.0._u", f"{within}.0._v")
        self._hold(layer, names[0], self._emit("clone", torch.clone, (value,), {}))
        for index in (0, 1):
            self._hold(layer, names[1 + index], self._trace.pick(vectors, index), trained=False)
        layer.computed[name] = Computed(names, lambda emit, held, tensors: self._spectral(emit, held, tensors, is_new, options))

    def _spectral(
        self, emit: Emit, layer: LayerValue, tensors: list[fx.Node], is_new: bool, options: tuple[int, float, int]
    ) -> Value:
        """The weight over its largest singular value; in training the vectors that this is found by are brought nearer first."""
        if layer.training and options[0] > 0:
            enabled, self._trace.grad_enabled = self._trace.grad_enabled, False
            try:
                vectors = emit("spectral_norm", fixed(iterated, is_new, options), tuple(tensors), {})
                for index in (0, 1):
                    value = self._trace.pick(vectors, index)
                    self._trace.write(Step(*self._trace.place, "spectral_norm"), tensors[1 + index], value)
                # The next call writes into them, and the derivative of this one needs them as they are: PyTorch copies them, too.
                tensors = [tensors[0], *(emit("clone", torch.clone, (tensor,), {}) for tensor in tensors[1:])]
            finally:
                self._trace.grad_enabled = enabled
        return emit("spectral_norm", fixed(divided, options[2]), tuple(tensors), {})

    def _registered(self, layer: LayerValue, tensor_name: Value, parametrization: Value, unsafe: bool = False) -> Value:
        """`register_parametrization(layer, "weight", P())`: at each call the weight is what `P` makes of the original."""
        name = str(tensor_name)
        if not isinstance(parametrization, Instance | LayerValue):
            raise Refusal(
                f"A parametrization is a module, not {named(parametrization)}.", "Give it `P()`, with a `forward(self, X)`."
            )
        earlier = layer.computed.get(name)
        if earlier is not None:
            within = earlier.call
            layer.computed[name] = Computed(
                earlier.sources,
                lambda emit, held, tensors: self._invoke(parametrization, (within(emit, held, tensors),)),
            )
            return layer
        value = self._first(layer, name)
        inverse = special(parametrization, "right_inverse")
        if inverse is not None:
            value = self._invoke(inverse, (value,))
        original = f"parametrizations.{name}.original"
        self._hold(layer, original, self._emit("detach", torch.Tensor.detach, (value,), {}))
        layer.computed[name] = Computed((original,), lambda emit, _, tensors: self._invoke(parametrization, tuple(tensors)))
        return layer


def _norms(dim: int, weight: Tensor) -> Tensor:
    return torch.norm_except_dim(weight, 2, dim)


def normed(dim: int, norms: Tensor, direction: Tensor) -> Tensor:
    """`g · v / |v|`, the norm over all axes but `dim`."""
    return direction * (norms / torch.norm_except_dim(direction, 2, dim))


def _begun(is_new: bool, options: tuple[int, float, int], weight: Tensor) -> tuple[Tensor, Tensor]:
    """The vectors u and v that PyTorch draws for a weight, and its iterations on them."""
    count, eps, dim = options
    holder = nn.Module()
    holder.weight = nn.Parameter(weight.detach().clone())
    if is_new:
        nn.utils.parametrizations.spectral_norm(holder, "weight", count, eps, dim)
        held: Any = holder.parametrizations.weight[0]  # type: ignore[union-attr, index]
        return held._u.detach(), held._v.detach()
    nn.utils.spectral_norm(holder, "weight", count, eps, dim)
    return holder.weight_u.detach(), holder.weight_v.detach()  # type: ignore[operator]


def _matrix(weight: Tensor, dim: int) -> Tensor:
    return (weight.movedim(dim, 0) if dim else weight).flatten(1)


def iterated(is_new: bool, options: tuple[int, float, int], weight: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """u and v after the power iterations of one call."""
    count, eps, dim = options
    matrix = _matrix(weight, dim)
    for _ in range(count):
        if is_new:
            u = nn.functional.normalize(torch.mv(matrix, v), dim=0, eps=eps)
        v = nn.functional.normalize(torch.mv(matrix.mT, u), dim=0, eps=eps)
        if not is_new:
            u = nn.functional.normalize(torch.mv(matrix, v), dim=0, eps=eps)
    return u, v


def divided(dim: int, weight: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """`W / (uᵀ W v)`."""
    return weight / torch.dot(u, torch.mv(_matrix(weight, dim), v))
