"""The tensors of a query that comes again: where the numbers of each that came are written, or read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from app.catalogue.call import DTYPES
from app.engine.planning.build import leaves_of
from app.engine.tensors import to_torch
from app.query import Input, TensorData

Form: TypeAlias = Literal["q", "d", "f", "B"]
FORMATS: Final[dict[str, Form]] = {"int64": "q", "float64": "d", "float32": "f"}
# What a tensor's bytes are until they come.
_NOTHING: Final = memoryview(b"")
# Of a tensor that is sent as its bytes: up to here memory of its own is kept, as making it anew takes longer than the copy; a recipe's
# memory is bounded, so that large ones would push others out.
_HELD_BYTES: Final = 16 << 10


class Buffer(NamedTuple):
    """A tensor of the query.

    Attributes:
        sent, start, stop: its numbers are those from `start` to `stop` of the tensors that were sent; `stop` None: all of them.
        memory: of `tensor`, where they are written.
        dtype: what it is computed in, where that is another than `tensor` has.
        derived: it is differentiated by.
        plain: the same memory, of which no gradient is asked.
    """

    sent: int
    start: int
    stop: int | None
    memory: memoryview[int] | memoryview[float]
    tensor: Tensor
    dtype: torch.dtype | None
    derived: bool
    plain: Tensor

    def filled(self, numbers: Sequence[Any]) -> Tensor:
        """The tensor with the numbers of a query."""
        plain = self.undifferentiated(numbers)
        return self.tensor if self.dtype is None else plain.requires_grad_(self.derived)

    def undifferentiated(self, numbers: Sequence[Any]) -> Tensor:
        """The same, which no gradient is asked of."""
        self.memory[:] = self.own(numbers)
        return self.plain if self.dtype is None else self.plain.to(self.dtype)

    def own(self, numbers: Sequence[Any]) -> Any:
        """Those of a query's numbers that are its own."""
        sent = numbers[self.sent]
        return sent if self.stop is None else sent[self.start : self.stop]

    def blank(self) -> Tensor:
        """Zeros of the dtype and shape that it is sent in."""
        return torch.zeros_like(self.plain)

    @property
    def bytes(self) -> int:
        return self.tensor.nbytes


class Bytes(NamedTuple):
    """A large tensor of the query that is sent as its bytes: those numbered `sent`. Attributes as of `Buffer`; nothing is kept."""

    sent: int
    form: TensorData
    dtype: torch.dtype
    derived: bool
    bytes: int = 0

    def filled(self, numbers: Sequence[Any]) -> Tensor:
        """The tensor of the bytes that came, as the engine reads them."""
        return self.undifferentiated(numbers).requires_grad_(self.derived)

    def undifferentiated(self, numbers: Sequence[Any]) -> Tensor:
        """The same, which no gradient is asked of."""
        data = TensorData(self.form.dtype, self.form.shape, memoryview(numbers[self.sent]))
        return to_torch(data, "cpu").to(self.dtype)

    def own(self, numbers: Sequence[Any]) -> Any:
        """Those of a query's bytes that are its own."""
        return numbers[self.sent]

    def blank(self) -> Tensor:
        """Zeros of the dtype and shape that it is sent in."""
        return torch.zeros(self.form.shape, dtype=DTYPES[self.form.dtype])


def buffers_of(
    sent: Mapping[str, Input], dtypes: Mapping[str, torch.dtype], wrt: Sequence[str], first: int, pinned: bool
) -> Iterator[tuple[str, Buffer]]:
    """By its leaf's name, one for each tensor that is sent in lists of numbers, counted from `first`; in pinned memory for a GPU."""
    for index, (name, value) in enumerate(sent.items(), first):
        whole, start = isinstance(value, TensorData), 0
        for leaf, data in leaves_of({name: value}):
            span = (index, start, None if whole else start + math.prod(data.shape))
            yield leaf, _buffer(span, data, FORMATS[data.dtype], dtypes[leaf], leaf in wrt, pinned)
            start += math.prod(data.shape)


def bytes_of(
    field: str,
    sent: Mapping[str, Input],
    dtypes: Mapping[str, torch.dtype],
    wrt: Sequence[str],
    names: Sequence[str],
    pinned: bool,
) -> Iterator[tuple[str, Buffer | Bytes]]:
    """The same of tensors that are sent as their bytes. Raises ValueError where one is not among those that are."""
    for leaf, data in leaves_of(sent):
        index = names.index(f"{field}.{leaf}")
        if data.data.nbytes <= _HELD_BYTES:
            yield leaf, _buffer((index, 0, None), data, "B", dtypes[leaf], leaf in wrt, pinned)
        else:
            yield leaf, Bytes(index, TensorData(data.dtype, data.shape, _NOTHING), dtypes[leaf], leaf in wrt)


def _buffer(
    span: tuple[int, int, int | None], data: TensorData, form: Form, computed: torch.dtype, derived: bool, pinned: bool
) -> Buffer:
    """Arguments: span: the fields `sent`, `start`, `stop`; form: of what is written; computed: the dtype that it is computed in."""
    dtype = DTYPES[data.dtype]
    tensor = torch.empty(data.shape, dtype=dtype, device="cpu", pin_memory=pinned)
    memory = memoryview(tensor.view(-1).view(torch.uint8).numpy().data).cast("B").cast(form)
    tensor.requires_grad_(derived and computed == dtype)
    return Buffer(*span, memory, tensor, None if computed == dtype else computed, derived, tensor.detach())
