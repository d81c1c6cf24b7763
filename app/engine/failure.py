"""PyTorch's exceptions while a Function runs, made into errors that a person can act on.

Knows which exceptions mean memory, shapes or refusal. Refuses to know the query; the cleaning of messages is program/failure.py's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from app.errors import PullbackError
from app.program.failure import REFUSALS, is_memory, is_shapes, sentence
from app.program.tape import step_of

T = TypeVar("T")


def translated(error: BaseException, at: str | None = None) -> PullbackError:
    """The refusal for an exception of PyTorch: `out_of_memory`, `shape_mismatch` or `operation_failed`."""
    if is_memory(error):
        return PullbackError(
            "out_of_memory",
            "The computation needs more memory than this worker may take.",
            at=at,
            fix="Send smaller tensors, ask for `vjp` or `jvp` instead of `jacobian`, or split the query.",
        )
    code = "shape_mismatch" if is_shapes(error) else "operation_failed"
    step = step_of(error)
    if step is None:
        return PullbackError(code, f"PyTorch refused: {sentence(error)}.", at=at)
    place = f"Line {step.line}, column {step.column}: `{step.operation}` failed"
    return PullbackError(code, f"{place}, and PyTorch said: {sentence(error)}.", at=f"{step.line}:{step.column}")


def clean(run: Callable[[], T], *, at: str | None = None, through: tuple[type[BaseException], ...] = ()) -> T:
    """`run()`, its exceptions translated; those of `through` pass."""
    try:
        return run()
    except (PullbackError, *through):
        raise
    except REFUSALS as error:
        raise translated(error, at) from error
