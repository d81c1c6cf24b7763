"""What a step rounds inside: log(softmax) of 0 beside 50 is 0, for what it is the difference of is 50."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from app.catalogue.operator_mode import OperatorMode
from app.engine.stepwise.point import REFUSALS
from app.engine.stepwise.trace import StepRecord, StepTrace
from app.engine.tensors import is_differentiable
from app.program.errors import tensors_in


class _Sizes(OperatorMode):
    """While active, the largest number that a call has computed, and how many have computed one."""

    def __init__(self) -> None:
        super().__init__()
        self.largest, self.calls = 0.0, 0

    def dispatch(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        results = func(*args, **kwargs)
        if not func.is_view:
            self.calls += 1
            self.largest = max([self.largest, *(_size(result) for result in tensors_in(results))])
        return results


def _size(tensor: Tensor) -> float:
    if not is_differentiable(tensor.dtype) or not tensor.numel():
        return 0.0
    return float(tensor.detach().abs().nan_to_num(0.0, 0.0, 0.0).max())


def inner_rounding(trace: StepTrace, record: StepRecord) -> float:
    """The rounding error of the largest number on the way through the step; zero where it is a single call."""
    sizes = _Sizes()
    try:
        with torch.no_grad(), sizes:
            outputs = trace.again(record, [tensor.detach() for tensor in record.inputs])
    except REFUSALS:
        return 0.0
    eps = max((torch.finfo(output.dtype).eps for output in outputs if is_differentiable(output.dtype)), default=0.0)
    return eps * sizes.largest if sizes.calls > 1 else 0.0
