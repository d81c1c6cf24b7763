"""Recurrent networks while a plan is made: what a step costs, every step costs.

PyTorch takes a network apart into its steps before a mode sees it, and each into fifteen operators: 4 ms a step on fakes, 0.8 on values, where
computing one takes 0.02 (measured).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import _disable_current_modes, _get_current_dispatch_mode_stack

from app.catalogue.operator_mode import OperatorMode, standing_for

_SHOWN: Final = 2  # steps that are counted for all; what belongs to no step, the states put together, is a thirtieth of them
_OF_ONEDNN: Final = (torch.float32, torch.bfloat16, torch.float16)  # PyTorch's RNN.cpp, `use_mkldnn`
_FEW: Final = 16  # steps that are counted one by one: 13 ms on values, and the plans of short examples are exact


def counted(run: Callable[[Mapping[str, Any]], Any], arguments: Mapping[str, Any]) -> Any:
    """What `run(arguments)`, one of PyTorch's recurrent networks, gives; modes that only count see a few of many steps, for all."""
    data: Tensor = arguments["input"]
    axis = 1 if arguments["batch_first"] else 0
    if data.dim() != 3 or data.shape[axis] <= _FEW or not _is_counted(data, arguments):
        return run(arguments)
    steps, batch = data.shape[axis], data.shape[1 - axis]
    with standing_for(steps / _SHOWN):
        output, *states = run({**arguments, "input": data.narrow(axis, 0, _SHOWN)})
    with standing_for(0):  # the largest that is made: the gates of all steps
        data.new_empty(steps, batch, arguments["params"][0].shape[0])
        whole = data.new_empty(steps, batch, output.shape[2])
    if isinstance(data, FakeTensor):
        return (whole.transpose(0, 1) if axis else whole, *states)
    with _disable_current_modes():
        return run(arguments)


def _is_one_operator(data: Tensor, states: Any) -> bool:
    """Whether oneDNN takes all steps at once: of an LSTM without projections."""
    is_lstm = isinstance(states, list | tuple) and len(states) == 2
    return is_lstm and states[0].shape == states[1].shape and data.dtype in _OF_ONEDNN


def _is_counted(data: Tensor, arguments: Mapping[str, Any]) -> bool:
    """Whether nothing but counting hangs on seeing every step: no derivative, no batching rule, no random number that is drawn again."""
    if (
        torch.is_grad_enabled()
        or torch._C._functorch.is_functorch_wrapped_tensor(data)
        or _is_one_operator(data, arguments["hx"])
    ):
        return False
    modes = _get_current_dispatch_mode_stack()
    ours = [mode for mode in modes if isinstance(mode, OperatorMode)]
    is_alone = isinstance(data, FakeTensor) or (len(ours) == len(modes) and not (arguments["train"] and arguments["dropout"]))
    return is_alone and bool(ours) and all(mode.only_counts for mode in ours)
