"""Builds Functions from program text and numbers; what the tests of explain and check share."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from app.catalogue.read import find
from app.engine.check.report import check, confirms
from app.engine.explain.report import explain
from app.engine.stepwise.point import Points
from app.program.compiler import build_program
from app.program.function import Function
from app.program.operation import build_operation

Numbers = Any  # what `torch.tensor` takes, or a tensor


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Normally distributed numbers, the same every time."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def tensors(numbers: Mapping[str, Numbers]) -> dict[str, Tensor]:
    """float64 tensors of plain numbers; tensors as they are."""
    return {name: v if isinstance(v, Tensor) else torch.tensor(v, dtype=torch.float64) for name, v in numbers.items()}


def program(text: str, leaves: Mapping[str, Tensor]) -> Function:
    return build_program(text, leaves, {}, torch.float64)


def explained(text: str, seed: int | None = None, alone: bool = False, **inputs: Numbers) -> dict[str, Any]:
    """The report on a program; `alone`: without a witness for what differences leave in doubt."""
    leaves = tensors(inputs)
    points = Points(program(text, leaves), leaves, seed, lambda moved: program(text, moved))
    return explain(points, None, None if alone else partial(confirms, points))


def explained_operation(name: str, parameters: Mapping[str, Any] | None = None, **inputs: Numbers) -> dict[str, Any]:
    """The report on an operation of the catalogue."""
    leaves = tensors(inputs)
    return explain(Points(build_operation(find(name), leaves, parameters or {}), leaves), None)


def checked(
    text: str,
    expected: Mapping[str, Numbers] | None = None,
    kind: str = "gradient",
    cotangent: Numbers | None = None,
    wrt: tuple[str, ...] | None = None,
    **inputs: Numbers,
) -> dict[str, Any]:
    """The check of a program's derivative; `wrt`: those of `expected`, else all floating inputs."""
    leaves = tensors(inputs)
    names = wrt or tuple(
        expected or [name for name, leaf in leaves.items() if leaf.dtype.is_floating_point or leaf.dtype.is_complex]
    )
    vectors = None if cotangent is None else {"output": tensors({"c": cotangent})["c"]}
    return check(Points(program(text, leaves), leaves), names, vectors, tensors(expected or {}), None, kind)
