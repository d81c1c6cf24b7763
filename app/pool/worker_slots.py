"""Where workers compute: how many there are, on which device each, with how many threads and how much memory.

Knows the machine's cores, its GPUs by number and size, and the settings. Refuses to know processes and PyTorch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from app.limits import Limits
from app.machine.memory_budget import Machine, derive
from app.settings import Settings

# The rest is CUDA's own, and what PyTorch's allocator loses between blocks.
_SHARE_OF_GPU: Final = 0.9
# What a small query and its derivatives may take, with the heap that has grown around them.
_LIGHT_BYTES: Final = 256 << 20


@dataclass(frozen=True, slots=True)
class WorkerSlot:
    """One worker's place: `cpu` or `cuda:N`, compute threads, and the memory that it may take, in bytes of that device."""

    device: str
    threads: int
    memory_bytes: int


def places(settings: Settings, gpu_bytes: Sequence[int]) -> tuple[WorkerSlot, ...]:
    """One place for each worker. `gpu_bytes`: the memory of each GPU, in bytes; empty where there is none.

    Raises:
        RuntimeError: the settings ask for CUDA and there is no GPU.
    """
    if settings.device == "cuda" and not gpu_bytes:
        raise RuntimeError("PULLBACK_DEVICE is cuda, but PyTorch sees no GPU here")
    on_gpu = bool(gpu_bytes) and settings.device != "cpu"
    budget = derive(settings, Machine.here())
    count = settings.workers or (len(gpu_bytes) if on_gpu else budget.workers)
    # One core is the front's: threads that share a core with it wait for each other at every barrier (measured: 20 times slower).
    threads = max(1, (budget.machine.cores - 1) // count)
    if not on_gpu:
        return (WorkerSlot("cpu", threads, budget.worker_bytes),) * count
    sharers = -(-count // len(gpu_bytes))
    return tuple(
        WorkerSlot(
            f"cuda:{index % len(gpu_bytes)}",
            threads,
            settings.worker_memory_bytes or int(gpu_bytes[index % len(gpu_bytes)] * _SHARE_OF_GPU) // sharers,
        )
        for index in range(count)
    )


def light_slot(slot: WorkerSlot) -> WorkerSlot:
    """A small worker beside those at `slot`: small queries need little memory, and what needs more goes to the others."""
    return WorkerSlot(slot.device, 1, min(slot.memory_bytes, max(_LIGHT_BYTES, slot.memory_bytes // 8)))


def limits(settings: Settings, place: WorkerSlot) -> Limits:
    """The limits of one query that is answered at `place`; the settings are settled by the budget."""
    return Limits(
        body_bytes=settings.body_limit_bytes,
        result_bytes=settings.result_limit_bytes,
        memory_bytes=place.memory_bytes,
        flops=settings.cost_limit_flops,
    )
