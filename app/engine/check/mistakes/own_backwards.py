"""What is wrong with the `backward` of a `torch.autograd.Function` in the program, beside PyTorch's rules for the steps of its `forward`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor, fx

from app.engine.check.mistakes.case import Case, Claim, place_of
from app.engine.check.mistakes.hypotheses import explanations
from app.engine.check.objective import Objective
from app.engine.explain.differences.hook_effects import effect_of, is_hook
from app.engine.stepwise.one_sided import random_like
from app.engine.stepwise.point import REFUSALS, Hole, Point, step_of
from app.engine.stepwise.trace import StepRecord, StepTrace, step_vjp, trace_steps
from app.engine.tensors import is_differentiable
from app.program.differentiation.custom_functions import APPLY, Custom
from app.program.function import Function

# Two formulas of one derivative in float64 differ by far less, a wrong one is hardly ever right to six digits.
_RELATIVE: Final = 1e-6
_BESIDE: Final = 1e-3  # of the largest element, for those that are much smaller
_LISTED: Final = 6  # explanations in an answer; one more would help nobody


def wrong_backwards(point: Point, name: str, seed: int | None) -> list[dict[str, Any]]:
    """Claims on every such step that the input `name` leads to, as JSON, the likeliest first; none where each `backward` is right.

    The cotangent is a random one, so that a `backward` that is right for a sum alone is seen.
    """
    claims: list[dict[str, Any]] = []
    with torch.enable_grad():
        trace = point.once(trace_steps)
        for record in trace.records:
            if isinstance(record.node.target, Custom) and any(name in trace.depends[parent] for parent in record.parents):
                try:
                    own = _Own.of(trace, record, record.node.target, seed)
                    claims += own.claims([n for n, at in own.arguments() if name in trace.depends[record.parents[at]]])
                except REFUSALS:
                    continue  # its forward cannot be differentiated by itself
    return claims[:_LISTED]


@dataclass(frozen=True)
class _Own:
    """One such step at its own inputs.

    Attributes:
        names: of the arguments that are tensors, then of what the forward reads besides.
        tensors: in the order of `names`; `read`: what the backward reads beside them and the results.
        point: the forward alone, by PyTorch's rules.
    """

    record: StepRecord
    custom: Custom
    names: tuple[str, ...]
    parents: tuple[int, ...]
    tensors: tuple[Tensor, ...]
    read: tuple[Tensor, ...]
    point: Point
    seed: int | None

    @classmethod
    def of(cls, trace: StepTrace, record: StepRecord, custom: Custom, seed: int | None) -> _Own:
        holes: list[list[Hole]] = list(trace.arguments[record.node][0])
        values = [tuple(trace.values[hole.ref].detach() for hole in part) for part in holes]
        names = (*custom.arguments, *(f"free{k}" for k in range(len(values[1]))))
        outputs = tuple(f"output{k}" for k in range(len(custom.results)))
        function = Function("forward", _graph(custom), names, outputs, random=False, call=custom.forward)
        tensors = (*values[0], *values[1])
        point = Point(function, dict(zip(names, tensors, strict=True)), seed, wide=trace.point.wide)
        parents = tuple(record.parents.index(hole.ref) for hole in holes[0])
        return cls(record, custom, names, parents, tensors, values[2], point, seed)

    def arguments(self) -> list[tuple[str, int]]:
        """Its tensor arguments: name, and which of the step's parents it is."""
        return list(zip(self.custom.arguments, self.parents, strict=True))

    def claims(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Of the derivatives by these arguments."""
        floating = [k for k, is_number in enumerate(self.custom.results) if is_number]
        rows = {k: random_like(self.record.outputs[k].detach(), 300 + k) for k in floating}
        wrt = tuple(n for n in self.custom.arguments if is_differentiable(self.point.leaves[n].dtype))
        objective = Objective(self.point, wrt, ({f"output{k}": row for k, row in rows.items()},), ())
        right = objective.derivative()
        believed = self._gradients_of_backward(rows)
        listed: list[dict[str, Any]] = []
        for name in (n for n in wrt if n in names):
            expected, ours = believed[name], right[name][0]
            if _is_same(ours, expected):
                continue
            if is_hook(self.record.node):
                listed.append(_of_hook(self.record, name))
                continue
            case = Case(name, ours, expected, _RELATIVE, objective, self.seed)
            own = [*self._mistakes(case, rows)]
            fitting = [claim.as_json() for claim in own] or explanations(case) or [_nothing_fits(case).as_json()]
            where = (
                f"The `backward` of `{self._title}`{self._place} does not give the derivative of its `forward` by `{name}`. "
            )
            whose = "Yours is here what it gives, ours that derivative. "
            listed += [
                claim | {"message": where + whose * ("ours" in claim["message"]) + claim["message"]} for claim in fitting
            ]
        return listed

    def _gradients_of_backward(self, rows: dict[int, Tensor]) -> dict[str, Tensor]:
        gradients = step_vjp(self.record, [rows.get(k) for k in range(len(self.record.outputs))])
        return {n: _or_zeros(gradients[at], self.point.leaves[n]) for n, at in self.arguments()}

    def _mistakes(self, case: Case, rows: dict[int, Tensor]) -> Iterator[Claim]:
        """Those that only a `backward` can have."""
        if not bool((case.expected != 0).any()):
            yield Claim("missing_gradient", "It gives None or zeros for it, and that is not zero.")
            return
        others = {k: random_like(row, 400 + k) for k, row in rows.items()}
        if _is_same(self._gradients_of_backward(others)[case.name], case.expected):
            text = "It does not multiply by the gradient that it is given: that is right only where this is 1, as behind a plain sum."
            yield Claim("missing_chain_rule", text)
            return
        yield from self._read_otherwise(case, rows)

    def _read_otherwise(self, case: Case, rows: dict[int, Tensor]) -> Iterator[Claim]:
        """What it keeps for the backward is another tensor than its formula means: the input for the result, one argument for another."""
        if not bool((case.ours != 0).any()):
            return  # of `sign` many tensors give zero too, and the backward is meant to be another's (straight through)
        at = self.custom.arguments.index(case.name)
        with torch.no_grad():
            results = self.custom.forward(*self.tensors)
        own = len(self.custom.arguments)
        known = {("input", k): (f"`{n}`", t) for k, (n, t) in enumerate(zip(self.names, self.tensors[:own], strict=False))}
        known |= {("result", k): ("what `forward` gives", results[k]) for k in range(len(self.custom.results))}
        pools: dict[str, Sequence[Tensor]] = {"input": self.tensors[:own], "result": results, "free": self.read}
        saved = [pools[kind][index] for kind, index in self.custom.sources]
        cotangents = tuple(rows.get(k, torch.zeros(())) for k in range(len(self.custom.results)))
        for position, source in enumerate(self.custom.sources):
            for other, (text, tensor) in known.items():
                if source not in known or other == source or tensor.shape != saved[position].shape:
                    continue
                gradient = self.custom.gradients(cotangents, (*saved[:position], tensor, *saved[position + 1 :]))[at]
                if gradient is not None and _is_same(case.ours, gradient):
                    yield Claim("wrong_saved_tensor", f"It reads {known[source][0]} where it means {text}.")

    @property
    def _title(self) -> str:
        step = step_of(self.record.node)
        return "F" if step is None else step.operation.removesuffix(APPLY)

    @property
    def _place(self) -> str:
        nodes: Sequence[fx.Node] = self.custom.backward.nodes  # type: ignore[attr-defined]
        if nodes:
            return place_of(nodes[-1])
        returned = self.custom.returned
        return place_of(self.record.node) if returned is None else f" (line {returned.line}, `{returned.text}`)"


def _of_hook(record: StepRecord, argument: str) -> dict[str, Any]:
    effect = effect_of(record)
    by = "" if argument == "tensor" else f" by `{argument}`"
    text = f"The hook{place_of(record.node)} {effect.does}{by}: PyTorch's number is not the derivative of the function. {effect.instead}"
    return Claim("wrong_backward", text, effect.factor).as_json()


def _graph(custom: Custom) -> fx.Graph:
    """The steps of the forward, without what they leave for the backward; such steps among them by their own forwards."""
    copy = fx.Graph()
    results = copy.graph_copy(custom.forward.graph, {})  # type: ignore[attr-defined]
    copy.output(tuple(results)[: len(custom.results)])  # type: ignore[arg-type]
    for node in copy.nodes:
        if isinstance(node.target, Custom):
            node.target = replace(node.target, by_steps=True)
    return copy


def _or_zeros(gradient: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if gradient is None else gradient.detach()


def _is_same(ours: Tensor, other: Tensor) -> bool:
    size = ours.abs()
    largest = float(size.max()) if size.numel() else 0.0
    return ours.shape == other.shape and bool(((ours - other).abs() <= _RELATIVE * (size + _BESIDE * largest)).all())


def _nothing_fits(case: Case) -> Claim:
    apart = (case.ours - case.expected).abs().reshape(-1)
    at = int(apart.nan_to_num(torch.inf).argmax())
    index = [int(i) for i in torch.unravel_index(torch.tensor(at), case.ours.shape)]
    ours, believed = (t.reshape(-1)[at].item() for t in (case.ours, case.expected))
    where = f" at element {index}" if index else ""
    return Claim(
        "wrong_backward", f"For a random gradient of the result it gives {believed:.6g}{where} where that is {ours:.6g}."
    )
