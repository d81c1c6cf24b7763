"""A recipe on a GPU: a query's numbers go into memory that stays, and the results come back through pinned memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from app.engine.cuda.graphs import Record, Repetition
from app.engine.planning.build import leaves_of
from app.engine.planning.prepare import Prepared
from app.engine.recipes import Numbers, Recipe
from app.query import Query


class CudaRecipe(Recipe):
    """One query's computation on `device`, for one run at a time. `record`: makes a CUDA graph of it where it comes often."""

    def __init__(self, query: Query, prepared: Prepared, names: Sequence[str] | None, device: str, record: Record) -> None:
        super().__init__(query, prepared, names, pinned=device != "cpu")
        self._device = device
        self._tensors: list[Tensor] = []  # what is read, where it stays
        self._repetition = Repetition(self._computed, record)
        self.bytes += sum(data.data.nbytes for _, data in leaves_of({**query.inputs, **query.cotangent}))

    def run(self, numbers: Sequence[Numbers]) -> list[NDArray[Any]] | None:
        """The results in the order of the answer; None where they came another way than in the first run.

        Raises whatever PyTorch raises.
        """
        hosts = [buffer.filled(numbers) for buffer in self._buffers]
        if not self._tensors:
            self._tensors = [torch.empty_like(host, device=self._device).requires_grad_(host.requires_grad) for host in hosts]
        with torch.no_grad():
            for tensor, host in zip(self._tensors, hosts, strict=True):
                tensor.copy_(host if self._device == "cpu" or host.is_pinned() else host.pin_memory(), non_blocking=True)
        results = self._repetition.run()
        return None if results is None else self._fetched(results)

    def _computed(self) -> list[Tensor] | None:
        """Without what autograd keeps: a recording must not meet nodes of an earlier run, which belong to another stream."""
        results = self.compute(self._tensors)
        return None if results is None else [value.detach() for value in results]

    def _fetched(self, results: Sequence[Tensor]) -> list[NDArray[Any]]:
        """Of their own memory, as replies may be read after the next run."""
        pinned = self._device != "cpu"
        hosts = [torch.empty(value.shape, dtype=value.dtype, device="cpu", pin_memory=pinned) for value in results]
        for host, value in zip(hosts, results, strict=True):
            host.copy_(value, non_blocking=True)
        if pinned:
            torch.cuda.current_stream(self._device).synchronize()
        return [host.numpy() for host in hosts]
