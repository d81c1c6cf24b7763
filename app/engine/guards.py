"""Values on which PyTorch 2.13 kills its process, refused before they reach it.

Knows the operations of that kind that are public and cheap to check. Refuses to replace the worker's own isolation: what is not
listed here may still kill a worker, and the pool answers for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor

from app.errors import PullbackError
from app.program.function import Function

Leaves = Mapping[str, Tensor]


def _finite(*names: str) -> Callable[[str, Leaves], None]:
    def check(operation: str, leaves: Leaves) -> None:
        for name in names:
            leaf = leaves.get(name)
            if leaf is not None and not bool(torch.isfinite(leaf).all()):
                raise PullbackError(
                    "operation_failed",
                    f"`{operation}` is not defined where `{name}` is NaN or infinite (PyTorch crashes there).",
                    at=f"inputs.{name}",
                    expected="finite numbers",
                    fix=f"Clean `{name}` first, for example with nan_to_num in a program.",
                )

    return check


def _ctc_targets(operation: str, leaves: Leaves) -> None:
    scores, targets = leaves.get("log_probs"), leaves.get("targets")
    if scores is None or targets is None or targets.numel() == 0:
        return
    classes = scores.shape[-1]
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= classes:
        raise PullbackError(
            "operation_failed",
            f"`{operation}` needs every target to be a class below {classes}; the targets run from {low} to {high}.",
            at="inputs.targets",
            expected=f"integers from 0 to {classes - 1}",
            given=f"{low} to {high}",
        )


def _indices(operation: str, leaves: Leaves) -> None:
    """Not a crash, but PyTorch's words ("index out of range in self") help nobody."""
    indices, table = leaves.get("input"), leaves.get("weight")
    if indices is None or table is None or indices.numel() == 0 or table.dim() != 2 or indices.dtype.is_floating_point:
        return
    low, high = int(indices.min()), int(indices.max())
    if low < 0 or high >= table.shape[0]:
        raise PullbackError(
            "operation_failed",
            f"`{operation}` looks up rows of `weight`, which has {table.shape[0]}; the indices run from {low} to {high}.",
            at="inputs.input",
            expected=f"integers from 0 to {table.shape[0] - 1}",
            given=f"{low} to {high}",
        )


def _distances(operation: str, leaves: Leaves) -> None:
    leaf = leaves.get("input")
    if leaf is not None and leaf.numel() == 0:
        raise PullbackError(
            "operation_failed", f"`{operation}` needs at least one point; PyTorch crashes on none.", at="inputs.input",
            expected="shape [n, m] with n ≥ 1", given=f"shape {list(leaf.shape)}",
        )  # fmt: skip


# Each line but the embeddings cost a crash: SIGSEGV or SIGABRT in PyTorch 2.13.0 on the CPU.
_GUARDS: Final[dict[str, Callable[[str, Leaves], None]]] = {
    "linalg.eigvals": _finite("input", "A"),
    "linalg.eig": _finite("input", "A"),
    "linalg.ldl_solve": _finite("LD", "B"),
    "nn.functional.grid_sample": _finite("grid"),
    "nn.functional.ctc_loss": _ctc_targets,
    "nn.functional.pdist": _distances,
    "nn.functional.embedding": _indices,
    "nn.functional.embedding_bag": _indices,
}


def guard(function: Function, leaves: Leaves) -> None:
    """Raises `operation_failed` for an operation's inputs that are known to kill the process."""
    check = _GUARDS.get(function.title)
    if check is not None:
        check(function.title, leaves)
