"""What a name can stand for besides tensors and plain values: functions, classes, their instances, PyTorch's names."""

from __future__ import annotations

import ast
from collections import Counter, deque
from collections.abc import Callable, Generator, ItemsView, Iterable, KeysView, ValuesView
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from app.program.reading.source import RaisedError, Refusal
from app.program.semantics.scopes import Scope

# Classes above one class, of which each keeps the order, so that a long tower would hold much memory. Pasted programs have 6 in all at most.
CLASSES_ABOVE: Final = 200
# Members that cost as much as one evaluated expression where a list of them is made.
WIDE: Final = 8


@dataclass(frozen=True, slots=True, eq=False)
class FunctionValue:
    """A `def` or a `lambda` of the program.

    Attributes:
        defaults: argument → its default, read where the function was defined.
        grad: what a decorator says of derivatives: False under `@torch.no_grad()`, None where none does.
        role: what it is in a class: `method`, `static`, `class` (its first argument is the class), `property` or `cached` (one that
            keeps its value).
        own: attributes that the program gave it (`f.calls = 0`).
        abstract: it stands under `@abstractmethod`.
    """

    name: str
    node: ast.FunctionDef | ast.Lambda
    scope: Scope
    defaults: dict[str, Any]
    grad: bool | None = None
    role: str = "method"
    answers: dict[Any, Any] | None = None  # under `lru_cache`: arguments → what it gave for them
    own: dict[str, Any] = field(default_factory=dict)
    abstract: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class ClassValue:
    """A `class` of the program.

    Attributes:
        bases: classes of the program that it extends.
        module: it extends `nn.Module`.
        own: methods and class attributes.
        fields: of a dataclass or a named tuple, in order; None for other classes.
        limited: field of a dataclass → `kw_only` (given by name alone) or `init` (not given at all).
        frozen: the attributes of its objects are not assigned.
        ordered: it stands under `@dataclass(order=True)`, or under `@total_ordering`.
        custom: it extends `torch.autograd.Function`.
        is_tuple: its objects are tuples, whose members have the names of `fields`.
        members: of an `Enum`, by name; None for other classes.
        builtin: the module of PyTorch (`Linear`, `Sequential`), Python's exception or `Enum` that it extends, "" where none.
        abstract: it extends `ABC`, so that no object of it is made while a method is abstract.
        asks: of a `Protocol`, the names that an object of it has; None for other classes.
    """

    name: str
    bases: tuple[ClassValue, ...]
    module: bool
    own: dict[str, Any]
    fields: tuple[str, ...] | None = None
    custom: bool = False
    is_tuple: bool = False
    members: dict[str, Instance] | None = None
    builtin: str = ""
    limited: dict[str, str] = field(default_factory=dict)
    frozen: bool = False
    abstract: bool = False
    ordered: bool = False
    asks: tuple[str, ...] | None = None

    # The class and those above it in the order in which Python looks into them: worked out once, where the class is made.
    order: tuple[ClassValue, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "order", (self, *_merged(self.name, self.bases)))

    def find(self, name: str) -> Any:
        """A method or attribute by Python's order of classes, or `MISSING`."""
        return next((kind.own[name] for kind in self.order if name in kind.own), MISSING)

    def left_open(self) -> list[str]:
        """Its abstract methods, for which Python makes no object of it."""
        if not self.abstract:
            return []
        open_ones = {
            name for kind in self.order for name, value in kind.own.items() if getattr(value, "abstract", False) is True
        }
        return sorted(name for name in open_ones if getattr(self.find(name), "abstract", False) is True)


def _merged(name: str, bases: tuple[ClassValue, ...]) -> list[ClassValue]:
    """The classes above `name` in their common order (C3, Python 2.3's and later)."""
    lines = [deque(base.order) for base in bases] + [deque(bases)]
    later = Counter(id(kind) for line in lines for kind in islice(line, 1, None))  # how often each stands behind another
    merged: list[ClassValue] = []
    while lines := [line for line in lines if line]:
        head = next((line[0] for line in lines if not later[id(line[0])]), None)
        if head is None:
            raise Refusal(f"The classes above `{name}` have no common order, so Python refuses it.", "Extend one of them.")
        if len(merged) >= CLASSES_ABOVE:
            raise Refusal(f"`{name}` stands below more than {CLASSES_ABOVE} classes.", "Extend fewer.", code="too_costly")
        merged.append(head)
        for line in lines:
            if line[0] is head:
                line.popleft()
                if line:
                    later[id(line[0])] -= 1
    return merged


class _Missing:
    """No value."""


MISSING: Final = _Missing()


@dataclass(slots=True, eq=False)
class Instance:
    """An object of a class of the program, or a container of modules (`nn.Sequential`, `nn.ModuleList`, `nn.ModuleDict`).

    Attributes:
        kind: the class, or the container's name.
        own: attributes; of a container its members, by their names in `state_dict`.
        training: as `train()` and `eval()` set it.
        parent: the module that holds it (None for a name of the program) and its name there.
        hooks, pre_hooks: functions that each call of it goes through, after and before its `forward`.
        backward_hooks: functions that a backward pass through it calls.
        layer: the module of PyTorch that it is besides, where its class extends one.
    """

    kind: ClassValue | str
    own: dict[str, Any] = field(default_factory=dict)
    training: bool = True
    parent: tuple[Any, str] | None = None
    hooks: list[Any] = field(default_factory=list)
    pre_hooks: list[Any] = field(default_factory=list)
    layer: Any = None
    backward_hooks: list[Any] = field(default_factory=list)

    @property
    def is_module(self) -> bool:
        return isinstance(self.kind, str) or self.kind.module

    def kind_is(self, container: str) -> bool:
        """Whether it is the container of modules of this name, or of a class that extends that."""
        return self.kind == container if isinstance(self.kind, str) else self.kind.builtin == container


@dataclass(frozen=True, slots=True, eq=False)
class Method:
    """`owner.name`, not yet called: a method of an instance, of a layer or of a tensor."""

    owner: Any
    name: str
    function: Any = None


def special(value: object, name: str) -> Method | None:
    """The method `name` (`__add__`, `__len__`) that the class of an object of the program has, bound to it; None where it has none."""
    if not isinstance(value, Instance) or not isinstance(value.kind, ClassValue):
        return None
    function = value.kind.find(name)
    return None if function is MISSING or function is None else Method(value, name, function)


# Enums whose members are numbers or strings.
PLAIN_ENUMS: Final = ("int or str Enum", "StrEnum")
# Python's views of a dict: what they show is what it holds when they are looked at.
VIEWS: Final = (KeysView, ValuesView, ItemsView)


def plain_member(value: Any) -> Any:
    """The number or string that a member of an `IntEnum` or a `(str, Enum)` is; any other value itself."""
    if isinstance(value, Instance) and isinstance(value.kind, ClassValue) and value.kind.builtin in PLAIN_ENUMS:
        return value.own["value"]
    return value


@dataclass(frozen=True, slots=True)
class Named:
    """A name of PyTorch, NumPy or math as a value: `act = torch.relu`, `import torch.nn as N`."""

    path: str


@dataclass(frozen=True, slots=True, eq=False)
class Partial:
    """`functools.partial(f, …)`."""

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Super:
    """`super()` inside a method."""

    instance: Instance
    above: tuple[ClassValue, ...]


@dataclass(frozen=True, slots=True)
class Inert:
    """What means nothing here and may stand all the same: an optimizer, a device, what an ignored line gave."""

    what: str


@dataclass(frozen=True, slots=True)
class ErrorValue(Inert):
    """An exception of Python's or PyTorch's own as a value: `ValueError("…")`, and what `except … as error` names.

    Attributes:
        raises: the name of its class.
        arguments: what it was made with; None where that is not known.
        error: what was raised, where it was.
    """

    raises: str
    arguments: tuple[Any, ...] | None = None
    error: RaisedError | None = None

    def attribute(self, name: str) -> Any:
        """`error.args`, and `stop.value` of what a generator returned; nothing is known of others."""
        if self.arguments is None or name not in ("args", "value"):
            return self
        return self.arguments if name == "args" else next(iter(self.arguments), None)


@dataclass(frozen=True, slots=True)
class Foreign:
    """A name of a package that is not here, or what a call of it gave.

    Attributes:
        silent: the package shows, logs or measures, so its calls are left out.
    """

    path: str
    silent: bool = False


# `enum.auto()`: the number of the member.
AUTO: Final = Inert("a number that Enum gives")


# `x.grad_fn` of what has one.
STEP: Final = Inert("a step of autograd")
# `torch.amp.GradScaler()`: here nothing underflows, so that it scales by 1.
SCALER: Final = Inert("a scaler")


# What `gradcheck` gives: it can be printed and asserted.
CHECKED: Final = Foreign("torch.autograd.gradcheck", silent=True)


class DefaultDict(dict):  # type: ignore[type-arg]
    """`collections.defaultdict`: `factory` gives what is missing."""

    factory: Any = None


class Iterator:
    """What gives its members one at a time, once: a generator expression, `zip`, `map`, `iter(values)`, `net.parameters()`.

    `dropped` is given a generator that stands at a `yield` when nothing of the program holds it any more.
    """

    __slots__ = ("_dropped", "_source")

    def __init__(self, source: Iterable[Any], dropped: Callable[[Any], None] | None = None) -> None:
        self._source, self._dropped = iter(source), dropped

    def __del__(self) -> None:
        if self._dropped is not None and isinstance(self._source, Generator) and self._source.gi_suspended:  # type: ignore[attr-defined]
            self._dropped(self._source)

    def __iter__(self) -> Iterator:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._source)
        except RecursionError:
            raise Refusal(
                "Generators are nested too deep here.", "Make lists in between: `list(…)`.", code="too_costly"
            ) from None

    def throw(self, error: Exception) -> Any:
        """Raises `error` where a generator of the program stands, and gives its next member."""
        return self._source.throw(error) if isinstance(self._source, Generator) else self._raised(error)

    def send(self, value: Any) -> Any:
        """The next member of a generator of the program, where `x = yield y` gives it `value`."""
        if isinstance(self._source, Generator):
            return self._source.send(value)
        if value is not None:
            raise Refusal("Only generators take what is sent to them.", "Write `next(values)`.", raises="AttributeError")
        return next(self)

    def close(self) -> None:
        """No member is given any more; a generator of the program leaves the `with` and `try` that it stands in."""
        if isinstance(self._source, Generator):
            close(self._source)
        self._source = iter(())

    def _raised(self, error: Exception) -> Any:
        raise error


def charged(groups: Iterable[Any], width: int, spend: Callable[[int], None]) -> Iterable[Any]:
    """`groups`, each of `width` members (`zip(*lists)`).

    Wide ones count as lists of that length do, and so does each list that is gone through.
    """
    if width < WIDE:
        return groups
    spend(width)
    return _charged(groups, width // WIDE, spend)


def _charged(groups: Iterable[Any], cost: int, spend: Callable[[int], None]) -> Generator[Any]:
    for group in groups:
        spend(cost)
        yield group


def unchanged(value: Any, what: str) -> Generator[Any]:
    """The members of what may not grow or shrink while a loop goes through it; `what` it is, in words."""
    end, size, members = object(), len(value), iter(value)
    while True:
        try:
            member = next(members, end) if len(value) == size else None
        except RuntimeError:  # other keys, as many
            size = -1
        if len(value) != size:
            raise Refusal(
                f"The loop that goes through {what} changes it, and Python refuses to go on.",
                "Go through a copy: `for member in list(values):`.",
                raises="RuntimeError",
            )
        if member is end:
            return
        yield member


def close(generator: Generator[Any, Any, Any]) -> None:
    """Ends a generator where it stands: its `__exit__` and `finally` run. Raises what they raise."""
    error = RaisedError("bad_program", "A generator is closed here.")
    error.raises = "GeneratorExit"
    try:
        generator.throw(error)
    except StopIteration:
        return
    except RaisedError as other:
        if other is not error:
            raise
        return
    raise Refusal("A generator that is closed yields nothing more.", "Leave out `yield` there.", raises="RuntimeError")


@dataclass(frozen=True, slots=True, eq=False)
class ContextValue:
    """What a `with` may enter: `torch.no_grad()`, `nullcontext(x)`, a call of a function under `@contextmanager`.

    Attributes:
        path: PyTorch's or Python's name, or that of the function.
        args: what it was given.
        members: what the function yields; None for other names.
    """

    path: str
    args: tuple[Any, ...] = ()
    members: Iterator | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Begun:
    """`dataclasses.field(default_factory=f)`: `f()` gives a field its first value."""

    factory: Any


class Unreadable:
    """What a line that could not be read would have bound; reading it says nothing new."""


UNREADABLE: Final = Unreadable()
