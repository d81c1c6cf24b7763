"""Weights that a program has and a query does not send: initialised with the query's seed, and sent along from then on."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor

from app.bounded_cache import BoundedCache
from app.engine.errors import translating_errors
from app.engine.planning.build import COPIES, Built, function_bytes
from app.engine.planning.replay.reading import Reading
from app.engine.planning.value_sizes import LimitedCounter
from app.engine.tensors import from_torch
from app.errors import PullbackError
from app.program.function import Function, Initial
from app.program.functions import Functions
from app.program.reading.straight_lines import is_straight
from app.program.semantics.randomness import seed_generators, seeded_anew
from app.query import Query, TensorData

# A text without these words has no weights; what has them is read once more, before it is planned. Functions are given theirs.
_MENTIONS: Final = re.compile(
    r"\bnn\b(?!\.functional\b)|Parameter|requires_grad|Linear|Conv|Embedding|Norm|LSTM|GRU|RNN|Attention|Transformer"
)
_SEEDED: Final = re.compile(r"manual_seed(?:_all)?\(\s*(\d{1,18})\s*\)")
# All that seeds: where these differ, which one counts shows when the text is read.
_SEEDINGS: Final = re.compile(r"((?:cuda\s*\.\s*)?(?:manual_seed(?:_all)?|seed_everything)\s*\([^()\n]*\)?)")
# What may draw before a text seeds, or seed later than it stands there: a call or a block of the text itself, a seeding in a block.
_MAY_DRAW: Final = re.compile(
    r"^(?!def |class |from |import |[#@\s)\]}]|[^\n(]*manual_seed)[^\n]*[(:]|^[ \t][^\n]*manual_seed(?:_all)?\(\s*\d+\s*\)\Z",
    re.MULTILINE,
)
# Of the graphs of texts that come again and again: 290 of the median pasted program (57 kB), 36 of the largest 5% (457).
_BYTES_LIMIT: Final = 16 << 20
_BYTES_OF_NOTHING: Final = 4 << 10  # of a text that needs no weights: its key
# Of weights as a seed has them, of all texts: a thousand times the most that a pasted one has (15 kB).
_DRAWN_BYTES: Final = 16 << 20
_NAMED: Final = 12  # weights that a refusal names: 90% of 200 pasted models have at most ten


@dataclass(frozen=True, slots=True)
class Unsent:
    """A Function with weights that were not sent."""

    built: Built
    dtypes: Mapping[str, torch.dtype]


class WeightFiller:
    """Completes queries by the weights that their programs have.

    Arguments:
        read: a query's Function, read but not planned.
        reading: what was read for other shapes, and may hold for these.
        runs: whether what was read for other shapes, with the steps of a reading, holds for these; if so it is not run again.
        leaves: a query's tensors, as one sample of it sees them.
        memory_bytes: that a query may take.
    """

    def __init__(
        self,
        functions: Functions,
        read: Callable[[Query], Built],
        reading: Callable[[Query], Reading | None],
        runs: Callable[[Query, Reading], bool],
        leaves: Callable[[Query, Mapping[str, torch.dtype]], Mapping[str, Tensor]],
        memory_bytes: int,
    ) -> None:
        self._functions, self._read, self._leaves, self._memory_bytes = functions, read, leaves, memory_bytes
        self._reading, self._runs = reading, runs
        self._known: BoundedCache[Any, Unsent | None] = BoundedCache(_BYTES_LIMIT, _bytes)
        self._drawn: BoundedCache[tuple[Initial, int], Mapping[str, TensorData]] = BoundedCache(_DRAWN_BYTES, _bytes_of_weights)

    def completed(self, query: Query) -> tuple[Query, Initial | None]:
        """The query with all weights of its program, and those that were initialised here.

        A `torch.manual_seed(n)` of the text is the seed where the query has none; of several the last before anything is drawn.

        Raises:
            PullbackError: `bad_parameter` where weights are to be drawn and there is no seed; `too_costly` where they take too much memory;
                what reading the program raises.
        """
        text = query.program if query.program is not None else None
        if query.function is not None:
            text = self._functions.find(query.function).text
        if text is None:
            return query, None
        seeded = _SEEDED.search(text) if query.seed is None else None
        if seeded:
            is_one = len(set(_SEEDINGS.findall(text))) == 1 and not _MAY_DRAW.search(text[: seeded.end()])
            query = self._seeded(query, int(seeded[1]), is_one=is_one)
        elif query.seed is None and _SEEDINGS.search(text):  # `torch.manual_seed(seed)`
            query = self._seeded(query, 0, is_one=False)
        if not _MENTIONS.search(text) or is_straight(text):
            return query, None
        ahead = self._ahead(query)
        if ahead is not None:
            return ahead
        unsent = self._unsent(query)
        if unsent is None:
            return query, None
        function = unsent.built.function
        initial = function.initial
        if initial is None:
            return query, None
        if initial.random and query.seed is None:
            raise _not_sent(initial.shapes)
        return replace(query, inputs={**query.inputs, **self._initialised(query, unsent, initial)}), initial

    def _seeded(self, query: Query, first: int, *, is_one: bool) -> Query:
        """The query with the seed that its text has: `first`, where all that seeds in it `is_one`."""
        query = replace(query, seed=first)
        return query if is_one else replace(query, seed=self._read(self._for_outputs(query)).function.seed)

    def _for_outputs(self, query: Query) -> Query:
        # By it bare whole numbers are taken as floating ones, and from what there is weights may be made.
        known = tuple(name for name in query.wrt if name in query.inputs) if query.wrt is not None else None
        return replace(query, want=("outputs",), wrt=known)

    def _initialised(self, query: Query, unsent: Unsent, initial: Initial) -> Mapping[str, TensorData]:
        """The weights by their names, as the query's seed has them."""
        check_seed(query, unsent.built.function)
        seed = query.seed or 0
        known = self._drawn.get((initial, seed))
        if known is not None:
            return known
        leaves = self._leaves(query, unsent.dtypes)
        devices = sorted({leaf.device.index or 0 for leaf in leaves.values() if leaf.device.type == "cuda"})
        counter = LimitedCounter(self._memory_bytes // COPIES)
        with torch.random.fork_rng(devices=devices), torch.no_grad(), translating_errors(at="program"), counter:
            seed_generators(seed)
            values = initial.call(*(leaves[name] for name in unsent.built.function.leaves))
        weights = {name: from_torch(value.detach()) for name, value in zip(initial.names, values, strict=True)}
        if initial.fixed:
            self._drawn.keep((initial, seed), weights)
        return weights

    def _ahead(self, query: Query) -> tuple[Query, Initial] | None:
        """As `completed`, of a program with weights that hang on no input, which was read for other shapes: its steps run once, with them."""
        alone = self._for_outputs(query)
        key = _key(alone)
        reading = None if key in self._known else self._reading(alone)
        initial = None if reading is None else reading.built.function.initial
        if reading is None or initial is None or not initial.fixed or (initial.random and query.seed is None):
            return None
        unsent = _unsent(reading.built)
        full = replace(query, inputs={**query.inputs, **self._initialised(query, unsent, initial)})
        if not self._runs(full, reading):
            return None
        self._known.keep(key, unsent)
        return full, initial

    def _unsent(self, query: Query) -> Unsent | None:
        alone = self._for_outputs(query)
        key = _key(alone)
        if key in self._known:
            return self._known[key]
        built = self._read(alone)
        unsent = _unsent(built) if built.function.initial is not None else None
        if built.function.static:
            self._known.keep(key, unsent)
        return unsent


def check_seed(query: Query, function: Function) -> None:
    """Refuses a seed in the place of the text's first, where it seeds anew later: which of them it stands for is not known."""
    draws = function.random or (function.initial is not None and function.initial.random)
    if not draws or query.seed is None or function.seed in (None, query.seed):
        return
    if any(node.target is seeded_anew for node in function.pattern.nodes):
        raise PullbackError(
            "bad_parameter",
            f"The program seeds itself with {function.seed} and later anew, and the query has another seed.",
            at="seed",
            expected=str(function.seed),
            given=str(query.seed),
            fix='Leave "seed" out of the query, or leave the lines out by which the program seeds itself.',
        )


def _unsent(built: Built) -> Unsent:
    return Unsent(built, {leaf.name: leaf.dtype for leaf in built.leaves})


def _key(alone: Query) -> Any:
    return (
        alone.wrt, alone.program, alone.function, alone.dtype, alone.seed is None, alone.batched, repr(alone.parameters),
        tuple((name, _signature(value)) for name, value in alone.inputs.items()),
    )  # fmt: skip


def _bytes(unsent: Unsent | None) -> int:
    return _BYTES_OF_NOTHING if unsent is None else function_bytes(unsent.built.function)


def _bytes_of_weights(weights: Mapping[str, TensorData]) -> int:
    return _BYTES_OF_NOTHING + sum(weight.data.nbytes for weight in weights.values())


def _signature(value: Any) -> Any:
    return tuple(map(_signature, value)) if isinstance(value, tuple) else (value.shape, value.dtype, value.bare)


def _not_sent(shapes: Mapping[str, tuple[int, ...]]) -> PullbackError:
    listed = ", ".join(f"`{name}` {list(shape)}" for name, shape in list(shapes.items())[:_NAMED])
    more = f" and {len(shapes) - _NAMED} more" if len(shapes) > _NAMED else ""
    return PullbackError(
        "bad_parameter",
        f"The program has weights that are not among the inputs: {listed}{more}.",
        at="inputs",
        expected=", ".join(list(shapes)[:_NAMED]),
        fix='Send them in "inputs" under these names (the file of a `state_dict` has them), or add "seed": 0 to have them initialised '
        "as PyTorch does.",
    )
