"""Structure of a Jacobian: guessed (diagonal, block by row), compressed into few passes, and certified by one random VJP."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from app.engine.autodiff.freivalds import close, weights
from app.engine.autodiff.jacobian import basis
from app.engine.planning.plan import ROWS_AT_MOST

# One backward from a cotangent of the output's shape to the input's shape; None where no path leads.
Backward = Callable[[Tensor], Tensor]


def diagonal(backward: Backward, output: Tensor, leaf: Tensor) -> Tensor | None:
    """The Jacobian's diagonal, shape of `leaf`, if the Jacobian is diagonal (two passes), else None."""
    if output.shape != leaf.shape:
        return None
    entries = backward(torch.ones_like(output))
    probe = _probe(output)
    return entries if close(backward(probe), entries * probe) else None


def block(
    backward: Backward, rows: Callable[[Tensor], Tensor], output: Tensor, leaf: Tensor, limit: Callable[[int], None]
) -> Tensor | None:
    """The Jacobian's blocks `[n, output[1:]…, input[1:]…]` if row i of the output depends on row i of the input alone, else None.

    Arguments:
        rows: several backwards at once: cotangents `[k, output…]` → `[k, input…]`.
        limit: called with the bytes of the blocks before they are computed; raises if they are too many.
    """
    if output.dim() < 1 or leaf.dim() < 1 or output.shape[0] != leaf.shape[0] or output.shape[0] < 2:
        return None
    if not _rows_apart(backward, output):
        return None
    count = output.shape[0]
    within = output[0].numel()
    limit(within * leaf.numel() * leaf.element_size())
    pieces = [
        rows(chunk.unsqueeze(1).expand(chunk.shape[0], count, *output.shape[1:]))
        for _, chunk in basis(output[0].detach(), ROWS_AT_MOST)
    ]
    if not pieces:
        return None
    # [within, n, input[1:]…] → [n, output[1:]…, input[1:]…]
    blocks = torch.cat(pieces).transpose(0, 1)
    probe = _probe(output)
    expected = torch.einsum("no,noi->ni", probe.reshape(count, within), blocks.reshape(count, within, -1))
    if not close(backward(probe).reshape(count, -1), expected):
        return None
    return blocks.reshape(count, *output.shape[1:], *leaf.shape[1:])


def _rows_apart(backward: Backward, output: Tensor) -> bool:
    """A cheap refusal: a cotangent on every second row must not reach the rows between."""
    mask = torch.zeros(output.shape[0], dtype=output.dtype, device=output.device)
    mask[::2] = 1
    reached = backward(_probe(output) * mask.reshape(-1, *([1] * (output.dim() - 1))))
    return not bool(reached[1::2].any())


def dense_diagonal(rows: Callable[[Tensor], Tensor], output: Tensor, leaf: Tensor, chunk: int) -> Tensor:
    """The diagonal of a Jacobian that is not diagonal, shape of `leaf`, from chunks of its rows."""
    entries = torch.empty(leaf.numel(), dtype=leaf.dtype, device=leaf.device)
    for start, cotangents in basis(output.detach(), chunk):
        block = rows(cotangents).reshape(cotangents.shape[0], -1)
        entries[start : start + block.shape[0]] = block.diagonal(offset=start)
    return entries.reshape(leaf.shape)


def _probe(output: Tensor) -> Tensor:
    return weights(output.numel(), output.dtype, str(output.device)).reshape(output.shape)
