"""PyTorch's exceptions, made into errors that a person can act on.

Knows which exceptions mean memory, shapes or refusal, and what of PyTorch's text to leave out. Refuses to know the query.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, TypeVar

import torch

from app.errors import PullbackError

T = TypeVar("T")

_MEMORY: Final = re.compile(r"can't allocate memory|out of memory|Cannot allocate memory|bad_alloc|not enough memory", re.I)
_SHAPES: Final = re.compile(
    r"shapes? cannot be multiplied|same reduction dim|must match the size|size mismatch|shape mismatch|not broadcastable|is invalid for input of size|"
    r"inconsistent tensor size|Sizes of tensors must match|Expected size|expected input.* to have|must have the same shape|"
    r"batch1? .*batch2?|could not be broadcast|dimensions? .* must be|incompatible (?:matrix|shapes)|stack expects each tensor|"
    r"doesn't match the broadcast shape|Given groups|weight of size|same number of dimensions|target size .* input size",
    re.I,
)
# Lines that speak of PyTorch's inside: C++ stacks, source paths, advice on debugging.
_INSIDE: Final = re.compile(
    r"^(Exception raised from|frame #|C\+\+ CapturedTraceback|Traceback|  File |For debugging|Compile with|#\d)", re.M
)
_PATHS: Final = re.compile(r"(?:at )?\"?/[\w./+-]+\.(?:cpp|h|cu|py)\"?(?::\d+)?(?:,? line \d+)?[,.]? ?")
_PREFIX: Final = re.compile(r"^(?:\w+Error|The following operation failed[^:]*): ")
# AssertionError: PyTorch's own Python rules for fakes assert on their arguments.
_REFUSALS: Final = (
    RuntimeError, ValueError, TypeError, IndexError, KeyError, NotImplementedError, ArithmeticError, AttributeError, AssertionError,
)  # fmt: skip


def sentence(error: BaseException) -> str:
    """PyTorch's message in one or two clean sentences: no stack, no path, no advice on debugging."""
    text = str(error)
    cut = _INSIDE.search(text)
    if cut:
        text = text[: cut.start()]
    text = _PATHS.sub("", _PREFIX.sub("", text.strip()))
    text = re.sub(r"\s+", " ", text).strip()
    return text or type(error).__name__


def is_memory(error: BaseException) -> bool:
    """Whether the allocator refused, on the CPU or on a GPU."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or bool(_MEMORY.search(str(error)))


def translated(error: BaseException, at: str | None = None) -> PullbackError:
    """The refusal for an exception of PyTorch: `out_of_memory`, `shape_mismatch` or `operation_failed`."""
    if is_memory(error):
        return PullbackError(
            "out_of_memory",
            "The computation needs more memory than this worker may take.",
            at=at,
            fix="Send smaller tensors, ask for `vjp` or `jvp` instead of `jacobian`, or split the query.",
        )
    code = "shape_mismatch" if _SHAPES.search(str(error)) else "operation_failed"
    return PullbackError(code, f"PyTorch refused: {sentence(error)}", at=at)


def clean(run: Callable[[], T], *, at: str | None = None, through: tuple[type[BaseException], ...] = ()) -> T:
    """`run()`, its exceptions translated; those of `through` pass."""
    try:
        return run()
    except PullbackError:
        raise
    except through:
        raise
    except (MemoryError, *_REFUSALS) as error:
        raise translated(error, at) from error
