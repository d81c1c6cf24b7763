"""The engine's road: Query → Prepared → Computation → Answer."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor

from app.engine import batching
from app.engine.autodiff.blocks import Report
from app.engine.autodiff.layout_cache import LayoutCache
from app.engine.computation import Computation
from app.engine.cuda.cuda_recipe import CudaRecipe
from app.engine.cuda.graphs import Recorder
from app.engine.errors import constant_input, translating_errors
from app.engine.kinds import KINDS, results
from app.engine.nonfinite import note_degenerate, note_lost, note_nonfinite, note_overflow, note_rounding_alone, note_undefined
from app.engine.notes import Notes
from app.engine.planning import plan as planning
from app.engine.planning.plan import Plan
from app.engine.planning.prepare import Prepared, Preparer
from app.engine.planning.whole_numbers import (
    WholeNumbers,
    are_promoted,
    computes_whole_numbers,
    rounded_integers,
)
from app.engine.planning.whole_part import turned_back, whole_part
from app.engine.recipes import Recipe, recipe
from app.engine.tensors import SparseTensor, from_torch, name_of, sparse_from_torch
from app.engine.zeros.always_zero import always_zero
from app.engine.zeros.lost_zeros import note_lost_zeros
from app.errors import PullbackError
from app.limits import Limits
from app.program.function import Function
from app.program.functions import Functions
from app.program.graph_runner import floating_default
from app.program.semantics.randomness import seed_generators
from app.query import Answer, Query

# Layouts of earlier queries may fill this share of the memory; indices and places of 300,000 entries take 10 MB.
_LAYOUTS_SHARE: Final = 1 / 16
# And no more than this: they stand in the CPU's memory where the limit is a GPU's. Eight million entries, about as many as an answer of 256 MiB has.
_LAYOUTS_BYTES: Final = 256 << 20

# Printed gradients are computed for their note where the plan stays below this, so that they add little to it: a copy of so much takes 1 to 3 ms.
_PRINTED_BYTES: Final = 16 << 20
# Characters of a tensor in that note, some lines of a terminal: 95% of pasted programs' inputs take 230.
_PRINTED_LENGTH: Final = 400

_PRINTED_IN_FULL: Final = ' To have it in full, add "gradient" to "want", or end the program with it instead of the `print`.'


class Engine:
    """Answers queries on one device, one at a time (forward-mode AD is not thread-safe in PyTorch)."""

    def __init__(self, limits: Limits, device: str, functions: Functions) -> None:
        self._limits = limits
        self._device = device
        self._layout_cache = LayoutCache(min(int(limits.memory_bytes * _LAYOUTS_SHARE), _LAYOUTS_BYTES))
        self._recorder = Recorder(device)
        self._preparer = Preparer(limits, device, functions, {kind: row.demand for kind, row in KINDS.items()})

    def answer(self, query: Query) -> Answer:
        """Raises PullbackError: every refusal of docs/contract.md, section 6 that is the query's own."""
        with warnings.catch_warnings():
            # PyTorch warns the server's operator of what concerns the client, and of deprecations; what matters becomes a note.
            warnings.simplefilter("ignore")
            with _errors(query):
                return self._answer(query)

    def outputs(self, query: Query, *, abstract: bool) -> dict[str, tuple[str, tuple[int, ...]]]:
        """(dtype, shape) of each output of a query, from its inputs' dtypes and shapes; nothing is computed.

        Arguments:
            abstract: the tensors have no values yet, so outputs whose shapes depend on values are refused.

        Raises:
            PullbackError: as `answer` does for names, shapes and parameters; `operation_failed` where only values tell.
        """
        plain = replace(query, want=("outputs",), wrt=None, of=None, cotangent={}, tangent={})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _errors(query):
                prepared = self._preparer.prepared(self._preparer.completed(plain)[0])
        if abstract and not prepared.function.static:
            raise PullbackError(
                "operation_failed",
                f"The shapes of the outputs of `{prepared.function.title}` depend on the values of its inputs.",
                at="inputs",
                fix="Ask for the values.",
            )
        return {result.name: (name_of(result.dtype), result.shape) for result in prepared.plan.outputs}

    @property
    def plans(self) -> int:
        """How many plans were made that serve again."""
        return self._preparer.plans

    def prepared(self, query: Query) -> Prepared:
        """The query made ready to run, as `answer` runs it; for measurements and inspection."""
        return self._preparer.prepared(query)

    def improve(self) -> bool:
        """As of `Preparer`."""
        return self._preparer.improve()

    def recipe(self, query: Query, names: Sequence[str] | None) -> Recipe | None:
        """The computation of a query that was answered, for queries that differ in nothing but numbers of their tensors, if it has one.

        `names`: as of `recipes.recipe`.
        """
        if self._preparer.completed(query)[0] is not query:
            return None
        prepared = self._preparer.prepared(query)
        if computes_whole_numbers(query, prepared.function, self._preparer.leaves(query, prepared.dtypes)):
            return None  # whether it loses digits the numbers say
        make = Recipe if self._device == "cpu" else partial(CudaRecipe, device=self._device, record=self._recorder.record)
        repeated = recipe(query, prepared, names, make)
        if repeated is not None:
            is_sent = bool(query.cotangent)
            bare = replace(query, inputs={}, cotangent={}, tangent={}, expected={})  # nothing of a body is held
            repeated.always_zero = lambda leaves: always_zero(
                Computation(bare, prepared, leaves, Notes(), self._limits, self._layout_cache), is_sent=is_sent
            )
        return repeated

    @property
    def is_spoiled(self) -> bool:
        """Whether a process that has run out of memory will not have it again."""
        return self._recorder.is_spoiled

    @contextmanager
    def _whole_numbers_watched(self, computation: Computation) -> Iterator[None]:
        """Notes where whole numbers wrap around, and where those that were sent bare lose digits: as sent, or on the way to outputs."""
        query, leaves, notes = computation.query, computation.leaves, computation.notes
        for name in rounded_integers(query, leaves):
            notes.say(
                "rounded",
                f'`{name}` holds whole numbers beyond 2^53, taken as float64 and rounded. Send {{"data": …, "dtype": "int64"}} to keep them.',
                f"inputs.{name}",
            )
        is_floating = are_promoted(query, leaves)
        part = computation.prepared.function if is_floating else whole_part(computation.prepared.function)
        if part is None:
            yield
            return
        if query.want == ("outputs",):
            with WholeNumbers(leaves, floating=is_floating) as watched:
                yield
            outputs = None if computation.prepared.samples is not None else computation.evaluation.outputs.values()
        else:  # the steps of derivatives are on the way to no output: those of the forward run once more, watched
            yield
            with WholeNumbers(leaves, floating=is_floating) as watched:
                tree = _results(_of_outputs_alone(computation, part))[1]
            outputs = None if computation.prepared.samples is not None else tree["outputs"].values()
        watched.settle(outputs)
        _say_of_whole_numbers(watched, notes, "outputs" if "outputs" in query.want else query.want[0])

    def _answer(self, query: Query) -> Answer:
        query, initialised = self._preparer.completed(query)
        prepared = self._preparer.prepared(query)
        leaves = self._preparer.leaves(query, prepared.dtypes)
        notes = Notes()
        needs = {KINDS[kind].demand.needs for kind in query.want if KINDS[kind].demand.derives}
        for code, at, message in prepared.function.notes:
            if code != "frozen" or (needs and query.wrt is None):
                notes.say(code, message, at)
        if initialised is not None:
            notes.say("initialised", initialised.sentences(), "inputs")
        if query.expected and "check" not in query.want:
            notes.say("ignored", 'Nothing is compared with `expected`: add "check" to "want".', "expected")
        computation = Computation(query, prepared, leaves, notes, self._limits, self._layout_cache)
        with self._whole_numbers_watched(computation):
            computation, tree = _results(computation)
        if prepared.wrt and any(leaf.dtype.is_complex for leaf in leaves.values()):
            notes.say(
                "complex",
                "Gradients of complex tensors follow PyTorch's convention, the conjugate Wirtinger derivative: a step against the "
                "gradient lowers a real loss. The Jacobian of a holomorphic function is ∂f/∂z, so jvp = J·t and vjp = Jᴴ·v.",
            )
        for operation, sentence in turned_back(prepared.function):
            notes.say("rounded", sentence, operation)
        for operation, sentence in prepared.conventions:
            notes.say("convention", sentence, operation)
        if prepared.wrt and (needs or "explain" in query.want):
            note_degenerate(computation, of_one=needs == {"scalar"})
        _note_printed(computation)
        is_said = note_overflow(computation, tree.get("outputs", {}))
        if prepared.wrt and needs and not is_said:
            note_lost(computation)
        derivatives = {kind: tree[kind] for kind in query.want if KINDS[kind].demand.derives}
        if note_nonfinite(computation, derivatives):
            note_undefined(computation, of_one=needs == {"scalar"})
        numbers = {kind: tree[kind] for kind in query.want if not KINDS[kind].of_one_point}
        note_rounding_alone(computation, numbers, lambda wide: _results(wide)[1])
        note_lost_zeros(computation, tree)
        report = _reported(prepared.plan, computation.layouts, prepared.samples or 1, self._device)
        report["peak_bytes"] *= computation.plan_times
        return Answer(_sent(tree), notes.all(), report)


def _errors(query: Query) -> AbstractContextManager[None]:
    """PyTorch's exceptions in the block as refusals of this query."""
    at = None if query.operation is None else "inputs"
    return translating_errors(at=at, what=query.operation, inputs=query.inputs, parameters=query.parameters)


def _results(computation: Computation) -> tuple[Computation, dict[str, Any]]:
    """The tree, and the computation that gave it: without the inputs that PyTorch takes only as constants, where `wrt` was left open."""
    while True:
        try:
            return computation, results(computation) if computation.prepared.samples is None else batching.results(computation)
        except RuntimeError as error:
            name = constant_input(error, computation.prepared.wrt)
            if name is None or computation.query.wrt is not None or len(computation.prepared.wrt) == 1:
                raise
        computation.notes.say("constant", f"PyTorch has no derivative with respect to `{name}` here, so it is left out.", name)
        wrt = tuple(n for n in computation.prepared.wrt if n != name)
        computation = Computation(
            computation.query, replace(computation.prepared, wrt=wrt), computation.leaves, computation.notes, computation.limits,
            computation.layout_cache,
        )  # fmt: skip


def _say_of_whole_numbers(watched: WholeNumbers, notes: Notes, at: str) -> None:
    """Where whole numbers lost digits on the way to the outputs, or to what is made `at`."""
    if watched.wraps is not None:
        bits = torch.iinfo(watched.wraps).bits
        notes.say(
            "overflow",
            f"A step makes whole numbers that {name_of(watched.wraps)} cannot hold; PyTorch gives them modulo 2^{bits}, without a word. "
            "Send floating numbers" + (", or a dtype of more bits." if bits < 64 else "."),
            at,
        )
    if watched.casts is not None:
        notes.say(
            "overflow",
            f"A cast is of numbers that {name_of(watched.casts)} cannot hold, or of NaN; C++ leaves open what that gives, and PyTorch says "
            "nothing. Bound them before, or stay with floating numbers.",
            at,
        )
    if watched.compares:
        notes.say(
            "rounded",
            "Whole numbers are compared with floating ones, and for that PyTorch rounds them to the floating dtype, without a word: without "
            "the rounding the comparison comes out otherwise. Cast the floating ones to int64.",
            at,
        )
    if watched.overflows:
        notes.say(
            "rounded",
            "Whole numbers are taken as float64 here, and on the way to the result one reaches 2^53, beyond which not every whole number "
            'is a float64. Send {"data": …, "dtype": "int64"} to compute with whole numbers of 64 bits.',
            "outputs",
        )
    if watched.cancels:
        notes.say(
            "rounded",
            "A determinant of whole numbers is a whole number. It is computed by factors that are not, and they cancel here: more than "
            "four of its sixteen digits are rounding. Rounding it to a whole number helps where it is below 2^53 and off by less than a half.",
            "outputs",
        )


def _of_outputs_alone(computation: Computation, function: Function) -> Computation:
    """The same query for the outputs of `function`; what it says of them is said already."""
    query = replace(computation.query, want=("outputs",), cotangent={}, tangent={}, expected={})
    prepared = replace(computation.prepared, function=function, wrt=())
    return Computation(query, prepared, computation.leaves, Notes(), computation.limits, computation.layout_cache)


def _note_printed(computation: Computation) -> None:
    """What the program prints of gradients, as PyTorch would print it: most pastes end so, and that is what was asked."""
    query, prepared = computation.query, computation.prepared
    printed = prepared.function.printed
    if printed is None or prepared.samples is not None:
        return
    values: Sequence[Tensor | None] = [None] * len(printed.places)
    if prepared.plan.peak_bytes <= _PRINTED_BYTES:
        devices = sorted({leaf.device.index or 0 for leaf in computation.leaves.values() if leaf.device.type == "cuda"})
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            seed_generators(query.seed or 0)
            values = printed.values(*(computation.leaves[name].detach() for name in prepared.function.leaves))
    by_line: dict[tuple[int, int], list[str]] = {}
    for (line, column, text), value in zip(printed.places, values, strict=True):
        shown = text if value is None else f"{text}: {_shown(value, prepared.function.dtype)}"
        by_line.setdefault((line, column), []).append(shown)
    hint = "" if values[0] is not None and "gradient" in query.want else _PRINTED_IN_FULL
    for (line, column), texts in by_line.items():
        computation.notes.say("printed", f"Line {line} prints {'; '.join(texts)}.{hint}", f"{line}:{column}")


def _shown(value: Tensor, dtype: torch.dtype) -> str:
    """A tensor as PyTorch prints it, on one line."""
    with floating_default(dtype):
        text = " ".join(repr(value).split())
    return text if len(text) <= _PRINTED_LENGTH else f"a tensor of the shape {list(value.shape)}"


def _reported(plan: Plan, layouts: Report, samples: int, device: str) -> dict[str, Any]:
    """The plan as it was followed: with the passes that the layouts took in place of the one that each was planned with, and their patterns."""
    if not layouts.forms:
        return plan.report(device)
    planned = len({path.partition(".")[0] for path in layouts.forms})
    passes = plan.passes - planned + sum(layouts.passes.values())
    followed = planning.followed(
        plan,
        passes=passes,
        together=layouts.together,
        entries=layouts.entries,
        held=layouts.held,
        results=samples * layouts.bytes,
    )
    return followed.report(device) | {"formats": dict(layouts.forms), "colours": dict(layouts.passes)}


def _sent(tree: Any) -> Any:
    """Tensors as bytes, whatever else as it is."""
    if isinstance(tree, Tensor):
        return from_torch(tree)
    if isinstance(tree, SparseTensor):
        return sparse_from_torch(tree)
    if isinstance(tree, Mapping):
        return {key: _sent(value) for key, value in tree.items()}
    return tree
