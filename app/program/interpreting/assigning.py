"""Assignments: to names, tuples of names, attributes, places in a list and in a tensor."""

from __future__ import annotations

import ast

import torch

from app.program.interpreting.objects import Objects
from app.program.library import inplace
from app.program.library.containers import is_key
from app.program.modules.layers import LayerValue, Weight
from app.program.modules.weights import LISTED, leaf_of
from app.program.reading.bound_names import bound_names
from app.program.reading.source import Refusal
from app.program.semantics import static
from app.program.semantics.graph_values import Value, is_tensor
from app.program.semantics.static import named
from app.program.semantics.values import (
    MISSING,
    UNREADABLE,
    ClassValue,
    Foreign,
    FunctionValue,
    Inert,
    Instance,
    Named,
    special,
)


class Assigning(Objects):
    """Binds what stands left of `=`."""

    def assign(self, target: ast.expr, value: Value) -> None:
        """Binds `target` (a name, a place, an attribute, or nested tuples of these) to `value`."""
        if isinstance(target, ast.Name):
            if isinstance(value, list | tuple):
                self.trace.budget.spend(1 + min(len(value), LISTED) // 8)
            self.weights.adopt(value, None, target.id)
            self.scope.bind(target.id, value)
        elif isinstance(target, ast.Tuple | ast.List):
            self._unpack(target, value)
        elif isinstance(target, ast.Subscript):
            self.assign_item(target, self.value(target.value), self.value(target.slice), value)
        elif isinstance(target, ast.Attribute):
            self.assign_attribute(target, self.value(target.value), value)
        else:
            raise self.source.refused(Refusal("This cannot be assigned to.", "Assign to a name."), target)

    def _unpack(self, target: ast.Tuple | ast.List, value: Value) -> None:
        parts = self.located(target, lambda: self.builtins.items(self.emitter(target), value))
        starred = [index for index, part in enumerate(target.elts) if isinstance(part, ast.Starred)]
        if starred:
            before, after = starred[0], len(target.elts) - starred[0] - 1
            if len(parts) >= before + after:
                rest = list(parts[before : len(parts) - after])
                parts = [*parts[:before], rest, *parts[len(parts) - after :]]
        if len(parts) != len(target.elts):
            refusal = Refusal(
                f"{len(target.elts)} names stand on the left, and there are {len(parts)} values on the right.",
                raises="ValueError",
            )
            raise self.source.refused(refusal, target)
        for name, part in zip(target.elts, parts, strict=True):
            self.assign(name.value if isinstance(name, ast.Starred) else name, part)

    def assign_item(self, target: ast.Subscript, owner: Value, index: Value, value: Value) -> None:
        """`owner[index] = value`."""
        if is_tensor(owner):
            self.located(target, lambda: inplace.set_item(self.trace, self.emitter(target), owner, index, value))
            return
        if isinstance(owner, dict) and is_key(index):
            static.check_length(len(owner) + 1)
            owner[index] = value
            return
        if isinstance(owner, list) and isinstance(index, int) and -len(owner) <= index < len(owner):
            owner[index] = value
            return
        if isinstance(owner, Foreign):
            self.leave_out(target, f"{owner.path}[…] = …", None)
            return
        if isinstance(owner, list) and isinstance(index, slice) and isinstance(value, list | tuple):
            static.check_length(len(owner) + len(value))
            static.computed(lambda: owner.__setitem__(index, value), what="A slice")
            return
        if isinstance(owner, Instance) and isinstance(owner.kind, str):
            owner.own[str(index)] = value
            self.weights.adopt(value, owner, str(index))
            return
        setter = special(owner, "__setitem__")
        if setter is not None:
            self.located(target, lambda: self.invoke(target, setter, (index, value), {}))
            return
        what = "There is no such place to assign to." if isinstance(owner, list | dict) else None
        raises = "TypeError" if isinstance(owner, tuple | str) or static.is_number(owner) or owner is None else None
        if isinstance(owner, list) and isinstance(index, int):
            raises = "IndexError"
        raise self.source.refused(
            Refusal(what or f"{named(owner).capitalize()} cannot be assigned into.", raises=raises), target
        )

    def assign_attribute(self, target: ast.Attribute, owner: Value, value: Value) -> None:
        """`owner.name = value`."""
        name = target.attr
        if isinstance(owner, Instance):
            setter = owner.kind.find(f"{name}.setter") if isinstance(owner.kind, ClassValue) else MISSING
            if isinstance(setter, FunctionValue):
                self.run(setter, (owner, value), {})
                return
            if isinstance(owner.kind, ClassValue) and owner.kind.frozen:
                refusal = Refusal(
                    f"`{owner.kind.name}` is frozen.", f"Write `dataclasses.replace(value, {name}=…)`.", raises="AttributeError"
                )
                raise self.source.refused(refusal, target)
            self.weights.adopt(value, owner, name)
            owner.own[name] = value
            if owner.layer is not None and name in owner.layer.weights and isinstance(value, Weight):
                owner.layer.weights[name] = value
        elif isinstance(owner, LayerValue) and name in owner.weights and is_tensor(value):
            tied = self.weights.weight_of(value)
            if tied is None:
                raise self.source.refused(
                    Refusal("A weight is replaced by another weight only.", f"Write `nn.init.…_({name})`, or send it."), target
                )
            self.share_buffers(target, owner)
            owner.weights[name] = tied
            tied.tied.append((owner, name))
        elif is_tensor(owner) and name == "data" and is_tensor(value):
            self.located(target, lambda: inplace.set_data(self.trace, self.emitter(target), owner, value))
        elif is_tensor(owner) and name == "grad":
            self.calls.gradients.assign(owner, value)
        elif is_tensor(owner) and name == "requires_grad" and self.weights.weight_of(owner) is not None:
            self.freeze(target, [self.weights.weight_of(owner)], not value)  # type: ignore[list-item]
        elif is_tensor(owner) and name == "requires_grad":
            if value:
                leaf_of(self.trace, self.weights, self.scope, owner)
            self.calls.gradients.leaves.called(owner, "requires_grad_", holds=bool(value))
            self.leave_out(target, ".requires_grad", None)
        elif is_tensor(owner) and not hasattr(torch.Tensor, name):
            self.attributes[owner, name] = value
        elif isinstance(owner, ClassValue | FunctionValue):
            owner.own[name] = value
        elif isinstance(owner, Inert | Foreign | Named):
            self.leave_out(target, f".{name} = …", None)
        else:
            refusal = Refusal(f"`.{name}` of {named(owner)} cannot be assigned to.", f"Assign to a name: `{name} = …`.")
            raise self.source.refused(refusal, target)

    def poison(self, node: ast.stmt) -> None:
        """Names that `node` would have bound are unreadable from here on; so is what it would have written into."""
        for name in bound_names([node]):
            self.scope.bind(name, UNREADABLE)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            while isinstance(target, ast.Subscript | ast.Attribute):
                target = target.value
            if isinstance(target, ast.Name) and target.id in self.scope and target.id != "self":
                self.scope.bind(target.id, UNREADABLE)
