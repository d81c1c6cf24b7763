"""What one forward costs: floating-point operations and bytes, counted while it runs on fakes."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from app.program.function import Function

# Factorisations cost about this many times n·m·min(n, m) (Golub & Van Loan, Matrix Computations, 4th ed., sections 3 to 8).
_CUBIC: Final = re.compile(
    r"svd|eig|qr|cholesky|inv|lu_|det|solve|lstsq|pinv|matrix_exp|householder|ormqr|geqrf|ldl|triangular"
)
_CUBIC_FACTOR: Final = 4.0


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one forward.

    Attributes:
        flops: floating-point operations.
        bytes: of every intermediate together: what autograd may keep.
        live_bytes: what is held at most at a time where nothing is kept for a backward.
    """

    flops: float
    bytes: int
    live_bytes: int


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0.0
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        tensors = [t for t in (out if isinstance(out, tuple | list) else (out,)) if isinstance(t, Tensor)]
        # What makes no tensor asks for a fake's device or the like.
        if tensors and not func.is_view:
            self.bytes += sum(t.numel() * t.element_size() for t in tensors)
            self.flops += _flops(func, args, kwargs, out, tensors)
        return out


def _flops(func: Any, args: Any, kwargs: Any, out: Any, tensors: list[Tensor]) -> float:
    rule = flop_registry.get(func.overloadpacket)
    if rule is not None:
        try:
            return float(rule(*args, **kwargs, out_val=out))
        except (TypeError, ValueError, AssertionError, IndexError):
            pass  # a rule that does not know this overload: fall to the sizes
    sizes = [t.numel() for t in args if isinstance(t, Tensor)] + [t.numel() for t in tensors]
    most = float(max(sizes, default=0))
    if _CUBIC.search(func.overloadpacket.__name__):
        first = next((t for t in args if isinstance(t, Tensor) and t.dim() >= 2), None)
        if first is not None:
            rows, columns = int(first.shape[-2]), int(first.shape[-1])
            batch = math.prod(first.shape[:-2])
            return _CUBIC_FACTOR * batch * rows * columns * min(rows, columns)
    return most


def measured(build: Callable[[], Function]) -> tuple[Function, Cost]:
    """The Function that `build()` makes by running its steps, and what that cost; nothing is allocated where it runs on fakes."""
    with _Counter() as counter, torch.no_grad():
        function = build()
    # Twice, as a step may need as much again for itself.
    live = min(counter.bytes, 2 * _live_bytes(function.graph))
    return function, Cost(counter.flops, counter.bytes, live)


def _live_bytes(graph: fx.Graph) -> int:
    """The most that the steps' values take at a time, each freed after its last use; inputs are not counted."""
    last = {source: node for node in graph.nodes for source in node.all_input_nodes}
    live = most = 0
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        live += _value_bytes(node)
        most = max(most, live)
        live -= sum(_value_bytes(source) for source in node.all_input_nodes if last[source] is node)
    return most


def _value_bytes(node: fx.Node) -> int:
    if node.op != "call_function" or node.target is operator.getitem:
        return 0
    value = node.meta["val"]
    members = value if isinstance(value, tuple | list) else (value,)
    return sum(member.numel() * member.element_size() for member in members if isinstance(member, Tensor))
