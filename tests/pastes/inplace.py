"""Writes into tensors, views and their bases, regions without gradients."""

from __future__ import annotations

from tests.pastes.paste import Paste

X = (3, 4)

PASTES = [
    Paste("sinusoidal positions", """
max_len, d_model = 6, 8
pe = torch.zeros(max_len, d_model)
position = torch.arange(0, max_len, dtype=torch.float64).unsqueeze(1)
div_term = torch.exp(torch.arange(0, d_model, 2).double() * (-math.log(10000.0) / d_model))
pe[:, 0::2] = torch.sin(position * div_term)
pe[:, 1::2] = torch.cos(position * div_term)
out = x + pe[:x.size(0), :]
""", {"x": (4, 8)}, "out"),
    Paste("fill a result", "y = torch.zeros(3)\nfor i in range(3):\n    y[i] = (x[i] ** 2).sum()\ny", {"x": X}, "y"),
    Paste("mask write", "y = x.clone()\ny[y < 0] = 0\ny[x > 1] = x[x > 1].log()\n(y * x).sum()", {"x": X}, "(y * x).sum()"),
    Paste("a view is written", "y = x * 1\nr = y[0]\nr += 1\nr.mul_(2)\ny.sum(0)", {"x": X}, "y.sum(0)"),
    Paste("a base is written", "y = x * 1\nr = y[:, 1]\ny += 10\ny[0, 1] = 3.0\nr * 2", {"x": X}, "r * 2"),
    Paste("a transposed view", "y = x.clone()\nt = y.t()\nt[1] = v\nt[:, 0] *= 3\ny", {"x": X, "v": (3,)}, "y"),
    Paste("view of a view", "y = x.clone()\na = y.view(2, 6)[1]\nb = a[2:5]\nb.add_(b * 2)\nb[0] = 0\ny.exp()", {"x": X}, "y.exp()"),
    Paste("diagonal", "y = x @ x.T\ny.diagonal().add_(0.5)\ny.fill_diagonal_(0) if False else y\ntorch.linalg.det(y)", {"x": X}, "torch.linalg.det(y)"),
    Paste("fill diagonal", "s = x @ x.t()\ns.fill_diagonal_(-1e9)\ns.softmax(1)", {"x": X}, "s.softmax(1)"),
    Paste("slice plus equals", "y = torch.zeros(3, 4)\ny[1:] += x[1:] * 2\ny[:, ::2] -= x[:, ::2]\ny[0] /= 2\ny", {"x": X}, "y"),
    Paste("scatter add", "out = torch.zeros(4)\nout.scatter_add_(0, idx, v)\nout ** 2", {"v": (6,), "idx": ("int", 0, 4, 6)}, "out ** 2"),
    Paste("index add", "out = torch.zeros(4, 2)\nout.index_add_(0, idx, v, alpha=2)\nout ** 2", {"v": (6, 2), "idx": ("int", 0, 4, 6)}, "out ** 2"),
    Paste("masked fill in place", "scores = x @ x.T\nmask = torch.triu(torch.ones(3, 3), diagonal=1).bool()\nscores.masked_fill_(mask, float('-inf'))\nF.softmax(scores, dim=-1) @ x", {"x": X}, "F.softmax(scores, dim=-1) @ x"),
    Paste("clamp in place", "y = x * 2\ny.clamp_(min=-1, max=1)\ny.sum()", {"x": X}, "y.sum()"),
    Paste("relu in place", "h = x @ w\nF.relu(h, inplace=True)\nh.pow(2).sum()", {"x": X, "w": (4, 2)}, "h.pow(2).sum()"),
    Paste("relu module in place", "act = nn.ReLU(inplace=True)\nh = x * 3\nact(h)\nh.sum()", {"x": X}, "h.sum()"),
    Paste("advanced index write", "y = x.clone()\nk = torch.stack([idx[0], (idx[0] + 1) % 3])\ny[k, 1] = v\ny[[0, 2]] *= 2\ny", {"x": X, "idx": ("int", 0, 3, 2), "v": (2,)}, "y", parameters={}),
    Paste("accumulate", "total = torch.zeros(())\nfor row in x:\n    total += row.norm()\ntotal", {"x": X}, "total"),
    Paste("copy", "y = torch.empty_like(x)\ny.copy_(x)\ny[1].zero_()\ny.sum(1)", {"x": X}, "y.sum(1)", plain="y = torch.zeros_like(x)\ny.copy_(x)\ny[1].zero_()"),
    Paste("no grad region", "with torch.no_grad():\n    mean = x.mean(0)\n    std = x.std(0)\ny = (x - mean) / std\ny.pow(3).sum()", {"x": X}, "y.pow(3).sum()"),
    Paste("no grad decorator", "@torch.no_grad()\ndef target(t):\n    return t.softmax(-1)\n\nloss = ((x - target(x * 2)) ** 2).sum()", {"x": X}, "loss"),
    Paste("enable grad inside", "with torch.no_grad():\n    a = x * 2\n    with torch.enable_grad():\n        b = x * 3\n(a * b).sum()", {"x": X}, "(a * b).sum()"),
    Paste("sgd by hand", """
lr = 0.1
for _ in range(3):
    loss = ((x @ w - y) ** 2).mean()
    g = torch.autograd.grad(loss, w, create_graph=True)[0]
    w = w - lr * g
((x @ w - y) ** 2).mean()
""", {"x": X, "w": (4,), "y": (3,)}, "((x @ w - y) ** 2).mean()"),
    Paste("ema under no grad", "avg = x.clone()\nwith torch.no_grad():\n    avg.mul_(0.9).add_(w, alpha=0.1)\n(avg * w).sum()", {"x": X, "w": X}, "(avg * w).sum()"),
    Paste("detach and continue", "h = x.tanh()\nfor t in range(3):\n    h = (h.detach() * 0.5 + x).tanh()\nh.sum()", {"x": X}, "h.sum()"),
    Paste("data is detached", "y = x.data * x\ny.sum()", {"x": X}, "y.sum()"),
    Paste("halves are views", "y = x.clone()\na, b = y[:, :2], y[:, 2:]\na += b\ny.sum(0)", {"x": X}, "y.sum(0)"),
    Paste("unsqueeze in place", "y = x.clone()\ny.unsqueeze_(0)\ny.squeeze_(0).add_(1)\ny.sum(1)", {"x": X}, "y.sum(1)"),
    Paste("out argument", "r = torch.zeros(3, 2)\ntorch.matmul(x, w, out=r)\nr.sum()", {"x": X, "w": (4, 2)}, "(x @ w).sum()", plain="r = x @ w"),
    Paste("dp table", """
n, m = c.shape
D = torch.full((n + 1, m + 1), float("inf"))
D[0, 0] = 0
for i in range(1, n + 1):
    for j in range(1, m + 1):
        z = torch.stack([D[i - 1, j], D[i, j - 1], D[i - 1, j - 1]])
        D[i, j] = c[i - 1, j - 1] - torch.logsumexp(-z, 0)
D[n, m]
""", {"c": (3, 3)}, "D[n, m]", plain="""
n, m = c.shape
T = {(i, j): torch.tensor(float("inf")) for i in range(n + 1) for j in range(m + 1)}
T[0, 0] = torch.tensor(0.0)
for i in range(1, n + 1):
    for j in range(1, m + 1):
        z = torch.stack([T[i - 1, j], T[i, j - 1], T[i - 1, j - 1]])
        T[i, j] = c[i - 1, j - 1] - torch.logsumexp(-z, 0)
D = T
"""),
]  # fmt: skip
