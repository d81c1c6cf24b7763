"""Programs as people write them, against the same thing written out in NumPy; gradients against central differences of that."""

# ruff: noqa: N803 (arguments are called like the inputs of the programs)

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
rng = np.random.default_rng(7)


def normal(*shape: int) -> Array:
    return rng.normal(size=shape)


def softmax(z: Array, axis: int = -1) -> Array:
    e = np.exp(z - z.max(axis, keepdims=True))
    return np.asarray(e / e.sum(axis, keepdims=True))


def sigmoid(z: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-z)))


@dataclass
class Case:
    """A question: its text, its inputs, the same in NumPy, and the inputs whose gradient (of the output's sum) is compared."""

    text: str
    inputs: dict[str, Array]
    expected: Callable[..., Any]
    wrt: tuple[str, ...] = ()
    parameters: dict[str, Any] = field(default_factory=dict)
    static: bool = True


def k_means(x: Array, c: Array) -> Array:
    return np.asarray(((x[:, None] - c[None]) ** 2).sum(-1).min(1).sum())


def weighted_cross_entropy(logits: Array, weight: Array) -> Array:
    target = np.array([2, 0, 1, 1])
    picked = -np.log(softmax(logits))[np.arange(4), target]
    return np.asarray((weight[target] * picked).sum() / weight[target].sum())


def correlation_2d(image: Array, kernel: Array) -> Array:
    rows, columns = (image.shape[i] - kernel.shape[i] + 1 for i in (0, 1))
    return np.array(
        [
            [(image[r : r + kernel.shape[0], c : c + kernel.shape[1]] * kernel).sum() for c in range(columns)]
            for r in range(rows)
        ]
    )


def grouped(x: Array, w: Array) -> Array:
    return np.stack([correlation_2d(x[g], w[g, 0]) for g in range(x.shape[0])])[None]


def lstm(x: Array, h: Array, c: Array, w: Array, u: Array, b: Array) -> dict[str, Array]:
    i, f, g, o = np.split(x @ w.T + h @ u.T + b, 4, axis=1)
    cell = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return {"h": sigmoid(o) * np.tanh(cell), "c": cell}


def rnn_ends(x: Array, wx: Array, wh: Array) -> Array:
    ends = []
    for sequence, length in zip(x, (2, 4, 3), strict=True):
        h = np.zeros(wh.shape[0])
        for t in range(length):
            h = np.tanh(sequence[t] @ wx + h @ wh)
        ends.append(h)
    return np.stack(ends)


def bilinear(image: Array, theta: Array) -> Array:
    """`affine_grid` and `grid_sample` with align_corners, zeros outside, written out."""
    height, width = image.shape
    result = np.zeros((height, width))
    for r, y in enumerate(np.linspace(-1, 1, height)):
        for c, x in enumerate(np.linspace(-1, 1, width)):
            u, v = theta @ np.array([x, y, 1.0])
            column, row = (u + 1) / 2 * (width - 1), (v + 1) / 2 * (height - 1)
            for i in (int(np.floor(row)), int(np.floor(row)) + 1):
                for j in (int(np.floor(column)), int(np.floor(column)) + 1):
                    if 0 <= i < height and 0 <= j < width:
                        result[r, c] += image[i, j] * (1 - abs(row - i)) * (1 - abs(column - j))
    return result


def contrastive(x: Array, pair: Array) -> Array:
    z = x / np.linalg.norm(x, axis=1, keepdims=True)
    similarity = np.where(np.eye(4), -np.inf, z @ z.T / 0.5)
    return np.asarray((np.log(np.exp(similarity).sum(1)) - similarity[np.arange(4), pair]).mean())


def sliding(a: Array, b: Array) -> Array:
    lags = a.shape[1] - b.shape[1] + 1
    return np.array([[[a[i, t : t + b.shape[1]] @ b[j] for t in range(lags)] for j in range(len(b))] for i in range(len(a))])


CASES: dict[str, Case] = {
    "k-means through argmin": Case(
        ("d = ((x[:, None, :] - c[None, :, :]) ** 2).sum(-1)\nlabel = argmin(d, dim=1)\nreturn ((x - c[label]) ** 2).sum()"),
        {"x": normal(6, 2), "c": normal(3, 2)},
        k_means,
        ("x", "c"),
    ),
    "k-means through min(d, 1)[1]": Case(
        ("d = cdist(x, c)\nlabel = min(d, 1)[1]\nreturn ((x - c[label]) ** 2).sum()"),
        {"x": normal(6, 2), "c": normal(3, 2)},
        k_means,
        ("c",),
    ),
    "hard selection": Case(
        (
            "p = softmax(x @ w, dim=-1)\n"
            "k = argmax(p, dim=-1)\n"
            "ops = stack([x[:, 0] * 2, x[:, 0] ** 2, sin(x[:, 0])], dim=1)\n"
            "return ops.gather(1, k[:, None])[:, 0]"
        ),
        {"x": normal(4, 2), "w": normal(2, 3)},
        lambda x, w: np.stack([x[:, 0] * 2, x[:, 0] ** 2, np.sin(x[:, 0])], 1)[np.arange(4), (x @ w).argmax(1)],
        ("x",),
    ),
    "soft selection": Case(
        ("p = softmax(x @ w, dim=-1)\nops = stack([x[:, 0] * 2, x[:, 0] ** 2, sin(x[:, 0])], dim=1)\nreturn (ops * p).sum(1)"),
        {"x": normal(4, 2), "w": normal(2, 3)},
        lambda x, w: (np.stack([x[:, 0] * 2, x[:, 0] ** 2, np.sin(x[:, 0])], 1) * softmax(x @ w)).sum(1),
        ("x", "w"),
    ),
    "straight-through estimator": Case(
        (
            "p = softmax(x, dim=-1)\n"
            "hard = nn.functional.one_hot(p.argmax(-1), x.shape[-1]).to(x.dtype)\n"
            "return hard - detach(p) + p"
        ),
        {"x": normal(3, 4)},
        lambda x: np.eye(4)[x.argmax(-1)],
    ),
    "policy gradient": Case(
        "log(softmax(state @ w, dim=-1))[0, action]",
        {"state": normal(1, 4), "w": normal(4, 3)},
        lambda state, w: np.log(softmax(state @ w))[0, 2],
        ("w",),
        {"action": 2},
    ),
    "policy gradient, the action as an input": Case(
        "log_softmax(state @ w, dim=-1)[torch.arange(3), action].mean()",
        {"state": normal(3, 4), "w": normal(4, 3), "action": np.array([2, 0, 1])},
        lambda state, w, action: np.log(softmax(state @ w))[np.arange(3), action].mean(),
        ("w",),
    ),
    "per-pixel cross-entropy": Case(
        "cross_entropy(logits, target)",
        {"logits": normal(2, 3, 2, 2), "target": rng.integers(0, 3, (2, 2, 2))},
        lambda logits, target: -np.take_along_axis(np.log(softmax(logits, 1)), target[:, None], 1).mean(),
        ("logits",),
    ),
    "weighted cross-entropy": Case(
        "F.cross_entropy(logits, target, weight=weight)",
        {"logits": normal(4, 3), "weight": np.array([0.5, 1.0, 2.0]), "target": np.array([2, 0, 1, 1])},
        lambda logits, weight, target: weighted_cross_entropy(logits, weight),
        ("logits",),
    ),
    "weighted cross-entropy by hand": Case(
        (
            "lp = log_softmax(logits, dim=1)\n"
            "picked = lp[arange(logits.shape[0]), target]\n"
            "w = weight[target]\n"
            "return -(w * picked).sum() / w.sum()"
        ),
        {"logits": normal(4, 3), "weight": np.array([0.5, 1.0, 2.0]), "target": np.array([2, 0, 1, 1])},
        lambda logits, weight, target: weighted_cross_entropy(logits, weight),
        ("logits", "weight"),
    ),
    "maxout": Case(
        ("z = x @ W + b\nreturn z.view(x.shape[0], pieces, -1).max(dim=1).values"),
        {"x": normal(4, 3), "W": normal(3, 6), "b": normal(6)},
        lambda x, W, b: (x @ W + b).reshape(4, 2, 3).max(1),
        ("x", "W"),
        {"pieces": 2},
    ),
    "siamese convolution": Case(
        ("fa = relu(conv2d(a[None, None], w))\nfb = relu(conv2d(b[None, None], w))\nreturn conv2d(fa, fb)[0, 0]"),
        {"a": normal(6, 6), "b": normal(4, 4), "w": normal(1, 1, 3, 3)},
        lambda a, b, w: correlation_2d(np.maximum(correlation_2d(a, w[0, 0]), 0), np.maximum(correlation_2d(b, w[0, 0]), 0)),
        ("a", "b", "w"),
    ),
    "grouped convolution": Case(
        "nn.functional.conv2d(x, w, groups=x.shape[1])",
        {"x": normal(1, 3, 4, 4), "w": normal(3, 1, 2, 2)},
        lambda x, w: grouped(x[0], w),
        ("x", "w"),
    ),
    "masked layer": Case(
        "W = w * mask\nreturn tanh(x @ W.T)",
        {"x": normal(2, 3), "w": normal(4, 3), "mask": rng.integers(0, 2, (4, 3)).astype(float)},
        lambda x, w, mask: np.tanh(x @ (w * mask).T),
        ("w", "x"),
    ),
    "masked mean": Case(
        "keep = mask.bool()\nreturn x[keep].mean()",
        {"x": normal(3, 4), "mask": np.array([[1, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 1]])},
        lambda x, mask: x[mask.astype(bool)].mean(),
        ("x",),
        static=False,
    ),
    "causal attention": Case(
        "q, k, v = x @ wq, x @ wk, x @ wv\nT, d = q.shape\nscores = q @ k.T / sqrt(d)\nmask = tril(ones(T, T)).bool()\n"
        "scores = scores.masked_fill(~mask, float('-inf'))\nreturn softmax(scores, dim=-1) @ v",
        {"x": normal(4, 3), "wq": normal(3, 2), "wk": normal(3, 2), "wv": normal(3, 2)},
        lambda x, wq, wk, wv: softmax(np.where(np.tri(4), x @ wq @ (x @ wk).T / np.sqrt(2), -np.inf)) @ (x @ wv),
        ("x", "wq"),
    ),
    "block-diagonal layer": Case(
        "x @ block_diag(A, B).T",
        {"x": normal(2, 5), "A": normal(2, 2), "B": normal(3, 3)},
        lambda x, A, B: np.concatenate([x[:, :2] @ A.T, x[:, 2:] @ B.T], 1),
        ("A", "B"),
    ),
    "block-diagonal layer by einsum": Case(
        "einsum('bgi,goi->bgo', x.view(-1, 2, 3), W).flatten(1)",
        {"x": normal(4, 6), "W": normal(2, 2, 3)},
        lambda x, W: np.concatenate([x[:, :3] @ W[0].T, x[:, 3:] @ W[1].T], 1),
        ("W",),
    ),
    "spatial transformer": Case(
        (
            "grid = F.affine_grid(theta[None], (1, 1, *image.shape), align_corners=True)\n"
            "return F.grid_sample(image[None, None], grid, align_corners=True)[0, 0]"
        ),
        {"image": normal(4, 5), "theta": np.array([[0.83, 0.117, 0.047], [-0.131, 0.713, 0.0931]])},
        bilinear,
        ("image", "theta"),
    ),
    "RNN over padded sequences, read at each end": Case(
        "h = zeros(x.shape[0], Wh.shape[0])\nstates = []\nfor t in range(x.shape[1]):\n    h = tanh(x[:, t] @ Wx + h @ Wh)\n    states.append(h)\n"
        "out = stack(states, dim=1)\nreturn out[arange(x.shape[0]), lengths - 1]",
        {"x": normal(3, 4, 2), "Wx": normal(2, 3), "Wh": normal(3, 3), "lengths": np.array([2, 4, 3])},
        lambda x, Wx, Wh, lengths: rnn_ends(x, Wx, Wh),
        ("x", "Wx", "Wh"),
    ),
    "sliding correlation of all rows with all rows": Case(
        "conv1d(a[:, None, :], b[:, None, :])", {"a": normal(2, 6), "b": normal(3, 4)}, sliding, ("a", "b")
    ),
    "sliding correlation by unfold": Case(
        "einsum('itk,jk->ijt', a.unfold(1, b.shape[1], 1), b)", {"a": normal(2, 6), "b": normal(3, 4)}, sliding, ("a",)
    ),
    "convolution by FFT": Case(
        "fft.irfft(fft.rfft(x) * conj(fft.rfft(k, n=8)), n=8)",
        {"x": normal(8), "k": normal(3)},
        lambda x, k: np.array([sum(x[(i + j) % 8] * k[j] for j in range(3)) for i in range(8)]),
        ("x", "k"),
    ),
    "pseudo-inverse": Case(
        "linalg.pinv(A) @ b", {"A": normal(5, 3), "b": normal(5)}, lambda A, b: np.linalg.lstsq(A, b, rcond=None)[0], ("A", "b")
    ),
    "LSTM step": Case(
        "A = x @ w.T + h @ u.T + b\ni, f, g, o = A.chunk(4, dim=1)\nc_new = sigmoid(f) * c + sigmoid(i) * tanh(g)\nh_new = sigmoid(o) * tanh(c_new)\n"
        'return {"h": h_new, "c": c_new}',
        {"x": normal(2, 3), "h": normal(2, 2), "c": normal(2, 2), "w": normal(8, 3), "u": normal(8, 2), "b": normal(8)},
        lstm,
        ("x", "h", "c", "w", "u", "b"),
    ),
    "a loss that counts": Case("(x > t).sum()", {"x": normal(9), "t": np.array(0.2)}, lambda x, t: (x > t).sum()),
    "its soft version": Case(
        "sigmoid((x - t) / 0.1).sum()",
        {"x": normal(9), "t": np.array(0.2)},
        lambda x, t: sigmoid((x - t) / 0.1).sum(),
        ("x", "t"),
    ),
    "range loss": Case(
        ("low = clamp(lo - x, min=0)\nhigh = clamp(x - hi, min=0)\nreturn (low ** 2 + high ** 2).mean()"),
        {"x": normal(9)},
        lambda x: (np.maximum(-0.5 - x, 0) ** 2 + np.maximum(x - 0.5, 0) ** 2).mean(),
        ("x",),
        {"lo": -0.5, "hi": 0.5},
    ),
    "piecewise loss": Case(
        ("e = abs(x - y)\nreturn where(e < 1, 0.5 * e ** 2, e - 0.5).sum()"),
        {"x": normal(9), "y": 2 * normal(9)},
        lambda x, y: np.where(abs(x - y) < 1, 0.5 * (x - y) ** 2, abs(x - y) - 0.5).sum(),
        ("x", "y"),
    ),
    "logistic regression and its decision": Case(
        (
            "p = sigmoid(x @ w + b)\n"
            "loss = -(t * log(p) + (1 - t) * log(1 - p)).mean()\n"
            'return {"loss": loss, "decision": (p > 0.5).float()}'
        ),
        {"x": normal(5, 2), "w": normal(2), "b": np.array(0.3), "t": np.array([0.0, 1, 1, 0, 1])},
        lambda x, w, b, t: {
            "loss": -(t * np.log(sigmoid(x @ w + b)) + (1 - t) * np.log(1 - sigmoid(x @ w + b))).mean(),
            "decision": (x @ w + b > 0).astype(np.float32),
        },
        ("w", "b"),
    ),
    "quadratic form whose matrix depends on x": Case(
        ("B = stack([stack([x[0], x[1] * x[0]]), stack([sin(x[1]), x[0] ** 2])])\nreturn x @ B.T @ B @ x"),
        {"x": normal(2)},
        lambda x: np.sum((np.array([[x[0], x[1] * x[0]], [np.sin(x[1]), x[0] ** 2]]) @ x) ** 2),
        ("x",),
    ),
    "bias as an input of ones": Case(
        "cat([x, ones(x.shape[0], 1)], dim=1) @ w",
        {"x": normal(4, 2), "w": normal(3, 2)},
        lambda x, w: np.c_[x, np.ones(4)] @ w,
        ("w",),
    ),
    "score of a Gaussian, per sample": Case(
        "-0.5 * ((x - mu) / sigma) ** 2 - log(sigma) - 0.5 * log(2 * pi)",
        {"x": normal(5), "mu": np.array(0.3), "sigma": np.array(1.2)},
        lambda x, mu, sigma: -0.5 * ((x - mu) / sigma) ** 2 - np.log(sigma) - 0.5 * np.log(2 * np.pi),
        ("mu", "sigma"),
    ),
    "batch normalisation by hand": Case(
        (
            "mu = x.mean(0, keepdim=True)\n"
            "var = x.var(0, unbiased=False, keepdim=True)\n"
            "return g * (x - mu) / sqrt(var + 1e-5) + b"
        ),
        {"x": normal(5, 3), "g": normal(3), "b": normal(3)},
        lambda x, g, b: g * (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5) + b,
        ("x", "g"),
    ),
    "contrastive loss": Case(
        (
            "z = F.normalize(x, dim=1)\n"
            "sim = z @ z.T / 0.5\n"
            "n = sim.shape[0]\n"
            "sim = sim.masked_fill(eye(n).bool(), -1e9)\n"
            "return -(log_softmax(sim, dim=1)[arange(n), pair]).mean()"
        ),
        {"x": normal(4, 3), "pair": np.array([1, 0, 3, 2])},
        contrastive,
        ("x",),
    ),
    "Euler steps of an oscillator": Case(
        ("for _ in range(steps):\n    q, p = q + dt * p, p - dt * q\nreturn q, p"),
        {"q": np.array(1.0), "p": np.array(0.0)},
        lambda q, p: dict(zip("qp", np.linalg.matrix_power([[1, 0.1], [-0.1, 1]], 5) @ [q, p], strict=True)),
        ("q", "p"),
        {"steps": 5, "dt": 0.1},
    ),
    "product of tangents": Case(
        ("y = conv1d(x[None, None], k[None, None])[0, 0]\nreturn (tan(y) * tan(2 * y)).sum()"),
        {"x": 0.1 * normal(6), "k": 0.3 * normal(3)},
        lambda x, k: (np.tan(c := np.correlate(x, k, "valid")) * np.tan(2 * c)).sum(),
        ("x", "k"),
    ),
}


def named(expected: Any) -> dict[str, Any]:
    """What a case expects, by output."""
    return expected if isinstance(expected, dict) else {"output": expected}


def differences(case: Case, name: str, h: float = 1e-6) -> Array:
    """Central differences of the sum of the floating outputs."""

    def total(value: Array) -> float:
        results = named(case.expected(**{**case.inputs, name: value}))
        return float(sum(np.sum(r) for r in results.values() if np.asarray(r).dtype == np.float64))

    base = case.inputs[name]
    result = np.zeros(base.shape)
    for index in np.ndindex(base.shape):
        step = np.zeros(base.shape)
        step[index] = h
        result[index] = (total(base + step) - total(base - step)) / (2 * h)
    return result
