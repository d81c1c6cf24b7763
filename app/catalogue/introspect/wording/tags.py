"""Tags of an operation: what the dispatcher says of its overloads, and what its example shows of the kernels behind it."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

from app.catalogue.introspect.calls.samples import REFUSALS, Sample
from app.catalogue.introspect.calls.shown import draws
from app.catalogue.introspect.names import Group
from app.catalogue.operator_mode import OperatorMode


class _Kernels(OperatorMode):
    """The kernels that run."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def dispatch(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.seen.append(func)
        return func(*args, **kwargs)


def tags(group: Group, sample: Sample) -> tuple[str, ...]:
    """Of `pointwise reduction view random dynamic_shape`, in this order."""
    said = {tag for overload in group.overloads for tag in overload.tags}
    with _Kernels() as kernels, torch.no_grad():
        result = sample.run()
    shown = {tag for kernel in kernels.seen for tag in kernel.tags}
    working = [kernel for kernel in kernels.seen if not kernel.is_view]
    inputs = max((tensor.numel() for tensor in sample.leaves().values()), default=0)
    smaller = isinstance(result, Tensor) and result.numel() < inputs
    tagged = {
        "pointwise": torch.Tag.pointwise in said
        or (bool(working) and all(torch.Tag.pointwise in kernel.tags for kernel in working)),
        "reduction": torch.Tag.reduction in said or (torch.Tag.reduction in shown and smaller),
        "view": any(_aliases(overload) for overload in group.overloads) or (bool(kernels.seen) and not working),
        "random": draws(sample),
        "dynamic_shape": bool(said & {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output}) or _is_dynamic(sample),
    }
    return tuple(name for name, holds in tagged.items() if holds)


def _aliases(overload: Any) -> bool:
    return any(r.alias_info is not None and not r.alias_info.is_write for r in overload._schema.returns)


def _is_dynamic(sample: Sample) -> bool:
    """Whether the shape of the result cannot be told without the values."""
    with FakeTensorMode(), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            sample.run({name: torch.empty(t.shape, dtype=t.dtype) for name, t in sample.leaves().items()})
        except (DynamicOutputShapeException, DataDependentOutputException):
            return True
        except REFUSALS:
            return False
    return False
