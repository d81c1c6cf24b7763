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
    if scores is not None and targets is not None:
        classes = scores.shape[-1]
        _below(classes, targets, "targets", f"`{operation}` needs every target to be a class below {classes}; the targets run")


def _indices(operation: str, leaves: Leaves) -> None:
    """Not a crash, but PyTorch's words ("index out of range in self") help nobody."""
    indices, table = leaves.get("input"), leaves.get("weight")
    if indices is not None and table is not None and table.dim() == 2 and not indices.dtype.is_floating_point:
        rows = table.shape[0]
        _below(rows, indices, "input", f"`{operation}` looks up rows of `weight`, which has {rows}; the indices run")


def _below(limit: int, values: Tensor, name: str, words: str) -> None:
    """Refuse `values` that are not from 0 to `limit` - 1, in `words` that go on with their range."""
    if values.numel() == 0:
        return
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= limit:
        raise PullbackError(
            "operation_failed",
            f"{words} from {low} to {high}.",
            at=f"inputs.{name}",
            expected=f"integers from 0 to {limit - 1}",
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
