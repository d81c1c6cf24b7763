"""Runs a Function step by step and keeps the value of every node.

Knows how to walk the graph. Refuses to know what the values are for.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from app.engine.autodiff.evaluation import Evaluation
from app.program.function import Function
from app.program.graph_runner import floating_default


def run_steps(function: Function, leaves: dict[str, Tensor], seed: int | None = None) -> dict[fx.Node, Any]:
    """Node → value, for every node but `output`, at these leaves; random numbers as `seed` gives them."""
    if seed is not None and function.random:
        torch.manual_seed(seed)
    values: dict[fx.Node, Any] = {}
    placeholders = iter(function.leaves)
    with floating_default(function.dtype):
        for node in function.graph.nodes:
            if node.op == "placeholder":
                values[node] = leaves[next(placeholders)]
            elif node.op == "call_function":
                args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
                values[node] = node.target(*args, **kwargs)
    return values


def replay(evaluation: Evaluation) -> dict[fx.Node, Any]:
    """The steps of an Evaluation at its own leaves, with their autograd graph."""
    return run_steps(evaluation.function, evaluation.leaves, evaluation.seed)
