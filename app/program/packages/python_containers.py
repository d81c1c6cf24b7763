"""Python's containers beside lists and dicts: `deque`, `Counter`, `SimpleNamespace`, and the functions of `operator`."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import torch

from app.program.classes import standard_library
from app.program.packages import itertools_functions
from app.program.reading.source import Refusal
from app.program.semantics import static
from app.program.semantics.graph_values import Value
from app.program.semantics.values import AUTO, ClassValue, Instance, Iterator

Called = Callable[[tuple[Value, ...], dict[str, Value]], Value]
Invoke = Callable[[Value, tuple[Value, ...], dict[str, Value]], Value]
_NAMESPACE: Final = ClassValue("SimpleNamespace", (), module=False, own={}, builtin="namespace")
# Functions of `operator`, by the signs that they are.
_OPERATORS: Final = {
    "add": "+", "sub": "-", "mul": "*", "truediv": "/", "floordiv": "//", "mod": "%", "pow": "**", "matmul": "@", "lt": "<", "le": "<=", "gt": ">",
    "ge": ">=", "eq": "==", "ne": "!=", "and_": "&", "or_": "|", "xor": "^", "iadd": "+", "imul": "*",
}  # fmt: skip


_PYTHON_TYPES: Final = {torch.float64: float, torch.float32: float, torch.int64: int, torch.bool: bool}


class Deque(list):  # type: ignore[type-arg]
    """`collections.deque`: a list that drops what is too much on its other side."""

    limit: int | None = None

    def __copy__(self) -> Deque:
        other = Deque(self)
        other.limit = self.limit
        return other

    def append(self, member: Any) -> None:
        super().append(member)
        self._shortened(0)

    def extend(self, members: Iterable[Any]) -> None:
        super().extend(members)
        self._shortened(0)

    def appendleft(self, member: Any) -> None:
        self.insert(0, member)
        self._shortened(-1)

    def extendleft(self, members: Iterable[Any]) -> None:
        for member in members:
            self.appendleft(member)

    def popleft(self) -> Any:
        return self.pop(0)

    def rotate(self, steps: int = 1) -> None:
        if self:
            cut = -steps % len(self)
            self[:] = self[cut:] + self[:cut]

    def _shortened(self, side: int) -> None:
        while self.limit is not None and len(self) > self.limit:
            del self[side]


_CHANGING: Final = ("append", "extend", "insert", "pop", "reverse", "clear", "appendleft", "extendleft", "popleft", "rotate")
LIST_METHODS: Final = (*_CHANGING, "remove", "index", "count", "copy", "sort")


def list_method(
    items: Callable[[Value], list[Value]],
    ordered: Callable[[list[Value], dict[str, Value]], list[Value]],
    owner: Any,
    name: str,
    args: tuple[Value, ...],
    kwargs: dict[str, Value],
    spend: Callable[[int], None],
) -> Value:
    """`owner.name(*args)` of a list, a tuple or a deque. `spend` counts what goes through it."""
    is_search = name in ("index", "count", "remove")
    if name not in ("append", "pop", "popleft"):
        spend(1 + len(owner) // (2 if is_search else 8))  # a member that is compared takes 2 µs, four times what is copied
    if name == "sort" and isinstance(owner, list):
        owner[:] = ordered(list(owner), kwargs)
        return None
    if kwargs:
        raise Refusal(f"`.{name}()` takes no keyword arguments.")
    if is_search and len(args) == 1:
        places = (index for index, member in enumerate(owner) if _is_same(member, args[0]))
        if name == "count":
            return sum(1 for _ in places)
        place = next(places, None)
        if place is None:
            raise Refusal("The list does not hold this value.", raises="ValueError")
        if name == "index":
            return place
        del owner[place]
        return None
    if isinstance(owner, tuple):
        raise Refusal(f"A tuple has no `.{name}()`.", "Make a list of it: `list(values)`.", raises="AttributeError")
    if name == "copy":
        return copy.copy(owner)
    if name in ("extend", "extendleft") and len(args) == 1:
        args = (items(args[0]),)
    static.check_length(len(owner) + (len(args[0]) if name in ("extend", "extendleft") and args else 1))
    return static.computed(lambda: getattr(owner, name)(*args), what=f"`.{name}()`")


def _is_same(member: Value, value: Value) -> bool:
    """Whether a list holds `value` as this member: the same object, or an equal plain value."""
    if member is value:
        return True
    if isinstance(member, Instance) or isinstance(value, Instance):
        return False
    static.plain([member, value])
    return bool(member == value)


def dict_method(
    items: Callable[[Value], list[Value]],
    owner: dict[Any, Value],
    name: str,
    args: tuple[Value, ...],
    kwargs: dict[str, Value],
    spend: Callable[[int], None],
) -> Value:
    """`owner.name(*args)` of a dict. `spend` counts what goes through it."""
    if name in ("get", "pop", "setdefault") and args:
        static.key(args[0], spend)
    if name in ("copy", "most_common"):
        spend(1 + len(owner) // 8)
    if isinstance(owner, Counter) and name in ("update", "subtract"):
        return counted(items, owner, name, args, kwargs)
    if name in ("keys", "values", "items") and not args:
        return getattr(owner, name)()  # what the dict holds when they are gone through
    if name == "get" and args:
        return owner.get(args[0], args[1] if len(args) > 1 else None)
    if name == "pop" and len(args) == 1 and args[0] not in owner:
        raise Refusal("The dict has no such key.", f"Its keys are {', '.join(map(str, list(owner)[:20]))}.", raises="KeyError")
    if name in ("pop", "setdefault") and args:
        return static.computed(lambda: getattr(owner, name)(*args), what=f"`.{name}()`")
    if name == "update":
        more = args[0] if args and isinstance(args[0], dict) else _entries(items(args[0]) if args else [], spend)
        static.check_length(len(owner) + len(more) + len(kwargs))
        spend(1 + (len(more) + len(kwargs)) // 8)
        owner.update({**more, **kwargs})
        return None
    if name == "most_common" and all(isinstance(count, int) for count in owner.values()):
        return sorted(owner.items(), key=lambda pair: -pair[1])[: args[0] if args else None]
    if name == "copy":
        return copy.copy(owner)
    if name == "clear":
        return owner.clear()
    last = bool(kwargs.get("last", args[-1] if len(args) == (name == "move_to_end") + 1 else True))
    if name == "popitem" and owner:
        key = next(reversed(owner) if last else iter(owner))
        return key, owner.pop(key)
    if name == "move_to_end" and args and static.key(args[0], spend) in owner:
        spend(1 + len(owner) // 8)
        moved = {args[0]: owner.pop(args[0])}
        members = {**owner, **moved} if last else {**moved, **owner}
        owner.clear()
        return dict.update(owner, members)
    if isinstance(owner, Counter) and name in ("total", "elements"):
        static.plain(list(owner.values()))
        total = static.check_length(owner.total())
        return total if name == "total" else Iterator(owner.elements())
    raise Refusal(f"A dict has no `.{name}()` here.")


def _entries(pairs: Iterable[Value], spend: Callable[[int], None]) -> dict[Any, Value]:
    """The dict of these pairs of a key and a value."""
    entries: dict[Any, Value] = {}
    for pair in pairs:
        if not isinstance(pair, list | tuple | str) or len(pair) != 2:
            raise Refusal("A dict is made of pairs of a key and a value.", "Write `{key: value}`.", raises="ValueError")
        entries[static.key(pair[0], spend)] = pair[1]
    return entries


def counted(
    items: Callable[[Value], list[Value]], counter: Counter[Any], name: str, args: tuple[Value, ...], kwargs: dict[str, Value]
) -> None:
    """`counter.update(members)`: adds how often each is there, or the counts of a dict."""
    counts = args[0] if args and isinstance(args[0], dict) else items(args[0]) if args else []
    static.plain([*counts, *(counts.values() if isinstance(counts, dict) else ()), *kwargs.values()])
    static.check_length(len(counter) + len(counts) + len(kwargs))
    static.computed(lambda: getattr(counter, name)(counts, **kwargs), what=f"`Counter.{name}`")


@dataclass(frozen=True, slots=True, eq=False)
class Getter:
    """`operator.itemgetter(1)`, `operator.attrgetter("name")`."""

    keys: tuple[Value, ...]
    is_attribute: bool


class Parser:
    """`argparse.ArgumentParser()`: nobody is at a command line here, so that every argument has its default."""

    def __init__(self, invoke: Invoke) -> None:
        self._invoke = invoke
        self.defaults: dict[str, Value] = {}
        self.set: dict[str, Value] = {}  # by `set_defaults`, which goes before those of the arguments

    def call(self, name: str, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        """A method of it. Raises a refusal where an argument has to be given."""
        if name in ("add_argument_group", "add_mutually_exclusive_group"):
            return self
        if name in ("parse_args", "parse_known_args"):
            if any(value not in ([], (), None) for value in (*args, *kwargs.values())):
                raise Refusal(
                    f"`.{name}` with arguments is not in the language.", f"Give them as `default=…` and write `.{name}([])`."
                )
            namespace = Instance(_NAMESPACE, self.defaults | self.set)
            return namespace if name == "parse_args" else (namespace, [])
        if name == "set_defaults":
            self.set.update(kwargs)
            return None
        if name != "add_argument" or not all(isinstance(flag, str) for flag in args):
            raise Refusal(f"An argument parser has no `.{name}()` here.", "It has `add_argument` and `parse_args`.")
        flag = next((flag for flag in args if flag.startswith("--")), args[0] if args else "")
        key = kwargs.get("dest", flag.lstrip("-").replace("-", "_"))
        begins = {"store_true": False, "store_false": True, "count": 0}.get(kwargs.get("action", ""))
        if kwargs.get("required") or (flag and not flag.startswith("-") and "default" not in kwargs and "nargs" not in kwargs):
            raise Refusal(
                f"The argument `{flag}` has no default, and there is no command line here.", "Give it one: `default=…`."
            )
        default = kwargs.get("default", begins)
        if isinstance(default, str) and "type" in kwargs:
            kind = kwargs["type"]  # `float` and `int` are dtypes as values
            python = _PYTHON_TYPES.get(kind) if isinstance(kind, torch.dtype) else None
            default = static.computed(python, default, what="`type`") if python else self._invoke(kind, (default,), {})
        self.defaults[key] = default
        self.set.pop(key, None) if "default" in kwargs else None
        return None


def _of_dataclass(args: tuple[Value, ...]) -> Instance:
    if not args or not isinstance(args[0], Instance) or not isinstance(args[0].kind, ClassValue) or args[0].kind.fields is None:
        raise Refusal("This takes an object of a dataclass.")
    return args[0]


def _fields(args: tuple[Value, ...]) -> dict[str, Value]:
    value = _of_dataclass(args)
    return {name: value.own[name] for name in value.kind.fields or ()}  # type: ignore[union-attr]


class Containers:
    """Makes them; `items` goes through values, `operate` is an operator on any two of them."""

    def __init__(self, invoke: Invoke, items: Callable[[Value], list[Value]], operate: Callable[..., Value]) -> None:
        self._invoke, self._items, self._operate = invoke, items, operate

    def resolve(self, short: str) -> Called | None:
        """What a call of one of their names does, or None."""
        root, _, name = short.rpartition(".")
        if name in ("deque", "Counter") and root in ("", "collections"):
            return self._deque if name == "deque" else self._counter
        if short in ("types.SimpleNamespace", "SimpleNamespace", "argparse.Namespace"):
            return lambda args, kwargs: Instance(_NAMESPACE, dict(kwargs))
        if short == "argparse.ArgumentParser":
            return lambda args, kwargs: Parser(self._invoke)
        if root == "dataclasses" and name in ("replace", "asdict", "astuple"):
            return getattr(self, f"_{name}")  # type: ignore[no-any-return]
        if short in ("enum.auto", "auto"):
            return lambda args, kwargs: AUTO
        if root == "operator":
            return self._operator(name)
        return None

    def _deque(self, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Deque:
        limit = kwargs.get("maxlen", args[1] if len(args) > 1 else None)
        deque = Deque()
        deque.limit = None if limit is None else static.integer(limit, "`maxlen`")
        deque.extend(self._items(args[0]) if args else [])
        return deque

    def _counter(self, args: tuple[Value, ...], kwargs: dict[str, Value]) -> dict[Any, int]:
        counter: Counter[Any] = Counter()
        counted(self._items, counter, "update", args, kwargs)
        return counter

    def _operator(self, name: str) -> Called | None:
        if name in _OPERATORS:
            return lambda args, kwargs: self._operate(_OPERATORS[name], *args)
        if name == "neg":
            return lambda args, kwargs: self._operate("*", args[0], -1)
        if name in ("itemgetter", "attrgetter"):
            return lambda args, kwargs: Getter(args, is_attribute=name == "attrgetter")
        return None

    def _replace(self, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Instance:
        return self._invoke(_of_dataclass(args).kind, (), {**_fields(args), **kwargs})  # type: ignore[no-any-return]

    def _asdict(self, args: tuple[Value, ...], kwargs: dict[str, Value]) -> dict[str, Value]:
        return _fields(args)

    def _astuple(self, args: tuple[Value, ...], kwargs: dict[str, Value]) -> tuple[Value, ...]:
        return tuple(_fields(args).values())


def is_container(path: str) -> bool:
    """Whether a name is one of them."""
    root, _, name = path.rpartition(".")
    return (
        path
        in (
            "deque",
            "collections.deque",
            "Counter",
            "collections.Counter",
            "types.SimpleNamespace",
            "SimpleNamespace",
            "argparse.Namespace",
        )
        or path in ("enum.auto", "auto", "argparse.ArgumentParser")
        or path in ("dataclasses.replace", "dataclasses.asdict", "dataclasses.astuple")
        or (root == "operator" and (name in _OPERATORS or name in ("neg", "itemgetter", "attrgetter")))
        or itertools_functions.is_known(path)
        or standard_library.is_known(path)
    )
