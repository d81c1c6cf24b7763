"""Attributes and methods of values: tensors, modules, objects of the program's classes, optimizers, distributions."""

from __future__ import annotations

import ast
import functools
from collections.abc import Sequence
from typing import Final

import torch
from torch import fx

from app.program.classes import contexts, extension
from app.program.classes.records import Record
from app.program.classes.type_dispatch import Dispatched
from app.program.differentiation import optimizers, schedules
from app.program.differentiation.custom_functions import Context
from app.program.differentiation.hooks import Handle
from app.program.differentiation.optimizers import OptimizerValue
from app.program.differentiation.schedules import SchedulerValue
from app.program.interpreting.state import State
from app.program.library import attributes as tensors
from app.program.library import containers, factories
from app.program.library.distributions import DistributionValue
from app.program.modules import module_hooks, running_statistics
from app.program.modules.layers import LayerValue, Weight, computed_weights
from app.program.modules.module_hooks import ModuleHandle
from app.program.modules.weights import leaf_of, named_weights, set_training, submodules
from app.program.packages import copying, datasets, numpy_arrays
from app.program.packages.python_containers import Parser
from app.program.packages.random_numbers import Stream
from app.program.reading.source import Refusal
from app.program.semantics import static
from app.program.semantics.graph_values import MultiOutput, Value, example, is_tensor
from app.program.semantics.sets import Distinct
from app.program.semantics.static import named
from app.program.semantics.values import (
    MISSING,
    SCALER,
    STEP,
    ClassValue,
    ErrorValue,
    Foreign,
    FunctionValue,
    Inert,
    Instance,
    Iterator,
    Method,
    Named,
    Super,
    special,
)

_LIMITS: Final = ("min", "max", "eps", "tiny", "smallest_normal", "resolution", "bits")
_OF_VALUES: Final[dict[type, tuple[str, ...]]] = {
    torch.finfo: _LIMITS, torch.iinfo: _LIMITS, torch.dtype: ("is_floating_point", "is_complex", "itemsize"),
    **dict.fromkeys((bool, int, float, complex), ("real", "imag")), datasets.Batches: ("dataset", "batch_size"), datasets.Dataset: ("tensors",),
    datasets.Chosen: ("dataset", "indices"), static.PathText: ("name", "stem", "suffix", "parent"),
}  # fmt: skip
_READING_BUFFERS: Final = ("state_dict", "load_state_dict", "buffers", "named_buffers")


class Members(State):
    """Reads attributes and calls methods."""

    def run(self, function: FunctionValue, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        """A function of the program, on its arguments."""
        raise NotImplementedError

    def unhooked(
        self, node: ast.AST, module: Instance | LayerValue, args: tuple[Value, ...], kwargs: dict[str, Value]
    ) -> Value:
        """A call of a module without its hooks."""
        raise NotImplementedError

    def foreign(self, node: ast.AST, function: Foreign, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Foreign:
        """A call of a package that is not here."""
        raise NotImplementedError

    def item(self, node: ast.AST, owner: Value, index: Value) -> Value:
        """`owner[index]`."""
        raise NotImplementedError

    # Attributes.

    def attribute_of(self, node: ast.AST, owner: Value, name: str) -> Value:
        """`owner.name`."""
        if name == "__name__":
            return extension.name_of(owner)
        if name == "__class__":
            return self.calls.resolve("type", self.emitter(node))((owner,), {})
        if name.startswith("__"):
            return extension.reached(owner, name)
        if is_tensor(owner):
            return self._tensor_attribute(node, owner, name)
        if isinstance(owner, MultiOutput):
            return tensors.output_attribute(self.trace.pick, owner, name)
        if isinstance(owner, Instance):
            return self.read(self._instance_attribute(owner, name))
        if isinstance(owner, LayerValue):
            return self._layer_attribute(node, owner, name)
        if isinstance(owner, Super):
            return Method(owner, name)
        if isinstance(owner, DistributionValue):
            return self.calls.distributions.attribute(self.emitter(node), owner, name)
        if isinstance(owner, ClassValue) and (value := self._class_attribute(owner, name)) is not MISSING:
            return value
        if isinstance(owner, Inert):
            return owner.attribute(name) if isinstance(owner, ErrorValue) else owner
        if isinstance(owner, OptimizerValue) and name in ("param_groups", "defaults"):
            return self.weights.settle(owner.groups) if name == "param_groups" else optimizers.defaults(owner)
        if isinstance(owner, Foreign):
            return Foreign(f"{owner.path}.{name}", owner.silent)
        return self._plain_attribute(owner, name)

    def _tensor_attribute(self, node: ast.AST, owner: fx.Node, name: str) -> Value:
        if name == "grad":
            return self.calls.gradients.grad(self.emitter(node), owner)
        if (owner, name) in self.attributes:
            return self.attributes[owner, name]
        weight = self.weights.weight_of(owner)
        if name == "requires_grad":
            live = self.calls.gradients.leaves.requires_grad(owner) if weight is None else weight.trained and not weight.frozen
            return self.leave_out(node, ".requires_grad", live) if weight is None else live
        if name in ("is_leaf", "grad_fn"):
            is_leaf = weight is not None or owner.op == "placeholder" or not self.trace.is_live(owner)
            return is_leaf if name == "is_leaf" else self.leave_out(node, ".grad_fn", None if is_leaf else STEP)
        return numpy_arrays.of_operands(tensors.attribute(self.emitter(node), owner, name), owner)

    def _plain_attribute(self, owner: Value, name: str) -> Value:
        if isinstance(owner, factories.Device) and name in ("type", "index"):
            return owner.type if name == "type" else None
        if name in _OF_VALUES.get(type(owner), ()):
            return getattr(owner, name)
        if isinstance(owner, Record) and (value := extension.of_record(self, owner, name)) is not MISSING:
            return self.read(value)
        has_it = hasattr(type(owner), name) or (isinstance(owner, Distinct) and hasattr(set, name)) or name == "most_common"
        if has_it and isinstance(owner, list | dict | tuple | str | Distinct) and not name.startswith("_"):
            return Method(owner, name)
        if name in getattr(owner, "own", ()):  # of a function: `f.calls`
            return owner.own[name]
        if isinstance(owner, Named | FunctionValue):
            raise Refusal(f"{named(owner).capitalize()} has no `.{name}` here.", "Call it: it is a function.")
        raises = "AttributeError" if static.is_python(owner) and not hasattr(owner, name) else None
        raise Refusal(f"{named(owner).capitalize()} has no `.{name}` here.", raises=raises)

    def _instance_attribute(self, instance: Instance, name: str) -> Value:
        if name in instance.own:
            return instance.own[name]
        if name == "training":
            return instance.training
        if isinstance(instance.kind, ClassValue):
            value = instance.kind.find(name)
            if isinstance(value, FunctionValue):
                if value.role in ("property", "cached"):
                    result = self.run(value, (instance,), {})
                    return instance.own.setdefault(name, result) if value.role == "cached" else result
                if value.role == "class":
                    return Method(instance.kind, name, value)
                return value if value.role == "static" else Method(instance, name, value)
            if value is not MISSING:
                return value
        if instance.is_module and name in containers.MODULE_METHODS:
            return Method(instance, name)
        layer = instance.layer
        if isinstance(layer, LayerValue):
            return self._layer_attribute(self.statement or ast.Pass(), layer, name)
        asked = special(instance, "__getattr__")
        if asked is not None and not name.startswith("__"):
            return self.run(asked.function, (instance, name), {})
        known = ", ".join(f"`{key}`" for key in list(instance.own)[:12]) or "none yet"
        kind = instance.kind if isinstance(instance.kind, str) else instance.kind.name
        near = static.nearest(name, instance.own)
        raise Refusal(
            f"`{kind}` has no attribute `{name}`; its attributes are {known}.",
            f"Nearest: `{near}`." if near else f"Assign it in `__init__`: `self.{name} = …`.",
            raises="AttributeError",
        )

    def _layer_attribute(self, node: ast.AST, layer: LayerValue, name: str) -> Value:
        if name in running_statistics.NAMES and name in layer.weights:
            self.share_buffers(node, layer)
        if name in layer.weights:
            return self.weights.tensor_of(layer.weights[name])
        if name in layer.computed:
            return computed_weights(self.emitter(node), layer, self.weights.tensor_of)[name]
        if name in layer.tensor_options or name == "training":
            return layer.tensor_options.get(name, layer.training)
        if name == "num_batches_tracked" and "running_mean" in layer.weights:
            return self.emitter(node)("tensor", torch.tensor, (layer.batches + len(layer.seen),), {})
        if name in containers.MODULE_METHODS:
            return Method(layer, name)
        value = None if name.startswith("_") else getattr(layer.skeleton, name, MISSING)
        if value is None or isinstance(value, bool | int | float | str | tuple):
            return value
        raise Refusal(f"`nn.{layer.name}` has no `.{name}` here.", f"Its weights are {', '.join(layer.weights) or 'none'}.")

    def share_buffers(self, node: ast.AST, layer: LayerValue) -> None:
        """The program takes running statistics out of a layer: they are brought up to date, now and at every later call."""
        running_statistics.settle(self.trace, self.emitter(node), layer, self.weights.tensor_of)
        layer.is_shared = True

    def freeze(self, node: ast.AST, weights: Sequence[Weight], frozen: bool) -> None:
        """`requires_grad` of weights: what every `backward()` before left in their `.grad` stays there."""
        self.calls.gradients.grads(self.emitter(node), [weight.node for weight in weights if weight.node is not None])
        for weight in weights:
            weight.frozen = frozen

    # Methods.

    def method(self, node: ast.AST, owner: Value, name: str, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        """`owner.name(*args, **kwargs)`."""
        if isinstance(owner, Super):
            return extension.above(self, node, owner, name, args, kwargs)
        if isinstance(owner, Context):
            return owner.call(name, args)
        if isinstance(owner, Instance):
            held = owner.own.get(name, MISSING)
            if held is MISSING and isinstance(owner.kind, ClassValue):
                held = owner.kind.find(name)
            if held is not MISSING:
                return self.invoke(node, self._instance_attribute(owner, name), args, kwargs)
            if name == "zero_grad" and owner.kind_is("Optimizer"):
                return extension.zeroed(self, owner)
            if not owner.is_module:
                self._instance_attribute(owner, name)
        if isinstance(owner, Instance) and name not in containers.MODULE_METHODS:
            return self.invoke(node, self._instance_attribute(owner, name), args, kwargs)
        if isinstance(owner, Instance | LayerValue):
            return self.module_method(node, owner, name, args, kwargs)
        if isinstance(owner, ClassValue) and isinstance(self._class_attribute(owner, name), FunctionValue | Method):
            return self._class_method(node, owner, name, args, kwargs)
        if is_tensor(owner):
            return self._tensor_method(node, owner, name, args, kwargs)
        return self._other_method(node, owner, name, args, kwargs)

    def _other_method(self, node: ast.AST, owner: Value, name: str, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        match owner:
            case OptimizerValue() | SchedulerValue():
                return self._trained(node, owner, name, args, kwargs)
            case Foreign():
                return self.foreign(node, Foreign(f"{owner.path}.{name}", owner.silent), args, kwargs)
            case Inert():
                scaled = extension.scaled(self, node, name, args, kwargs) if owner is SCALER else MISSING
                return self._inert_method(node, owner, name) if scaled is MISSING else scaled
            case ModuleHandle():
                return module_hooks.removed(owner, name)
            case Iterator() if name in ("send", "close"):
                return extension.sent(owner, name, args)
            case Parser() | contexts.Stack():
                return owner.call(name, args, kwargs)
            case list() | range() | Iterator() | datasets.Batches() if self.calls.packages.is_bar(owner, name):
                return self.leave_out(node, f".{name}()", None)
            case Stream():
                return owner.call(name, args, kwargs, self.calls.packages.arrays(self.emitter(node)))
            case FunctionValue() | Dispatched() if name in owner.own:
                return self.invoke(node, owner.own[name], args, kwargs)
            case Handle():
                return self.calls.gradients.hooks.removed(owner, name)
            case Record() if isinstance(value := extension.of_record(self, owner, name), FunctionValue | Method):
                return self.invoke(node, value, args, kwargs)
        return self.calls.method(self.emitter(node), owner, name, args, kwargs)

    def _tensor_method(
        self, node: ast.AST, owner: Value, name: str, args: tuple[Value, ...], kwargs: dict[str, Value]
    ) -> Value:
        weight = self.weights.weight_of(owner)
        if weight is not None and not weight.typed and tensors.moves_a_leaf(name, args, kwargs):
            owner = self.emitter(node)(f".{name}", torch.Tensor.to, (owner, example(owner).dtype), {})
        if name == "requires_grad_" and weight is not None:
            self.freeze(node, [weight], not all(bool(value) for value in (*args, *kwargs.values())))
            self.calls.gradients.leaves.called(owner, name)
            return owner
        if name == "requires_grad_" and all(bool(value) for value in (*args, *kwargs.values())):
            leaf = leaf_of(self.trace, self.weights, self.scope, owner)
            if leaf is not None:
                self.calls.gradients.leaves.called(owner, name)
                return leaf
        if name in tensors.NOTHING:
            self.calls.gradients.leaves.called(owner, name, holds=all(bool(value) for value in (*args, *kwargs.values())))
            return self.leave_out(node, f".{name}()", owner)
        if name == "backward":
            return self.calls.gradients.backward(self.emitter(node), owner, args, kwargs)
        if name == "register_hook" and len(args) == 1:
            return self.calls.gradients.hooks.register(self.emitter(node), owner, args[0])
        return self.calls.method(self.emitter(node), owner, name, args, kwargs)

    def _class_attribute(self, kind: ClassValue, name: str) -> Value:
        return Method(kind, name) if kind.custom and name == "apply" else self.read(kind.find(name))

    def _class_method(
        self, node: ast.AST, kind: ClassValue, name: str, args: tuple[Value, ...], kwargs: dict[str, Value]
    ) -> Value:
        """A method called on its class; of a `torch.autograd.Function` also `F.apply(x)`."""
        if not (kind.custom and name == "apply"):
            first = (kind,) if kind.find(name).role == "class" else ()
            return self.run(kind.find(name), (*first, *args), kwargs)
        if kwargs:
            raise Refusal(f"`{kind.name}.apply` takes no keyword arguments.", "Give them in the order of `forward`.")
        return self.calls.custom(self.emitter(node), kind, args)

    def _trained(
        self,
        node: ast.AST,
        owner: OptimizerValue | SchedulerValue,
        name: str,
        args: tuple[Value, ...],
        kwargs: dict[str, Value],
    ) -> Value:
        """`optimizer.step()`, `optimizer.zero_grad()`, `scheduler.step()`."""
        self.weights.settle(getattr(owner, "groups", []))
        if isinstance(owner, SchedulerValue):
            if name == "step":
                emit = self.emitter(node)
                return schedules.advanced(owner, tuple(self.reads.number(emit, v) if is_tensor(v) else v for v in args))
            if name == "get_last_lr":
                return [group["lr"] for group in owner.optimizer.groups]
        elif name == "step":
            closure = next((value for value in (*args, *kwargs.values()) if value is not None), None)
            if owner.kind == "LBFGS":
                called = functools.partial(self.invoke, node, args=(), kwargs={})
                return self.calls.second_order_step(self.emitter(node), owner, closure, called)
            loss = None if closure is None else self.invoke(node, closure, (), {})
            optimizers.step(self.trace, self.calls.gradients, self.emitter(node), owner)
            return loss
        elif name == "zero_grad":
            return optimizers.zeroed(self.calls.gradients, owner)
        elif name == "add_param_group" and args:
            emit = self.emitter(node)
            return optimizers.extended(owner, lambda value: self.builtins.items(emit, value), args[0])
        elif name == "load_state_dict" and args and isinstance(args[0], optimizers.OptimizerState):
            return optimizers.load(owner, args[0])
        elif name == "state_dict":
            return optimizers.state_of(owner)
        elif name == "load_state_dict" and args and isinstance(args[0], Inert):  # of a file
            return self.leave_out(node, f".{name}()", None)
        raise Refusal(f"{named(owner).capitalize()} has no `.{name}()` here.", "It has `.step()` and `.zero_grad()`.")

    def known_integer(self, node: ast.AST) -> int | None:
        """The first argument of a call, where it is a whole number that is written there or held by a name of the program."""
        argument = node.args[0] if isinstance(node, ast.Call) and node.args else None
        if isinstance(argument, ast.Name) and argument.id in self.scope:
            value = self.scope[argument.id]
        else:
            value = argument.value if isinstance(argument, ast.Constant) else None
        return value if isinstance(value, int) and 0 <= value < 10**18 else None

    def _inert_method(self, node: ast.AST, owner: Inert, name: str) -> Value:
        if name == "manual_seed":
            callee = node.func if isinstance(node, ast.Call) else node
            stream = self.source.excerpt(callee.value) if isinstance(callee, ast.Attribute) else name
            self.trace.randomness.seeded(self.source.place(node)[0], self.known_integer(node), stream)
        return self.leave_out(node, f".{name}()", owner)

    def module_method(
        self, node: ast.AST, owner: Instance | LayerValue, name: str, args: tuple[Value, ...], kwargs: dict[str, Value]
    ) -> Value:
        if name in ("train", "eval"):
            set_training(owner, name == "train" and (not args or bool(args[0])))
            return owner
        if name in _READING_BUFFERS:
            for part in submodules(owner):
                if isinstance(part, LayerValue):
                    self.share_buffers(node, part)
        if name == "forward":
            return self.unhooked(node, owner, args, kwargs)
        if module_hooks.is_registration(name):
            return module_hooks.register(owner, name, args, kwargs)
        if name == "apply" and len(args) == 1:
            return containers.applied(owner, lambda part: self.invoke(node, args[0], (part,), {}))
        if name == "zero_grad":
            held = [self.weights.tensor_of(weight) for _, weight in named_weights(owner)]
            return self.calls.gradients.reset(held)
        if name == "load_state_dict" and args:
            return copying.loaded(self.trace, self.emitter(node), self.weights, owner, args[0])
        if name == "requires_grad_":
            held_weights = [weight for _, weight in named_weights(owner) if weight.trained]
            self.freeze(node, held_weights, not all(bool(value) for value in (*args, *kwargs.values())))
            return owner
        if name in containers.INERT_METHODS:
            return self.leave_out(node, f".{name}()", owner)
        return containers.method(self.weights, owner, name, args, kwargs)

    def held_item(self, node: ast.AST, owner: Value, index: Value) -> Value:
        """`owner[index]` of a container of modules, or of an object with `__getitem__`."""
        if isinstance(owner, Instance) and isinstance(owner.kind, str):
            return self.read(containers.item(owner, index))
        getter = special(owner, "__getitem__")
        if getter is not None:
            return self.invoke(node, getter, (index,), {})
        if isinstance(owner, Instance) and owner.kind_is("Sequential"):
            return self.read(containers.item(owner, index))
        if isinstance(owner, ClassValue) and owner.members is not None:
            if not isinstance(index, str) or index not in owner.members:
                raise Refusal(
                    f"`{owner.name}` has no member of this name.", f"It has {', '.join(owner.members)}.", raises="KeyError"
                )
            return owner.members[index]
        raise Refusal(f"{named(owner).capitalize()} cannot be indexed.")
