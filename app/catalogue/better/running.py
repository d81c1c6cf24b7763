"""What running sums and running products along a dimension have in common as functions with derivatives of their own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Running(torch.autograd.Function):
    """A `forward(x, dim)` whose derivatives in both modes are computed from its input and its result."""

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)
        ctx.save_for_forward(inputs[0], output)
        ctx.dim = inputs[1]
