"""What the name before a bracket means: a builtin, a maker of tensors, arithmetic on plain numbers, an operation; or a list's method.

Knows the order in which these are tried. Refuses to know how arguments are read from the text.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Final

import torch

from app.catalogue.call import target
from app.program.library import attributes as tensors
from app.program.library import builtins, factories
from app.program.library.lookup import call, lookup, unknown
from app.program.reading.source import Refusal
from app.program.semantics import static
from app.program.semantics.static import named
from app.program.semantics.trace import Emit, Several, Trace, Value, is_tensor

Called = Callable[[tuple[Value, ...], dict[str, Value]], Value]
_LIST_METHODS: Final = ("append", "extend", "insert", "pop", "reverse")


class Calls:
    """Calls in one program.

    Attributes:
        names: the program's own names, which may shadow operations.
        builtins: Python's functions over the same trace.
    """

    def __init__(self, trace: Trace, names: Mapping[str, Value], dtype: torch.dtype, device: torch.device | None) -> None:
        self.names = names
        self.builtins = builtins.Builtins(trace, self.operation)
        self._trace, self._dtype, self._device = trace, dtype, device

    def resolve(self, name: str, emit: Emit) -> Called:
        """What a call of `name` does: a function of (args, kwargs). Raises a refusal where `name` means nothing here."""
        if name in self.builtins.table:
            return functools.partial(self.builtins.table[name], emit)
        base = name.removeprefix("torch.")
        if base in ("detach", "stop_gradient"):
            return functools.partial(_detached, emit)
        if base in factories.FACTORIES or base in factories.ALIASES:
            return functools.partial(self._made, emit, base)
        refusal = builtins.refused(name)
        if refusal:
            raise refusal
        short = base.removeprefix("math.")
        meant = short if name.startswith("math.") else name
        if short in static.MATH:
            return functools.partial(self._math, emit, short, meant)
        if lookup(meant) is None:
            if base.endswith("_") and lookup(base[:-1]):
                raise Refusal(
                    f"`{name}` changes its argument in place, and values here never change.", f"Assign: `x = {base[:-1]}(x)`."
                )
            raise unknown(name, tuple(self.names))
        return functools.partial(self.operation, emit, meant)

    def operation(self, emit: Emit, name: str, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> Value:
        """The step that calls the operation `name`."""
        found = lookup(name)
        if found is None:
            raise unknown(name, tuple(self.names))
        return call(emit, found, target(found), name, args, kwargs)

    def method(self, emit: Emit, owner: Value, name: str, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        """`owner.name(*args, **kwargs)`."""
        if is_tensor(owner):
            return tensors.method(emit, owner, name, args, kwargs, self._dtype)
        if isinstance(owner, Several):
            raise Refusal(
                f"`{owner.operation}` gives several tensors, so `.{name}()` has none to work on.",
                f"Take {builtins.parts_of(owner)} first.",
            )
        if isinstance(owner, list) and name in _LIST_METHODS:
            return self._change_list(emit, owner, name, args, kwargs)
        if isinstance(owner, list | tuple) and name in ("index", "count") and len(args) == 1:
            static.plain([owner, args[0]])
            return static.computed(lambda: getattr(owner, name)(args[0]), what=f"`.{name}()`")
        if isinstance(owner, tuple) and name == "numel" and not args:
            return functools.reduce(functools.partial(static.binary, "*"), owner, 1)
        if isinstance(owner, dict) and name in ("keys", "values", "items") and not args:
            return [tuple(pair) for pair in owner.items()] if name == "items" else list(getattr(owner, name)())
        if isinstance(owner, str):
            raise Refusal(f"`.{name}()` of a string is not in the language.", "Strings are only modes and keys.")
        raise Refusal(
            f"{named(owner).capitalize()} has no `.{name}()` here.", "Methods belong to tensors; `tensor(2.0)` makes one."
        )

    def _made(self, emit: Emit, name: str, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        return factories.made(emit, name, args, kwargs, self._dtype, self._device, real=not self._trace.static)

    def _math(self, emit: Emit, short: str, meant: str, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        if args and not kwargs and all(static.is_number(value) for value in args):
            return static.bounded(static.computed(static.MATH[short], *args, what=f"`{meant}`"))
        return self.operation(emit, meant, args, kwargs)

    def _change_list(
        self, emit: Emit, owner: list[Value], name: str, args: tuple[Value, ...], kwargs: dict[str, Value]
    ) -> Value:
        if kwargs:
            raise Refusal(f"`.{name}()` takes no keyword arguments.")
        if name == "extend" and len(args) == 1:
            args = (self.builtins.items(emit, args[0]),)
        static.check_length(len(owner) + (len(args[0]) if name == "extend" and args else 1))
        return static.computed(lambda: getattr(owner, name)(*args), what=f"`.{name}()`")


def _detached(emit: Emit, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
    if len(args) != 1 or kwargs:
        raise Refusal("`detach` takes one tensor.")
    return emit("detach", torch.Tensor.detach, args, {}) if is_tensor(args[0]) else args[0]
