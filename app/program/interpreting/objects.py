"""Functions, lambdas, classes and their instances, layers: how they are made, called and asked for attributes."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any, Final

from app.program.differentiation.transforms import Transformed
from app.program.interpreting.state import CALL_DEPTH, State
from app.program.library import attributes as tensors
from app.program.library import containers
from app.program.library.distributions import DistributionValue
from app.program.modules.layers import LayerValue, call_layer
from app.program.modules.weights import set_training
from app.program.reading.source import Refusal
from app.program.semantics import static
from app.program.semantics.graph_values import Several, Value, is_tensor
from app.program.semantics.scopes import Scope
from app.program.semantics.static import named
from app.program.semantics.values import (
    MISSING,
    ClassValue,
    FunctionValue,
    Inert,
    Instance,
    Method,
    Named,
    Partial,
    Super,
)  # fmt: skip

_NO_GRAD: Final = {"no_grad": False, "inference_mode": False, "enable_grad": True}


class Objects(State):
    """Makes, calls and reads objects."""

    # Functions.

    def function(
        self, node: ast.FunctionDef | ast.Lambda, name: str, grad: bool | None = None, fixed: bool = False
    ) -> FunctionValue:
        """A `def` or `lambda` as a value; its defaults are read now, as Python does."""
        places = [*node.args.posonlyargs, *node.args.args]
        pairs = list(zip(places[::-1], node.args.defaults[::-1], strict=False))
        pairs += [(a, d) for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True) if d is not None]
        defaults = {argument.arg: self.value(default) for argument, default in pairs}
        return FunctionValue(name, node, self.scope, defaults, grad, fixed)

    def invoke(self, node: ast.AST, function: Value, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        """`function(*args, **kwargs)`, whatever `function` is."""
        self.charge(node)
        match function:
            case FunctionValue():
                return self._run(function, args, kwargs)
            case Method():
                if isinstance(function.function, FunctionValue):
                    return self._run(function.function, (function.owner, *args), kwargs)
                return self.method(node, function.owner, function.name, args, kwargs)
            case Named():
                return self.calls.resolve(function.path, self.emitter(node))(args, kwargs)
            case Partial():
                return self.invoke(node, function.function, (*function.args, *args), {**function.kwargs, **kwargs})
            case Transformed():
                return self.calls.transforms.invoke(self.emitter(node), function, args, kwargs)
            case LayerValue():
                return self.called_layer(node, function, args, kwargs)
            case ClassValue():
                return self._instance(node, function, args, kwargs)
            case Instance():
                return self._called(node, function, args, kwargs)
            case Inert():
                return function
        raise Refusal(
            f"{named(function).capitalize()} cannot be called.",
            "Call operations, methods, modules, and functions of the program.",
        )

    def called_layer(self, node: ast.AST, layer: LayerValue, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> Value:
        emit = self.emitter(node)
        return call_layer(emit, self.calls.operation, layer, self.weights.tensor_of, args, kwargs)

    def _run(self, function: FunctionValue, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        if any(function is running for running in self.stack):
            raise Refusal(f"`{function.name}` calls itself, and the language has no recursion.", "Use a `for` loop.")
        if len(self.stack) >= CALL_DEPTH:
            raise Refusal(f"Calls are nested more than {CALL_DEPTH} deep.", "Give names to what is computed in between.")
        scope = Scope(function.scope, self._bound(function, args, kwargs))
        outside, enabled, statement = self.scope, self.trace.grad_enabled, self.statement
        self.stack.append(function)
        self.scope = scope
        if function.grad is not None:
            self.trace.grad_enabled = function.grad
        try:
            if isinstance(function.node, ast.Lambda):
                return self.value(function.node.body)
            return self.body(function.node.body)
        finally:
            self.scope, self.trace.grad_enabled, self.statement = outside, enabled, statement
            self.stack.pop()

    def _bound(self, function: FunctionValue, args: tuple[Value, ...], kwargs: dict[str, Value]) -> dict[str, Value]:
        """The arguments by name. Raises a refusal in the words of Python's own."""
        spec = function.node.args
        places = [argument.arg for argument in (*spec.posonlyargs, *spec.args)]
        bound: dict[str, Value] = dict(zip(places, args, strict=False))
        rest = args[len(places) :]
        if spec.vararg is not None:
            bound[spec.vararg.arg] = tuple(rest)
        elif rest:
            raise Refusal(f"`{function.name}` takes {len(places)} arguments, and is given {len(args)}.")
        others: dict[str, Value] = {}
        known = {*places, *(argument.arg for argument in spec.kwonlyargs)}
        for name, value in kwargs.items():
            if name in bound and name in known:
                raise Refusal(f"`{function.name}` is given `{name}` twice.")
            if name in known:
                bound[name] = value
            elif spec.kwarg is not None:
                others[name] = value
            else:
                raise Refusal(f"`{function.name}` has no argument `{name}`.", f"Its arguments are {', '.join(sorted(known))}.")
        if spec.kwarg is not None:
            bound[spec.kwarg.arg] = others
        for name in (*places, *(argument.arg for argument in spec.kwonlyargs)):
            if name not in bound and name not in function.defaults:
                raise Refusal(f"`{function.name}` needs the argument `{name}`.", f"Give it: `{function.name}(…, {name}=…)`.")
            bound.setdefault(name, function.defaults.get(name))
        return bound

    # Classes.

    def _instance(self, node: ast.AST, kind: ClassValue, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Instance:
        instance = Instance(kind)
        start = kind.find("__init__")
        if start is not MISSING:
            self.weights.constructing += 1
            try:
                self._run(start, (instance, *args), kwargs)
            finally:
                self.weights.constructing -= 1
        elif args or kwargs:
            raise Refusal(f"`{kind.name}` takes no arguments.", "Give the class an `__init__`.")
        return instance

    def _called(self, node: ast.AST, instance: Instance, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        if isinstance(instance.kind, str):
            return containers.called(instance, lambda part, given: self.invoke(node, part, given, {}), args)
        for name in ("forward", "__call__") if instance.is_module else ("__call__",):
            function = instance.kind.find(name)
            if isinstance(function, FunctionValue):
                return self._run(function, (instance, *args), kwargs)
        raise Refusal(f"`{instance.kind.name}` has no `forward`.", "Give the class `def forward(self, x): …`.")

    def super_of(self, node: ast.Call) -> Super:
        """`super()`, or `super(Net, self)`, inside a method."""
        instance = self.scope.get("self")
        running = self.stack[-1] if self.stack else None
        if not isinstance(instance, Instance) or not isinstance(instance.kind, ClassValue) or running is None:
            raise Refusal("`super()` stands in a method of a class only.")
        holder = _holder(instance.kind, running)
        return Super(instance, holder.bases if holder is not None else ())

    # Attributes.

    def attribute_of(self, node: ast.AST, owner: Value, name: str) -> Value:
        """`owner.name`."""
        if is_tensor(owner):
            if name == "grad":
                return self.calls.gradients.grad(self.emitter(node), owner)
            if name in ("requires_grad", "is_leaf", "grad_fn"):
                return self.leave_out(node, f".{name}", self.trace.is_live(owner))
            return tensors.attribute(self.emitter(node), owner, name)
        if isinstance(owner, Several):
            return tensors.several_attribute(self.trace.pick, owner, name)
        if isinstance(owner, Instance):
            return self.read(self._instance_attribute(owner, name))
        if isinstance(owner, LayerValue):
            return self._layer_attribute(owner, name)
        if isinstance(owner, Super):
            return Method(owner, name)
        if isinstance(owner, DistributionValue):
            return self.calls.distributions.attribute(self.emitter(node), owner, name)
        if isinstance(owner, ClassValue) and owner.find(name) is not MISSING:
            return self.read(owner.find(name))
        if static.is_number(owner) and name in ("real", "imag"):
            return getattr(owner, name)
        if isinstance(owner, Inert):
            return owner
        return self._plain_attribute(owner, name)

    def _plain_attribute(self, owner: Value, name: str) -> Value:
        if isinstance(owner, containers.Record) and name in owner.fields:
            return self.read(owner[owner.fields.index(name)])
        if isinstance(owner, list | dict | tuple | str) and not name.startswith("_"):
            return Method(owner, name)
        if isinstance(owner, Named | FunctionValue):
            raise Refusal(f"{named(owner).capitalize()} has no `.{name}` here.", "Call it: it is a function.")
        raise Refusal(f"{named(owner).capitalize()} has no `.{name}` here.")

    def _instance_attribute(self, instance: Instance, name: str) -> Value:
        if name in instance.own:
            return instance.own[name]
        if name == "training":
            return instance.training
        if isinstance(instance.kind, ClassValue):
            value = instance.kind.find(name)
            if isinstance(value, FunctionValue):
                return value if value.static else Method(instance, name, value)
            if value is not MISSING:
                return value
        if instance.is_module and name in containers.MODULE_METHODS:
            return Method(instance, name)
        known = ", ".join(f"`{key}`" for key in list(instance.own)[:12]) or "none yet"
        kind = instance.kind if isinstance(instance.kind, str) else instance.kind.name
        near = static.nearest(name, instance.own)
        raise Refusal(
            f"`{kind}` has no attribute `{name}`; its attributes are {known}.",
            f"Nearest: `{near}`." if near else f"Assign it in `__init__`: `self.{name} = …`.",
        )

    def _layer_attribute(self, layer: LayerValue, name: str) -> Value:
        if name in layer.weights:
            return self.weights.tensor_of(layer.weights[name])
        if name in layer.given:
            return layer.given[name]
        if name == "training":
            return layer.training
        if name in containers.MODULE_METHODS:
            return Method(layer, name)
        value = None if name.startswith("_") else getattr(layer.skeleton, name, MISSING)
        if value is None or isinstance(value, bool | int | float | str | tuple):
            return value
        raise Refusal(f"`nn.{layer.name}` has no `.{name}` here.", f"Its weights are {', '.join(layer.weights) or 'none'}.")

    # Methods.

    def method(self, node: ast.AST, owner: Value, name: str, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        """`owner.name(*args, **kwargs)`."""
        if isinstance(owner, Super):
            return self._above(owner, name, args, kwargs)
        if isinstance(owner, Instance):
            held = owner.own.get(name, MISSING)
            if held is MISSING and isinstance(owner.kind, ClassValue):
                held = owner.kind.find(name)
            if held is not MISSING:
                return self.invoke(node, self._instance_attribute(owner, name), args, kwargs)
            if not owner.is_module:
                self._instance_attribute(owner, name)
        if isinstance(owner, Instance) and name not in containers.MODULE_METHODS:
            self._instance_attribute(owner, name)
        if isinstance(owner, Instance | LayerValue):
            return self._module_method(node, owner, name, args, kwargs)
        if isinstance(owner, ClassValue) and isinstance(owner.find(name), FunctionValue):
            return self._run(owner.find(name), args, kwargs)
        if isinstance(owner, Inert):
            return self._inert_method(node, owner, name)
        if is_tensor(owner) and name in tensors.NOTHING:
            return self.leave_out(node, f".{name}()", owner)
        if is_tensor(owner) and name == "backward":
            return self.calls.gradients.backward(owner, args, kwargs)
        return self.calls.method(self.emitter(node), owner, name, args, kwargs)

    def _inert_method(self, node: ast.AST, owner: Inert, name: str) -> Value:
        if owner.what == "an optimizer" and name == "step":
            self.calls.gradients.stepped()
        return self.leave_out(node, f".{name}()", owner)

    def _above(self, above: Super, name: str, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        for base in above.above:
            function = base.find(name)
            if isinstance(function, FunctionValue):
                return self._run(function, (above.instance, *args), kwargs)
        if name == "__init__":
            return None
        raise Refusal(f"`super()` has no `{name}` here.", "Call the method by its own name: `self.…`.")

    def _module_method(
        self, node: ast.AST, owner: Instance | LayerValue, name: str, args: tuple[Value, ...], kwargs: dict[str, Value]
    ) -> Value:
        if name in ("train", "eval"):
            set_training(owner, name == "train" and (not args or bool(args[0])))
            return owner
        if name == "forward":
            return self.invoke(node, owner, args, kwargs)
        if name == "apply" and len(args) == 1:
            return containers.applied(owner, lambda part: self.invoke(node, args[0], (part,), {}))
        if name in containers.INERT_METHODS:
            return self.leave_out(node, f".{name}()", owner)
        return containers.method(self.weights, owner, name, args, kwargs)

    def held_item(self, node: ast.AST, owner: Value, index: Value) -> Value:
        """`owner[index]` of a container of modules, or of an object with `__getitem__`."""
        if isinstance(owner, Instance) and isinstance(owner.kind, str):
            return self.read(containers.item(owner, index))
        if isinstance(owner, Instance) and isinstance(owner.kind, ClassValue):
            getter = owner.kind.find("__getitem__")
            if isinstance(getter, FunctionValue):
                return self._run(getter, (owner, index), {})
        raise Refusal(f"{named(owner).capitalize()} cannot be indexed.")

    def grad_mode(self, name: str, args: tuple[Value, ...]) -> bool | None:
        """What `torch.no_grad` and its like say of derivatives; None where `name` says nothing of them."""
        short = name.rpartition(".")[2]
        if short in ("set_grad_enabled", "inference_mode") and args:
            return bool(args[0]) == (short == "set_grad_enabled")
        return _NO_GRAD.get(short)


def _holder(kind: ClassValue, function: Any) -> ClassValue | None:
    """The class, among `kind` and those above it, in whose text `function` stands."""
    stack = [kind]
    seen: set[int] = set()
    while stack:
        kind = stack.pop()
        if any(function is value for value in kind.own.values()):
            return kind
        if id(kind) not in seen:
            seen.add(id(kind))
            stack += kind.bases
    return None
