"""Writes in place into tensors that a derivative needs: PyTorch refuses to differentiate past them, and so does the language.

Which tensors a step keeps for its derivative PyTorch itself tells: the step is run once more on its examples, under hooks that see
what autograd saves (`torch.autograd.graph.saved_tensors_hooks`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from app.program.errors import REFUSALS
from app.program.function import Modified, Step
from app.program.reading.source import Refusal
from app.program.semantics.aliases import storage
from app.program.semantics.aside import aside
from app.program.semantics.graph_values import is_floating, mapped_nodes, reachable
from app.program.semantics.trace import DYNAMIC, Overwrite, Trace

Saved = tuple[frozenset[int], bool]


class Overwrites:
    """What was written in one program, and the steps whose derivatives that spoils."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._saved: dict[fx.Node, Saved] = {}

    def spoiled(self, since: int, upto: int | None = None) -> Iterable[tuple[fx.Node, Overwrite]]:
        """Steps with a write after them into what their derivatives need; of the writes at the steps from `since` to `upto`."""
        for write in self._trace.overwritten:
            if write.at < since or (upto is not None and write.at > upto):
                continue
            own = _computing(write.value)
            for user in (write.node, *write.node.users):
                if user.op != "call_function" or not user.meta.get("live") or (user is not write.node and user in own):
                    continue
                if self._needs(user, write.node):
                    yield user, write

    def _needs(self, step: fx.Node, node: fx.Node) -> bool:
        if step not in self._saved:
            self._saved[step] = _saved(step, step in self._trace.drawing)
        arguments, result = self._saved[step]
        return result if step is node else id(node) in arguments

    def check(self, inputs: Sequence[fx.Node], outputs: Sequence[fx.Node], upto: int) -> None:
        """Raises a refusal where the derivative of `outputs` by `inputs` passes a spoiled step."""
        if not self._trace.overwritten:
            return
        below = _downstream(inputs)
        above = _upstream(outputs)
        for step, write in self.spoiled(0, upto):
            if step in below and step in above:
                raise refusal(step.meta["step"], write.step)

    def modified(self, leaves: Sequence[str], taken: Sequence[tuple[fx.Node, int]]) -> tuple[Modified, ...]:
        """What no derivative of the whole program may pass.

        Arguments:
            leaves: names of the placeholders, in order.
            taken: (loss, step after which `loss.backward()` was called): its derivative was taken then, and later writes do not matter.
        """
        trace = self._trace
        if not trace.overwritten:
            return ()
        names = dict(zip((node for node in trace.graph.nodes if node.op == "placeholder"), leaves, strict=True))
        last = next(node for node in reversed(trace.graph.nodes) if node.op == "output")
        modifications: list[Modified] = []
        for step, write in self.spoiled(0):
            above = _upstream([step])
            below = _downstream([step])
            reached = [
                name
                for name, node in zip(trace.outputs, last.args[0], strict=True)
                if node in below and not any(loss is node and after < write.at for loss, after in taken)
            ]
            if reached:
                by = frozenset(names[node] for node in above if node in names)
                modifications.append(Modified(step.meta["step"], write.step, by, frozenset(reached)))
        return tuple(modifications)


def refusal(step: Step, write: Step) -> Refusal:
    """PyTorch's refusal, with both lines."""
    detail, fix = Modified(step, write).refusal()
    return Refusal(detail, fix, code="operation_failed", raises="RuntimeError")


def _computing(value: fx.Node | None) -> tuple[fx.Node, ...]:
    """The step of an operation in place itself, which keeps a copy of what it needs; a change of dtype may follow it."""
    if value is None:
        return ()
    return (value, *value.all_input_nodes) if value.target in (torch.Tensor.to, torch.clone) else (value,)


def _saved(step: fx.Node, drawing: bool) -> Saved:
    """The arguments of a step, by `id`, that autograd keeps for its derivative, and whether it keeps the result."""
    if drawing or hasattr(step.target, "run") or not callable(step.target):
        return frozenset(), False
    saved: set[int] = set()

    def pack(tensor: Tensor) -> Tensor:
        saved.add(storage(tensor))
        return tensor

    examples: dict[fx.Node, Any] = {}
    for node in step.all_input_nodes:
        value = node.meta["val"]
        if isinstance(value, Tensor):
            value = value.detach()
            if is_floating(value) and node.meta.get("live"):
                value.requires_grad_()
        examples[node] = value
    args, kwargs = mapped_nodes((step.args, dict(step.kwargs)), examples.__getitem__)
    try:
        with aside(), torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            result = step.target(*args, **kwargs)
    except (*REFUSALS, *DYNAMIC):  # what only real values decide keeps nothing that a write could spoil: masks and indices
        return frozenset(), False
    inputs = {id(node) for node, value in examples.items() if isinstance(value, Tensor) and storage(value) in saved}
    shared = {storage(value) for value in examples.values() if isinstance(value, Tensor)}
    results = result if isinstance(result, list | tuple) else [result]
    own = any(isinstance(r, Tensor) and storage(r) in saved and storage(r) not in shared for r in results)
    return frozenset(inputs), own


def _upstream(outputs: Sequence[fx.Node]) -> set[fx.Node]:
    """The steps with a derivative that these are made of."""
    return reachable(_live(outputs), lambda node: _live(node.all_input_nodes))


def _downstream(inputs: Sequence[fx.Node]) -> set[fx.Node]:
    """The steps with a derivative that are made of these, and these."""
    return reachable(inputs, lambda node: _live(node.users))


def _live(nodes: Iterable[fx.Node]) -> list[fx.Node]:
    return [node for node in nodes if node.meta.get("live")]
