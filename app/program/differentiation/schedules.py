"""`torch.optim.lr_scheduler` in a program: PyTorch's own schedules, over an optimizer of nothing with the options of the program's."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import optim
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.optim import lr_scheduler

from app.program.differentiation.optimizers import OptimizerValue, without_tensors
from app.program.reading.source import Refusal
from app.program.semantics import static
from app.program.semantics.aside import aside
from app.program.semantics.graph_values import Value, is_tensor

# What schedules change: OneCycleLR and CyclicLR the momentum too.
_CHANGED: Final = ("lr", "momentum", "betas")
_KINDS: Final = ("LR", "Restarts", "Plateau", "ChainedScheduler")


@dataclass(slots=True, eq=False)
class SchedulerValue:
    """A schedule of learning rates."""

    schedule: Any
    optimizer: OptimizerValue


@contextmanager
def _apart() -> Iterator[None]:
    """PyTorch's objects of nothing are made and changed here, beside the program's tensors."""
    with aside(), unset_fake_temporarily(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def scheduled(
    kind: str, invoke: Callable[[Value, tuple[Value, ...]], Value], args: tuple[Value, ...], kwargs: Mapping[str, Value]
) -> SchedulerValue:
    """`torch.optim.lr_scheduler.KIND(optimizer, …)`. Raises a refusal where PyTorch has none, or refuses its options."""
    make = getattr(lr_scheduler, kind, None)
    values: dict[int | str, Value] = dict(enumerate(args))
    values.update(kwargs)
    optimizer = next((value for value in values.values() if isinstance(value, OptimizerValue)), None)
    if kind == "ChainedScheduler" and optimizer is None:  # it is given schedules alone
        first = values.get(0, values.get("schedulers"))
        optimizer = first[0].optimizer if isinstance(first, list) and first and isinstance(first[0], SchedulerValue) else None
    if not kind.endswith(_KINDS) or make is None or optimizer is None:
        raise Refusal(
            f"`lr_scheduler.{kind}` is not in the language.", "Set the rate: `optimizer.param_groups[0]['lr'] = 0.01`."
        )
    with _apart():
        rates = _rates(optimizer)
    options = {key: rates if value is optimizer else _option(invoke, value) for key, value in values.items()}
    try:
        with _apart():
            schedule = make(
                *(options[key] for key in sorted(key for key in options if isinstance(key, int))),
                **{key: value for key, value in options.items() if isinstance(key, str)},
            )
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise Refusal(f"PyTorch refuses these options of `lr_scheduler.{kind}`: {str(error)[:200]}.") from error
    value = SchedulerValue(schedule, optimizer)
    _rated(optimizer)
    return value


def _rates(optimizer: OptimizerValue) -> optim.Optimizer:
    """The optimizer of nothing that all schedules of one optimizer change, its options as the program has them now."""
    groups = [without_tensors(group) for group in optimizer.groups]
    if optimizer.rates is None:
        nothing = [{**group, "params": [torch.zeros(1, device="cpu", requires_grad=True)]} for group in groups]
        optimizer.rates = getattr(optim, optimizer.kind)(nothing, **optimizer.defaults)
    for group, inner in zip(groups, optimizer.rates.param_groups, strict=False):
        inner.update({key: group[key] for key in _CHANGED if key in group})
    for group in groups[len(optimizer.rates.param_groups) :]:
        optimizer.rates.add_param_group({**group, "params": [torch.zeros(1, device="cpu", requires_grad=True)]})
    return optimizer.rates


def _option(invoke: Callable[[Value, tuple[Value, ...]], Value], value: Value) -> Any:
    """A plain option; a function of the program becomes one of the number of the epoch."""
    if static.is_number(value) or value is None or isinstance(value, str):
        return value
    if isinstance(value, SchedulerValue):
        return value.schedule
    if isinstance(value, list | tuple) and all(
        static.is_number(member) or isinstance(member, SchedulerValue) for member in value
    ):
        return [_option(invoke, member) for member in value]
    if is_tensor(value):
        raise Refusal("A schedule is made of plain numbers.", "Write the number.")
    if isinstance(value, list | tuple):
        return [_option(invoke, member) for member in value]
    return functools.partial(lambda function, epoch: invoke(function, (epoch,)), value)


def advanced(scheduler: SchedulerValue, args: tuple[Value, ...]) -> None:
    """`scheduler.step()`; `scheduler.step(loss)` of one that waits for a plateau."""
    with _apart():
        _rates(scheduler.optimizer)
        scheduler.schedule.step(*args)
    _rated(scheduler.optimizer)


def _rated(optimizer: OptimizerValue) -> None:
    assert optimizer.rates is not None  # noqa: S101 (for the type checker)
    for group, inner in zip(optimizer.groups, optimizer.rates.param_groups, strict=True):
        group.update({key: inner[key] for key in _CHANGED if key in group})
