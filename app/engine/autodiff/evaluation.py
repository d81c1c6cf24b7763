"""A Function at a point: one forward, kept with its autograd graph, that serves everything that is wanted of it."""

from __future__ import annotations

import cmath
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import torch
from torch import Tensor, fx

from app.catalogue.facts import operations_with, short
from app.engine.autodiff.freivalds import UncertifiedError, certify, combined
from app.engine.errors import Attempt, no_derivative
from app.engine.notes import Notes
from app.engine.tensors import fourth_powers, is_differentiable
from app.program.errors import tensors_in
from app.program.function import Function, Step
from app.program.graph_runner import GraphRunner
from app.program.semantics.randomness import seed_generators

T = TypeVar("T")
# PyTorch's own step from outputs to gradients, without the checks of `torch.autograd.grad`, which cost as much as a small backward.
backward: Callable[..., tuple[Tensor | None, ...]] = torch.autograd.Variable._execution_engine.run_backward
# What PyTorch says where a function under vmap has no rule for batches, and where its Python looks at a value.
_NO_RULE: Final = re.compile("batching rule|vmap is not|not supported.*vmap", re.I)
_LOOKS: Final = re.compile(r"\.item\(\)|data-dependent|dynamic.shape", re.I)


def _why_apart(error: BaseException | None, results: object) -> str:
    """Why several passes ran one by one, as far as what was raised and what they gave say it."""
    if isinstance(error, UncertifiedError):
        tensors = [value for value in results if isinstance(value, Tensor)] if isinstance(results, tuple) else [results]
        if all(bool(torch.isfinite(value).all()) for value in tensors if isinstance(value, Tensor)):
            return "A single pass did not confirm what PyTorch computed together"
        return "Not all numbers are finite, of which a single pass confirms nothing"
    if _NO_RULE.search(str(error)):
        return "An operation has no batching rule"
    return "An operation looks at values" if _LOOKS.search(str(error)) else "PyTorch refused to compute the passes together"


class StepSums:
    """Of each floating tensor that a step gives its sum, which is finite only where all of it is. The tensors are not kept.

    Of a step that hides an overflow within it, the sum of the fourth powers of what it is given too.
    """

    def __init__(self) -> None:
        self._sums: list[Tensor] = []

    def add(self, step: Step | None, asked: Any, result: Any) -> None:
        """What one more step was given and gave."""
        with torch.no_grad():
            if step is not None and short(step.operation) in operations_with("hides_overflow"):
                self._sums += [fourth_powers(value) for value in tensors_in(asked) if is_differentiable(value.dtype)]
            for value in tensors_in(result):
                if is_differentiable(value.dtype):
                    # Above 65504 a sum of finite float16 would be infinite.
                    dtype = torch.float32 if value.dtype == torch.float16 else None
                    try:
                        self._sums.append(value.sum(dtype=dtype))
                    except RuntimeError:  # a kind of tensor that PyTorch cannot sum: then nothing is known
                        self._sums.append(torch.tensor(math.nan))

    @property
    def is_finite(self) -> bool:
        return all(cmath.isfinite(value.item()) for value in self._sums)


class Evaluation:
    """`function` at `leaves`.

    Attributes:
        wrt: names of the leaves to differentiate with respect to.
        inputs: those leaves, each requiring grad.
        outputs: name → value, from the one forward; run when first read.
        step_sums: of that forward, where it is watched.
        results: what the steps of `watched` gave in it.

    Arguments:
        is_watched: whether a step overflows may have to be said.
        watched: inputs and steps of the Function's graph, or of its pattern, that are run.
    """

    def __init__(
        self,
        function: Function,
        leaves: Mapping[str, Tensor],
        wrt: Sequence[str],
        seed: int | None,
        notes: Notes,
        *,
        is_watched: bool = False,
        watched: Sequence[fx.Node] = (),
    ) -> None:
        self.function = function
        self.wrt = tuple(wrt)
        self.notes = notes
        self.seed = seed if function.random else None
        self.leaves = dict(leaves)
        for name in wrt:
            self.leaves[name] = leaves[name].detach().requires_grad_()
        self.inputs = tuple(self.leaves[name] for name in wrt)
        self.step_sums: StepSums | None = None
        self.results: dict[fx.Node, Any] = {}
        self._is_watched = is_watched
        self._watched = watched
        self._outputs: dict[str, Tensor] | None = None

    @property
    def outputs(self) -> dict[str, Tensor]:
        if self._outputs is None:
            call = self.function.call
            if self._is_watched and isinstance(call, GraphRunner):
                self.step_sums = StepSums()
                call = call.shown_to(self.step_sums.add)
            if self._watched and isinstance(call, GraphRunner):
                call = call.watching(self._watched)
            names = self.function.outputs
            results = self.run(self.leaves, call)
            self._outputs = dict(zip(names, results[: len(names)], strict=True))
            self.results = dict(zip(self._watched, results[len(names) :], strict=False))
        return self._outputs

    def run(self, leaves: Mapping[str, Tensor], call: Callable[..., tuple[Tensor, ...]] | None = None) -> tuple[Tensor, ...]:
        """One forward at other leaves, by `call` in place of the function's own. Random numbers are the same in every run."""
        if self.seed is not None:
            seed_generators(self.seed)
        return (call or self.function.call)(*(leaves[name] for name in self.function.leaves))

    def differentiable(self) -> dict[str, Tensor]:
        """The outputs that carry a derivative with respect to some of `wrt`.

        Raises:
            PullbackError: `not_differentiable` where there is none.
        """
        differentiable = {name: value for name, value in self.outputs.items() if value.requires_grad}
        if not differentiable:
            dtypes = {name: value.dtype for name, value in self.outputs.items()}
            raise no_derivative(self.function.title, self.wrt, dtypes, self.cut())
        return differentiable

    def cut(self) -> tuple[Step, Step] | None:
        """Of a program the step next to its outputs that cuts the path from its inputs, and the last one before it."""
        nodes = list(self.function.pattern.output_node().all_input_nodes) if self.function.title == "program" else []
        seen = set(nodes)
        for node in nodes:  # grows while it is gone through
            before = next(
                (source for source in node.all_input_nodes if source.meta.get("live") and "step" in source.meta), None
            )
            if before is not None and "step" in node.meta and not node.meta.get("live"):
                return node.meta["step"], before.meta["step"]
            nodes += [source for source in node.all_input_nodes if source not in seen]
            seen.update(node.all_input_nodes)
        return None

    def at(self, changed: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Outputs with the leaves of `changed` put in place of the point's; differentiable in them."""
        return self.run({**{name: leaf.detach() for name, leaf in self.leaves.items()}, **changed})

    def grad(
        self, outputs: Sequence[Tensor], cotangents: Sequence[Tensor], *, create_graph: bool = False
    ) -> tuple[Tensor | None, ...]:
        """Reverse mode: Jᵗ·cotangents for each of `inputs`, None where no path leads there.

        Arguments:
            cotangents: of the outputs' shapes.
            create_graph: the result is differentiated again.
        """
        fit = [o.shape == c.shape and o.dtype == c.dtype for o, c in zip(outputs, cotangents, strict=True)]
        if not self.inputs or False in fit:  # its checks will say what is wrong
            return torch.autograd.grad(
                tuple(outputs), self.inputs, tuple(cotangents), retain_graph=True, create_graph=create_graph, allow_unused=True
            )
        return backward(tuple(outputs), tuple(cotangents), True, create_graph, self.inputs, True, accumulate_grad=False)

    def grad_rows(self, outputs: Sequence[Tensor], cotangents: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
        """Several backwards: cotangents `[k, output…]` → for each input `[k, input…]`, None where no path leads there."""
        return self.with_fallback(
            lambda: backward_batch(outputs, self.inputs, cotangents), lambda: self._one_by_one(outputs, cotangents)
        )

    def _one_by_one(self, outputs: Sequence[Tensor], cotangents: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
        rows = [self.grad(outputs, [c[k] for c in cotangents]) for k in range(cotangents[0].shape[0])]
        return tuple(None if column[0] is None else torch.stack(column) for column in zip(*rows, strict=True))

    def with_fallback(self, fast: Callable[[], T], slow: Callable[[], T]) -> T:
        """`fast()` under vmap; where PyTorch refuses that or it is not confirmed, `slow()`, with a note that says why."""
        with Attempt() as attempt, self.slow_rows_noted():
            return fast()
        results = slow()  # before the note: where this fails too, the batch was not the reason
        self.notes.say("fallback", f"{_why_apart(attempt.error, results)}, so the passes ran one by one.", "plan")
        return results

    @contextmanager
    def slow_rows_noted(self) -> Iterator[None]:
        """PyTorch's warning of a missing batching rule, turned into a note."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        if any("performance drop" in str(w.message) for w in caught):
            self.notes.say("fallback", "An operation has no batching rule, so its part of the passes ran one by one.", "plan")


def backward_batch(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], cotangents: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """Several backwards at once: cotangents `[k, output…]` → for each input `[k, input…]`, None where no path leads.

    Raises UncertifiedError (a RuntimeError) where a single pass gives something else.
    """
    rows = backward_rows_unconfirmed(outputs, inputs, cotangents)
    single = tuple(combined(c) for c in cotangents)
    certify(rows, torch.autograd.grad(tuple(outputs), tuple(inputs), single, retain_graph=True, allow_unused=True))
    return rows


def backward_rows_unconfirmed(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], cotangents: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """As `backward_batch`, for those who confirm the rows themselves.

    vmap over autograd.grad rather than its `is_grads_batched`, which lays the batch out so that softmax of 256 takes 4 times and
    cumsum 10 times as long (measured).
    """
    unreached: list[bool] = []

    def one(*each: Tensor) -> tuple[Tensor, ...]:
        gradients = torch.autograd.grad(tuple(outputs), tuple(inputs), each, retain_graph=True, allow_unused=True)
        unreached[:] = [g is None for g in gradients]
        return tuple(each[0].new_zeros(()) if g is None else g for g in gradients)

    stacked = torch.func.vmap(one, randomness="same")(*cotangents)
    return tuple(None if missing else g for missing, g in zip(unreached, stacked, strict=True))
