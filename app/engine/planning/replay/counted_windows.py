"""What convolutions and pools of windows give, and how they are counted: by the geometries of their tensors alone."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import fx

from app.engine.planning.bounded_counter import BoundedCounter
from app.engine.planning.cost import call_facts
from app.engine.planning.replay.counted_kernels import SAME_DTYPES, Direct, counted
from app.engine.planning.replay.geometries import Geometry, row_major, row_major_strides

_CONVOLVE: Final = call_facts(torch.ops.aten.convolution.default)
_MAX_POOL: Final = call_facts(torch.ops.aten.max_pool2d_with_indices.default)
# What these take behind their tensors, and what they take where that is left out.
_CONVOLUTION: Final[dict[str, Any]] = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
_POOL: Final[dict[str, Any]] = {
    "kernel_size": None, "stride": None, "padding": 0, "dilation": 1, "ceil_mode": False, "return_indices": False,
}  # fmt: skip
_SWITCHES: Final = ("ceil_mode", "return_indices")


def convolution(node: fx.Node, ranks: list[int]) -> Direct | None:
    """`conv2d` of a batch."""
    plain = node.args[len(ranks) :]
    if len(ranks) == 2 and plain and plain[0] is None:  # the bias
        plain = plain[1:]
    are_plain = ranks in ([4, 4], [4, 4, 1]) and all(map(_is_pair, (*plain, *node.kwargs.values())))
    return _convolution if are_plain and len(plain) <= len(_CONVOLUTION) and node.kwargs.keys() <= _CONVOLUTION.keys() else None


def _convolution(counter: BoundedCounter, args: Any, kwargs: Any) -> Any:
    """Of what stands row by row so does the result."""
    data, weight, *rest = args
    bias = rest.pop(0) if rest and (rest[0] is None or type(rest[0]) is Geometry) else None
    options = _CONVOLUTION | dict(zip(_CONVOLUTION, rest, strict=False)) | kwargs
    stride, padding, dilation = [_pair(options[name]) for name in ("stride", "padding", "dilation")]
    groups, tensors = options["groups"], (data, weight) if bias is None else (data, weight, bias)
    are_plain = all(map(_is_plain, tensors)) and all(tensor.dtype == data.dtype for tensor in tensors)
    if not are_plain or type(groups) is not int or groups < 1 or data.shape[1] != weight.shape[1] * groups:
        return NotImplemented
    channels = weight.shape[0]
    extents = _windows(data.shape[2:], weight.shape[2:], stride, padding, dilation)
    if extents is None or channels % groups or (bias is not None and bias.shape != (channels,)):
        return NotImplemented
    sent = data, weight, bias, stride, padding, dilation, False, [0, 0], groups
    return counted(counter, _CONVOLVE, sent, row_major((data.shape[0], channels, *extents), data.dtype))


def max_pool(node: fx.Node, ranks: list[int]) -> Direct | None:
    """`max_pool2d` whose windows lie within."""
    plain, named = node.args[1:], node.kwargs
    options = _POOL | dict(zip(_POOL, plain, strict=False)) | named
    is_plain = (
        ranks in ([3], [4]) and len(node.all_input_nodes) == 1 and len(plain) <= len(_POOL) and named.keys() <= _POOL.keys()
    )
    are_pairs = all(
        _is_pair(value) for name, value in options.items() if name not in _SWITCHES and (name, value) != ("stride", None)
    )
    return _max_pool if is_plain and are_pairs and all(options[name] is False for name in _SWITCHES) else None


def _max_pool(counter: BoundedCounter, args: Any, kwargs: Any) -> Any:
    data, *rest = args
    options = _POOL | dict(zip(_POOL, rest, strict=False)) | kwargs
    window, padding, dilation = [_pair(options[name]) for name in ("kernel_size", "padding", "dilation")]
    stride = window if options["stride"] is None else _pair(options["stride"])
    extents = _windows(data.shape[-2:], tuple(window), stride, padding, dilation)
    if not _is_plain(data) or extents is None or any(2 * added > size for added, size in zip(padding, window, strict=True)):
        return NotImplemented
    result = row_major((*data.shape[:-2], *extents), data.dtype)
    counter.check(2 * result.elements)  # the largest, and where they stand
    counter.count(_MAX_POOL, (data,), (result, row_major(result.shape, torch.int64)))
    return result


def _windows(
    shape: tuple[int, ...], window: tuple[int, ...], stride: list[int], padding: list[int], dilation: list[int]
) -> tuple[int, ...] | None:
    """How many windows there are along each axis; None where PyTorch may have something against them."""
    if min(*window, *stride, *dilation) < 1 or min(padding) < 0:
        return None
    counts = tuple([
        (extent + 2 * added - apart * (size - 1) - 1) // step + 1
        for extent, size, step, added, apart in zip(shape, window, stride, padding, dilation, strict=True)
    ])  # fmt: skip
    return counts if min(counts) > 0 else None


def _is_plain(tensor: Geometry) -> bool:
    """Kernels give what they are given row by row in the same way, and strides of axes with one member say nothing else."""
    return bool(tensor.elements) and tensor.strides == row_major_strides(tensor.shape) and tensor.dtype in SAME_DTYPES


def _is_pair(value: Any) -> bool:
    """A whole number, or two."""
    parts = value if isinstance(value, list | tuple) else (value,)
    return len(parts) in (1, 2) and all(type(part) is int for part in parts)


def _pair(value: Any) -> list[int]:
    parts = list(value) if isinstance(value, list | tuple) else [value]
    return parts * 2 if len(parts) == 1 else parts
