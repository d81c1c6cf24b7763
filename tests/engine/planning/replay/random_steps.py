"""Random programs of many kinds of steps, whose shapes follow those of their inputs."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

# Of a tensor `a`, of another `b`; K is a small whole number. What does not fit some shapes is refused there.
OF_ONE: Final = (
    "a * 2.5", "2 - a", "a / 3", "-a", "a ** 2", "2 / (a * a + 1)", "a.tanh()", "torch.exp(a * 0.1)", "F.relu(a)", "F.gelu(a)", "a.sigmoid()",
    "a.abs().sqrt()", "a.sum()", "a.mean()", "a.sum(dim=0)", "a.mean(-1, keepdim=True)", "torch.softmax(a, 0)", "a.log_softmax(dim=-1)",
    "a.norm()", "a.logsumexp(0)", "torch.logsumexp(a, dim=-1, keepdim=True)", "a.t()", "a.transpose(0, -1)", "a.transpose(-2, -1)",
    "a.permute(1, 0)", "a.permute(2, 0, 1)", "a.unsqueeze(0)", "a.unsqueeze(-1)", "a.squeeze()", "a[0]", "a[-1:]", "a[..., K:]", "a[:, K]",
    "a[:, None]", "a[::2]", "a.reshape(-1)", "a.flatten()", "a.flatten(1)", "a.reshape(a.shape[0], -1)", "a.view(len(a), -1)", "a.contiguous()",
    "a.contiguous().view(-1)", "a.T.contiguous()", "torch.tril(a)", "a.triu(K)", "a.masked_fill(a > 0, 0.5)",
    "a.masked_fill(torch.tril(torch.ones_like(a)) == 0, -1.0)", "a.masked_fill(torch.ones(a.shape[0], a.shape[-1]) == 1, 2.0)",
    "torch.trace(a)", "a @ a.transpose(-2, -1)", "a @ a.mT", "a.mT @ a", "F.layer_norm(a, (a.shape[-1],))", "F.layer_norm(a.mT, a.shape[-2:-1])",
    "a + torch.eye(len(a))", "a * torch.zeros(a.shape[-1])", "torch.cat([a, a])", "torch.stack([a, a], dim=1)", "a.split(K + 1)[0]",
    "a.split(2, dim=-1)[-1]", "a.chunk(2)[0]", "a.unbind(0)[0]", "torch.where(a > 0, a, -a)", "a.clamp(-1, 1)", "a.cumsum(0)", "a.var()",
    "a.expand(2, *a.shape)", "a.repeat(2, *[1] * a.dim())", "F.max_pool2d(a.view(1, 1, *a.shape[-2:]), 2)",
    "F.conv2d(a.unsqueeze(0), torch.ones(2, a.shape[0], 2, 2, dtype=a.dtype), padding=1)", "F.pad(a, (K, 1))", "a.max()", "a.amax(0)", "a.prod()",
    "torch.linalg.inv(a @ a.mT + torch.eye(a.shape[-2], dtype=a.dtype))", "a / a.shape[-1] ** 0.5", "a * (a.numel() // 2)",
    "a[: a.shape[0] // 2]", "a.sort(0)[0]", "torch.einsum('...i,...i->...', a, a)", "a.diagonal()", "a.roll(K, 0)", "a.flip(0)", "a.square()",
    "F.normalize(a, dim=0)", "a.float()", "a.double()", "torch.full((a.shape[0], 2), 0.5)", "torch.linspace(0, 1, a.shape[-1]) * a",
    "torch.arange(a.shape[0])[:, None] * a", "a[a.argmax() // a.numel()]", "a[[0, -1]]", "F.avg_pool2d(a.view(1, 1, *a.shape[-2:]), 2)",
    "(a if a.shape[0] > 3 else 2 * a)", "a.std(0)", "a.pow(0.5)", "F.mse_loss(a, a * 0.5)", "sum(a[i] for i in range(3))",
)  # fmt: skip
OF_TWO: Final = (
    "a + b", "a - b", "a * b", "a / (b * b + 1)", "a @ b", "a @ b.mT", "a.mT @ b", "torch.matmul(b, a)", "F.linear(a, b)",
    "F.linear(a, b, b[:, 0])", "F.linear(a.mT, b, b[:, 0])", "F.mse_loss(a, b)", "torch.outer(a, b)", "torch.dot(a, b)", "torch.cat([a, b], -1)",
    "torch.stack([a, b])", "F.layer_norm(a, b.shape, b, b)", "F.layer_norm(a, (a.shape[-1],), b, b, 1e-3)", "torch.maximum(a, b)",
    "a.masked_fill(b == 0, 1.0)", "a.view_as(b)", "a.reshape(b.shape)", "a.expand_as(b)", "torch.einsum('ij,kj->ik', a, b)", "a + b.sum()",
    "F.smooth_l1_loss(a, b)", "torch.where(a > b, a, b)", "a.view(*b.shape)", "F.conv2d(a, b[:, None, None, None], padding=K)",
    "F.conv2d(a.expand(1, 1, *a.shape[-2:]), b.expand(1, 1, *b.shape[-2:]), None, 1, (1, 2))",
)  # fmt: skip


def program(rng: random.Random, names: tuple[str, ...], works: Callable[[str], bool]) -> str:
    """Some lines over inputs of these names, each of which `works`; a loop repeats some of them now and then."""
    known = list(names)
    lines: list[str] = []
    for number in range(rng.randint(5, 25)):
        one, other = rng.choice(known[-3:] + known), rng.choice(known[-2:] + known)
        pattern = rng.choice(OF_ONE) if rng.random() < 0.65 else rng.choice(OF_TWO)
        text = "".join({"a": one, "b": other, "K": str(rng.randint(0, 2))}.get(word, word) for word in _words(pattern))
        target = rng.choice(known) if rng.random() < 0.15 else f"v{number}"
        indent = f"for _ in range({rng.randint(2, 4)}):\n    " if rng.random() < 0.15 else ""
        line = f"{indent}{target} = {text}"
        if works("\n".join([*lines, line, f"return {target}"])):
            lines.append(line)
            known += [] if target in known else [target]
    return "\n".join([*lines, f"return {known[-1]}, {rng.choice(known)}"])


def _words(pattern: str) -> list[str]:
    """The pattern in names and what stands between them; what follows a point is no name of a variable."""
    words, word = [], ""
    for letter in pattern:
        if letter.isalnum() or letter in "_.'":
            word += letter
        else:
            words += [word, letter]
            word = ""
    parts = []
    for each in [*words, word]:
        first, point, rest = each.partition(".")
        parts += [first, point + rest]
    return parts
