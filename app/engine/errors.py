"""PyTorch's exceptions while a Function runs, made into errors that a person can act on.

Knows which exceptions mean memory, shapes or refusal. Refuses to know the query; the cleaning of messages is program/failure.py's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from app.errors import PullbackError
from app.program.errors import REFUSALS, is_memory, is_shapes, sentence
from app.program.graph_runner import step_of

T = TypeVar("T")


# PyTorch refuses some inputs as variables: `soft_margin_loss` its target, `igamma` its first argument.
_CONSTANT: Final = re.compile(
    r"is not differentiable with respect to argument '(?P<argument>\w+)'|derivative for '\w+: (?P<formula>\w+)' is not implemented"
)
# The last: a few composites (`vander`) overwrite what their own backward needs.
_NO_DERIVATIVE: Final = re.compile(
    r"derivative for .* (?:is )?not implemented|not differentiable with respect to|modified by an inplace", re.I
)


def constant_input(error: BaseException, names: Sequence[str]) -> str | None:
    """The one of `names` that PyTorch takes only as a constant, if that is what the exception says."""
    found = _CONSTANT.search(str(error))
    if found is None:
        return None
    said = found["argument"] or found["formula"]
    return next((name for name in names if name == said or (said == "self" and name == "input")), None)


def translated(error: BaseException, at: str | None = None, what: str | None = None) -> PullbackError:
    """The refusal for an exception of PyTorch: `out_of_memory`, `shape_mismatch` or `operation_failed`."""
    if is_memory(error):
        return PullbackError(
            "out_of_memory",
            "The computation needs more memory than this worker may take.",
            at=at,
            fix="Send smaller tensors, ask for `vjp` or `jvp` instead of `jacobian`, or split the query.",
        )
    if _NO_DERIVATIVE.search(str(error)):
        return PullbackError(
            "not_differentiable",
            f"PyTorch has no derivative here: {sentence(error)}.",
            at=at,
            fix='Name in "wrt" only inputs that have one, or want "explain" to see which have.',
        )
    code = "shape_mismatch" if is_shapes(error) else "operation_failed"
    step = step_of(error)
    if step is None:
        return PullbackError(code, f"PyTorch refused{f' `{what}`' if what else ''}: {sentence(error)}.", at=at)
    place = f"Line {step.line}, column {step.column}: `{step.operation}` failed"
    return PullbackError(code, f"{place}, and PyTorch said: {sentence(error)}.", at=f"{step.line}:{step.column}")


def clean(
    run: Callable[[], T], *, at: str | None = None, what: str | None = None, through: tuple[type[BaseException], ...] = ()
) -> T:
    """`run()`, its exceptions translated, as refusals of the operation `what` at `at`; those of `through` pass."""
    try:
        return run()
    except PullbackError:
        raise
    except through:
        raise
    except REFUSALS as error:
        raise translated(error, at, what) from error
