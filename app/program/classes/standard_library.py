"""Functions of Python's standard library on plain values: `heapq`, `statistics`, `bisect`, `json`, and what a clock says."""

from __future__ import annotations

import bisect
import heapq
import json
import statistics
from collections.abc import Callable
from typing import Any, Final

from app.program.reading.source import Refusal
from app.program.semantics import static
from app.program.semantics.graph_values import Value

Called = Callable[[tuple[Value, ...], dict[str, Value]], Value]
# What one may compare with another: a key of each, by which Python's own functions order them.
Keyed = Callable[[list[Value], Value], list[Any]]

_OF_HEAPS: Final = ("heappush", "heappop", "heapify", "heappushpop", "heapreplace", "nlargest", "nsmallest")
_OF_STATISTICS: Final = (
    "mean", "fmean", "median", "median_low", "median_high", "mode", "stdev", "pstdev", "variance", "pvariance", "geometric_mean",
    "harmonic_mean", "multimode",
)  # fmt: skip
_OF_ORDER: Final = ("bisect", "bisect_left", "bisect_right", "insort", "insort_left", "insort_right")
_NAMES: Final = frozenset(
    [f"heapq.{name}" for name in _OF_HEAPS] + [f"statistics.{name}" for name in _OF_STATISTICS]
    + [f"bisect.{name}" for name in _OF_ORDER] + ["json.dumps", "json.loads"]
)  # fmt: skip
_JSON_OPTIONS: Final = ("indent", "sort_keys", "separators", "ensure_ascii")
# Of an indent and the separators together: with these the longest list, 10,000 values, takes 5 MB at most, 32 deep, before it is refused.
_JSON_WIDTH: Final = 16


def is_known(path: str) -> bool:
    """Whether a name is one of them."""
    return path in _NAMES


def of_clock(value: Any) -> Any:
    """What is computed of a clock's time is of a clock too: no clock runs while a program is read, so that it is no answer of it."""
    if isinstance(value, tuple):
        return tuple(map(of_clock, value))
    if isinstance(value, float):
        return Clock(value)
    return Ticks(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _computing(name: str) -> Any:
    def method(self: Any, *others: Any) -> Any:
        return of_clock(getattr(self.kind, name)(self, *others))

    return method


class Clock(float):
    """What a clock says."""

    kind = float


class Ticks(int):
    """A whole number of it."""

    kind = int


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "divmod", "pow"):
    for _side in (f"__{_name}__", f"__r{_name}__"):
        setattr(Clock, _side, _computing(_side))
        setattr(Ticks, _side, _computing(_side))
for _name in ("__neg__", "__abs__", "__round__"):
    setattr(Clock, _name, _computing(_name))
    setattr(Ticks, _name, _computing(_name))

# `time.time()`.
CLOCK: Final = Clock(0.0)
TICKS: Final = Ticks(0)


class StandardLibrary:
    """Calls them; `items` goes through values, `keyed` gives the keys of values, `spend` counts what goes through a list."""

    def __init__(self, items: Callable[[Value], list[Value]], keyed: Keyed, spend: Callable[[int], None]) -> None:
        self._items, self._keyed, self._spend = items, keyed, spend

    def resolve(self, short: str) -> Called | None:
        """What a call of one of their names does, or None."""
        if short not in _NAMES:
            return None
        root, _, name = short.rpartition(".")
        if root == "heapq" and name not in ("nlargest", "nsmallest"):
            return lambda args, kwargs: self._heap(name, *args)
        if root == "heapq":
            return lambda args, kwargs: self._first(name, *args, **kwargs)
        if root == "bisect":
            return lambda args, kwargs: self._placed(name, args, kwargs)
        if root == "json":
            return _written if name == "dumps" else _read
        return lambda args, kwargs: self._statistic(name, args, kwargs)

    def _heap(self, name: str, heap: Value, *members: Value) -> Value:
        """`heappush(heap, member)` and its like: Python's own, on the keys of the members."""
        if not isinstance(heap, list):
            raise Refusal(f"`heapq.{name}` takes a list.", "Write `heap = []`.", raises="TypeError")
        self._spend(1 + len(heap) // 2)
        static.check_length(len(heap) + 1)
        keys = [_Held(key, value) for key, value in zip(self._keyed([*heap, *members], None), [*heap, *members], strict=True)]
        ordered = keys[: len(heap)]
        result = static.computed(getattr(heapq, name), ordered, *keys[len(heap) :], what=f"`heapq.{name}`")
        heap[:] = [each.value for each in ordered]
        return None if result is None else result.value

    def _first(self, name: str, count: Value, values: Value, key: Value = None) -> list[Value]:
        members = self._items(values)
        self._spend(1 + len(members))
        held = [_Held(each, value) for each, value in zip(self._keyed(members, key), members, strict=True)]
        count = static.integer(count, f"The first argument of `{name}`")
        return [each.value for each in static.computed(getattr(heapq, name), count, held, what=f"`{name}`")]

    def _placed(self, name: str, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        """`bisect(values, x)`, `insort(values, x)`, on plain numbers."""
        if len(args) != 2 or kwargs:
            raise Refusal(f"`bisect.{name}` takes a list and a number here.", "Write `torch.searchsorted(values, x)`.")
        self._spend(1 + len(args[0]) // 8)
        static.plain(list(args))
        static.check_length(len(args[0]) + 1)
        return static.computed(getattr(bisect, name), *args, what=f"`{name}`")

    def _statistic(self, name: str, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        members = [self._items(args[0]), *args[1:]] if args else []
        self._spend(1 + sum(len(each) for each in members if isinstance(each, list)))  # fractions: some µs each
        static.plain([members, list(kwargs.values())])
        return static.computed(lambda: getattr(statistics, name)(*members, **kwargs), what=f"`statistics.{name}`")


class _Held:
    """A value in the order of its key."""

    __slots__ = ("key", "value")

    def __init__(self, key: Any, value: Value) -> None:
        self.key, self.value = key, value

    def __lt__(self, other: _Held) -> bool:
        return bool(self.key < other.key)


def _written(args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
    """`json.dumps(value)` of plain values."""
    (value,) = args
    if any(name not in _JSON_OPTIONS for name in kwargs):
        raise Refusal("`json.dumps` takes `indent` and `sort_keys` here.", "Leave the others out.")
    indent = kwargs.get("indent") or 0
    width = len(indent) if isinstance(indent, str) else static.integer(indent, "`indent`")
    if width + sum(map(len, kwargs.get("separators") or ())) > _JSON_WIDTH:
        raise Refusal(f"`json.dumps` takes an indent and separators of {_JSON_WIDTH} signs in all here.")
    static.plain(_values(value))
    text = static.computed(lambda: json.dumps(value, **kwargs), what="`json.dumps`")
    static.check_length(len(text))
    return text


def _values(value: Value) -> Any:
    """A value with its dicts as lists, to be looked at."""
    static.members_in(value)
    if isinstance(value, dict):
        return [_values(each) for each in (*value, *value.values())]
    return [_values(each) for each in value] if isinstance(value, list | tuple) else value


def _read(args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
    """`json.loads(text)`."""
    if len(args) != 1 or kwargs or not isinstance(args[0], str):
        raise Refusal("`json.loads` takes a text here.", "Write the value as Python: a dict or a list.")
    static.check_length(len(args[0]))
    if sum(map(args[0].count, "[{")) > static.NESTING_LIMIT and _depth(args[0]) > static.NESTING_LIMIT:
        raise Refusal(f"The text is nested more than {static.NESTING_LIMIT} deep.")
    value = static.computed(json.loads, args[0], what="`json.loads`")
    static.members_in(value)
    return value


def _depth(text: str) -> int:
    depth = deepest = 0
    for sign in text:
        depth += (sign in "[{") - (sign in "]}")
        deepest = max(deepest, depth)
    return deepest
