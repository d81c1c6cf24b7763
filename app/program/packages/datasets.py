"""`torch.utils.data` in a program: a TensorDataset, and the batches that a DataLoader gives of it in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch

from app.program.reading.source import Refusal
from app.program.semantics import static
from app.program.semantics.graph_values import Emit, Value, example, is_tensor

_IN_ORDER: Final = "The order that PyTorch shuffles in belongs to its own generator: write `shuffle=False`."


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


class Batches(list):  # type: ignore[type-arg]
    """The batches of a DataLoader, with the data that they are of."""

    dataset: Value = None
    batch_size: int = 1
    has_generator: bool = False


def base_seed() -> torch.Tensor:
    """The number that PyTorch draws where a loop over a DataLoader begins (`_BaseDataLoaderIter`)."""
    return torch.empty((), dtype=torch.int64).random_()


def batches(emit: Emit, own: Callable[[Value], list[Value]], args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> Batches:
    """`DataLoader(dataset, batch_size=1, shuffle=False, drop_last=False)`: its batches.

    Arguments:
        own: the members of a list, or of a dataset of the program's own.
    """
    options = dict(zip(("dataset", "batch_size", "shuffle"), args, strict=False)) | dict(kwargs)
    held = options.get("dataset")
    size = static.integer(options.get("batch_size", 1), "`batch_size`")
    if size < 1:
        raise Refusal("`batch_size` is at least 1.")
    if options.get("shuffle") or options.get("sampler") is not None:
        raise Refusal("`DataLoader` goes through its data in order here.", _IN_ORDER)
    if options.get("collate_fn") is not None:
        raise Refusal(
            "`DataLoader` joins the members of a batch as PyTorch does here.",
            "Leave `collate_fn` out, and join them in the loop.",
        )
    loader = Batches()
    loader.dataset, loader.batch_size = held, size
    loader.has_generator = options.get("generator") is not None
    if is_tensor(held):
        loader += [batch[0] for batch in _cut(emit, Dataset((held,)), size, options)]
    elif isinstance(held, Dataset):
        loader += _cut(emit, held, size, options)
    else:
        members = own(held)
        stop = len(members) - len(members) % size if options.get("drop_last") else len(members)
        loader += [_collated(emit, members[start : min(start + size, stop)]) for start in range(0, stop, size)]
    return loader


def _cut(emit: Emit, held: Dataset, size: int, options: Mapping[str, Value]) -> list[Value]:
    stop = held.length - held.length % size if options.get("drop_last") else held.length
    static.check_length(-(-stop // size))
    return [
        [emit("[]", torch.narrow, (tensor, 0, start, min(size, stop - start)), {}) for tensor in held.tensors]
        for start in range(0, stop, size)
    ]


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
