"""What a class of the program has from the one that it extends: `super()`, PyTorch's modules, Python's own attributes."""

from __future__ import annotations

import ast
import functools
from collections.abc import Mapping
from typing import Any, Protocol

from app.program.classes.records import Record
from app.program.library import containers, vocabulary
from app.program.library.builtins import ended
from app.program.modules.layers import LayerValue, Weight
from app.program.reading.source import Refusal
from app.program.semantics.graph_values import Value
from app.program.semantics.static import named
from app.program.semantics.values import (
    MISSING,
    ClassValue,
    DefaultDict,
    FunctionValue,
    Instance,
    Iterator,
    Method,
    Named,
    Super,
    special,
)

# Methods of modules that a class of the program may have of its own, with `super()` for what PyTorch does.
_OF_MODULES = (
    "train", "eval", "parameters", "named_parameters", "state_dict", "to", "load_state_dict", "zero_grad", "apply",
    "requires_grad_",
)  # fmt: skip

_OF_SCALERS = ("unscale_", "update", "load_state_dict")


class Reading(Protocol):
    """What is asked of who reads the program."""

    calls: Any
    builtins: Any
    weights: Any
    emitter: Any

    def run(self, function: FunctionValue, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value: ...

    def invoke(self, node: ast.AST, function: Value, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value: ...

    def method(self, node: ast.AST, owner: Value, name: str, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value: ...

    def module_method(
        self, node: ast.AST, owner: Any, name: str, args: tuple[Value, ...], kwargs: dict[str, Value]
    ) -> Value: ...


def above(reader: Reading, node: ast.AST, asked: Super, name: str, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
    """`super().name(*args, **kwargs)`."""
    instance = asked.instance
    for base in asked.above:
        function = base.own.get(name)
        if isinstance(function, FunctionValue):
            return reader.run(function, ((base if function.role == "class" else instance), *args), kwargs)
    builtin = instance.kind.builtin if isinstance(instance.kind, ClassValue) else ""
    if name == "__init__":
        if builtin == "Optimizer":
            _extend_optimizer(reader, node, instance, *args, **kwargs)
        elif instance.is_module and builtin:
            extend_layer(reader, node, instance, args, kwargs)
        elif "args" in instance.own and vocabulary.is_exception(builtin):
            instance.own["args"] = args
        return None
    if name in ("forward", "__call__") and instance.layer is not None:
        return reader.invoke(node, instance.layer, args, kwargs)
    if name == "forward" and instance.kind_is("Sequential"):
        return containers.called(instance, lambda part, values: reader.invoke(node, part, values, {}), args)
    if name == "__setattr__" and len(args) == 2 and isinstance(args[0], str):
        reader.weights.adopt(args[1], instance, args[0])
        instance.own[args[0]] = args[1]
        return None
    if name == "zero_grad" and builtin == "Optimizer":
        return zeroed(reader, instance)
    if name in _OF_MODULES and instance.is_module:
        return reader.module_method(node, instance, name, args, kwargs)
    raise Refusal(f"`super()` has no `{name}` here.", "Call the method by its own name: `self.…`.")


def _extend_optimizer(reader: Reading, node: ast.AST, instance: Instance, params: Value, defaults: Mapping[str, Value]) -> None:
    """`super().__init__(params, defaults)` of a class that extends `torch.optim.Optimizer`: its groups, and a dict for each weight."""
    items = functools.partial(reader.builtins.items, reader.emitter(node))
    members = items(params)
    if not members:
        raise Refusal("The optimizer got an empty parameter list.", "Give it `model.parameters()`.", raises="ValueError")
    listed = members if isinstance(members[0], dict) else [{"params": members}]
    instance.own["param_groups"] = [{**defaults, **group, "params": items(group["params"])} for group in listed]
    state = DefaultDict()
    state.factory = Named("dict")
    instance.own |= {"state": state, "defaults": dict(defaults)}


def zeroed(reader: Reading, instance: Instance) -> Value:
    """`zero_grad()` of such an object."""
    return reader.calls.gradients.reset([p for group in instance.own["param_groups"] for p in group["params"]])


def extend_layer(reader: Reading, node: ast.AST, instance: Instance, args: tuple[Value, ...], kwargs: dict[str, Value]) -> None:
    """`super().__init__(…)` of a class that extends a module of PyTorch: its weights and members are the object's own."""
    builtin = instance.kind.builtin if isinstance(instance.kind, ClassValue) else instance.kind
    layer = reader.calls.resolve(f"nn.{builtin}", reader.emitter(node))(args, kwargs)
    if isinstance(layer, Instance):
        for key, part in layer.own.items():
            if isinstance(part, LayerValue | Weight | Instance) and part.parent is not None and part.parent[0] is layer:
                part.parent = (instance, key)
            instance.own[key] = part
        return
    instance.layer = layer
    for key, weight in layer.weights.items():
        weight.parent = (instance, key)
        instance.own[key] = weight


def reached(owner: Value, name: str) -> Value:
    """`owner.__dict__`, or a special method of an object by its name (`self.__call__(x)`)."""
    if name == "__dict__" and isinstance(owner, Instance) and isinstance(owner.kind, ClassValue) and not owner.is_module:
        return owner.own
    method = special(owner, name)
    if method is not None:
        return method
    if isinstance(owner, ClassValue) and isinstance(owner.find(name), FunctionValue):
        return owner.find(name)
    if isinstance(owner, Super):
        return Method(owner, name)
    raise Refusal(f"{named(owner).capitalize()} has no `.{name}` here.", raises="AttributeError")


def of_record(reader: Reading, owner: Record, name: str) -> Value:
    """A field of a named tuple, or what its class has: a method, a property."""
    if name in owner.fields:
        return owner[owner.fields.index(name)]
    if name == "_fields":
        return owner.fields
    value = MISSING if owner.kind is None else owner.kind.find(name)
    if not isinstance(value, FunctionValue) or value.role == "static":
        return value
    if value.role in ("property", "cached"):
        return reader.run(value, (owner,), {})
    return Method(owner.kind if value.role == "class" else owner, name, value)


def name_of(owner: Value) -> str:
    """`owner.__name__` of a class or a function."""
    if isinstance(owner, ClassValue | FunctionValue):
        return "<lambda>" if owner.name == "lambda" else owner.name
    if isinstance(owner, Named):
        return owner.path.rpartition(".")[2]
    raise Refusal(f"{named(owner).capitalize()} has no `__name__`.", "Classes and functions have one.")


def scaled(reader: Reading, node: ast.AST, name: str, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
    """A method of `GradScaler`, which scales by 1 here: `scaler.scale(loss)` is the loss, `scaler.step(optimizer)` its step."""
    if name == "scale" and args:
        return args[0]
    if name == "step" and args:
        return reader.method(node, args[0], "step", args[1:], kwargs)
    return {"get_scale": 1.0, "is_enabled": False, "state_dict": {}}.get(name, None if name in _OF_SCALERS else MISSING)


def sent(members: Iterator, name: str, args: tuple[Value, ...]) -> Value:
    """`generator.send(value)`, `generator.close()`."""
    if name == "close":
        return members.close()
    try:
        return members.send(args[0] if args else None)
    except StopIteration as end:
        raise ended(end.value) from None
