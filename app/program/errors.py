"""What PyTorch said when it refused a step, made into a refusal that a person can act on."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from app.catalogue.kernels.unsafe_values import UnsafeValuesError
from app.program.reading.source import Refusal
from app.program.semantics.static import named

_SHAPES: Final = re.compile(
    r"cannot be multiplied|must match the size|size mismatch|shape mismatch|not broadcastable|not be broadcast|to broadcast a dim"
    r"|is invalid for input of size|does not broadcast|inconsistent tensor size|Sizes of tensors must match|Expected size|must have the same"
    r"|expected input.* to have|equal size|same reduction dim|Given groups|weight of size|same number of dim|target size|batch.?size"
    r"|square matrices|size of tensor|number of channels|but got input of size|Expected .*D .*input|inconsistent|mat1|1D tensors expected"
    r"|vector.*expected|incompatible|Expected tensor to have size|out of bounds for dimension|doesn't match|does not match|same shape"
    r"|shape '.*' is invalid|must be smaller than|must be equal to|expand\(|only .*batches",
    re.I,
)
_SIZES: Final = re.compile(
    r"Storage size calculation overflowed|numel: integer multiplication overflow|Trying to create tensor with negative", re.I
)
# The last: cuBLAS, cuSOLVER, cuSPARSE and cuFFT, which take memory of their own on a GPU.
_MEMORY: Final = re.compile(
    r"can't allocate memory|out of memory|bad_alloc|not enough memory|Cannot allocate memory"
    r"|CU[A-Z]+(_STATUS)?_(ALLOC_FAILED|INSUFFICIENT_RESOURCES)",
    re.I,
)
# What to send instead, where PyTorch's message tells: what is no matter of shapes, though its words are of one.
_NO_INDEX: Final = re.compile(
    r"index -?\d+ is out of bounds for dimension \d+ with size (\d+)|tried to access index -?\d+ on a tensor of (\d+) elements"
)
_NO_AXIS: Final = re.compile(r"Dimension out of range \(expected to be in range of \[(-?\d+), (-?\d+)\]")
_WAYS_OUT: Final = (
    (re.compile(r"Class values must be"), "Send classes from 0 to num_classes - 1, or a larger num_classes."),
    (
        re.compile(r"[Tt]arget'? (-?\d+ )?is out of (bounds|range)|target out of range"),
        "Send targets from 0 to the number of classes - 1.",
    ),
    (re.compile(r"index out of range in self"), "Take indices from 0 to the length of the axis - 1."),
    (re.compile(r"invalid max index"), "Send indices as the pooling gives them: places within the output."),
    (re.compile(r"only supports 1-d non-negative|repeats can not be negative"), "Send whole numbers from 0."),
    (
        re.compile(r"reduction dim.*numel\(\) == 0|non-zero size"),
        "Send a tensor with an element along the axis that is reduced.",
    ),
)
# Lines that speak of PyTorch's inside: C++ stacks, source paths, advice on debugging.
_INSIDE: Final = re.compile(
    r"^(Exception raised from|frame #|C\+\+ CapturedTraceback|Traceback|  File |For debugging|Compile with|#\d)", re.M
)
_PATHS: Final = re.compile(r"(?:at )?\"?(?:/|\.\./)[\w./+-]+\.(?:cpp|h|cu|cuh|py)\"?(?::\d+)?(?:,? line \d+)?[,.]? ?")
_ASSERTION: Final = re.compile(
    r".*INTERNAL ASSERT FAILED[^,]*, please report a bug to PyTorch\.\s*|Expected .* to be [Tt]rue, but got [Ff]alse\.\s*\(.*",
    re.S,
)
_SIGNATURES: Final = re.compile(r",? but expected one of:.*", re.S)
_NOTHING_SAID: Final = "the arguments do not fit"
_LENGTH: Final = 400  # characters of what PyTorch says: twice the longest (190) of 685 of its own error samples

# The exceptions with which PyTorch's public functions refuse their arguments; AssertionError is what its Python rules raise.
REFUSALS: Final = (
    RuntimeError, ValueError, TypeError, IndexError, KeyError, ArithmeticError, AttributeError, AssertionError, MemoryError,
)  # fmt: skip

# Every refusal under fake tensors would be logged with its whole stack, although it is answered to the client.
logging.getLogger("torch._subclasses.fake_tensor").setLevel(logging.CRITICAL)


def sentence(error: BaseException) -> str:
    """PyTorch's message, cleaned: no stack, no path, no advice on debugging, no list of overloads."""
    text = str(error)
    cut = _INSIDE.search(text)
    text = _ASSERTION.sub("", text[: cut.start()] if cut else text)
    text = _SIGNATURES.sub("", _PATHS.sub("", text))
    text = re.sub(r"\bFakeTensor(\(\.\.\.[^)]*\))?", "Tensor", text).replace("torch.Size", "")
    text = re.sub(r"\s+", " ", text).strip().rstrip(".,;")
    if len(text) > _LENGTH:
        text = text[: _LENGTH - 1] + "…"
    return text or _NOTHING_SAID


def is_memory(error: BaseException) -> bool:
    """Whether an allocator refused, on the CPU or on a GPU."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or bool(_MEMORY.search(str(error)))


def is_shapes(error: BaseException) -> bool:
    """Whether PyTorch's message is about shapes that do not fit together."""
    return not isinstance(error, TypeError) and bool(_SHAPES.search(str(error)))


def way_out(error: BaseException) -> str | None:
    """What to send instead, where PyTorch's message tells."""
    message = str(error)
    if axis := _NO_AXIS.search(message):
        return f"Take an axis from {axis[1]} to {axis[2]}."
    if outside := _NO_INDEX.search(message):
        extent = int(outside[1] or outside[2])
        return (
            f"Take indices from 0 to {extent - 1}."
            if extent
            else "That axis is empty: send one with elements, or take nothing of it."
        )
    return next((advice for pattern, advice in _WAYS_OUT if pattern.search(message)), None)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in nested arguments, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for member in value:
            yield from tensors_in(member)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))
    elif isinstance(value, slice):
        yield from tensors_in([value.start, value.stop, value.step])


def argument_tensors(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """The tensors that a call is given, in order, with those of lists one by one."""
    tensors: list[Tensor] = []
    for value in (*args, *kwargs.values()) if kwargs else args:
        if isinstance(value, Tensor):
            tensors.append(value)
        elif isinstance(value, list | tuple | dict | slice):
            tensors += tensors_in(value)
    return tensors


def shown(tensor: Tensor) -> str:
    """Dtype and shape: `float64[2, 3]`."""
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def refusal(error: BaseException, operation: str, arguments: Iterable[Any], usage: Callable[[], str] | None = None) -> Refusal:
    """The refusal for an exception of PyTorch: `shape_mismatch`, `too_costly`, `out_of_memory` or `operation_failed`.

    Arguments:
        arguments: what the step was given; shapes and dtypes are reported, values are not.
        usage: gives the operation's signatures, for a call with wrong arguments.
    """
    members = list(arguments)
    received = ", ".join(shown(t) for t in tensors_in(members)) or ", ".join(named(m) for m in members) or "nothing"
    if isinstance(error, UnsafeValuesError):
        return Refusal(f"`{operation}`: {error.detail}", error.fix, code=error.code, expected=error.expected, given=error.given)
    message = str(error)
    if is_memory(error):
        return Refusal(
            f"`{operation}` needs more memory than this worker may take.",
            "Send smaller tensors.",
            code="out_of_memory",
            given=received,
        )
    if _SIZES.search(message):
        return Refusal(
            f"`{operation}` would make a tensor larger than any memory.",
            "Use smaller sizes.",
            code="too_costly",
            given=received,
        )
    code = "shape_mismatch" if is_shapes(error) else "operation_failed"
    said = sentence(error)
    expected = usage() if usage and (isinstance(error, TypeError) or said == _NOTHING_SAID) else None
    return Refusal(
        f"`{operation}` was given {received}, and PyTorch refused: {said}.",
        way_out(error) or _advice(operation, members, code),
        code=code,
        expected=expected,
        given=received,
        raises=_python_name(error),
    )


def _python_name(error: BaseException) -> str:
    """Python's own name of what PyTorch raised: its classes extend Python's; that of matrices is asked for by its name."""
    if type(error).__name__.endswith("LinAlgError"):
        return "LinAlgError"
    return next((kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins"), "RuntimeError")


def _advice(operation: str, members: list[Any], code: str) -> str | None:
    if code != "shape_mismatch" or operation not in ("@", "matmul", "mm", "bmm"):
        return None
    tensors = list(tensors_in(members))
    if len(tensors) == 2 and tensors[0].ndim and tensors[1].ndim > 1 and tensors[0].shape[-1] == tensors[1].shape[-1]:
        return "Transpose the second: `a @ b.mT`."
    if (
        len(tensors) == 2
        and tensors[0].ndim > 1
        and tensors[1].ndim
        and tensors[0].shape[-2] == tensors[1].shape[-min(2, tensors[1].ndim)]
    ):
        return "Transpose the first: `a.mT @ b`."
    return None
