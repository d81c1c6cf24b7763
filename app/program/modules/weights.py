"""Where the weights of a program come from: sent under the names of `state_dict`, or initialised as PyTorch does.

A weight that is not sent is a leaf all the same: its first value is part of the program, and the caller sends that back as an input.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator
from typing import Any

from torch import Tensor, fx

from app.program.modules.layers import LayerValue, Weight
from app.program.reading.source import Refusal
from app.program.semantics.aliases import cell_of
from app.program.semantics.graph_values import example, is_floating, reachable
from app.program.semantics.scopes import Scope
from app.program.semantics.trace import Trace
from app.program.semantics.values import Instance

Module = LayerValue | Instance
# Members of a list that take their names from its own (`layers.0.weight`).
LISTED = 1000
# Modules within modules; one that holds itself ends here.
_NESTED = 32


class Weights:
    """The weights of one program.

    Attributes:
        initial: name → the weight that nobody sent.
        taken: names of the inputs that are weights.
        hung: tensors that became weights by `requires_grad_()`.
        constructing: how many `__init__` are being read: there a weight is its first value, which may still be changed.
    """

    def __init__(self, trace: Trace, sent: dict[str, fx.Node]) -> None:
        self._trace = trace
        self._sent = sent
        self.initial: dict[str, Weight] = {}
        self.taken: set[str] = set()
        self.constructing = 0
        self._of_node: dict[fx.Node, Weight] = {}
        self.adopted: list[Any] = []
        self.hung: set[fx.Node] = set()
        self._holders: dict[str, Weight] = {}

    def tensor_of(self, weight: Weight) -> fx.Node:
        """The tensor that the program computes with. Raises `shape_mismatch` where what was sent does not fit."""
        self._of_node[weight.initial] = weight
        if weight.node is None and self.constructing:
            return weight.initial
        if weight.node is None:
            weight.node = self._resolved(weight)
            cell_of(weight.node).leaf = weight.trained
            self._of_node[weight.node] = weight
        return weight.node

    def settle(self, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """An optimizer that was constructed in an `__init__` holds first values, which are no weights of the program yet: they become these."""
        for group in () if self.constructing else groups:
            group["params"] = [
                self.tensor_of(self._of_node[each]) if each in self._of_node else each for each in group["params"]
            ]
        return groups

    def begin(self, weight: Weight) -> None:
        """What is in `initial` now is the first value of the weight, where nobody sent one."""
        if weight.first is not None:
            weight.first = self._trace.now(weight.initial)

    def is_used(self, weight: Weight) -> bool:
        """Whether the program computed with a weight, or changed it: what is written then is not what it begins with."""
        if weight.node is None:
            return False
        first = weight.first or weight.node
        return self._trace.now(weight.node) is not first or _is_read(first)

    def weight_of(self, node: fx.Node) -> Weight | None:
        """The weight that a tensor is, if it is one."""
        return self._of_node.get(node)

    def name_of(self, weight: Weight) -> str:
        """The name that a weight is sent under."""
        names = self._names(weight)
        own = next((name for name, holder in self._holders.items() if holder is weight), None)
        return own or names[0]

    def _resolved(self, weight: Weight) -> fx.Node:
        names = self._names(weight)
        if weight.parent is not None and weight.parent[0] is None and not weight.tied:
            names = [self._own_name(names[0], weight)]
        leaf = self._leaf(weight, names)
        if leaf is not None:
            return leaf
        if not weight.trained:
            return weight.initial
        name = self._unheld(names, weight)
        self.initial[name] = weight
        weight.first = self._trace.now(weight.initial)
        return weight.initial

    def _leaf(self, weight: Weight, names: list[str]) -> fx.Node | None:
        """What was sent for a weight: by the longest of its names, which fits fewest others, that no other weight has taken."""
        longest = names if weight.tied else sorted(names, key=len, reverse=True)
        numbered = itertools.takewhile(self._sent.__contains__, _numbered(names[0]))
        for name in (*(name for name in longest if name in self._sent), *numbered):
            if not self._takes(name, weight):
                continue
            leaf = self._sent[name]
            wanted, shape = tuple(example(weight.initial).shape), tuple(example(leaf).shape)
            if wanted != shape:
                raise Refusal(
                    f"The weight `{name}` has the shape {list(wanted)}; got {list(shape)}.",
                    "Send it as `state_dict` has it.",
                    code="shape_mismatch",
                    expected=str(list(wanted)),
                    given=str(list(shape)),
                )
            self.taken.update((name, *names))
            return leaf
        return None

    def _unheld(self, names: list[str], weight: Weight) -> str:
        """The first name of a weight that no other has; a numbered one where all are taken."""
        return next(
            name for name in itertools.chain(names, _numbered(names[0])) if name not in self._sent and self._takes(name, weight)
        )

    def _takes(self, name: str, weight: Weight) -> bool:
        """Whether a name is the weight's from now on: no other has it, nor does one of a module that was made before by the same name in there."""
        if name in self._holders:
            return self._holders[name] is weight
        for value in self.adopted:
            if (
                isinstance(value, Instance)
                and value.parent is not None
                and value.parent[0] is None
                and not isinstance(value.kind, str)
            ):
                other = _inside(value, name)
                if other is weight:
                    break
                if other is not None:
                    return False
        self._holders[name] = weight
        return True

    def is_sent(self, weight: Weight) -> bool:
        """Whether the query has a value for a weight by one of the names that it has now."""
        return any(name in self._sent for name in self._names(weight))

    def _own_name(self, name: str, weight: Weight) -> str:
        """A name of the program that several weights had one after the other, as a local one of a function, is that of the first alone."""
        names = itertools.chain([name], _numbered(name))
        return next(own for own in names if self._holders.setdefault(own, weight) is weight)

    def _names(self, weight: Weight) -> list[str]:
        """The names that a weight may be sent by, the one that it is called by first; those of places that it is tied to last."""
        if not weight.tied:
            return self._names_at(weight.parent)
        names = [name for place in (weight.parent, *weight.tied) for name in self._names_at(place)]
        root = weight.parent
        while root is not None and root[0] is not None and root[0].parent is not None and root[0].parent[0] is not None:
            root = root[0].parent
        whole = root[0] if root is not None else None
        first = [name for name, other in named_weights(whole) if other is weight] if whole is not None else []
        return list(dict.fromkeys([*first, *names]))  # `named_parameters` tells of it under the first

    def _names_at(self, parent: tuple[Any, str] | None) -> list[str]:
        keys: list[str] = []
        owner: Any = None
        while parent is not None and parent[0] is not None and len(keys) < _NESTED:
            owner = parent[0]
            keys.insert(0, parent[1])
            parent = owner.parent
        inside = ".".join(keys)
        if parent is None:  # held by no name of the program
            kind = owner.kind if isinstance(owner, Instance) else getattr(owner, "name", "weight")
            anonymous = (kind if isinstance(kind, str) else kind.name).lower()
            if not inside:
                return [anonymous]
            return [inside, f"{anonymous}.{inside}"] if isinstance(owner, Instance) else [f"{anonymous}.{inside}", inside]
        if not inside:
            return [parent[1]]
        whole = f"{parent[1]}.{inside}"
        return [inside, whole] if isinstance(owner, Instance) and not isinstance(owner.kind, str) else [whole, inside]

    def adopt(self, value: Any, owner: Module | None, key: str) -> None:
        """`value`, bound as `key` of `owner`, takes its name from there unless it has one."""
        if isinstance(value, LayerValue | Weight) or (isinstance(value, Instance) and value.is_module):
            # The name of a variable gives way to that in a module, and so does the place in a list that is no `nn.ModuleList`.
            gives_way = value.parent is not None and (value.parent[0] is None or ("." in value.parent[1] and "." not in key))
            if value.parent is None or (gives_way and owner is not None and not self._is_named(value)):
                value.parent = (owner, key)
                self.adopted.append(value)
        elif isinstance(value, list | tuple):
            for index, member in enumerate(value[:LISTED]):
                if not isinstance(member, list | tuple):
                    self.adopt(member, owner, f"{key}.{index}")

    def _is_named(self, value: Any) -> bool:
        """Whether some weight of `value` has its name already, because the program computed with it."""
        held = [value] if isinstance(value, Weight) else [weight for _, weight in named_weights(value)]
        return any(weight.node is not None for weight in held)

    def held_by(self, node: fx.Node) -> Weight | None:
        """The weight that a tensor is, or whose whole memory it shows (`layer.weight.data`)."""
        weight = self._of_node.get(node)
        cell = node.meta.get("cell")
        if weight is not None or cell is None or any(view.target is not Tensor.detach for view in cell.views):
            return weight
        return next((w for n, w in self._of_node.items() if n.meta.get("cell") is cell.root), None)

    def frozen(self) -> list[str]:
        """The names of the parameters that the program computed with and froze."""
        return [
            self.name_of(weight)
            for weight in dict.fromkeys(self._of_node.values())
            if weight.frozen and weight.node is not None
        ]

    def _all(self) -> Iterator[Weight]:
        """Every weight that some name of the program leads to, used or not."""
        for value in self.adopted:
            if isinstance(value, LayerValue):
                yield from value.weights.values()
            elif isinstance(value, Weight):
                yield value

    def refuse_unused(self, names: list[str]) -> None:
        """Refuses inputs with dotted names that no weight took."""
        known = sorted({*self.initial, *(name for name in self.taken if name in self._sent)})
        unused = {other for weight in self._all() for other in self._names(weight)} if set(names) - self.taken else set()
        for name in names:
            if name not in self.taken and name not in unused and not name.endswith(".num_batches_tracked"):
                near = difflib.get_close_matches(name, known, n=1) or known[:1]
                raise Refusal(
                    f"The program has no weight `{name}`.",
                    (f"Its weights are {', '.join(known[:20])}." + (f" Nearest: `{near[0]}`." if near else ""))
                    if known
                    else "Leave it out: the program has no weights.",
                    given=name,
                )


def _inside(module: Instance, name: str) -> Weight | None:
    """The weight of a module by its name in `state_dict`; None where it has none."""
    value: Any = module
    for key in name.split("."):
        held = value.weights if isinstance(value, LayerValue) else value.own if isinstance(value, Instance) else {}
        value = held.get(key)
    return value if isinstance(value, Weight) else None


def _numbered(name: str) -> Iterator[str]:
    return (f"{name}.{number}" for number in itertools.count(1))


def _is_read(node: fx.Node) -> bool:
    """Whether a step takes it; that it is seen as `.data` is none."""
    return any(user.target is not Tensor.detach or _is_read(user) for user in node.users)


def leaf_of(trace: Trace, weights: Weights, scope: Scope, tensor: fx.Node) -> Weight | None:
    """`w = torch.randn(3)`, then `w.requires_grad_()`: the weight that a tensor becomes to which no input and no weight leads; None for others."""
    now = trace.now(tensor)
    if trace.is_live(tensor) or not is_floating(now.meta["val"]) or tensor in weights.hung:
        return None
    below = reachable([now], lambda node: node.all_input_nodes)
    if any(node.op == "placeholder" or weights.weight_of(node) is not None for node in below):
        return None
    weight = Weight(now)
    weights.hung.add(tensor)
    names = [(held, name) for held in scope.chain() for name, value in held.own.items() if value is tensor]
    for held, name in names:
        held.own[name] = weight
        weights.adopt(weight, None, name)
    if names and not weights.constructing and weights.tensor_of(weight) is not now:
        trace.rebind(tensor, weights.tensor_of(weight))  # where else the program holds it, it is the leaf too
    return weight


def members(module: Module) -> Iterator[tuple[str, Weight | Module]]:
    """What a module holds directly, by name."""
    if isinstance(module, LayerValue):
        yield from module.weights.items()
        return
    for key, value in module.own.items():
        if isinstance(value, LayerValue | Weight) or (isinstance(value, Instance) and value.is_module):
            yield key, value


def named_weights(module: Module, prefix: str = "") -> Iterator[tuple[str, Weight]]:
    """Every weight by its name in `state_dict`, each once."""
    seen: set[int] = set()
    stack = [(prefix, module)]
    weights: list[tuple[str, Weight]] = []

    def visit(path: str, value: Weight | Module, depth: int) -> None:
        if id(value) in seen or depth > 32:
            return
        seen.add(id(value))
        if isinstance(value, Weight):
            weights.append((path, value))
            return
        for key, member in members(value):
            visit(f"{path}.{key}" if path else key, member, depth + 1)

    visit(*stack[0], 0)
    yield from weights


def named_submodules(module: Module, prefix: str = "") -> Iterator[tuple[str, Module]]:
    """The module and every module in it, each once and before what it holds, by PyTorch's names."""
    seen: set[int] = set()
    stack: list[tuple[str, Module]] = [(prefix, module)]
    while stack:
        path, held = stack.pop()
        if id(held) in seen:
            continue
        seen.add(id(held))
        yield path, held
        parts = [(key, part) for key, part in members(held) if isinstance(part, LayerValue | Instance)]
        stack += [(f"{path}.{key}" if path else key, part) for key, part in reversed(parts)]


def submodules(module: Module) -> Iterator[Module]:
    """The module and every module in it."""
    return (held for _, held in named_submodules(module))


def set_training(module: Module, training: bool) -> None:
    """`module.train(training)`."""
    for held in submodules(module):
        held.training = training
