"""What a step gives and costs, by the geometries of its tensors: looked up where the numbers in them have no say in it."""

from __future__ import annotations

import functools
import operator
import warnings
from contextlib import ExitStack
from typing import Any, Final, NamedTuple, cast
from weakref import WeakValueDictionary

import torch
from torch import Tensor, fx
from torch.nn import functional

from app.engine.planning.bounded_counter import BoundedCounter, UnboundedError
from app.engine.planning.cost import Scratch, value_bytes
from app.engine.planning.replay.attention import is_self_attention
from app.engine.planning.replay.counted_kernels import Direct
from app.engine.planning.replay.direct_steps import direct
from app.engine.planning.replay.geometries import Geometry, forms, geometries, on_identities, on_zeros, sketched
from app.program.graph_runner import floating_default
from app.program.modules.layers import run_whole
from app.program.resized import Arguments
from app.program.semantics.sizes import Size

# 3 MB, 256 plans of the median pasted program (16 steps), 30 of the largest 5% (135); beyond, all are forgotten: some µs a step.
_LIMIT: Final = 4096
# Of arguments of a call, and tensors that it makes, that are remembered: a text may have thousands. Pasted programs' calls have 24 at most.
_MEMBERS: Final = 64
_LENGTH: Final = 64  # of a text among them, and bits of a whole number
# What an argument may be, besides tensors, lists and slices.
_PLAIN: Final = (int, float, bool, str, type(None), type(...), torch.dtype, torch.device, torch.memory_format, torch.layout)
# Names of functions of `torch` that are methods of tensors too, and of methods alone, that stand in the set below.
_OF_BOTH: Final = (
    "tanh", "exp", "log", "sin", "cos", "sqrt", "sigmoid", "relu", "sum", "mean", "abs", "neg", "log1p", "expm1", "erf",
    "softmax", "log_softmax", "logsumexp", "matmul", "mm", "mv", "dot", "bmm", "outer", "add", "sub", "mul", "div", "pow",
    "square", "tril", "triu", "masked_fill", "trace", "transpose", "permute", "t", "unsqueeze", "squeeze", "flatten", "reshape",
    "split", "chunk", "unbind", "where", "eq", "ne", "lt", "le", "gt", "ge", "maximum", "minimum", "amax", "amin", "var", "std",
    "prod", "cumsum", "norm", "clamp", "flip", "diagonal", "roll", "sinh", "cosh", "atan", "rsqrt", "reciprocal",
)  # fmt: skip
_OF_TENSORS: Final = ("view", "contiguous", "expand", "repeat", "view_as", "reshape_as", "expand_as", "clone")
# What a mode watches and no number decides: neither how much is made, nor whether PyTorch refuses it. They draw nothing, write into nothing
# and do not ask whether two of their tensors are one. By function, as a graph has them: makers are no operations of the catalogue.
_WATCHED: Final = frozenset(
    {
        *(operator.matmul, operator.add, operator.sub, operator.mul, operator.truediv, operator.pow, operator.neg, operator.getitem),
        *(operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge),
        *(functional.linear, functional.layer_norm, functional.conv1d, functional.conv2d, functional.conv3d, functional.avg_pool2d),
        *(functional.max_pool1d, functional.max_pool2d, functional.mse_loss, functional.l1_loss, functional.smooth_l1_loss),
        *(functional.huber_loss, functional.gelu, functional.relu, functional.silu, functional.elu, functional.leaky_relu),
        *(functional.softplus, functional.softmax, functional.log_softmax, functional.logsigmoid, functional.normalize, functional.pad),
        *(torch.ones, torch.zeros, torch.full, torch.eye, torch.arange, torch.linspace, torch.ones_like, torch.zeros_like),
        *(torch.cat, torch.stack, torch.diag, torch.einsum, torch.conv1d, torch.conv2d, torch.conv3d),
        *(getattr(torch, name) for name in _OF_BOTH),
        *(getattr(Tensor, name) for name in (*_OF_BOTH, *_OF_TENSORS)),
    }
)  # fmt: skip
# Of numbers these refuse singular matrices, in the words that the computation has for them, and nothing else: planned on the identity.
_OF_REGULAR_MATRICES: Final = frozenset(
    {
        *(torch.linalg.inv, torch.inverse, Tensor.inverse, torch.linalg.solve, torch.linalg.cholesky, Tensor.cholesky, torch.cholesky),
        *(torch.linalg.det, torch.det, Tensor.det, torch.linalg.slogdet, torch.slogdet, Tensor.slogdet, torch.logdet, Tensor.logdet),
    }
)  # fmt: skip


class StepCost(NamedTuple):
    """What a step gives for tensors of some geometries.

    Attributes:
        geometry: of its results; form: their ranks and dtypes.
        flops, bytes, largest, scratch: as a Counter counts them; needed: as a BoundedCounter.
        value_bytes: of the results together.
    """

    geometry: Any
    form: Any
    flops: float
    bytes: int
    largest: int
    scratch: Scratch
    needed: int
    value_bytes: int


class Call:
    """What is called, and with what besides tensors; equal ones are one object."""

    __slots__ = ("__weakref__", "key")

    def __init__(self, key: Any) -> None:
        self.key = key


_calls: WeakValueDictionary[Any, Call] = WeakValueDictionary()
_TRIAL: Final = BoundedCounter()  # to make another for each step takes longer than to count a small one
# By a call, and the geometries of its tensors with the numbers in it that come of sizes.
known: dict[Any, StepCost] = {}


def call_of(node: fx.Node, dtype: torch.dtype, sized: Arguments | None) -> Call | None:
    """The call that a node makes under a default dtype; None where numbers in its tensors may decide what it gives or costs.

    `sized`: its arguments, where numbers among them come of sizes: these are no part of the call.
    """
    target = _attention(node)
    if target is None and (direct(node) is not None or _is_watched(node)):
        target = node.target
    if target is None:
        return None
    positions = {source: position for position, source in enumerate(node.all_input_nodes)}
    args, kwargs = (node.args, node.kwargs) if sized is None else sized
    try:
        key = target, _plain(args, positions), _plain(kwargs, positions), dtype
    except TypeError:  # with something that is no plain value, or too much of it
        return None
    if _members(key) > _MEMBERS * 4:  # each with its type, and the target's own
        return None
    same = _calls.get(key)
    if same is None:
        _calls[key] = same = Call(key)
    return same


def _is_watched(node: fx.Node) -> bool:
    """Of floating tensors, or of the truth values that comparing them gives."""
    values = [source.meta["val"] for source in node.all_input_nodes]
    return (
        (node.target in _WATCHED or node.target in _OF_REGULAR_MATRICES)
        and (node.target is not operator.getitem or isinstance(values[0], Tensor))
        and not any(isinstance(index, fx.Node) for index in _index(node))
        and all(_is_floating(value) or (isinstance(value, Tensor) and value.dtype is torch.bool) for value in values)
        and _is_of_tensors(node.meta["val"])
    )


def _attention(node: fx.Node) -> Any:
    """What stands for PyTorch's own attention of a tensor to itself; None where the node is none of it."""
    if not (is_self_attention(node) and _is_of_tensors(node.meta["val"])):
        return None
    skeleton, *more = cast("functools.partial[Any]", node.target).args
    options = [(name, type(value), value) for name, value in vars(skeleton).items() if type(value) in _PLAIN]
    present = [name for name, _ in skeleton.named_parameters()]
    return run_whole, tuple(options), tuple(present), *more


def _index(node: fx.Node) -> tuple[Any, ...]:
    """Of `x[index]`: by a mask or by numbers of elements, numbers decide."""
    if node.target is not operator.getitem:
        return ()
    parts = node.args[1] if isinstance(node.args[1], tuple) else (node.args[1],)
    return tuple(part for part in parts if not isinstance(part, slice))


def _is_of_tensors(value: Any) -> bool:
    return isinstance(value, Tensor) or (
        isinstance(value, tuple | list) and all(isinstance(member, Tensor) for member in value)
    )


def _is_floating(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.is_floating_point()
    return isinstance(value, tuple | list) and all(map(_is_floating, value))


def _plain(value: Any, positions: dict[fx.Node, int]) -> Any:
    """An argument as a part of a key: 1, 1.0 and True are three."""
    kind = type(value)
    if kind is fx.Node:
        return fx.Node, positions[value]
    if kind is Size:
        return Size, type(value.value)
    if kind in _PLAIN:
        if (kind is str and len(value) > _LENGTH) or (kind is int and value.bit_length() > _LENGTH):
            raise TypeError("too long")
        return kind, value
    if isinstance(value, list | tuple | dict) and len(value) > _MEMBERS:
        raise TypeError("too many")
    if isinstance(value, list | tuple):
        return kind, *[_plain(member, positions) for member in value]
    if isinstance(value, dict):
        return kind, *[(name, _plain(member, positions)) for name, member in value.items()]
    if kind is slice:
        return slice, *[_plain(part, positions) for part in (value.start, value.stop, value.step)]
    raise TypeError(str(kind))


def _are_few(geometries_: Any) -> bool:
    return type(geometries_) is not tuple or _members(geometries_) <= _MEMBERS


def _members(key: Any) -> int:
    return sum([_members(member) if isinstance(member, tuple) else 1 for member in key])


class Quietly:
    """PyTorch as a plan calls it: without gradients and warnings, with the default dtype of the Function; from the first call on, for most
    plans call nothing and this takes 15 µs."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._stack: ExitStack | None = None

    def begin(self) -> None:
        if self._stack is None:
            self._stack = ExitStack()
            self._stack.enter_context(torch.no_grad())
            self._stack.enter_context(floating_default(self._dtype))
            self._stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")

    def __enter__(self) -> Quietly:
        return self

    def __exit__(self, *_: object) -> None:
        if self._stack is not None:
            self._stack.close()


def run(directly: Direct | None, node: fx.Node, counter: BoundedCounter, arguments: Arguments) -> Any:
    """What a step gives of these tensors, counted; `directly`: how it is counted without a mode, where it can be."""
    args, kwargs = arguments
    if directly is not None and directly(counter, sketched(args), sketched(kwargs)) is not NotImplemented:
        return node.target(*args, **kwargs)  # type: ignore[operator]
    with counter:
        return node.target(*args, **kwargs)  # type: ignore[operator]


def reckon(directly: Direct | None, node: fx.Node, counter: BoundedCounter, arguments: Arguments, quietly: Quietly) -> Any:
    """The geometry of what a step gives, counted; geometries stand in the place of tensors."""
    result = NotImplemented if directly is None else directly(counter, *arguments)
    if result is NotImplemented:
        quietly.begin()
        args, kwargs = (on_identities if node.target in _OF_REGULAR_MATRICES else on_zeros)(arguments)
        with counter:
            result = node.target(*args, **kwargs)  # type: ignore[operator]
        result = geometries(result)
    return result


def learn(key: Any, directly: Direct | None, node: fx.Node, arguments: Arguments, quietly: Quietly) -> StepCost:
    """What a step costs and gives, kept as `known[key]`.

    Arguments:
        key: its call, and the geometries of its tensors, with the numbers in it that come of sizes.
        arguments: as it is called, with geometries in the place of tensors.

    Raises:
        UnboundedError: it may make much, or reads a number; whatever PyTorch has against the call.
    """
    trial = _TRIAL
    trial.restart()
    geometry = reckon(directly, node, trial, arguments, quietly)
    if trial.has_read:
        raise UnboundedError(str(node.target))
    counts = trial.flops, trial.bytes, trial.largest, trial.scratch, trial.needed
    if type(geometry) is Geometry and node.target is not operator.getitem:
        cost = StepCost(geometry, geometry.form, *counts, geometry.bytes)
    else:
        cost = StepCost(geometry, forms(geometry), *counts, value_bytes(node, geometry))
    if _are_few(geometry) and _are_few(key[1]):
        if len(known) >= _LIMIT:
            known.clear()
        known[key] = cost
    return cost
