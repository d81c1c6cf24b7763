"""Notebook cells, forum answers and slides: imports, prints, prompts, typographic signs, scripts."""

from __future__ import annotations

from tests.pastes.paste import Paste

X, V = (3, 4), (4,)

PASTES = [
    Paste("imports and a print", """
import torch
import torch.nn.functional as F
import numpy as np

logits = x @ w
probs = F.softmax(logits, dim=-1)
print(probs.shape)
loss = -(y * torch.log(probs)).sum(dim=-1).mean()
print("loss:", loss.item())
""", {"x": X, "w": (4, 3), "y": ("pos", 3, 3)}, "loss"),
    Paste("requires grad and backward", """
x.requires_grad_(True)
y = (x ** 2 + 3 * x).sum()
y.backward()
print(x.grad)
""", {"x": X}, "(x ** 2 + 3 * x).sum()"),
    Paste("prompts", """
>>> import torch
>>> y = x.exp()
>>> y.shape
torch.Size([3, 4])
>>> z = (y / y.sum(1, keepdim=True)).log()
>>> def f(t):
...     return t * 2
...
>>> f(z)
tensor([[...]])
""", {"x": X}, "(x.exp() / x.exp().sum(1, keepdim=True)).log() * 2", plain=""),
    Paste("ipython prompts", """
In [1]: import torch
In [2]: s = torch.sigmoid(x)
In [3]: (s * (1 - s)).mean()
Out[3]: tensor(0.2)
""", {"x": X}, "(torch.sigmoid(x) * (1 - torch.sigmoid(x))).mean()", plain=""),
    Paste("typographic signs", "y = x \u2212 1\nreduction = \u201csum\u201d\nF.mse_loss(y, x \u00d7 2, reduction=reduction)", {"x": X},
          "F.mse_loss(x - 1, x * 2, reduction='sum')", plain=""),
    Paste("a fence and indentation", """
    ```python
    import torch
    h = torch.tanh(x)
    out = h.norm(dim=1)
    ```
""", {"x": X}, "torch.tanh(x).norm(dim=1)", plain=""),
    Paste("first line lost its indentation", "y = x * 2\n    z = y.sin()\n    z.sum()", {"x": X}, "(x * 2).sin().sum()", plain=""),
    Paste("semicolons", "a = x.sum(0); b = x.prod(0); c = a * b; c", {"x": X}, "c"),
    Paste("device and casts", """
import torch
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
x = x.to(device)
w = w.double().to(device)
mask = torch.ones(3, 4, device=device)
out = (x * mask * w).float().double().sum()
""", {"x": X, "w": V}, "(x * w).float().double().sum()", plain="device='cpu'"),
    Paste("cuda and cpu", "y = x.cuda()\nz = (y ** 3).cpu()\nz.mean()", {"x": X}, "(x ** 3).mean()", plain=""),
    Paste("a script with main", '''
"""Least squares."""
import torch

def loss_fn(w, x, y):
    """Mean squared error."""
    residual = x @ w - y
    return residual.pow(2).mean()

if __name__ == "__main__":
    loss = loss_fn(w, x, y)
    loss.backward()
    print(w.grad)
''', {"w": V, "x": X, "y": (3,)}, "loss", leaves=True),
    Paste("a helper that is called", """
import math

def gaussian(x, mu=0.0, sigma=1.0):
    return torch.exp(-0.5 * ((x - mu) / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))

p = gaussian(x, mu=0.5, sigma=2.0)
p.log().sum()
""", {"x": X}, "p.log().sum()"),
    Paste("only a definition", """
from torch import Tensor

@torch.jit.script
def f(x: Tensor, scale: float = 2.0) -> Tensor:
    y = x * scale
    return y.cos().sum()
""", {"x": X}, "(x * 2.0).cos().sum()", plain=""),
    Paste("several definitions", """
def square(t):
    return t * t

def norm(t):
    return square(t).sum().sqrt()

def objective(x, w):
    return norm(x @ w)
""", {"x": X, "w": (4, 2)}, "objective(x, w)"),
    Paste("lambdas", "act = lambda t, a=0.1: torch.where(t > 0, t, a * t)\nf = lambda t: act(t, a=0.2).sum()\nf(x)", {"x": X}, "f(x)"),
    Paste("a closure", """
def make_poly(coefficients):
    def poly(t):
        out = torch.zeros_like(t)
        for c in coefficients:
            out = out * t + c
        return out
    return poly

p = make_poly([1.0, -2.0, 0.5])
p(x).mean()
""", {"x": X}, "p(x).mean()"),
    Paste("numpy constants", "import numpy as np\nnll = 0.5 * np.log(2 * np.pi) + 0.5 * x ** 2\nnll.sum() * np.sqrt(2.0)", {"x": X},
          "nll.sum() * np.sqrt(2.0)"),
    Paste("asserts", """
B, D = x.shape
assert D == w.shape[0], f"expected {w.shape[0]}, got {D}"
assert x.dim() == 2
out = x @ w
""", {"x": X, "w": (4, 2)}, "out"),
    Paste("star unpacking", "first, *rest = x\ny = first + sum(r * (i + 1) for i, r in enumerate(rest))\ny.sum()", {"x": X}, "y.sum()"),
    Paste("a tensor of tensors", "a = x.sum()\nb = x.prod()\nv = torch.tensor([a, b])\nv", {"x": X}, "v"),
    Paste("index by where", "y = x[torch.where(x > 0)]\n(y ** 2).sum()", {"x": X}, "(y ** 2).sum()"),
    Paste("a loop until", "n = 1\nwhile n < 20:\n    n = n * 3\ny = x * n\ny.sum()", {"x": X}, "y.sum()"),
    Paste("hinge by max", "loss = max(0.0, 1 - (x * w).sum()) + max(torch.tensor(0.1), x[0, 0])", {"x": X, "w": V}, "loss"),
    Paste("a whole matrix beside a floating vector", "m @ v", {"m": ("int", -3, 4, 3, 4), "v": V}, "m.double() @ v", plain=""),
    Paste("manual seed", "torch.manual_seed(7)\nnoise = torch.randn(3, 4)\n((x + noise) ** 2).mean()", {"x": X},
          "((x + noise) ** 2).mean()", seed=7),
    Paste("seeded noise", "eps = torch.randn_like(x)\nz = x + 0.1 * eps\nz.pow(2).sum()", {"x": X}, "z.pow(2).sum()", seed=3),
    Paste("branch on a value", "if x.sum() > 0:\n    y = x * 2\nelse:\n    y = x.exp()\nout = y.sum()", {"x": X}, "out"),
    Paste("newton until it holds", """
y = a.clone()
while (y * y - a).abs().max() > 1e-10:
    y = 0.5 * (y + a / y)
y
""", {"a": ("pos", 3)}, "y"),
    Paste("item in a factor", "scale = 1.0 / x.abs().max().item()\n(x * scale).sin().sum()", {"x": X}, "(x * scale).sin().sum()"),
    Paste("einsum and rearranged", "b, n = x.shape\nh = x.view(b, 2, n // 2).transpose(0, 1).contiguous().view(2, -1)\ntorch.einsum('ij,kj->ik', h, h)",
          {"x": X}, "torch.einsum('ij,kj->ik', h, h)"),
    Paste("dict of losses", "losses = {}\nlosses['a'] = (x ** 2).mean()\nlosses['b'] = x.abs().mean()\ntotal = sum(losses.values())", {"x": X}, "total"),
    Paste("any order of returns", "def f(x):\n    if x.dim() == 1:\n        return x.sum()\n    elif x.dim() == 2:\n        return x.sum(1).prod()\n    raise ValueError(f'bad shape {x.shape}')\n\nf(x)",
          {"x": X}, "f(x)"),
    Paste("imports of names", "from torch import exp, sin\nfrom torch.nn.functional import softplus\nfrom math import pi, sqrt\nexp(sin(pi * x)).mean() + softplus(x / sqrt(2)).sum()",
          {"x": X}, "exp(sin(pi * x)).mean() + softplus(x / sqrt(2)).sum()"),
    Paste("aliased nn", "import torch.nn as N\nimport torch.nn.functional as T\nN.Softplus(beta=2)(x).sum() + T.elu(x, alpha=0.5).sum()", {"x": X},
          "N.Softplus(beta=2)(x).sum() + T.elu(x, alpha=0.5).sum()"),
    Paste("functional tools", "from functools import reduce, partial\nscale = partial(torch.mul, 3.0 * torch.ones(4))\nreduce(lambda a, b: a * b, [x.sum(), x.mean(), scale(x[0]).sum()])",
          {"x": X}, "reduce(lambda a, b: a * b, [x.sum(), x.mean(), scale(x[0]).sum()])"),
    Paste("map and zip", "parts = list(map(lambda t: t.norm(), x))\nsum(p * c for p, c in zip(parts, [1.0, 2.0, 3.0]))", {"x": X},
          "sum(p * c for p, c in zip(parts, [1.0, 2.0, 3.0]))"),
]  # fmt: skip
