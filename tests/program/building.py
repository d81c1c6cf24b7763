"""Builds programs as a worker does: on fakes, on real tensors where data decides a shape; and runs them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from app.program.compiler import build_program
from app.program.function import Function
from app.program.semantics.trace import DYNAMIC

Inputs = Mapping[str, Tensor | tuple[Tensor, ...]]


def tensors(**values: Any) -> dict[str, Tensor]:
    """Named tensors out of lists and numbers; floating ones in float64."""
    return {name: value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value)) for name, value in values.items()}


def built(
    text: str, inputs: Inputs, parameters: Mapping[str, Any] | None = None, dtype: torch.dtype = torch.float64
) -> Function:
    """The Function of `text`, built on fakes where that is possible."""
    frozen = {name: _frozen(value) for name, value in (parameters or {}).items()}
    with FakeTensorMode() as mode:
        fakes = {
            name: tuple(mode.from_tensor(t) for t in value) if isinstance(value, tuple) else mode.from_tensor(value)
            for name, value in inputs.items()
        }
        try:
            return build_program(text, fakes, frozen, dtype)
        except DYNAMIC:
            pass
    return build_program(text, inputs, frozen, dtype)


def _frozen(value: Any) -> Any:
    return tuple(_frozen(member) for member in value) if isinstance(value, list) else value


def flat(inputs: Inputs) -> list[Tensor]:
    return [tensor for value in inputs.values() for tensor in (value if isinstance(value, tuple) else (value,))]


def answer(
    text: str, inputs: Inputs, parameters: Mapping[str, Any] | None = None, dtype: torch.dtype = torch.float64
) -> dict[str, Tensor]:
    """Outputs by name. What was built on fakes must agree with what is built on the tensors themselves."""
    function = built(text, inputs, parameters, dtype)
    outputs = dict(zip(function.outputs, function.call(*flat(inputs)), strict=True))
    real = build_program(text, inputs, {name: _frozen(value) for name, value in (parameters or {}).items()}, dtype)
    if not function.random:
        for name, value in zip(real.outputs, real.call(*flat(inputs)), strict=True):
            torch.testing.assert_close(value, outputs[name], rtol=0, atol=0, equal_nan=True)
    for node, value in zip(function.graph.output_node().args[0], outputs.values(), strict=True):  # type: ignore[arg-type]
        example = node.meta["val"]
        assert (example.shape, example.dtype) == (value.shape, value.dtype)
    return outputs
