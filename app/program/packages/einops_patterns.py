"""`einops.rearrange`, `reduce`, `repeat` and `einsum`: the package itself, as steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import einops
import einops.layers.torch
import torch
from torch import Tensor

from app.program.errors import sentence
from app.program.modules.layers import LayerValue
from app.program.reading.source import Refusal
from app.program.semantics import static
from app.program.semantics.graph_values import Emit, Value, fixed, is_tensor
from app.program.semantics.trace import ELEMENT_LIMIT

LAYERS: Final = ("einops.layers.torch.Rearrange", "einops.layers.torch.Reduce")
NAMES: Final = ("einops.rearrange", "einops.reduce", "einops.repeat", "einops.einsum")


def rearranged(name: str, pattern: str, extra: tuple[str, ...], axes: tuple[tuple[str, int], ...], tensor: Any) -> Tensor:
    """The step: einops' own function. Raises its EinopsError, a RuntimeError, where pattern and shape do not fit."""
    result: Tensor = getattr(einops, name)(tensor, pattern, *extra, **dict(axes))
    return result


def contracted(pattern: str, *tensors: Tensor) -> Tensor:
    result: Tensor = einops.einsum(*tensors, pattern)  # type: ignore[call-overload]
    return result


def call(emit: Emit, path: str, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> Value:
    """`rearrange(x, "b (h d) -> b h d", h=2)`; raises a refusal where an argument is none of einops'."""
    name = path.rpartition(".")[2]
    if name == "einsum":
        return _einsum(emit, args)
    options = dict(kwargs)
    values = list(args)
    tensor = values.pop(0) if values else options.pop("tensor", None)
    pattern = values.pop(0) if values else options.pop("pattern", None)
    extra = () if name != "reduce" else (values.pop(0) if values else options.pop("reduction", None),)
    if isinstance(tensor, list | tuple) and tensor and all(map(is_tensor, tensor)):
        tensor = emit("stack", torch.stack, (list(tensor),), {})
    if not is_tensor(tensor) or not isinstance(pattern, str) or values or not all(isinstance(e, str) for e in extra):
        raise Refusal(f"`{path}` takes a tensor and a pattern.", f'Write `{name}(x, "b (h d) -> b h d", h=2)`.')
    size = 1
    for key, value in options.items():
        size *= max(static.integer(value, f"The length of the axis `{key}`"), 1)
        if size > ELEMENT_LIMIT:
            raise Refusal(f"`{path}` would make a tensor of more than {ELEMENT_LIMIT:,} elements.", code="too_costly")
    return emit(path, fixed(rearranged, name, pattern, extra, tuple(options.items())), (tensor,), {})


def layer(path: str, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> LayerValue:
    """`Rearrange("b c h w -> b (c h w)")` of `einops.layers.torch`: a module without weights."""
    name = path.rpartition(".")[2]
    size = 1
    for key, value in kwargs.items():
        size *= max(static.integer(value, f"The length of the axis `{key}`"), 1)
    if not args or not all(isinstance(value, str) for value in args) or size > ELEMENT_LIMIT:
        raise Refusal(f"`{name}` takes a pattern and the lengths of axes.", f'Write `{name}("b (h d) -> b h d", h=2)`.')
    try:
        return LayerValue(name, getattr(einops.layers.torch, name)(*args, **kwargs), {}, {})
    except (einops.EinopsError, TypeError) as error:
        raise Refusal(f"einops refuses `{name}`: {sentence(error)}.") from error


def _einsum(emit: Emit, args: tuple[Value, ...]) -> Value:
    *tensors, pattern = args
    if not tensors or not isinstance(pattern, str) or not all(map(is_tensor, tensors)):
        raise Refusal("`einops.einsum` takes tensors and then a pattern.", 'Write `einsum(a, b, "i j, j k -> i k")`.')
    return emit("einops.einsum", contracted, (pattern, *tensors), {})
