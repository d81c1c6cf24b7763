"""Functions, lambdas, classes and their instances, layers: how they are made, called and asked for attributes."""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from app.errors import PullbackError
from app.program.classes import extension
from app.program.classes.records import Record, named_tuple
from app.program.classes.type_dispatch import Dispatched
from app.program.differentiation import nesting
from app.program.differentiation.transforms import Transformed
from app.program.interpreting.members import Members
from app.program.interpreting.state import CALL_DEPTH
from app.program.library import containers, vocabulary
from app.program.library.factories import PYTHON_NAMES
from app.program.modules import module_hooks, packed, running_statistics
from app.program.modules.layers import LayerValue, call_layer
from app.program.packages import imports
from app.program.packages.python_containers import Getter
from app.program.reading.source import Refusal
from app.program.semantics import static
from app.program.semantics.graph_values import Value
from app.program.semantics.scopes import Scope
from app.program.semantics.static import named
from app.program.semantics.values import (
    MISSING,
    Begun,
    ClassValue,
    ContextValue,
    Foreign,
    FunctionValue,
    Inert,
    Instance,
    Iterator,
    Method,
    Named,
    Partial,
    Super,
)  # fmt: skip

# Of the budget of evaluated expressions: an attribute that is not there has the nearest names looked for, which takes half a millisecond.
_NEAREST = 100
_CLOSURES = (ast.FunctionDef, ast.Lambda, ast.ClassDef, ast.GeneratorExp)  # what reads names later


class Objects(Members):
    """Makes, calls and reads objects."""

    # Functions.

    def function(
        self, node: ast.FunctionDef | ast.Lambda, name: str, grad: bool | None = None, role: str = "method"
    ) -> FunctionValue:
        """A `def` or `lambda` as a value; its defaults are read now, as Python does."""
        positional = [*node.args.posonlyargs, *node.args.args]
        pairs = list(zip(positional[::-1], node.args.defaults[::-1], strict=False))
        pairs += [(a, d) for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True) if d is not None]
        defaults = {argument.arg: self.value(default) for argument, default in pairs}
        return FunctionValue(name, node, self.scope, defaults, grad, role)

    def invoke(self, node: ast.AST, function: Value, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        """`function(*args, **kwargs)`, whatever `function` is."""
        self.charge(node)
        match function:
            case FunctionValue():
                return self._remembered(function, args, kwargs)
            case Method():
                if isinstance(function.function, FunctionValue):
                    return self._remembered(function.function, (function.owner, *args), kwargs)
                return self.method(node, function.owner, function.name, args, kwargs)
            case Named(path="getattr" | "hasattr" as path):
                return self.asked(path, node, args)
            case torch.dtype() if function in PYTHON_NAMES:
                return self.invoke(node, Named(PYTHON_NAMES[function]), args, kwargs)
            case Named():
                return self.calls.resolve(function.path, self.emitter(node))(args, kwargs)
            case Getter() | Partial() | Dispatched():
                return self._completed(node, function, args, kwargs)
            case Transformed():
                return self.calls.transforms.invoke(self.emitter(node), function, args, kwargs)
            case LayerValue() | Instance() if module_hooks.is_hooked(function):
                return self.hooked(node, function, args, kwargs)
            case LayerValue():
                return self.called_layer(node, function, args, kwargs)
            case ClassValue():
                return self._instance(node, function, args, kwargs)
            case Instance():
                return self.unhooked(node, function, args, kwargs)
            case Foreign():
                return self.foreign(node, function, args, kwargs)
            case Inert():
                return function
        raise Refusal(
            f"{named(function).capitalize()} cannot be called.",
            "Call operations, methods, modules, and functions of the program.",
            raises="TypeError" if static.is_python(function) else None,
        )

    def _remembered(self, function: FunctionValue, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        """A call of a function; under `lru_cache` what it gave for the same arguments before, tensors by identity."""
        answers = function.answers
        if answers is None:
            return self.run(function, args, kwargs)
        problem = f"`{function.name}` keeps its answers (`lru_cache`), and these arguments cannot be looked up."
        key = static.key((args, tuple(kwargs.items())), self.trace.budget.spend, problem)
        if key not in answers:
            answers[key] = self.run(function, args, kwargs)
        return answers[key]

    def _completed(
        self, node: ast.AST, function: Getter | Partial | Dispatched, args: tuple[Value, ...], kwargs: dict[str, Value]
    ) -> Value:
        """A call of `partial(f, …)`, of `itemgetter(1)`, or of a function under `@singledispatch`."""
        if isinstance(function, Dispatched):
            chosen = function.chosen(lambda asked, values: self.invoke(node, asked, values, {}), args)
            return self.invoke(node, chosen, args, kwargs)
        if isinstance(function, Partial):
            return self.invoke(node, function.function, (*function.args, *args), {**function.kwargs, **kwargs})
        (owner,) = args
        read = (
            (lambda key: self.attribute_of(node, owner, str(key)))
            if function.is_attribute
            else functools.partial(self.item, node, owner)
        )
        parts = tuple(map(read, function.keys))
        return parts[0] if len(parts) == 1 else parts

    def foreign(self, node: ast.AST, function: Foreign, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        """A call of a package that is not here: a harmless line, or a refusal."""
        return self.leave_out(node, function.path, imports.called(function, (*args, *kwargs.values())))

    def is_silent(self, node: ast.expr) -> bool:
        """Whether the expression asks a package that only shows or measures."""
        while isinstance(node, ast.Attribute | ast.Call):
            node = node.func if isinstance(node, ast.Call) else node.value
        value = self.scope[node.id] if isinstance(node, ast.Name) and node.id in self.scope else None
        return isinstance(value, Foreign) and value.silent

    def asked(self, name: str, node: ast.AST, args: tuple[Value, ...]) -> Value:
        """`getattr(x, "name", default)` and `hasattr(x, "name")`."""
        if len(args) < 2 or not isinstance(args[1], str) or args[1].startswith("__") or not args[1].isidentifier():
            raise Refusal(f"`{name}` takes a value and the name of an attribute.", f'Write `{name}(x, "name")`.')
        owner, attribute = args[0], args[1]
        try:
            if isinstance(owner, Named):
                path = f"{owner.path}.{attribute}"
                constant = vocabulary.constant(path)
                if constant is None:
                    self.calls.resolve(path, self.emitter(node))
                value = Named(path) if constant is None else constant
            else:
                value = self._tried(node, owner, attribute)
        except (Refusal, PullbackError):
            self.trace.budget.spend(_NEAREST)
            if name == "hasattr":
                return False
            if len(args) > 2:
                return args[2]
            raise
        return True if name == "hasattr" else value

    def _tried(self, node: ast.AST, owner: Value, attribute: str) -> Value:
        """`owner.attribute`; what a `__getattr__` of the program raises is raised here."""
        self.trying += 1
        try:
            return self.attribute_of(node, owner, attribute)
        finally:
            self.trying -= 1

    def called_layer(self, node: ast.AST, layer: LayerValue, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> Value:
        emit = self.emitter(node)
        if layer.seen and not layer.training:
            running_statistics.settle(self.trace, emit, layer, self.weights.tensor_of)
        running_statistics.note(self.trace, layer, args)
        if args and isinstance(args[0], packed.PackedSequence):
            return packed.called_layer(emit, self.builtins.items, layer, self.weights.tensor_of, args, kwargs)
        result = call_layer(emit, self.calls.operation, layer, self.weights.tensor_of, args, kwargs)
        if layer.is_shared:
            running_statistics.settle(self.trace, emit, layer, self.weights.tensor_of)
        return result

    def hooked(self, node: ast.AST, module: Instance | LayerValue, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        return module_hooks.called(
            module,
            args,
            lambda hook, values: self.invoke(node, hook, values, {}),
            lambda values: self.unhooked(node, module, values, kwargs),
            lambda value: nesting.each(value, self._copy_of(node)),
            lambda inputs, outputs: self.calls.gradients.hooks.watch(module, nesting.leaves(inputs), nesting.leaves(outputs)),
        )

    def _copy_of(self, node: ast.AST) -> Callable[[Any], Value]:
        return lambda tensor: self.emitter(node)("clone", torch.clone, (tensor,), {}) if self.trace.is_live(tensor) else tensor

    def unhooked(
        self, node: ast.AST, module: Instance | LayerValue, args: tuple[Value, ...], kwargs: dict[str, Value]
    ) -> Value:
        if isinstance(module, LayerValue):
            return self.called_layer(node, module, args, kwargs)
        return self._called(node, module, args, kwargs)

    def run(self, function: FunctionValue, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        self.check_depth(function)
        scope = Scope(function.scope, self._bound(function, args, kwargs), names=self.source.own_names(function.node))
        if self.source.yields(function.node):
            members = Iterator(self.yielded(function, scope), self.dropped.append)
            return ContextValue(function.name, members=members) if function.role == "context" else members
        with self.running(function, scope):
            if isinstance(function.node, ast.Lambda):
                return self.value(function.node.body)
            try:
                return self.body(function.node.body)
            finally:
                if any(isinstance(value, Iterator) for value in scope.own.values()):
                    _let_go(function.node, scope)

    @contextmanager
    def running(self, function: FunctionValue, scope: Scope) -> Generator[None]:
        """While lines of `function` are read: its names, and what its decorator says of derivatives."""
        outside, enabled, statement = self.scope, self.trace.grad_enabled, self.statement
        self.stack.append(function)
        self.scope = scope
        if function.grad is not None:
            self.trace.grad_enabled = function.grad
        try:
            yield
        finally:
            self.scope, self.statement = outside, statement
            if function.grad is not None:
                self.trace.grad_enabled = enabled
            self.stack.pop()

    def check_depth(self, function: FunctionValue) -> None:
        if len(self.stack) >= CALL_DEPTH:
            if function in self.stack:
                raise Refusal(f"`{function.name}` calls itself more than {CALL_DEPTH} deep.", "Use a `for` loop.")
            raise Refusal(f"Calls are nested more than {CALL_DEPTH} deep.", "Give names to what is computed in between.")

    def _bound(self, function: FunctionValue, args: tuple[Value, ...], kwargs: dict[str, Value]) -> dict[str, Value]:
        """The arguments by name. Raises a refusal in the words of Python's own."""
        spec = function.node.args
        positional = [argument.arg for argument in (*spec.posonlyargs, *spec.args)]
        bound: dict[str, Value] = dict(zip(positional, args, strict=False))
        rest = args[len(positional) :]
        if spec.vararg is not None:
            bound[spec.vararg.arg] = tuple(rest)
        elif rest:
            raise Refusal(f"`{function.name}` takes {len(positional)} arguments, and is given {len(args)}.", raises="TypeError")
        others: dict[str, Value] = {}
        known = {*positional, *(argument.arg for argument in spec.kwonlyargs)}
        for name, value in kwargs.items():
            if name in bound and name in known:
                raise Refusal(f"`{function.name}` is given `{name}` twice.", raises="TypeError")
            if name in known:
                bound[name] = value
            elif spec.kwarg is not None:
                others[name] = value
            else:
                text = f"`{function.name}` has no argument `{name}`."
                raise Refusal(text, f"Its arguments are {', '.join(sorted(known))}.", raises="TypeError")
        if spec.kwarg is not None:
            bound[spec.kwarg.arg] = others
        for name in (*positional, *(argument.arg for argument in spec.kwonlyargs)):
            if name not in bound and name not in function.defaults:
                fix = f"Give it: `{function.name}(…, {name}=…)`."
                raise Refusal(f"`{function.name}` needs the argument `{name}`.", fix, raises="TypeError")
            bound.setdefault(name, function.defaults.get(name))
        return bound

    # Classes.

    def _instance(
        self, node: ast.AST, kind: ClassValue, args: tuple[Value, ...], kwargs: dict[str, Value]
    ) -> Instance | Record:
        if kind.members is not None:
            return self._member(kind, args)
        if names := kind.left_open():
            words = ", ".join(f"`{name}`" for name in names[:12])
            raise Refusal(
                f"`{kind.name}` is abstract: it leaves {words} open, and Python makes no object of it.",
                f"Make an object of a class that extends it and defines {words}.",
                raises="TypeError",
            )
        instance = Instance(kind)
        if vocabulary.is_exception(kind.builtin):
            instance.own["args"] = args
        start = kind.find("__init__")
        if start is not MISSING:
            self.weights.constructing += 1
            try:
                self.run(start, (instance, *args), kwargs)
            finally:
                self.weights.constructing -= 1
        elif kind.fields is not None:
            self._filled(node, instance, kind, args, kwargs)
            if kind.is_tuple:
                return named_tuple((instance.own[name] for name in kind.fields), kind.fields, kind)
        elif kind.module and kind.builtin:
            extension.extend_layer(self, node, instance, args, kwargs)
        elif (args or kwargs) and not kind.builtin:
            raise Refusal(f"`{kind.name}` takes no arguments.", "Give the class an `__init__`.", raises="TypeError")
        return instance

    def _member(self, kind: ClassValue, args: tuple[Value, ...]) -> Instance:
        """`Color("red")` of an `Enum`: the member of that value."""
        static.counted(args, self.trace.budget.spend)
        for member in (kind.members or {}).values():
            if args and (member is args[0] or (type(args[0]) is type(member.own["value"]) and args[0] == member.own["value"])):
                return member
        raise Refusal(
            f"`{kind.name}` has no member of this value.",
            f"Its members are {', '.join(kind.members or {})}.",
            raises="ValueError",
        )

    def _filled(
        self, node: ast.AST, instance: Instance, kind: ClassValue, args: tuple[Value, ...], kwargs: dict[str, Value]
    ) -> None:
        """`Config(dim=8)` of a dataclass."""
        fields = kind.fields or ()
        placed = [name for name in fields if name not in kind.limited]
        known = [name for name in fields if kind.limited.get(name) != "init"]
        twice = any(name in kwargs for name in placed[: len(args)])
        if len(args) > len(placed) or twice or any(name not in known for name in kwargs):
            which = f"the fields {', '.join(placed)} by position, {', '.join(known)} by name"
            raise Refusal(f"`{kind.name}` takes {which}, each once.", "Give values for these.", raises="TypeError")
        values = {**dict(zip(placed, args, strict=False)), **kwargs}
        for name in fields:
            value = values.get(name, kind.find(name))
            if value is MISSING:
                raise Refusal(f"`{kind.name}` needs the field `{name}`.", f"Give it: `{kind.name}(…, {name}=…)`.")
            instance.own[name] = self.invoke(node, value.factory, (), {}) if isinstance(value, Begun) else value
        after = kind.find("__post_init__")
        if isinstance(after, FunctionValue):
            self.run(after, (instance,), {})

    def _called(self, node: ast.AST, instance: Instance, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        if isinstance(instance.kind, str):
            return containers.called(instance, lambda part, part_args: self.invoke(node, part, part_args, {}), args)
        for name in ("forward", "__call__") if instance.is_module else ("__call__",):
            function = instance.kind.find(name)
            if isinstance(function, FunctionValue):
                return self.run(function, (instance, *args), kwargs)
            if function is not MISSING:
                return self.invoke(node, function, (instance, *args), kwargs)
        if isinstance(instance.layer, LayerValue):
            instance.layer.training = instance.training
            return self.called_layer(node, instance.layer, args, kwargs)
        if instance.kind_is("Sequential"):
            return containers.called(instance, lambda part, part_args: self.invoke(node, part, part_args, {}), args)
        raise Refusal(f"`{instance.kind.name}` has no `forward`.", "Give the class `def forward(self, x): …`.")

    def super_of(self) -> Super:
        """`super()`, or `super(Net, self)`, inside a method."""
        instance = self.scope.get("self")
        running = self.stack[-1] if self.stack else None
        if not isinstance(instance, Instance) or not isinstance(instance.kind, ClassValue) or running is None:
            raise Refusal("`super()` stands in a method of a class only.")
        holder, order = _holder(instance.kind, running), instance.kind.order
        return Super(instance, order[order.index(holder) + 1 :] if holder in order else ())


def _let_go(node: ast.AST, scope: Scope) -> None:
    """At the end of a function: its generators, as Python counts who holds them; a scope and the functions in it hold one another."""
    inner = [part for part in ast.walk(node) if part is not node and isinstance(part, _CLOSURES)]
    captured = {name.id for part in inner for name in ast.walk(part) if isinstance(name, ast.Name)}
    for name in [name for name, value in scope.own.items() if isinstance(value, Iterator) and name not in captured]:
        scope.unbind(name)


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
