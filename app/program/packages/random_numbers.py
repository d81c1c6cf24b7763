"""Python's `random` and NumPy's `np.random`: generators that a program seeds itself, so that they draw the very numbers of Python's."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from app.program.packages.numpy_arrays import is_array
from app.program.reading.source import Refusal
from app.program.semantics import sizes, static
from app.program.semantics.graph_values import Value, example, is_tensor
from app.program.semantics.static import named

Called = Callable[[tuple[Value, ...], dict[str, Value]], Value]

# What they draw, and the arguments by position.
_PYTHON: Final = {
    "random": "", "uniform": "a b", "randint": "a b", "randrange": "start stop step", "gauss": "mu sigma", "normalvariate": "mu sigma",
    "expovariate": "lambd", "triangular": "low high mode", "choice": "seq", "choices": "population weights", "sample": "population k",
    "shuffle": "x",
}  # fmt: skip
_NUMPY: Final = {
    "uniform": "low high size", "normal": "loc scale size", "standard_normal": "size", "random": "size", "choice": "a size replace p",
    "permutation": "x", "shuffle": "x", "exponential": "scale size", "binomial": "n p size", "poisson": "lam size", "beta": "a b size",
}  # fmt: skip
_KINDS: Final = {
    "random": _PYTHON,
    "np.random": _NUMPY | {"rand": "", "randn": "", "randint": "low high size", "random_sample": "size"},
    "np.random.default_rng": _NUMPY | {"integers": "low high size"},
}
_SEEDED: Final[dict[str, Callable[[int], Any]]] = {
    "random": random.Random,
    "np.random": np.random.RandomState,
    "np.random.default_rng": np.random.default_rng,
}
_MAKERS: Final = {
    "random.Random": "random",
    "np.random.RandomState": "np.random",
    "np.random.default_rng": "np.random.default_rng",
}
# They take members of any kind, and leave them as they are.
_OF_MEMBERS: Final = ("choice", "choices", "sample", "shuffle")


@dataclass(frozen=True, slots=True)
class Arrays:
    """What NumPy's generators do with arrays of the program.

    Attributes:
        of: numbers → an array of them.
        taken: `array[places]`.
        write: `array[:] = value`.
        spend: counts what is drawn.
    """

    of: Callable[[Any], Value]
    taken: Callable[[Value, Value], Value]
    write: Callable[[Value, Value], None]
    spend: Callable[[int], None]


class Stream:
    """A generator of random numbers beside PyTorch's."""

    def __init__(self, kind: str, seed: Value = None) -> None:
        self._kind = kind
        self.seed(seed)

    def seed(self, seed: Value = None) -> None:
        """Begins anew; without a number as no other run of Python does."""
        self._source = None if seed is None else _seeded(self._kind, seed)

    def call(self, name: str, args: tuple[Value, ...], kwargs: dict[str, Value], arrays: Arrays) -> Value:
        """`random.name(…)`; `arrays` has what concerns arrays."""
        written = f"{self._kind}.{name}"
        if name == "seed" and self._kind != "np.random.default_rng":
            return self.seed(*args, *kwargs.values())
        if name not in _KINDS[self._kind]:
            raise Refusal(f"`{written}` is not in the language.", "Draw with PyTorch (`torch.rand(3)`), or send the numbers.")
        if self._source is None:
            how = f"{self._kind}.seed(0)" if self._kind != "np.random.default_rng" else "np.random.default_rng(0)"
            raise Refusal(f"`{written}` draws other numbers in every run of Python.", f"Seed it before: `{how}`.")
        if args and is_array(args[0]) and name in ("choice", "permutation", "shuffle") and self._kind != "random":
            drawn = "permutation" if name == "shuffle" else name
            taken = arrays.taken(args[0], self.call(drawn, (example(args[0]).extent(0), *args[1:]), kwargs, arrays))
            return taken if drawn == name else arrays.write(args[0], taken)
        options = {**dict(zip(_KINDS[self._kind][name].split(), args, strict=False)), **kwargs}
        if name in ("rand", "randn"):
            options["size"] = args
        arrays.spend(self._cost(written, options))
        args = tuple(value.settled() if sizes.is_size(value) else value for value in args)
        drawn = static.computed(lambda: getattr(self._source, name)(*args, **kwargs), what=f"`{written}`")
        if isinstance(drawn, np.ndarray):
            return arrays.of(drawn.tolist())
        return drawn.item() if isinstance(drawn, np.generic) else drawn

    def _cost(self, written: str, options: dict[str, Value]) -> int:
        """What the drawing counts. Refuses what is no plain value, and what draws more numbers than a list holds."""
        name = written.rpartition(".")[2]
        members: Any = options.get("x", options.get("seq", options.get("population")))
        if is_tensor(members) or (name == "shuffle" and not isinstance(members, list)):
            raise Refusal(f"`{written}` is for lists here, not {named(members)}.", "Make one: `order = list(range(n))`.")
        is_of_members = self._kind == "random" and name in _OF_MEMBERS
        others = [value for value in options.values() if not is_of_members or value is not members]
        static.plain(others)
        size, among = options.get("size"), options.get("a" if name == "choice" else "x")
        extents = [each for each in (size if isinstance(size, list | tuple) else [size]) if isinstance(each, int)]
        counts = [math.prod(map(abs, extents)), *(abs(each) for each in (options.get("k"), among) if isinstance(each, int))]
        through = [len(value) for value in (*others, *([members] if name == "shuffle" else [])) if isinstance(value, list)]
        return 1 + (static.check_length(max(counts)) + sum(through)) // 8  # 0.3 to 1 µs for each, where an expression takes 4


def _seeded(kind: str, seed: Value) -> Any:
    return static.computed(_SEEDED[kind], static.integer(seed, "A seed"), what="The seed")


def resolved(streams: dict[str, Stream], short: str, arrays: Arrays) -> Called | None:
    """What a call of `random.name` or `np.random.name` does, or None; `streams`: those of the modules themselves."""
    if short in _MAKERS:
        return lambda args, kwargs: Stream(_MAKERS[short], args[0] if args else kwargs.get("seed"))
    kind, _, name = short.rpartition(".")
    if kind not in ("random", "np.random") or name.startswith("manual_seed") or name == "fork_rng":
        return None
    return lambda args, kwargs: streams.setdefault(kind, Stream(kind)).call(name, args, kwargs, arrays)
