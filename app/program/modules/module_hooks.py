"""`net.register_forward_hook(f)` and `register_forward_pre_hook`: functions of the program that a call of a module goes through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from app.program.modules.layers import LayerValue
from app.program.reading.source import Refusal
from app.program.semantics.graph_values import Value
from app.program.semantics.values import Instance

Module = LayerValue | Instance
Invoke = Callable[[Value, tuple[Value, ...]], Value]
REGISTER: Final = {
    "register_forward_hook": "hooks", "register_forward_pre_hook": "pre_hooks", "register_full_backward_hook": "backward_hooks",
    "register_backward_hook": "backward_hooks",
}  # fmt: skip
_OTHERS: Final = ("register_full_backward_pre_hook",)
_LIMIT: Final = 64  # of one module, each a function that is read at every call; pasted programs have 2 at most


@dataclass(frozen=True, slots=True, eq=False)
class ModuleHandle:
    """What the registration gives: `handle.remove()` takes the function out again."""

    hooks: list[Value]
    function: Value


def register(module: Module, name: str, args: tuple[Value, ...], kwargs: dict[str, Value]) -> ModuleHandle:
    """`module.NAME(function)`. Raises a refusal for hooks of another kind."""
    if name in _OTHERS:
        raise Refusal(f"`.{name}()` is not in the language.", "Write `.register_full_backward_hook(f)`, or hook the tensor.")
    if len(args) != 1 or any(kwargs.values()):
        raise Refusal(f"`.{name}()` takes one function here, and no options.", "Write `layer.register_forward_hook(f)`.")
    hooks: list[Value] = getattr(module, REGISTER[name])
    if len(hooks) >= _LIMIT:
        raise Refusal(f"The module has more than {_LIMIT} hooks.", "Write one.", code="too_costly")
    hooks.append(args[0])
    return ModuleHandle(hooks, args[0])


def is_registration(name: str) -> bool:
    return name in REGISTER or name in _OTHERS


def removed(handle: ModuleHandle, name: str) -> None:
    """`handle.remove()`, which may be called again."""
    if name != "remove":
        raise Refusal(f"A hook's handle has no `.{name}()` here.", "It has `.remove()`.")
    handle.hooks[:] = [hook for hook in handle.hooks if hook is not handle.function]


def is_hooked(module: Module) -> bool:
    """Whether a call of it goes through functions of the program."""
    return bool(module.hooks or module.pre_hooks or module.backward_hooks)


def called(
    module: Module,
    args: tuple[Value, ...],
    invoke: Invoke,
    forward: Callable[[tuple[Value, ...]], Value],
    copy: Callable[[Value], Value],
    watch: Callable[[tuple[Value, ...], Value], None],
) -> Value:
    """`module(*args)` through its hooks.

    Arguments:
        forward: the call without them.
        copy: gives tensors on, as steps of their own: the gradient of such a copy is that through this module alone.
        watch: notes that a backward pass between these inputs and outputs calls the module's hooks.
    """
    for hook in list(module.pre_hooks):
        changed = invoke(hook, (module, args))
        if changed is not None:
            args = changed if isinstance(changed, tuple) else (changed,)
    if module.backward_hooks:
        args = copy(args)
    output = forward(args)
    if module.backward_hooks:
        output = copy(output)
        watch(args, output)
    for hook in list(module.hooks):
        changed = invoke(hook, (module, args, output))
        output = output if changed is None else changed
    return output
