"""The patterns of a function's outputs, followed while its steps run for another reason: no second run of them is needed then."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, cast

from torch import Tensor, fx

from app.engine.sparsity.dependence import Dependence, differentiates_itself, has_own_backward
from app.engine.sparsity.tracer import Trace, Tracer
from app.program.function import Function

# Of a pattern that is followed beside what was planned, 7 MB: a tridiagonal Jacobian of 21,000 inputs.
_ENTRIES_AT_MOST: Final = 1 << 16


class Follower:
    """Follows what is computed of `leaves`, from those called `names` on, by running the operators of it one by one (`run`)."""

    def __init__(self, leaves: Mapping[str, Tensor], names: Sequence[str]) -> None:
        self._tracer = Tracer([leaves[name] for name in names], list(leaves.values()), _ENTRIES_AT_MOST, cut=False)
        self.run = self._tracer.follow
        self._columns: dict[str, range] = {}
        start = 0
        for name in names:
            self._columns[name] = range(start, start + leaves[name].numel())
            start += leaves[name].numel()

    def patterns(self, function: Function) -> OutputPatterns | None:
        """Of the outputs of a Function whose nodes hold what was computed.

        None where other steps than those that ran give its derivatives: what is drawn is drawn again, a derivative ends at `detach`, and is
        that of a `backward` of the program's own.
        """
        operations = function.operations()
        if function.random or self._tracer.has_detached or has_own_backward(operations) or differentiates_itself(operations):
            return None
        (nodes,) = function.graph.output_node().args
        values: list[Any] = [node.meta["val"] for node in cast(Iterable[fx.Node], nodes)]
        traces = {name: self._tracer.traced(value) for name, value in zip(function.outputs, values, strict=True)}
        return OutputPatterns(traces, self._columns)


class OutputPatterns:
    """Proved at one point.

    Arguments:
        traces: of each output.
        columns: input → which of them are its elements.
    """

    def __init__(self, traces: Mapping[str, Trace], columns: Mapping[str, range]) -> None:
        self._traces = traces
        self._columns = columns

    def dependences(self, outputs: Sequence[str], wrt: Sequence[str], limit: int) -> list[dict[str, Dependence]] | None:
        """For each of `outputs`: input → its dependence on it.

        None where one is not known, or is full or may have more than `limit` entries, which it need not be when it is followed for itself.
        """
        if not all(name in self._columns for name in wrt):
            return None
        result = []
        for name in outputs:
            one = self._traces.get(name)
            if one is None or one.pattern.is_full or one.pattern.entries_at_most > limit:
                return None
            result.append({leaf: self._part(one, self._columns[leaf]) for leaf in wrt})
        return result

    def _part(self, trace: Trace, columns: range) -> Dependence:
        is_whole = len(self._columns) == 1
        return Dependence(trace.pattern if is_whole else trace.pattern.between(columns.start, columns.stop), trace.values)
