"""Where workers compute: how many there are, on which device each, with how many threads and how much memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from app.limits import Limits
from app.machine.memory_budget import MEBIBYTE, Machine, derive
from app.settings import Settings

# Of each process on a GPU before it computes anything: CUDA's context, kernels that it has loaded, the libraries' handles. Of
# PyTorch processes others report 300 to 550 MB; not measured here.
_CONTEXT_BYTES: Final = 600 * MEBIBYTE
# The rest is for what PyTorch's allocator does not count: CUDA graphs, kernels' stacks; not measured.
_SHARE_OF_GPU: Final = 0.95
_LEAST_GPU_BYTES: Final = 256 * MEBIBYTE  # half of what a useful worker has on the CPU (memory_budget.py); not measured


@dataclass(frozen=True, slots=True)
class WorkerSlot:
    """Where one worker computes: `cpu` or `cuda:N`, compute threads, and the memory that it may take, in bytes of that device.

    `slab_bytes`: of the memory that it shares with the front for large bodies; 0 = none.
    """

    device: str
    threads: int
    memory_bytes: int
    slab_bytes: int = 0


def worker_slots(settings: Settings, gpu_bytes: Sequence[int]) -> tuple[WorkerSlot, ...]:
    """One slot for each worker. `gpu_bytes`: the memory of each GPU, in bytes; empty where there is none.

    Raises:
        RuntimeError: the settings ask for CUDA and there is no GPU, or for more workers than have room on those that are.
    """
    if settings.device == "cuda" and not gpu_bytes:
        raise RuntimeError("PULLBACK_DEVICE is cuda, but PyTorch sees no GPU here")
    on_gpu = bool(gpu_bytes) and settings.device != "cpu"
    budget = derive(settings, Machine.here())
    count = settings.workers or (len(gpu_bytes) if on_gpu else budget.workers)
    # One core is each front's: threads that share a core with it wait for each other at every barrier (measured: 20 times slower).
    threads = max(1, (budget.machine.cores - budget.fronts) // count)
    if not on_gpu:
        return (WorkerSlot("cpu", threads, budget.worker_bytes, budget.slab_bytes),) * count
    # Reckoned for a worker on each core, so there is room for no more of them.
    slab_bytes = budget.slab_bytes if count <= budget.workers else 0
    shares = [
        settings.worker_memory_bytes or _share(total, len(range(gpu, count, len(gpu_bytes))))
        for gpu, total in enumerate(gpu_bytes[:count])
    ]
    return tuple(
        WorkerSlot(f"cuda:{index % len(gpu_bytes)}", threads, shares[index % len(gpu_bytes)], slab_bytes)
        for index in range(count)
    )


def _share(gpu_bytes: int, sharers: int) -> int:
    """What PyTorch's allocator may take for each of so many workers on one GPU. Raises RuntimeError where that is too little."""
    share = int((gpu_bytes * _SHARE_OF_GPU - sharers * _CONTEXT_BYTES) / sharers)
    if share < _LEAST_GPU_BYTES:
        room = int(gpu_bytes * _SHARE_OF_GPU) // (_CONTEXT_BYTES + _LEAST_GPU_BYTES)
        raise RuntimeError(
            f"PULLBACK_WORKERS puts {sharers} workers on a GPU of {gpu_bytes:,} bytes, which has room for {room}"
        )
    return share


def light_slot(settings: Settings, slots_beside: Sequence[WorkerSlot]) -> WorkerSlot | None:
    """A small worker beside those others; None where there is no memory for one, or where they are on GPUs.

    Small queries need little memory, and what needs more goes to the others. A process on a GPU takes seconds to start and some
    hundred megabytes of the device.
    """
    light_bytes = derive(settings, Machine.here()).light_bytes
    if not light_bytes or any(slot.device != "cpu" for slot in slots_beside):
        return None
    return WorkerSlot("cpu", 1, light_bytes)


def limits(settings: Settings, slot: WorkerSlot) -> Limits:
    """The limits of one query that is answered at `slot`."""
    settings = derive(settings, Machine.here()).settled(settings)
    return Limits(
        body_bytes=settings.body_limit_bytes,
        result_bytes=settings.result_limit_bytes,
        memory_bytes=slot.memory_bytes,
        flops=settings.cost_limit_flops,
    )
