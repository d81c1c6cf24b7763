"""The budget: what this machine has, and how the front, the workers and the queue share its memory, derived once.

All that may be held at the same time adds up to less than the limit of the machine or its container, whatever that is: the front at
rest, the warm parent, each worker with the memory that it may map, the light worker that may stand beside them, and the queue, whose
bytes are those of bodies and replies that the front holds. A setting that is given counts; what is left to us is derived from the rest.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.machine import cgroups
from app.settings import Settings

MEBIBYTE: Final = 1 << 20  # IEC 80000-13

# Resident memory that is not shared, measured on x86 with PyTorch 2.13 and rounded up. The front at rest: 70 MiB.
FRONT_BYTES: Final = 96 * MEBIBYTE
# The warm parent with PyTorch imported: 240 MiB with the CPU build, 380 with the CUDA build, whose libraries are larger.
PARENT_BYTES: Final = 256 * MEBIBYTE
PARENT_WITH_CUDA_BYTES: Final = 400 * MEBIBYTE
# The parent of several fronts: 36 MiB.
FRONTS_PARENT_BYTES: Final = 48 * MEBIBYTE
# A front feeds one to two workers that do nothing but small queries, and a dozen with longer ones. With four workers it seldom has none
# idle while another front has; and it needs some 350 MiB for itself and its warm parent of workers, so no more than a tenth of the memory.
_WORKERS_OF_A_FRONT: Final = 4
_MEMORY_OF_A_FRONT: Final = 4096 * MEBIBYTE
_MOST_FRONTS: Final = 8
# What a worker writes to of the pages that it shares with its parent: 3 MiB after its start, 35 after queries of many kinds.
WORKER_BYTES: Final = 64 * MEBIBYTE
# The light worker takes a quarter of what each other has, no less than a softmax of ten and its derivatives need, and no more than a small
# query can use. Where the others would be left with less than the last of these, there is none.
_LIGHT_SHARE: Final = 4
_LEAST_LIGHT_BYTES: Final = 32 * MEBIBYTE
_MOST_LIGHT_BYTES: Final = 256 * MEBIBYTE
_LIGHT_FROM_BYTES: Final = 96 * MEBIBYTE
# Of what a worker would have, the memory that it shares with the front for large bodies: for each way room for two of 16 MiB at most, which
# one copy moves in 1 to 3 ms; less than 4 MiB each way, which it moves in 0.3 ms, helps few bodies (measured).
_SLAB_SHARE: Final = 16
_MOST_SLAB_BYTES: Final = 64 * MEBIBYTE
_LEAST_SLAB_BYTES: Final = 8 * MEBIBYTE
# The rest is for page tables, what malloc loses between blocks, and the kernel's buffers of connections.
_SHARE: Final = 0.93
_QUEUE_SHARE: Final = 0.25  # of the room, for bodies and replies in the front; the workers, in which they take several times as much, have the rest
# Where memory is short for its cores, fewer workers with so much each answer more than many that refuse: Hessians and long programs.
_USEFUL_WORKER_BYTES: Final = 512 * MEBIBYTE
_SMALL_WORKER_BYTES: Final = 96 * MEBIBYTE
# Under these nothing works at all.
LEAST_WORKER_BYTES: Final = 32 * MEBIBYTE
LEAST_QUEUE_BYTES: Final = 8 * MEBIBYTE
# Above these nobody is helped: a larger tensor than this is better computed where it is.
_MOST_BODY_BYTES: Final = 256 * MEBIBYTE
_MOST_QUEUE_BYTES: Final = 1024 * MEBIBYTE
_MOST_QUEUE_BYTES_A_CORE: Final = 128 * MEBIBYTE
# A body of floats as JSON stands in a worker as bytes, as their copy, as Python's numbers, as tensors, in the derivatives and in the
# answer's text: eight times. From some size on not memory bounds it but the deadline: ten at once, at the 15 MB of text a second that two
# busy cores read and write, should all be answered within 30 s. In the queue it leaves room for others and for the reply.
_BODIES_IN_A_WORKER: Final = 12
_SOON_ANSWERED_BYTES: Final = 32 * MEBIBYTE
_LARGE_BODIES_IN_A_WORKER: Final = 32
_BODIES_IN_THE_QUEUE: Final = 4
# Of NVIDIA's driver, also under WSL, and of AMD's.
_GPU_DEVICES: Final = ("nvidiactl", "dxg", "kfd")


@dataclass(frozen=True, slots=True)
class Machine:
    """What this process may use: memory in bytes, and whether a container or unit (`cgroup`) or the machine itself sets it; cores.

    `may_have_gpus`: PyTorch, which alone can tell, has CUDA and a device to ask.
    """

    memory_bytes: int
    memory_from: str
    cores: int
    parent_bytes: int = PARENT_BYTES
    may_have_gpus: bool = False

    @classmethod
    def here(cls, root: Path = cgroups.ROOT) -> Machine:
        """This machine as this process may use it."""
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        limit = cgroups.memory_limit(root)
        affinity, quota = len(os.sched_getaffinity(0)), cgroups.cpu_limit(root)
        has_cuda = _has_cuda_build()
        return cls(
            memory_bytes=physical if limit is None else min(physical, limit),
            memory_from="machine" if limit is None or limit >= physical else "cgroup",
            # Rounded down: a thread more than the quota is worth is stopped, with all that wait for it, in every period.
            cores=affinity if quota is None else max(1, min(affinity, int(quota))),
            parent_bytes=PARENT_WITH_CUDA_BYTES if has_cuda else PARENT_BYTES,
            may_have_gpus=has_cuda and any((root / "dev" / name).exists() for name in _GPU_DEVICES),
        )


@dataclass(frozen=True, slots=True)
class Budget:
    """Who may take what, in bytes; `workers`, `worker_bytes` and `light_bytes` (0: no light worker) are those of a machine without GPUs.

    Each of the `fronts` has a warm parent of its workers, and a light worker, of its own.
    `slab_bytes`: what each worker shares with the front for large bodies; 0: nothing, and they go over the socket.
    """

    machine: Machine
    fronts: int
    workers: int
    worker_bytes: int
    light_bytes: int
    slab_bytes: int
    queue_bytes: int
    body_bytes: int
    result_bytes: int

    @property
    def total_bytes(self) -> int:
        """What all processes may hold together at the worst."""
        workers = self.workers * (WORKER_BYTES + self.worker_bytes + self.slab_bytes)
        light = WORKER_BYTES + self.light_bytes if self.light_bytes else 0
        return _fixed_bytes(self.fronts, self.machine) + workers + self.fronts * light + self.queue_bytes

    @property
    def fits(self) -> bool:
        """Whether that is within the memory; it is not where settings ask for more, or there is less than 512 MiB."""
        return self.total_bytes <= self.machine.memory_bytes

    def facts(self) -> dict[str, str | int | bool]:
        """The budget for the operator's log."""
        return {
            "level": "info" if self.fits else "warning",
            "cores": self.machine.cores,
            "memory_bytes": self.machine.memory_bytes,
            "memory_from": self.machine.memory_from,
            "fronts": self.fronts,
            "workers": self.workers,
            "worker_memory_bytes": self.worker_bytes,
            "light_worker_memory_bytes": self.light_bytes,
            "slab_bytes": self.slab_bytes,
            "queue_bytes": self.queue_bytes,
            "body_bytes": self.body_bytes,
            "result_bytes": self.result_bytes,
            "total_bytes": self.total_bytes,
            "fits": self.fits,
        }

    def settled(self, settings: Settings) -> Settings:
        """The settings with what was left to us filled in."""
        return settings.model_copy(
            update={
                "fronts": self.fronts,
                "queue_bytes": self.queue_bytes,
                "body_limit_bytes": self.body_bytes,
                "result_limit_bytes": self.result_bytes,
            }
        )


def _beside(worker_bytes: int) -> int:
    """What a light worker beside workers of so many bytes takes in all."""
    return WORKER_BYTES + max(_LEAST_LIGHT_BYTES, min(_MOST_LIGHT_BYTES, worker_bytes // _LIGHT_SHARE))


def _fixed_bytes(fronts: int, machine: Machine) -> int:
    """What is taken before any worker or body is."""
    return fronts * (FRONT_BYTES + machine.parent_bytes) + (FRONTS_PARENT_BYTES if fronts > 1 else 0)


def _shared_out(room: int, workers: int, lights: int, wanted: int) -> tuple[int, int]:
    """Bytes of each worker and of each light one, 0 where there is none. `wanted`: what the settings give each; 0 = nothing."""
    if wanted:
        light = _beside(wanted)
        fits = workers * (WORKER_BYTES + wanted) + lights * light <= room and wanted >= _LIGHT_FROM_BYTES
        return wanted, light - WORKER_BYTES if fits else 0
    rest = room - (workers + lights) * WORKER_BYTES
    light = max(_LEAST_LIGHT_BYTES, min(_MOST_LIGHT_BYTES, rest // (_LIGHT_SHARE * workers + lights)))
    worker = (rest - lights * light) // workers
    if worker >= _LIGHT_FROM_BYTES:
        return worker, light
    return max(LEAST_WORKER_BYTES, room // workers - WORKER_BYTES), 0


def derive(settings: Settings, machine: Machine) -> Budget:
    """The budget of a service with these settings on this machine; deriving it again from its `settled` settings changes nothing."""
    fronts = settings.fronts or _fronts(settings, machine)
    room = max(0, int(machine.memory_bytes * _SHARE) - _fixed_bytes(fronts, machine))
    useful = WORKER_BYTES + (settings.worker_memory_bytes or _USEFUL_WORKER_BYTES)
    workers = settings.workers or max(fronts, _workers(int(room * (1 - _QUEUE_SHARE)), useful, machine.cores))
    most = max(_MOST_QUEUE_BYTES, machine.cores * _MOST_QUEUE_BYTES_A_CORE)
    share = int(room * _QUEUE_SHARE)
    if settings.worker_memory_bytes:
        share = room - workers * useful - fronts * _beside(settings.worker_memory_bytes)
    queue = settings.queue_bytes or max(LEAST_QUEUE_BYTES, min(share, most))
    worker, light = _shared_out(room - queue, workers, fronts, settings.worker_memory_bytes)
    slab = _slab(worker)
    if not settings.worker_memory_bytes:
        worker -= slab
        light = min(light, max(_LEAST_LIGHT_BYTES, worker // _LIGHT_SHARE))
    elif workers * (WORKER_BYTES + worker + slab) + fronts * (WORKER_BYTES + light if light else 0) + queue > room:
        slab = 0
    in_worker = max(worker // _LARGE_BODIES_IN_A_WORKER, min(worker // _BODIES_IN_A_WORKER, _SOON_ANSWERED_BYTES))
    largest = min(_MOST_BODY_BYTES, queue // _BODIES_IN_THE_QUEUE, in_worker)
    return Budget(
        machine=machine,
        fronts=fronts,
        workers=workers,
        worker_bytes=worker,
        light_bytes=light,
        slab_bytes=slab,
        queue_bytes=queue,
        body_bytes=settings.body_limit_bytes or largest,
        result_bytes=settings.result_limit_bytes or largest,
    )


def _fronts(settings: Settings, machine: Machine) -> int:
    """One for each four workers that have cores to run on; one beside GPUs, of which nobody here can tell the number."""
    if machine.may_have_gpus and settings.device != "cpu":
        return 1
    workers = min(settings.workers or machine.cores, machine.cores)
    by_memory = machine.memory_bytes // _MEMORY_OF_A_FRONT
    return max(1, min(workers // _WORKERS_OF_A_FRONT, by_memory, _MOST_FRONTS))


def _slab(worker_bytes: int) -> int:
    """Bytes of the memory that a worker shares with the front, where it would have so many without."""
    share = min(_MOST_SLAB_BYTES, worker_bytes // _SLAB_SHARE // MEBIBYTE * MEBIBYTE)
    return share if share >= _LEAST_SLAB_BYTES else 0


def _workers(room: int, useful: int, cores: int) -> int:
    """One for each core, and two on a single one, so that a long query does not stand before all others; fewer in little `room`."""
    two_fit = room >= 2 * (WORKER_BYTES + _SMALL_WORKER_BYTES)
    return min(max(cores, 2), max(room // useful, 2 if two_fit else 1))


def _has_cuda_build() -> bool:
    """Whether the PyTorch that is installed carries CUDA, without importing it."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    return (Path(spec.origin).parent / "lib" / "libtorch_cuda.so").exists()
