"""Where PyTorch's derivative differs from finite differences by convention: matrices of which one triangle is read, normalised inputs."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from app.catalogue.facts import sentence, values
from app.engine.stepwise.point import Point, name_of
from app.engine.stepwise.read_triangles import taken_for_symmetric


def may_read_a_triangle(point: Point, leaf: Tensor) -> bool:
    """Whether `leaf` is a matrix, and some step reads one triangle of a matrix."""
    is_square = leaf.ndim >= 2 and leaf.shape[-1] == leaf.shape[-2]
    return is_square and any(taken_for_symmetric(name_of(node), (node.args, node.kwargs)) for node in point.nodes)


def mirrored(leaf: Tensor, indices: Iterable[int]) -> list[int]:
    """Flat indices of the elements of a matrix, and of those on the other side of its diagonal."""
    other = torch.arange(leaf.numel()).reshape(leaf.shape).mT.reshape(-1).tolist()
    return list(dict.fromkeys(element for index in indices for element in (index, other[index])))


def symmetric_agrees(ours: Tensor, numeric: Tensor, tolerance: float) -> str | None:
    """A note where the two agree once the convention is applied; None where it does not explain the difference.

    Arguments:
        ours, numeric: shape [rows, *matrix]; NaN in `numeric` where it was not computed.
    """
    apart = ((ours + ours.mH) - (numeric + numeric.mH)).abs()
    known = ~torch.isnan(apart)
    if not bool(known.any()) or bool((apart[known] > 10 * tolerance).any()):
        return None
    return (
        "The matrix is taken as symmetric: only one of its triangles is read, and PyTorch spreads the derivative over both halves. "
        "Finite differences of single elements do not, but along symmetric directions the two agree."
    )


def convention(point: Point) -> dict[str, str] | None:
    """What is known of an operation whose derivative is another by convention, as JSON."""
    for node in point.nodes:
        key = values("convention").get(name_of(node))
        if key is not None:
            return {"code": "convention", "message": sentence(key)}
    return None
