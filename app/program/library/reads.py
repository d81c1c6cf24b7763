"""Plain numbers and truth values read out of tensors while a program is read: they hold at this point.

What was read decides how the program goes on, so it is noted, and the program is read again for every query.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor

from app.catalogue.facts import operations_with, short
from app.program.function import RAISED, RAN, Branch, Step
from app.program.modules.layer_table import LAYERS
from app.program.reading.source import Refusal
from app.program.semantics import static
from app.program.semantics.graph_values import Emit, Value, example, is_tensor
from app.program.semantics.trace import Trace

# A module of indices that is run whole, so that no row of `LAYERS` names its function.
_EMBEDDING_BAG: Final = "EmbeddingBag"
# Signs that an integer zero behind them makes raise.
_SIGNS: Final = {"//": "floor_divide", "%": "remainder"}


@dataclass(slots=True)
class Reads:
    """Reads of one program.

    Attributes:
        branches: the conditions that were followed.
        has_numbers: some tensor's value became a plain number.
    """

    trace: Trace
    branches: list[Branch]
    has_numbers: bool = False

    def truth(self, emit: Emit, node: fx.Node) -> bool:
        """Whether a condition holds here. Raises where it is no single value, and under fakes, which have none."""
        tensor = self._real(node)
        if tensor.numel() != 1:
            raise Refusal(
                f"A condition is one truth value; this tensor has the shape {list(tensor.shape)}.",
                "Write `where(condition, a, b)` for tensors; `.all()` or `.any()` of it for one condition.",
            )
        holds = bool(tensor)
        self._note(node, holds)
        return holds

    def number(self, emit: Emit, node: fx.Node) -> Any:
        """`x.item()`: the one number in a tensor."""
        tensor = self._real(node)
        if tensor.numel() != 1:
            raise Refusal(
                f"Only a tensor of one element is a plain number; this one has the shape {list(tensor.shape)}.",
                "Reduce it first: `.sum()`, `.mean()`, `x[0]`.",
            )
        value = tensor.item()
        self.has_numbers = True
        self._note(node, value)
        return value

    def size(self, emit: Emit, value: Value) -> Value:
        """An argument of a maker of tensors: `torch.arange(n)` reads the whole number in a tensor, as PyTorch does."""
        if isinstance(value, list | tuple):
            return type(value)(self.size(emit, member) for member in value) if any(map(is_tensor, value)) else value
        is_whole = is_tensor(value) and example(value).ndim == 0 and not example(value).dtype.is_floating_point
        return self.number(emit, value) if is_whole and not example(value).is_complex() else value

    def numbers(self, emit: Emit, node: fx.Node) -> Any:
        """`x.tolist()`."""
        tensor = self._real(node)
        if example(node).numel() > static.LENGTH_LIMIT:  # asked, as there is nothing to read in an empty one
            raise Refusal(
                f"A list of {tensor.numel():,} numbers is too long; the limit is {static.LENGTH_LIMIT:,}.", code="too_costly"
            )
        self.has_numbers = True
        self._note(node, "a list")
        if tensor.numel():
            tensor.flatten()[0].item()  # a dispatch mode that must know of values that are read hears of this, not of `tolist`
        return tensor.tolist()

    def attempted(self, operation: str, arguments: Any, call: Callable[[], Any]) -> Any:
        """A step inside `try`. Where its values decide whether it raises, that it did or did not is a branch of these values.

        Raises DataDependentOutputException under fakes, which do not tell.
        """
        nodes: list[fx.Node] = []
        fx.node.map_arg(arguments, nodes.append)
        integers = any(not example(node).is_floating_point() for node in nodes)
        fails = operation.startswith("distributions.") or _refuses_values(operation, integers)
        if fails and self.trace.static:
            raise DataDependentOutputException(torch.ops.aten._local_scalar_dense.default)
        line, column, text = self.trace.place
        try:
            result = call()
        except Refusal:
            if nodes and not self.trace.static:
                self.branches.append(Branch(Step(line, column, text, operation), self.trace.now(nodes[0]), RAISED))
            raise
        if fails and nodes:
            self.branches.append(Branch(Step(line, column, text, operation), self.trace.now(nodes[0]), RAN))
        return result

    def _real(self, node: fx.Node) -> Tensor:
        tensor: Tensor = self.trace.now(node).meta["val"]
        if isinstance(tensor, FakeTensor):
            raise DataDependentOutputException(torch.ops.aten._local_scalar_dense.default)
        if self.trace.drawing:  # of another seed it may be another number
            self.trace.static = False
        return tensor.detach()

    def _note(self, node: fx.Node, value: Any) -> None:
        current = self.trace.now(node)
        line, column, text = self.trace.place
        step = current.meta.get("step") or Step(line, column, text, "input")
        if isinstance(value, bool):
            self.branches.append(Branch(step, current, value))
        elif current.meta.get("live"):
            step = Step(line, column, text, "tolist" if isinstance(value, str) else "item")
            self.branches.append(Branch(step, current, value, _inputs_of(current)))


def _inputs_of(node: fx.Node) -> frozenset[str]:
    """Names in the graph of the inputs that a tensor is computed from."""
    names, seen, stack = set(), {node}, [node]
    while stack:
        each = stack.pop()
        if each.op == "placeholder":
            names.add(each.name)
        new = [n for n in each.all_input_nodes if n not in seen]
        seen.update(new)
        stack += new
    return frozenset(names)


__all__ = ["Branch", "Reads"]


def _refuses_values(operation: str, integers: bool) -> bool:
    """Whether an operation, a sign, a method in place or a module of that name raises for some values, which an `except` may wait for.

    `integers`: a tensor among its arguments is not of floating point.
    """
    if operation.startswith("[]"):
        return integers
    name = short(operation).removesuffix("_")
    called = _SIGNS.get(operation.removesuffix("=")) or (short(LAYERS[name].function) if name in LAYERS else name)
    return (
        called in operations_with("refuses_values")
        or (integers and called in operations_with("refuses_values", "integers"))
        or name == _EMBEDDING_BAG
    )
