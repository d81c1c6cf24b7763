"""The functions of `itertools`, over values of a program."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable
from typing import Any

from app.program.reading.source import Refusal
from app.program.semantics import static
from app.program.semantics.graph_values import Value
from app.program.semantics.values import Iterator, charged

Called = Callable[[tuple[Value, ...], dict[str, Value]], Value]
Invoke = Callable[[Value, tuple[Value, ...], dict[str, Value]], Value]


class Itertools:
    """Makes them; `items` and `stream` go through values, `operate` is an operator on any two of them, `holds` a condition on one."""

    def __init__(
        self,
        invoke: Invoke,
        items: Callable[[Value], list[Value]],
        stream: Callable[[Value], Iterator],
        operate: Callable[..., Value],
        spend: Callable[[int], None],
        holds: Callable[[Value], bool],
    ) -> None:
        self._invoke, self._items, self._stream, self._operate, self._spend = invoke, items, stream, operate, spend
        self._holds = holds

    def resolve(self, short: str) -> Called | None:
        """What a call of `itertools.name` does, or None."""
        root, _, name = short.rpartition(".")
        return getattr(self, f"_{name}", None) if root in ("itertools", "itertools.chain") else None

    def _accumulate(self, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Iterator:
        function = kwargs.get("func", args[1] if len(args) > 1 else None)

        def join(left: Value, right: Value) -> Value:
            return self._operate("+", left, right) if function is None else self._invoke(function, (left, right), {})

        return Iterator(itertools.accumulate(self._stream(args[0]), join, initial=kwargs.get("initial")))

    def _groupby(self, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Iterator:
        function = kwargs.get("key", args[1] if len(args) > 1 else None)

        def key_of(member: Value) -> Value:
            key = member if function is None else self._invoke(function, (member,), {})
            static.plain(key)
            return key

        return Iterator((key, Iterator(group)) for key, group in itertools.groupby(self._stream(args[0]), key_of))

    def _tee(self, args: tuple[Value, ...], kwargs: dict[str, Value]) -> tuple[Iterator, ...]:
        count = static.integer(kwargs.get("n", args[1] if len(args) > 1 else 2), "The number of iterators")
        if not 0 <= count <= static.NESTING_LIMIT:
            raise Refusal(f"`tee` gives at most {static.NESTING_LIMIT} iterators here.", "Make a list: `list(values)`.")
        return tuple(map(Iterator, itertools.tee(self._stream(args[0]), count)))

    def _islice(self, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Iterator:
        bounds = [None if bound is None else static.integer(bound, "A bound of `islice`") for bound in args[1:]]
        return Iterator(static.computed(lambda: itertools.islice(self._stream(args[0]), *bounds), what="`islice`"))

    def _count(self, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Iterator:
        return self._endless(itertools.count(*args, **kwargs))

    def _repeat(self, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Iterator:
        return self._endless(itertools.repeat(*args, **kwargs))

    def _cycle(self, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Iterator:
        return self._endless(itertools.cycle(self._items(args[0])))

    def _endless(self, members: Iterable[Value]) -> Iterator:
        """Each member counts as an expression, as nothing else may end who goes through them (`-1 in count()`)."""

        def counted() -> Generator[Value]:
            for member in members:
                self._spend(1)
                yield member

        return Iterator(counted())

    def _pairwise(self, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Iterator:
        return Iterator(itertools.pairwise(self._stream(args[0])))

    def _starmap(self, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Iterator:
        return Iterator(self._invoke(args[0], tuple(self._items(group)), {}) for group in self._stream(args[1]))

    def _from_iterable(self, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Iterator:
        return Iterator(member for group in self._stream(args[0]) for member in self._stream(group))

    def _chain(self, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Iterator:
        return self._from_iterable((args,), {})

    def _zip_longest(self, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Iterator:
        groups = itertools.zip_longest(*map(self._stream, args), fillvalue=kwargs.get("fillvalue"))
        return Iterator(charged(groups, len(args), self._spend))

    def _test(self, function: Value) -> Callable[[Any], bool]:
        return lambda member: self._holds(member if function is None else self._invoke(function, (member,), {}))

    def _takewhile(self, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Iterator:
        return Iterator(itertools.takewhile(self._test(args[0]), self._stream(args[1])))

    def _dropwhile(self, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Iterator:
        return Iterator(itertools.dropwhile(self._test(args[0]), self._stream(args[1])))

    def _filterfalse(self, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Iterator:
        return Iterator(itertools.filterfalse(self._test(args[0]), self._stream(args[1])))

    def _compress(self, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Iterator:
        pairs = zip(self._stream(args[0]), self._stream(args[1]), strict=False)
        return Iterator(member for member, selected in pairs if self._holds(selected))


def is_known(path: str) -> bool:
    """Whether a name is one of them."""
    root, _, name = path.rpartition(".")
    return root in ("itertools", "itertools.chain") and not name.startswith("_") and hasattr(Itertools, f"_{name}")
