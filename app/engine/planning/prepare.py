"""A query made ready to run: its Function, the names to differentiate by, and its Plan; kept by signature."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import torch
from torch import Tensor

from app.bounded_cache import BoundedCache
from app.engine.errors import no_derivative
from app.engine.planning import plan as planning
from app.engine.planning.build import Built, Real, build, function_bytes, leaves_of, lists_of
from app.engine.planning.by_convention import conventions
from app.engine.planning.checked_outputs import CHECKS
from app.engine.planning.demand import Demand, Result, Sizes, Wanted, reused_bytes
from app.engine.planning.initial_weights import WeightFiller, check_seed
from app.engine.planning.plan import Plan
from app.engine.planning.replay.reading import Reading
from app.engine.planning.replay.same_ranks import SameRanks
from app.engine.sparsity.followed_outputs import OutputPatterns
from app.engine.tensors import is_differentiable, to_torch
from app.errors import PullbackError
from app.limits import Limits
from app.program.function import Function, Initial
from app.program.functions import Functions
from app.query import Query, TensorData

# Of the graphs of all signatures that are remembered, in each worker: 580 of the median pasted program (57 kB), 73 of the largest 5% (457).
_BYTES_LIMIT: Final = 32 << 20
# A program that branches is read once for each sample of a batch; more than this would take seconds.
_BRANCHED_SAMPLES: Final = 256
_WANTS_KNOWN: Final = 256  # sets of kinds, a kilobyte each: what clients ask for are some dozens


@dataclass(frozen=True, slots=True)
class Prepared:
    """A query made ready to run.

    Attributes:
        of: the output that `gradient`, `hessian`, `hvp`, `fisher` are of, where one of them is wanted.
        samples: of a batched query.
        conventions: operation → what must be said of its derivative.
        elsewhere: reads a program that branches on values at other leaves.
        patterns: of the outputs at this query's own values, where they were followed while the Function was built; they are not kept.
    """

    function: Function
    dtypes: Mapping[str, torch.dtype]
    wrt: tuple[str, ...]
    of: str | None
    plan: Plan
    samples: int | None
    conventions: tuple[tuple[str, str], ...] = ()
    patterns: OutputPatterns | None = None
    elsewhere: Callable[[Mapping[str, Tensor]], Function] | None = None

    def followed(self, patterns: OutputPatterns) -> Prepared:
        """The same with these patterns."""
        known = self.function, self.dtypes, self.wrt, self.of, self.plan, self.samples, self.conventions
        return Prepared(*known, patterns, self.elsewhere)  # `replace` takes as long as a step of a small program


def _check_modified(function: Function, wrt: tuple[str, ...], of: str | None) -> None:
    """Refuses a derivative past a write in place that PyTorch refuses to differentiate."""
    for modified in function.modified:
        if modified.leaves.intersection(wrt) and (of is None or of in modified.outputs):
            write, (detail, fix) = modified.write, modified.refusal()
            raise PullbackError(
                "operation_failed",
                f"Line {write.line}, column {write.column}: {detail}",
                at=f"{write.line}:{write.column}",
                fix=fix,
            )


class Preparer:
    """Prepares queries and remembers what can be used again, by signature.

    `demands`: what each kind asks of the plan, by its name.

    Attributes:
        plans: how many were made that serve again.
    """

    def __init__(self, limits: Limits, device: str, functions: Functions, demands: Mapping[str, Demand]) -> None:
        self._limits = limits
        self._functions = functions
        self._device = device
        self._wanted = lru_cache(_WANTS_KNOWN)(lambda want: Wanted({kind: demands[kind] for kind in want}))
        self._known: BoundedCache[Any, Prepared] = BoundedCache(
            _BYTES_LIMIT, lambda prepared: function_bytes(prepared.function)
        )
        self._same_ranks = SameRanks()
        self.plans = 0
        self._ahead: tuple[Query, Built] | None = None  # whose steps were run before it was asked for
        self._weights = WeightFiller(functions, self._read, self._reading, self._runs, self._sample, limits.memory_bytes)

    def completed(self, query: Query) -> tuple[Query, Initial | None]:
        """The query with the weights of its program that it does not send, and these."""
        return self._weights.completed(query)

    def prepared(self, query: Query) -> Prepared:
        """Raises PullbackError: all that is wrong with a query's names, shapes, wants and size."""
        key = _signature(query)
        prepared = self._known.get(key)
        if prepared is not None:
            check_seed(query, prepared.function)
            return prepared
        prepared, patterns = self._prepare(query)
        check_seed(query, prepared.function)
        if prepared.function.static:
            self.plans += 1
            self._known.keep(key, prepared)
        return prepared if patterns is None else prepared.followed(patterns)

    def improve(self) -> bool:
        """Spend about a millisecond on what makes the first queries of other shapes cheaper; False where there is nothing to do."""
        return self._same_ranks.improve()

    def leaves(self, query: Query, dtypes: Mapping[str, torch.dtype]) -> dict[str, Tensor]:
        """The query's tensors on the device, in the dtypes that they are computed in."""
        sent = {name: to_torch(data, self._device) for name, data in leaves_of(query.inputs)}
        return {name: leaf if leaf.dtype is dtypes[name] else leaf.to(dtypes[name]) for name, leaf in sent.items()}

    def _sample(self, query: Query, dtypes: Mapping[str, torch.dtype], index: int = 0) -> dict[str, Tensor]:
        """The tensors as one sample sees them."""
        leaves = self.leaves(query, dtypes)
        return {name: leaf[index] if query.is_batched(name) else leaf for name, leaf in leaves.items()}

    def _read(self, query: Query, sample: int = 0) -> Built:
        """The Function of a query, for one sample of it."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] is query and sample == 0:
            return ahead[1]
        shapes = _shapes(query)
        real: Real = lambda dtypes: self._sample(query, dtypes, sample)  # noqa: E731
        memory_bytes = self._limits.memory_bytes
        if self._device != "cpu":
            return build(query, self._functions, shapes, real, self._device, memory_bytes=memory_bytes)
        by_extents = self._wanted(query.want).by_extents
        built = None if by_extents else self._same_ranks.built(query, shapes, real)
        if built is None:
            built = build(query, self._functions, shapes, real, memory_bytes=memory_bytes, followed=self._followed(query))
            if not by_extents:  # it would be kept beside what was known of that text, once for each query
                self._same_ranks.learn(query, shapes, built)
        return built

    def _reading(self, query: Query) -> Reading | None:
        return self._same_ranks.reading(query, _shapes(query)) if self._device == "cpu" else None

    def _runs(self, query: Query, like: Reading) -> bool:
        by_extents = self._wanted(query.want).by_extents
        real: Real = lambda dtypes: self._sample(query, dtypes)  # noqa: E731
        built = None if by_extents else self._same_ranks.built(query, _shapes(query), real, like)
        self._ahead = None if built is None else (query, built)
        return built is not None

    def _followed(self, query: Query) -> list[str]:
        """The leaves by which the patterns of the outputs are wanted."""
        if query.format == "dense" or query.batched or not self._wanted(query.want).by_outputs:
            return []
        wrt, names = query.wrt, [name for name, _ in leaves_of(query.inputs)]
        return names if wrt is None else [name for name in names if name in wrt or name.rpartition(".")[0] in wrt]

    def _prepare(self, query: Query) -> tuple[Prepared, OutputPatterns | None]:
        """And the patterns of the outputs at the values of this query, where they were followed."""
        sent = dict(leaves_of(query.inputs))
        samples = _samples(query)
        shapes = _shapes(query)
        built = self._read(query)
        if built.function.branches and samples is not None:
            self._check_branches(query, built.function, samples)
        elif samples is not None and not built.function.static:
            self._check_sizes(query, built, samples)
        dtypes = {leaf.name: leaf.dtype for leaf in built.leaves}
        demands = self._wanted(query.want)
        outputs = results(built)
        wrt = _wrt(query, built, sent) if demands.derives else ()
        of = _of(query, demands, built.function, wrt, outputs)
        if any(demand.derives and not demand.past_writes for demand in demands.values()):
            _check_modified(built.function, wrt, None if of is None else of.name)
        variables = tuple(Result(leaf.name, leaf.shape, leaf.dtype) for leaf in built.leaves if leaf.name in wrt)
        operations = built.function.operations()
        sizes = Sizes(
            wrt=variables,
            outputs=outputs,
            of=of,
            num_vectors=_num_vectors(query, outputs, shapes),
            format=query.format,
            method=planning.jacobian_method(variables, [o for o in outputs if is_differentiable(o.dtype)], operations),
            differentiable_everywhere=planning.is_differentiable_everywhere(operations),
            without_derivative=planning.has_no_derivative(operations),
            reused_bytes=reused_bytes(built.function, built.leaves, wrt) if demands.order > 1 else 0,
        )
        plan = planning.make(demands=demands, sizes=sizes, cost=built.cost, samples=samples or 1, limits=self._limits)
        spoken = conventions(built.function) if wrt else ()
        name = None if of is None else of.name
        prepared = Prepared(built.function, dtypes, wrt, name, plan, samples, spoken, elsewhere=self._elsewhere(query, built))
        return prepared, built.patterns

    def _elsewhere(self, query: Query, built: Built) -> Callable[[Mapping[str, Tensor]], Function] | None:
        """Reads the query's program at other leaves of the same shapes; None where it does not branch on their values."""
        if not built.function.branches or query.batched:
            return None

        def read(leaves: Mapping[str, Tensor]) -> Function:
            real: Real = lambda dtypes: {name: leaves[name].to(dtype) for name, dtype in dtypes.items()}  # noqa: E731
            return build(
                query, self._functions, _shapes(query), real, self._device, memory_bytes=self._limits.memory_bytes
            ).function

        return read

    def _check_sizes(self, query: Query, first: Built, samples: int) -> None:
        """Refuses a batch of samples whose values decide sizes, where they decide other ones; `too_costly` as each sample alone would be."""
        shapes = [result.shape for result in results(first)]
        for index in range(1, min(samples, _BRANCHED_SAMPLES)):
            others = [result.shape for result in results(self._read(query, index))]
            if others != shapes:
                words = [", ".join(str(list(shape)) for shape in each) for each in (shapes, others)]
                raise PullbackError(
                    "shape_mismatch",
                    f"The values decide the sizes of the outputs of `{first.function.title}`: {words[0]} of sample 0, {words[1]} of sample {index}.",
                    at="batched",
                    expected=words[0],
                    given=words[1],
                    fix="Send the samples as queries of their own to `/v1/queries`.",
                )

    def _check_branches(self, query: Query, first: Function, samples: int) -> None:
        """Refuses a batch whose samples take different branches: one Function answers for all of them."""
        followed = [branch.value for branch in first.branches]
        for index in range(1, samples):
            branches = self._read(query, index).function.branches
            if index >= _BRANCHED_SAMPLES or [branch.value for branch in branches] != followed:
                step = first.branches[0].step
                raise PullbackError(
                    "bad_program",
                    f"Line {step.line}, column {step.column}: The samples of the batch take different branches here.",
                    at=f"{step.line}:{step.column}",
                    fix="Write `where(condition, a, b)`, or send the samples as queries of their own to `/v1/queries`.",
                )


def _shapes(query: Query) -> dict[str, tuple[int, ...]]:
    """Of the leaves, as one sample has them."""
    return {name: data.shape[1:] if query.is_batched(name) else data.shape for name, data in leaves_of(query.inputs)}


def _signature(query: Query) -> Any:
    return (
        query.operation,
        query.program,
        query.function,
        tuple((name, data.shape, data.dtype, data.bare) for name, data in leaves_of(query.inputs)),
        lists_of(query.inputs),
        repr(query.parameters) if query.parameters else "",
        query.want,
        query.wrt,
        query.of,
        query.batched,
        query.format,
        query.dtype,
        query.seed is None,
        query.weighted,
        tuple((name, data.shape) for name, data in query.cotangent.items()),
        tuple((name, data.shape) for name, data in query.tangent.items()),
    )


def results(built: Built) -> tuple[Result, ...]:
    """The Function's outputs, as they came out while it was built."""
    values = built.outputs
    if values is None:
        (nodes,) = next(node for node in reversed(built.function.graph.nodes) if node.op == "output").args
        values = tuple(node.meta["val"] for node in nodes)
    return tuple(Result(name, tuple(v.shape), v.dtype) for name, v in zip(built.function.outputs, values, strict=True))


def _samples(query: Query) -> int | None:
    """The length of the batch axis; None where the query is not batched."""
    if not query.batched:
        return None
    lengths: dict[str, int] = {}
    for name in query.batched:
        if name not in query.inputs:
            raise _unknown_input("batched", name, query)
    for name, data in leaves_of(query.inputs):
        if query.is_batched(name):
            if not data.shape:
                raise PullbackError(
                    "shape_mismatch",
                    f"`{name}` is batched, so it needs a leading batch axis; it is a single number.",
                    at=f"inputs.{name}",
                    expected="shape [batch, …]",
                    given="shape []",
                    fix=f'Leave `{name}` out of "batched" if every sample shares it.',
                )
            lengths[name] = data.shape[0]
    if len(set(lengths.values())) != 1:
        raise PullbackError(
            "shape_mismatch",
            "Every batched input has the same leading axis.",
            at="batched",
            given=", ".join(f"{name}: {count}" for name, count in lengths.items()),
            fix='Name in "batched" only inputs with one entry for each sample.',
        )
    count = next(iter(lengths.values()))
    if count == 0:
        raise PullbackError("shape_mismatch", "The batch axis is empty.", at="batched", fix="Send at least one sample.")
    return count


def _unknown_input(at: str, name: str, query: Query) -> PullbackError:
    known = ", ".join(query.inputs) or "none were sent"
    return PullbackError(
        "bad_parameter",
        f"There is no input named `{name}`.",
        at=at,
        expected=f"names of inputs: {known}",
        given=name,
        fix="Name an input that is sent, or send this one.",
    )


def _wrt(query: Query, built: Built, sent: Mapping[str, TensorData]) -> tuple[str, ...]:
    """The leaves to differentiate with respect to, in the Function's order."""
    if query.wrt is None:
        return tuple(leaf.name for leaf in built.leaves if is_differentiable(leaf.dtype))
    named: set[str] = set()
    for name in query.wrt:
        members = [leaf for leaf in built.leaves if leaf.name == name or leaf.name.rpartition(".")[0] == name]
        if not members:
            if name in sent:  # sent, but the Function does not take it as a tensor
                continue
            raise _unknown_input("wrt", name, query)
        for leaf in members:
            if not is_differentiable(leaf.dtype):
                raise PullbackError(
                    "not_differentiable",
                    f"`{leaf.name}` is {sent[leaf.name].dtype}: whole numbers and truth values have no derivative.",
                    at="wrt",
                    expected="a floating or complex input",
                    given=sent[leaf.name].dtype,
                    fix=f'Send `{leaf.name}` as float64, or leave it out of "wrt".',
                )
            named.add(leaf.name)
    return tuple(leaf.name for leaf in built.leaves if leaf.name in named)


def _of(
    query: Query, demands: Mapping[str, Demand], function: Function, wrt: tuple[str, ...], outputs: tuple[Result, ...]
) -> Result | None:
    """The output that scalar and likelihood kinds are of. Raises `not_differentiable`, `not_scalar`, `bad_parameter`."""
    if query.of is not None and query.of not in function.outputs:
        raise PullbackError(
            "bad_parameter",
            f"There is no output named `{query.of}`.",
            at="of",
            expected="one of " + ", ".join(function.outputs),
            given=query.of,
        )
    kinds = [kind for kind, demand in demands.items() if demand.needs != "nothing"]
    if not kinds:
        return None
    candidates = [o for o in outputs if is_differentiable(o.dtype) and query.of in (None, o.name)]
    if not candidates or not wrt:
        raise no_derivative(function.title, wrt, {o.name: o.dtype for o in outputs if query.of in (None, o.name)})
    if len(candidates) > 1:
        raise PullbackError(
            "bad_parameter",
            f"There are several outputs, so `{kinds[0]}` needs to know of which.",
            at="of",
            expected="one of " + ", ".join(o.name for o in candidates),
            fix=f'Add "of": "{candidates[0].name}" to the query.',
        )
    for kind in kinds:
        if not query.weighted:
            CHECKS[demands[kind].needs](kind, candidates[0])
    return candidates[0]


def _num_vectors(query: Query, outputs: tuple[Result, ...], shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Cotangents or tangents sent at once, for sizing; their shapes are judged when they are read."""
    ranks = {**{o.name: len(o.shape) for o in outputs}, **{name: len(shape) for name, shape in shapes.items()}}
    extra = 1 if query.batched else 0
    counts = [
        data.shape[extra] if len(data.shape) > ranks.get(name, len(data.shape)) + extra else 1
        for vectors in (query.cotangent, query.tangent)
        for name, data in vectors.items()
    ]
    return max(counts, default=1)
