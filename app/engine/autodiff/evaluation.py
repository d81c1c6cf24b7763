"""A Function at a point: one forward, kept with its autograd graph, that serves everything that is wanted of it.

Knows how to run the Function and which outputs carry a derivative. Refuses to know which derivative is wanted.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from app.engine.autodiff.freivalds import UncertifiedError, certify, combined
from app.engine.tensors import is_differentiable
from app.errors import PullbackError
from app.program.errors import is_memory
from app.program.function import Function
from app.query import Note

T = TypeVar("T")
_REASONS = {
    False: "An operation has no batching rule",
    True: "A single pass did not confirm what PyTorch computed together (or it is not finite)",
}


class Notes:
    """What the client should know of the answer, each said once."""

    def __init__(self) -> None:
        self._notes: dict[tuple[str, str], Note] = {}

    def say(self, code: str, message: str, at: str = "") -> None:
        self._notes.setdefault((code, at), Note(code, message, at))

    def all(self) -> tuple[Note, ...]:
        return tuple(self._notes.values())


class Evaluation:
    """`function` at `leaves`.

    Attributes:
        wrt: names of the leaves to differentiate with respect to.
        inputs: those leaves, each requiring grad.
        outputs: name → value, from the one forward; run when first read.
    """

    def __init__(
        self, function: Function, leaves: Mapping[str, Tensor], wrt: Sequence[str], seed: int | None, notes: Notes
    ) -> None:
        self.function = function
        self.wrt = tuple(wrt)
        self.notes = notes
        self.seed = seed if function.random else None
        self.leaves = dict(leaves)
        for name in wrt:
            self.leaves[name] = leaves[name].detach().requires_grad_()
        self.inputs = tuple(self.leaves[name] for name in wrt)
        self._outputs: dict[str, Tensor] | None = None

    @property
    def outputs(self) -> dict[str, Tensor]:
        if self._outputs is None:
            self._outputs = dict(zip(self.function.outputs, self.run(self.leaves), strict=True))
        return self._outputs

    def run(self, leaves: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """One forward at other leaves. Random numbers are the same in every run."""
        if self.seed is not None:
            torch.manual_seed(self.seed)
        return self.function.call(*(leaves[name] for name in self.function.leaves))

    def smooth(self) -> dict[str, Tensor]:
        """The outputs that carry a derivative with respect to some of `wrt`.

        Raises:
            PullbackError: `not_differentiable` where there is none.
        """
        found = {name: value for name, value in self.outputs.items() if value.requires_grad}
        if not found:
            dtypes = {name: value.dtype for name, value in self.outputs.items()}
            raise no_derivative(self.function.title, self.wrt, dtypes)
        return found

    def at(self, changed: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Outputs with the leaves of `changed` put in place of the point's; differentiable in them."""
        return self.run({**{name: leaf.detach() for name, leaf in self.leaves.items()}, **changed})

    def grad(
        self,
        outputs: Sequence[Tensor],
        cotangents: Sequence[Tensor],
        *,
        batched: bool = False,
        twice: bool = False,
    ) -> tuple[Tensor | None, ...]:
        """Reverse mode: Jᵗ·cotangents for each of `inputs`, None where no path leads there.

        Arguments:
            cotangents: of the outputs' shapes; with `batched`, each with a leading axis of several.
            twice: the result is differentiated again.
        """
        if not batched:
            return torch.autograd.grad(
                tuple(outputs), self.inputs, tuple(cotangents), retain_graph=True, create_graph=twice, allow_unused=True
            )
        return self.ladder(
            lambda: backward_batch(outputs, self.inputs, cotangents), lambda: self._one_by_one(outputs, cotangents)
        )

    def _one_by_one(self, outputs: Sequence[Tensor], cotangents: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
        rows = [
            torch.autograd.grad(
                tuple(outputs), self.inputs, tuple(c[k] for c in cotangents), retain_graph=True, allow_unused=True
            )
            for k in range(cotangents[0].shape[0])
        ]
        return tuple(None if column[0] is None else torch.stack(column) for column in zip(*rows, strict=True))

    def ladder(self, fast: Callable[[], T], slow: Callable[[], T]) -> T:
        """`fast()` under vmap; where an operation has no batching rule, `slow()`, with a note."""
        try:
            with self.slow_rows_noted():
                return fast()
        except (RuntimeError, NotImplementedError, ValueError) as error:
            if is_memory(error):
                raise
            self.notes.say(
                "fallback", f"{_REASONS[isinstance(error, UncertifiedError)]}, so the passes ran one by one.", "plan"
            )
            return slow()

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

    vmap over autograd.grad rather than its `is_grads_batched`, which lays the batch out so that softmax of 256 takes 4 times and
    cumsum 10 times as long (measured).

    Raises UncertifiedError (a RuntimeError) where a single pass gives something else.
    """
    unreached: list[bool] = []

    def one(*each: Tensor) -> tuple[Tensor, ...]:
        found = torch.autograd.grad(tuple(outputs), tuple(inputs), each, retain_graph=True, allow_unused=True)
        unreached[:] = [g is None for g in found]
        return tuple(each[0].new_zeros(()) if g is None else g for g in found)

    stacked = torch.func.vmap(one, randomness="same")(*cotangents)
    rows = tuple(None if missing else g for missing, g in zip(unreached, stacked, strict=True))
    single = tuple(combined(c) for c in cotangents)
    certify(rows, torch.autograd.grad(tuple(outputs), tuple(inputs), single, retain_graph=True, allow_unused=True))
    return rows


def no_derivative(title: str, wrt: Sequence[str], outputs: Mapping[str, torch.dtype]) -> PullbackError:
    """`not_differentiable`, with the reason: no floating input, a discrete result, or no path."""
    fix = 'Want "explain" to see the step that cuts the path, and a way out.'
    if not wrt:
        return PullbackError(
            "not_differentiable",
            f"`{title}` was given no floating or complex input, so there is nothing to differentiate with respect to.",
            at="inputs",
            expected="at least one floating or complex tensor",
            fix='Send an input as float64, or name it in "wrt".',
        )
    names = ", ".join(f"`{name}`" for name in wrt)
    discrete = [name for name, dtype in outputs.items() if not is_differentiable(dtype)]
    if len(discrete) == len(outputs):
        kinds = ", ".join(sorted({str(outputs[name]).removeprefix("torch.") for name in discrete}))
        return PullbackError(
            "not_differentiable",
            f"`{title}` has no derivative: its result is {kinds}, and whole numbers or truth values do not change smoothly with {names}.",
            at=f"outputs.{discrete[0]}" if discrete else "outputs",
            expected="a floating or complex output",
            given=kinds,
            fix=fix,
        )
    return PullbackError(
        "not_differentiable",
        f"No output of `{title}` depends differentiably on {names}: no path leads from there to an output, or a step cuts it.",
        at="wrt",
        fix=fix,
    )
