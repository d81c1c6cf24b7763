"""Runs a function and follows which elements of its inputs each element of its results can depend on.

The operators are seen as PyTorch calls them (torch.utils._python_dispatch), after it has taken its own composites apart, with real
tensors. Each call has a rule (rules); what has none depends on everything that it was given, which is sound.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._decomp import decomposition_table

from app.catalogue.operator_mode import OperatorMode
from app.engine.sparsity.operator_call import Call, UnfitRuleError, carries
from app.engine.sparsity.pattern import Pattern, PatternSpace
from app.engine.sparsity.rules import table
from app.engine.sparsity.storage import Memories, Values
from app.program.errors import tensors_in

_LOG = logging.getLogger("pullback.sparsity")


@dataclass(frozen=True, slots=True)
class Trace:
    """Of one result: its pattern, and what of it hangs on values."""

    pattern: Pattern
    values: Values


def trace(
    run: Callable[[], Sequence[Tensor | None]],
    inputs: Sequence[Tensor],
    leaves: Sequence[Tensor],
    entries_at_most: int,
    cut: bool,
) -> list[Trace]:
    """Of each tensor that `run()` returns: its pattern has one column for each element of `inputs`, in order.

    Arguments:
        inputs: the tensors to depend on; `run` reads these objects or views of them.
        leaves: all tensors whose values the client chose, `inputs` among them.
        cut: `detach` ends a dependence. Only where nothing but the client's own program calls it (autograd does too).
    """
    space = PatternSpace(sum(tensor.numel() for tensor in inputs), entries_at_most)
    tracer = _Tracer(space, cut)
    start = 0
    for tensor in inputs:
        tracer.memories.write(tensor, space.identity(start, tensor.numel()), Values(vary=True))
        start += tensor.numel()
    for tensor in leaves:
        if not tracer.memories.knows(tensor):
            tracer.memories.write(tensor, None, Values(vary=True))
    with tracer:
        results = run()
    return [tracer.traced(result) for result in results]


class _Tracer(OperatorMode):
    """`branches`: what hangs on values because the program itself looked at one."""

    def __init__(self, space: PatternSpace, cut: bool) -> None:
        super().__init__()
        self.space = space
        self.memories = Memories(space)
        self.branches = Values()
        self._cut = cut

    def traced(self, result: Tensor | None) -> Trace:
        pattern = None if result is None else self.memories.pattern(result)
        values = Values()
        values.add(self.branches)
        if result is not None:
            values.add(self.memories.values(result))
        return Trace(self.space.none(0 if result is None else result.numel()) if pattern is None else pattern, values)

    def dispatch(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        facts, memories = _facts(func), self.memories
        result: Any = func(*args, **kwargs) if facts.is_view else None
        if facts.is_view and not (self._cut and facts.name == "detach") and _all(memories.knows, result):
            return result  # it has the patterns of what it is a view of
        tensors = _tensors(args, kwargs)
        known = [memories.find(tensor) for tensor in tensors]
        patterns = [memories.read(memory, tensor) for memory, tensor in zip(known, tensors, strict=True)]
        values = Values(vary=facts.draws)
        for memory in known:
            if memory is not None:
                values.add(memory.values)
        if not facts.is_view:
            result = func(*args, **kwargs)
        if facts.name == "detach" and self._cut:
            result = result.clone()
            memories.write(result, None, values)
            return result
        outputs = [result] if isinstance(result, Tensor) else list(tensors_in(result))
        if not outputs:
            self.branches.chosen |= values.vary and facts.name in table.READS_VALUES
            return result
        changed = _changed(facts.writes, args, kwargs) if facts.writes else []
        new = [not memories.knows(output) for output in outputs]
        if changed or any(new):
            if facts.name in table.SHAPE_ALONE:
                values = Values()
            call = Call(func, facts.name, args, kwargs, tensors, patterns, outputs, self.space, memories, values)
            self._record(call, changed, new)
        return result

    def _record(self, call: Call, changed: list[Tensor], new: list[bool]) -> None:
        """Writes the patterns of the results, and of arguments that were changed in place.

        `new`: of each result, whether its memory is.
        """
        tracked = any(pattern is not None for pattern in call.patterns)
        patterns = self._patterns(call) if tracked else [None] * len(call.outputs)
        for output, pattern, is_new in zip(call.outputs, patterns, new, strict=True):
            if is_new or any(output is c for c in changed):
                self.memories.write(output, pattern, call.values)
        for tensor in changed:
            if not any(tensor is output for output in call.outputs):
                pattern = table.dense(call, tensor.numel()) if tracked and carries(tensor) else None
                self.memories.write(tensor, pattern, call.values)

    def _patterns(self, call: Call) -> list[Pattern | None]:
        rule = table.rule_of(call)
        if not any(carries(o) for o in call.outputs):
            return [None] * len(call.outputs)
        if rule is not table.zero and any(pattern.is_full for _, pattern in call.tracked()):
            return [self.space.full(o.numel()) if carries(o) else None for o in call.outputs]
        try:
            patterns = self._decomposed(call) if rule is None else rule(call)
            if len(patterns) != len(call.outputs):
                raise UnfitRuleError(call.name)
            for output, pattern in zip(call.outputs, patterns, strict=True):
                if pattern is not None and pattern.rows != output.numel():
                    raise UnfitRuleError(call.name)
            return [pattern if carries(o) else None for o, pattern in zip(call.outputs, patterns, strict=True)]
        except (UnfitRuleError, RuntimeError, TypeError, ValueError, IndexError) as error:
            # Whatever a rule stumbles over, everything depends on everything: that is never wrong.
            _LOG.debug("%s is taken as dense: %s", call.func, error)
            return [table.dense(call, o.numel()) if carries(o) else None for o in call.outputs]

    def _decomposed(self, call: Call) -> list[Pattern | None]:
        """By the smaller operators that PyTorch itself would take it apart into."""
        decomposition = decomposition_table.get(call.func)
        if decomposition is None or call.func._schema.is_mutable:
            raise UnfitRuleError(call.name)
        state = torch.get_rng_state()
        try:
            with self:
                outputs = list(tensors_in(decomposition(*call.args, **call.kwargs)))
        finally:
            torch.set_rng_state(state)
        for output in outputs:
            call.values.add(self.memories.values(output))
        return [self.memories.pattern(o) for o in outputs]


class _Facts(NamedTuple):
    """What is the same in every call of an operator.

    Attributes:
        draws: random numbers.
        writes: place and name of each argument that is written to.
    """

    name: str
    is_view: bool
    draws: bool
    writes: tuple[tuple[int, str], ...]


@cache
def _facts(func: Any) -> _Facts:
    schema = func._schema
    writes: tuple[tuple[int, str], ...] = ()
    if schema.is_mutable and torch.Tag.inplace_view not in func.tags:  # `t_`, `squeeze_`: another view of the same memory
        writes = tuple(
            (position, argument.name)
            for position, argument in enumerate(schema.arguments)
            if argument.alias_info is not None and argument.alias_info.is_write
        )
    return _Facts(table.base_name(func), func.is_view, torch.Tag.nondeterministic_seeded in func.tags, writes)


def _changed(writes: tuple[tuple[int, str], ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """The tensors that the call writes to."""
    passed = [args[position] if position < len(args) else kwargs.get(name) for position, name in writes]
    return [tensor for argument in passed for tensor in tensors_in(argument)]


def _tensors(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """All tensor arguments, in order, with the tensors of lists one by one."""
    tensors: list[Tensor] = []
    for value in (*args, *kwargs.values()) if kwargs else args:
        if isinstance(value, Tensor):
            tensors.append(value)
        elif isinstance(value, list | tuple):
            tensors += tensors_in(value)
    return tensors


def _all(holds: Callable[[Tensor], bool], result: Any) -> bool:
    """Whether it holds of all tensors of a result."""
    return holds(result) if isinstance(result, Tensor) else all(map(holds, tensors_in(result)))
