"""Results that are zero whatever the inputs are, which a recipe need not leave to the whole road: found once for all queries of a signature."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from app.catalogue.facts import operations_with
from app.engine.computation import Computation
from app.engine.notes import Notes
from app.engine.precision.exact_arithmetic.numbers import MP
from app.engine.stepwise.point import REFUSALS, names_called
from app.engine.tensors import is_differentiable
from app.engine.zeros.lost_zeros import Look
from app.engine.zeros.telling_zeros import ResultKey, is_looked_at, result_keys
from app.engine.zeros.true_zeros import Suspect, is_plain, out_of_reach, uniform

# What is left of zero in 360 digits.
_LEFT: Final = MP.mpf("1e-330")
_SCALES: Final = (1.0, 0.05)  # of the numbers at which it is looked at: at the smaller ones no exponential is as small


def always_zero(computation: Computation, *, is_sent: bool) -> dict[ResultKey, NDArray[Any]]:
    """Of what is looked at, by rows of Jacobians, where it is zero at all inputs and cotangents; what is not known to be is left out.

    Arguments:
        is_sent: cotangents come with each query.
    """
    keys = [key for kind in computation.query.want if is_looked_at(kind) for key in result_keys(kind, computation.prepared)]
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            masks = out_of_reach(computation, [key for key in keys if key.leaf is not None])
            for key, mask in () if is_sent else _vanishing(computation, keys):
                masks[key] = masks.get(key, False) | mask
        except REFUSALS:  # not known, then
            return {}
    return masks


def _vanishing(computation: Computation, keys: list[ResultKey]) -> Iterator[tuple[ResultKey, NDArray[Any]]]:
    """Outputs and gradients of them, as far as their terms cancel."""
    prepared, leaves = computation.prepared, computation.leaves
    # On all numbers but poles: what is zero at an arbitrary point is zero at all. Not so `abs(x) - x`.
    is_analytic = names_called(prepared.function.pattern) <= operations_with("differentiable") | operations_with("meromorphic")
    is_analytic &= is_plain(prepared.function.pattern)  # 1e-200 twice would pass for zero
    whole = [key for key in keys if (key.leaf is None) != (key.output is None) and key.kind != "jvp"]
    if not is_analytic or not all(is_differentiable(leaf.dtype) for leaf in leaves.values()) or not whole:
        return
    draw = torch.Generator().manual_seed(0)
    looks = []
    for scale in _SCALES:
        drawn = {name: scale * _drawn(leaf, draw) for name, leaf in leaves.items()}
        looks.append(Look(replace(computation, leaves=drawn, notes=Notes())))
    shapes = {result.name: result.shape for result in (*prepared.plan.outputs, *prepared.plan.wrt)}
    for key in whole:
        every = np.ones(shapes[key.leaf or key.output or ""], dtype=bool)
        exact = [look.right(key, Suspect(every, every), is_beside=False) for look in looks]
        known = [numbers for numbers in exact if numbers is not None]
        if len(known) == len(exact):
            vanishing: NDArray[Any] = np.all([np.abs(numbers) < _LEFT for numbers in known], 0)
            yield key, vanishing.astype(bool)


def _drawn(leaf: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """Numbers from 0.5 to 2 of either sign, for each element its own."""
    size = uniform(leaf, 0.5, 2.0, draw)
    return torch.where(uniform(leaf, 0.0, 1.0, draw) < 0.5, -size, size)
