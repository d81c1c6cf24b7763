"""The one stream of random numbers that a program draws from: what PyTorch would draw from another is refused, for it would be other numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from torch import fx

from app.program.reading.source import Refusal

# Calls that seed; on a generator of the program's own the method of that name.
SEEDING: Final = (
    "manual_seed", "random.manual_seed", "cuda.manual_seed", "cuda.manual_seed_all", "manual_seed_all", "seed_everything",
)  # fmt: skip


@dataclass(slots=True)
class Randomness:
    """What was drawn so far.

    Attributes:
        stream: the generator that is named where something is drawn, "" for PyTorch's own.
        streams: those that were drawn from.
        begun_anew: the line that seeded after something was drawn.
        numbers: stream → the number that it was last seeded with before anything was drawn; None where that is not known.
        of_loaders: what data loaders drew before anything else: seeding anew after it loses nothing.
        seed: what the stream that is drawn from was seeded with; None where it was not, or that is not known.
    """

    stream: str = ""
    streams: set[str] = field(default_factory=set)
    begun_anew: int | None = None
    numbers: dict[str, int | None] = field(default_factory=dict)
    seed: int | None = None
    of_loaders: list[fx.Node] = field(default_factory=list)

    def seeded(self, line: int, number: int | None = None, stream: str = "") -> None:
        """`torch.manual_seed(n)`, or the end of `fork_rng`: what is drawn from here on begins anew."""
        self.seeded_elsewhere(line)
        self.numbers[stream] = number

    def seeded_elsewhere(self, line: int) -> None:
        """`torch.cuda.manual_seed(n)`: refused as any other where something was drawn, and of no matter to what the CPU draws."""
        if self.streams:
            self.begun_anew = line

    def draw(self) -> None:
        """Something is drawn. Raises a refusal where it does not come next in the stream of the query's seed."""
        if self.begun_anew is not None:
            raise Refusal(
                f"Line {self.begun_anew} seeds anew after random numbers were drawn, and here all come from one seed, one after the other.",
                "Leave that line out, and where the same numbers are needed twice draw them once; or send them as inputs.",
            )
        if not self.streams:
            # `g = torch.Generator().manual_seed(3)` is drawn from as `g`: where one generator was seeded, it is that one.
            known = [number for name, number in self.numbers.items() if name]
            self.seed = self.numbers.get(self.stream, known[0] if self.stream and len(known) == 1 else None)
        self.streams.add(self.stream)
        if len(self.streams) > 1:
            raise Refusal(
                "The program draws from several generators, and here all numbers come from one seed.",
                "Leave `generator` out everywhere, or send the numbers as inputs.",
            )
