"""Python's builtins in a program: `len`, `range`, `zip`, `sum`, `max`…, on plain values, lists and tensors."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Generator, ItemsView, KeysView, Mapping, ValuesView
from itertools import islice
from typing import Final

import torch
from torch import fx

from app.program.classes import special_methods
from app.program.classes.standard_library import Clock, Ticks, of_clock
from app.program.library import containers
from app.program.library.attributes import members
from app.program.library.reads import Reads
from app.program.packages import datasets
from app.program.packages.ordering import Ordering
from app.program.packages.python_containers import Deque
from app.program.reading.source import Refusal
from app.program.semantics import sets, static
from app.program.semantics.graph_values import Emit, MultiOutput, Value, example, is_tensor
from app.program.semantics.sets import Distinct
from app.program.semantics.static import LENGTH_LIMIT, length, named
from app.program.semantics.trace import Trace
from app.program.semantics.values import (
    VIEWS,
    ClassValue,
    FunctionValue,
    Instance,
    Iterator,
    Method,
    Named,
    Partial,
    charged,
    special,
    unchanged,
)


def _is_single(value: Value) -> bool:
    """Whether it is a value of Python's that holds no others."""
    return value is None or static.is_number(value) or isinstance(value, FunctionValue)


def ended(value: Value) -> Refusal:
    """What `next` raises of a generator that returned `value`."""
    arguments = () if value is None else (value,)
    return Refusal("`next` has nothing left to give.", "Use `for`.", raises="StopIteration", arguments=arguments)


def parts_of(outputs: MultiOutput) -> str:
    """How the parts of what an operation gave are taken, in words."""
    return " or ".join(f"`.{field}`" for field in outputs.fields) or "its members by [0], [1]…"


_SETS: Final = (Distinct, KeysView, ItemsView)
_CHANGING: Final = (dict, Distinct, Deque, *VIEWS)  # what Python refuses to go on through where it has grown or shrunk
_OF_SETS: Final = ("&", "|", "-", "^", *static.COMPARISONS)
# Other values that are called; the words float, int and bool, which are dtypes, are classes.
_CALLED: Final = ("LayerValue", "Transformed", "Getter")
# More digits than any number here has before or after its point: beyond it `round` gives 0, or the number.
_DIGITS: Final = 2_000


class Builtins:
    """The builtins over one trace. Each takes (emit, args, kwargs)."""

    def __init__(
        self,
        trace: Trace,
        operation: Callable[[Emit, str, tuple[Value, ...], Mapping[str, Value]], Value],
        reads: Reads,
        invoke: Callable[[Value, tuple[Value, ...], dict[str, Value]], Value],
    ) -> None:
        self._trace = trace
        self._operation = operation
        self._reads, self._invoke = reads, invoke
        # Notes, by 1 and -1, that what is raised from here on is taken; set by who reads the program.
        self._identities: dict[int, tuple[int, Value]] = {}  # each with its object, so that no other takes its place
        self.trying: Callable[[int], None] = lambda change: None
        self.holds: Callable[[Value], bool] = bool  # whether a condition on a value holds; set by the same
        self.ordering = Ordering(reads, invoke, self.operate, lambda value: self.holds(value))

    @functools.cached_property
    def table(self) -> dict[str, Callable[[Emit, tuple[Value, ...], Mapping[str, Value]], Value]]:
        """By name; made where a program first calls something by its name."""
        return {
            "len": self._len, "range": self._range, "zip": self._zip, "enumerate": self._enumerate, "reversed": self._reversed,
            "list": self._list, "tuple": self._tuple, "sorted": self._sorted, "sum": self._sum, "abs": self._abs, "round": self._round,
            "pow": self._pow,
            "iter": self._iter, "next": self._next, "set": self._distinct,
            "frozenset": self._distinct, "id": self._identity, "callable": lambda emit, args, kwargs: _is_callable(args[0]),
            **{name: functools.partial(self._extreme, name) for name in ("min", "max")},
            **{name: functools.partial(self._truth, name) for name in ("all", "any")},
            **{name: functools.partial(self._cast, name) for name in ("float", "int", "bool", "complex")},
        }  # fmt: skip

    def items(self, emit: Emit, value: Value) -> list[Value]:
        """What a loop over `value` goes through; a tensor's parts along its first axis."""
        if is_tensor(value):
            value = members(emit, value)
        if isinstance(value, MultiOutput):
            return [self._trace.pick(value, index) for index in range(len(value.values))]
        if isinstance(value, range) and length(value) > LENGTH_LIMIT:
            raise Refusal(
                f"A loop over {length(value):,} values is too long; the limit is {LENGTH_LIMIT:,}.",
                "Use operations on whole tensors (`arange(n)`).",
                code="too_costly",
            )
        if containers.is_sequence(value) and special(value, "__iter__") is None:
            parts = containers.held(value)
            return list(parts if any(value.kind_is(kind) for kind in ("ModuleDict", "ParameterDict")) else parts.values())
        if special_methods.is_object(value):
            value = self._of_object(value)
        if isinstance(value, datasets.Batches):
            value = datasets.epoch(self._trace, emit, value)
        if isinstance(value, ClassValue) and value.members is not None:
            value = list(dict.fromkeys(value.members.values()))
        if isinstance(value, Iterator):
            taken = list(islice(value, LENGTH_LIMIT + 1))
            static.check_length(len(taken))
            self._trace.budget.spend(1 + len(taken) // 8)
            return taken
        if isinstance(value, list | tuple | range | dict | Distinct | KeysView | ValuesView | ItemsView):
            self._trace.budget.spend(1 + len(value) // 8)
            return list(value)
        if isinstance(value, str):
            return list(self.of_text(value))
        raises = "TypeError" if _is_single(value) else None
        text = f"{named(value).capitalize()} cannot be gone through."
        raise Refusal(text, "Use `range(n)`, a list, a tuple or a tensor.", raises=raises)

    def of_text(self, value: Value) -> Value:
        """What a text was made into, another text or a list of texts, which costs what a list of its length costs."""
        if isinstance(value, str | list | tuple):
            self._trace.budget.spend(len(value) // 8)
        return value

    def _of_object(self, value: Value) -> Value:
        """The members of an object of the program, one at a time."""
        members = special_methods.members(lambda f, args: self._invoke(f, args, {}), value, self.trying)
        if members is None:
            kind = value.kind.name
            raise Refusal(f"An object of `{kind}` cannot be gone through.", "Give the class `__iter__`, or `__getitem__`.")
        return members if isinstance(members, list | tuple | range | dict | fx.Node) else Iterator(members)

    def stream(self, emit: Emit, value: Value) -> Iterator:
        """The members of `value` one at a time: what is not taken of an iterator stays in it, a list may grow on the way."""
        if special_methods.is_object(value) and not containers.is_sequence(value):
            value = self._of_object(value)
        if isinstance(value, datasets.Batches):
            return datasets.epoch(self._trace, emit, value)
        if isinstance(value, Iterator):
            return value
        if isinstance(value, _CHANGING):
            self._trace.budget.spend(1 + len(value) // 8)
            return Iterator(unchanged(value, named(value)))
        return Iterator(value if type(value) is list else self.items(emit, value))

    def numbers(self, emit: Emit, tensor: Value) -> list[int]:
        """The plain numbers in a tensor, as they are here."""
        return list(self._reads.numbers(emit, tensor))

    def _len(self, emit: Emit, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> int:
        (value,) = _arguments("len", args, kwargs, 1)
        if is_tensor(value):
            if example(value).ndim == 0:
                raise Refusal("A 0-d tensor has no length.", raises="TypeError")
            return example(value).size(0)
        if isinstance(value, MultiOutput):
            return len(value.values)
        if isinstance(value, Distinct | KeysView | ValuesView | ItemsView | datasets.Batches):
            return len(value)
        if isinstance(value, list | tuple | range | dict | str):
            return static.bounded(length(value) if not isinstance(value, dict) else len(value))  # type: ignore[no-any-return]
        if isinstance(value, datasets.SIZED):
            return value.length
        function = special(value, "__len__")
        if function is not None:
            return static.integer(self._invoke(function, (), {}), "`__len__`")
        if isinstance(value, ClassValue) and value.members is not None:
            return len(set(map(id, value.members.values())))
        if function is None and containers.is_sequence(value):
            return len(containers.held(value))
        raises = "TypeError" if _is_single(value) or isinstance(value, Iterator) else None
        raise Refusal(f"{named(value).capitalize()} has no length.", "Make a list of it: `list(values)`.", raises=raises)

    def _range(self, emit: Emit, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> range:
        return static.span(*_arguments("range", args, kwargs, 3))

    def _zip(self, emit: Emit, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> Iterator:
        _arguments("zip", (), {k: v for k, v in kwargs.items() if k != "strict"}, 0)
        if kwargs.get("strict"):
            members = [self.items(emit, value) for value in args]
            if len(set(map(len, members))) > 1:
                raise Refusal("`zip(strict=True)` takes as many of each.", "Leave `strict` out.", raises="ValueError")
            return Iterator(charged(zip(*members, strict=True), len(args), self._trace.budget.spend))
        groups = zip(*(self.stream(emit, value) for value in args), strict=False)
        return Iterator(charged(groups, len(args), self._trace.budget.spend))

    def _enumerate(self, emit: Emit, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> Iterator:
        start = static.integer(kwargs.get("start", args[1] if len(args) > 1 else 0), "`start`")
        (value,) = _arguments("enumerate", args[:1], {k: v for k, v in kwargs.items() if k != "start"}, 1)
        return Iterator(enumerate(self.stream(emit, value), start))

    def _reversed(self, emit: Emit, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> Iterator:
        (value,) = _arguments("reversed", args, kwargs, 1)
        return Iterator(self.items(emit, value)[::-1])

    def _list(self, emit: Emit, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> list[Value]:
        return self.items(emit, _arguments("list", args, kwargs, 1)[0]) if args else []

    def _next(self, emit: Emit, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> Value:
        """`next(iter(loader))`, `next(model.parameters())`."""
        function = special(args[0], "__next__") if args else None
        if function is not None:
            return self._invoke(function, (), {})
        value = None
        if args and isinstance(args[0], Iterator):
            try:
                return next(args[0])
            except StopIteration as end:
                value = end.value
        elif args and static.is_python(args[0]):
            raise Refusal(
                f"`next` takes from an iterator, not from {named(args[0])}.", "Write `iter(values)`.", raises="TypeError"
            )
        if len(args) == 2:
            return args[1]
        raise ended(value)

    def _iter(self, emit: Emit, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> Iterator:
        """`iter(values)`, or `iter(function, end)`: what it gives until that is `end`."""
        if len(args) != 2:
            return self.stream(emit, *_arguments("iter", args, kwargs, 1))
        function, end = args
        return Iterator(self._until(emit, function, end))

    def _until(self, emit: Emit, function: Value, end: Value) -> Generator[Value]:
        while True:
            member = self._invoke(function, (), {})
            static.plain([member, end])
            if member == end:
                return
            yield member

    def _distinct(self, emit: Emit, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> Distinct:
        members = self.items(emit, args[0]) if args else []
        self._trace.budget.spend(len(members) // 8)
        return Distinct(members, self._trace.budget.spend)

    def _identity(self, emit: Emit, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> int:
        """`id(value)`: a number of its own for each object, no address."""
        (value,) = _arguments("id", args, kwargs, 1)
        return self._identities.setdefault(id(value), (len(self._identities), value))[0]

    def _tuple(self, emit: Emit, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> tuple[Value, ...]:
        return tuple(self.items(emit, _arguments("tuple", args, kwargs, 1)[0])) if args else ()

    def _sorted(self, emit: Emit, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> list[Value]:
        (value,) = _arguments("sorted", args, {k: v for k, v in kwargs.items() if k not in ("reverse", "key")}, 1)
        return self.ordering.ordered(emit, self.items(emit, value), kwargs)

    def _sum(self, emit: Emit, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> Value:
        if not args or is_tensor(args[0]):
            return self._operation(emit, "sum", args, kwargs)
        start = kwargs.get("start", args[1] if len(args) > 1 else None)
        values = self.stream(emit, args[0])
        if start is None:
            start = next(values, 0)
            if special_methods.is_object(start):
                start = self._add(emit, 0, start)
            if self._trace.has_written and is_tensor(start):  # the next member may be written into the same tensor
                start = self._add(emit, 0, start)
        return functools.reduce(functools.partial(self._add, emit), values, start)

    def _add(self, emit: Emit, left: Value, right: Value) -> Value:
        return self.operate(emit, "+", left, right)

    def operate(self, emit: Emit, symbol: str, left: Value, right: Value) -> Value:
        """`left symbol right` of two members."""
        if special_methods.is_object(left) or special_methods.is_object(right):
            return special_methods.binary(lambda f, args: self._invoke(f, args, {}), symbol, left, right)
        if is_tensor(left) or is_tensor(right):
            return emit(symbol, static.OPERATORS[symbol], (left, right), {})
        return self.combined(symbol, left, right)

    def combined(self, symbol: str, left: Value, right: Value) -> Value:
        """`left symbol right` of plain values; what copies a list costs as much as going through it."""
        spend = self._trace.budget.spend
        is_counters = isinstance(left, Counter) and isinstance(right, Counter)
        if isinstance(left, dict) and isinstance(right, dict) and symbol in ("|+-&" if is_counters else "|"):
            static.check_length(len(left) + len(right))
            spend(1 + (len(left) + len(right)) // 4)
            return static.computed(static.OPERATORS[symbol], left, right, what=f"`{symbol}`")
        if isinstance(left, dict) and isinstance(right, dict) and symbol in ("==", "!="):
            spend(1 + (len(left) + len(right)) // 8)
            static.plain([*left.values(), *right.values()])
            return (left == right) == (symbol == "==")
        if isinstance(left, _SETS) and isinstance(right, _SETS) and symbol in _OF_SETS:
            return sets.operated(symbol, left, right, spend)
        value = static.binary(symbol, left, right)
        spend(1 + (len(value) // 8 if isinstance(value, list | tuple | str) else 0))
        return value

    def _extreme(self, name: str, emit: Emit, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> Value:
        of_tensors = len(args) > 2 and all(map(is_tensor, args))  # `max(a, b, c)` is Python's: PyTorch's takes two
        if not args or (is_tensor(args[0]) and not of_tensors and "key" not in kwargs):
            return self._of_tensor(name, emit, args, kwargs)
        _arguments(name, (), {k: v for k, v in kwargs.items() if k not in ("key", "default")}, 0)
        values = self.items(emit, args[0]) if len(args) == 1 else list(args)
        if not values and "default" in kwargs:
            return kwargs["default"]
        return self.ordering.extreme(emit, name, values, kwargs.get("key"))

    def _of_tensor(self, name: str, emit: Emit, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> Value:
        if len(args) == 2 and not kwargs and self._is_bound(*args):
            return self.ordering.larger(name, emit, *args)
        return self._operation(emit, name, args, kwargs)

    def _is_bound(self, tensor: Value, value: Value) -> bool:
        """Whether the second argument of `max(x, …)` is one to compare with as Python does, not an axis."""
        if is_tensor(value):
            return example(tensor).ndim == example(value).ndim == 0
        return isinstance(value, float) or (static.is_number(value) and example(tensor).ndim == 0)

    def _truth(self, name: str, emit: Emit, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> Value:
        if not args or is_tensor(args[0]):
            return self._operation(emit, name, args, kwargs)
        stops = name == "any"
        for member in self.stream(emit, _arguments(name, args, kwargs, 1)[0]):
            if self.holds(member) == stops:
                return stops
        return not stops

    def _abs(self, emit: Emit, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> Value:
        function = special(args[0], "__abs__") if args else None
        if function is not None:
            return self._invoke(function, (), {})
        if args and static.is_number(args[0]):
            return static.computed(abs, *_arguments("abs", args, kwargs, 1), what="`abs`")
        return self._operation(emit, "abs", args, kwargs)

    def _round(self, emit: Emit, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> Value:
        if args and static.is_number(args[0]):
            number, *digits = _arguments("round", args, kwargs, 2)
            digits = [min(max(each, -_DIGITS), _DIGITS) if isinstance(each, int) else each for each in digits]
            return static.bounded(static.computed(round, number, *digits, what="`round`"))
        positional = list(args)
        if len(positional) == 2:  # Python's second argument is PyTorch's keyword
            kwargs = {"decimals": positional.pop(), **kwargs}
        return self._operation(emit, "round", tuple(positional), kwargs)

    def _pow(self, emit: Emit, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> Value:
        if len(args) in (2, 3) and all(static.is_number(value) for value in args):
            return static.binary("**", *args) if len(args) == 2 else static.computed(pow, *args, what="`pow`")
        return self._operation(emit, "pow", args, kwargs)

    def _cast(self, name: str, emit: Emit, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> Value:
        if name == "complex" and len(args) == 2 and any(is_tensor(value) for value in args):
            return self._operation(emit, "complex", args, kwargs)
        args = args or (0,)
        function = special(args[0], f"__{name}__")
        if function is not None:
            args = (self._invoke(function, (), {}),)
        if len(args) == 1 and (is_tensor(args[0]) or isinstance(args[0], MultiOutput)):
            if isinstance(args[0], MultiOutput):
                raise Refusal(f"`{args[0].operation}` gives several tensors.", f"Take {parts_of(args[0])} first.")
            return static.cast(name, self._reads.number(emit, args[0]))
        if name == "bool" and len(args) == 1 and not static.is_number(args[0]):
            return self.holds(args[0])
        if name == "int" and len(args) == 2 and isinstance(args[0], str):
            static.check_length(len(args[0]))
            return static.bounded(static.computed(int, *args, what="`int`"))
        if name == "complex" and len(args) == 2:
            return static.computed(complex, *args, what="`complex`")
        value = static.cast(name, _arguments(name, args, kwargs, 1)[0])
        return of_clock(value) if isinstance(args[0], Clock | Ticks) else value


def _is_callable(value: Value) -> bool:
    if isinstance(value, Instance):
        return value.is_module or special(value, "__call__") is not None
    return (
        isinstance(value, FunctionValue | ClassValue | Named | Method | Partial | torch.dtype)
        or type(value).__name__ in _CALLED
    )


def _arguments(name: str, args: tuple[Value, ...], kwargs: Mapping[str, Value], most: int) -> tuple[Value, ...]:
    if kwargs:
        raise Refusal(f"`{name}` has no argument `{next(iter(kwargs))}`.")
    if len(args) > most or (most == 1 and not args):
        raise Refusal(f"`{name}` takes {most} argument{'s' * (most > 1)}, not {len(args)}.")
    return args
