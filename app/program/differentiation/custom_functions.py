"""`class F(torch.autograd.Function)` in a program: its `forward` gives the value, its `backward` the derivative, as one step.

Both are read once on tensors of their own; the steps that they made are two parts of the graph, which the step runs.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Literal

import torch
from torch import Tensor, fx

from app.catalogue.better.tracked import is_nested_forward
from app.program.differentiation import nesting
from app.program.differentiation.parts import Part, Run, part
from app.program.function import Branch, Step
from app.program.reading.source import Refusal
from app.program.semantics.graph_values import Emit, MultiOutput, Value, example, held, is_floating, is_tensor, reachable
from app.program.semantics.static import named
from app.program.semantics.trace import Trace
from app.program.semantics.values import MISSING, ClassValue, FunctionValue, Instance

# What the name of such a step ends with.
APPLY: Final = ".apply"
# Where the step finds a tensor that the backward reads: among its inputs, what its forward gave, or what both only read.
Source = tuple[Literal["input", "result", "free"], int]
Invoke = Callable[[Value, tuple[Value, ...], dict[str, Value]], Value]
_CONTEXT: Final = ClassValue("ctx", (), module=False, own={})


@dataclass(slots=True, eq=False)
class Context(Instance):
    """The `ctx` of one call: what is kept for the backward, and any attribute that the program sets."""

    def call(self, name: str, args: tuple[Value, ...]) -> Value:
        """`ctx.save_for_backward(…)` and its like."""
        if name in ("save_for_backward", "save_for_forward"):
            self.own["saved_tensors"] = self.own["saved_variables"] = tuple(args)
        elif name == "mark_dirty":
            raise _written_into()
        elif name not in ("mark_non_differentiable", "set_materialize_grads"):
            raise Refusal(f"`ctx.{name}()` is not in the language.", "Use `ctx.save_for_backward(x)` and `ctx.saved_tensors`.")
        return None


@dataclass(frozen=True, slots=True, eq=False)
class Custom:
    """The step: `(inputs, free of forward, free of backward)` → what the forward gives.

    Attributes:
        forward: (inputs…, free…) → results, then what the backward reads besides.
        backward: (a cotangent for each floating result…, what it reads…) → a gradient for each input of `gradient_indices`.
        sources: of what the backward reads.
        gradient_indices: for each input the position of its gradient among those of the backward, or None.
        results: whether each result is floating.
        arguments: names of the inputs.
        by_steps: its derivative is that of the steps of its forward, whatever its backward says.
        returned: where its backward returns the gradients, which may take no step: `return g`.
    """

    forward: Run
    backward: Run
    sources: tuple[Source, ...]
    gradient_indices: tuple[int | None, ...]
    results: tuple[bool, ...]
    arguments: tuple[str, ...] = ()
    by_steps: bool = False
    returned: Step | None = None
    __name__: ClassVar[str] = "custom_function"

    @property
    def run(self) -> Custom:
        """The parts that it runs, for those who count how deeply derivatives are nested."""
        return self

    @property
    def nodes(self) -> tuple[fx.Node, ...]:
        return (*self.forward.nodes, *self.backward.nodes)  # type: ignore[attr-defined]

    def __call__(self, inputs: list[Tensor], free: list[Tensor], read: list[Tensor]) -> tuple[Tensor, ...]:
        if self.by_steps:
            return self.forward(*inputs, *free)[: len(self.results)]
        if is_nested_forward():
            raise RuntimeError(
                "The derivative of a torch.autograd.Function cannot be taken in forward mode within forward mode; use vjp or jacrev."
            )
        results_and_more: tuple[Tensor, ...] = _Rule.apply(self, len(inputs), len(free), *inputs, *free, *read)  # type: ignore[no-untyped-call]
        return results_and_more[: len(self.results)]

    def gradients(self, cotangents: tuple[Tensor, ...], saved: tuple[Tensor, ...]) -> list[Tensor | None]:
        """A gradient for each input."""
        floating = [c for c, is_number in zip(cotangents, self.results, strict=False) if is_number]
        gradients = self.backward(*floating, *saved)
        return [None if index is None else gradients[index] for index in self.gradient_indices]


class _Rule(torch.autograd.Function):
    """PyTorch's side of a `Custom`. Its forward mode is the transpose of the backward, which is linear in the cotangent."""

    generate_vmap_rule = True

    @staticmethod
    def forward(custom: Custom, count: int, free: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        read = tensors[: count + free]
        # What is given back as it is would be taken for what was written into.
        return tuple(r.clone() if any(r is x for x in read) else r for r in custom.forward(*read))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        custom, count, free, *tensors = inputs
        pools = {"input": tensors[:count], "result": output, "free": tensors[count + free :]}
        saved = [pools[kind][index] for kind, index in custom.sources]
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*saved)
        beside = [r for r in output[len(custom.results) :] if r.is_floating_point() or r.is_complex()]
        ctx.mark_non_differentiable(*beside)
        ctx.custom, ctx.others, ctx.beside = custom, len(tensors) - count, len(output) - len(custom.results)
        ctx.like = [r for r, is_number in zip(output, custom.results, strict=False) if is_number]

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        gradients = ctx.custom.gradients(cotangents, ctx.saved_tensors)
        return (None, None, None, *gradients, *(None for _ in range(ctx.others)))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor | None, ...]:
        custom: Custom = ctx.custom
        saved = ctx.saved_tensors
        along = tangents[3 : 3 + len(custom.gradient_indices)]
        pairs = [
            (index, t) for index, t in zip(custom.gradient_indices, along, strict=True) if index is not None and t is not None
        ]

        def product(*cotangents: Tensor) -> Tensor:
            gradients = custom.backward(*cotangents, *saved)
            return sum(((gradients[index] * t.conj()).sum() for index, t in pairs), cotangents[0].new_zeros(()))

        zeros = [torch.zeros_like(like) for like in ctx.like]
        value, vjp, *_ = torch.func.vjp(product, *zeros)
        pushed = iter(vjp(torch.ones_like(value)))
        own = [next(pushed) if is_number else None for is_number in custom.results]
        return (*own, *(None for _ in range(ctx.beside)))


def called(
    trace: Trace,
    dtype: torch.dtype,
    invoke: Invoke,
    branches: Sequence[Branch],
    emit: Emit,
    kind: ClassValue,
    args: tuple[Value, ...],
) -> Value:
    """`F.apply(*args)`. Raises a refusal where the class has no pair of functions, or they do not fit each other.

    `branches`: what was read out of tensors so far.
    """
    forward, backward = _method(kind, "forward"), _method(kind, "backward")
    own = tuple(emit("clone", torch.clone, (a,), {}) if is_tensor(a) else a for a in args)
    inputs = [value for value in own if is_tensor(value)]
    if not inputs:
        raise Refusal(f"`{kind.name}.apply` is given no tensor.", f"Write `{kind.name}.apply(x)`.")
    context = Context(_CONTEXT)
    context.own["saved_tensors"] = ()
    context.own["needs_input_grad"] = tuple(is_tensor(a) and trace.is_live(a) for a in args)
    starts = [trace.now(node) for node in inputs]
    value = _forward(kind, invoke, forward, context, own)
    if any(node.meta["cell"].root.writes for node in inputs if "cell" in node.meta):
        raise _written_into()
    if isinstance(value, MultiOutput):
        value = tuple(trace.pick(value, index) for index in range(len(value.values)))
    results = [trace.now(node) for node in nesting.leaves(value)]
    if not any(is_floating(node.meta["val"]) for node in results):
        raise Refusal(f"`{kind.name}.forward` gives {named(value)}.", "Return a floating tensor from it.")
    cotangents = [emit("ones_like", torch.ones_like, (node,), {}) for node in nesting.leaves(value)]
    before, since = set(trace.graph.nodes), len(branches)
    returned = invoke(backward, (context, *nesting.rebuilt(_flat(value), iter(cotangents))), {})
    refuse_reads(branches[since:], cotangents, f"`{kind.name}.backward`")
    gradient_indices, gradients = _gradients(trace, emit, kind, args, returned)
    read = read_before(gradients, before, cotangents)
    parameters = [argument.arg for argument in forward.node.args.args[-len(args) :]]
    names = tuple(n for n, argument in zip(parameters, args, strict=False) if is_tensor(argument))
    step = joined(trace, dtype, starts, results, cotangents, read, gradient_indices, gradients, names)
    custom = replace(step[0], returned=_return_of(kind, backward))
    results_node = emit(kind.name + APPLY, custom, (_inputs(trace, args), list(step[1]), list(step[2])), {}, exact=True)
    return nesting.rebuilt(value, iter([trace.pick(results_node, index) for index in range(len(results))]))


def _inputs(trace: Trace, args: tuple[Value, ...]) -> list[fx.Node]:
    return [trace.passed_on(a) for a in args if is_tensor(a)]


def _method(kind: ClassValue, name: str) -> FunctionValue:
    function = kind.find(name)
    if not isinstance(function, FunctionValue):
        shown = "forward(ctx, x)" if name == "forward" else "backward(ctx, grad)"
        raise Refusal(f"`{kind.name}` has no `{name}`.", f"Give the class `@staticmethod def {shown}: …`.")
    return function


def _return_of(kind: ClassValue, backward: FunctionValue) -> Step | None:
    """The last `return` in its text; those of functions within it are not told apart."""
    statements = [node for node in ast.walk(backward.node) if isinstance(node, ast.Return)]
    if not statements:
        return None
    last = max(statements, key=lambda node: node.lineno)
    return Step(last.lineno, last.col_offset + 1, ast.unparse(last), f"{kind.name}.backward")


def _forward(kind: ClassValue, invoke: Invoke, forward: FunctionValue, context: Context, own: tuple[Value, ...]) -> Value:
    setup = kind.find("setup_context")
    if setup is MISSING:
        return invoke(forward, (context, *own), {})
    value = invoke(forward, own, {})
    invoke(setup, (context, own, value), {})
    return value


def refuse_reads(branches: Sequence[Branch], cotangents: list[fx.Node], who: str) -> None:
    """Refuses a derivative that goes on by the values of the gradient that it is given: it is read once for all of them."""
    below = reachable(cotangents, lambda node: node.users)
    for branch in branches:
        if branch.node in below:
            raise Refusal(
                f"{who} decides by the values of the gradient it is given (line {branch.step.line}: `{branch.step.text}`).",
                "Decide with `torch.where(condition, a, b)`.",
            )


def _flat(value: Value) -> tuple[Value, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _gradients(
    trace: Trace, emit: Emit, kind: ClassValue, args: tuple[Value, ...], returned: Value
) -> tuple[list[int | None], list[fx.Node]]:
    """For each tensor among `args` the position of its gradient, and the gradients."""
    if isinstance(returned, MultiOutput):
        returned = tuple(trace.pick(returned, index) for index in range(len(returned.values)))
    members = list(_flat(returned))
    if len(members) < len(args) or any(member is not None for member in members[len(args) :]):
        raise Refusal(
            f"`{kind.name}.backward` gives {len(members)} gradients, and `forward` has {len(args)} arguments.",
            "Return one gradient for each argument of `forward` after `ctx`, None for what has none.",
            code="operation_failed",
        )
    gradient_indices: list[int | None] = []
    gradients: list[fx.Node] = []
    for argument, member in zip(args, members, strict=False):
        if not is_tensor(argument):
            continue
        if not is_tensor(member) or not is_floating(held(argument).meta["val"]):
            if member is not None and not is_tensor(member):
                raise Refusal(
                    f"`{kind.name}.backward` gives {named(member)} in the place of a gradient.", "Return a tensor or None."
                )
            gradient_indices.append(None)
            continue
        gradient_indices.append(len(gradients))
        gradients.append(trace.now(_fitted(emit, kind, member, tuple(example(argument).shape))))
    return gradient_indices, gradients


def _fitted(emit: Emit, kind: ClassValue, gradient: Any, shape: tuple[int, ...]) -> Any:
    """A gradient in its input's shape: PyTorch sums over what was broadcast, and refuses any other shape."""
    own = tuple(example(gradient).shape)
    if own == shape:
        return gradient
    aligned = zip(reversed(own), reversed(shape), strict=False)
    if len(own) < len(shape) or any(wanted not in (1, size) for size, wanted in aligned):
        raise Refusal(
            f"`{kind.name}.backward` gives a gradient of the shape {list(own)} for an input of the shape {list(shape)}.",
            "A gradient has the shape of its input.",
            code="operation_failed",
        )
    return emit("sum_to_size", torch.Tensor.sum_to_size, (gradient, shape), {})


def joined(
    trace: Trace,
    dtype: torch.dtype,
    inputs: list[fx.Node],
    results: list[fx.Node],
    cotangents: list[fx.Node],
    read: list[fx.Node],
    gradient_indices: list[int | None],
    gradients: list[fx.Node],
    names: tuple[str, ...],
) -> tuple[Custom, tuple[fx.Node, ...], tuple[fx.Node, ...]]:
    """The step's target, and the tensors that its forward and its backward read besides."""

    def section(begin: list[fx.Node], end: list[fx.Node]) -> Part:
        return part(trace.graph, begin, end, dtype, trace.drawing)

    floating = [is_floating(node.meta["val"]) for node in results]
    floating_cotangents = [c for c, is_number in zip(cotangents, floating, strict=True) if is_number]
    backward = section([*floating_cotangents, *read], gradients)
    reads = [*read, *backward.free]
    below = reachable(inputs, lambda node: node.users)
    beside = [node for node in reads if node in below and node not in inputs and node not in results]
    forward = section(inputs, [*results, *beside])
    outer = [node for node in reads if node not in below]
    sources: list[Source] = []
    for node in reads:
        if node in inputs:
            sources.append(("input", inputs.index(node)))
        elif node in below:
            sources.append(("result", [*results, *beside].index(node)))
        else:
            sources.append(("free", outer.index(node)))
    arguments = (
        names if len(names) == len(inputs) else tuple(f"input{k}" for k in range(len(inputs)))
    )  # of `*args`, none is known
    custom = Custom(forward.run, backward.run, tuple(sources), tuple(gradient_indices), tuple(floating), arguments)
    return custom, forward.free, tuple(outer)


def read_before(gradients: list[fx.Node], before: set[fx.Node], cotangents: list[fx.Node]) -> list[fx.Node]:
    """What `gradients` read of the nodes that were there `before` them, the cotangents aside."""
    reached: dict[fx.Node, None] = {}
    seen: set[fx.Node] = set()
    stack = list(gradients)
    while stack:
        node = stack.pop()
        if node in before or node.op == "placeholder":
            reached[node] = None
        elif node not in seen:
            seen.add(node)
            stack += node.all_input_nodes
    return [node for node in reached if node not in cotangents]


def _written_into() -> Refusal:
    return Refusal(
        "The `forward` of this function writes into its input, and values here never change so.",
        "Write into a copy: `y = x.clone()` first.",
    )
