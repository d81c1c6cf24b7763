"""CUDA graphs: a computation that repeats on the same memory, recorded once and launched as a whole.

One launch costs microseconds where the kernels of a small query, launched one by one from Python, cost tens each. What is recorded are
kernels and addresses: what Python did between them, a check of values included, is not done again. So nothing is recorded that waits for
a number of the GPU, which every check does (docs.pytorch.org, "CUDA semantics", "CUDA Graphs"; torch/cuda/graphs.py of 2.13.0).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias
from weakref import WeakSet

import torch
from torch import Tensor

Computation: TypeAlias = Callable[[], Sequence[Tensor] | None]
Replay: TypeAlias = Callable[[], Sequence[Tensor]]
Record: TypeAlias = Callable[[Computation], Replay | None]

_LOG = logging.getLogger("pullback.cuda")
# Recording waits for the GPU, runs the computation four times and empties the allocator's cache: some ten runs. Not measured on a GPU.
_WORTH_RUNS: Final = 16
# PyTorch's own advice for what is recorded with a backward: libraries set themselves up in the first runs.
_WARM_RUNS: Final = 3
# Each takes some kilobytes of the GPU for each kernel besides the memory that all share. Not measured.
_GRAPHS_LIMIT: Final = 64


class Repetition:
    """One computation that is run again and again; recorded once it is worth it, and replayed where that gives the same bits.

    Arguments:
        compute: reads tensors that stay where they are; None where its results came another way than before.
        record: gives its replay, or None where there is none.
    """

    def __init__(self, compute: Computation, record: Record) -> None:
        self._compute = compute
        self._record = record
        self._runs = 0
        self._replay: Replay | None = None

    def run(self) -> Sequence[Tensor] | None:
        """The results; those of a replay are overwritten by the next. Raises whatever PyTorch raises."""
        if self._replay is not None:
            return self._replay()
        results = self._compute()
        if results is None:
            return None
        self._runs += 1
        if self._runs == _WORTH_RUNS:
            self._replay = self._confirmed(results)
        return results

    def _confirmed(self, results: Sequence[Tensor]) -> Replay | None:
        """The replay, if it gives these results to the bit."""
        replay = self._record(self._compute)
        if replay is None:
            return None
        replayed = replay()
        is_same = len(replayed) == len(results) and all(map(_are_same, replayed, results))
        return replay if is_same else None


def _are_same(one: Tensor, other: Tensor) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    # NaN is not equal to itself, and zeros of two signs are.
    return torch.equal(_bytes(one), _bytes(other))


def _bytes(tensor: Tensor) -> Tensor:
    # A copy, as a single element counts as contiguous whatever its stride.
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device).copy_(tensor).view(-1).view(torch.uint8)


class _Recording:
    """A graph with what it reads and writes, which must live as long as it is replayed."""

    def __init__(self, graph: Any, results: Sequence[Tensor]) -> None:
        self._graph = graph
        self._results = results

    def __call__(self) -> Sequence[Tensor]:
        self._graph.replay()
        return self._results


class Recorder:
    """Records on one GPU, for one thread. All graphs share the memory between their inputs and results: one is replayed at a time, and
    its results are read before the next.

    Attributes:
        is_spoiled: a recording has failed. PyTorch's allocator then goes on as if it were being made, and gives back nothing that it has
            cached; nothing is recorded any more, and a process that runs out of memory should be replaced.
    """

    def __init__(self, device: str) -> None:
        self.is_spoiled = False
        self._device = device
        self._stream: Any = None
        self._pool: Any = None
        self._recordings: WeakSet[_Recording] = WeakSet()

    def record(self, compute: Computation) -> Replay | None:
        """The replay of `compute`, None where it waits for the GPU, or where there are enough graphs."""
        if self.is_spoiled or len(self._recordings) >= _GRAPHS_LIMIT:
            return None
        if self._stream is None:
            self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
            self._pool = torch.cuda.graph_pool_handle()
        if not self._runs_without_waiting(compute):
            return None
        graph = torch.cuda.CUDAGraph()
        computing = torch.cuda.current_stream(self._device)
        try:
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                results = compute()
        except Exception:
            _LOG.warning("a CUDA graph could not be recorded, so no more are", exc_info=True)
            self.is_spoiled = True
            torch.cuda.set_stream(computing)  # `torch.cuda.graph` leaves its own current where its end fails
            return None
        if results is None:
            return None
        recording = _Recording(graph, results)
        self._recordings.add(recording)
        return recording

    def _runs_without_waiting(self, compute: Computation) -> bool:
        """Run it on the recorder's stream, where PyTorch refuses to wait for the GPU."""
        computing = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(computing)
        mode = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            with torch.cuda.stream(self._stream):
                return all(compute() is not None for _ in range(_WARM_RUNS))
        except Exception:  # it waits, or there is no memory for one run more: the query itself was answered
            return False
        finally:
            torch.cuda.set_sync_debug_mode(mode)
            computing.wait_stream(self._stream)
