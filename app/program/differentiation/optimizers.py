"""`torch.optim` in a program: each `step()` is one step of the graph, by PyTorch's own formulas, and changes the weights from there on."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, fx, optim
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.optim import _functional as formulas

from app.program.differentiation.gradients import Gradients
from app.program.reading.source import Refusal
from app.program.semantics import static
from app.program.semantics.aliases import value_only
from app.program.semantics.aside import aside
from app.program.semantics.graph_values import Emit, Value, fixed, is_tensor
from app.program.semantics.static import named
from app.program.semantics.trace import Trace

# What an optimizer keeps for each weight, in the order of PyTorch's formula, and with what it begins; None: what the first step leaves.
_STATES: Final[dict[str, tuple[float | None, ...]]] = {
    "SGD": (None,), "Adam": (0.0, 0.0, 0.0), "AdamW": (0.0, 0.0, 0.0), "RMSprop": (0.0, 0.0, 0.0), "Adagrad": (0.0,), "Adadelta": (0.0, 0.0),
    "Adamax": (0.0, 0.0), "NAdam": (0.0, 0.0, 1.0), "RAdam": (0.0, 0.0), "LBFGS": (),
}  # fmt: skip
# Options that say how, not what, is computed.
_INERT: Final = ("foreach", "fused", "capturable", "differentiable")
_INSTEAD: Final = f"There are {', '.join(f'`optim.{name}`' for name in _STATES)}."
_OUT: Final = "Write the step out: `with torch.no_grad(): w -= lr * w.grad`."


@dataclass(slots=True, eq=False)
class OptimizerValue:
    """An optimizer of the program.

    Attributes:
        groups: dicts of options and of tensors, as `param_groups` has them; the program may change the options.
        states: tensor → how often it was changed, and what the optimizer keeps for it.
        rates: PyTorch's own optimizer of nothing, whose rates its schedules change; None where it has no schedule.
        history: what `LBFGS` keeps of all weights together.
        lent: another has loaded its state, so that PyTorch's two change the very same tensors.
        defaults: the options that a group added later has where it names none.
    """

    kind: str
    groups: list[dict[str, Value]]
    defaults: Mapping[str, Value] = field(default_factory=dict)
    lent: bool = False
    states: dict[fx.Node, tuple[int, list[fx.Node | None]]] = field(default_factory=dict)
    rates: optim.Optimizer | None = None
    history: list[fx.Node] = field(default_factory=list)

    def tensors(self) -> list[fx.Node]:
        return [tensor for group in self.groups for tensor in group["params"]]


@dataclass(slots=True, eq=False)
class OptimizerState:
    """`optimizer.state_dict()`: what the optimizer kept then. PyTorch's holds the very tensors that later steps change.

    Attributes:
        source: the optimizer whose later steps change this too: whose it was, or that loaded it last; None of a copy.
        options: of each group, beside its tensors.
        held: of each tensor, in order: how often it was changed and what is kept for it; None before its first step.
    """

    kind: str
    source: OptimizerValue | None
    options: tuple[tuple[int, dict[str, Value]], ...]
    held: tuple[tuple[int, list[fx.Node | None]] | None, ...]


def state_of(optimizer: OptimizerValue) -> OptimizerState:
    """`optimizer.state_dict()`."""
    _check_own(optimizer)
    options = tuple((len(group["params"]), without_tensors(group)) for group in optimizer.groups)
    return OptimizerState(optimizer.kind, optimizer, options, tuple(map(optimizer.states.get, optimizer.tensors())))


def groups_of(state: OptimizerState) -> list[dict[str, Value]]:
    """`optimizer.state_dict()["param_groups"]`: the options, and the numbers of the tensors."""
    starts = itertools.accumulate((count for count, _ in state.options), initial=0)
    return [
        {**group, "params": list(range(start, start + count))}
        for start, (count, group) in zip(starts, state.options, strict=False)
    ]


def load(optimizer: OptimizerValue, state: OptimizerState) -> None:
    """`optimizer.load_state_dict(state)`. Raises a refusal where `state` is no longer what it was, or is of another kind."""
    if optimizer.kind != state.kind or optimizer.kind == "LBFGS" or optimizer.rates is not None:
        raise Refusal(
            "The state of another kind of optimizer, that of `LBFGS`, and one for an optimizer with a schedule are not loaded here.",
            "Go on with the one optimizer.",
        )
    if [len(group["params"]) for group in optimizer.groups] != [count for count, _ in state.options]:
        raise Refusal(
            "The state is of other groups of parameters: PyTorch refuses it.",
            "Construct the optimizer as the one that was saved.",
            code="operation_failed",
            raises="ValueError",
        )
    check(state)
    if state.source is not None and state.source is not optimizer and any(state.held):
        state.source.lent = True
    state.source, optimizer.lent = optimizer, False
    for group, (_, options) in zip(optimizer.groups, state.options, strict=True):
        group.update(options)
    pairs = zip(optimizer.tensors(), state.held, strict=True)
    optimizer.states = {tensor: each for tensor, each in pairs if each is not None}


def check(state: OptimizerState) -> None:
    """Raises a refusal where steps have changed what `state` holds."""
    now = state.held if state.source is None else map(state.source.states.get, state.source.tensors())
    if any(before is not None and before is not later for before, later in zip(state.held, now, strict=False)):
        raise Refusal(
            "The optimizer has made steps since, which change its `state_dict()` too.",
            "Keep a copy: `copy.deepcopy(optimizer.state_dict())`.",
        )


def _check_own(optimizer: OptimizerValue) -> None:
    if optimizer.lent:
        raise Refusal(
            "Another optimizer has loaded this one's state, and PyTorch's two change the same tensors.",
            "Load a copy: `other.load_state_dict(copy.deepcopy(optimizer.state_dict()))`.",
        )


def without_tensors(group: dict[str, Value]) -> dict[str, Value]:
    return {key: value for key, value in group.items() if key != "params"}


def constructed(
    kind: str, items: Callable[[Value], list[Value]], args: tuple[Value, ...], kwargs: Mapping[str, Value]
) -> OptimizerValue:
    """`torch.optim.KIND(params, lr=…)`. Raises a refusal where there is no such optimizer, or PyTorch refuses its options."""
    if kind not in _STATES:
        raise Refusal(f"`optim.{kind}` is not in the language.", f"{_INSTEAD} {_OUT}")
    names = list(inspect.signature(getattr(optim, kind)).parameters)
    options = dict(zip(names, args, strict=False)) | dict(kwargs)
    if "params" not in options:
        raise Refusal(
            f"`optim.{kind}` needs the tensors that it changes.", f"Write `optim.{kind}(model.parameters(), lr=0.01)`."
        )
    params = options.pop("params")
    options = {key: _plain(kind, key, value) for key, value in options.items() if key not in _INERT}
    members = [params] if isinstance(params, dict) else items(params)
    if not members:
        raise Refusal(
            f"`optim.{kind}` got an empty parameter list.", "A generator that was gone through before is empty: `list(…)`."
        )
    listed = members if any(isinstance(member, dict) for member in members) else [{"params": members}]
    groups: list[dict[str, Value]] = []
    for group in listed:
        if not isinstance(group, dict) or "params" not in group:
            raise Refusal("A group of parameters is a dict with the key `params`.", 'Write `{"params": [w], "lr": 0.1}`.')
        own = {key: _plain(kind, key, value) for key, value in group.items() if key in names and key not in ("params", *_INERT)}
        others = {key: value for key, value in group.items() if key not in names}  # `{"params": …, "name": "head"}`
        tensors = [group["params"]] if is_tensor(group["params"]) else items(group["params"])
        tensors = [part[1] if isinstance(part, tuple) and len(part) == 2 else part for part in tensors]
        if not all(is_tensor(tensor) for tensor in tensors):
            raise Refusal(f"`optim.{kind}` changes tensors, not {named(tensors[0])}.", "Give it `model.parameters()`.")
        groups.append({"params": tensors, **others, **_complete(kind, {**options, **own})})
    if kind == "LBFGS" and len(groups) > 1:
        raise Refusal("`LBFGS` takes one list of parameters.", "Write `optim.LBFGS(model.parameters())`.", raises="ValueError")
    return OptimizerValue(kind, groups, options)


def extended(optimizer: OptimizerValue, items: Callable[[Value], list[Value]], group: Value) -> None:
    """`optimizer.add_param_group({"params": …})`."""
    if not isinstance(group, dict):
        raise Refusal(f"A group of parameters is a dict, not {named(group)}.", 'Write `{"params": net.parameters()}`.')
    static.check_length(len(optimizer.groups) + 1)
    optimizer.groups += constructed(optimizer.kind, items, ([group],), optimizer.defaults).groups


def _plain(kind: str, key: str, value: Value) -> Value:
    if is_tensor(value) or not (static.is_number(value) or isinstance(value, tuple | list | str | None)):
        raise Refusal(
            f"`{key}` of `optim.{kind}` is a plain number here, not {named(value)}.", "Write the number, as in `lr=0.01`."
        )
    static.plain([value])
    return tuple(value) if isinstance(value, list) else value


def _complete(kind: str, options: Mapping[str, Value]) -> dict[str, Value]:
    """All options, PyTorch's defaults where none are named. Raises its refusals of what is out of range."""
    try:
        with aside(), unset_fake_temporarily():
            defaults = getattr(optim, kind)([torch.zeros(1, device="cpu", requires_grad=True)], **options).defaults
    except (TypeError, ValueError, RuntimeError) as error:
        raise Refusal(f"PyTorch refuses these options of `optim.{kind}`: {str(error)[:200]}.") from error
    return {key: value for key, value in defaults.items() if key not in _INERT}


def defaults(optimizer: OptimizerValue) -> dict[str, Value]:
    """`optimizer.defaults`."""
    return _complete(optimizer.kind, optimizer.defaults)


def zeroed(gradients: Gradients, optimizer: OptimizerValue) -> None:
    """`optimizer.zero_grad()`."""
    gradients.reset(optimizer.tensors())


def step(trace: Trace, gradients: Gradients, emit: Emit, optimizer: OptimizerValue) -> None:
    """`optimizer.step()`: every weight with a gradient is changed, under `no_grad`, as PyTorch does it."""
    _check_own(optimizer)
    for group in optimizer.groups:
        tensors = list(group["params"])
        known = gradients.grads(emit, tensors)
        changed = [(tensor, grad) for tensor, grad in zip(tensors, known, strict=True) if is_tensor(grad)]
        counts = {tensor: optimizer.states.get(tensor, (0, []))[0] for tensor, _ in changed}
        for count in sorted(set(counts.values())):
            _stepped_together(trace, emit, optimizer, group, [pair for pair in changed if counts[pair[0]] == count], count)


def _stepped_together(
    trace: Trace, emit: Emit, optimizer: OptimizerValue, group: dict[str, Value], pairs: Sequence[tuple[Any, Any]], count: int
) -> None:
    tensors = [tensor for tensor, _ in pairs]
    width = len(_STATES[optimizer.kind])
    states = [optimizer.states[t][1] if count else [None] * width for t in tensors]
    taken = (*inspect.signature(getattr(optim, optimizer.kind)).parameters, "decoupled_weight_decay")
    options = tuple((key, value) for key, value in group.items() if key != "params" and key in taken)
    target = fixed(stepped, optimizer.kind, count, options)
    asked = tensors, [grad for _, grad in pairs], [list(s) for s in states]
    others = written(trace, tensors, lambda: emit(f"optim.{optimizer.kind}", target, asked, {}))
    for index, tensor in enumerate(tensors):
        optimizer.states[tensor] = count + 1, others[index * width : (index + 1) * width]


def written(trace: Trace, tensors: Sequence[fx.Node], update: Callable[[], Any]) -> list[Any]:
    """Writes the first results of a step into these weights, under `no_grad`; derivatives pass through the step itself.

    Returns the other results.
    """
    enabled, trace.grad_enabled = trace.grad_enabled, True
    try:
        updates = update()
        results = [trace.pick(updates, index) for index in range(len(updates.values))]
        trace.grad_enabled = False
        for index, tensor in enumerate(tensors):
            trace.write(updates.node.meta["step"], tensor, results[index], complete=True)
    finally:
        trace.grad_enabled = enabled
    return results[len(tensors) :]


def stepped(
    kind: str,
    count: int,
    options: tuple[tuple[str, Any], ...],
    params: list[Tensor],
    grads: list[Tensor],
    states: list[list[Tensor | None]],
) -> tuple[Tensor, ...]:
    """The weights after a step, with the derivatives of those before it, and then what the optimizer keeps of each."""
    begins = _STATES[kind]
    with torch.no_grad():
        new = [param.detach().clone() for param in params]
        slopes = [grad.detach().to(param.dtype) for grad, param in zip(grads, new, strict=True)]
        states_after = [
            [
                value.detach().clone() if value is not None else _begun(start, param, dict(options))
                for value, start in zip(state, begins, strict=True)
            ]
            for state, param in zip(states, new, strict=True)
        ]
        columns: list[list[Any]] = [[state[position] for state in states_after] for position in range(len(begins))]
        _change(kind, count, dict(options), new, slopes, columns)
    left = [value_only(old, changed) for old, changed in zip(params, new, strict=True)]
    rows = [column[index] for index in range(len(new)) for column in columns]
    positions = [index for index in range(len(new)) for _ in columns]
    return (*left, *(torch.zeros_like(new[i]) if row is None else row for row, i in zip(rows, positions, strict=True)))


def _begun(start: float | None, param: Tensor, options: Mapping[str, Any]) -> Tensor | None:
    if start is None:
        return None
    if start == 1.0:
        return torch.ones((), dtype=param.dtype, device=param.device)
    return torch.full_like(param, options.get("initial_accumulator_value", start))


def _change(
    kind: str, count: int, options: dict[str, Any], params: list[Tensor], grads: list[Tensor], columns: list[list[Any]]
) -> None:
    """PyTorch's formula of the optimizer, on copies."""
    betas = options.pop("betas", None)
    if betas is not None:
        options["beta1"], options["beta2"] = betas
    options.pop("initial_accumulator_value", None)
    if kind == "SGD":
        options.pop("decoupled_weight_decay", None)
        formulas.sgd(params, grads, columns[0], foreach=False, **options)  # type: ignore[attr-defined]
        return
    # The counter stays a number on the CPU, whatever device the weights are on.
    counts = [torch.tensor(float(count), device="cpu") for _ in params]
    if kind == "AdamW":
        options.pop("decoupled_weight_decay", None)
    getattr(formulas, kind.lower())(params, grads, *columns, counts, foreach=False, **options)
