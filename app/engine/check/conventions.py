"""Where PyTorch's derivative differs from finite differences by convention: matrices of which one triangle is read, normalised inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from app.catalogue.facts import operations_with, sentence, values
from app.engine.stepwise.point import Point, name_of


def symmetric_agrees(point: Point, leaf: Tensor, ours: Tensor, numeric: Tensor, tolerance: float) -> str | None:
    """A note where the two agree once the convention is applied; None where it does not explain the difference.

    Arguments:
        ours, numeric: shape [rows, *leaf].
    """
    names = {name_of(node) for node in point.nodes}
    if leaf.ndim < 2 or leaf.shape[-1] != leaf.shape[-2] or bool(torch.isnan(numeric.abs()).any()):
        return None
    off = 10 * tolerance
    if names & operations_with("reads_triangle", "symmetric"):
        both = ours + ours.mH, numeric + numeric.mH
        if bool(((both[0] - both[1]).abs() <= off).all()):
            return (
                "The matrix is taken as symmetric: only one of its triangles is read, and PyTorch spreads the derivative over both halves. "
                "Finite differences of single elements do not, but along symmetric directions the two agree."
            )
    return None


def convention(point: Point) -> dict[str, str] | None:
    """What is known of an operation whose derivative is another by convention, as JSON."""
    for node in point.nodes:
        key = values("convention").get(name_of(node))
        if key is not None:
            return {"code": "convention", "message": sentence(key)}
    return None
