"""Steps that jump at whole numbers, or at multiples of another: where exactly they do, and where numbers lie too far apart to show it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from app.catalogue.facts import values
from app.engine.stepwise.point import Hole, name_of
from app.engine.stepwise.trace import StepRecord, StepTrace


def period_of(trace: StepTrace, record: StepRecord) -> Tensor | None:
    """How far apart a step's jumps are, of the shape of its first tensor; None where it is no such step."""
    where = values("jumps_at").get(name_of(record.node))
    if where is None or not record.inputs or record.inputs[0].is_complex():
        return None
    x, (args, kwargs) = record.inputs[0].detach(), trace.arguments[record.node]
    if not isinstance(args[0] if args else None, Hole):
        return None  # what is divided is no tensor
    period: Any = 10.0 ** -kwargs.get("decimals", 0)
    if where == "multiples":
        period = args[1] if len(args) > 1 else kwargs["other"]
        period = trace.values[period.ref] if isinstance(period, Hole) else period
    by = torch.as_tensor(period, dtype=x.dtype, device=x.device).detach().abs()
    return by.expand_as(x) if by.ndim <= x.ndim and by.numel() in (1, x.numel()) else None


def is_at_jump(record: StepRecord, period: Tensor) -> Tensor:
    """Where a step whose jumps are a `period` apart stands on one that is not at zero: there two pieces may meet."""
    x = record.inputs[0].detach()
    is_multiple = torch.isfinite(x) & (x != 0) & (torch.fmod(x, period) == 0)
    return is_multiple & (values("jumps_at")[name_of(record.node)] != "halves")


def is_coarse(record: StepRecord, period: Tensor) -> Tensor:
    """Where the next number is as far away as the next jump."""
    size = record.inputs[0].detach().abs()
    return torch.isfinite(size) & (size.nextafter(torch.full_like(size, torch.inf)) - size >= period)
