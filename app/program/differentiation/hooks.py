"""`y.register_hook(f)`: the gradient that passes a tensor becomes `f(gradient)`; a hook that gives nothing is called with it alone.

PyTorch's rules: a hook is given the whole gradient of its tensor, in each backward pass, and `y.grad` is what the hook made of it.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import fx

from app.program.differentiation import custom_functions
from app.program.differentiation.custom_functions import Invoke
from app.program.differentiation.parts import passes
from app.program.function import Branch
from app.program.modules.layers import Weight
from app.program.reading.source import Refusal
from app.program.semantics.graph_values import Emit, Value, example, is_tensor
from app.program.semantics.static import named
from app.program.semantics.trace import Trace
from app.program.semantics.values import FunctionValue, Method, Named

# Calls that keep or show what they are given, and give nothing.
_KEEPING: Final = (
    "append", "extend", "update", "add", "insert", "__setitem__", "copy_", "add_scalar", "info", "debug", "write",
)  # fmt: skip
_OWN: Final = "of_hook"  # marks the steps of which a hook's own is made
_LIMIT: Final = 64  # hooks of one program, each a function that is read at every backward pass; pasted ones have 2 at most


@dataclass(frozen=True, slots=True, eq=False)
class Passage:
    """One call of a module with backward hooks: the tensors that it was given and gave, as they stood."""

    module: Any
    inputs: tuple[fx.Node, ...]
    outputs: tuple[fx.Node, ...]


@dataclass(slots=True, eq=False)
class Handle:
    """What `register_hook` gives.

    Attributes:
        node: its tensor as it stood.
        changes: it makes another gradient; else it keeps or shows the one it is given.
        before: how many hooks of the tensor changed the gradient before this one.
        used: a backward pass has called it.
    """

    node: fx.Node
    function: Value
    changes: bool
    before: int
    used: bool = False


class Hooks:
    """The hooks of one program's tensors."""

    def __init__(
        self,
        trace: Trace,
        dtype: torch.dtype,
        invoke: Invoke,
        branches: list[Branch],
        weight_of: Callable[[fx.Node], Weight | None],
    ) -> None:
        self._trace, self._dtype, self._invoke, self._branches = trace, dtype, invoke, branches
        self._weight_of = weight_of
        self._handles: list[Handle] = []
        self.passages: list[Passage] = []

    def watch(self, module: Any, inputs: Sequence[fx.Node], outputs: Sequence[fx.Node]) -> None:
        """A call of a module whose backward hooks are called where a backward pass goes through it."""
        if len(self.passages) >= _LIMIT:
            raise Refusal(f"Modules with backward hooks are called more than {_LIMIT} times.", "Hook one.", code="too_costly")
        now = self._trace.now
        self.passages.append(Passage(module, tuple(map(now, inputs)), tuple(map(now, outputs))))

    def passed(self, passage: Passage, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        """Calls the hooks of a module with the gradients of what it was given and of what it gave."""
        for hook in list(passage.module.backward_hooks):
            if self._invoke(hook, (passage.module, inputs, outputs), {}) is not None:
                raise Refusal(
                    "A backward hook of a module that changes the gradient is not in the language; one that keeps it is.",
                    "Hook the tensor: `y = layer(x)`, then `y.register_hook(f)`; `f` takes and returns the gradient of `y`.",
                )

    def register(self, emit: Emit, tensor: fx.Node, function: Value) -> Handle:
        """`tensor.register_hook(function)`. Raises a refusal where it would not have PyTorch's meaning."""
        trace = self._trace
        node = trace.now(tensor)
        weight = self._weight_of(tensor)
        if not node.meta.get("live") and (weight is None or not weight.trained):
            raise Refusal(
                "PyTorch refuses a hook on a tensor that does not require grad.", "Register it where a derivative passes."
            )
        if len(self._handles) >= _LIMIT:
            raise Refusal(
                f"The program has more than {_LIMIT} hooks.", "Write one hook for the whole tensor.", code="too_costly"
            )
        handle = Handle(node, function, not _gives_nothing(function), len(self._changing(node)))
        self._handles.append(handle)
        if handle.changes:
            users = [(each, user) for each in (node, trace.passed_on(node)) for user in each.users if _OWN not in user.meta]
            if any(passes(each, user) for each, user in users):
                raise Refusal(
                    "This hook changes the gradient of a tensor that was used before.",
                    "Register it on the line after the one that computes the tensor.",
                )
            node.meta["hooked"] = self._hooked(emit, node, [each.function for each in self._changing(node)])
        return handle

    def _changing(self, node: fx.Node) -> list[Handle]:
        return [handle for handle in self._handles if handle.node is node and handle.changes]

    def _hooked(self, emit: Emit, node: fx.Node, functions: Sequence[Value]) -> fx.Node:
        """A step that gives `node` on, and of whose gradient the hooks make another, one after the other."""
        trace = self._trace
        start = emit("clone", torch.clone, (node,), {}, exact=True)
        start.meta[_OWN] = True
        result = emit("clone", torch.clone, (start,), {})
        cotangent: Value = emit("ones_like", torch.ones_like, (result,), {})
        known, since = set(trace.graph.nodes), len(self._branches)
        gradient = cotangent
        for function in functions:
            changed = self._invoke(function, (gradient,), {})
            gradient = gradient if changed is None else changed
        custom_functions.refuse_reads(self._branches[since:], [cotangent], "The hook")
        shape = list(example(result).shape)
        if not is_tensor(gradient) or list(example(gradient).shape) != shape:
            raise Refusal(
                f"The hook gives {named(gradient)} in the place of a gradient of the shape {shape}.",
                "Return the new gradient in the shape of the old one, or nothing.",
                code="operation_failed",
            )
        after = trace.now(gradient)
        read = custom_functions.read_before([after], known, [cotangent])
        step, free, outer = custom_functions.joined(
            trace, self._dtype, [start], [result], [cotangent], read, [0], [after], ("tensor",)
        )
        custom = emit("register_hook", step, ([node], list(free), list(outer)), {}, exact=True)
        member = custom if isinstance(custom, fx.Node) else trace.pick(custom, 0)
        for each in {member, getattr(custom, "node", member)}:
            each.meta[_OWN] = True
        return member

    def removed(self, handle: Handle, name: str) -> None:
        """`handle.remove()`."""
        if name != "remove":
            raise Refusal(f"A hook's handle has no `.{name}()` here.", "It has `.remove()`.")
        if handle.changes and (not handle.used or len(self._changing(handle.node)) > 1):
            raise Refusal(
                "The hook is removed before any `backward()` has called it, so it changes nothing."
                if not handle.used
                else "One of several hooks that change the gradient of a tensor cannot be removed here.",
                "Leave both lines out." if not handle.used else "Register one hook that does what all of them do.",
            )
        if handle in self._handles:
            self._handles.remove(handle)
            if handle.changes:
                del handle.node.meta["hooked"]

    def waiting(self) -> list[Handle]:
        """The hooks that a backward pass calls for what they keep. Raises a refusal where another changes the gradient after them."""
        for handle in self._handles:
            handle.used = True
            if not handle.changes and handle.before < len(self._changing(handle.node)):
                raise Refusal(
                    "A hook that keeps the gradient was registered before one that changes it.",
                    "Register the one that changes it first, and keep what it gives.",
                )
        return [handle for handle in self._handles if not handle.changes]

    def called(self, handle: Handle, gradient: Value) -> None:
        """Calls a hook that keeps what it is given."""
        returned = self._invoke(handle.function, (gradient,), {})
        if returned is not None:
            raise Refusal(
                f"The hook gives {named(returned)}, though no line of it returns a gradient.",
                "Write `return` before the new gradient.",
            )


def _gives_nothing(function: Value) -> bool:
    """Whether a hook returns nothing, whatever it is given.

    Raises a refusal where it both changes the gradient and keeps something: it is read once for all gradients, and called for none.
    """
    if isinstance(function, Method) and isinstance(function.function, FunctionValue):
        function = function.function
    if isinstance(function, Named | Method):
        return getattr(function, "path", getattr(function, "name", "")) in (*_KEEPING, "print")
    if not isinstance(function, FunctionValue):
        return False
    is_lambda = isinstance(function.node, ast.Lambda)
    body: Sequence[ast.AST] = [function.node.body] if isinstance(function.node, ast.Lambda) else function.node.body
    parts = [part for statement in body for part in ast.walk(statement)]
    returns = is_lambda or any(isinstance(part, ast.Return) and not _is_none(part.value) for part in parts)
    if is_lambda and _keeps(body[0]):
        return True
    if returns and any(_keeps(part) for part in parts):
        raise Refusal(
            "This hook changes the gradient and keeps or prints it as well.",
            "Write two hooks: one that returns the new gradient, then one that keeps it.",
        )
    return not returns


def _keeps(part: ast.AST) -> bool:
    if isinstance(part, ast.Assign | ast.AugAssign):
        targets = part.targets if isinstance(part, ast.Assign) else [part.target]
        return any(not isinstance(target, ast.Name | ast.Tuple) for target in targets)
    if isinstance(part, ast.Nonlocal | ast.Global):
        return True
    if not isinstance(part, ast.Call):
        return False
    function = part.func
    return (
        function.attr in _KEEPING
        if isinstance(function, ast.Attribute)
        else getattr(function, "id", "") in ("print", "setattr")
    )


def _is_none(node: ast.expr | None) -> bool:
    return node is None or (isinstance(node, ast.Constant) and node.value is None)
