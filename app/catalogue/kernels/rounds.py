"""Functions that PyTorch writes in Python and that go round as often as they are told, with how often they may."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Final

from app.catalogue.kernels.unsafe_values import UnsafeValuesError

# Path from `torch` → the argument, and its limit: power iterations beyond a few change nothing, a thousand take a second to plan.
_ROUNDS: Final[dict[str, tuple[str, int]]] = {"svd_lowrank": ("niter", 1000), "pca_lowrank": ("niter", 1000)}


def limited(path: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` itself, or where it goes round in Python, `function` that refuses too many rounds (UnsafeValuesError, `too_costly`)."""
    if path not in _ROUNDS:
        return function
    argument, limit = _ROUNDS[path]
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        rounds = signature.bind_partial(*args, **kwargs).arguments.get(argument)
        if isinstance(rounds, int) and rounds > limit:
            detail = f"It would go round {rounds:,} times; the limit is {limit:,}."
            raise UnsafeValuesError(argument, detail, f"at most {limit:,}", f"{rounds:,}", code="too_costly")
        return function(*args, **kwargs)

    return checked
