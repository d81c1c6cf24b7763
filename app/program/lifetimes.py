"""How long the values of a graph live, and the most memory that they take at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, Protocol, TypeVar

from torch import fx

Key = TypeVar("Key")
KeyOf = TypeVar("KeyOf", contravariant=True)


class ByKey(Protocol[KeyOf]):
    """A number for each key."""

    def __getitem__(self, key: KeyOf, /) -> int: ...


class Lifetimes(Generic[Key]):
    """Which values of a graph end with which step, each freed after its last use; `keys`: by which the value of each step is known."""

    def __init__(self, graph: fx.Graph, keys: Mapping[fx.Node, Key]) -> None:
        used = [(node, node.all_input_nodes) for node in graph.nodes]
        last = {source: node for node, sources in used for source in sources}
        self._steps = tuple(
            (keys[node], tuple(keys[source] for source in sources if last[source] is node and source.op == "call_function"))
            for node, sources in used
            if node.op == "call_function"
        )

    def live_bytes(self, taken: ByKey[Key], again: range = range(0), times: int = 0) -> int:
        """The most that the steps' values take at a time, of which each takes `taken[key]` bytes; inputs are not counted.

        Arguments:
            again: steps that run `times` times more before they do.
        """
        steps = (*self._steps[: again.stop], *self._steps[again.start : again.stop] * times, *self._steps[again.stop :])
        live = most = 0
        for key, ended in steps:
            live += taken[key]
            if live > most:
                most = live
            for source in ended:
                live -= taken[source]
        return most
