"""Programs whose gradient is missing, zero, NaN or too large, as people write them, and the line that makes it so, decided by hand."""

from __future__ import annotations

from typing import Any, Final

import torch

from tests.oracle.explain_case import Case, D, K, P, S, X, at, case

XW: Final[dict[str, Any]] = {"x": [0.3, -1.2, 2.4], "w": [0.5, 1.5, -0.7]}
_SINGLE: Final = {"x": torch.tensor([1.0, 2.0], dtype=torch.float32)}
# fmt: off
_MISSING: Final = (
    case("h = x * 2\nidx = h.argmax(-1)\nreturn idx * w.sum()", XW, X, line=2),
    case("z = F.relu(x)\nmask = z > 0.5\nreturn mask.sum() * w.sum()", XW, X, line=2),
    case("a = x.exp()\nb = a.detach().clone()\nc = b * w\nreturn c.mean()", XW, X, line=2),
    case("def enc(v):\n    v = v * 2\n    return v.detach()\n\nz = enc(x)\nreturn (z * w).sum()", XW, X, line=3),
    case("a = torch.tensor(x)\nreturn (a * w).sum()", XW, X, line=1),
    case("a = torch.as_tensor(x)\nreturn (a * w).sum()", XW, D),
    case("q = (x * 10).to(torch.int32)\nd = q.double() / 10\nreturn (d * w).sum()", XW, X, line=1),
    case("y = x.long()\nreturn F.embedding(y.abs(), w.reshape(3, 1)).sum()", XW, X, line=1),
    case("m = torch.zeros_like(x)\nm[x > 0] = 1.0\nreturn (m * w).sum()", XW, X, line=2),
    case("s = 0\nfor i in range(3):\n    s = s + float(x[i]) * w[i]\nreturn s", XW, X, line=3),
    case("t = x.sum().item()\nlr = 0.1 * t\nreturn lr * w.sum()", XW, X, line=1),
    case("y = torch.zeros_like(x)\nreturn (y * w).sum()", XW, X, line=1),
    case("y = torch.ones(x.size(0))\nreturn (y * w).sum()", XW, X),
    case("c = torch.isnan(x)\nreturn c.double().sum() + w.sum()", XW, X, line=1),
    case("with torch.no_grad():\n    h = torch.tanh(x)\nreturn (h * w).sum()", XW, X, line=2),
    case("with torch.inference_mode():\n    h = x * 2\nreturn (h * w).sum()", XW, X, line=2),
    case("a, b = x.sort()\nreturn (b.double() * w).sum()", XW, X, line=1),
    case("r = x.argsort().argsort().double()\nreturn (r * w).sum()", XW, X, line=1),
    case("p = softmax(x, 0)\npred = p.argmax()\nacc = (pred == 1).double()\nreturn acc + w.sum()", XW, X, line=2),
    case("y = x.data * 2\nreturn (y * w).sum()", XW, X, line=1),
    case("y = x * 2\ny.detach_()\nreturn (y * w).sum()", XW, X, line=2),
    case("n = x.shape[0] * x.dim()\nreturn w.sum() * n", XW, X),
    case("loss = F.cross_entropy(w[None], x.argmax()[None])\nreturn loss", XW, X, line=1),
    case("d = torch.cdist(x[:, None], w[:, None])\nj = d.argmin(1)\nreturn w[j].sum()", XW, X, line=2),
    case("h = x.new_full((3,), 2.0)\nreturn (h * w).sum()", XW, X),
    case("q = torch.round(x)\ny = q + (x - q).detach()\nreturn (y * w).sum()", XW, P, line=1),
    case("target = (x * 2).detach()\nreturn F.mse_loss(w, target)", XW, X, line=1),
    case("y = x.masked_fill(x == x, 1.0)\nreturn (y * w).sum()", XW, D, word="zero in every"),
    case("k = x.abs().topk(2).indices\nreturn w[k].sum()", XW, X, line=1),
    case("h = torch.stack([torch.tensor(v.item()) for v in x])\nreturn (h * w).sum()", XW, X, line=1),
    case("y = x.bernoulli() if False else torch.bernoulli(sigmoid(x))\nreturn (y * w).sum()", XW, (P, X), line=1, seed=1),
    case("b = torch.bucketize(x, torch.tensor([0.0, 1.0]))\nreturn (b * w).sum()", XW, X, line=1),
)
_ZERO: Final = (
    case("h = sigmoid(1e4 * x)\nreturn (h * w).sum()", XW, D, line=1, word="zero in every"),
    case("h = torch.clamp(x, 10, 20)\nreturn (h * w).sum()", XW, D, line=1, word="zero in every"),
    case("p = softmax(x * 1e4, 0)\nreturn (p * w).sum()", XW, D, line=1, word="zero in every"),
    case("y = x.floor()\nreturn (y * w).sum()", XW, P, line=1),
    case("y = torch.sign(x) * torch.sign(x)\nreturn (y * w).sum()", XW, P, line=1),
    case("p = softmax(x, 0)\nreturn p.sum() * w.sum()", XW, D, line=1, word="zero in every"),
    case("c = F.cosine_similarity(x, x, dim=0)\nreturn c * w.sum()", XW, (D, P)),
    case("y = x * (x.detach() * 0)\nreturn (y * w).sum()", XW, D, line=1, word="zero in every"),
    case("y = torch.where(x > 1e3, x, w)\nreturn y.sum()", XW, D, line=1, word="zero in every"),
    case("y = x[torch.tensor([1, 1, 1])]\nz = w - w\nreturn (y * z).sum()", XW, D, line=3, word="zero in every"),
    case("a = x * 1e-30\nb = a * 1e-30\nreturn b.sum()", _SINGLE, D, word="zero in every element in float32"),
    case("y = torch.exp(-x.square() * 200)\nreturn y.sum()", _SINGLE, D, line=1, word="zero in every element in float32"),
    case("a = relu(x - 3)\nb = relu(a)\nreturn (b * w).sum()", XW, D, word="zero in every"),
    case("y = F.hardshrink(x * 0.1)\nreturn (y * w).sum()", XW, D, line=1, word="zero in every"),
    case("y = x.max(0).values - x.max(0).values\nreturn y * w.sum()", XW, D, word="zero in every"),
    case("y = torch.trunc(x / 10) * 10\nreturn (y * w).sum()", XW, P, line=1),
    case("g = F.one_hot(x.argmax(), 3).double()\nreturn (g * x).sum() * 0", XW, D, line=2, word="zero in every"),
)
_NAN: Final = (
    case("s = torch.sqrt(((x - x.mean()) ** 2).mean())\nreturn s", at(2.0, 2.0), S, line=1),
    case("d = x - x\nn = d.norm()\nreturn (x / n).sum()", at(1.0, 2.0), S, line=3),
    case("p = softmax(x * 1e4, 0)\nl = -(p * torch.log(p)).sum()\nreturn l * w.sum()", XW, S, line=2),
    case("r = torch.sqrt(x ** 2 + y ** 2)\nreturn r", {"x": [0.0], "y": [0.0]}, {"x": S, "y": S}, line=1),
    case("c = torch.clamp(x, -1, 1)\nt = torch.acos(c)\nreturn t.sum()", at(1.0, 0.3), S, elements=[[0]], line=2),
    case("c = torch.clamp(x, -1, 1)\nt = torch.acos(c)\nreturn t.sum()", at(1.5, 0.3), D),
    case("m = torch.where(x > 0, torch.log(x), torch.zeros_like(x))\nreturn m.sum()", at(0.0, 2.0), S, elements=[[0]], line=1),
    case("d = torch.cdist(x, x)\ns = torch.sqrt(d)\nreturn s.sum()", {"x": [[0.0, 1.0], [2.0, 5.0]]}, D),
    case("k = exp(x)\ns = k / k.sum()\nreturn (s * w).sum()", {"x": [1000.0, 0.0, 0.0], "w": [1.0, 2.0, 3.0]}, S, line=1),
    case("q = 1 - sigmoid(x)\nl = log(q)\nreturn l.sum()", at(40.0), S, line=2),
    case("n = x.norm(dim=-1, keepdim=True)\ny = x / n\nreturn y.sum()", {"x": [[0.0, 0.0], [1.0, 2.0]]}, S, line=2),
    case("d = x - x.mean()\ny = 1 / d\nreturn y.sum()", at(1.0, 1.0), S, line=2),
    case("a = x.pow(0.5)\nb = (a - 1).pow(2)\nreturn b.sum()", at(0.0, 2.0), S, elements=[[0]], line=1),
    case("r = torch.relu(x) ** 2\ny = torch.log(r)\nreturn y.sum()", at(-1.0, 2.0), S, elements=[], line=2),
    case("h = x\nfor i in range(6):\n    h = h.exp()\nreturn h.sum()", at(1.0), S, line=3),
    case("a = torch.tensor([0.0, -inf])\nm = softmax(x + a, 0)\ne = m * m.log()\nreturn e.sum()", at(1.0, 2.0), S, line=3),
    case("p = x.prod()\nreturn p ** (1 / 3)", at(0.0, 1.0, 2.0), S, line=2),
    case("v = torch.var(x)\nreturn v", at(1.0), S, line=1),
    case("u = linalg.eigh(x)[1]\nreturn (u * w).sum()", {"x": [[1.0, 0.0], [0.0, 1.0]], "w": [[1.0, 2.0], [3.0, 5.0]]}, S, line=1),
    case("g = torch.lgamma(x)\ny = g.exp()\nreturn y.sum()", at(200.0), S, line=2),
    case("q = torch.tanh(x)\ny = torch.atanh(q)\nreturn y.sum()", at(20.0), S, line=2),
    case("n = x.norm()\ny = x * (1 - n) / n\nreturn y.sum()", at(0.0, 0.0), S, line=2),
    case("z = x / 0.0\ny = torch.where(x > 9, z, w)\nreturn y.sum()", XW, S, line=1),
    case("y = torch.exp(torch.exp(x))\nreturn y.sum()", at(7.0), S, line=1),
    case("y = torch.exp(torch.exp(x))\nreturn y.sum()", at(6.0), D),
    case("h = x\nfor i in range(50):\n    h = h * 1e7\nreturn h.sum()", at(1.0), S, line=3),
    case("h = x\nfor i in range(40):\n    h = h * 1e7\nreturn h.sum()", at(1.0), D),
    case("s = x.softmax(0)\nk = (s / 2).log()\nreturn (k * w).sum()", XW, D),
    case("y = log_softmax(x * 1e4, 0)\nreturn (y * w).sum()", XW, D),
    case("m = x > 0\nreturn (x * m).sum()", XW, D),
    case("d = (x - x.T).abs().sum()\nreturn d", {"x": [[1.0, 2.0], [2.0, 1.0]]}, K, line=1),
)
_HOOKS: Final = (
    case("h = x * 2\nh.register_hook(lambda g: g * 3)\nreturn (h * w).sum()", XW, {"x": S, "w": D}),
    case("h = x * 2\nh.register_hook(lambda g: g.clamp(-1, 1))\nreturn (h * w).sum()", XW, {"x": S, "w": D}, elements=[[1]]),
    case("h = x * 2\nh.register_hook(lambda g: g * 0)\nreturn (h * w).sum()", XW, {"x": (P, S), "w": D}),
    case("h = x * 2\nh.register_hook(lambda g: g * 1.0001)\nreturn (h * w).sum()", XW, {"x": S, "w": D}, word="register_hook"),
    case("h = x * x\nh.register_hook(lambda g: g.to(torch.bfloat16).to(g.dtype))\nreturn (h * w).sum()", XW, {"x": S, "w": D}),
    case("h = x * 2\nh.register_hook(lambda g: g + 0)\nreturn (h * w).sum()", XW, {"x": D, "w": D}),
    case("h = x * 2\nh.register_hook(lambda g: -g)\nreturn (h * w).sum()", XW, {"x": S, "w": D}),
    case("h = relu(x)\nh.register_hook(lambda g: g / g.norm())\nreturn (h * w).sum()", XW, {"x": S, "w": D}),
    case("h = x.tanh()\nh.register_hook(lambda g: torch.nan_to_num(g))\nreturn (h * w).sum()", XW, {"x": D, "w": D}),
    case("h = x * 2\nh.register_hook(lambda g: g.sign())\nreturn (h * w).sum()", XW, {"x": S}),
    case("class F1(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, a):\n"
        "        ctx.save_for_backward(a)\n        return a ** 3\n\n"
        "    @staticmethod\n    def backward(ctx, g):\n        (a,) = ctx.saved_tensors\n        return g * 3 * a\n\n"
        "return (F1.apply(x) * w).sum()", XW, {"x": S, "w": D}),
    case("class F2(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, a):\n"
        "        ctx.save_for_backward(a)\n        return a ** 3\n\n"
        "    @staticmethod\n    def backward(ctx, g):\n        (a,) = ctx.saved_tensors\n        return g * 3 * a ** 2\n\n"
        "return (F2.apply(x) * w).sum()", XW, {"x": D, "w": D}),
    case("class Rev(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, a):\n        return a.view_as(a)\n\n"
        "    @staticmethod\n    def backward(ctx, g):\n        return -g\n\n"
        "return (Rev.apply(x) * w).sum()", XW, {"x": S, "w": D}),
)
# fmt: on
CASES: Final[tuple[Case, ...]] = (*_MISSING, *_ZERO, *_NAN, *_HOOKS)
