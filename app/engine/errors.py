"""PyTorch's exceptions while a Function runs or is differentiated, made into errors that a person can act on."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Final

import torch

from app.catalogue.dtypes import dtype_name
from app.catalogue.kernels.unsafe_values import UnsafeValuesError
from app.engine.tensors import is_differentiable
from app.errors import PullbackError
from app.program.errors import REFUSALS, is_memory, is_shapes, sentence, way_out
from app.program.function import Step
from app.program.graph_runner import step_of

# PyTorch refuses some inputs as variables: `soft_margin_loss` its target, `igamma` its first argument.
_CONSTANT: Final = re.compile(
    r"is not differentiable with respect to argument '(?P<argument>\w+)'|derivative for '\w+: (?P<formula>\w+)' is not implemented"
)
# The last: a few composites (`vander`) overwrite what their own backward needs.
# What PyTorch raises where another way may be open: an empty matrix has no first row to select under vmap.
_REFUSED: Final = (RuntimeError, ValueError, TypeError, IndexError, ArithmeticError)
_NO_DERIVATIVE: Final = re.compile(
    r"derivative for .* (?:is )?not implemented|not differentiable with respect to|modified by an inplace", re.I
)


def constant_input(error: BaseException, names: Sequence[str]) -> str | None:
    """The one of `names` that PyTorch takes only as a constant, if that is what the exception says."""
    match = _CONSTANT.search(str(error))
    if match is None:
        return None
    said = match["argument"] or match["formula"]
    return next((name for name in names if name == said or (said == "self" and name == "input")), None)


def translated(
    error: BaseException,
    at: str | None = None,
    what: str | None = None,
    inputs: Collection[str] = (),
    parameters: Collection[str] = (),
) -> PullbackError:
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
            fix='Name in "wrt" only inputs that have one, or want "explain" alone to see which have.',
        )
    code = "shape_mismatch" if is_shapes(error) else "operation_failed"
    step = step_of(error)
    if isinstance(error, UnsafeValuesError):
        return _unsafe(error, at and error.place(inputs, parameters), what, step)
    if step is None:
        return PullbackError(
            code, f"PyTorch refused{f' `{what}`' if what else ''}: {sentence(error)}.", at=at, fix=way_out(error)
        )
    place = f"Line {step.line}, column {step.column}: `{step.operation}` failed"
    detail = f"{place}, and PyTorch said: {sentence(error)}."
    return PullbackError(code, detail, at=f"{step.line}:{step.column}", fix=way_out(error))


def _unsafe(error: UnsafeValuesError, at: str | None, what: str | None, step: Step | None) -> PullbackError:
    detail = f"`{what}`: {error.detail}" if what else error.detail
    if step is not None:
        detail, at = f"Line {step.line}, column {step.column}: `{step.operation}`: {error.detail}", f"{step.line}:{step.column}"
    return PullbackError(error.code, detail, at=at, expected=error.expected, given=error.given, fix=error.fix)


@contextmanager
def translating_errors(
    *,
    at: str | None = None,
    what: str | None = None,
    inputs: Collection[str] = (),
    parameters: Collection[str] = (),
    through: tuple[type[BaseException], ...] = (),
) -> Iterator[None]:
    """PyTorch's exceptions in the block translated, as refusals of the operation `what` at `at`; those of `through` pass.

    `inputs`, `parameters`: the names of the operation's tensors and plain values, so that a refusal can name its place.
    """
    try:
        yield
    except PullbackError:
        raise
    except through:
        raise
    except REFUSALS as error:
        raise translated(error, at, what, inputs, parameters) from error


class Attempt(AbstractContextManager["Attempt"]):
    """A first way that PyTorch may refuse: `with Attempt() as attempt: return fast()`, and after it the second way.

    A refusal is kept in `error`. A memory error goes on: the second way would need as much, and the client must hear of it.
    """

    def __init__(self, *refused: type[Exception]) -> None:
        """`refused`: the kinds of exception that are a refusal, all of PyTorch's where none is named."""
        self.error: BaseException | None = None
        self._refused = refused or _REFUSED

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> bool:
        self.error = error
        return isinstance(error, self._refused) and not is_memory(error)


@contextmanager
def refusing_second_derivatives() -> Iterator[None]:
    """In the block a derivative is differentiated again; where PyTorch cannot, that is `not_differentiable`."""
    with Attempt(RuntimeError) as attempt:
        yield
    error = attempt.error
    if error is None:
        return
    if "does not require grad" in str(error) or isinstance(error, UnsafeValuesError):
        raise error
    raise PullbackError(
        "not_differentiable",
        "An operation here cannot be differentiated twice by PyTorch, so there is no Hessian of it.",
        given=str(error).splitlines()[0],
        fix='Ask for "gradient", or write the operation out of twice differentiable ones in a program.',
    ) from error


def no_derivative(
    title: str, wrt: Sequence[str], outputs: Mapping[str, torch.dtype], cut: tuple[Step, Step] | None = None
) -> PullbackError:
    """`not_differentiable`, with the reason: no floating input, a discrete result, or no path.

    Arguments:
        cut: of a program, the step that cuts the path, and the last one before it.
    """
    fix = 'Want "explain" alone to see the step that cuts the path, and a way out.'
    if not wrt:
        return PullbackError(
            "not_differentiable",
            f"`{title}` was given no floating or complex input, so there is nothing to differentiate with respect to.",
            at="inputs",
            expected="at least one floating or complex tensor",
            fix='Send an input as float64, or name it in "wrt".',
        )
    names = ", ".join(f"`{name}`" for name in wrt)
    discrete = [name for name, dtype in outputs.items() if not is_differentiable(dtype)]
    if len(discrete) == len(outputs):
        kinds = ", ".join(sorted({dtype_name(outputs[name]) for name in discrete}))
        return PullbackError(
            "not_differentiable",
            f"`{title}` has no derivative: its result is {kinds}, and whole numbers or truth values do not change smoothly with {names}.",
            at=f"outputs.{discrete[0]}" if discrete else "outputs",
            expected="a floating or complex output",
            given=kinds,
            fix=fix,
        )
    if cut is not None:
        step, before = cut
        return PullbackError(
            "not_differentiable",
            f"No output of `{title}` depends differentiably on {names}: line {step.line}, `{step.text}`, cuts the path.",
            at="wrt",
            fix=f"End the program with `return` and what line {before.line} computes, `{before.text}`, "
            'or leave out of the cutting line what cuts. "explain" alone says more.',
        )
    return PullbackError(
        "not_differentiable",
        f"No output of `{title}` depends differentiably on {names}: no path leads from there to an output, or a step cuts it.",
        at="wrt",
        fix=fix,
    )
