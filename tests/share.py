"""How many examples of one demand `make test` asks: a fixed share with every class in it; `make sweep` (`pytest --whole`) asks all.

Parameters of a test by its mark: `@pytest.mark.share(4)` is every fourth, `share(4, of="name")` every fourth of each `name`, one at least,
another place in turn, so that the other parameters come too. Lists that a test goes through by itself: `share(cases, 4)`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar

import pytest

T = TypeVar("T")
_asked = {"whole": False}


def ask_whole(whole: bool) -> None:
    """Before tests are imported: whether all is asked."""
    _asked["whole"] = whole


def is_whole() -> bool:
    return _asked["whole"]


def share(cases: Iterable[T], one_in: int, of: Callable[[Any], Hashable] = lambda _: None) -> list[T]:
    """Every `one_in`-th case of each class, one at least, in the same order, always the same; all cases where all is asked."""
    cases = list(cases)
    if is_whole():
        return cases
    classes: dict[Hashable, list[int]] = defaultdict(list)
    for index, case in enumerate(cases):
        classes[of(case)].append(index)
    chosen = {
        index for turn, indices in enumerate(classes.values()) for index in indices[turn % min(one_in, len(indices)) :: one_in]
    }
    return [case for index, case in enumerate(cases) if index in chosen]


def shared(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """What is asked of collected tests."""
    of_function: dict[Hashable, list[pytest.Function]] = defaultdict(list)
    for item in items:
        if isinstance(item, pytest.Function) and item.get_closest_marker("share") is not None:
            of_function[item.path, item.originalname].append(item)
    left_out: set[pytest.Item] = set()
    for cases in of_function.values():
        left_out.update(set(cases) - set(share(cases, _mark(cases[0]).args[0], _class)))
    return [item for item in items if item not in left_out]


def _mark(item: pytest.Function) -> pytest.Mark:
    return next(item.iter_markers("share"))


def _class(item: pytest.Function) -> Hashable:
    return tuple(item.callspec.params[name] for name in _mark(item).kwargs.get("of", "").split())
