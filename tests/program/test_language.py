"""What the language has, feature by feature: each program against the same text run by Python over PyTorch, or a closed form."""

from __future__ import annotations

import math
import textwrap
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional
from torch import Tensor

from app.errors import PullbackError
from tests.program.building import answer, built, tensors

X = torch.tensor([[0.5, -1.25, 2.0, 0.1], [1.5, 0.25, -0.75, 3.0], [-2.0, 0.6, 1.1, -0.4]], dtype=torch.float64)
W = torch.tensor([[1.0, -0.5], [0.25, 2.0], [-1.5, 0.75], [0.3, 0.9]], dtype=torch.float64)
B = torch.tensor([0.1, -0.2], dtype=torch.float64)
IDX = torch.tensor([2, 0, 1])
PICK = torch.tensor(1)
INPUTS = {"x": X, "w": W, "b": B, "idx": IDX, "pick": PICK}
PARAMETERS = {"n": 3, "mode": "sum", "flag": True, "scale": 0.5, "sizes": [2, 6], "nothing": None}

# Programs that mean the same in Python over PyTorch.
SAME = [
    "x @ w + b", "y = x @ w\ny += b\ny *= 2\nreturn y", "y = x\ny -= 1\nreturn x", "x[0]", "x[-1, 2]", "x[:, 1]", "x[:, ::2]",
    "x[1:, :-1]", "x[..., 0]", "x[:, None, :]", "x[None]", "x[..., None]", "x[0][1]", "x[x > 0]", "x[idx]", "x[idx, idx]",
    "x[:, [0, 2]]", "x[[0, 1], [2, 3]]", "x[idx][:, [1]]", "x[x[:, 0] > 0]", "x[pick]", "x[pick, 1:]", "x[1:, pick]",
    "x[..., pick]", "x[None, pick, None]", "x[pick, pick]", "x[pick + 1, idx]", "x[0, pick]", "x[torch.tensor([0, 2])]",
    "x[:, torch.tensor([True, False, True, False])]", "x[range(2)]", "x[(0, 1)]", "x[n - 1]", "x.T", "x.mT", "x.t() @ x",
    "x.T @ x", "torch.stack([x, x]).mT", "x.H", "x.mH", "x.real", "x.shape[0] * x", "x * len(x)", "x * x.ndim", "x * x.numel()",
    "x * x.size(0) * x.size()[1] * x.dim()", "x.sum() / x.shape[-1]",
    "rows, columns = x.shape\nreturn x.reshape(columns, rows)", "x.reshape(*x.shape[::-1])", "x.view(x.size(0), -1, 2)",
    "x.sum(0)", "x.sum(dim=1, keepdim=True)", "x.mean()", "x.std(dim=0)", "x.permute(1, 0)", "x.unsqueeze(0).squeeze(0)",
    "x.softmax(dim=-1)", "x.exp().log()", "x.clamp(min=0.0)", "x.pow(2).sum().sqrt()", "x.matmul(w)", "x.abs().max()",
    "torch.softmax(x, dim=-1)", "torch.nn.functional.softmax(x, dim=1)", "F.relu(x)", "nn.functional.relu(x)", "F.gelu(x)",
    "torch.relu(x)", "F.linear(x, w.T, b)", "torch.linalg.norm(x)", "linalg.pinv(x)", "torch.fft.rfft(x).abs()",
    "fft.rfft(x).real", "special.erf(x)", "torch.special.expit(x)", "softmax(x, dim=0)", "relu(x)", "pinv(x)",
    "cross_entropy(x, idx)", "torch.cat([x, x], dim=0)", "torch.stack([x[0], x[1]])", "torch.einsum('ij,jk->ik', x, w)",
    "torch.where(x > 0, x, 0.1 * x)", "torch.maximum(x, torch.zeros_like(x))", "torch.cat((x, x), 1)", "torch.outer(b, b)",
    "torch.eye(3).double() @ x", "values, indices = torch.max(x, 1)\nreturn {'values': values, 'indices': indices}",
    "torch.max(x, 1)[0]", "x.max(1).values", "x.max(dim=1)[1]", "x.sort(dim=1).indices", "x.topk(2, dim=1)[0]", "x.min(0)[1]",
    "u, s, vh = torch.linalg.svd(x)\nreturn s",
    "u, s, vh = torch.linalg.svd(x, full_matrices=False)\nreturn u @ torch.diag(s) @ vh", "torch.linalg.eigh(x @ x.T)[0]",
    "q, r = torch.linalg.qr(x)\nreturn q @ r", "torch.linalg.slogdet(x[:, :3]).logabsdet",
    "a, c = x.split(2, dim=1)\nreturn a * c", "a, c = x.chunk(2, 1)\nreturn a - c",
    "first, second, third = x\nreturn first * second + third", "[r.sum() for r in x][1]", "x > 0", "(x > 0) & (x < 1)",
    "(x > 0) | ~(x < 1)", "(x > 0) ^ (x < 1)", "x == x", "x != 0.5", "x >= 0", "-x", "+x", "~(x > 0)", "x ** 2", "2 ** x",
    "x // 0.5", "x % 0.7", "x / 3", "1 / x", "1 - x", "idx // 2", "idx % 2", "idx << 1", "idx >> 1", "idx & 1", "idx | 4",
    "x * True", "x.float()", "x.double()", "x.long()", "x.int()", "x.bool()", "x.half()", "x.to(torch.float32)",
    "x.to(dtype=torch.int64)", "x.type(torch.float32)", "idx.type_as(x)", "idx.to(x)", "idx.to(x.dtype)", "x.to(x.device)",
    "x.type(torch.complex64)", "(x > 0).sum()", "(x > 0).float().mean()", "x.detach() * x", "x.clone()", "x.contiguous()",
    "x.data", "x.flatten()[3:7]", "x.masked_fill(x > 1, 0.0)", "x.gather(1, idx[:, None])", "x.index_select(0, idx)",
    "x.new_zeros(2, 3)", "x.new_ones((2,))", "x.repeat(2, 1)", "x.expand(2, 3, 4)", "x.roll(1, 0)", "x.flip(0)", "x.cumsum(0)",
    "x.norm()", "x.var(unbiased=False)", "torch.zeros(3, 4).double() + x", "x + torch.arange(4)",
    "x * torch.linspace(0, 1, 4).double()", "torch.ones_like(x)", "torch.full((2, 2), 3)", "torch.tensor([1, 2])",
    "torch.arange(3)", "torch.arange(1, 7, 2)", "torch.tril(x)", "x.tril()", "torch.tensor([[True, False]])", "torch.tensor(3)",
    "torch.tril_indices(3, 3)", "torch.full_like(x, 2.0)",
    "total = 0\nfor i in range(3):\n    total = total + x[i] * i\nreturn total",
    "y = x + 1\ntry:\n    return y\nfinally:\n    y += 10",
    "try:\n    return x\nexcept ValueError:\n    return w\nelse:\n    y = w\nfinally:\n    y = x",
    "def f(x):\n    try:\n        return x\n    finally:\n        return 2 * x\nreturn f(x)",
    "y = x\nfor i in range(3):\n    try:\n        if i == 1:\n            break\n        y = y * x\n    finally:\n        y = y + 2\nreturn y",
    "total = 0\nfor i in range(0, 6, 2):\n    for j in (1, 2):\n        total += x * i * j\nreturn total",
    "hs = []\nh = x[0]\nfor t in range(4):\n    h = torch.tanh(h * 0.5 + t)\n    hs.append(h)\nreturn torch.stack(hs)",
    "hs = [x[0]]\nfor t in range(3):\n    hs = hs + [hs[-1] * 2]\nreturn torch.stack(hs)",
    "a = hs = []\nhs += [x]\nreturn a[0]", "hs = []\nfor r in x:\n    hs += [r * 2]\nreturn torch.stack(hs)",
    "total = 0\nfor row in x:\n    total = total + row.sum() ** 2\nreturn total",
    "total = 0\nfor i, row in enumerate(x):\n    total = total + i * row\nreturn total",
    "total = 0\nfor a, c in zip(x, w.T):\n    total = total + (a * c).sum()\nreturn total",
    "total = 0\nfor i in reversed(range(3)):\n    total = total * 2 + x[i]\nreturn total",
    "torch.stack([x[i] * i for i in range(3)])", "torch.stack([x[i, j] for i in range(3) for j in range(4) if i != j])",
    "torch.stack([torch.stack([x[i, j] * i for j in range(2)]) for i in range(3)])", "torch.stack(tuple(r for r in x))",
    "torch.cat([r[None] for r in list(x)])", "torch.stack([x[i] for i in [2, 0]])",
    "if n == 3:\n    y = x\nelse:\n    y = -x\nreturn y",
    "if n > 5:\n    y = x\nelif n > 2:\n    y = 2 * x\nelse:\n    y = -x\nreturn y",
    "if x.shape[0] == 3 and not n == 2:\n    return x\nreturn -x", "return x if flag else -x", "x if nothing is None else -x",
    "y = x * 2 if mode == 'sum' else x\nreturn y", "y = nothing or 2\nreturn x * y", "y = scale and 3\nreturn x * y",
    "if nothing is not None:\n    return x\nreturn x * 0", "x * (1 < n <= 3)", "x * (n in (1, 2, 3))", "x * (5 not in [1, 2])",
    "x * ('a' != mode)", "x * (x.dtype == torch.float64)", "x * (x.shape == (3, 4))", "x * scale + n", "x.reshape(sizes)",
    "x * (7 // 2) * (7 % 4) * (2 ** 3) * (-3) * abs(-2)", "x * (1 << 3) * (6 & 3) * (6 | 1) * (6 ^ 3) * (~5) * (9 >> 1)",
    "x * max(1, 2, 3) * min([4, 5]) * sum([1, 2]) * len([1, 2])", "x * round(2.6) * int(3.7) * float(2) * round(1.25, 1)",
    "x * math.sqrt(2.0) * math.pi * math.floor(2.5) * math.exp(1)", "x / math.sqrt(x.shape[-1])",
    "x * math.fsum([0.1] * 10) + math.fsum(v * v for v in (1, 2)) + math.fsum([])", "x * math.prod(v + 1 for v in range(3))", "x * float('inf')",
    "pi = 3\nreturn x * pi", "x * 1e-3 * .5", "x * sorted([3, 1, 2])[0]", "x * [1, 2, 3][1] * (4, 5)[-1]",
    "x * [1, 2, 3][::2][1]", "x * len(range(5)) * list(range(3))[2]", "x * any([False, True]) * all([True])",
    "a = c = x * 2\nreturn a + c", "(a, c), d = (x, x * 2), x * 3\nreturn a + c * d", "x: Tensor = x * 2\nreturn x",
    "pass\nx * 2", "'a docstring'\nx * 2", "# a comment\nx * 2  # another", "_, i = x.max(1)\nreturn i",
    "for _ in range(2):\n    x = x * 2\nreturn x",
    "for i in range(10):\n    if i == 2:\n        break\n    x = x * 2\nreturn x",
    "for i in range(4):\n    if i % 2:\n        continue\n    x = x + i\nreturn x",
    "for i in range(4):\n    x = x * 2\n    if i == 1:\n        return x", "p = {'w': w, 'b': b}\nreturn x @ p['w'] + p['b']",
    "hs = [0, 0]\nhs[1] = x\nreturn hs[1]", "hs = [x, w]\na = hs.pop()\nreturn a * len(hs)",
    "hs = []\nhs.extend([x, x])\nreturn hs[0] + hs[1]", "x.sum(axis=0)", "torch.sum(x, dim=(0, 1))",
    "torch.sum(input=x, dim=0)", "torch.mean(x, 1, True)", "F.softmax(input=x, dim=1)", "(\n    x\n    + 1\n)", "x + \\\n    1",
    "y = x; z = y * 2; return z", "torch.nn.functional.one_hot(idx, 3)", "F.mse_loss(x, x * 2, reduction=mode)",
    "F.conv2d(x[None, None], w[None, None, :2])", "F.dropout(x, p=0.5, training=False)",
    "torch.meshgrid(b, b, indexing='ij')[0]", "torch.complex(x, x).abs()", "x * (1 + 2j)", "x.is_floating_point() * x",
    "torch.logical_not(x > 0)", "x.add(1).mul(2)", "x.lerp(x * 2, 0.5)", "torch.bmm(x[None], w[None])",
    "torch.triu(torch.ones(3, 3)).double() @ x", "x.movedim(0, 1)", "x.unbind(0)[1]", "torch.unbind(x, 1)[-1]",
    "torch.logsumexp(x, dim=(0, 1))", "x.argmax(1)", "torch.nonzero(x > 0)", "x.T[0].shape[0] * x", "torch.trapezoid(x, dim=1)",
    "class A:\n    k = 1\nclass B(A):\n    pass\nclass C(A):\n    k = 5\nclass D(B, C):\n    pass\nreturn x * D().k",
    "k = 1\ng = (x * k for i in range(2))\nk = 5\nreturn sum(g)", "k = 1\ng = map(lambda t: t * k, [x, x])\nk = 5\nreturn sum(g)",
    "y = x * 1\ng = (y * i for i in range(1, 3))\ny.mul_(10)\nreturn sum(g)", "y = x * 1\nreturn sum(y.mul_(2) for i in range(2))",
    "g = (i for i in range(1, 5))\nreturn x * sum(p * q for p, q in zip(g, g))", "g = (x * i for i in range(3))\nreturn sum(g) + sum(g, x)",
    "e = enumerate([10, 20])\nfor i, v in e:\n    break\nfor i, v in e:\n    x = x * v + i\nreturn x",
    "g = iter([1, 2, 3, 4])\na = any(i == 2 for i in g)\nreturn x * sum(g)", "g = iter([2, 0, 3, 4])\na = all(g)\nreturn x * sum(g)",
    "g = iter([1, 2, 3, 4])\na = 2 in g\nreturn x * sum(g)", "a = iter([1, 2, 3])\nc = list(zip(a, [5]))\nreturn x * next(a)",
    "hs = [1, 2]\ng = map(lambda v: v * x, hs)\nhs.append(4)\nreturn sum(g)",
    "hs = [x]\nfor h in hs:\n    if len(hs) < 3:\n        hs.append(h * 2)\nreturn sum(hs)",
    "torch.cumprod(x, dim=0)", "torch.kron(b, b)", "x.diagonal().sum()", "torch.trace(x[:, :3])",
]  # fmt: skip


def _reference(text: str) -> Any:
    """The same text as a Python function over PyTorch's names."""
    body = text if "return" in text else _returning(text)
    namespace: dict[str, Any] = {
        **vars(torch.nn.functional),
        **vars(torch),
        "torch": torch,
        "F": torch.nn.functional,
        "nn": torch.nn,
    }
    namespace |= {"linalg": torch.linalg, "fft": torch.fft, "special": torch.special, "math": math, "Tensor": Tensor}
    namespace |= {"pinv": torch.linalg.pinv, "cross_entropy": torch.nn.functional.cross_entropy, "softmax": torch.softmax}
    for name in ("sum", "min", "max", "abs", "round", "all", "any", "pow", "float", "int", "bool", "range"):
        namespace.pop(name, None)
    source = f"def program({', '.join([*INPUTS, *PARAMETERS])}):\n" + textwrap.indent(body, "    ")
    exec(source, namespace)  # noqa: S102 (a text of this table)
    return namespace["program"](*(v.clone() for v in INPUTS.values()), *PARAMETERS.values())


def _returning(text: str) -> str:
    lines = text.split("\n")
    start = next(i for i in range(len(lines) - 1, -1, -1) if not lines[i].startswith((" ", ")")))
    lines[start] = "return " + lines[start]
    return "\n".join(lines)


@pytest.mark.parametrize("text", SAME)
def test_means_what_python_means(text: str) -> None:
    expected = _reference(text)
    got = answer(text, INPUTS, PARAMETERS)
    wanted = expected if isinstance(expected, dict) else {"output": expected}
    assert list(got) == list(wanted)
    for name, value in wanted.items():
        value = torch.as_tensor(value)
        if value.dtype == torch.float32 and got[name].dtype == torch.float64:
            value = value.double()  # makers of tensors follow the query's dtype
        torch.testing.assert_close(got[name], value, rtol=1e-6, atol=1e-6, equal_nan=True)


# What differs from Python, or is ours: program → what it gives.
OURS: list[tuple[str, Any]] = [
    ("sum(x)", X.sum()), ("sum(x, 0)", X.sum(0)), ("sum(x, dim=1)", X.sum(1)), ("sum([x, x])", 2 * X),
    ("sum([b, b], b)", 3 * B), ("sum(x[i] for i in range(3))", X.sum(0)), ("sum([i * x for i in range(3)])", 3 * X),
    ("sum([])", torch.tensor(0)), ("min(x, 0)[1]", X.min(0)[1]), ("max(x)", X.max()), ("max(x, dim=1).values", X.max(1)[0]),
    ("v, i = max(x, 1)\nreturn i", X.max(1)[1]), ("max(x, -x)", X.abs()), ("min([x, -x])", -X.abs()),
    ("max([b[0], b[1]])", B.max()), ("abs(x)", X.abs()), ("abs(-2) * b", 2 * B), ("round(x)", X.round()),
    ("round(x, 1)", X.round(decimals=1)), ("pow(x, 2)", X**2), ("pow(2, 3) * b", 8 * B), ("all(x > -9)", torch.tensor(True)),
    ("any(x > 9)", torch.tensor(False)), ("detach(x)", X), ("stop_gradient(x) * 2", 2 * X), ("x / sqrt(4)", X / 2),
    ("x * exp(0) * cos(0.0)", X), ("x * log(e)", X), ("x * floor(2.5)", 2 * X), ("x * torch.sqrt(4.0)", 2 * X),
    ("pi * b", math.pi * B), ("b * torch.pi * math.e", math.pi * math.e * B),
    ("where(b > 0, b, -inf)", torch.tensor([0.1, -math.inf], dtype=torch.float64)), ("zeros(2) + b", B),
    ("ones(2, 2) @ b", torch.ones(2, 2).double() @ B), ("eye(2) @ b", B), ("full((2,), 0.5) * b", 0.5 * B),
    ("arange(0, 1, 0.5)", torch.tensor([0.0, 0.5], dtype=torch.float64)), ("arange(2)", torch.arange(2)),
    ("linspace(0, 1, 3)", torch.tensor([0, 0.5, 1], dtype=torch.float64)),
    ("tensor([0.5, 1])", torch.tensor([0.5, 1], dtype=torch.float64)), ("tensor(0.1)", torch.tensor(0.1, dtype=torch.float64)),
    ("zeros(2, dtype=float32)", torch.zeros(2)), ("zeros(2, dtype=torch.int64)", torch.zeros(2).long()),
    ("zeros(2, device=x.device, dtype=x.dtype) + b", B), ("zeros([2]) + b", B), ("zeros((2,)) + b", B),
    ("scalar_tensor(0.1) * b", 0.1 * B), ("hann_window(4)", torch.hann_window(4, dtype=torch.float64)),
    ("x.to(float32)", X.float()), ("x.to('float32')", X.float()), ("x.to(long)", X.long()),
    ("sum(x, axis=0, keepdims=True)", X.sum(0, keepdim=True)), ("reshape(x, 4, 3)", X.reshape(4, 3)), ("permute(x, 1, 0)", X.T),
    ("idx / 2", IDX.double() / 2), ("sqrt(idx)", IDX.double().sqrt()),
    ("F.one_hot(idx, num_classes=3)", torch.eye(3).long()[IDX]), ("return 2.5", torch.tensor(2.5, dtype=torch.float64)),
    ("return 3", torch.tensor(3)), ("x.shape[0] > 2", torch.tensor(True)), ("def f(x, w):\n    y = x @ w\n    return y", X @ W),
    ("def f(x, k=2.0):\n    return x * k", 2 * X), ("  y = x * 2\n  return y", 2 * X), ("y = x * 2\r\nreturn y\r\n", 2 * X),
    ("\n\n    x * 2\n\n", 2 * X), ("e = x - 1\nreturn e", X - 1), ("sum = x.sum()\nreturn sum * 2", 2 * X.sum()),
    ("x.T.shape[0] * b", 4 * B), ("torch.Tensor([1, 2])", torch.tensor([1, 2], dtype=torch.float64)), ("b.T", B),
    ("stack([x, 2 * x]).T", torch.stack([X, 2 * X]).permute(2, 1, 0)), ("tensor(x)", X), ("complex(b, b).real", B),
    ("softmax = x * 2\nreturn torch.softmax(softmax, 1)", torch.softmax(2 * X, 1)),
    ("μ = x.mean()\nreturn x - μ", X - X.mean()), ("zip_ = [a * c for a, c in zip(x, x)]\nreturn stack(zip_)", X * X),
    ("dot(x[0], x[1])", X[0] @ X[1]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), OURS, ids=[text for text, _ in OURS])
def test_own_meanings(text: str, expected: Tensor) -> None:
    (value,) = answer(text, INPUTS, PARAMETERS).values()
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)


OUTPUTS = [
    ("x", ["output"]),
    ("return x", ["output"]),
    ("return x, w", ["x", "w"]),
    ("x, w", ["x", "w"]),
    ("loss = x.sum()\nreturn loss, x", ["loss", "x"]),
    ("return x, x", ["output0", "output1"]),
    ("return x * 2, w", ["output0", "output1"]),
    ('return {"loss": x.sum(), "p": w}', ["loss", "p"]),
    ('return {"loss": 1.5}', ["loss"]),
    ("return [x, w]", ["output.0", "output.1"]),
    ('return x.sum(), {"mse": x.mean(), "n": 3}, None', ["output0", "output1.mse", "output1.n"]),
    ("def f(v):\n    return v.sum(), {'mse': v}\nloss, stats = f(x)", ["loss", "stats.mse"]),
    ("return max(x, 1)", ["values", "indices"]),
    ("linalg.svd(x)", ["U", "S", "Vh"]),
    ("return x.split(2, 1)", ["output.0", "output.1"]),
    ('return {"parts": [x, w], "all": x}', ["parts.0", "parts.1", "all"]),
    ('return {"top": max(x, 1)}', ["top.values", "top.indices"]),
    ("hs = [x]\nhs.append(w)\nreturn hs", ["output.0", "output.1"]),
]


@pytest.mark.parametrize(("text", "names"), OUTPUTS, ids=[text for text, _ in OUTPUTS])
def test_outputs_are_named(text: str, names: list[str]) -> None:
    assert list(answer(text, INPUTS, PARAMETERS)) == names


def test_lists_of_tensors_are_inputs() -> None:
    function = built("cat(parts) * sum([p.sum() for p in parts]) + parts[1].sum()", {"parts": (B, 2 * B)})
    assert function.leaves == ("parts.0", "parts.1")
    torch.testing.assert_close(function.call(B, 2 * B)[0], torch.cat([B, 2 * B]) * 3 * B.sum() + 2 * B.sum())


def test_a_list_parameter_selects_rows() -> None:
    torch.testing.assert_close(answer("x[rows]", {"x": X}, {"rows": [2, 0]})["output"], X[[2, 0]])


def test_shapes_that_depend_on_data_are_built_on_real_tensors() -> None:
    assert built("x * 2", {"x": X}).static
    masked = built("x[x > 0]", {"x": X})
    assert not masked.static
    assert masked.call(X)[0].shape == (int((X > 0).sum()),)


def test_an_index_in_a_tensor_needs_no_data() -> None:
    """So that it can be planned, and run per sample under vmap."""
    function = built("log_softmax(x, dim=0)[pick]", {"x": X[0], "pick": PICK})
    assert function.static
    picked = torch.func.vmap(function.call)(X, IDX)[0]
    torch.testing.assert_close(picked, torch.log_softmax(X, 1)[torch.arange(3), IDX])


RECURRENT = "torch.rnn_tanh(x[None], x[:2, None], [w, w, w, w], False, 2, {}, True, False, True)[0]"


def test_random_programs_say_so_and_follow_the_seed() -> None:
    for text in (
        "x + randn(3, 4)",
        "x * rand_like(x)",
        "dropout(x, 0.5)",
        "x + randint(0, 5, (3, 4))",
        "x[randperm(3)]",
        "x * torch.rand(3, 1)",
        "F.scaled_dot_product_attention(x, x, x, dropout_p=0.5)",
        f"w = torch.eye(4)\n{RECURRENT.format(0.5)}",
        "w = torch.empty(3, 4)\nnn.init.xavier_uniform_(w)\nx * w",
        "w = torch.zeros(3, 4)\nnn.init.normal_(w[1:], std=2)\nx + w",
    ):
        function = built(text, {"x": X})
        assert function.random, text
        torch.manual_seed(5)
        first = function.call(X)[0]
        torch.manual_seed(5)
        assert torch.equal(first, function.call(X)[0]), text
    for text in (
        "x * 2",
        "F.scaled_dot_product_attention(x, x, x)",
        "dropout(x, 0.5, training=False)",
        f"w = torch.eye(4)\n{RECURRENT.format(0)}",
        "w = torch.empty(3, 4)\nnn.init.xavier_uniform_(w)\nx",
        "m = nn.Linear(4, 2)\nnn.init.normal_(m.weight)\nm(x)",
        "w = nn.Parameter(torch.empty(3, 4))\nnn.init.normal_(w)\nx * w",
    ):
        assert not built(text, {"x": X}).random, text


def test_factories_follow_the_dtype_of_the_query() -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        x = X.to(dtype)
        for text in (
            "x + zeros(3, 4)",
            "x * eye(3, 4)",
            "x * full((4,), 0.5)",
            "x * linspace(0, 1, 4)",
            "x * tensor([1.0, 2.0, 3.0, 4.0])",
            "idx[:, None] / 2 + x",
        ):
            assert answer(text, {"x": x, "idx": IDX}, dtype=dtype)["output"].dtype == dtype, text
    assert answer("x + zeros(3, 4)", {"x": X.to(torch.complex128)}, dtype=torch.complex128)["output"].dtype == torch.complex128


def test_the_default_dtype_is_left_as_it_was() -> None:
    before = torch.get_default_dtype()
    answer("x / 2", {"x": IDX})
    assert torch.get_default_dtype() == before


def test_steps_know_their_places() -> None:
    text = "p = softmax(x @ w, dim=1)\nlabel = p.max(1)[1]\nfor i in range(2):\n    p = p * 2\nreturn p[label]"
    steps = [step for _, step in built(text, {"x": X, "w": W}).steps()]
    assert [(s.line, s.column, s.operation, s.text) for s in steps] == [
        (1, 13, "@", "p = softmax(x @ w, dim=1)"),
        (1, 5, "softmax", "p = softmax(x @ w, dim=1)"),
        (2, 9, "max", "label = p.max(1)[1]"),
        (2, 9, "max", "label = p.max(1)[1]"),
        (4, 9, "*", "p = p * 2"),
        (4, 9, "*", "p = p * 2"),
        (5, 8, "[]", "return p[label]"),
    ]


def test_columns_count_characters_and_indentation() -> None:
    steps = [step for _, step in built("    θ = x\n    'é'; y = θ @ w\n    return y", {"x": X, "w": W}).steps()]
    assert [(s.line, s.column) for s in steps] == [(2, 14)]


def test_steps_that_no_output_needs_are_kept_but_not_run() -> None:
    function = built("dead = linalg.inv(x[:, :3] * 0)\nreturn x", {"x": X})
    assert "linalg.inv" in [step.operation for _, step in function.steps()]
    torch.testing.assert_close(function.call(X)[0], X)


def test_gradients_flow_and_are_cut() -> None:
    x = X.clone().requires_grad_()
    function = built("(x * detach(x)).sum()", {"x": X})
    (gradient,) = torch.autograd.grad(function.call(x)[0], x)
    torch.testing.assert_close(gradient, X)


def test_every_name_of_an_input_is_safe_in_the_graph() -> None:
    names = ["class_", "self", "torch", "getitem", "output", "leaf0", "x", "F", "input", "λ", "_t"]
    function = built("return [" + ", ".join(names) + "]", tensors(**dict.fromkeys(names, np.ones(2))))
    assert function.leaves == tuple(names)
    function.graph.lint()


def test_a_name_given_twice_is_refused() -> None:
    from app.errors import PullbackError

    with pytest.raises(PullbackError) as caught:
        built("x", {"x": X}, {"x": 1})
    assert (caught.value.code, caught.value.at) == ("bad_program", "parameters.x")


def test_as_much_nesting_as_is_allowed_can_be_built() -> None:
    text = "x" + " + x" * 90
    torch.testing.assert_close(answer(text, {"x": X})["output"], 91 * X)
    nested = "tanh(" * 90 + "x" + ")" * 90
    assert answer(nested, {"x": X})["output"].shape == X.shape


def test_many_steps_can_be_built() -> None:
    text = "for i in range(1990):\n    x = x + 1\nreturn x"
    torch.testing.assert_close(answer(text, {"x": X})["output"], X + 1990)


@pytest.mark.parametrize("condition", ["str(x.T) == 'x'", "f'{x.shape}' != '[3]'", "len({str((1,)), str((2,))}) == 2"])
def test_texts_that_are_not_written_out_are_not_compared(condition: str) -> None:
    with pytest.raises(PullbackError, match=r"Line 1.*not written out"):
        answer(f"x * (2 if {condition} else 3)", tensors(x=1.0))
