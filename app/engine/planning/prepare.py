"""A query made ready to run: its Function, the names to differentiate by, and its Plan; kept by signature.

Knows the query's fields and the cache. Refuses to know how anything is computed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from app.engine.autodiff.evaluation import no_derivative
from app.engine.planning import plan as planning
from app.engine.planning.build import Built, build, leaves_of
from app.engine.planning.plan import Plan, Result
from app.engine.tensors import is_differentiable, to_torch
from app.errors import PullbackError
from app.limits import Limits
from app.program.function import Function
from app.program.functions import Functions
from app.query import Query, TensorData

SCALAR_KINDS: Final = frozenset({"gradient", "hessian", "hvp"})
LIKELIHOOD_KINDS: Final = frozenset({"fisher", "fisher_diagonal"})
_CACHE_LENGTH: Final = 1024


@dataclass(frozen=True, slots=True)
class Prepared:
    """`of`: the output that `gradient`, `hessian`, `hvp`, `fisher` are of, where one of them is wanted. `samples`: of a batched query."""

    function: Function
    dtypes: Mapping[str, torch.dtype]
    wrt: tuple[str, ...]
    of: str | None
    plan: Plan
    samples: int | None


class Preparer:
    """Prepares queries and remembers what can be used again, by signature."""

    def __init__(self, limits: Limits, device: str, functions: Functions) -> None:
        self._limits = limits
        self._functions = functions
        self._device = device
        self._known: OrderedDict[Any, Prepared] = OrderedDict()

    def prepared(self, query: Query) -> Prepared:
        """Raises PullbackError: all that is wrong with a query's names, shapes, wants and size."""
        key = _signature(query)
        found = self._known.get(key)
        if found is not None:
            self._known.move_to_end(key)
            return found
        made = self._make(query)
        if made.function.static:
            self._known[key] = made
            if len(self._known) > _CACHE_LENGTH:
                self._known.popitem(last=False)
        return made

    def leaves(self, query: Query, dtypes: Mapping[str, torch.dtype]) -> dict[str, Tensor]:
        """The query's tensors on the device, in the dtypes that they are computed in."""
        return {name: to_torch(data, self._device).to(dtypes[name]) for name, data in leaves_of(query.inputs)}

    def _make(self, query: Query) -> Prepared:
        sent = dict(leaves_of(query.inputs))
        samples = _samples(query)
        shapes = {name: data.shape[1:] if _is_batched(query, name) else data.shape for name, data in sent.items()}

        def real(dtypes: Mapping[str, torch.dtype]) -> dict[str, Tensor]:
            leaves = self.leaves(query, dtypes)
            return {name: leaf[0] if _is_batched(query, name) else leaf for name, leaf in leaves.items()}

        built = build(query, self._functions, shapes, real, self._device)
        dtypes = {leaf.name: leaf.dtype for leaf in built.leaves}
        outputs = results(built.function)
        derive = any(kind != "outputs" for kind in query.want)
        wrt = _wrt(query, built, sent) if derive else ()
        of = _of(query, built.function, wrt, outputs)
        made = planning.make(
            want=query.want,
            wrt=[Result(leaf.name, leaf.shape, leaf.dtype) for leaf in built.leaves if leaf.name in wrt],
            outputs=outputs,
            of=of,
            operations=built.function.operations(),
            cost=built.cost,
            several=_several(query, outputs, shapes),
            samples=samples or 1,
            diagonal=query.format != "dense",
            limits=self._limits,
        )
        return Prepared(built.function, dtypes, wrt, None if of is None else of.name, made, samples)


def _signature(query: Query) -> Any:
    return (
        query.operation,
        query.program,
        query.function,
        tuple((name, data.shape, data.dtype, data.bare) for name, data in leaves_of(query.inputs)),
        repr(query.parameters) if query.parameters else "",
        query.want,
        query.wrt,
        query.of,
        query.batched,
        query.format,
        query.dtype,
        query.seed is None,
        tuple((name, data.shape) for name, data in query.cotangent.items()),
        tuple((name, data.shape) for name, data in query.tangent.items()),
    )


def results(function: Function) -> tuple[Result, ...]:
    """The Function's outputs, as they came out while it was built."""
    (nodes,) = next(node for node in reversed(function.graph.nodes) if node.op == "output").args
    values = [node.meta["val"] for node in nodes]
    return tuple(Result(name, tuple(v.shape), v.dtype) for name, v in zip(function.outputs, values, strict=True))


def _is_batched(query: Query, leaf: str) -> bool:
    return leaf in query.batched or leaf.rpartition(".")[0] in query.batched


def _samples(query: Query) -> int | None:
    """The length of the batch axis; None where the query is not batched."""
    if not query.batched:
        return None
    found: dict[str, int] = {}
    for name in query.batched:
        if name not in query.inputs:
            raise _unknown_input("batched", name, query)
    for name, data in leaves_of(query.inputs):
        if _is_batched(query, name):
            if not data.shape:
                raise PullbackError(
                    "shape_mismatch",
                    f"`{name}` is batched, so it needs a leading batch axis; it is a single number.",
                    at=f"inputs.{name}",
                    expected="shape [batch, …]",
                    given="shape []",
                    fix=f'Leave `{name}` out of "batched" if every sample shares it.',
                )
            found[name] = data.shape[0]
    if len(set(found.values())) != 1:
        raise PullbackError(
            "shape_mismatch",
            "Every batched input has the same leading axis.",
            at="batched",
            given=", ".join(f"{name}: {count}" for name, count in found.items()),
            fix='Name in "batched" only inputs with one entry for each sample.',
        )
    count = next(iter(found.values()))
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
        fix=f'Name in "{at}" only what stands in "inputs".',
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


def _of(query: Query, function: Function, wrt: tuple[str, ...], outputs: tuple[Result, ...]) -> Result | None:
    """The output that scalar kinds are of. Raises `not_differentiable`, `not_scalar`, `bad_parameter`."""
    kinds = [kind for kind in query.want if kind in SCALAR_KINDS or kind in LIKELIHOOD_KINDS]
    if query.of is not None and query.of not in function.outputs:
        raise PullbackError(
            "bad_parameter",
            f"There is no output named `{query.of}`.",
            at="of",
            expected="one of " + ", ".join(function.outputs),
            given=query.of,
        )
    if not kinds:
        return None
    smooth = [o for o in outputs if is_differentiable(o.dtype) and query.of in (None, o.name)]
    if not smooth or not wrt:
        raise no_derivative(function.title, wrt, {o.name: o.dtype for o in outputs if query.of in (None, o.name)})
    if len(smooth) > 1:
        raise PullbackError(
            "bad_parameter",
            f"There are several outputs, so `{kinds[0]}` needs to know of which.",
            at="of",
            expected="one of " + ", ".join(o.name for o in smooth),
            fix=f'Add "of": "{smooth[0].name}" to the query.',
        )
    chosen = smooth[0]
    for kind in kinds:
        _check_scalar(kind, chosen) if kind in SCALAR_KINDS else _check_likelihoods(kind, chosen)
    return chosen


def _check_scalar(kind: str, output: Result) -> None:
    if output.elements != 1:
        raise PullbackError(
            "not_scalar",
            f"`{kind}` is of one real scalar, and `{output.name}` has shape {list(output.shape)}. Take its sum() or mean() in a "
            "program, or want `vjp` with a cotangent, or `jacobian`.",
            at=f"outputs.{output.name}",
            expected="a single real number",
            given=f"shape {list(output.shape)}",
            fix="Reduce it with sum() or mean(), or want `vjp` with a cotangent, or `jacobian`.",
        )
    if output.dtype.is_complex:
        raise PullbackError(
            "not_scalar",
            f"`{kind}` is of one real scalar, and `{output.name}` is complex.",
            at=f"outputs.{output.name}",
            expected="a real number",
            given=str(output.dtype).removeprefix("torch."),
            fix="Take abs(), real or imag of it in a program, or want `vjp` with a complex cotangent, or `jacobian`.",
        )


def _check_likelihoods(kind: str, output: Result) -> None:
    if len(output.shape) != 1 or output.dtype.is_complex or output.elements == 0:
        raise PullbackError(
            "not_scalar",
            f"`{kind}` is of one real log-likelihood for each sample, shape [n]; `{output.name}` has shape {list(output.shape)}.",
            at=f"outputs.{output.name}",
            expected="shape [n], real, n ≥ 1",
            given=f"shape {list(output.shape)}, {str(output.dtype).removeprefix('torch.')}",
            fix="Return the log-likelihood of each sample, not their sum.",
        )


def _several(query: Query, outputs: tuple[Result, ...], shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Cotangents or tangents sent at once, for sizing; their shapes are judged when they are read."""
    ranks = {**{o.name: len(o.shape) for o in outputs}, **{name: len(shape) for name, shape in shapes.items()}}
    extra = 1 if query.batched else 0
    counts = [
        data.shape[extra] if len(data.shape) > ranks.get(name, len(data.shape)) + extra else 1
        for vectors in (query.cotangent, query.tangent)
        for name, data in vectors.items()
    ]
    return max(counts, default=1)
