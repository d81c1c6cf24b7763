"""Layers: PyTorch's own modules without their values, made from plain options, called with the weights of the program."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.nn.attention import SDPBackend, sdpa_kernel

from app.program.errors import REFUSALS, sentence
from app.program.modules.layer_table import LAYERS, OTHERS, WHOLE
from app.program.reading.source import Refusal
from app.program.semantics import static
from app.program.semantics.aside import aside
from app.program.semantics.graph_values import Emit, MultiOutput, Value, example, fixed, is_tensor
from app.program.semantics.trace import ELEMENT_LIMIT

Operation = Callable[[Emit, str, tuple[Value, ...], Mapping[str, Value]], Value]
# The tensors of what a step gave.
Spread = Callable[[Emit, Value], list[Value]]
# Arguments of modules that are about devices and memory.
_DROPPED: Final = ("device", "dtype")
# A step of 2³¹ elements is refused; weights that are made here stay well below, for the worker makes all of them at once.
_DEPTH_LIMIT: Final = 64
# Modules whose weights begin as constants.
_UNDRAWN: Final = ("LayerNorm", "RMSNorm", "GroupNorm", "BatchNorm", "InstanceNorm", "PReLU")
_INITIAL_LIMIT: Final = ELEMENT_LIMIT >> 3  # of weights to be drawn: 2 GiB of float64


@dataclass(slots=True, eq=False)
class Weight:
    """One parameter or buffer.

    Attributes:
        initial: the tensor that PyTorch's initialisation gives it.
        parent: the module that holds it, and its name there; the module is None for a parameter with a name of its own.
        node: the tensor that the program computes with, once it is known.
        frozen: `requires_grad` was set to False: no `backward()` gives it a gradient.
        first: the node with its first value, where nobody sent one: what later steps of training leave in `initial` is not it.
        trained: a parameter, whose gradient can be asked for; a buffer otherwise.
        tied: other modules that hold it, and its names there (`decoder.weight = embedding.weight`).
        typed: its dtype was written where it was made, or it is a layer's own: by PyTorch's default it is float32 otherwise.
    """

    initial: fx.Node
    parent: tuple[Any, str] | None = None
    node: fx.Node | None = None
    trained: bool = True
    first: fx.Node | None = None
    frozen: bool = False
    typed: bool = True
    tied: list[tuple[Any, str]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class LayerValue:
    """A module of PyTorch in a program.

    Attributes:
        skeleton: PyTorch's module on the meta device: its options and the shapes of its weights.
        weights: by their names in `state_dict`.
        parent: the module that holds it and its name there.
        tensor_options: tensors that it was constructed with (`weight=w` of a loss).
        hooks, pre_hooks: functions that each call of it goes through, after and before its `forward`.
        seen: batches whose mean and variance its buffers do not hold yet.
        batches: how many they hold.
        computed: weights that are computed from others at each call, by name: what is asked how (`modules/reparametrized.py`).
        backward_hooks: functions that a backward pass through it calls.
        is_shared: the program has its buffers under names of its own, so that they are brought up to date at every call.
    """

    name: str
    skeleton: nn.Module
    weights: dict[str, Weight]
    tensor_options: dict[str, Value]
    parent: tuple[Any, str] | None = None
    training: bool = True
    hooks: list[Value] = field(default_factory=list)
    pre_hooks: list[Value] = field(default_factory=list)
    seen: list[fx.Node] = field(default_factory=list)
    batches: int = 0
    is_shared: bool = False
    computed: dict[str, Any] = field(default_factory=dict)
    backward_hooks: list[Value] = field(default_factory=list)


def constructed(emit: Emit, spread: Spread, name: str, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> LayerValue:
    """`nn.NAME(*args, **kwargs)`. Raises a refusal where PyTorch refuses the options."""
    if name in OTHERS:
        raise Refusal(f"`nn.{name}` is not in the language.", OTHERS[name])
    options = {key: value for key, value in kwargs.items() if key not in _DROPPED}
    _check_depth(name, args, options)
    tensor_options = {key: value for key, value in options.items() if is_tensor(value)}
    inner = next((value for value in (*args, *options.values()) if isinstance(value, LayerValue)), None)
    plain = tuple(_option(value) for value in args)
    named = {key: _skeleton(v) if is_tensor(v) else _option(v) for key, v in options.items()}
    if any(is_tensor(value) for value in args):
        position = next(index for index, value in enumerate(args) if is_tensor(value))
        if position != 0 or not name.endswith("Loss"):
            raise Refusal(f"`nn.{name}` takes plain options, not a tensor.", "Give tensors to the module when it is called.")
        tensor_options["weight"] = args[0]
        plain = (_skeleton(args[0]), *plain[1:])
    make = functools.partial(getattr(nn, name), *plain, **named)
    try:
        with aside(), unset_fake_temporarily(), torch.device("meta"):
            skeleton: nn.Module = make()
            state = skeleton.state_dict()
    except REFUSALS as error:
        raise Refusal(
            f"PyTorch refuses to make `nn.{name}` of these options: {sentence(error)}.",
            f"Its arguments are {_signature(name)}.",
        ) from error
    names = [key for key in state if key not in tensor_options and key.rpartition(".")[2] != "num_batches_tracked"]
    weights: dict[str, Weight] = {}
    if names:
        total = sum(tensor.numel() for tensor in state.values())
        if total > _INITIAL_LIMIT:
            raise Refusal(f"`nn.{name}` would have {total:,} weights; the limit is {_INITIAL_LIMIT:,}.", code="too_costly")
        initial = _copied(inner, names) if inner is not None else _drawn(emit, spread, name, make, names, state)
        trained = dict(skeleton.named_parameters())
        weights = {key: Weight(node, trained=key in trained) for key, node in zip(names, initial, strict=True)}
    layer = LayerValue(name, skeleton, weights, tensor_options)
    for key, weight in weights.items():
        weight.parent = (layer, key)
    return layer


def _skeleton(tensor: fx.Node) -> Tensor:
    """Stands for a tensor among the options of a module."""
    with aside():
        return torch.empty(example(tensor).shape, device="meta")


def _check_depth(name: str, args: tuple[Value, ...], options: Mapping[str, Value]) -> None:
    """Refuses stacks that take seconds to construct."""
    counted = [value for key, value in options.items() if "layers" in key]
    counted += (args[1:] if name in ("TransformerEncoder", "TransformerDecoder") else args[2:]) if name in WHOLE else ()
    for value in counted:
        if isinstance(value, int) and value > _DEPTH_LIMIT and not (name.startswith("Transformer") and "Layer" in name):
            raise Refusal(f"`nn.{name}` with {value:,} layers is too deep; the limit is {_DEPTH_LIMIT}.", code="too_costly")


def _signature(name: str) -> str:
    return str(inspect.signature(getattr(nn, name).__init__)).replace("(self, ", "(")[:200]


def _option(value: Value) -> Any:
    """A plain option of a module; a layer stands for its skeleton."""
    if isinstance(value, LayerValue):
        return value.skeleton
    if is_tensor(value):
        return None
    if isinstance(value, MultiOutput) or not (
        static.is_number(value) or value is None or isinstance(value, str | list | tuple | torch.dtype)
    ):
        path = getattr(value, "path", "")
        activation = {"relu": nn.functional.relu, "gelu": nn.functional.gelu}.get(str(path).rpartition(".")[2])
        if activation is not None:
            return activation
        raise Refusal(f"A module takes plain options, not {static.named(value)}.", "Use numbers, strings, tuples.")
    if isinstance(value, list | tuple):
        static.plain(value)
    if isinstance(value, int) and abs(value) > ELEMENT_LIMIT:
        raise Refusal(f"{value} is too large as an option of a module.", code="too_costly")
    return list(value) if isinstance(value, list) else value


def _drawn(
    emit: Emit, spread: Spread, name: str, make: Callable[[], nn.Module], names: list[str], state: Mapping[str, Tensor]
) -> list[fx.Node]:
    """A step that initialises the module as PyTorch does, drawing from the same random numbers in the same order."""
    target = fixed(initialised, make, tuple(names))
    dtype = torch.get_default_dtype()
    shapes = [(tuple(state[key].shape), dtype if state[key].is_floating_point() else state[key].dtype) for key in names]
    target.abstract = lambda: tuple(torch.empty(shape, dtype=kind) for shape, kind in shapes)  # type: ignore[attr-defined]
    target.draws = not name.startswith(_UNDRAWN)  # type: ignore[attr-defined]
    return spread(emit, emit(f"nn.{name}", target, (), {}, random=True, initial=True))


def initialised(make: Callable[[], nn.Module], names: tuple[str, ...]) -> tuple[Tensor, ...]:
    """The weights of a new module."""
    state = make().state_dict()
    return tuple(state[name].detach() for name in names)


def _copied(layer: LayerValue, names: list[str]) -> list[fx.Node]:
    """Stacks of layers (`nn.TransformerEncoder(layer, 2)`) begin with copies of the weights of that layer."""
    return [next(weight.initial for key, weight in layer.weights.items() if name.endswith(f".{key}")) for name in names]


def call_layer(
    emit: Emit,
    operation: Operation,
    layer: LayerValue,
    tensor_of: Callable[[Weight], fx.Node],
    args: tuple[Value, ...],
    kwargs: Mapping[str, Value],
) -> Value:
    """`layer(*args, **kwargs)`: the step or steps of its `forward`."""
    if layer.name == "Identity" and args:
        return args[0]
    of_name = functools.partial(_tensor, layer, tensor_of, computed_weights(emit, layer, tensor_of))
    row = LAYERS.get(layer.name)
    if row is None or getattr(layer.skeleton, "padding_mode", "zeros") != "zeros" or getattr(layer.skeleton, "max_norm", None):
        return _whole(emit, layer, of_name, args, kwargs)
    if kwargs and len(args) < row.inputs:
        named = list(kwargs.values())
        args = (*args, *named)
    if len(args) != row.inputs:
        output = layer.name.startswith("ConvTranspose") and len(args) > 1
        if output:
            return _whole(emit, layer, of_name, args, kwargs)
        raise Refusal(f"`nn.{layer.name}` is called with {row.inputs} tensor{'s' * (row.inputs > 1)}, not {len(args)}.")
    values = [_attribute(layer, option, of_name) for option in row.options]
    keywords = {key: _attribute(layer, option, of_name) for key, option in row.keywords}
    if getattr(layer.skeleton, "inplace", False):
        keywords["inplace"] = True
    return operation(emit, row.function, (*args, *values), {key: v for key, v in keywords.items() if v is not None})


def computed_weights(emit: Emit, layer: LayerValue, tensor_of: Callable[[Weight], fx.Node]) -> dict[str, Value]:
    """Name → the tensor of each weight that is computed from others."""
    return {
        name: rule.call(emit, layer, [tensor_of(layer.weights[source]) for source in rule.sources])
        for name, rule in layer.computed.items()
    }


def _tensor(layer: LayerValue, tensor_of: Callable[[Weight], fx.Node], computed: Mapping[str, Value], name: str) -> Value:
    return computed[name] if name in computed else tensor_of(layer.weights[name])


def _attribute(layer: LayerValue, name: str, of_name: Callable[[str], Value]) -> Value:
    if name.startswith("'"):
        return name.strip("'")
    if name in layer.weights or name in layer.computed:
        if name in ("running_mean", "running_var") and _batch_statistics(layer):
            return None  # they would only be updated, which no output shows
        return of_name(name)
    if name in layer.tensor_options:
        return layer.tensor_options[name]
    if name == "training":
        return layer.training
    if name == "batch_statistics":
        return _batch_statistics(layer)
    value = getattr(layer.skeleton, name)
    if value is None and name == "momentum":  # a mean of all batches; only what is kept of them hangs on it
        return 0.0
    return None if isinstance(value, Tensor) else value


def _batch_statistics(layer: LayerValue) -> bool:
    """Whether a normalisation uses the batch's own mean and variance: in training, and where it keeps none."""
    return layer.training or "running_mean" not in layer.weights


def _whole(
    emit: Emit, layer: LayerValue, of_name: Callable[[str], Value], args: tuple[Value, ...], kwargs: Mapping[str, Value]
) -> Value:
    sources = {source for rule in layer.computed.values() for source in rule.sources}
    names = [*(name for name in layer.weights if name not in sources), *layer.computed]
    tensors = list(map(of_name, names))
    plain = [_argument(value) for value in args]
    named = {key: _argument(value) for key, value in kwargs.items()}
    target = fixed(run_whole, layer.skeleton, tuple(names), layer.training, tuple(named))
    return emit(f"nn.{layer.name}", target, (tensors, *plain, *named.values()), {}, random=True)


def _argument(value: Value) -> Value:
    static.members_in(value)
    if isinstance(value, list | tuple):
        return tuple(_argument(member) for member in value)
    return value


def run_whole(
    skeleton: nn.Module, names: tuple[str, ...], training: bool, keywords: tuple[str, ...], weights: list[Tensor], *values: Any
) -> Any:
    """PyTorch's own `forward` on other weights. Attention is computed by its plain formula, whose every derivative exists."""
    skeleton.train(training)
    cut = len(values) - len(keywords)
    named = dict(zip(keywords, values[cut:], strict=True))
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            result = torch.func.functional_call(skeleton, dict(zip(names, weights, strict=True)), values[:cut], named)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return result


def known(name: str) -> bool:
    """Whether the language has `nn.NAME`."""
    return name in LAYERS or name in WHOLE or name in OTHERS
