"""Derivatives that a program takes itself: `autograd.grad`, `loss.backward()` and `x.grad`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from app.program.differentiation.hooks import Handle, Hooks, Passage
from app.program.differentiation.leaves import Leaves
from app.program.differentiation.overwrites import Overwrites
from app.program.differentiation.parts import Gradient, part
from app.program.modules.layers import Weight
from app.program.reading.source import Refusal
from app.program.semantics import questions
from app.program.semantics.graph_values import Emit, MultiOutput, Value, example, is_floating, is_tensor
from app.program.semantics.static import named
from app.program.semantics.trace import Trace


@dataclass(frozen=True, slots=True)
class _Backward:
    """One `loss.backward()`: the loss as it was then, after how many steps, with which cotangent.

    Attributes:
        gradients: those that were asked for so far; None where no path leads.
        inputs: what alone gets a gradient (`inputs=[w]`), or None.
    """

    loss: fx.Node
    after: int
    cotangent: fx.Node | None
    create_graph: bool
    inputs: tuple[fx.Node, ...] | None = None
    gradients: dict[fx.Node, fx.Node | None] = field(default_factory=dict)


class Gradients:
    """Derivatives of one program."""

    def __init__(self, trace: Trace, dtype: torch.dtype, weight_of: Callable[[fx.Node], Weight | None], hooks: Hooks) -> None:
        self._trace, self._dtype, self._weight_of = trace, dtype, weight_of
        self.hooks = hooks
        self.overwrites = Overwrites(trace)
        self._backwards: list[_Backward] = []
        # Of each tensor: how many backward passes its `.grad` holds, and the tensor that holds them.
        self._since: dict[fx.Node, int] = {}
        self._totals: dict[fx.Node, fx.Node] = {}
        self.last: fx.Node | None = None
        self.leaves = Leaves(trace, weight_of)

    # `torch.autograd.grad`.

    def autograd_grad(self, emit: Emit, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> Value:
        """`torch.autograd.grad(outputs, inputs, grad_outputs=None, …)`: a tuple of gradients."""
        names = ("outputs", "inputs", "grad_outputs", "retain_graph", "create_graph")
        arguments = dict(zip(names, args, strict=False)) | dict(kwargs)
        outputs, inputs = _tensors(arguments.get("outputs"), "outputs"), _tensors(arguments.get("inputs"), "inputs")
        roots, of = [self._trace.passed_on(node) for node in outputs], [self._trace.now(node) for node in inputs]
        cotangents = arguments.get("grad_outputs")
        weights = None if cotangents is None else _tensors(cotangents, "grad_outputs")
        if arguments.get("is_grads_batched"):
            raise Refusal("`is_grads_batched` is not in the language.", "Write `torch.vmap` of a function of one cotangent.")
        create = bool(arguments.get("create_graph"))
        self.leaves.taken(roots, of, self._trace.place, keeps_graph=bool(arguments.get("retain_graph", create)))
        gradients = self._gradients(emit, roots, of, weights, self._trace.steps)
        unused = bool(arguments.get("allow_unused", False))
        result: list[Value] = []
        for node, gradient in zip(inputs, gradients, strict=True):
            if gradient is None and arguments.get("materialize_grads"):
                gradient = emit("zeros_like", torch.zeros_like, (node,), {})
            elif gradient is None and not unused:
                raise Refusal(
                    "No derivative leads from one of the inputs to the outputs, so it has no gradient.",
                    "Leave it out, or write `allow_unused=True`; where it is a gradient, take that with `create_graph=True`.",
                    code="operation_failed",
                )
            result.append(gradient)
        if not create:
            result = [None if g is None else emit("grad", torch.Tensor.detach, (g,), {}) for g in result]
        return tuple(result)

    def _gradients(
        self, emit: Emit, outputs: list[fx.Node], inputs: list[fx.Node], cotangents: list[fx.Node] | None, after: int
    ) -> list[fx.Node | None]:
        """The gradient of `outputs` for each of `inputs` (nodes as they stood), None where no path leads."""
        for output in outputs:
            value: Tensor = output.meta["val"]
            if cotangents is None and not questions.asked(output, questions.is_single):
                raise Refusal(
                    f"The gradient is of one number; this tensor has the shape {list(value.shape)}.",
                    "Take its `.sum()`, or give `grad_outputs=torch.ones_like(y)`.",
                    code="not_scalar",
                    raises="RuntimeError",
                )
            if not is_floating(value):
                raise Refusal("A tensor of whole numbers has no gradient.", "Differentiate a floating one.")
        self.overwrites.check(inputs, outputs, after)
        section = part(self._trace.graph, inputs, outputs, self._dtype, self._trace.drawing, keeps_samples=True)
        reached = [node for node, is_reached in zip(inputs, section.reached, strict=True) if is_reached]
        if not reached:
            return [None] * len(inputs)
        if len(reached) < len(inputs):
            section = part(self._trace.graph, reached, outputs, self._dtype, self._trace.drawing, keeps_samples=True)
        weights = None if cotangents is None else [self._trace.now(node) for node in cotangents]
        derivatives = emit("autograd.grad", Gradient(section.run), (reached, list(section.free), weights), {}, exact=True)
        picked = {node: self._trace.pick(derivatives, index) for index, node in enumerate(reached)}
        return [picked.get(node) for node in inputs]

    # `loss.backward()` and `x.grad`.

    def backward(self, emit: Emit, loss: fx.Node, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> None:
        """`loss.backward(gradient=None, …, create_graph=False)`."""
        cotangent = kwargs.get("gradient", args[0] if args else None)
        if cotangent is None and example(loss).numel() != 1:
            raise Refusal(
                f"`.backward()` is of one number; this tensor has the shape {list(example(loss).shape)}.",
                "Take its `.sum()` or `.mean()` before, or give a cotangent: `y.backward(torch.ones_like(y))`.",
                code="not_scalar",
                raises="RuntimeError",
            )
        node = None if cotangent is None else self._trace.now(cotangent)
        create = bool(kwargs.get("create_graph", False))
        keeps = bool(kwargs.get("retain_graph", create))
        inputs = None if kwargs.get("inputs") is None else tuple(_tensors(kwargs["inputs"], "inputs"))
        self.leaves.differentiated(self._trace.passed_on(loss), self._trace.place, keeps_graph=keeps)
        self._backwards.append(_Backward(self._trace.passed_on(loss), self._trace.steps, node, create, inputs))
        self.last = loss
        for handle in self.hooks.waiting():
            self._call_hook(emit, handle)
        for passage in reversed(self.hooks.passages):
            self._call_module_hooks(emit, passage)

    def _call_hook(self, emit: Emit, handle: Handle) -> None:
        """Calls a hook with the gradient that the latest backward pass brings to its tensor, if it brings one."""
        call = self._backwards[-1]
        cotangents = None if call.cotangent is None else [call.cotangent]
        (gradient,) = self._gradients(emit, [call.loss], [handle.node], cotangents, call.after)
        if gradient is not None:
            self.hooks.called(handle, emit("grad", torch.Tensor.detach, (gradient,), {}))

    def _call_module_hooks(self, emit: Emit, passage: Passage) -> None:
        """Calls the hooks of a module that the latest backward pass goes through: `f(module, grad_input, grad_output)`."""
        call = self._backwards[-1]
        if not passage.module.backward_hooks:
            return
        cotangents = None if call.cotangent is None else [call.cotangent]
        nodes = [*passage.inputs, *passage.outputs]
        floating = [node for node in nodes if node.meta["live"]]
        taken = self._gradients(emit, [call.loss], floating, cotangents, call.after) if floating else []
        of_node = dict(zip(floating, taken, strict=True))
        gradients = [
            None if of_node.get(node) is None else emit("grad", torch.Tensor.detach, (of_node[node],), {}) for node in nodes
        ]
        if any(gradient is not None for gradient in gradients[len(passage.inputs) :]):
            self.hooks.passed(passage, tuple(gradients[: len(passage.inputs)]), tuple(gradients[len(passage.inputs) :]))

    def backward_of(self, emit: Emit, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> None:
        """`torch.autograd.backward(tensors, grad_tensors=None, …)`."""
        names = ("tensors", "grad_tensors", "retain_graph", "create_graph")
        arguments = dict(zip(names, args, strict=False)) | dict(kwargs)
        losses = _tensors(arguments.pop("tensors", None), "tensors")
        vectors = arguments.pop("grad_tensors", arguments.pop("grad_variables", None))
        cotangents = list(vectors) if isinstance(vectors, list | tuple) else [vectors] * len(losses)
        if len(cotangents) != len(losses):
            raise Refusal(f"`backward` is given {len(losses)} tensors and {len(cotangents)} gradients.", "Give one for each.")
        for index, (loss, cotangent) in enumerate(zip(losses, cotangents, strict=True)):
            is_last = index == len(losses) - 1
            options = arguments if is_last else {**arguments, "retain_graph": True}
            self.backward(emit, loss, (), {**options, "gradient": cotangent})

    def grad(self, emit: Emit, tensor: fx.Node) -> Value:
        """`x.grad`: the sum of what each `backward()` since the last reset left there."""
        gradient = self.grads(emit, [tensor])[0]
        why = self.leaves.why_none(tensor)
        if gradient is not None and why is not None:
            reason, instead = why
            self.leaves.remark(self._trace.place, "grad", reason, f"{instead} The number here is the one that it has then.")
        return gradient

    def grads(self, emit: Emit, tensors: Sequence[fx.Node]) -> list[Value]:
        """`.grad` of several tensors; one backward pass serves all of them."""
        enabled, self._trace.grad_enabled = self._trace.grad_enabled, True
        try:
            for index, call in enumerate(self._backwards):
                self._passed(emit, call, [tensor for tensor in tensors if self._since.get(tensor, 0) <= index])
            return [self._accumulated(emit, tensor) for tensor in tensors]
        finally:
            self._trace.grad_enabled = enabled

    def _passed(self, emit: Emit, call: _Backward, tensors: Sequence[fx.Node]) -> None:
        """Takes the gradients of one backward pass that nobody asked for before."""
        wanted = [t for t in tensors if t not in call.gradients and (call.inputs is None or t in call.inputs)]
        wanted = [t for t in dict.fromkeys(wanted) if not self._is_frozen(t)]
        if not wanted:
            return
        nodes = [self._as_of(tensor, call.after) for tensor in wanted]
        cotangents = None if call.cotangent is None else [call.cotangent]
        for tensor, gradient in zip(wanted, self._gradients(emit, [call.loss], nodes, cotangents, call.after), strict=True):
            if gradient is not None and not call.create_graph:
                gradient = emit("grad", torch.Tensor.detach, (gradient,), {})
            call.gradients[tensor] = gradient

    def _is_frozen(self, tensor: fx.Node) -> bool:
        weight = self._weight_of(tensor)
        return weight is not None and weight.frozen

    def _accumulated(self, emit: Emit, tensor: fx.Node) -> Value:
        total: Value = self._totals.get(tensor)
        for call in self._backwards[self._since.get(tensor, 0) :]:
            gradient = call.gradients.get(tensor)
            if gradient is not None:
                total = gradient if total is None else emit("+", torch.add, (total, gradient), {})
        self._since[tensor] = len(self._backwards)
        if total is not None:
            self._totals[tensor] = total
        return total

    def _as_of(self, tensor: fx.Node, step: int) -> fx.Node:
        """The node that held a tensor after so many steps."""
        cell = tensor.meta.get("cell")
        node = tensor
        for began, later in cell.history if cell is not None else ():
            if began <= step:
                node = later
        return node

    def assign(self, tensor: fx.Node, gradient: Value) -> None:
        """`x.grad = g`; None empties it."""
        self._since[tensor] = len(self._backwards)
        self._totals.pop(tensor, None)
        if is_tensor(gradient):
            self._totals[tensor] = gradient

    def holds_any(self, tensors: Sequence[fx.Node]) -> bool:
        """Whether a `.grad` of these holds something that was read of it or written into it."""
        return any(tensor in self._totals for tensor in tensors)

    def taken(self) -> list[tuple[fx.Node, int]]:
        """The losses whose `backward()` was called, and after how many steps."""
        return [(call.loss, call.after) for call in self._backwards]

    def reset(self, tensors: Sequence[fx.Node]) -> None:
        """`optimizer.zero_grad()`, `model.zero_grad()`."""
        for tensor in tensors:
            self.assign(tensor, None)


def _tensors(value: Value, what: str) -> list[fx.Node]:
    tensors: Any = [value] if is_tensor(value) else value
    if isinstance(tensors, dict):
        tensors = list(tensors.values())
    if (
        isinstance(tensors, MultiOutput)
        or not isinstance(tensors, list | tuple)
        or not all(is_tensor(member) for member in tensors)
    ):
        raise Refusal(f"`{what}` are tensors, not {named(value)}.")
    return list(tensors)
