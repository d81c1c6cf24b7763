"""A recipe on a GPU: a query's numbers go into memory that stays, and the results come back through pinned memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from numpy.typing import NDArray
from torch import Tensor

from app.engine.cuda.graphs import Record, Repetition
from app.engine.joint.witnesses import Watch
from app.engine.planning.build import leaves_of
from app.engine.planning.prepare import Prepared
from app.engine.recipes import Numbers, Recipe
from app.query import Query

# Queries that are given to the GPU before it is waited for: as many as the largest stack on the CPU.
_TOGETHER_LIMIT: Final = 64
_TOGETHER_BYTES: Final = 128 << 10  # of one of them: with all of them 8 MiB of pinned memory until they are answered


class CudaRecipe(Recipe):
    """One query's computation on `device`, for one run at a time. `record`: makes a CUDA graph of it where it comes often."""

    def __init__(
        self, query: Query, prepared: Prepared, names: Sequence[str] | None, watch: Watch, device: str, record: Record
    ) -> None:
        super().__init__(query, prepared, names, watch, pinned=device != "cpu")
        self._device = device
        self._is_pinned = device != "cpu"
        self._tensors: list[Tensor] = []  # what is read, where it stays
        self._repetition = Repetition(self._on_device, record)
        self.bytes += sum(data.data.nbytes for _, data in leaves_of({**query.inputs, **query.cotangent}))
        if self._is_pinned and self.bytes <= _TOGETHER_BYTES:
            self.joint.fewest[_TOGETHER_LIMIT] = 2

    def run(self, numbers: Sequence[Numbers]) -> list[NDArray[Any]] | None:
        """The results in the order of the answer; None where they came another way than in the first run.

        Raises whatever PyTorch raises, and UncertifiedError.
        """
        hosts = self._launched(numbers)
        self._wait()
        return (
            None if hosts is None else self._without_telling_zeros([host.numpy() for host in self._confirmed(hosts)], numbers)
        )

    def run_together(self, queries: Sequence[Sequence[Numbers]]) -> list[list[NDArray[Any]] | None]:
        """What `run` gives for each of several queries, by the same kernels; the GPU has all of them before it is waited for.

        None where it is not confirmed, or a zero tells. Raises whatever PyTorch raises, and ValueError where results came another way.
        """
        launched = [self._launched(numbers, apart=True) for numbers in queries]
        self._wait()
        if any(hosts is None for hosts in launched):
            raise ValueError("results came another way than in the first run")
        return [
            self._without_telling_zeros([host.numpy() for host in hosts[: self._count]], numbers)
            if self._is_confirmed(hosts)
            else None
            for hosts, numbers in zip(launched, queries, strict=True)
            if hosts
        ]

    def _launched(self, numbers: Sequence[Numbers], *, apart: bool = False) -> list[Tensor] | None:
        """The results' own memory on the CPU, filled once the device is waited for. `apart`: the numbers' too, as others follow at once."""
        hosts = [buffer.filled(numbers) for buffer in self._buffers]
        if not self._tensors:
            self._tensors = [torch.empty_like(host, device=self._device).requires_grad_(host.requires_grad) for host in hosts]
        with torch.no_grad():
            for tensor, host in zip(self._tensors, hosts, strict=True):
                tensor.copy_(self._staged(host, apart), non_blocking=True)
        results = self._repetition.run()
        return None if results is None else [self._fetched(value) for value in results]

    def _staged(self, host: Tensor, apart: bool) -> Tensor:
        """In pinned memory, from which the GPU fetches while the CPU goes on."""
        if not self._is_pinned or (host.is_pinned() and not apart):
            return host
        return torch.empty(host.shape, dtype=host.dtype, device="cpu", pin_memory=True).copy_(host)

    def _on_device(self) -> list[Tensor] | None:
        """Without what autograd keeps: a recording must not meet nodes of an earlier run, which belong to another stream.

        What confirms the results comes behind them, unread.
        """
        results = self._values(self._tensors)
        return None if results is None else [value.detach() for value in results]

    def _fetched(self, value: Tensor) -> Tensor:
        """On the CPU, in memory of its own, as replies may be read after the next run; there once the device is waited for."""
        host = torch.empty(value.shape, dtype=value.dtype, device="cpu", pin_memory=self._is_pinned)
        return host.copy_(value, non_blocking=True)

    def _wait(self) -> None:
        if self._is_pinned:
            torch.cuda.current_stream(self._device).synchronize()
