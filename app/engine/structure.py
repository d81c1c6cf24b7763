"""Structure of a Jacobian: guessed (diagonal, block by row), compressed into few passes, and certified by one random VJP.

Knows how to guess, compress and certify. Refuses to know which operation it looks at: the certificate decides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from app.engine.jacobian import basis

Form = Literal["dense", "diagonal", "block"]
# One backward from a cotangent of the output's shape to the input's shape; None where no path leads.
Backward = Callable[[Tensor], Tensor]


def diagonal(backward: Backward, output: Tensor, leaf: Tensor) -> Tensor | None:
    """The Jacobian's diagonal, shape of `leaf`, if the Jacobian is diagonal (two passes), else None."""
    if output.shape != leaf.shape:
        return None
    entries = backward(torch.ones_like(output))
    probe = _probe(output)
    return entries if _close(backward(probe), entries * probe) else None


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
        rows(chunk.unsqueeze(1).expand(chunk.shape[0], count, *output.shape[1:])) for _, chunk in basis(output[0].detach(), 512)
    ]
    if not pieces:
        return None
    # [within, n, input[1:]…] → [n, output[1:]…, input[1:]…]
    blocks = torch.cat(pieces).transpose(0, 1)
    probe = _probe(output)
    expected = torch.einsum("no,noi->ni", probe.reshape(count, within), blocks.reshape(count, within, -1))
    if not _close(backward(probe).reshape(count, -1), expected):
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
        found = rows(cotangents).reshape(cotangents.shape[0], -1)
        entries[start : start + found.shape[0]] = found.diagonal(offset=start)
    return entries.reshape(leaf.shape)


def _probe(output: Tensor) -> Tensor:
    generator = torch.Generator(device=output.device).manual_seed(20250)
    # Bounded away from zero, so that no entry goes unseen.
    real = output.real if output.dtype.is_complex else output
    uniform = torch.rand(output.shape, generator=generator, dtype=torch.float64, device=output.device) + 0.5
    sign = torch.randint(0, 2, output.shape, generator=generator, device=output.device) * 2 - 1
    return (uniform * sign).to(real.dtype).to(output.dtype)


def _close(found: Tensor, expected: Tensor) -> bool:
    if found.numel() == 0:
        return True
    if not bool(torch.isfinite(found).all()) or not bool(torch.isfinite(expected).all()):
        return False
    scale = max(float(expected.abs().max()), float(found.abs().max()))
    precision = torch.finfo(found.dtype).eps
    return float((found - expected).abs().max()) <= 1e3 * precision * scale
