"""What must hold of a kernel's arguments on a GPU, where PyTorch's kernels assert what its CPU kernels refuse.

An assertion that fails on a GPU ends the process: its CUDA context is lost. Each check refuses what the kernel of the same name refuses
on the CPU, and raises UnsafeValuesError. The kernels are those of PyTorch 2.13.0 that hold a `CUDA_KERNEL_ASSERT` on values.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from app.catalogue.kernels.checks import Arguments, Check, within
from app.catalogue.kernels.unsafe_values import UnsafeValuesError


def along(tensor: str = "self", index: str = "index", *, wraps: bool = False) -> Check:
    """`index` holds places along the axis `dim` of `tensor`; from its end, too, where it `wraps`."""

    def check(arguments: Arguments) -> None:
        shape, dim = arguments[tensor].shape or (1,), arguments["dim"]
        if -len(shape) <= dim < len(shape):  # else PyTorch has its own words
            size = shape[dim]
            _within(arguments[index], size, f"axis {dim} has {size} elements, and the indices run", index, wraps=wraps)

    return check


def _within(index: Tensor, size: int, words: str, argument: str, *, wraps: bool = True) -> None:
    within(index, -size if wraps else 0, size - 1, argument, words)


def flat(arguments: Arguments) -> None:
    """`index` holds places among all elements, or from their end."""
    size = arguments["self"].numel()
    _within(arguments["index"], size, f"There are {size} elements, and the indices run", "index")


def indices(arguments: Arguments) -> None:
    """Each tensor of `indices` that is no mask holds places along its axis, or from its end."""
    shape, axis = arguments["self"].shape, 0
    for index in arguments["indices"]:
        if index is not None and index.dtype in (torch.bool, torch.uint8):
            axis += index.dim()  # a mask stands for as many axes as it has
            continue
        if index is not None and axis < len(shape):
            _within(index, shape[axis], f"Axis {axis} has {shape[axis]} elements, and the indices run", "indices")
        axis += 1


def masked_scatter(arguments: Arguments) -> None:
    """There is an element of `source` for each that the mask chooses."""
    tensor, mask, source = arguments["self"], arguments["mask"], arguments["source"]
    try:
        chosen = int(mask.expand(tensor.shape).sum())
    except RuntimeError:
        return  # PyTorch's own refusal
    if chosen > source.numel():
        raise UnsafeValuesError(
            "source",
            f"The mask chooses {chosen} elements, and `source` has {source.numel()}.",
            f"at least {chosen} elements",
            f"{source.numel()}",
        )


def classes(axis: int) -> Check:
    """Every target is a class of the scores, whose axis `axis` has one entry for each, or `ignore_index` where there is one."""

    def check(arguments: Arguments) -> None:
        scores, target = arguments["self"], arguments["target"]
        count = scores.shape[axis] if scores.dim() > max(axis, 0) else 1
        counted = target[target != arguments["ignore_index"]] if "ignore_index" in arguments else target
        within(counted, 0, count - 1, "target", f"Every target must be a class below {count}; the targets run")

    return check


def targets_of_classes(arguments: Arguments) -> None:
    """A row of targets is filled up with -1."""
    scores = arguments["self"]
    count = scores.shape[-1] if scores.dim() else 1
    within(arguments["target"], -1, count - 1, "target", f"Every target must be a class below {count}, or -1; the targets run")


def probabilities(*names: str) -> Check:
    """Every number of these arguments is from 0 to 1."""

    def check(arguments: Arguments) -> None:
        for name in names:
            values = arguments[name]
            if not bool(((values >= 0) & (values <= 1)).all()):
                public = "input" if name == "self" else name
                raise UnsafeValuesError(public, f"Every number of `{public}` must be from 0 to 1.", "numbers from 0 to 1")

    return check


def rates(arguments: Arguments) -> None:
    if not bool((arguments["self"] >= 0).all()):
        raise UnsafeValuesError("input", "A rate is not negative.", "numbers from 0")


def weights_to_draw_by(arguments: Arguments) -> None:
    """Each row is of finite numbers from 0 on, and not all of them 0."""
    weights = arguments["self"]
    if weights.dim() == 0 or weights.numel() == 0:
        return
    valid = torch.isfinite(weights).all() & (weights >= 0).all() & (weights.sum(-1) > 0).all()
    if not bool(valid):
        raise UnsafeValuesError(
            "input",
            "Weights to draw by are finite, not negative, and not all 0.",
            "finite numbers from 0, one above 0 in each row",
        )


def repeats(arguments: Arguments) -> None:
    """Counts are not negative, and sum to `output_size` where that is said."""
    counts = arguments["repeats"]
    if counts.numel() == 0 or counts.dtype not in (torch.int32, torch.int64):
        return
    least, total = torch.stack((counts.min().to(torch.int64), counts.sum(dtype=torch.int64))).tolist()
    if least < 0:
        raise UnsafeValuesError("repeats", f"A count of repeats is not negative; {least} came.", "integers from 0", f"{least}")
    expected = arguments["output_size"]
    if expected is not None and expected != total:
        raise UnsafeValuesError(
            "output_size", f"The repeats sum to {total}, and `output_size` is {expected}.", f"{total}", f"{expected}"
        )


def unpooled(arguments: Arguments) -> None:
    """Every index is a place in one channel of the result."""
    size = math.prod(arguments["output_size"])
    within(arguments["indices"], 0, size - 1, "indices", f"A channel of the result has {size} elements, and the indices run")


def renormed(arguments: Arguments) -> None:
    rows = arguments["self"].shape[0] if arguments["self"].dim() else 0
    within(arguments["indices"], 0, rows - 1, "input", f"`weight` has {rows} rows, and the indices run")


def asserted(arguments: Arguments) -> None:
    value: Any = arguments["self"]
    if value.numel() == 1 and not bool(value):
        raise UnsafeValuesError("input", "What is asserted here does not hold.", "a value that is not 0")
