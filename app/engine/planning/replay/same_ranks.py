"""Functions that hold for all shapes of the same ranks: built once, and kept by all that was asked but the extents of the inputs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Final

from torch import Tensor

from app.bounded_cache import BoundedCache
from app.engine.planning.bounded_counter import is_small
from app.engine.planning.build import Built, Real, function_bytes, leaves_of, lists_of
from app.engine.planning.replay.reading import Reading
from app.engine.planning.replay.registers import Shapes
from app.engine.planning.replay.row_loops import RowLoop, row_loop
from app.query import Query, TensorData

# Of all graphs, which the signatures of Preparer mostly share: as many as there.
_BYTES_LIMIT: Final = 32 << 20
# Of one text: as many lengths of its loops are kept. To look which holds takes some 14 µs for each (measured, of a program with ten questions).
_READINGS: Final = 8
# Of those that came last, which a worker that rests draws up: it rests long before so many have come, or has no time for any.
_NEW: Final = 8


def _holds_empty(value: Any) -> bool:
    """Whether a tensor of it is empty: of such `dropout` draws nothing, of others it does."""
    if isinstance(value, Tensor):
        return value.numel() == 0
    return isinstance(value, list | tuple) and any(map(_holds_empty, value))


class _Learnt:
    """What was built, and how it is run again, once somebody asks.

    Attributes:
        bytes: that it takes.
    """

    def __init__(self, built: Built, loop: RowLoop | None) -> None:
        self._built, self._loop = built, loop
        makes_constants = True in [
            node.op == "call_function" and not node.all_input_nodes for node in built.function.graph.nodes
        ]
        self.bytes = self.reading.bytes if makes_constants else function_bytes(built.function)

    @cached_property
    def reading(self) -> Reading:
        return Reading(self._built, self._loop)

    def drawn_up(self) -> Iterator[None]:
        """Works out, in parts, how it is run again."""
        yield from self.reading.drawn_up()


class SameRanks:
    """Functions by all that was asked but the extents of their inputs."""

    def __init__(self) -> None:
        self._known: BoundedCache[Any, tuple[_Learnt, ...]] = BoundedCache(_BYTES_LIMIT, _bytes)
        self._new: deque[Iterator[None]] = deque(maxlen=_NEW)

    def built(self, query: Query, shapes: Shapes, real: Real, like: Reading | None = None) -> Built | None:
        """The Function for these shapes, with their own cost and outputs; None where it has to be built, or has not the steps of `like`."""
        if not is_small(shapes.values()):
            return None
        known = self._known.get(_key(query, shapes), ())
        for learnt in known:
            begun = learnt.reading.begun(shapes)
            if begun is not None:
                is_like = like is None or learnt.reading.has_steps_of(like)
                return learnt.reading.run(begun, shapes, real) if is_like else None
        for learnt in known if like is None else ():
            more = learnt.reading.more_turns(shapes)
            if more:
                return learnt.reading.run_more_turns(shapes, real, more)
        return None

    def reading(self, query: Query, shapes: Shapes) -> Reading | None:
        """What was read for other shapes, and holds for these as far as the inputs alone say it."""
        known = self._known.get(_key(query, shapes), ()) if is_small(shapes.values()) else ()
        return next((learnt.reading for learnt in known if learnt.reading.begun(shapes) is not None), None)

    def learn(self, query: Query, shapes: Shapes, built: Built) -> None:
        """Keep what was built, where it holds for other shapes."""
        function = built.function
        is_fixed = function.static and not (function.modified or function.branches)
        is_fixed = is_fixed and not (function.random and query.operation is not None)  # which may hang on how it is called
        if not is_fixed or built.by_failure or True in [_holds_empty(node.meta.get("val")) for node in function.graph.nodes]:
            return
        key, new = _key(query, shapes), _Learnt(Built(function, built.leaves, built.cost), _row_loop(query))
        known = self._known.get(key, ())
        if not any(new.reading.is_like(learnt.reading) for learnt in known):  # that one could not be run for these sizes alone
            self._known.keep(key, (new, *known[: _READINGS - 1]))
            self._new.append(new.drawn_up())

    def improve(self) -> bool:
        """Draws up a part of how what came last is run again, which takes as long as an answer; False where there is nothing to do."""
        while self._new:
            parts = self._new.popleft()
            if next(parts, self) is not self:
                self._new.appendleft(parts)
                return True
        return False


def _row_loop(query: Query) -> RowLoop | None:
    tensors = frozenset(name for name, value in query.inputs.items() if isinstance(value, TensorData))
    is_plain = query.program is not None and {"len", "range"}.isdisjoint([*query.inputs, *query.parameters])
    numbers = frozenset(name for name, value in query.parameters.items() if isinstance(value, int | float))
    return row_loop(query.program or "", tensors, numbers) if is_plain else None


def _bytes(known: tuple[_Learnt, ...]) -> int:
    return sum(learnt.bytes for learnt in known)


def _key(query: Query, shapes: Shapes) -> Any:
    leaves = tuple([(name, len(shapes[name]), data.dtype, data.bare) for name, data in leaves_of(query.inputs)])
    asked = query.operation, query.program, query.function, repr(query.parameters), query.dtype, query.wrt, query.seed is None
    return leaves, lists_of(query.inputs), asked
