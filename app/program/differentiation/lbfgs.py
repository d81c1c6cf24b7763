"""`torch.optim.LBFGS` in a program: one step of the graph runs PyTorch's own optimizer on the loss that the closure computes."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor, fx, optim
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor

from app.program.differentiation.gradients import Gradients
from app.program.differentiation.optimizers import OptimizerValue, written
from app.program.differentiation.parts import Run, part
from app.program.function import Branch
from app.program.reading.source import Refusal
from app.program.semantics.aliases import cell_of, value_only
from app.program.semantics.graph_values import Emit, Value, fixed, is_tensor
from app.program.semantics.trace import Trace
from app.program.semantics.values import FunctionValue, Method

# What the optimizer keeps from one step to the next, besides its lists of earlier directions.
_NUMBERS: Final = ("func_evals", "n_iter", "t", "H_diag", "prev_loss")
_LISTS: Final = ("old_dirs", "old_stps", "ro")
_KEEPING: Final = ("append", "extend", "update", "add", "insert")
_ALONE: Final = (
    "Keep the closure to `optimizer.zero_grad()`, the loss, `loss.backward()` and `return loss`; prints may stand in it."
)


def step(
    trace: Trace,
    dtype: torch.dtype,
    gradients: Gradients,
    branches: Sequence[Branch],
    emit: Emit,
    optimizer: OptimizerValue,
    closure: Value,
    invoke: Callable[[Value], Value],
) -> Value:
    """`optimizer.step(closure)`: the weights move, and the loss before comes back.

    The closure is read once for all its calls. Raises a refusal where it would not mean the same each time.
    """
    if closure is None:
        raise Refusal("`LBFGS` needs a closure.", "Write `optimizer.step(closure)`, with `def closure(): …; return loss`.")
    tensors = optimizer.tensors()
    if any(
        isinstance(trace.now(tensor).meta["val"], FakeTensor) for tensor in tensors
    ):  # how often it is called hangs on values
        raise DataDependentOutputException(torch.ops.aten._local_scalar_dense.default)
    counts, before_calls = _counts(closure), _calls(trace, optimizer)
    writes = [cell_of(tensor).root.writes for tensor in tensors]
    starts, before = [trace.now(tensor) for tensor in tensors], (len(branches), len(gradients.taken()))
    for tensor, start in zip(tensors, starts, strict=True):
        gradients.assign(tensor, start)  # what `zero_grad()` takes away
    loss = invoke(closure)
    if len(branches) > before[0]:
        raise Refusal("The closure of `LBFGS` reads values of tensors, which differ at each of its calls.", _ALONE)
    taken = gradients.taken()[before[1] :]
    if (
        not is_tensor(loss)
        or [node for node, _ in taken] != [trace.passed_on(loss)]
        or gradients.holds_any(tensors)
        or [cell_of(tensor).root.writes for tensor in tensors] != writes
    ):
        raise Refusal("The closure of `LBFGS` does more than take the gradient of the loss that it returns.", _ALONE)
    section = part(trace.graph, starts, [trace.passed_on(loss)], dtype, trace.drawing)
    (group,) = optimizer.groups
    options = {key: value for key, value in group.items() if key != "params"}
    trace.budget.spend(int(options["max_iter"]) * 2 * len(section.run.nodes))  # type: ignore[attr-defined]
    target = fixed(stepped, section.run, tuple(options.items()))
    _move(
        trace, gradients, emit, optimizer, target, (starts, list(section.free), [trace.now(node) for node in optimizer.history])
    )
    if counts:
        called = _calls(trace, optimizer) - before_calls - 1
        _count(gradients, emit, tensors, [lambda: invoke(closure)] * called)
    return loss


def _count(gradients: Gradients, emit: Emit, tensors: list[fx.Node], calls: list[Callable[[], Value]]) -> None:
    """Calls a closure as often as PyTorch's optimizer has called it, at values that no counter tells apart; gradients stay as they are."""
    last, slopes = gradients.last, [gradients.grad(emit, tensor) for tensor in tensors]
    for call in calls:
        call()
    for tensor, slope in zip(tensors, slopes, strict=True):
        gradients.assign(tensor, slope)
    gradients.last = last


def _calls(trace: Trace, optimizer: OptimizerValue) -> int:
    """How often the closure was called so far."""
    return int(trace.now(optimizer.history[0]).meta["val"]) if optimizer.history else 0


def _move(
    trace: Trace, gradients: Gradients, emit: Emit, optimizer: OptimizerValue, target: Any, args: tuple[Any, ...]
) -> None:
    """The step itself: the weights, their gradients and what the optimizer keeps are those after it."""
    tensors = optimizer.tensors()
    others = written(trace, tensors, lambda: emit("optim.LBFGS", target, args, {}, exact=True))
    for tensor, gradient in zip(tensors, others[: len(tensors)], strict=True):
        gradients.assign(tensor, gradient)
    optimizer.history = others[len(tensors) :]


def _counts(closure: Value) -> bool:
    """Whether a closure counts its calls. Refuses one that keeps something else: it is read at one value, and PyTorch calls it at some twenty."""
    function = closure.function if isinstance(closure, Method) else closure
    if not isinstance(function, FunctionValue):
        return False
    counting = [node for node in ast.walk(function.node) if isinstance(node, ast.AugAssign) and _is_counter(node)]
    counted = {node.target.id for node in counting if isinstance(node.target, ast.Name)}
    asked = _asked(function.node, {ast.unparse(node.target) for node in counting})
    for node in ast.walk(function.node):
        outlives = isinstance(node, ast.Nonlocal | ast.Global) and not counted.issuperset(node.names)
        outlives = outlives or node in asked
        if node in counting:
            continue
        if isinstance(node, ast.Assign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            outlives = any(isinstance(target, ast.Attribute | ast.Subscript) for target in targets)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            outlives = node.func.attr in _KEEPING
        if outlives:
            raise Refusal(
                f"The closure of `LBFGS` keeps something (`{ast.unparse(node)[:60]}`), and how often it is called is not known here.",
                _ALONE,
            )
    return bool(counting)


def _is_counter(node: ast.AugAssign) -> bool:
    """`calls += 1`, `self.iter += 1`, `run[0] += 1`."""
    parts = [part.attr for part in ast.walk(node.target) if isinstance(part, ast.Attribute)]
    return isinstance(node.value, ast.Constant) and isinstance(node.op, ast.Add) and not {"data", "grad"}.intersection(parts)


def _asked(function: ast.AST, counters: set[str]) -> list[ast.AST]:
    """Where a closure reads its counters otherwise than to show something: what it computes may differ from call to call."""
    shown = set[ast.AST]()
    for node in ast.walk(function):
        if isinstance(node, ast.Expr):
            shown.update(ast.walk(node))
        elif isinstance(node, ast.If) and all(isinstance(line, ast.Expr) for line in (*node.body, *node.orelse)):
            shown.update(ast.walk(node.test))
    loads = [n for n in ast.walk(function) if isinstance(getattr(n, "ctx", None), ast.Load) and n not in shown]
    return [node for node in loads if ast.unparse(node) in counters]


def stepped(
    run: Run, options: tuple[tuple[str, Any], ...], params: list[Tensor], free: list[Tensor], history: list[Tensor]
) -> tuple[Tensor, ...]:
    """The weights after a step, with the derivatives of those before it; their last gradients; what the optimizer keeps."""
    constants = [tensor.detach() for tensor in free]
    new = [param.detach().clone() for param in params]
    optimizer = optim.LBFGS(new, **dict(options))
    state = optimizer.state[new[0]]
    if history:
        _restore(state, history)

    def closure() -> Tensor:
        losses, vjp, *_ = torch.func.vjp(lambda *xs: run(*xs, *constants), *[tensor.detach() for tensor in new])
        for tensor, gradient in zip(new, vjp((torch.ones_like(losses[0]),)), strict=True):
            tensor.grad = gradient.detach()
        loss: Tensor = losses[0]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    left = [value_only(old, changed.detach()) for old, changed in zip(params, new, strict=True)]
    slopes = [torch.zeros_like(tensor) if tensor.grad is None else tensor.grad for tensor in new]
    return (*left, *slopes, *_packed(state, new, dict(options)["history_size"]))


def _packed(state: dict[str, Any], params: list[Tensor], size: int) -> list[Tensor]:
    """What the optimizer keeps as tensors of fixed shapes."""
    like = params[0]
    count = sum(tensor.numel() for tensor in params)
    held = len(state.get("old_dirs") or ())
    packed = [torch.as_tensor(float(state.get(name, 0.0)), dtype=torch.float64) for name in _NUMBERS]
    for name in ("d", "prev_flat_grad"):
        value = state.get(name)
        packed.append(like.new_zeros(count) if value is None else value)
    for name in _LISTS:
        lines = like.new_zeros((size, count) if name != "ro" else (size,))
        if held:
            lines[:held] = torch.stack([torch.as_tensor(member, dtype=like.dtype) for member in state[name]])
        packed.append(lines)
    return [*packed, torch.tensor(held)]


def _restore(state: dict[str, Any], history: list[Tensor]) -> None:
    numbers, (direction, gradient), lines, held = history[:5], history[5:7], history[7:10], int(history[10])
    if not int(numbers[1]):  # no iteration yet
        return
    state.update({name: float(value) for name, value in zip(_NUMBERS, numbers, strict=True)})
    state["func_evals"], state["n_iter"] = int(numbers[0]), int(numbers[1])
    state["d"], state["prev_flat_grad"] = direction.detach().clone(), gradient.detach().clone()
    state |= {name: [row.detach().clone() for row in rows[:held]] for name, rows in zip(_LISTS, lines, strict=True)}
