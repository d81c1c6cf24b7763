"""Parts of a graph as functions of their own, and the derivatives of these as steps: derivatives inside a program.

Such a step runs its part again, so it can itself be differentiated, mapped and planned like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import torch
from torch import Tensor, fx

from app.catalogue.facts import operations_with, short
from app.program.errors import tensors_in
from app.program.graph_runner import GraphRunner
from app.program.reading.source import Refusal
from app.program.semantics import sizes
from app.program.semantics.aliases import value_only
from app.program.semantics.graph_values import Value, is_floating, reachable

# Derivatives of derivatives; each level runs the level below about three times.
DEPTH_LIMIT: Final = 5
# Of these, what is given carries no derivative of what they were given.
_TAKING_NOTHING: Final = operations_with("shape_only") | operations_with("detaches")
Run = Callable[..., tuple[Tensor, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """The steps that lead from some tensors of a graph to others, as a function.

    Attributes:
        run: (inputs…, free…) → outputs.
        free: further tensors that these steps read: constants of this function.
        reached: for each input, whether a derivative leads to it from any output.
    """

    run: Run
    free: tuple[fx.Node, ...]
    reached: tuple[bool, ...]


def part(
    graph: fx.Graph,
    inputs: Sequence[fx.Node],
    outputs: Sequence[fx.Node],
    dtype: torch.dtype,
    drawing: set[fx.Node],
    *,
    keeps_samples: bool = False,
) -> Part:
    """The part of `graph` from `inputs` to `outputs`. Raises a refusal where random numbers are drawn on the way.

    `keeps_samples`: what is drawn and carries no derivative (`Categorical(p).sample()`) is a constant of the part.
    """
    boundary = set(inputs)
    below: set[fx.Node] = set()
    wanted = reachable(outputs, lambda node: () if node in boundary else node.all_input_nodes)
    order = [node for node in graph.nodes if node in wanted and node not in boundary]
    for node in order:
        if any(used in boundary or used in below for used in node.all_input_nodes):
            if node in drawing:
                if _draws_by_shape(node) or (keeps_samples and _carries_nothing(node)):
                    continue
                raise Refusal(
                    "A derivative inside the program passes a step that draws random numbers.",
                    "Draw them before: `mask = (rand_like(x) > p) / (1 - p)` in the place of `dropout`.",
                )
            below.add(node)
    subgraph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {node: subgraph.placeholder(f"in{i}") for i, node in enumerate(inputs)}
    free: dict[fx.Node, None] = {}
    for node in (*(n for n in order if n in below), None):
        for used in node.all_input_nodes if node is not None else outputs:
            if used not in below and used not in boundary:
                free[used] = None
    for node in free:
        copies[node] = subgraph.placeholder(f"free{len(copies)}")
    for node in order:
        if node in below:
            sizes.settled(node.meta.get("sized"))
            copies[node] = subgraph.node_copy(node, copies.__getitem__)
    if max((depth(node) for node in below), default=0) >= DEPTH_LIMIT:
        raise Refusal(
            f"Derivatives are nested more than {DEPTH_LIMIT} deep.",
            'Ask for the last ones with the query\'s "want".',
            code="too_costly",
        )
    subgraph.output(tuple(copies[node] for node in outputs))
    reached = tuple(leads([node], below, outputs) for node in inputs)
    return Part(_Runner(subgraph, dtype), tuple(free), reached)


def check_drawn(drawn: Collection[fx.Node], randomness: Value) -> None:
    """Refuses what a function draws that is mapped: a step that draws is run once, which is `randomness="same"`."""
    if not drawn or randomness == "same":
        return
    raise Refusal(
        "A function that is mapped draws random numbers, and here they are the same for all members, "
        + ("where PyTorch draws others for each." if randomness == "different" else "where PyTorch refuses it."),
        'Write `vmap(f, randomness="same")`, or draw before: `noise = torch.randn(n, 3)` as an argument that is mapped too.',
    )


class _Runner(GraphRunner):
    """A GraphRunner that knows its graph and its steps."""

    def __init__(self, graph: fx.Graph, dtype: torch.dtype) -> None:
        super().__init__(graph, dtype)
        self.graph = graph
        self.nodes = tuple(node for node in graph.nodes if node.op == "call_function")


def depth(node: fx.Node) -> int:
    """How many derivatives are nested in a step."""
    run = getattr(node.target, "run", None)
    return 0 if run is None else 1 + max((depth(inner) for inner in run.nodes), default=0)


def leads(starts: Iterable[fx.Node], below: Collection[fx.Node], outputs: Collection[fx.Node]) -> bool:
    """Whether a derivative leads from any of `starts` to any of `outputs` through the nodes `below`."""
    led = reachable(starts, lambda node: [user for user in node.users if user in below and passes(node, user)])
    return any(node in led for node in outputs)


def passes(source: fx.Node, node: fx.Node) -> bool:
    """Whether PyTorch's derivative passes a step from what it reads of `source`."""
    if node.target is torch.Tensor.detach or not any(map(is_floating, tensors_in(node.meta["val"]))):
        return False
    step = node.meta.get("step")
    if step is not None and short(step.operation) in _TAKING_NOTHING:
        return False
    if node.target is value_only:  # the derivatives of what was there before
        return source is node.args[0]
    gradient_indices = getattr(node.target, "gradient_indices", None)
    if gradient_indices is None:
        return True
    inputs: list[fx.Node] = node.args[0]  # type: ignore[assignment]
    read = [index for index, each in zip(gradient_indices, inputs, strict=True) if each is source]
    return not read or any(index is not None for index in read)


def _carries_nothing(node: fx.Node) -> bool:
    """Whether no derivative leads to what a step gives."""
    return not node.meta["live"] or not any(passes(source, node) for source in node.all_input_nodes)


def _draws_by_shape(node: fx.Node) -> bool:
    """Whether what it draws depends on its tensor's shape alone (`randn_like`)."""
    return str(getattr(node.target, "__name__", "")).endswith("_like")


@dataclass(frozen=True, slots=True, eq=False)
class Gradient:
    """Jᵀ·cotangents of a part: `autograd.grad`, `func.grad`, `func.vjp`."""

    run: Run
    __name__: ClassVar[str] = "gradient"

    def __call__(self, inputs: list[Tensor], free: list[Tensor], cotangents: list[Tensor] | None) -> tuple[Tensor, ...]:
        outputs, vjp, *_ = torch.func.vjp(lambda *xs: self.run(*xs, *free), *inputs)
        if cotangents is None:
            cotangents = [torch.ones_like(output) for output in outputs]
        gradients: tuple[Tensor, ...] = vjp(tuple(cotangents))
        return gradients


@dataclass(frozen=True, slots=True, eq=False)
class Tangent:
    """J·tangents of a part: `func.jvp`."""

    run: Run
    __name__: ClassVar[str] = "tangent"

    def __call__(self, inputs: list[Tensor], free: list[Tensor], tangents: list[Tensor]) -> tuple[Tensor, ...]:
        _, pushed, *_ = torch.func.jvp(lambda *xs: self.run(*xs, *free), tuple(inputs), tuple(tangents))
        result: tuple[Tensor, ...] = pushed
        return result


@dataclass(frozen=True, slots=True, eq=False)
class Jacobian:
    """All of J of a part, or of its Hessian: outputs × inputs, each of shape `[output…, input…]`.

    In reverse mode whatever was asked for: forward mode inside a step leaves PyTorch's planning and some of its kernels behind.

    Attributes:
        kind: `jacrev`, `jacfwd` or `hessian`.
    """

    run: Run
    kind: str
    __name__: ClassVar[str] = "jacobian"

    def __call__(self, inputs: list[Tensor], free: list[Tensor]) -> tuple[Tensor, ...]:
        at = tuple(range(len(inputs)))
        if self.kind == "hessian":
            slopes = torch.func.jacrev(lambda *xs: self.run(*xs, *free)[0], argnums=at)
            rows = torch.func.jacrev(slopes, argnums=at)(*inputs)
            return tuple(block for row in rows for block in row)
        blocks = torch.func.jacrev(lambda *xs: self.run(*xs, *free), argnums=at)(*inputs)
        return tuple(block for row in blocks for block in row)


@dataclass(frozen=True, slots=True, eq=False)
class Mapped:
    """A part, mapped over axes of its inputs: `vmap`."""

    run: Run
    in_dims: tuple[int | None, ...]
    out_dims: tuple[int, ...]
    randomness: str
    __name__: ClassVar[str] = "mapped"

    def __call__(self, inputs: list[Tensor], free: list[Tensor]) -> tuple[Tensor, ...]:
        dims = (*self.in_dims, *(None for _ in free))
        result: tuple[Tensor, ...] = torch.vmap(self.run, dims, self.out_dims, randomness=self.randomness)(*inputs, *free)
        return result
