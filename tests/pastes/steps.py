"""Numerical steps: recurrences by hand, solvers, filters, iterations."""

from __future__ import annotations

from tests.pastes.paste import Paste

X = (3, 4)

PASTES = [
    Paste("lstm cell by hand", """
def lstm_cell(x, hx, cx, w_ih, w_hh, b):
    gates = x @ w_ih.t() + hx @ w_hh.t() + b
    i, f, g, o = gates.chunk(4, 1)
    i, f, o = torch.sigmoid(i), torch.sigmoid(f), torch.sigmoid(o)
    g = torch.tanh(g)
    cy = (f * cx) + (i * g)
    return o * torch.tanh(cy), cy

h, c = lstm_cell(x, hx, cx, w_ih, w_hh, b)
h.sum() + c.pow(2).sum()
""", {"x": X, "hx": (3, 2), "cx": (3, 2), "w_ih": (8, 4), "w_hh": (8, 2), "b": (8,)}, "h.sum() + c.pow(2).sum()"),
    Paste("gru by hand", """
hs = []
h = h0
for t in range(seq.shape[0]):
    z = torch.sigmoid(seq[t] @ Wz + h @ Uz)
    r = torch.sigmoid(seq[t] @ Wr + h @ Ur)
    n = torch.tanh(seq[t] @ Wn + r * (h @ Un))
    h = (1 - z) * n + z * h
    hs.append(h)
out = torch.stack(hs, dim=0)
""", {"seq": (3, 2, 4), "h0": (2, 2), "Wz": (4, 2), "Uz": (2, 2), "Wr": (4, 2), "Ur": (2, 2), "Wn": (4, 2), "Un": (2, 2)}, "out"),
    Paste("crf forward", """
def log_sum_exp(vec):
    max_score, _ = torch.max(vec, dim=1, keepdim=True)
    return max_score.squeeze(1) + torch.log(torch.sum(torch.exp(vec - max_score), dim=1))

alphas = torch.full((1, 4), -10000.)
alphas[0][0] = 0.
for feat in feats:
    scores = []
    for tag in range(4):
        emit = feat[tag].view(1, -1).expand(1, 4)
        trans = transitions[tag].view(1, -1)
        scores.append(log_sum_exp(alphas + trans + emit).view(1))
    alphas = torch.cat(scores).view(1, -1)
log_sum_exp(alphas + transitions[3]).squeeze()
""", {"feats": X, "transitions": (4, 4)}, "log_sum_exp(alphas + transitions[3]).squeeze()"),
    Paste("viterbi score", "score = e[0]\nfor t in range(1, len(e)):\n    m, idx = (score[:, None] + T).max(dim=0)\n    score = m + e[t]\nbest = score.max()", {"e": X, "T": (4, 4)}, "best"),
    Paste("sinkhorn", """
K = torch.exp(-C / eps)
u = torch.ones_like(a)
for _ in range(10):
    v = b / (K.T @ u)
    u = a / (K @ v)
P = u[:, None] * K * v[None, :]
(P * C).sum()
""", {"C": ("pos", 3, 3), "a": ("pos", 3), "b": ("pos", 3)}, "(P * C).sum()", parameters={"eps": 0.3}),
    Paste("log sinkhorn", "f = torch.zeros(3); g = torch.zeros(3)\nfor it in range(5):\n    f = -0.1 * torch.logsumexp((g[None, :] - C) / 0.1, dim=1)\n    g = -0.1 * torch.logsumexp((f[:, None] - C) / 0.1, dim=0)\nf.sum() + g.sum()", {"C": ("pos", 3, 3)}, "f.sum() + g.sum()"),
    Paste("power iteration", "A = M @ M.T\nb = torch.ones(3)\nfor _ in range(10):\n    b = A @ b\n    b = b / b.norm()\neig = b @ A @ b", {"M": (3, 3)}, "eig"),
    Paste("newton step", "def f(x):\n    return (x ** 4).sum() + (x[0] * x[1]) ** 2 + (x ** 2).sum()\ng = torch.func.grad(f)(x)\nH = torch.func.hessian(f)(x)\nx - torch.linalg.solve(H, g)", {"x": (3,)}, "x - torch.linalg.solve(H, g)"),
    Paste("euler", "y = y0\ndt = 0.1\nfor i in range(20):\n    y = y + dt * torch.stack([y[1], -k * torch.sin(y[0])])\ny", {"y0": (2,), "k": ()}, "y"),
    Paste("rk4", """
def f(t, y):
    return torch.stack([y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]])

def rk4(f, y, t, h):
    k1 = f(t, y)
    k2 = f(t + h / 2, y + h / 2 * k1)
    k3 = f(t + h / 2, y + h / 2 * k2)
    k4 = f(t + h, y + h * k3)
    return y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)

t = 0.0
for step in range(10):
    y = rk4(f, y, t, 0.05)
    t += 0.05
y
""", {"y": (2,), "mu": ()}, "y"),
    Paste("kalman", """
x_pred = F_ @ x
P_pred = F_ @ P @ F_.T + Q
S = H @ P_pred @ H.T + R
K = P_pred @ H.T @ torch.inverse(S)
x_new = x_pred + K @ (z - H @ x_pred)
P_new = (torch.eye(2) - K @ H) @ P_pred
loss = x_new.pow(2).sum() + torch.trace(P_new)
""", {"F_": (2, 2), "x": (2,), "P": ("pos", 2, 2), "Q": ("pos", 2, 2), "H": (1, 2), "R": ("pos", 1, 1), "z": (1,)}, "loss"),
    Paste("gaussian process", """
def kernel(a, b, ls, var):
    d = (a[:, None] - b[None, :]) ** 2
    return var * torch.exp(-0.5 * d / ls ** 2)

K = kernel(x, x, ls, var) + 0.1 * torch.eye(len(x))
L = torch.linalg.cholesky(K)
alpha = torch.cholesky_solve(y.unsqueeze(1), L)
nll = 0.5 * (y @ alpha.squeeze(1)) + torch.log(torch.diagonal(L)).sum() + 0.5 * len(x) * math.log(2 * math.pi)
""", {"x": (5,), "y": (5,), "ls": ("pos",), "var": ("pos",)}, "nll"),
    Paste("conjugate gradient", "A = M @ M.T + torch.eye(3)\nx = torch.zeros(3)\nr = b - A @ x\np = r\nrs = r @ r\nfor _ in range(3):\n    Ap = A @ p\n    a = rs / (p @ Ap)\n    x = x + a * p\n    r = r - a * Ap\n    new = r @ r\n    p = r + (new / rs) * p\n    rs = new\nx", {"M": (3, 3), "b": (3,)}, "torch.linalg.solve(A, b) * 0 + x"),
    Paste("gram schmidt", "basis = []\nfor v in M:\n    for b in basis:\n        v = v - (v @ b) * b\n    basis.append(v / v.norm())\nQ = torch.stack(basis)\nQ", {"M": (3, 3)}, "Q"),
    Paste("discounted returns", "out = []\nacc = 0.\nfor r in reversed(rewards):\n    acc = r + gamma * acc\n    out.insert(0, acc)\ntorch.stack(out)", {"rewards": (5,)}, "torch.stack(out)", parameters={"gamma": 0.9}),
    Paste("gae", "advs = torch.zeros(4)\nlast = 0.0\nfor t in reversed(range(4)):\n    delta = r[t] + 0.99 * v[t + 1] - v[t]\n    advs[t] = last = delta + 0.99 * 0.95 * last\nadvs", {"r": (4,), "v": (5,)}, "advs"),
    Paste("nerf rendering", "alpha = 1 - torch.exp(-sigma.relu() * delta)\nT = torch.cumprod(torch.cat([torch.ones(3, 1), 1 - alpha + 1e-10], dim=1), dim=1)[:, :-1]\nweights = alpha * T\nrgb = (weights[..., None] * c).sum(1)", {"sigma": (3, 4), "delta": ("pos", 3, 4), "c": ("pos", 3, 4, 3)}, "rgb"),
    Paste("realnvp coupling", "x1, x2 = x.chunk(2, dim=1)\ns = torch.tanh(x1 @ ws)\nt = x1 @ wt\ny = torch.cat([x1, x2 * s.exp() + t], dim=1)\nlogdet = s.sum(1)\nloss = -(-0.5 * (y ** 2).sum(1) + logdet).mean()", {"x": X, "ws": (2, 2), "wt": (2, 2)}, "loss"),
    Paste("ddpm step", "betas = torch.linspace(1e-4, 0.02, 10)\nalphas = 1. - betas\nabar = torch.cumprod(alphas, dim=0)\na = abar[t].view(-1, 1)\nxt = a.sqrt() * x0 + (1 - a).sqrt() * noise\nloss = F.mse_loss(torch.tanh(xt @ w), noise)", {"x0": X, "noise": X, "w": (4, 4), "t": ("int", 0, 10, 3)}, "loss"),
    Paste("hmm forward", "log_alpha = log_pi + e[0]\nfor t in range(1, e.size(0)):\n    log_alpha = torch.logsumexp(log_alpha.unsqueeze(1) + log_T.log_softmax(1), dim=0) + e[t]\ntorch.logsumexp(log_alpha, 0)", {"log_pi": (4,), "log_T": (4, 4), "e": X}, "torch.logsumexp(log_alpha, 0)"),
    Paste("clip gradients by their norm", "g = [a * 1, b * 1]\ntotal = torch.nn.utils.clip_grad_norm_(g, 1.0)\ng[0].sum() + (g[1] ** 2).sum() + total", {"a": X, "b": (3,)}, "g[0].sum() + (g[1] ** 2).sum() + total",
          plain="total = torch.stack([a.norm(), b.norm()]).norm()\nc = torch.clamp(1.0 / (total + 1e-6), max=1.0)\ng = [a * c, b * c]"),
    Paste("softmax with temperature", "T = 0.7\nz = logits / T\nz = z - z.max(dim=-1, keepdim=True).values\np = torch.exp(z)\np = p / p.sum(dim=-1, keepdim=True)\n-(p * torch.log(p + 1e-12)).sum(-1).mean()", {"logits": X}, "-(p * torch.log(p + 1e-12)).sum(-1).mean()"),
]  # fmt: skip
