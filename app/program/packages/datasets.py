"""`torch.utils.data` in a program: a TensorDataset, and the batches that a DataLoader gives of it, in order or shuffled."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch

from app.program.reading.source import Refusal
from app.program.semantics import static, values
from app.program.semantics.graph_values import Emit, Value, example, is_tensor
from app.program.semantics.trace import Trace
from app.program.semantics.values import special

# Names of `torch.utils.data` and their arguments.
NAMES: Final[dict[str, tuple[str, ...]]] = {
    "TensorDataset": (), "DataLoader": (), "Subset": ("dataset", "indices"), "ConcatDataset": ("datasets",), "default_collate": ("batch",),
    "random_split": ("dataset", "lengths", "generator"), "SequentialSampler": ("data_source",), "SubsetRandomSampler": ("indices", "generator"),
    "RandomSampler": ("data_source", "replacement", "num_samples", "generator"), "BatchSampler": ("sampler", "batch_size", "drop_last"),
    "WeightedRandomSampler": ("weights", "num_samples", "replacement", "generator"),
}  # fmt: skip
_CLOSE: Final = 1e-9  # PyTorch takes fractions as such where their sum is that close to 1 (`math.isclose`)
# Methods of what `tqdm(values)` gives, which is those values here.
OF_BARS: Final = (
    "set_postfix", "set_description", "set_postfix_str", "set_description_str", "update", "refresh", "write", "close",
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Tensors with the same first length; its members are tuples of their rows."""

    tensors: tuple[Value, ...]

    @property
    def length(self) -> int:
        return example(self.tensors[0]).extent(0)


def dataset(args: tuple[Value, ...]) -> Dataset:
    """`TensorDataset(X, y)`. Raises a refusal where the tensors have different lengths."""
    if not args or not all(is_tensor(value) and example(value).ndim for value in args):
        raise Refusal("`TensorDataset` takes tensors.", "Write `TensorDataset(X, y)`.")
    if len({example(value).extent(0) for value in args}) > 1:
        raise Refusal("The tensors of a dataset have the same first length.", code="shape_mismatch")
    return Dataset(args)


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """Members of datasets in an order of its own: `Subset(dataset, indices)`, a part of `random_split`, `ConcatDataset([a, b])`.

    Attributes:
        places: for each member the dataset and its number there.
        dataset: the one, or the list of them.
    """

    places: list[tuple[Value, int]]
    dataset: Value

    @property
    def length(self) -> int:
        return len(self.places)

    @property
    def indices(self) -> list[int]:
        return [index for _, index in self.places]


@dataclass(frozen=True, slots=True, eq=False)
class Sampler:
    """`RandomSampler(dataset)` and its like.

    Attributes:
        length: of its members.
        order: gives the members of an epoch, drawn where they are random.
    """

    length: int
    order: Callable[[Emit], list[Value]]


# What has a length.
SIZED: Final = (Dataset, Chosen, Sampler)


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What a loader asks of who reads the program.

    Attributes:
        items: the members of what has no length of its own.
        invoke: (function, arguments) → what a function of the program gives.
        numbers: the plain numbers in a tensor.
        length: of a dataset or a sampler; None where it has none.
    """

    items: Callable[[Emit, Value], list[Value]]
    invoke: Callable[[Value, tuple[Value, ...]], Value]
    numbers: Callable[[Emit, Value], list[int]]
    length: Callable[[Value], int | None]

    def order(self, emit: Emit, sampler: Value) -> list[Value]:
        """The members of an epoch by a sampler, which may be an object of the program."""
        return sampler.order(emit) if isinstance(sampler, Sampler) else self.items(emit, sampler)

    def member(self, emit: Emit, dataset: Value, index: int) -> Value:
        """`dataset[index]`."""
        if isinstance(dataset, Chosen):
            return self.member(emit, *dataset.places[index])
        if isinstance(dataset, Dataset):
            return tuple(emit("[]", torch.select, (tensor, 0, index), {}) for tensor in dataset.tensors)
        if is_tensor(dataset):
            return emit("[]", torch.select, (dataset, 0, index), {})
        getter = special(dataset, "__getitem__")
        return dataset[index] if getter is None else self.invoke(getter, (index,))


@dataclass(slots=True, eq=False)
class Batches:
    """A DataLoader.

    Attributes:
        dataset: what it goes through: a tensor, a Dataset, a list, or an object of the program.
        count: members of the dataset; None where that has no length.
        collate: the function of the program that joins the members of a batch, or None.
        stream: the generator that the order is drawn from, "" for PyTorch's own.
        sampler: what gives the numbers of the members, or None.
        batch_sampler: what gives those of each batch, or None.
    """

    dataset: Value
    batch_size: int
    count: int | None
    is_shuffled: bool
    drops_last: bool
    collate: Value
    has_generator: bool
    stream: str
    reading: Reading
    sampler: Value = None
    batch_sampler: Value = None

    def __len__(self) -> int:
        if self.count is None:
            raise Refusal(
                "This dataset has no length, so its loader has none.", "Give its class `__len__`.", raises="TypeError"
            )
        return self.count // self.batch_size if self.drops_last else -(-self.count // self.batch_size)

    def epoch(self, emit: Emit) -> Generator[Value]:
        """The batches, each when it is taken; a shuffled order is drawn before the first."""
        if self.batch_sampler is not None:
            for batch in self.reading.order(emit, self.batch_sampler):
                yield self._of(emit, self.reading.items(emit, batch))
            return
        if self.sampler is not None:
            sampled = self.reading.order(emit, self.sampler)
            for start in range(0, len(sampled), self.batch_size):
                if len(sampled) - start >= self.batch_size or not self.drops_last:
                    yield self._of(emit, sampled[start : start + self.batch_size])
            return
        if self.count is None:
            yield from self._cut(emit, self.reading.items(emit, self.dataset))
            return
        order = None
        if self.is_shuffled:
            name = _permutation_of if self.has_generator else permutation
            order = emit("DataLoader", name, (self.count,), {}, random=True)
        stop = self.count - self.count % self.batch_size if self.drops_last else self.count
        is_rows = self.collate is None and (is_tensor(self.dataset) or isinstance(self.dataset, Dataset))
        numbers = None if order is None or is_rows else self.reading.numbers(emit, order)
        for start in range(0, stop, self.batch_size):
            size = min(self.batch_size, stop - start)
            if is_rows:
                yield self._rows(emit, order, start, size)
            else:
                where = range(start, start + size) if numbers is None else numbers[start : start + size]
                yield self._of(emit, list(where))
        if self.is_shuffled and self.has_generator:  # RandomSampler draws another order, of which it takes nothing
            emit("DataLoader", _permutation_of, (self.count,), {}, random=True)

    def _rows(self, emit: Emit, order: Value, start: int, size: int) -> Value:
        tensors = self.dataset.tensors if isinstance(self.dataset, Dataset) else (self.dataset,)
        if order is None:
            parts = [emit("[]", torch.narrow, (tensor, 0, start, size), {}) for tensor in tensors]
        else:
            where = emit("[]", torch.narrow, (order, 0, start, size), {})
            parts = [emit("[]", torch.index_select, (tensor, 0, where), {}) for tensor in tensors]
        return parts if isinstance(self.dataset, Dataset) else parts[0]

    def _of(self, emit: Emit, numbers: list[Value]) -> Value:
        """The batch of the members of these numbers."""
        known = [self.reading.numbers(emit, number) if is_tensor(number) else number for number in numbers]
        plain = [static.integer(number, "A number of a sampler") for number in known]
        return self._joined(emit, [self.reading.member(emit, self.dataset, number) for number in plain])

    def _cut(self, emit: Emit, members: Sequence[Value]) -> Generator[Value]:
        for start in range(0, len(members), self.batch_size):
            batch = list(members[start : start + self.batch_size])
            if len(batch) == self.batch_size or not self.drops_last:
                yield self._joined(emit, batch)

    def _joined(self, emit: Emit, members: list[Value]) -> Value:
        return _collated(emit, members) if self.collate is None else self.reading.invoke(self.collate, (members,))


def epoch(trace: Trace, emit: Emit, loader: Batches) -> values.Iterator:
    """The batches of a loop over a DataLoader, which begins with a number drawn for its workers, whether it has any."""
    with _drawing(trace, loader):
        _begin(trace, emit, loader)
    return values.Iterator(_drawn(trace, emit, loader))


def _drawn(trace: Trace, emit: Emit, loader: Batches) -> Generator[Value]:
    batches, end = loader.epoch(emit), object()
    while True:
        with _drawing(trace, loader):
            batch = next(batches, end)
        if batch is end:
            return
        yield batch


@contextmanager
def _drawing(trace: Trace, loader: Batches) -> Generator[None]:
    """What is drawn here comes from the loader's own generator."""
    outer, trace.randomness.stream = trace.randomness.stream, loader.stream
    try:
        yield
    finally:
        trace.randomness.stream = outer


def _begin(trace: Trace, emit: Emit, loader: Batches) -> None:
    """Draws the number of a loader: what is drawn later comes after it."""
    randomness = trace.randomness
    if (loader.has_generator and not loader.is_shuffled) or bool(
        loader.stream
    ) in randomness.begun_anew:  # what comes then is refused
        return
    is_first = not randomness.streams
    node = emit("DataLoader", base_seed, (), {}, random=True, initial=True)
    if is_first:
        randomness.streams.clear()
        randomness.of_loaders.append(node)


def base_seed() -> torch.Tensor:
    """The number that PyTorch draws where a loop over a DataLoader begins (`_BaseDataLoaderIter`)."""
    return torch.empty((), dtype=torch.int64).random_()


def permutation(count: int) -> torch.Tensor:
    """The order of a shuffled epoch, from a seed that PyTorch draws for it (`RandomSampler`)."""
    generator = torch.Generator()
    generator.manual_seed(int(torch.empty((), dtype=torch.int64).random_().item()))
    return torch.randperm(count, generator=generator, device=generator.device)


def _permutation_of(count: int) -> torch.Tensor:
    """The order of a shuffled epoch, from the loader's own generator."""
    return torch.randperm(count)


def _like_an_order(count: int) -> torch.Tensor:
    return torch.empty(count, dtype=torch.int64)


for _function in (permutation, _permutation_of):  # what stands for them while a program is read on tensors without values
    _function.abstract, _function.draws = _like_an_order, True  # type: ignore[attr-defined]


def called(
    reading: Reading, trace: Trace, name: str, emit: Emit, args: tuple[Value, ...], kwargs: Mapping[str, Value]
) -> Value:
    """`torch.utils.data.NAME(*args, **kwargs)`."""
    if name in ("TensorDataset", "DataLoader"):
        return dataset(args) if name == "TensorDataset" else batches(reading, trace.randomness.stream, args, kwargs)
    options = dict(zip(NAMES[name], args, strict=False)) | dict(kwargs)
    if not options.keys() <= set(NAMES[name]):
        raise Refusal(f"`{name}` takes {', '.join(NAMES[name])}.", "Compare the call with PyTorch's page of it.")
    held: Any = next(iter(options.values()), None)
    if name == "default_collate":
        return _collated(emit, reading.items(emit, held))
    if name == "Subset":
        numbers = options.get("indices")
        return _part(reading, held, reading.numbers(emit, numbers) if is_tensor(numbers) else reading.items(emit, numbers))
    if name == "ConcatDataset":
        parts = reading.items(emit, held)
        return Chosen([(part, index) for part in parts for index in range(reading.length(part) or 0)], parts)
    if name == "random_split" and len(args) < 3:  # a generator that has no name here may be any
        return _split(reading, trace, emit, held, reading.items(emit, options.get("lengths")))
    if options.pop("generator", None) is not None:
        raise Refusal(f"`{name}` draws from PyTorch's own generator here.", "Leave `generator` out, or write `generator=…`.")
    return _sampler(reading, emit, name, held, options)


def _part(reading: Reading, held: Value, numbers: list[Value]) -> Chosen:
    count = reading.length(held)
    plain = [static.integer(number, "An index of `Subset`") for number in numbers]
    static.check_length(len(plain))
    if count is not None and any(not -count <= number < count for number in plain):
        raise Refusal(f"The dataset has {count} members, and the numbers of a part lie below that.", raises="IndexError")
    return Chosen([(held, number) for number in plain], held)


def _split(reading: Reading, trace: Trace, emit: Emit, held: Value, lengths: list[Value]) -> list[Chosen]:
    """`random_split(dataset, [30, 10])`, or by fractions whose sum is 1."""
    count = reading.length(held) or 0
    are_fractions = bool(lengths) and all(isinstance(length, float | int) and length <= 1 for length in lengths)
    if are_fractions and abs(sum(lengths) - 1) < _CLOSE:
        floors = [math.floor(count * fraction) for fraction in lengths]
        lengths = [length + (index < count - sum(floors)) for index, length in enumerate(floors)]
    sizes = [static.integer(length, "A length of `random_split`") for length in lengths]
    if sum(sizes) != count:
        raise Refusal(f"The lengths add up to {sum(sizes)}; the dataset has {count} members.", raises="ValueError")
    static.check_length(count)
    order = trace.randomness.permutation(count)
    if order is None:
        order = _sampled(reading, emit, "random_split", _permutation_of, count)
    ends = list(itertools.accumulate(sizes))
    return [_part(reading, held, order[end - size : end]) for size, end in zip(sizes, ends, strict=True)]


def _sampler(reading: Reading, emit: Emit, name: str, held: Value, options: Mapping[str, Any]) -> Sampler:
    """`torch.utils.data.RandomSampler(dataset)` and the others."""
    count = 0 if name == "WeightedRandomSampler" else reading.length(held) or 0
    if name == "BatchSampler":
        size, drops = static.integer(options.get("batch_size"), "`batch_size`"), bool(options.get("drop_last"))

        def grouped(emit: Emit) -> list[Value]:
            order = reading.order(emit, held)
            stop = len(order) - len(order) % size if drops else len(order)
            return [order[start : start + size] for start in range(0, stop, size)]

        return Sampler(count // size if drops else -(-count // size), grouped)
    if name == "WeightedRandomSampler":
        size, again = static.integer(options.get("num_samples"), "`num_samples`"), bool(options.get("replacement", True))
        static.check_length(size)
        held = held if is_tensor(held) else emit("tensor", torch.tensor, (held,), {})
        weights = emit("to", torch.Tensor.to, (held, torch.float64), {})
        return Sampler(size, lambda emit: _sampled(reading, emit, name, torch.multinomial, weights, size, again))
    if name == "SubsetRandomSampler":
        numbers = reading.numbers(emit, held) if is_tensor(held) else reading.items(emit, held)
        count = len(numbers)
        return Sampler(count, lambda emit: [numbers[index] for index in _sampled(reading, emit, name, _permutation_of, count)])
    if name == "SequentialSampler":
        return Sampler(count, lambda emit: list(range(count)))
    if options.get("replacement") or options.get("num_samples") not in (None, count):
        raise Refusal("`RandomSampler` goes through all members once here.", "Write `shuffle=True`.")
    return Sampler(count, lambda emit: _sampled(reading, emit, name, permutation, count))


def _sampled(reading: Reading, emit: Emit, name: str, function: Callable[..., Any], *args: Value) -> list[Value]:
    return reading.numbers(emit, emit(name, function, args, {}, random=True))


def batches(reading: Reading, stream: str, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> Batches:
    """`DataLoader(dataset, batch_size=1, shuffle=False, collate_fn=None, drop_last=False, generator=None)`."""
    options = dict(zip(("dataset", "batch_size", "shuffle", "sampler", "batch_sampler"), args, strict=False)) | dict(kwargs)
    held: Any = options.get("dataset")
    size = static.integer(options.get("batch_size", 1), "`batch_size`")
    if size < 1:
        raise Refusal("`batch_size` is at least 1.")
    sampler, batch_sampler = options.get("sampler"), options.get("batch_sampler")
    by = batch_sampler if sampler is None else sampler
    count = reading.length(held if by is None else by)
    size = 1 if batch_sampler is not None else size
    if count is not None:
        static.check_length(-(-count // size))
    has_generator = options.get("generator") is not None
    return Batches(
        held, size, count, bool(options.get("shuffle")), bool(options.get("drop_last")), options.get("collate_fn"),
        has_generator, stream if has_generator else "", reading, sampler, batch_sampler,
    )  # fmt: skip


def _collated(emit: Emit, members: list[Value]) -> Value:
    """PyTorch's `default_collate`: tensors are stacked, numbers become tensors, tuples and dicts are joined member by member."""
    first = members[0]
    if is_tensor(first):
        return emit("stack", torch.stack, (members,), {})
    if isinstance(first, tuple | list):
        return [_collated(emit, list(parts)) for parts in zip(*members, strict=True)]
    if isinstance(first, dict):
        return {key: _collated(emit, [member[key] for member in members]) for key in first}
    if isinstance(first, str):
        return members
    if static.is_number(first):
        kind = torch.float64 if isinstance(first, float) else None
        return emit("tensor", torch.tensor, (members,), {} if kind is None else {"dtype": kind})
    raise Refusal(f"`DataLoader` does not join {static.named(first)}.", "Let the dataset give tensors, or tuples of them.")
