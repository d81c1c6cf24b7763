"""Recipes: the computation of a query that comes again with other numbers, prepared once and run directly.

A recipe keeps the query's tensors, into which new numbers are written, and calls the same Function and the same backward as the
engine's road. It serves queries whose numbers decide nothing but numbers; where they may decide more (a note, a branch, a refusal),
there is none, or it stops and leaves the query to the road.
"""

from __future__ import annotations

import cmath
from array import array
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any, Final, TypeAlias

import torch
from numpy.typing import NDArray
from torch import Tensor

from app.bounded_cache import BoundedCache
from app.engine.adjoint import contradictory
from app.engine.autodiff.cotangents import ones
from app.engine.autodiff.evaluation import backward
from app.engine.autodiff.freivalds import UncertifiedError, are_close
from app.engine.autodiff.unit_rows import jacobian
from app.engine.joint.kind_passes import Forward, Passes, Recurring, Rows, Second, forward_values, second_values
from app.engine.joint.proof import Batching, Joint, prove
from app.engine.joint.proofs import Came, Proofs
from app.engine.joint.query_tensors import FORMATS, Buffer, Bytes, buffers_of, bytes_of
from app.engine.joint.seen_signatures import SeenSignatures, held_bytes
from app.engine.joint.stacks import Stacks
from app.engine.joint.witnesses import Watch, watch
from app.engine.kinds import KINDS
from app.engine.planning.build import function_bytes, leaves_of
from app.engine.planning.plan import Plan, has_forward_mode
from app.engine.planning.prepare import Prepared
from app.engine.zeros.telling_zeros import ResultKey, watched_zeros
from app.query import Query

# What NumPy holds and JSON shows as it is.
_RESULTS: Final = frozenset(
    {torch.float64, torch.float32, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool}
)
# Above, some 50 ms of one core, what is saved beside computing does not matter.
_FLOPS_LIMIT: Final = 1e8
_BRIEF_BYTES: Final = 64 << 10  # of the query's tensors: what moves more takes its time by that
_BRIEF_FLOPS: Final = 1e5  # at the slowest, some 1e8 a second where each is a `special` function of its own
# Of all recipes of a worker: their tensors and texts; a graph and what stands around it are some 8 kB.
_GRAPH_BYTES: Final = 8 << 10
_COUNT_LIMIT: Final = 512  # 4 MB of graphs
_BYTES_LIMIT: Final = 32 << 20  # 690 of the median pasted program (48 kB), 89 of the largest 5% (374)

Numbers: TypeAlias = "array[float] | array[int] | memoryview"


class Recipe:
    """One query's computation, for one run at a time. `pinned`: its numbers are written where a GPU can fetch them by itself.

    Attributes:
        bytes: of the memory that it keeps.
        is_brief: a run takes less than a millisecond.
        joint, stacks: what computes one or several such queries in less time, where that is proved.
        came: numbers of queries until there are enough to prove it; None where it is not proved, any more or at all.
        looks_at_zeros: it leaves zeros that may tell to the whole road, as long as that has not looked at these.
        always_zero: leaves → what is zero whatever they are; asked once, when a zero may tell.
    """

    looks_at_zeros = True
    always_zero: Callable[[Mapping[str, Tensor]], Mapping[ResultKey, NDArray[Any]]] | None = None

    def __init__(
        self, query: Query, prepared: Prepared, names: Sequence[str] | None, watch: Watch, *, pinned: bool = False
    ) -> None:
        function = prepared.function
        dtypes = {output.name: output.dtype for output in prepared.plan.outputs}
        buffers: list[tuple[str, Buffer | Bytes]] = [
            *buffers_of(query.inputs, prepared.dtypes, prepared.wrt, 0, pinned),
            *buffers_of(query.cotangent, dtypes, (), len(query.inputs), pinned),
            *buffers_of(query.tangent, prepared.dtypes, (), len(query.inputs) + len(query.cotangent), pinned),
        ] if names is None else [
            *bytes_of("inputs", query.inputs, prepared.dtypes, prepared.wrt, names, pinned),
            *bytes_of("cotangent", query.cotangent, dtypes, (), names, pinned),
            *bytes_of("tangent", query.tangent, prepared.dtypes, (), names, pinned),
        ]  # fmt: skip
        positions = {name: index for index, (name, _) in reversed(list(enumerate(buffers)))}
        self._call, self._witnesses = watch
        self._function, self._names = function.call, function.leaves
        self._buffers = [buffer for _, buffer in buffers]
        self._leaves = [positions[name] for name in function.leaves]
        self._wrt = [positions[name] for name in prepared.wrt]
        recurring = Recurring.of(query, prepared, len(buffers) - len(query.cotangent) - len(query.tangent))
        self._passes = [again(recurring) for again in map(_again, query.want) if again is not None]
        starts = [start for passes in self._passes if isinstance(passes, Rows | Second) for start in passes.starts]
        self._watched_zeros = partial(watched_zeros, query.want, prepared)
        self._zeros = self._watched_zeros()
        self._structure: list[bool] = []  # which outputs carry a derivative, and which gradients there are
        self._count = 0  # results, without what confirms them
        self._constants = [tensor for start in starts if start is not None for tensor in start.tensors]
        self.bytes = (
            sum(part.bytes for part in self._buffers)
            + sum(value.nbytes for value in self._constants)
            + function_bytes(function)
        )
        sent_bytes = sum(data.data.nbytes for _, data in leaves_of({**query.inputs, **query.cotangent}))
        self.is_brief = prepared.plan.flops < _BRIEF_FLOPS and sent_bytes <= _BRIEF_BYTES
        self.joint = Joint()
        self.stacks = Stacks(self._buffers, self.joint)
        # Forward mode is not recorded: `torch.func.jvp` wraps the tensors by which a recording knows them.
        is_recorded = not (pinned or any(isinstance(passes, Forward) for passes in self._passes))
        self.came = None if not is_recorded else Came.of(sent_bytes, self.bytes, is_brief=self.is_brief)

    def run(self, numbers: Sequence[Numbers]) -> list[NDArray[Any]] | None:
        """The results in the order of the answer; None where they came another way than in the first run, or hold zeros that may tell.

        Raises whatever PyTorch raises, and UncertifiedError.
        """
        if self.joint.single is not None:
            results: Sequence[Tensor] | None = self.joint.single([buffer.undifferentiated(numbers) for buffer in self._buffers])
        else:
            results = self._values([buffer.filled(numbers) for buffer in self._buffers])
        return None if results is None else self._without_telling_zeros([_array(v) for v in self._confirmed(results)], numbers)

    def run_together(self, queries: Sequence[Sequence[Numbers]]) -> Sequence[list[NDArray[Any]] | None]:
        """What `run` gives for each of several queries, as many as `stacks.best` has said; None also where it is not confirmed.

        Raises whatever PyTorch raises.
        """
        values = self.stacks.run(queries)
        arrays = [_array(value) for value in values[: self._count]]
        return [
            self._without_telling_zeros([array[row, ...] for array in arrays], numbers)
            if self._is_confirmed([value[row] for value in values])
            else None
            for row, numbers in enumerate(queries)
        ]

    def _without_telling_zeros(self, results: list[NDArray[Any]], numbers: Sequence[Numbers]) -> list[NDArray[Any]] | None:
        """Results, unless a zero among them may be none: then the whole road looks."""
        if self._zeros is None or not self.looks_at_zeros:
            return results
        leaves = lambda: [_array(self._buffers[leaf].undifferentiated(numbers)) for leaf in self._leaves]  # noqa: E731
        if not self._zeros.tell(results, leaves):
            return results
        if self.always_zero is not None:
            named = {name: torch.from_numpy(leaf) for name, leaf in zip(self._names, leaves(), strict=True)}  # type: ignore[no-untyped-call]
            always_zero, self.always_zero = self.always_zero, None
            self._zeros = self._watched_zeros(always_zero(named))
            return None if self._zeros is not None and self._zeros.tell(results, leaves) else results
        return None

    def proving(self, queries: Sequence[Sequence[Numbers]], batching: Batching) -> Iterator[None]:
        """Prove a joint graph on queries that came, in steps of about a millisecond."""
        came = [[buffer.undifferentiated(numbers).clone() for buffer in self._buffers] for numbers in queries]
        del queries  # they are as large
        yield from prove(self._by_autograd, came, batching, self.joint, self._constants)

    def _by_autograd(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        """Of tensors that no gradient is asked of: the results, and behind them what confirms them.

        Raises ValueError where the results come another way than in the first run.
        """
        leaves = [t.detach().requires_grad_(b.derived) for t, b in zip(tensors, self._buffers, strict=True)]
        values = self._values(leaves)
        if values is None:
            raise ValueError
        return values

    def _confirmed(self, values: Sequence[Tensor]) -> Sequence[Tensor]:
        """The results. Raises UncertifiedError where what stands behind them does not confirm them."""
        if not self._is_confirmed(values):
            raise UncertifiedError
        return values[: self._count]

    def _is_confirmed(self, values: Sequence[Tensor]) -> bool:
        pairs = values[self._count : len(values) - self._witnesses]
        witnesses = values[len(values) - self._witnesses :] if self._witnesses else ()
        return (not pairs or are_close(pairs)) and all(cmath.isfinite(witness.item()) for witness in witnesses)

    def _values(self, tensors: Sequence[Tensor]) -> Sequence[Tensor] | None:
        """The results, behind them pairs that have to be close, and witnesses that have to be finite; no number is read. None as of `run`."""
        leaves = [tensors[position] for position in self._leaves]
        if not self._wrt:
            with torch.no_grad():
                results: Sequence[Tensor] = self._call(*leaves)
            self._count = len(results)
            return results
        outputs = self._call(*leaves)
        witnesses = outputs[len(outputs) - self._witnesses :] if self._witnesses else ()
        outputs = outputs[: len(outputs) - self._witnesses]
        values: list[Tensor] = []
        confirming: list[Tensor] = []
        structure = [value.requires_grad for value in outputs]
        wrt = tuple([tensors[position] for position in self._wrt])
        for product in self._passes:
            if product is None:
                values += outputs
                continue
            if isinstance(product, Rows):
                values += jacobian(outputs, wrt, product.starts, structure, confirming)
                continue
            if isinstance(product, Second):
                values += second_values(product, outputs[product.output], tensors, wrt, structure, confirming)
                continue
            if isinstance(product, Forward):
                values += forward_values(product, self._function, leaves, tensors, wrt, structure[: len(outputs)])
                continue
            of = tuple([outputs[index] for index in product.outputs]) or tuple([o for o in outputs if o.requires_grad])
            cotangents = tuple([tensors[position] for position in product.cotangents]) or tuple([ones(o) for o in of])
            gradients = backward(of, cotangents, True, False, wrt, True, accumulate_grad=False)
            for variable, gradient in zip(wrt, gradients, strict=True):
                structure.append(gradient is None)
                values.append(torch.zeros_like(variable) if gradient is None else gradient)
        self._structure = self._structure or structure
        self._count = len(values)
        return [*values, *confirming, *witnesses] if structure == self._structure else None


def _array(tensor: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = (tensor if tensor.is_contiguous() else tensor.contiguous()).detach().numpy()
    return array


Making: TypeAlias = Callable[[Query, Prepared, Sequence[str] | None, Watch], Recipe]


def recipe(query: Query, prepared: Prepared, names: Sequence[str] | None, make: Making = Recipe) -> Recipe | None:
    """The recipe of a query that was answered, by `make`; None where numbers may decide more of an answer than its numbers.

    Arguments:
        names: of tensors that are sent as bytes, their places in the query (`inputs.x`); None where they are sent as numbers.
    """
    function, plan = prepared.function, prepared.plan
    is_fixed = function.static and not (function.random or function.branches or function.initial or function.printed)
    is_plain = prepared.samples is None and query.seed is None and query.timeout_s is None and query.encoding == "list"
    if not (is_fixed and is_plain and all(map(_again, query.want))) or plan.flops > _FLOPS_LIMIT:
        return None
    shapes = {output.name: output.shape for output in plan.outputs}
    sent = {f"inputs.{name}": data for name, data in leaves_of({**query.inputs})}
    sent |= {f"cotangent.{name}": data for name, data in query.cotangent.items()}
    sent |= {f"tangent.{name}": data for name, data in query.tangent.items()}
    are_fit = (
        _are_tangents_plain(query, plan)
        and _is_forward_plain(query, prepared)
        and all(output.dtype in _RESULTS and output.elements for output in plan.outputs)
        and all(prepared.dtypes[name] in _RESULTS for name in function.leaves)
        and all(data.data.nbytes and (names is not None or data.dtype in FORMATS) for data in sent.values())
        and all(data.shape == shapes[name] for name, data in query.cotangent.items())
        and (names is None or sorted(names) == sorted(sent))
        and ("jacobian" not in query.want or _is_by_rows(query, plan))
    )
    watching = watch(query, prepared, is_binary=names is not None) if are_fit else None
    return None if watching is None else make(query, prepared, names, watching)


def _again(kind: str) -> Callable[[Recurring], Passes | None] | None:
    return KINDS[kind].again


def _is_forward_plain(query: Query, prepared: Prepared) -> bool:
    """Whether a `jvp`, where wanted, is one pass of forward mode, of which nothing is said beside another kind that it may contradict."""
    if "jvp" not in query.want:
        return True
    return has_forward_mode(prepared.function.operations()) and contradictory(query.want) is None


def _are_tangents_plain(query: Query, plan: Plan) -> bool:
    """Whether second derivatives, where wanted, are of an output itself, a Hessian whole and dense, and each tangent one alone."""
    demands = [KINDS[kind].demand for kind in query.want]
    second = [demand for demand in demands if demand.order > 1]
    along = any(demand.vectors == "tangent" for demand in demands)
    shapes = {leaf.name: leaf.shape for leaf in plan.wrt}
    is_whole = query.format == "dense" and all(0 < leaf.elements <= plan.rows for leaf in plan.wrt)
    are_alone = all(data.shape == shapes.get(name) for name, data in query.tangent.items())
    return (
        not (second and query.cotangent)
        and (is_whole or not any(demand.by_rows for demand in second))
        and bool(along or not query.tangent)
        and are_alone
    )


def _is_by_rows(query: Query, plan: Plan) -> bool:
    """Whether a Jacobian is computed whole, by reverse mode, all rows of an output at once."""
    together = all(output.elements <= plan.rows for output in plan.outputs)
    return query.format == "dense" and plan.method == "reverse" and together


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class PreparedReply:
    """A recipe with what is said around its numbers.

    Attributes:
        joined: (results of the recipe) → the reply's body; None where the whole road has to speak.
        media_type, headers: of the reply.
        labels: what it counts as.
    """

    recipe: Recipe
    joined: Callable[[Sequence[NDArray[Any]]], Sequence[bytes | bytearray | memoryview] | None]
    media_type: str
    headers: Mapping[str, str]
    labels: Mapping[str, str]


class Recipes:
    """The recipes of one worker by signature; where there are too many, the least recently used go.

    Attributes:
        by_signature: recipe, or none, with its bytes.
        proofs: of joint graphs of those that come often.
    """

    def __init__(self, batching: Batching = "exact") -> None:
        self._batching: Batching = batching
        self.proofs = Proofs()
        self.by_signature: BoundedCache[Hashable, tuple[PreparedReply | None, int]]
        self.by_signature = BoundedCache(_BYTES_LIMIT, itemgetter(1), _COUNT_LIMIT)
        self._signatures = SeenSignatures()

    def __len__(self) -> int:
        """Recipes, without the signatures that have none."""
        return sum(prepared_reply is not None for prepared_reply, _ in self.by_signature.values())

    def get(self, signature: Hashable) -> PreparedReply | None:
        """The recipe of this signature, if it has one."""
        try:
            return self.by_signature[signature][0]
        except KeyError:
            return None

    def is_due(self, signature: Hashable) -> bool:
        """Whether this signature comes for the second time: then it is worth a recipe. Where it turned out to have none, it is not."""
        return signature not in self.by_signature and self._signatures.is_second(signature)

    def add(self, signature: Hashable, prepared_reply: PreparedReply | None, size: int = 0) -> None:
        """Keep a recipe, or that there is none; `size`: bytes of what is said around its numbers."""
        size += held_bytes(signature)
        if prepared_reply is not None:
            size += _GRAPH_BYTES + prepared_reply.recipe.bytes
        self.by_signature.keep(signature, (prepared_reply, size))

    def failed(self, signature: Hashable) -> None:
        """A recipe did not answer the query that it was made of: it is tried again when the signature has come twice more, some times."""
        if not self._signatures.failed(signature):
            self.add(signature, None)

    def note(self, signature: Hashable, prepared_reply: PreparedReply, numbers: Sequence[Numbers], seconds: float) -> None:
        """A query of this signature was answered by its recipe, computed in so many seconds."""
        came = prepared_reply.recipe.came
        if came is None:
            return
        is_due = self.proofs.note(came, numbers, seconds)
        if came.is_too_long:
            prepared_reply.recipe.came = None
            self.proofs.release(came)
        elif is_due:
            prepared_reply.recipe.came = None
            steps = prepared_reply.recipe.proving(self.proofs.release(came), self._batching)
            self.proofs.add(steps, partial(self._proved, signature, prepared_reply), came.due_bytes)

    def _proved(self, signature: Hashable, prepared_reply: PreparedReply, is_done: bool) -> None:
        recipe = prepared_reply.recipe
        if not is_done:
            recipe.joint.forget()
        entry = self.by_signature.get(signature)
        if entry is not None and entry[0] is prepared_reply:
            self.by_signature.keep(signature, (prepared_reply, entry[1] + recipe.joint.bytes + recipe.stacks.bytes))
