"""Which tensors of a program PyTorch keeps a gradient of, and what it says where none leads: leaves, `requires_grad`, freed graphs."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

import torch
from torch import fx

from app.catalogue.facts import operations_with
from app.program.differentiation.parts import leads, passes
from app.program.function import Remark, Step
from app.program.modules.layers import Weight
from app.program.reading.source import Refusal
from app.program.semantics.aliases import cell_of, value_only
from app.program.semantics.graph_values import is_floating, reachable
from app.program.semantics.trace import Trace

# Signs whose derivatives need no number of theirs, so that PyTorch has nothing to free; of names the catalogue says so.
_SIGNS_SAVING_NOTHING: Final = ("+", "-", "-x", "[]")

_CALLS: Final = 32  # of `backward()`, that are looked at: pasted programs write 3 at most, and a loop says the same of each


class Leaves:
    """The leaves of one program.

    Attributes:
        remarks: (line, column) → where PyTorch gives no gradient, or refuses, and this service does not.
        is_trying: whether an `except` of the program may take what PyTorch refuses; set by who reads the program.
    """

    def __init__(self, trace: Trace, weight_of: Callable[[fx.Node], Weight | None]) -> None:
        self._trace, self._weight_of = trace, weight_of
        self._marked: set[fx.Node] = set()
        self._freed: set[fx.Node] = set()
        self._calls = 0
        self.remarks: dict[tuple[int, int], Remark] = {}
        self.is_trying: Callable[[], bool] = lambda: False

    def called(self, tensor: fx.Node, name: str, *, holds: bool = True) -> None:
        """`x.requires_grad_()`, `x.retain_grad()`: PyTorch keeps its gradient from then on. `holds`: False for `x.requires_grad_(False)`."""
        if name not in ("requires_grad_", "retain_grad"):
            return
        (self._marked.add if holds else self._marked.discard)(tensor)
        if not self._trace.is_live(tensor) and is_floating(tensor.meta["val"]) and self._weight_of(tensor) is None:
            cell_of(tensor).leaf = holds

    def requires_grad(self, tensor: fx.Node) -> bool:
        """Whether a derivative leads to it from an input, or from what the program made a leaf."""
        now = self._trace.now(tensor)
        if self._trace.is_live(tensor) or not self._marked:
            return self._trace.is_live(tensor)
        below = reachable([now], lambda node: node.all_input_nodes)
        return leads([leaf for leaf in self._marked if leaf in below], below, [now])

    def remark(self, place: tuple[int, int, str], operation: str, reason: str, instead: str) -> None:
        line, column, text = place
        self.remarks.setdefault((line, column), Remark(Step(line, column, text, operation), reason, instead))

    def why_none(self, tensor: fx.Node) -> tuple[str, str] | None:
        """Why `.grad` of a tensor is None in PyTorch after any `backward()`, and what to write; None where it is kept."""
        if self._is_leaf(tensor) or self._is_cast(tensor):
            return None
        if tensor.meta["live"]:
            return (
                "PyTorch keeps the gradient of leaves alone, and this tensor is computed: its `.grad` is None",
                "Call `retain_grad()` on it before `backward()`.",
            )
        return (
            "The tensor was made without `requires_grad=True`, so PyTorch keeps no gradient of it",
            f"Make it with `requires_grad=True`{_line_of(tensor)}.",
        )

    def differentiated(self, loss: fx.Node, place: tuple[int, int, str], *, keeps_graph: bool) -> None:
        """Remarks on `loss.backward()`: that no derivative leads to the loss, or that its graph was freed by one before."""
        self._calls += 1
        if self._calls > _CALLS:
            return
        below = reachable([loss], lambda node: node.all_input_nodes)
        if not leads(self._leaves_of(below), below, [loss]):
            factories = [node for node in below if not node.all_input_nodes and node.op == "call_function"]
            self._refused(
                place,
                "PyTorch refuses this `backward()` (element 0 of tensors does not require grad): no derivative leads to the loss",
                f"Make what it is computed from with `requires_grad=True`{_line_of(*factories)}, and let no step on the way cut the path.",
            )
        self._went_through(self._graph_of([loss], below), place, keeps_graph=keeps_graph)

    def taken(
        self, outputs: list[fx.Node], inputs: Collection[fx.Node], place: tuple[int, int, str], *, keeps_graph: bool
    ) -> None:
        """Remarks on `torch.autograd.grad(outputs, inputs)`, which goes through what stands between them alone."""
        self._calls += 1
        if self._calls > _CALLS:
            return
        below = reachable(outputs, lambda node: node.all_input_nodes)
        graph, between = self._graph_of(outputs, below), set[fx.Node]()
        for node in sorted(graph):  # in the order of the steps, so that what comes before is known
            if any(source in between or source in inputs for source in node.all_input_nodes if passes(source, node)):
                between.add(node)
        self._went_through(between, place, keeps_graph=keeps_graph)

    def _went_through(self, graph: set[fx.Node], place: tuple[int, int, str], *, keeps_graph: bool) -> None:
        for node in sorted(graph & self._freed):
            step = node.meta.get("step")
            if step is not None and step.operation not in operations_with("saves_nothing").union(_SIGNS_SAVING_NOTHING):
                self._refused(
                    place,
                    f"PyTorch refuses to go backward through line {step.line}, `{step.text}`, a second time: the first has freed that graph",
                    "Write `retain_graph=True` in the first, or compute the value again; here it is answered as with that.",
                )
                break
        if not keeps_graph:
            self._freed |= graph

    def _refused(self, place: tuple[int, int, str], reason: str, instead: str) -> None:
        """A `backward()` that PyTorch refuses: answered with a remark, unless the program itself waits for the error."""
        if self.is_trying():
            raise Refusal(f"{reason}.", instead, code="operation_failed", raises="RuntimeError")
        self.remark(place, "backward", reason, instead)

    def _is_leaf(self, tensor: fx.Node) -> bool:
        return tensor in self._marked or _is_input(tensor) or self._weight_of(tensor) is not None

    def _graph_of(self, outputs: list[fx.Node], below: Collection[fx.Node]) -> set[fx.Node]:
        """The steps between the leaves and some outputs that autograd has a graph of; `below`: all that they are computed from."""
        ends = self._leaves_of(below)

        def before(node: fx.Node) -> list[fx.Node]:
            is_end = node in ends or node.target is value_only
            return [] if is_end else [source for source in node.all_input_nodes if passes(source, node)]

        return {node for node in reachable(outputs, before) if node.meta.get("live") and before(node)}

    def _leaves_of(self, nodes: Collection[fx.Node]) -> set[fx.Node]:
        """The leaves among some nodes, and what was written into them since."""
        leaves = {node for node in nodes if self._is_leaf(node)} | self._marked
        cells = [node.meta["cell"] for node in leaves if node.meta.get("cell") is not None]
        return leaves | {later for cell in cells for _, later in cell.history}

    def _is_cast(self, tensor: fx.Node) -> bool:
        """Whether an input was only given another dtype: one that is sent may have it already, and is the leaf itself then."""
        source = tensor.args[0] if tensor.args else None
        if tensor.target is not torch.Tensor.to or not isinstance(source, fx.Node):
            return False
        weight = self._weight_of(source)
        if weight is None:
            return source.op == "placeholder"
        return not weight.typed and tensor.args[1] == torch.float32  # which it has where PyTorch's default is kept


def _line_of(*tensors: fx.Node) -> str:
    lines = sorted({node.meta["step"].line for node in tensors if "step" in node.meta})
    return f" (line {lines[0]})" if lines else ""


def _is_input(tensor: fx.Node) -> bool:
    return tensor.op == "placeholder" and is_floating(tensor.meta["val"])
