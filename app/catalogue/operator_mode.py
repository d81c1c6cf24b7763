"""A mode that sees each operator as PyTorch calls it; what it runs has the result that it has outside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Final

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_KEYS: Final = torch._C.DispatchKey
_exclude: Final = torch._C._SetExcludeDispatchKeyGuard


class OperatorMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Subclasses say in `dispatch` what they do with a call.

    Attributes:
        times: how many calls one that is seen stands for.
        only_counts: calls that another stands for need not be seen.
    """

    times: ClassVar[float] = 1
    only_counts = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()  # type: ignore[no-untyped-call]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else each step pays 40 µs so that torch.compile, which we do not use, leaves this method alone

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        # A kernel that is made of others (pinv, lstsq) conjugates by a mark, and PyTorch calls a mode with the keys that heed such
        # marks switched off: the others would take their arguments for what they are not.
        with _exclude(_KEYS.Conjugate, False), _exclude(_KEYS.Negative, False):
            return self.dispatch(func, args, dict(kwargs) if kwargs else {})

    def dispatch(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of `func(*args, **kwargs)`, or what is to stand in its place."""
        return func(*args, **kwargs)


@contextmanager
def standing_for(times: float) -> Iterator[None]:
    """Each call that a mode sees here stands for so many."""
    before, OperatorMode.times = OperatorMode.times, times
    try:
        yield
    finally:
        OperatorMode.times = before
