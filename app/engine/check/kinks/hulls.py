"""How far a derivative lies from the convex hull of others."""

from __future__ import annotations

import torch
from torch import Tensor


def nearest(points: Tensor, target: Tensor) -> tuple[Tensor, float]:
    """What is left of `target` beside the hull of `points` [points, n], of length 1; and how much, relative to the largest number."""
    from scipy.optimize import nnls  # half a second, which only few checks need

    size = max(float(points.abs().max()), 1e-300)
    # Weights that are positive and add up to 1: the last equation.
    matrix = torch.cat([points.T / size, torch.ones(1, len(points), dtype=torch.float64, device=points.device)])
    goal = torch.cat([target / size, torch.ones(1, dtype=torch.float64, device=target.device)])
    weights, distance = nnls(matrix.cpu().numpy(), goal.cpu().numpy(), maxiter=50 * len(points))
    residual = (goal - matrix @ torch.from_numpy(weights).to(matrix.device))[:-1]
    return residual / residual.norm().clamp(min=1e-300), float(distance)
