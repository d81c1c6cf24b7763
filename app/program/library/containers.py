"""`nn.Sequential`, `nn.ModuleList`, `nn.ModuleDict`, and the methods that all modules have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from app.program.classes.records import Record, named_tuple
from app.program.modules.layer_table import CONTAINERS
from app.program.modules.layers import LayerValue, Weight
from app.program.modules.weights import Weights, members, named_submodules, named_weights
from app.program.reading.source import Refusal
from app.program.semantics import static
from app.program.semantics.graph_values import Value, is_tensor
from app.program.semantics.static import named
from app.program.semantics.values import ClassValue, FunctionValue, Instance, Iterator, special


def is_key(value: Value) -> bool:
    """Whether `value` can be a key: a string, a number, a tuple of these, a tensor or an object, which is itself."""
    if isinstance(value, tuple):
        return len(value) < 16 and all(isinstance(member, str | int | float) for member in value)
    if isinstance(value, Instance):
        return special(value, "__eq__") is None
    return isinstance(value, str | int | float | ClassValue | FunctionValue) or value is None or is_tensor(value)


INERT_METHODS: Final = frozenset(
    {"to", "cuda", "cpu", "double", "float", "half", "share_memory", "compile",
     "reset_parameters", "flatten_parameters"}
)  # fmt: skip
MODULE_METHODS: Final = INERT_METHODS | {
    "requires_grad_", "zero_grad", "load_state_dict",
    "train", "eval", "forward", "apply", "parameters", "named_parameters", "modules", "children", "named_children", "named_modules",
    "state_dict", "register_buffer", "register_parameter", "add_module", "append", "extend", "insert", "keys", "values", "items",
    "buffers", "named_buffers", "register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook", "register_backward_hook",
    "register_full_backward_pre_hook",
}  # fmt: skip


def renewed(known: Record, name: str, kwargs: dict[str, Value]) -> Value:
    """`record._replace(x=1)` and `record._asdict()`."""
    values = dict(zip(known.fields, known, strict=True))
    if name == "_asdict":
        return values
    if not kwargs.keys() <= values.keys():
        raise Refusal(
            f"The named tuple has the fields {', '.join(known.fields)}.", "Give values for these.", raises="ValueError"
        )
    return named_tuple({**values, **kwargs}.values(), known.fields, known.kind)


def new_container(weights: Weights, name: str, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Instance:
    """`nn.Sequential(a, b)`, `nn.ModuleList([a, b])`, `nn.ModuleDict({"a": a})`."""
    container = Instance(name)
    if name == "Sequential" and not (len(args) == 1 and isinstance(args[0], dict)):
        pairs = [(str(index), part) for index, part in enumerate(args)]
    else:
        held = args[0] if args else next(iter(kwargs.values()), [])
        if isinstance(held, dict):
            pairs = [(str(key), part) for key, part in held.items()]
        elif name.endswith("Dict") and isinstance(held, list | tuple) and all(map(_is_pair, held)):
            pairs = [(str(key), part) for key, part in held]
        elif isinstance(held, list | tuple | Iterator):
            pairs = [(str(index), part) for index, part in enumerate(held)]
        else:
            raise Refusal(f"`nn.{name}` holds modules, not {named(held)}.")
    for key, part in pairs:
        _add(weights, container, key, part)
    return container


def _is_pair(value: Value) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[0], str)


def _add(weights: Weights, container: Instance, key: str, part: Value) -> None:
    static.check_length(len(container.own) + 1)
    weights.adopt(part, container, key)
    container.own[key] = part


def called(container: Instance, invoke: Callable[[Value, tuple[Value, ...]], Value], args: tuple[Value, ...]) -> Value:
    """`net(x)`: one member after the other."""
    if not container.kind_is("Sequential"):
        raise Refusal(f"`nn.{container.kind}` cannot be called.", "Call its members: `for layer in layers: x = layer(x)`.")
    for part in held(container).values():
        args = (invoke(part, args),)
    return args[0] if args else None


def held(container: Instance) -> dict[str, Value]:
    """The members of a container; of an object whose class extends one, its modules."""
    if isinstance(container.kind, str):
        return container.own
    return {
        key: part for key, part in members(container) if not isinstance(part, Weight) or "Parameter" in container.kind.builtin
    }


def item(container: Instance, index: Value) -> Value:
    """`layers[0]`, `layers["a"]`, `net[:2]`."""
    parts = held(container)
    keys = list(parts)
    if isinstance(index, str):
        if index not in parts:
            raise Refusal(f"There is no member `{index}`.", f"The members are {', '.join(keys[:20])}.", raises="KeyError")
        return parts[index]
    if isinstance(index, slice):
        part = Instance(container.kind if isinstance(container.kind, str) else container.kind.builtin, parent=container.parent)
        part.own = {key: parts[key] for key in keys[index]}
        return part
    if not isinstance(index, int) or not -len(keys) <= index < len(keys):
        raise Refusal(f"There is no member {index}; there are {len(keys)}.", raises="IndexError")
    return parts[keys[index]]


def applied(module: Instance | LayerValue, run: Callable[[Value], Value]) -> Value:
    """`model.apply(f)`: every module, the inner ones first."""
    for _, part in members(module):
        if isinstance(part, Instance | LayerValue):
            applied(part, run)
    run(module)
    return module


def method(
    weights: Weights, module: Instance | LayerValue, name: str, args: tuple[Value, ...], kwargs: dict[str, Value]
) -> Value:
    """The methods of modules that give their parts."""
    if name in ("parameters", "named_parameters", "state_dict", "buffers", "named_buffers"):
        pairs = [
            (key, weight)
            for key, weight in named_weights(module)
            if name == "state_dict" or weight.trained != ("buffers" in name)
        ]
        values = [(key, weights.tensor_of(weight)) for key, weight in pairs]
        if name == "state_dict":
            return dict(values)
        return Iterator([value for _, value in values] if name in ("parameters", "buffers") else values)
    if name in ("children", "named_children", "modules", "named_modules"):
        held = [pair for pair in members(module) if isinstance(pair[1], Instance | LayerValue)]
        if name.endswith("modules"):
            held = list(named_submodules(module))
        return Iterator(held if name.startswith("named") else [part for _, part in held])
    if isinstance(module, Instance):
        return _changed(weights, module, name, args, kwargs)
    raise Refusal(f"`nn.{module.name}` has no `.{name}()` here.")


def _changed(weights: Weights, module: Instance, name: str, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
    values = (*args, *kwargs.values())
    if name in ("register_buffer", "register_parameter", "add_module") and len(values) >= 2 and isinstance(values[0], str):
        value = Weight(values[1], trained=False) if name == "register_buffer" and is_tensor(values[1]) else values[1]
        weights.adopt(value, module, values[0])
        module.own[values[0]] = value
        return None
    if name == "append" and len(values) == 1:
        _add(weights, module, str(len(module.own)), values[0])
        return module
    if name == "extend" and len(values) == 1 and isinstance(values[0], list | tuple | Iterator):
        for part in values[0]:
            _add(weights, module, str(len(module.own)), part)
        return module
    if name in ("keys", "values", "items") and not values:
        parts = held(module)
        return [tuple(pair) for pair in parts.items()] if name == "items" else list(getattr(parts, name)())
    kind = module.kind if isinstance(module.kind, str) else module.kind.name
    raise Refusal(f"`{kind}` has no `.{name}()` here.")


def is_sequence(value: Value) -> bool:
    """Whether `value` is a container of modules, or of a class of the program that extends one."""
    return isinstance(value, Instance) and (isinstance(value.kind, str) or value.kind.builtin in CONTAINERS)
