"""A Function at a point in float64, run as often as a probe needs it, whole or one step at a time."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Final, TypeAlias, TypeVar, cast

import torch
from torch import Tensor, fx

from app.catalogue.better.aligned_vectors import aligned
from app.catalogue.call import DTYPES
from app.catalogue.facts import operations_with, short, values
from app.engine.tensors import is_differentiable
from app.program.errors import tensors_in
from app.program.function import Function, GraphFact, Step
from app.program.graph_runner import floating_default, getter, keywords_getter
from app.program.semantics.graph_values import mapped
from app.program.semantics.randomness import seed_generators

T = TypeVar("T")
# One tensor of one node: a node with several outputs has several.
Ref: TypeAlias = tuple[fx.Node, int]

_WIDER: Final[dict[torch.dtype, torch.dtype]] = {
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.float32: torch.float64,
    torch.complex32: torch.complex128,
    torch.complex64: torch.complex128,
}
# What PyTorch's public functions raise for values that they do not take.
REFUSALS: Final = (RuntimeError, ValueError, TypeError, IndexError, ArithmeticError, AssertionError)


def to_double(tensor: Tensor) -> Tensor:
    """`tensor` in float64 or complex128; integers and booleans as they are. Differentiable."""
    wider = _WIDER.get(tensor.dtype)
    return tensor if wider is None else tensor.to(wider)


def name_of(node: fx.Node) -> str:
    """What `node` calls, without namespace and overload: `pinv` of `linalg.pinv`, `gt` of `>`, `index` of `aten.index.Tensor`."""
    step = step_of(node)
    if step is not None:
        return short(step.operation)
    return str(getattr(node.target, "__name__", node.target)).partition(".")[0]


# `name_of` all calls of a graph.
names_called: Final = GraphFact(lambda graph: frozenset([name_of(node) for node in graph.nodes if node.op == "call_function"]))


@lru_cache(maxsize=512)
def _positions(target: Callable[..., Any]) -> dict[str, int]:
    try:
        return {name: position for position, name in enumerate(inspect.signature(target).parameters)}
    except (TypeError, ValueError):  # most of PyTorch's built-in functions have no signature
        return {}


def argument_of(node: fx.Node, name: str, otherwise: Any) -> Any:
    """The plain argument `name` of a call of one of PyTorch's Python functions, wherever it stands."""
    if name in node.kwargs:
        return node.kwargs[name]
    position = _positions(node.target).get(name) if callable(node.target) else None
    return node.args[position] if position is not None and position < len(node.args) else otherwise


def step_of(node: fx.Node) -> Step | None:
    """Where `node` stands in the text."""
    step = node.meta.get("step")
    return step if isinstance(step, Step) else None


@dataclass(frozen=True, slots=True)
class Hole:
    """Stands in a node's arguments for one tensor of another node."""

    ref: Ref


class Point:
    """`function` at `leaves`.

    Attributes:
        wide: everything floating is float64; False where some step insists on the dtypes that were sent.
        leaves: name → tensor, widened where `wide`, detached.
        floating: names of the leaves that can carry a derivative.
        forwards: how many times the whole Function has been run, steps run alone counted by their share.
    """

    def __init__(self, function: Function, leaves: Mapping[str, Tensor], seed: int | None, *, wide: bool = True) -> None:
        self.function = function
        self.wide = wide
        self.leaves = {name: to_double(leaf.detach()) if wide else leaf.detach() for name, leaf in leaves.items()}
        self.floating = tuple(name for name in function.leaves if is_differentiable(self.leaves[name].dtype))
        self.forwards = 0.0
        self._seed = seed or 0
        self._known: dict[Callable[[Point], Any], Any] = {}
        self._arbitrary: dict[fx.Node, Any] | None = None
        self._is_walking = False
        self._devices = sorted({leaf.device.index or 0 for leaf in self.leaves.values() if leaf.device.type == "cuda"})
        self._default = torch.float64 if wide else _default_dtype(self.leaves)

    def once(self, look: Callable[[Point], T]) -> T:
        """What `look` sees here, computed once: one report on a point need not look again for what another has seen."""
        if look not in self._known:
            self._known[look] = look(self)
        return cast(T, self._known[look])

    def in_dtypes(self, leaves: Mapping[str, Tensor]) -> Point:
        """The same Function at these leaves in their own dtypes."""
        return Point(self.function, leaves, self._seed, wide=False)

    @property
    def nodes(self) -> Sequence[fx.Node]:
        """The calls, in the order in which they run."""
        return [node for node in self.function.graph.nodes if node.op == "call_function"]

    def ready(self) -> AbstractContextManager[None]:
        """Random numbers as the query's seed gives them, and the default dtype of the point; both put back afterwards."""
        return self._seeded() if self.function.random else floating_default(self._default)

    @contextmanager
    def _seeded(self) -> Iterator[None]:
        with torch.random.fork_rng(devices=self._devices), floating_default(self._default):
            seed_generators(self._seed)
            yield

    def random_state(self) -> list[Tensor]:
        if not self.function.random:
            return []
        return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in self._devices)]

    def call(self, node: fx.Node, args: Any, kwargs: Any, state: Sequence[Tensor] = ()) -> Any:
        """One step. `state`: the random state that it drew from, to draw the same again."""
        if state:
            torch.set_rng_state(state[0])
            for device, own in zip(self._devices, state[1:], strict=True):
                torch.cuda.set_rng_state(own, device)
        if self.wide:
            args, kwargs = _with_wide_dtypes((args, kwargs))
        return self.target(node)(*args, **kwargs)

    def target(self, node: fx.Node) -> Callable[..., Any]:
        """What `node` calls here: in float64 its result is widened, and a cast casts to the widest dtype of its kind."""
        call = cast(Callable[..., Any], node.target)
        if not self.wide:
            return call
        dtype = DTYPES.get(values("casts_to").get(name_of(node), ""))
        if name_of(node) in _arbitrary_steps():
            return lambda *args, **kwargs: self._as_at_the_point(node, in_double(call(*args, **kwargs)))

        def in_float64(*args: Any, **kwargs: Any) -> Any:
            if dtype is not None and isinstance(args[0], Tensor):
                return args[0].to(dtype)
            return in_double(call(*args, **kwargs))

        return in_float64

    def _as_at_the_point(self, node: fx.Node, result: Any) -> Any:
        """What a step gives whose vectors have arbitrary signs, or whose values have no order: with those that they have at the point."""
        if self._is_walking:
            return result
        if self._arbitrary is None:  # the first call may be beside the point
            with torch.no_grad():
                self._arbitrary = {n: own for n, own in self.in_order() if name_of(n) in _arbitrary_steps()}
        return aligned(result, self._arbitrary[node])

    def run(self, leaves: Mapping[str, Tensor], held: Mapping[fx.Node, Any] | None = None) -> Sequence[Tensor]:
        """The outputs at other leaves (those left out stay); differentiable. Raises what PyTorch raises.

        Arguments:
            held: steps that keep these results, whatever they are given.
        """
        self.forwards += 1
        own = [leaves.get(name, self.leaves[name]) for name in self.function.leaves]
        with self.ready():
            return self._registers.run(own, held or {})

    def in_order(self) -> Iterator[tuple[fx.Node, Any]]:
        """Every step with what it gives, one after the other; a result is dropped as soon as no later step needs it."""
        self.forwards += 1
        last = {source: node for node in self.function.graph.nodes for source in node.all_input_nodes}
        walk = Interpreter(self)
        walk.args_iter = iter([self.leaves[name] for name in self.function.leaves])
        with self.ready():
            for node in self.function.graph.nodes:
                self._is_walking = True
                try:
                    result = walk.env[node] = walk.run_node(node)
                finally:
                    self._is_walking = False
                if node.op == "call_function":
                    yield node, result
                for source in node.all_input_nodes:
                    if last[source] is node:
                        del walk.env[source]

    def results(self) -> Mapping[fx.Node, Any]:
        """What every step of the last `run` gave."""
        return self._registers.results()

    @cached_property
    def _registers(self) -> _Registers:
        return _Registers(self)


@dataclass
class Points:
    """The point of one query, which all reports on it share: in float64, or in the dtypes that were sent where a step insists on them.

    Attributes:
        elsewhere: reads the program at other leaves; None where it does not branch on values.
    """

    function: Function
    leaves: Mapping[str, Tensor]
    seed: int | None = None
    elsewhere: Callable[[Mapping[str, Tensor]], Function] | None = None

    def read_at(self, leaves: Mapping[str, Tensor]) -> Function:
        """The Function of the same program at other leaves, where it may follow other branches."""
        return self.function if self.elsewhere is None else self.elsewhere(leaves)

    @cached_property
    def wide(self) -> Point:
        return Point(self.function, self.leaves, self.seed)

    @cached_property
    def narrow(self) -> Point:
        return Point(self.function, self.leaves, self.seed, wide=False)

    def widest(self, look: Callable[[Point], T]) -> T:
        """What `look` sees in float64; in the sent dtypes where PyTorch refuses that. Raises what PyTorch raises there."""
        try:
            return look(self.wide)
        except REFUSALS:
            return look(self.narrow)


class _Registers:
    """All steps of `point`'s Function with what they give, one after the other, as `Point.call` makes each of them.

    `Interpreter` looks at each node again in every run, which is more than half of the time of small steps, and `check` runs those
    thousands of times. As app/program/graph_runner.py does it, but every step is run, and every result stays.
    """

    def __init__(self, point: Point) -> None:
        nodes = list(point.function.graph.nodes)
        self._of: dict[fx.Node, int] = {node: k for k, node in enumerate(n for n in nodes if n.op == "placeholder")}
        self._arity = len(self._of)
        self._blank: list[Any] = [_NOT_RUN] * self._arity
        self._values = self._blank
        self._steps = [self._step(point, node) for node in nodes if node.op == "call_function"]
        self._outputs = getter(nodes[-1].args[0], self._of, self._blank)

    def _step(self, point: Point, node: fx.Node) -> tuple[Any, ...]:
        args, kwargs = _with_wide_dtypes((node.args, node.kwargs)) if point.wide else (node.args, node.kwargs)
        read, keywords = getter(args, self._of, self._blank), keywords_getter(kwargs, self._of)
        self._of[node] = register = len(self._blank)
        self._blank.append(_NOT_RUN)
        return node, point.target(node), read, keywords, kwargs, register

    def run(self, leaves: Sequence[Tensor], held: Mapping[fx.Node, Any]) -> Sequence[Tensor]:
        """The outputs."""
        self._values = registers = self._blank.copy()
        registers[: self._arity] = leaves
        for node, target, read, keywords, constants, register in self._steps:
            if node in held:
                registers[register] = held[node]
            else:
                registers[register] = target(*read(registers), **(constants if keywords is None else keywords(registers)))
        return self._outputs(registers)

    def results(self) -> Mapping[fx.Node, Any]:
        """What every step of the last run gave, as far as it came."""
        return {node: own for node, register in self._of.items() if (own := self._values[register]) is not _NOT_RUN}


_NOT_RUN: Final = object()


def _arbitrary_steps() -> frozenset[str]:
    return operations_with("phase") | operations_with("unordered")


def _with_wide_dtypes(arguments: Any) -> Any:
    """Arguments of a call with the dtypes that they name widened."""
    return mapped(arguments, torch.dtype, lambda dtype: _WIDER.get(dtype, dtype))


def in_double(result: Any) -> Any:
    """The result of a call with its tensors in float64 or complex128; integers and booleans as they are."""
    if type(result) is Tensor:
        return result if result.dtype not in _WIDER else to_double(result)
    if any(tensor.dtype in _WIDER for tensor in tensors_in(result)):
        return mapped(result, Tensor, to_double)
    return result


class Interpreter(fx.Interpreter):
    """Walks the graph of `point`'s Function, where its steps are looked at one by one.

    `run` and `run_node` are those of the base class without its progress bar, its tracing, and its traces in messages.
    """

    def __init__(self, point: Point) -> None:
        super().__init__(torch.nn.Module(), garbage_collect_values=False, graph=point.function.graph)
        self.point = point
        self._order = tuple(point.function.graph.nodes)

    def run(self, *args: Any, **_: Any) -> Any:
        self.env = {}
        self.args_iter = iter(args)
        for node in self._order:
            self.env[node] = self.run_node(node)
        return self.env[self._order[-1]]

    def run_node(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            return next(self.args_iter)
        if node.op == "output":
            return self.map_nodes_to_values(node.args[0], node)
        return self.point.call(node, *self.fetch_args_kwargs_from_env(node))


def _default_dtype(leaves: Mapping[str, Tensor]) -> torch.dtype:
    floating = [leaf.dtype.to_real() for leaf in leaves.values() if is_differentiable(leaf.dtype)]
    return max(floating, key=lambda dtype: dtype.itemsize, default=torch.float64)


def all_finite(value: Any) -> bool:
    """Whether every floating tensor in a step's result is finite."""
    return all(not is_differentiable(t.dtype) or bool(torch.isfinite(t).all()) for t in tensors_in(value))
