"""The one stream of random numbers that a program draws from: what PyTorch would draw from another is refused, for it would be other numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import fx

from app.program.reading.source import Refusal
from app.program.semantics import sizes
from app.program.semantics.aside import aside

# Calls that seed; on a generator of the program's own the method of that name.
SEEDING: Final = (
    "manual_seed", "random.manual_seed", "cuda.manual_seed", "cuda.manual_seed_all", "manual_seed_all", "seed_everything",
)  # fmt: skip

_SEEDS: Final = 10**18  # numbers below it are seeds of a query, too


def seed_generators(number: int) -> None:
    """Seed what is drawn from on the CPU, and on a GPU that this process uses.

    `torch.manual_seed` asks every kind of device that there might be, and writes the stack down for three of them: 0.3 ms, as long as a
    small query takes; this takes 2 µs (both measured).
    """
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.manual_seed(number)
    else:
        torch.default_generator.manual_seed(number)


def seeded_anew(number: int) -> torch.Tensor:
    """`torch.manual_seed(number)` after something was drawn: a step that is run, as those that draw are."""
    seed_generators(number)
    return torch.zeros((), dtype=torch.int64)


def gpus_seeded_anew(number: int) -> torch.Tensor:
    """`torch.cuda.manual_seed(number)`, the same; of no matter to what the CPU draws."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(number)
    return torch.zeros((), dtype=torch.int64)


@dataclass(slots=True)
class Randomness:
    """What was drawn so far.

    Attributes:
        stream: the generator that is named where something is drawn, "" for PyTorch's own.
        streams: those that were drawn from.
        begun_anew: of PyTorch's own generator (False) and of others (True) the line that seeded it after something was drawn of it, by what
            is not known here.
        numbers: stream → the number that it was last seeded with before anything was drawn; None where that is not known.
        unclear: several generators were seeded without a name of their own: which of them a name is, is not known.
        others: generators that were drawn from beside the stream, as their seeds are known.
        of_loaders: what data loaders drew before anything else: seeding anew after it loses nothing.
        seed: what the stream that is drawn from was seeded with; None where it was not, or that is not known.
    """

    stream: str = ""
    streams: set[str] = field(default_factory=set)
    begun_anew: dict[bool, int] = field(default_factory=dict)
    numbers: dict[str, int | None] = field(default_factory=dict)
    seed: int | None = None
    of_loaders: list[fx.Node] = field(default_factory=list)
    unclear: bool = False
    others: dict[str, torch.Generator] = field(default_factory=dict)

    def seeded(self, line: int, number: int | None = None, stream: str = "") -> None:
        """`torch.manual_seed(n)`, or the end of `fork_rng`: what is drawn from here on begins anew."""
        if not stream and "" in self.streams:
            self.begun_anew[False] = line
            return
        if stream and any(self.streams):
            self.begun_anew[True] = line
        self.unclear = self.unclear or (
            bool(stream) and not stream.isidentifier() and self.numbers.get(stream, number) != number
        )
        self.numbers[stream] = number
        self.others.pop(stream, None)

    def known(self) -> int | None:
        """What the stream that is named now was seeded with last; None where it was not, or that is not known."""
        if self.stream in self.numbers or not self.stream:
            return self.numbers.get(self.stream)
        # `g = torch.Generator().manual_seed(3)` is drawn from as `g`: where one generator was seeded, it is that one.
        seeded = {name: number for name, number in self.numbers.items() if name}
        own = seeded.get(self.stream.partition(".manual_seed(")[0])  # written where it is drawn from
        return own if own is not None or self.unclear or len(seeded) != 1 else next(iter(seeded.values()))

    def permutation(self, count: int) -> list[int] | None:
        """The numbers below `count` as the generator that is named now gives them, where its seed is known and nothing else comes from it."""
        number = self.known()
        if not self.stream or number is None or self.stream in self.streams:
            return None
        with aside():
            generator = self.others.get(self.stream) or torch.Generator().manual_seed(number)
            if self.stream.isidentifier():
                self.others[self.stream] = generator
            return torch.randperm(count, generator=generator, device="cpu").tolist()

    def draw(self) -> None:
        """Something is drawn. Raises a refusal where it does not come next in the stream of the query's seed."""
        if bool(self.stream) in self.begun_anew:
            raise Refusal(
                f"Line {self.begun_anew[bool(self.stream)]} seeds anew after random numbers were drawn, by what is not known here.",
                "Leave that line out, or seed PyTorch's own generator by a number: `torch.manual_seed(0)`; or send the numbers as inputs.",
            )
        if not self.streams:
            self.seed = self.known()
        self.streams.add(self.stream)
        if len(self.streams) > 1 or self.stream in self.others:
            raise Refusal(
                "The program draws from several generators, and here all numbers come from one seed.",
                "Leave `generator` out everywhere, or send the numbers as inputs.",
            )


def seed_own(trace: Any, emit: Callable[..., Any], line: int, number: Callable[[], Any], *, is_of_gpus: bool) -> bool:
    """`torch.manual_seed(n)`; once something was drawn it is a step like those that draw. Whether it is one.

    Arguments:
        emit: adds a step at the place of the call.
        line: of the call.
        number: evaluates it.
        is_of_gpus: `torch.cuda.manual_seed(n)`, which is of no matter to what the CPU draws.
    """
    randomness = trace.randomness
    if not randomness.streams:
        trace.drawing.difference_update(randomness.of_loaders)
    has_drawn = "" in randomness.streams
    if is_of_gpus and not has_drawn:
        return False
    try:
        seed = number()
    except Refusal:
        seed = None
    seed = seed.settled() if sizes.is_size(seed) else seed
    known = seed if type(seed) is int else -1  # the time of day is an integer of its own kind
    # What the program seeded with first, where that is not known, is the query's seed; with one that is known the two would be mixed.
    if 0 <= known < _SEEDS and not (has_drawn and randomness.numbers.get("", known) is None):
        if has_drawn:
            trace.drawing.add(emit("manual_seed", gpus_seeded_anew if is_of_gpus else seeded_anew, (known,), {}, initial=True))
            if not is_of_gpus:
                randomness.begun_anew.pop(False, None)
            return True
        randomness.seeded(line, known)
    else:
        randomness.seeded(line)
    return False
