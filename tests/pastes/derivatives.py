"""Programs that differentiate by themselves: penalties, physics, meta-learning, Hessians, maps over samples."""

from __future__ import annotations

from tests.pastes.paste import Paste

X = (3, 4)
_PINN = """
def u(x, t):
    h = torch.tanh(torch.stack([x, t], dim=-1) @ w1 + b1)
    return (h @ w2).squeeze(-1)
"""

PASTES = [
    Paste("gradient penalty", """
def compute_gradient_penalty(D, real_samples, fake_samples, alpha):
    interpolates = (alpha * real_samples + ((1 - alpha) * fake_samples)).requires_grad_(True)
    d_interpolates = D(interpolates)
    gradients = torch.autograd.grad(
        outputs=d_interpolates,
        inputs=interpolates,
        grad_outputs=torch.ones(d_interpolates.size()),
        create_graph=True,
        retain_graph=True,
        only_inputs=True,
    )[0]
    gradients = gradients.view(gradients.size(0), -1)
    return ((gradients.norm(2, dim=1) - 1) ** 2).mean()

D = lambda t: torch.tanh(t @ w).sum(1)
gp = compute_gradient_penalty(D, real, fake, alpha)
""", {"real": X, "fake": X, "alpha": ("pos", 3, 1), "w": (4, 3)}, "gp"),
    Paste("critic with a penalty", """
class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1))
    def forward(self, x):
        return self.net(x)

critic = Critic()
x_hat = eps * real + (1 - eps) * fake
x_hat.requires_grad_(True)
score = critic(x_hat)
grad = torch.autograd.grad(score.sum(), x_hat, create_graph=True)[0]
loss = critic(fake).mean() - critic(real).mean() + 10 * ((grad.norm(2, dim=1) - 1) ** 2).mean()
""", {"real": X, "fake": X, "eps": ("pos", 3, 1)}, "loss", ("critic",), seed=0),
    Paste("heat equation", _PINN + """
uv = u(x, t)
u_t = torch.autograd.grad(uv, t, torch.ones_like(uv), create_graph=True)[0]
u_x = torch.autograd.grad(uv, x, torch.ones_like(uv), create_graph=True)[0]
u_xx = torch.autograd.grad(u_x, x, torch.ones_like(u_x), create_graph=True)[0]
residual = u_t - 0.1 * u_xx
loss = (residual ** 2).mean()
""", {"x": (5,), "t": (5,), "w1": (2, 4), "b1": (4,), "w2": (4, 1)}, "loss"),
    Paste("burgers with func", _PINN + """
from torch.func import grad, vmap
def f(x, t):
    return u(x, t)
u_x = vmap(grad(f, argnums=0))(x, t)
u_t = vmap(grad(f, argnums=1))(x, t)
u_xx = vmap(grad(grad(f)))(x, t)
loss = ((u_t + f(x, t) * u_x - 0.01 * u_xx) ** 2).mean()
""", {"x": (5,), "t": (5,), "w1": (2, 4), "b1": (4,), "w2": (4, 1)}, "loss"),
    Paste("pinn of an ode", """
net = nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 1))
t = t.requires_grad_()
y = net(t)
dy = torch.autograd.grad(y.sum(), t, create_graph=True)[0]
loss = ((dy + y) ** 2).mean() + (net(torch.zeros(1, 1)) - 1).pow(2).sum()
""", {"t": (5, 1)}, "loss", ("net",), seed=3),
    Paste("maml step", """
def net(x, params):
    w1, b1, w2, b2 = params
    h = torch.relu(x @ w1 + b1)
    return h @ w2 + b2

params = [w1, b1, w2, b2]
inner = F.mse_loss(net(xs, params), ys)
grads = torch.autograd.grad(inner, params, create_graph=True)
fast = [p - 0.1 * g for p, g in zip(params, grads)]
outer = F.mse_loss(net(xq, fast), yq)
""", {"w1": (2, 4), "b1": (4,), "w2": (4, 1), "b2": (1,), "xs": (5, 2), "ys": (5, 1), "xq": (5, 2), "yq": (5, 1)}, "outer"),
    Paste("maml with functional call", """
from torch.func import functional_call
model = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
params = dict(model.named_parameters())
loss = F.mse_loss(functional_call(model, params, (xs,)), ys)
grads = torch.autograd.grad(loss, params.values(), create_graph=True)
new = {name: p - 0.1 * g for (name, p), g in zip(params.items(), grads)}
meta = F.mse_loss(functional_call(model, new, (xq,)), yq)
""", {"xs": (5, 2), "ys": (5, 1), "xq": (5, 2), "yq": (5, 1)}, "meta", ("model",), seed=1),
    Paste("func grad", "f = lambda x: torch.sin(x).sum()\ng = torch.func.grad(f)(x)\n(g * x).sum()", {"x": X}, "(g * x).sum()"),
    Paste("func grad argnums", "from torch.func import grad_and_value\ndef loss(w, b):\n    return ((x @ w + b) ** 2).mean()\n(gw, gb), v = grad_and_value(loss, argnums=(0, 1))(w, b)\n(gw ** 2).sum() + gb.sum() + v", {"x": X, "w": (4,), "b": ()}, "(gw ** 2).sum() + gb.sum() + v"),
    Paste("func jacrev", "f = lambda v: torch.tanh(w @ v)\nJ = torch.func.jacrev(f)(v)\ntorch.linalg.matrix_norm(J) ** 2", {"w": X, "v": (4,)}, "torch.linalg.matrix_norm(J) ** 2"),
    Paste("func jacfwd", "from torch.func import jacfwd\nJ = jacfwd(lambda v: v.exp() * v.sum())(v)\nJ.diagonal().sum()", {"v": (4,)}, "J.diagonal().sum()"),
    Paste("func hessian", "def f(p):\n    return (p ** 3).sum() + p.prod()\nH = torch.func.hessian(f)(p)\ntorch.trace(H @ H)", {"p": (3,)}, "torch.trace(H @ H)"),
    Paste("func vjp", "out, vjp_fn = torch.func.vjp(lambda a: (a ** 2).sum(1), x)\n(g,) = vjp_fn(v)\ng.sin().sum() + out.sum()", {"x": X, "v": (3,)}, "g.sin().sum() + out.sum()"),
    Paste("func jvp", "out, t = torch.func.jvp(torch.sigmoid, (x,), (v,))\n(out * t).sum()", {"x": X, "v": X}, "(out * t).sum()"),
    Paste("per sample gradients", """
def loss(w, xi, yi):
    return (xi @ w - yi) ** 2
g = torch.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(w, x, y)
clipped = g / torch.clamp(g.norm(dim=1, keepdim=True), min=1.0)
clipped.mean(0)
""", {"w": (4,), "x": X, "y": (3,)}, "clipped.mean(0)"),
    Paste("vmap out dims", "y = torch.vmap(lambda a, b: a * b.sum(), in_dims=(1, None), out_dims=1)(x, v)\ny ** 2", {"x": X, "v": (2,)}, "y ** 2"),
    Paste("autograd functional", "from torch.autograd.functional import jacobian, hessian\nJ = jacobian(lambda t: t.sin() * t.sum(), v, create_graph=True)\nH = hessian(lambda t: (t ** 3).sum(), v, create_graph=True)\n(J * H).sum()", {"v": (3,)}, "(J * H).sum()"),
    Paste("hessian vector product", "loss = ((x @ w) ** 4).mean()\n(g,) = torch.autograd.grad(loss, w, create_graph=True)\n(hv,) = torch.autograd.grad(g @ v, w, create_graph=True)\nhv", {"x": X, "w": (4,), "v": (4,)}, "hv"),
    Paste("gradient without a graph", "loss = (x ** 3).sum()\ng = torch.autograd.grad(loss, x)[0]\n(x * g).sum()", {"x": X}, "(x * g).sum()"),
    Paste("grad attribute", "y = (x ** 3).sum()\ny.backward(create_graph=True)\nz = (x.grad ** 2).sum()", {"x": X}, "z", leaves=True),
    Paste("fgsm", """
loss = F.cross_entropy(x @ w, y)
loss.backward()
x_adv = x + 0.1 * x.grad.sign()
adv = F.cross_entropy(x_adv @ w, y)
""", {"x": X, "w": (4, 3), "y": ("int", 0, 3, 3)}, "adv", leaves=True),
    Paste("descent with grad attributes", """
for epoch in range(2):
    loss = ((x @ w - y) ** 2).mean()
    loss.backward()
    with torch.no_grad():
        w -= 0.1 * w.grad
        w.grad.zero_()
final = ((x @ w - y) ** 2).mean()
""", {"x": X, "w": (4,), "y": (3,)}, "final", leaves=True),
    Paste("score matching", """
def energy(x):
    return 0.5 * (torch.tanh(x @ w) ** 2).sum(-1)
score = -torch.autograd.grad(energy(x).sum(), x, create_graph=True)[0]
trace = 0.
for i in range(x.shape[1]):
    trace = trace + torch.autograd.grad(score[:, i].sum(), x, create_graph=True)[0][:, i]
loss = (trace + 0.5 * (score ** 2).sum(-1)).mean()
""", {"x": X, "w": (4, 3)}, "loss"),
    Paste("hamiltonian", """
def H(q, p):
    return (p ** 2).sum() / 2 + (1 - torch.cos(q)).sum()
dHdq, dHdp = torch.func.grad(H, argnums=(0, 1))(q, p)
for _ in range(3):
    p = p - 0.05 * torch.func.grad(H, argnums=0)(q, p)
    q = q + 0.1 * torch.func.grad(H, argnums=1)(q, p)
    p = p - 0.05 * torch.func.grad(H, argnums=0)(q, p)
torch.cat([q, p])
""", {"q": (2,), "p": (2,)}, "torch.cat([q, p])"),
    Paste("implicit function", """
f = lambda y, a: y ** 3 + y - a
y = torch.zeros_like(a)
for _ in range(8):
    y = y - f(y, a) / torch.func.vmap(torch.func.grad(f))(y, a)
y
""", {"a": (3,)}, "y"),
    Paste("laplacian", "def u(p):\n    return torch.exp(-(p ** 2).sum())\nlap = torch.vmap(lambda p: torch.trace(torch.func.hessian(u)(p)))(pts)\nlap.sum()", {"pts": (5, 2)}, "lap.sum()"),
]  # fmt: skip
