"""`torch.utils.data` in a program: a TensorDataset, and the batches that a DataLoader gives of it in order."""

from __future__ import annotations

from collections.abc import Mapping
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


def batches(emit: Emit, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> list[Value]:
    """`DataLoader(dataset, batch_size=1, shuffle=False, drop_last=False)`: its batches, each a list of tensors."""
    options = dict(zip(("dataset", "batch_size", "shuffle"), args, strict=False)) | dict(kwargs)
    held = options.get("dataset")
    if is_tensor(held):
        held = Dataset((held,))
    if not isinstance(held, Dataset):
        raise Refusal(
            "`DataLoader` gives batches of a `TensorDataset` here.", "Write `DataLoader(TensorDataset(X, y), batch_size=4)`."
        )
    size = static.integer(options.get("batch_size", 1), "`batch_size`")
    if size < 1:
        raise Refusal("`batch_size` is at least 1.")
    if options.get("shuffle") or options.get("sampler") is not None:
        raise Refusal("`DataLoader` goes through its data in order here.", _IN_ORDER)
    stop = held.length - held.length % size if options.get("drop_last") else held.length
    static.check_length(-(-stop // size))
    return [
        [emit("[]", torch.narrow, (tensor, 0, start, min(size, stop - start)), {}) for tensor in held.tensors]
        for start in range(0, stop, size)
    ]
