"""What is asked about, made into a Function: an operation, a program or a kept function, and its input tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedOperatorException,
)

from app.catalogue.call import DTYPES
from app.catalogue.read import find
from app.engine.errors import translating_errors
from app.engine.planning.bounded_counter import BoundedCounter, UnboundedError, is_small
from app.engine.planning.cost import Cost, measured
from app.engine.planning.value_sizes import LimitedCounter
from app.engine.sparsity.followed_outputs import Follower, OutputPatterns
from app.engine.tensors import is_differentiable, seeding
from app.errors import PullbackError
from app.limits import Limits
from app.program.compiler import build_program
from app.program.function import Function, GraphFact
from app.program.functions import Functions, build_function, stands_for
from app.program.operation import build_operation
from app.query import INTEGER_DTYPES, Input, Query, TensorData

Inputs = Mapping[str, Tensor | tuple[Tensor, ...]]
# Gives the real leaves, cast to the dtypes that it is handed.
Real = Callable[[Mapping[str, torch.dtype]], Mapping[str, Tensor]]
# Shapes that only the values decide: the Function is then built on the real tensors.
# The last one is a mistake of PyTorch's own shape functions, as of an LSTM cell without biases on a GPU (2.13.0, `_meta_registrations.py`).
UNPLANNABLE = (DataDependentOutputException, DynamicOutputShapeException, UnsupportedOperatorException, AttributeError)
_COMPLEX_OF = {torch.float64: torch.complex128, torch.float32: torch.complex64}
_FEW = 100_000  # elements: a real attempt at a failed operation costs nothing then
# What is made of real tensors is made once to plan and once to answer; the answer's results count twice, as tensors and as text.
COPIES: Final = 2
# Of a node of a graph, with what was noted of it and what runs it: measured of programs of 20 and of 1,800 steps, 65 kB and 4.6 MB.
_NODE_BYTES = 2600
_FUNCTION_BYTES = 10_000
_QUESTION_BYTES = 1_000  # of an answer about sizes, with the numbers that led to it: 12.4 MB measured of 12,000
_FEW_BYTES = 8 * _FEW  # of what it makes: `tile` makes gigabytes of two elements


class Leaf(NamedTuple):
    """One tensor input: its shape, the dtype it is computed in, and whether a derivative was asked with respect to it."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype


def leaves_of(inputs: Mapping[str, Input]) -> Iterator[tuple[str, TensorData]]:
    """The tensors of `inputs` one by one, a list's members as `NAME.0`, `NAME.1`…"""
    for name, value in inputs.items():
        if isinstance(value, TensorData):
            yield name, value
        else:
            for index, member in enumerate(value):
                yield f"{name}.{index}", member


def lists_of(inputs: Mapping[str, Input]) -> tuple[str, ...]:
    """The names under which lists were sent: `xs.0` of one and a tensor sent as `xs.0` are leaves of one name."""
    return tuple([name for name, value in inputs.items() if not isinstance(value, TensorData)])


def regrouped(query: Query, tensors: Mapping[str, Tensor]) -> Inputs:
    """Leaves back in the shape of the query's inputs: a tensor, or a tuple of tensors where a list was sent."""
    return {
        name: tensors[name]
        if isinstance(value, TensorData)
        else tuple(tensors[f"{name}.{index}"] for index in range(len(value)))
        for name, value in query.inputs.items()
    }


def builder(query: Query, functions: Functions) -> Callable[[Inputs], Function]:
    """The maker of the Function for a query's text or name. Raises `unknown_operation`, `unknown_function`."""
    if query.operation is not None:
        operation = find(query.operation)
        return lambda inputs: build_operation(operation, inputs, query.parameters)
    if query.function is not None:
        known = functions.find(query.function)
        return lambda inputs: build_function(known, inputs, query.parameters, _program_dtype(query, inputs))
    text = query.program or ""
    return seeding(query.seed, lambda inputs: build_program(text, inputs, query.parameters, _program_dtype(query, inputs)))


def _program_dtype(query: Query, inputs: Inputs) -> torch.dtype:
    """The floating dtype that a program's factories take: the query's, else the widest real floating one among its inputs."""
    if query.dtype is not None:
        dtype = DTYPES[query.dtype]
        return dtype.to_real() if dtype.is_complex else dtype
    widest: torch.dtype | None = None
    for value in inputs.values():
        for tensor in value if isinstance(value, tuple) else (value,):
            if is_differentiable(tensor.dtype):
                real = tensor.dtype.to_real() if tensor.dtype.is_complex else tensor.dtype
                widest = real if widest is None else torch.promote_types(widest, real)
    return widest or torch.float64


def _seed_needed(why: str) -> PullbackError:
    return PullbackError(
        "bad_parameter",
        f"{why}, so the query needs a seed.",
        at="seed",
        expected="an integer",
        fix='Add "seed": 0 to the query.',
    )


class Built(NamedTuple):
    """A Function with the dtypes that its leaves are cast to.

    Attributes:
        cost: of one forward; None where it could not be planned.
        outputs: tensors of the outputs' shapes and dtypes, where the Function was built for other shapes than `leaves` have; else its graph
            has them.
        by_failure: an attempt with other dtypes failed, which it may not do for other shapes.
        patterns: of the outputs, where the steps that it was built by were followed.
    """

    function: Function
    leaves: tuple[Leaf, ...]
    cost: Cost | None
    outputs: tuple[Tensor, ...] | None = None
    by_failure: bool = False
    patterns: OutputPatterns | None = None


def function_bytes(function: Function) -> int:
    """About how much memory a Function takes that is kept."""
    return _graph_bytes(function.pattern)


@GraphFact
def _graph_bytes(graph: fx.Graph) -> int:
    questions = sum([len(node.meta.get("asked", ())) for node in graph.nodes])
    return _FUNCTION_BYTES + _NODE_BYTES * len(graph.nodes) + _QUESTION_BYTES * questions


def build(
    query: Query,
    functions: Functions,
    shapes: Mapping[str, tuple[int, ...]],
    real: Real,
    device: str = "cpu",
    *,
    on_fakes: bool = False,
    memory_bytes: int = Limits().memory_bytes,
    followed: Collection[str] = (),
) -> Built:
    """The Function of `query` for leaves of these shapes: small ones built on their values, as long as every step is sure to be small,
    all others on fakes; on real tensors where data decides the shapes, each step's results reckoned from the values before it runs.

    Arguments:
        shapes: leaf name → shape that the Function sees (one sample's where the query is batched).
        real: gives the real leaves, cast to the dtypes it is handed; called only where fakes are not enough.
        device: of the fakes, so that the constants of a program are made where its inputs will be.
        on_fakes: small ones too.
        followed: leaves by which the patterns of the outputs are wanted, where the steps run on their values.

    Raises:
        PullbackError: whatever the text, the names, the shapes or PyTorch have against it.
    """
    are_small = not on_fakes and device == "cpu" and is_small(shapes.values())
    attempt = _Attempt(query, builder(query, functions), shapes, real, device, are_small, memory_bytes, followed)
    annotated = _annotated(query, functions)
    dtypes = _dtypes(query) | annotated
    candidates = [name for name in _promotable(query, dtypes) if name not in annotated]
    if candidates:
        dtypes = _promoted(attempt, dtypes, candidates)
    whole = [] if candidates else [name for name in _bare_integers(query) if name not in annotated]
    if whole and query.operation is not None and not attempt.succeeds(dtypes):
        dtypes = _rescued(attempt, dtypes, whole)
    try:
        function, cost = attempt.built(dtypes)
    except PullbackError:
        rescued = _rescued(attempt, dtypes, whole)
        if rescued == dtypes:
            raise
        dtypes = rescued
        attempt.has_failed = True
        function, cost = attempt.built(dtypes)
    if function.random and query.seed is None:
        raise _seed_needed("The program draws random numbers" if query.program else f"`{function.title}` draws random numbers")
    leaves = tuple(Leaf(name, shapes[name], dtypes[name]) for name in function.leaves)
    return Built(function, leaves, cost, by_failure=attempt.has_failed, patterns=attempt.patterns)


def _dtypes(query: Query) -> dict[str, torch.dtype]:
    """What each leaf is computed in: as it came, or the query's `dtype` (its complex relative for a complex leaf)."""
    compute = None if query.dtype is None else DTYPES[query.dtype]
    dtypes: dict[str, torch.dtype] = {}
    for name, data in leaves_of(query.inputs):
        dtype = DTYPES[data.dtype]
        if compute is not None and is_differentiable(dtype):
            keeps_phase = dtype.is_complex and not compute.is_complex
            dtype = _COMPLEX_OF.get(compute, dtype) if keeps_phase else compute
        dtypes[name] = dtype
    return dtypes


def _annotated(query: Query, functions: Functions) -> dict[str, torch.dtype]:
    """What the bare tensors of a kept function are: its annotations say it, their own dtype being a guess."""
    if query.function is None or query.dtype is not None:
        return {}
    annotations = {spec.name: spec.dtype for spec in functions.find(query.function).inputs}
    return {
        name: DTYPES[annotations[name]]
        for name, data in leaves_of(query.inputs)
        if data.bare and name in annotations and stands_for(data.dtype, annotations[name])
    }


def _promotable(query: Query, dtypes: Mapping[str, torch.dtype]) -> list[str]:
    """Bare integer leaves that the docs/contract.md (section 2) would have floating: named in `wrt`, or nothing at all is floating."""
    bare = _bare_integers(query)
    if query.wrt is not None:
        named = set(query.wrt)
        return [name for name in bare if name in named or name.rpartition(".")[0] in named]
    return [] if any(is_differentiable(dtype) for dtype in dtypes.values()) else bare


def _rescued(attempt: _Attempt, dtypes: dict[str, torch.dtype], whole: list[str]) -> dict[str, torch.dtype]:
    """Dtypes with which the Function succeeds: whole numbers beside floating ones, which PyTorch refused, taken as floating.

    A browser writes 1.0 as 1, so an image of ones and zeros comes as integers.
    """
    promoted = _promoted(attempt, dtypes, whole) if whole else dtypes
    return promoted if promoted != dtypes and attempt.succeeds(promoted) else dtypes


def _bare_integers(query: Query) -> list[str]:
    return [name for name, data in leaves_of(query.inputs) if data.bare and data.dtype in INTEGER_DTYPES]


def _promoted(attempt: _Attempt, dtypes: dict[str, torch.dtype], candidates: list[str]) -> dict[str, torch.dtype]:
    """`candidates` as floating: all of them where they are named in `wrt` or the Function takes that, else those that it takes."""
    query = attempt.query
    target = DTYPES[query.dtype] if query.dtype is not None else torch.float64
    everything = {**dtypes, **dict.fromkeys(candidates, target)}
    named = query.wrt is not None and set(candidates) == set(_promotable(query, dtypes))
    if named or attempt.succeeds(everything):
        return everything
    some = dtypes
    for name in candidates:  # one by one: `index_select` takes a floating input but not a floating index
        with_it = {**some, name: target}
        if attempt.succeeds(with_it):
            some = with_it
    # A program that fails with any is refused as the one that it would be: of what cholesky has against these numbers, not against int64.
    if attempt.query.operation is None and not attempt.succeeds(some) and attempt.succeeds(everything, on_fakes_alone=True):
        return everything
    return some


class _Attempt:
    """Builds the Function of one query with dtypes that are still to be found.

    Arguments:
        are_small: the values may serve in the place of fakes.
        memory_bytes: that a query may take.
        followed: leaves by which patterns are wanted.

    Attributes:
        has_failed: with some dtypes there is no Function.
        patterns: of the outputs of what was built last, where they were followed.
    """

    def __init__(
        self,
        query: Query,
        make: Callable[[Inputs], Function],
        shapes: Mapping[str, tuple[int, ...]],
        real: Real,
        device: str,
        are_small: bool,
        memory_bytes: int,
        followed: Collection[str],
    ) -> None:
        self.query, self._make, self._shapes, self._real, self._device = query, make, shapes, real, device
        self._are_small, self._memory_bytes, self._followed = are_small, memory_bytes, followed
        self.patterns: OutputPatterns | None = None
        self._last: tuple[Mapping[str, torch.dtype], tuple[Function, Cost]] | None = None
        self.has_failed = False

    def succeeds(self, dtypes: Mapping[str, torch.dtype], *, on_fakes_alone: bool = False) -> bool:
        """Whether there is a Function with these dtypes; `on_fakes_alone`: whatever the kernels have against it."""
        try:
            if not on_fakes_alone and self._on_values(dtypes) is not None:
                return True
            try:
                _, cost = self._on_fakes(dtypes)
            except UNPLANNABLE:
                self._last = dict(dtypes), self._on_real(dtypes)
                return True
            if not on_fakes_alone and self._has_few() and cost.bytes <= _FEW_BYTES:
                self._on_real(dtypes)  # fakes are lenient: `index_select` takes a floating index there, `gcd` floating numbers
        except (PullbackError, *UNPLANNABLE):
            self.has_failed = True
            return False
        return True

    def built(self, dtypes: Mapping[str, torch.dtype]) -> tuple[Function, Cost]:
        """On small values; else on fakes; on real tensors where data decides the shapes, and where an operation failed on few fakes.

        The latter because fakes run PyTorch's second implementation of an operation: its refusals read worse, and now and then
        it refuses what the first one takes.
        """
        if self._last is not None and self._last[0] == dtypes:
            return self._last[1]
        try:
            if (on_values := self._on_values(dtypes)) is not None:
                return on_values
        except PullbackError as error:
            if error.code == "too_costly":  # of what else is wrong with it fakes will tell
                raise
        try:
            return self._on_fakes(dtypes)
        except UNPLANNABLE:
            pass
        except PullbackError as error:
            if self.query.operation is None or not self._has_few() or error.code not in ("shape_mismatch", "operation_failed"):
                raise
        try:
            return self._on_real(dtypes)
        except PullbackError as error:
            if error.code == "shape_mismatch" and error.given is None:
                error.given = ", ".join(f"{name} {list(shape)}" for name, shape in self._shapes.items())
            raise

    def _has_few(self) -> bool:
        return sum(math.prod(shape) for shape in self._shapes.values()) <= _FEW

    def _on_real(self, dtypes: Mapping[str, torch.dtype]) -> tuple[Function, Cost]:
        counter = LimitedCounter(self._memory_bytes // COPIES)
        with torch.no_grad(), translating_errors():
            inputs = regrouped(self.query, self._real(dtypes))  # not counted: it copies or not by where the body stands
            function, cost = measured(lambda: self._make(inputs), counter)
        for node in function.graph.nodes:  # what is large is made again when it is computed: not two of it at a time
            if isinstance(node.meta.get("val"), Tensor) and node.meta["val"].numel() > _FEW:
                node.meta["val"] = _without_values(node.meta["val"])
        return function, cost

    def _on_fakes(self, dtypes: Mapping[str, torch.dtype]) -> tuple[Function, Cost]:
        with FakeTensorMode():
            fakes = {name: torch.empty(shape, dtype=dtypes[name], device=self._device) for name, shape in self._shapes.items()}
            with translating_errors(through=UNPLANNABLE):
                return measured(lambda: self._make(regrouped(self.query, fakes)))

    def _on_values(self, dtypes: Mapping[str, torch.dtype]) -> tuple[Function, Cost] | None:
        """What small values give, by steps that are sure to be small; None where fakes must tell."""
        if not self._are_small:
            return None
        if self._last is not None and self._last[0] == dtypes:
            return self._last[1]
        self.patterns = None
        counter = BoundedCounter()
        try:
            with translating_errors(through=(UnboundedError,)):
                leaves = self._real(dtypes)
                inputs = regrouped(self.query, leaves)
                names = [name for name in self._followed if is_differentiable(dtypes[name])]
                follower = Follower(leaves, names) if names else None
                if follower is not None:
                    counter.run, counter.only_counts = follower.run, False
                function, cost = measured(lambda: self._make(inputs), counter)
                if counter.has_read and self.query.operation is not None:
                    raise UnboundedError  # what an operation reads within may be the same for all values; fakes know of some
        except UnboundedError:
            self._are_small = False
            return None
        if not counter.has_read and not function.branches:  # what was tried may raise for other values
            function = replace(function, static=True)
            self.patterns = None if follower is None else follower.patterns(function)
            for node in function.graph.nodes:
                if "val" in node.meta:
                    node.meta["val"] = _without_values(node.meta["val"])
        self._last = dict(dtypes), (function, cost)
        return self._last[1]


def _without_values(value: Any) -> Any:
    """Shapes and dtypes of a step's value."""
    if isinstance(value, Tensor):
        return torch.empty_like(value, device="meta")
    return tuple(map(_without_values, value)) if isinstance(value, list | tuple) else value
