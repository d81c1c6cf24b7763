"""Why PyTorch's own derivative may differ from finite differences: a kink, a jump, or a path taken out of the gradient.

Knows how to ask explain's survey. Refuses to know the client's derivation.
"""

from __future__ import annotations

from typing import Any

import torch

from app.engine.cuts import SHAPE_ONLY, cuts
from app.engine.findings import called_step
from app.engine.local import take_apart
from app.engine.survey import survey
from app.engine.tensors import is_differentiable
from app.engine.verdicts import of_input
from app.engine.widened import Point, name_of


def disagreement(point: Point, name: str) -> dict[str, Any] | None:
    """Code and sentence, as JSON; None where nothing suspicious is found."""
    with torch.enable_grad():
        local = take_apart(point)
        seen = survey(local)
        gravest = of_input(seen, name)[0]
        if gravest.verdict in ("singular", "kink", "piecewise_constant"):
            return {"code": gravest.verdict, "message": f"{called_step(gravest.node)}{gravest.reason}"}
        floating = {ref for ref in local.outputs if is_differentiable(local.values[ref].dtype)}
        for cut in cuts(local, name, floating):
            if cut.node is not None and name_of(cut.node) not in SHAPE_ONLY:
                return {
                    "code": "cut_path",
                    "message": f"{called_step(cut.node)}A path from `{name}` to the output is not in PyTorch's derivative, though the value "
                    f"depends on it: {cut.reason}",
                }
    return None
