"""What one query may cost, frozen: the numbers that the worker's rooms are handed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

JSON_DEPTH_LIMIT: Final = 100  # the examples nest 7 levels at most, a tensor of the highest rank 32 lists; three times that
TENSOR_COUNT_LIMIT: Final = 256  # of a query: pasted programs have 34 weights and 7 inputs at most, a sixth of it
HEADER_LIMIT_BYTES: Final = 1 << 20  # a safetensors header
NAME_LIMIT: Final = 128  # of a tensor, an operation or a label, in characters: the longest operation's has 47, 2.7 times less


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one query. Bytes for the decompressed body, the answer's tensors, and a worker's memory; flops for the plan."""

    body_bytes: int = 256 << 20
    result_bytes: int = 256 << 20
    memory_bytes: int = 4 << 30
    flops: float = 1e15
