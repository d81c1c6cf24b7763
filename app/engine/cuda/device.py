"""A CUDA device as a worker uses it: settled once, and asked after a failure whether its context still lives."""

from __future__ import annotations

import torch
import torch.utils.deterministic


def settle(device: str) -> None:
    """Makes `device`, `cuda:N`, the place of all that this process computes from now on."""
    compute_alike()
    # So that no context of another GPU comes to be, some hundred megabytes of it.
    torch.cuda.set_device(device)
    torch.set_default_device(device)


def compute_alike() -> None:
    """Full precision, and the same bits for the same query, where CUDA's libraries have a choice.

    PyTorch multiplies float32 matrices with all 24 bits of each number on a GPU, but convolutions with the 11 of TF32, and sums
    products of float16 and bfloat16 in pieces that are rounded between (docs.pytorch.org, "CUDA semantics"). What PyTorch can only
    compute by additions in any order (`cumsum`, a loss's gradient by class) is computed so all the same, hence `warn_only`.
    """
    # Both ways of saying so, in this order: PyTorch refuses to read settings that were made by the new one alone.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.fp32_precision = "ieee"  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cudnn.benchmark = False  # it times algorithms, and takes another one another time
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Else every tensor is filled before it is written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def is_lost(device: str) -> bool:
    """Whether nothing can be computed on `device` in this process any more.

    A kernel that failed an assertion or left its memory poisons the context for good: "to continue using CUDA, the process must be
    terminated and relaunched" (CUDA Runtime API, cudaErrorAssert and others). Its error comes with any later call, so whoever asks
    at the end of a query knows that it was this query's. A failed allocation leaves the context as it was.
    """
    if device == "cpu":
        return False
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        return True
    return False
