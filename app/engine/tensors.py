"""TensorData ↔ torch.Tensor, without a copy where the bytes allow it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from app.catalogue.call import DTYPES
from app.program.semantics.randomness import seed_generators
from app.query import SparseData, TensorData

Argument = TypeVar("Argument")
Result = TypeVar("Result")
NAMES: Final[dict[torch.dtype, str]] = {dtype: name for name, dtype in DTYPES.items()}
# Those that NumPy has and no mark conjugates: what is contiguous of them is handed on as it stands.
_PLAIN_NAMES: Final = {dtype: NAMES[dtype] for dtype in (torch.float64, torch.float32, torch.int64, torch.bool)}
# What a result of another dtype is sent as (PyTorch's unsigned 16 to 64 bit and float8 are not in the contract).
_WIDER: Final[dict[torch.dtype, torch.dtype]] = {
    torch.uint16: torch.int32,
    torch.uint32: torch.int64,
    torch.uint64: torch.int64,
    torch.complex32: torch.complex64,
}
# The math library's last bits depend on where a matrix begins (measured: `matmul`, `lstsq` at eight offsets); PyTorch's own memory
# begins at a multiple of 64. Above this size the copy would cost more than the computation of most.
_ALIGNED_UP_TO_BYTES: Final = 1 << 20
_ALIGNMENT_BYTES: Final = 64
_COPIED_UP_TO_BYTES: Final = 16 << 10  # to copy it takes a microsecond, and whoever keeps it keeps no memory of a whole body
# PyTorch keeps pinned memory for good, in blocks of powers of two; what is larger than a slab (memory_budget.py) the CPU copies.
_PINNED_UP_TO_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True, eq=False)
class SparseTensor:
    """A result by coordinates: `indices` `[rank, entries]`, int64, row-major, without duplicates; `values` `[entries]`.

    `holds`: the pattern is the same for any values of these shapes (`everywhere`), or is that of this point (`here`).
    """

    shape: tuple[int, ...]
    indices: Tensor
    values: Tensor
    holds: Literal["everywhere", "here"]


def sparse_from_torch(tensor: SparseTensor) -> SparseData:
    """Its bytes, as `from_torch`."""
    values = from_torch(tensor.values)
    return SparseData(values.dtype, tensor.shape, from_torch(tensor.indices), values, tensor.holds)


def to_torch(data: TensorData, device: str) -> Tensor:
    """The tensor of `data` on `device`; on the CPU a large one shares the bytes where they are writable and begin where its own would."""
    dtype = DTYPES[data.dtype]
    size = data.data.nbytes
    if size == 0:
        return torch.empty(data.shape, dtype=dtype, device=device)
    shared = None if data.data.readonly or size <= _COPIED_UP_TO_BYTES else torch.frombuffer(data.data, dtype=dtype)
    if shared is None or (size <= _ALIGNED_UP_TO_BYTES and shared.data_ptr() % _ALIGNMENT_BYTES):
        copied = torch.empty(data.shape, dtype=dtype, device="cpu")
        array = copied.numpy() if dtype in _PLAIN_NAMES else copied.view(-1).view(torch.uint8).numpy()
        array.data.cast("B")[:] = data.data
        return copied if device == "cpu" else _to_gpu(copied, device)
    tensor = shared.view(data.shape)
    return tensor if device == "cpu" else _to_gpu(tensor, device)


def _to_gpu(tensor: Tensor, device: str) -> Tensor:
    """Through pinned memory, from which the GPU fetches by itself, beside what it computes: a cotangent while the forward is on its way,
    an input while the CPU copies the next.
    """
    if tensor.nbytes > _PINNED_UP_TO_BYTES:
        return tensor.to(device)
    pinned = tensor.pin_memory()  # the allocator does not use it again before it was fetched
    computing, copying = torch.cuda.current_stream(device), _copying(device)
    with torch.cuda.stream(copying):
        moved = pinned.to(device, non_blocking=True)
    computing.wait_stream(copying)
    # The allocator knows it as the copying stream's, and must not give its memory away before the computing one is through with it.
    moved.record_stream(computing)
    return moved


@cache
def _copying(device: str) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _from_gpu(tensor: Tensor) -> Tensor:
    """On the CPU, in pinned memory, which the GPU writes at the pace of the bus; it is used again and again."""
    if not 0 < tensor.nbytes <= _PINNED_UP_TO_BYTES:
        return tensor.cpu()
    host = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    torch.cuda.current_stream(tensor.device).synchronize()
    return host


def seeding(number: int | None, read: Callable[[Argument], Result]) -> Callable[[Argument], Result]:
    """`read`, which draws what a run of the same seed draws: numbers that decide how a program goes on are those of its answer."""

    def seeded(value: Argument) -> Result:
        if number is not None:
            seed_generators(number)
        return read(value)

    return seeded


def name_of(dtype: torch.dtype) -> str:
    """The contract's name of the dtype that a result of `dtype` is sent in."""
    return NAMES[dtype if dtype in NAMES else _WIDER.get(dtype, torch.float32)]


def from_torch(tensor: Tensor) -> TensorData:
    """The bytes of `tensor`; they are shared with it where it is contiguous and on the CPU."""
    name = _PLAIN_NAMES.get(tensor.dtype)
    if name is not None and tensor.layout is torch.strided and tensor.is_cpu and tensor.is_contiguous():
        tensor = tensor.detach()
        if not (tensor.is_neg() or tensor._is_zerotensor()):
            array = tensor.numpy()
            return TensorData(name, array.shape, array.reshape(-1).view(np.uint8).data)
    tensor = tensor.detach().resolve_conj().resolve_neg()
    if tensor.dtype not in NAMES:
        tensor = tensor.to(_WIDER.get(tensor.dtype, torch.float32))
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if tensor.device.type != "cpu":
        tensor = _from_gpu(tensor)
    shape = tuple(tensor.shape)
    if tensor._is_zerotensor():  # forward mode's own zeros, which have no memory
        tensor = torch.zeros(shape, dtype=tensor.dtype, device="cpu")
    flat = tensor.contiguous().flatten()
    if flat.stride(0) != 1:  # a single element counts as contiguous whatever its stride
        flat = flat.clone(memory_format=torch.contiguous_format).as_strided(flat.shape, (1,))
    flat = flat.view(torch.uint8)
    return TensorData(NAMES[tensor.dtype], shape, memoryview(flat.numpy().data))


def is_differentiable(dtype: torch.dtype) -> bool:
    """Floating and complex dtypes can carry a derivative."""
    return dtype.is_floating_point or dtype.is_complex


def is_narrow(dtype: torch.dtype) -> bool:
    """What is finite in float64 may be infinite in it."""
    return is_differentiable(dtype) and dtype not in (torch.float64, torch.complex128)


def fourth_powers(value: Tensor) -> Tensor:
    """Their sum: finite wherever no norm up to the fourth overflows, nor a sum of squares and its own square."""
    return value.abs().square().square().sum()
