"""`torch.utils.data` in a program: a TensorDataset, and the batches that a DataLoader gives of it, in order or shuffled."""

from __future__ import annotations

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
class Reading:
    """What a loader asks of who reads the program.

    Attributes:
        items: the members of what has no length of its own.
        invoke: (function, arguments) → what a function of the program gives.
        numbers: the plain numbers in a tensor.
    """

    items: Callable[[Emit, Value], list[Value]]
    invoke: Callable[[Value, tuple[Value, ...]], Value]
    numbers: Callable[[Emit, Value], list[int]]


@dataclass(slots=True, eq=False)
class Batches:
    """A DataLoader.

    Attributes:
        dataset: what it goes through: a tensor, a Dataset, a list, or an object of the program.
        count: members of the dataset; None where that has no length.
        collate: the function of the program that joins the members of a batch, or None.
        stream: the generator that the order is drawn from, "" for PyTorch's own.
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

    def __len__(self) -> int:
        if self.count is None:
            raise Refusal(
                "This dataset has no length, so its loader has none.", "Give its class `__len__`.", raises="TypeError"
            )
        return self.count // self.batch_size if self.drops_last else -(-self.count // self.batch_size)

    def epoch(self, emit: Emit) -> Generator[Value]:
        """The batches, each when it is taken; a shuffled order is drawn before the first."""
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
                yield self._joined(emit, [self._member(emit, index) for index in where])
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

    def _member(self, emit: Emit, index: int) -> Value:
        if isinstance(self.dataset, Dataset):
            return tuple(emit("[]", torch.select, (tensor, 0, index), {}) for tensor in self.dataset.tensors)
        if is_tensor(self.dataset):
            return emit("[]", torch.select, (self.dataset, 0, index), {})
        getter = special(self.dataset, "__getitem__")
        return self.dataset[index] if getter is None else self.reading.invoke(getter, (index,))

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
    if (loader.has_generator and not loader.is_shuffled) or randomness.begun_anew is not None:  # what comes then is refused
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


def batches(
    reading: Reading, length: Callable[[Value], int | None], stream: str, args: tuple[Value, ...], kwargs: Mapping[str, Value]
) -> Batches:
    """`DataLoader(dataset, batch_size=1, shuffle=False, collate_fn=None, drop_last=False, generator=None)`."""
    options = dict(zip(("dataset", "batch_size", "shuffle"), args, strict=False)) | dict(kwargs)
    held: Any = options.get("dataset")
    size = static.integer(options.get("batch_size", 1), "`batch_size`")
    if size < 1:
        raise Refusal("`batch_size` is at least 1.")
    if options.get("sampler") is not None or options.get("batch_sampler") is not None:
        raise Refusal(
            "`DataLoader` goes through its data in order, or shuffled, here.", "Write `shuffle=True`, or leave it out."
        )
    count = held.length if isinstance(held, Dataset) else example(held).extent(0) if is_tensor(held) else length(held)
    if count is not None:
        static.check_length(-(-count // size))
    has_generator = options.get("generator") is not None
    return Batches(
        held, size, count, bool(options.get("shuffle")), bool(options.get("drop_last")), options.get("collate_fn"),
        has_generator, stream if has_generator else "", reading,
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
