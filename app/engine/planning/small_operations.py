"""Operations that were planned for inputs of these ranks: what is known to be small is built on its values, without a plan on fakes.

A plan on fakes takes milliseconds, several times what a small operation takes. What it guards against is memory: an operation of two
elements can make gigabytes. So it is left out only where the same operation, with the same parameters and ranks, was planned on fakes
before, was static and took little, and no extent has more than doubled since: results are products of extents, so they have grown by a
factor of 2 for each axis that enters, 4096 for the dozen of the worst. And only where both ways gave the same plan once: now and then
PyTorch takes other steps on fakes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from app.engine.planning.build import Built, leaves_of
from app.query import Query

# Chosen: 4096 numbers of float64 are 32 kB, what a core's first cache holds, so that planning on values computes next to nothing. The bytes
# bound what is made of them: `tile` makes gigabytes of two elements.
_ELEMENTS_LIMIT: Final = 4096
_BYTES_LIMIT: Final = 64 << 10
_CACHE_LENGTH: Final = 1024  # signatures: more than the catalogue has operations

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(slots=True)
class _Known:
    """The largest shapes that took little; `is_same`: whether both ways gave the same plan, None before they were compared."""

    shapes: Shapes
    is_same: bool | None = None


class SmallOperations:
    """What is known of operations that were planned and took little."""

    def __init__(self) -> None:
        self._known: OrderedDict[Any, _Known] = OrderedDict()

    def built(self, query: Query, shapes: Shapes, build: Callable[[bool], Built]) -> Built:
        """What `build` gives for a query of these shapes: on values (True) where that is known to be safe and the same, else on fakes."""
        if query.operation is None or sum(map(_elements, shapes.values())) > _ELEMENTS_LIMIT:
            return build(False)
        signature = _signature(query, shapes)
        known = self._known.get(signature)
        is_near = known is not None and all(
            extent <= 2 * before
            for name, shape in shapes.items()
            for extent, before in zip(shape, known.shapes[name], strict=True)
        )
        if known is not None and is_near and known.is_same:
            result = build(True)
        else:
            result = build(False)
            if known is not None and is_near and known.is_same is None:
                other = build(True)
                known.is_same = (other.cost, other.leaves) == (result.cost, result.leaves)
        self._learn(signature, shapes, result)
        return result

    def _learn(self, signature: Any, shapes: Shapes, built: Built) -> None:
        is_small = built.cost is not None and built.cost.bytes <= _BYTES_LIMIT
        if not is_small or not built.function.static or built.function.random:
            return
        known = self._known.setdefault(signature, _Known(shapes))
        if sum(map(_elements, known.shapes.values())) < sum(map(_elements, shapes.values())):
            known.shapes = shapes
        self._known.move_to_end(signature)
        if len(self._known) > _CACHE_LENGTH:
            self._known.popitem(last=False)


def _elements(shape: tuple[int, ...]) -> int:
    count = 1
    for extent in shape:
        count *= extent
    return count


def _signature(query: Query, shapes: Shapes) -> Any:
    leaves = tuple((name, len(shapes[name]), data.dtype, data.bare) for name, data in leaves_of(query.inputs))
    return query.operation, leaves, repr(query.parameters), query.dtype
