"""The one place that turns an entry of the catalogue into PyTorch's public function and calls it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import torch
import torch.nn.utils.rnn
from torch import Tensor

from app.catalogue.better.mixed_powers import power
from app.catalogue.better_rules import BETTER
from app.catalogue.bind import Bound, Leaf
from app.catalogue.entry import Operation
from app.catalogue.kernels.guard import install
from app.catalogue.kernels.rounds import limited
from app.catalogue.operator_mode import OperatorMode
from app.errors import PullbackError
from app.query import DTYPE_BYTES

DTYPES: Final[dict[str, torch.dtype]] = {name: getattr(torch, name) for name in DTYPE_BYTES}
install()  # here, because whoever can call an operation has imported this module

# Arguments of drawing kernels that switch the drawing off when they are zero or false.
_SWITCHES: Final = ("dropout_p", "training", "train")


def target(operation: Operation) -> Callable[..., Any]:
    """PyTorch's public function behind `operation`, or what stands in its place; for an attribute of tensors (`mT`), its getter.

    Raises:
        PullbackError: `unknown_operation` where this PyTorch does not have it.
    """
    return BETTER.get(operation.path) or _walk(operation.path)


def called(operation: Operation) -> Callable[..., Any]:
    """`target`, or what stands in its place for tensors of some dtypes, where these are not known yet. Raises as `target`."""
    return power if operation.path == "pow" else target(operation)


@lru_cache(maxsize=4096)
def _walk(path: str) -> Callable[..., Any]:
    target: Any = torch
    for part in path.split("."):
        target = getattr(target, part, None)
    if target is None:
        raise PullbackError("unknown_operation", f"This server's PyTorch {torch.__version__} has no `{path}`.", at="operation")
    getter: Callable[..., Any] = target if callable(target) else target.__get__
    return limited(path, getter)


def invoke(bound: Bound, leaves: Mapping[str, Tensor]) -> Any:
    """What PyTorch's public function gives for `bound` on these tensors; its exceptions pass.

    Arguments:
        leaves: leaf name (`input`, `tensors.0`) → tensor.
    """
    names = tuple(leaves)
    return prepared(bound, names)(*leaves.values())


def prepared(bound: Bound, names: Sequence[str], *, public: bool = False) -> Callable[..., Any]:
    """The call as a function of its tensors, in the order of `names`. Made once, run often.

    Arguments:
        public: PyTorch's own function, also where another stands in its place.
    """
    function = _walk(bound.operation.path) if public else called(bound.operation)
    positions = {name: index for index, name in enumerate(names)}
    args, kwargs = _values(bound)
    leading = [positions[value] for value in args if isinstance(value, Leaf)]
    simple = not bound.copied and bound.operation.call in ("function", "method") and not any(map(_holds_leaf, kwargs.values()))
    if simple and leading == list(range(len(names))) and not any(map(_holds_leaf, args[len(leading) :])):
        constants = tuple(args[len(leading) :])
        return lambda *leaves: function(*leaves, *constants, **kwargs)

    def call(*leaves: Tensor) -> Any:
        def leaf(name: str) -> Tensor:
            tensor = leaves[positions[name]]
            return tensor.clone() if name in bound.copied else tensor

        positional, named = _filled(bound.operation.call, args, kwargs, leaf)
        return function(*positional, **named)

    return call


def arguments(bound: Bound, leaf: Callable[[str], Any]) -> tuple[Sequence[Any], dict[str, Any]]:
    """Positional and keyword arguments for PyTorch's function, with `leaf(name)` in the place of each tensor."""
    args, kwargs = _values(bound)
    return _filled(bound.operation.call, args, kwargs, leaf)


def _values(bound: Bound) -> tuple[list[Any], dict[str, Any]]:
    kinds = {argument.name: argument.kind for argument in bound.signature.arguments}
    args = [_plain(value, argument.kind) for value, argument in zip(bound.args, bound.signature.arguments, strict=False)]
    return args, {name: _plain(value, kinds[name]) for name, value in bound.kwargs.items()}


def _filled(
    call: str, args: list[Any], kwargs: dict[str, Any], leaf: Callable[[str], Any]
) -> tuple[Sequence[Any], dict[str, Any]]:
    def filled(value: Any) -> Any:
        if isinstance(value, Leaf):
            return leaf(value)
        if isinstance(value, tuple) and value and isinstance(value[0], Leaf):
            return [leaf(member) for member in value]
        return value

    positional = [filled(value) for value in args]
    return _spread(call, positional), {name: filled(value) for name, value in kwargs.items()}


def _spread(call: str, args: list[Any]) -> Sequence[Any]:
    if call == "variadic":
        return (*args[0], *args[1:])
    if call == "equation":
        return (args[0], *args[1], *args[2:])
    return args


def _holds_leaf(value: Any) -> bool:
    return isinstance(value, Leaf) or (isinstance(value, tuple) and any(isinstance(member, Leaf) for member in value))


def _plain(value: Any, kind: str) -> Any:
    if kind == "dtype" and value is not None:
        return DTYPES[value]
    return list(value) if kind in ("integers", "numbers", "booleans") and isinstance(value, tuple) else value


class Drawing(OperatorMode):
    """Sees whether a kernel draws random numbers, so that dropout with `training: false` needs no seed."""

    only_counts = True

    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def dispatch(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags and not self.seen:
            self.seen = _draws(func, args, kwargs)
        return func(*args, **kwargs)


def _draws(func: Any, args: Any, kwargs: Any) -> bool:
    for index, argument in enumerate(func._schema.arguments):
        if argument.name in _SWITCHES:
            value = args[index] if index < len(args) else kwargs.get(argument.name, argument.default_value)
            if not value:
                return False
    return True
