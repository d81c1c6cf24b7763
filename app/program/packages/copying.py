"""`copy.deepcopy` of tensors, lists and modules, and `load_state_dict`: weights that begin as others are."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from app.program.classes.records import Record, named_tuple
from app.program.differentiation.optimizers import OptimizerState, OptimizerValue, check
from app.program.differentiation.schedules import SchedulerValue
from app.program.library.inplace import write
from app.program.modules.layers import LayerValue, Weight
from app.program.modules.weights import Weights, named_weights
from app.program.packages.random_numbers import Stream
from app.program.reading.source import Refusal
from app.program.semantics.graph_values import Emit, Value, is_tensor
from app.program.semantics.sets import Distinct
from app.program.semantics.static import NESTING_LIMIT, members_in, named
from app.program.semantics.trace import Trace
from app.program.semantics.values import Inert, Instance


def copied(emit: Emit, weights: Weights, value: Value, spend: Callable[[int], None]) -> Value:
    """`copy.deepcopy(value)`: modules get weights of their own, which begin as those of the original are.

    What stands in several places is copied once, as Python does.
    """
    spend(2 * members_in(value))
    known: dict[int, tuple[Value, Value]] = {}  # by `id`: each value, so that no other takes its place, and its copy

    def copy_of(member: Value, depth: int) -> Value:
        if id(member) not in known:
            spend(1)
            known[id(member)] = member, _copied(emit, weights, member, depth, copy_of)
        return known[id(member)][1]

    return copy_of(value, 0)


def shallow(value: Value, spend: Callable[[int], None]) -> Value:
    """`copy.copy(value)`: another list, dict, set or object with the same members."""
    if isinstance(value, Instance):
        return dataclasses.replace(value, own=dict(value.own), hooks=list(value.hooks), pre_hooks=list(value.pre_hooks))
    if isinstance(value, list | dict):
        spend(1 + len(value) // 8)
        return copy.copy(value)
    if isinstance(value, LayerValue):
        return dataclasses.replace(value, weights=dict(value.weights), hooks=list(value.hooks), pre_hooks=list(value.pre_hooks))
    return Distinct(value) if isinstance(value, Distinct) else value


def _copied(emit: Emit, weights: Weights, value: Value, depth: int, copy_of: Callable[[Value, int], Value]) -> Value:
    if depth > NESTING_LIMIT:
        raise Refusal("This is nested too deeply to be copied.")
    again: Callable[[Any], Any] = lambda member: copy_of(member, depth + 1)  # noqa: E731
    if is_tensor(value):
        return emit("clone", torch.clone, (value,), {})
    if isinstance(value, Weight):
        return _weight(emit, weights, value)
    if isinstance(value, LayerValue):
        layer = LayerValue(value.name, value.skeleton, {}, value.tensor_options, training=value.training)
        layer.hooks, layer.pre_hooks = list(value.hooks), list(value.pre_hooks)
        layer.seen, layer.batches, layer.computed = list(value.seen), value.batches, dict(value.computed)
        for key, weight in value.weights.items():
            layer.weights[key] = again(weight)
            if layer.weights[key].parent is None:
                layer.weights[key].parent = (layer, key)
        return layer
    if isinstance(value, Instance):
        instance = Instance(value.kind, training=value.training, hooks=list(value.hooks), pre_hooks=list(value.pre_hooks))
        for key, member in value.own.items():
            instance.own[key] = again(member)
            weights.adopt(instance.own[key], instance, key)
        if value.layer is not None:
            instance.layer = again(value.layer)
            for key in value.layer.weights:  # the object's own are those of the layer
                instance.layer.weights[key] = instance.own[key]
        return instance
    if isinstance(value, list | dict | Distinct | Stream):
        return _filled(value, again)
    if isinstance(value, tuple):
        members = tuple(again(member) for member in value)
        if not isinstance(value, Record):
            return members
        return named_tuple(members, value.fields, value.kind)
    return _of_training(value)


def _of_training(value: Value) -> Value:
    if isinstance(value, OptimizerState):
        check(value)
        return dataclasses.replace(value, source=None)
    if isinstance(value, OptimizerValue | SchedulerValue):
        raise Refusal(
            f"{named(value).capitalize()} is not copied here: PyTorch's copy changes copies of the weights, which no model has.",
            "Construct another over the weights that it is to change: `optim.SGD(copied.parameters(), lr=0.01)`.",
        )
    return value


def _filled(value: Value, again: Callable[[Any], Any]) -> Value:
    """A container of the same kind with copies of the members; a generator of the same numbers."""
    if isinstance(value, Stream):
        return copy.deepcopy(value)
    if isinstance(value, Distinct):
        return Distinct(map(again, value))
    other = copy.copy(value)
    if isinstance(value, dict):
        other.update({key: again(member) for key, member in value.items()})
    else:
        other[:] = [again(member) for member in value]
    return other


def _weight(emit: Emit, weights: Weights, weight: Weight) -> Weight:
    is_known = weight.node is not None or weights.is_sent(weight)
    source = weights.tensor_of(weight) if is_known and not weights.constructing else weight.initial
    return Weight(emit("clone", torch.clone, (source,), {}), trained=weight.trained)


def loaded(trace: Trace, emit: Emit, weights: Weights, module: LayerValue | Instance, state: Value) -> Value:
    """`module.load_state_dict(state)`: what is sent for a weight stands, else it begins as `state` has it."""
    if isinstance(state, Inert):
        return None  # a file: its values are sent with the query
    if not isinstance(state, dict):
        raise Refusal(f"A `state_dict` is a dict of tensors, not {named(state)}.", "Send the weights with the query.")
    for name, weight in named_weights(module):
        if is_tensor(state.get(name)):
            value = emit("detach", torch.Tensor.detach, (state[name],), {})
            if weight.node is not None and weights.is_used(weight):
                _copy_into(trace, emit, weight.node, value)
            else:
                begin(trace, emit, weights, weight, value, ".load_state_dict()")
    return None


def _copy_into(trace: Trace, emit: Emit, node: fx.Node, value: fx.Node) -> None:
    enabled, trace.grad_enabled = trace.grad_enabled, False
    seen = len(trace.overwritten)
    try:
        write(trace, emit, node, emit("clone", torch.clone, (value,), {}), ".load_state_dict()")
    finally:
        trace.grad_enabled = enabled
        del trace.overwritten[seen:]  # a model that was used under `no_grad` alone may be loaded into before a `backward()`


def begin(trace: Trace, emit: Emit, weights: Weights, weight: Weight, value: fx.Node, what: str) -> None:
    """`weight` begins as `value`, where nobody sends it."""
    enabled, trace.grad_enabled = trace.grad_enabled, False
    try:
        write(trace, emit, weight.initial, emit("clone", torch.clone, (value,), {}), what)
        weights.begin(weight)
    finally:
        trace.grad_enabled = enabled
