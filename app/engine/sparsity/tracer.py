"""Runs a function and follows which elements of its inputs each element of its results can depend on.

The operators are seen as PyTorch calls them (torch.utils._python_dispatch), after it has taken its own composites apart, with real
tensors. Each call has a rule (rules); what has none depends on everything that it was given, which is sound.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch._decomp import decomposition_table

from app.catalogue.operator_mode import OperatorMode
from app.engine.sparsity.operator_call import Call, UnfitRuleError, carries
from app.engine.sparsity.pattern import Pattern, PatternSpace
from app.engine.sparsity.rules import table
from app.engine.sparsity.storage import Memories, Values
from app.program.errors import argument_tensors, tensors_in

_LOG = logging.getLogger("pullback.sparsity")
# What is raised of tensors without memory, and of modes that do not go together.
_UNFOLLOWED: Final = (RuntimeError, TypeError)


@dataclass(frozen=True, slots=True)
class Trace:
    """Of one result: its pattern, what of it hangs on values, and entries of all patterns that were held at once."""

    pattern: Pattern
    values: Values
    held: int = 0


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
    tracer = Tracer(inputs, leaves, entries_at_most, cut=cut)
    with _Following(tracer):
        results = run()
    return [tracer.traced(result) for result in results]


class _Following(OperatorMode):
    """Each operator is run by the tracer."""

    def __init__(self, tracer: Tracer) -> None:
        super().__init__()
        self._tracer = tracer

    def dispatch(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self._tracer.follow(func, args, kwargs)


class Tracer:
    """Patterns of all that is computed of some inputs, operator by operator as they are run by `follow`.

    Attributes:
        branches: what hangs on values because the program itself looked at one.
        is_lost: what was run has tensors that cannot be followed, so that nothing is proved of any result.
        has_detached: what depends on an input was detached, which did not cut it.
    """

    def __init__(self, inputs: Sequence[Tensor], leaves: Sequence[Tensor], entries_at_most: int, *, cut: bool) -> None:
        self.space = PatternSpace(sum([tensor.numel() for tensor in inputs]), entries_at_most)
        self.memories = Memories(self.space)
        self.branches = Values()
        self.is_lost = False
        self.has_detached = False
        self._cut = cut
        start = 0
        for tensor in inputs:
            self.memories.write(tensor, self.space.identity(start, tensor.numel()), Values(vary=True))
            start += tensor.numel()
        for tensor in leaves:
            if not self.memories.knows(tensor):
                self.memories.write(tensor, None, Values(vary=True))

    def traced(self, result: Tensor | None) -> Trace:
        values = Values()
        values.add(self.branches)
        if self.is_lost:
            return Trace(self.space.full(0 if result is None else result.numel()), values, self.space.held)
        pattern = None if result is None else self.memories.pattern(result)
        if result is not None:
            values.add(self.memories.values(result))
        pattern = self.space.none(0 if result is None else result.numel()) if pattern is None else pattern
        return Trace(pattern, values, self.space.held)

    def follow(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of `func(*args, **kwargs)`, an operator, whose patterns are known from now on."""
        if self.is_lost:
            return func(*args, **kwargs)
        facts = _facts(func)
        if facts.is_view:
            result = func(*args, **kwargs)
            if not self._is_seen_through(facts, args, result):
                call = self._begun(func, facts, args, kwargs)
                result = result.clone() if call is not None and self._cut and facts.name == "detach" else result
                self._ended(call, facts, result)
            return result
        call = self._begun(func, facts, args, kwargs)
        result = func(*args, **kwargs)
        self._ended(call, facts, result)
        return result

    def _lose(self, error: BaseException) -> None:
        _LOG.info("no pattern: %s", error)
        self.is_lost = True

    def _is_seen_through(self, facts: _Facts, args: tuple[Any, ...], result: Any) -> bool:
        """Whether a view has the patterns of what it is a view of."""
        is_detached = facts.name == "detach"
        if is_detached and self._cut:
            return False
        try:
            is_known = _all(self.memories.knows, result)
            self.has_detached |= is_known and is_detached and self.memories.pattern(args[0]) is not None
            return is_known
        except _UNFOLLOWED as error:
            self._lose(error)
            return True

    def _begun(self, func: Any, facts: _Facts, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
        """What is known of the arguments before they are changed; None where they are constants, as whatever comes of them is."""
        tensors, values = argument_tensors(args, kwargs), Values(vary=facts.draws)
        try:
            patterns = self.memories.gathered(tensors, values)
        except _UNFOLLOWED as error:
            self._lose(error)
            return None
        if patterns is None:
            if not facts.draws:
                return None
            patterns = [None] * len(tensors)
        return Call(func, facts.name, args, kwargs, tensors, patterns, [], self.space, self.memories, values)

    def _ended(self, call: Call | None, facts: _Facts, result: Any) -> None:
        """Writes the patterns of the results, and of arguments that were changed in place."""
        if call is None:
            return
        call.outputs = [result] if isinstance(result, Tensor) else list(tensors_in(result))
        if not call.outputs:
            self.branches.chosen |= call.values.vary and facts.name in table.READS_VALUES
            return
        try:
            self._record(call, facts)
        except _UNFOLLOWED as error:
            self._lose(error)

    def _record(self, call: Call, facts: _Facts) -> None:
        outputs, memories = call.outputs, self.memories
        changed = _changed(facts.writes, call.args, call.kwargs) if facts.writes else []
        is_new = [not memories.knows(output) for output in outputs]
        if not changed and True not in is_new:
            return
        if facts.name in table.SHAPE_ALONE:
            call.values = Values()
        is_cut = self._cut and facts.name == "detach"
        is_tracked = not is_cut and len(call.patterns) > call.patterns.count(None)
        patterns = self._patterns(call, facts.rule) if is_tracked else [None] * len(outputs)
        if len(outputs) == 1 and not changed:
            memories.add(outputs[0], patterns[0], call.values)
            return
        for output, pattern, new in zip(outputs, patterns, is_new, strict=True):
            if new or any(output is tensor for tensor in changed):
                memories.write(output, pattern, call.values)
        for tensor in changed:
            if not any(tensor is output for output in outputs):
                rest = table.dense(call, tensor.numel()) if is_tracked and carries(tensor) else None
                memories.write(tensor, rest, call.values)

    def _patterns(self, call: Call, rule: table.Rule | None) -> list[Pattern | None]:
        outputs = call.outputs
        carrying = [carries(output) for output in outputs]
        if True not in carrying:
            return [None] * len(outputs)
        if rule is not table.zero and True in [pattern is not None and pattern.is_full for pattern in call.patterns]:
            return [self.space.full(o.numel()) if does else None for o, does in zip(outputs, carrying, strict=True)]
        try:
            patterns = self._decomposed(call) if rule is None else rule(call)
            if len(patterns) != len(outputs):
                raise UnfitRuleError(call.name)
            for number, (output, pattern) in enumerate(zip(outputs, patterns, strict=True)):
                if pattern is not None and pattern.rows != output.numel():
                    raise UnfitRuleError(call.name)
                if not carrying[number]:
                    patterns[number] = None
            return patterns
        except (UnfitRuleError, RuntimeError, TypeError, ValueError, IndexError) as error:
            # Whatever a rule stumbles over, everything depends on everything: that is never wrong.
            _LOG.debug("%s is taken as dense: %s", call.func, error)
            return [table.dense(call, o.numel()) if does else None for o, does in zip(outputs, carrying, strict=True)]

    def _decomposed(self, call: Call) -> list[Pattern | None]:
        """By the smaller operators that PyTorch itself would take it apart into."""
        decomposition = decomposition_table.get(call.func)
        if decomposition is None or call.func._schema.is_mutable:
            raise UnfitRuleError(call.name)
        state = torch.get_rng_state()
        try:
            with _Following(self):
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
        rule: of its patterns; None where it is to be decomposed, or else is dense.
        writes: place and name of each argument that is written to.
    """

    name: str
    is_view: bool
    draws: bool
    rule: table.Rule | None
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
    return _Facts(
        table.base_name(func), func.is_view, torch.Tag.nondeterministic_seeded in func.tags, table.rule_of(func), writes
    )


def _changed(writes: tuple[tuple[int, str], ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """The tensors that the call writes to."""
    passed = [args[position] if position < len(args) else kwargs.get(name) for position, name in writes]
    return [tensor for argument in passed for tensor in tensors_in(argument)]


def _all(holds: Callable[[Tensor], bool], result: Any) -> bool:
    """Whether it holds of all tensors of a result."""
    return holds(result) if isinstance(result, Tensor) else all(map(holds, tensors_in(result)))
