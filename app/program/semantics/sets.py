"""Python's sets in a program, in the order in which Python goes through them where that hangs on the members alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from app.program.reading.source import Refusal
from app.program.semantics import static
from app.program.semantics.graph_values import Value
from app.program.semantics.values import Instance, special

_NUMBERS: Final = (int, float, bool, complex)
_OPERATORS: Final = {"union": "|", "intersection": "&", "difference": "-", "symmetric_difference": "^"}
_COMPARISONS: Final = {"issubset": "<=", "issuperset": ">="}


class Distinct:
    """A set. Numbers, and tuples of them, stand in Python's own order; texts and objects, which have another in each run, as they came."""

    __slots__ = ("_members",)

    def __init__(self, members: Iterable[Any] = (), spend: Callable[[int], None] = lambda amount: None) -> None:
        self._members: set[Any] | dict[Any, None] = set()
        for member in members:
            self.add(member, spend)

    def add(self, member: Any, spend: Callable[[int], None] = lambda amount: None) -> None:
        """Raises a refusal for what has no place in a set. `spend`: counts what its hash goes through."""
        if isinstance(member, list | dict | Distinct | slice):
            raise Refusal("A set holds plain values and objects.", "Write tuples for lists.", raises="TypeError")
        if static.is_unknown_text(member):
            raise Refusal(
                "The text of a list or an object is not written out here, so a set does not hold it.", "Write tuples."
            )
        if isinstance(member, Instance) and special(member, "__eq__") is not None:
            raise Refusal("A set of objects with an `__eq__` of their own is not in the language.", "Use a list.")
        if type(member) not in _NUMBERS:
            static.key(member, spend)
        if isinstance(self._members, set):
            if _has_order(member):
                self._members.add(member)
                return
            self._members = dict.fromkeys(self._members)
        self._members[member] = None

    def discard(self, member: Any) -> None:
        if isinstance(self._members, set):
            self._members.discard(member)
        else:
            self._members.pop(member, None)

    def pop(self) -> Any:
        if isinstance(self._members, set):
            return self._members.pop()
        first = next(iter(self._members))
        del self._members[first]
        return first

    def clear(self) -> None:
        self._members.clear()

    def replace(self, other: Distinct) -> None:
        """Holds what `other` holds from here on."""
        self._members = other._members.copy()

    def combined(self, symbol: str, other: Distinct) -> Any:
        """`self symbol other`: a set, or of a comparison a truth value."""
        mine, others = self._members, other._members
        if symbol in static.COMPARISONS:
            return static.OPERATORS[symbol](set(mine), set(others))
        result = Distinct()
        if isinstance(mine, set) and isinstance(others, set):
            result._members = static.OPERATORS[symbol](mine, others)
            return result
        left = [m for m in mine if symbol == "|" or (m in others) == (symbol == "&")]
        left += [m for m in others if m not in mine and symbol in ("|", "^")]
        return Distinct(left)

    def __contains__(self, member: object) -> bool:
        return not isinstance(member, list | dict | Distinct) and member in self._members

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._members))

    def __len__(self) -> int:
        return len(self._members)


def _has_order(member: Any) -> bool:
    return type(member) in _NUMBERS or (type(member) is tuple and all(map(_has_order, member)))


def operated(symbol: str, left: Any, right: Any, spend: Callable[[int], None]) -> Any:
    """An operator on two sets, or views of dicts."""
    for value in (left, right):
        for member in value:
            static.key(member, spend)
    sets = [value if isinstance(value, Distinct) else Distinct(value) for value in (left, right)]
    spend(1 + (len(sets[0]) + len(sets[1])) // 4)
    return sets[0].combined(symbol, sets[1])


def method(
    items: Callable[[Value], list[Value]], spend: Callable[[int], None], owner: Distinct, name: str, args: tuple[Value, ...]
) -> Value:
    """`owner.name(*args)` of a set."""
    spend(1)
    if name in ("add", "discard", "remove") and args and not isinstance(args[0], Distinct):
        static.key(args[0], spend)
    if name in ("add", "discard") and len(args) == 1:
        static.check_length(len(owner) + 1)
        return getattr(owner, name)(args[0])
    if name in ("remove", "pop") and len(args) == (name == "remove"):
        if (args and args[0] not in owner) or not len(owner):
            raise Refusal("The set does not hold this value.", "Write `.discard(value)`.", raises="KeyError")
        return owner.discard(args[0]) if args else owner.pop()
    if name == "clear" and not args:
        return owner.clear()
    if name == "copy" and not args:
        return operated("|", owner, Distinct(), spend)
    if name in ("update", "union") or name.removesuffix("_update") in _OPERATORS:
        symbol = _OPERATORS.get(name.removesuffix("_update"), "|")
        result = owner if args else operated("|", owner, Distinct(), spend)
        for other in args:
            result = operated(symbol, result, other if isinstance(other, Distinct) else items(other), spend)
            static.check_length(len(result))
        if name != "update" and not name.endswith("_update"):
            return result
        return owner.replace(result)
    if name in _COMPARISONS and len(args) == 1:
        return operated(_COMPARISONS[name], owner, items(args[0]), spend)
    if name == "isdisjoint" and len(args) == 1:
        return not len(operated("&", owner, items(args[0]), spend))
    raise Refusal(f"A set has no `.{name}()` here.", "It has `add`, `discard`, `remove`, `update`, `union`, `intersection`…")
