"""Losses of tutorials and answers."""

from __future__ import annotations

from tests.pastes.paste import Paste

X, LABEL = (5, 4), ("int", 0, 4, 5)

PASTES = [
    Paste("focal loss", """
def focal_loss(logits, targets, alpha=0.25, gamma=2.0):
    ce = F.cross_entropy(logits, targets, reduction="none")
    pt = torch.exp(-ce)
    return (alpha * (1 - pt) ** gamma * ce).mean()

loss = focal_loss(logits, targets)
""", {"logits": X, "targets": LABEL}, "loss"),
    Paste("dice loss", """
smooth = 1.0
pred = torch.sigmoid(pred)
iflat = pred.contiguous().view(-1)
tflat = target.contiguous().view(-1)
intersection = (iflat * tflat).sum()
loss = 1 - ((2.0 * intersection + smooth) / (iflat.sum() + tflat.sum() + smooth))
""", {"pred": (2, 1, 3, 3), "target": ("pos", 2, 1, 3, 3)}, "loss"),
    Paste("label smoothing by hand", """
class LabelSmoothing(nn.Module):
    def __init__(self, smoothing=0.1):
        super(LabelSmoothing, self).__init__()
        self.confidence = 1.0 - smoothing
        self.smoothing = smoothing

    def forward(self, x, target):
        logprobs = F.log_softmax(x, dim=-1)
        nll_loss = -logprobs.gather(dim=-1, index=target.unsqueeze(1))
        nll_loss = nll_loss.squeeze(1)
        smooth_loss = -logprobs.mean(dim=-1)
        loss = self.confidence * nll_loss + self.smoothing * smooth_loss
        return loss.mean()

criterion = LabelSmoothing(0.2)
criterion(x, target)
""", {"x": X, "target": LABEL}, "criterion(x, target)"),
    Paste("soft labels in place", """
n_class = x.size(1)
true_dist = torch.zeros_like(x)
true_dist.fill_(0.1 / (n_class - 1))
true_dist.scatter_(1, target.data.unsqueeze(1), 0.9)
loss = torch.mean(torch.sum(-true_dist * x.log_softmax(dim=-1), dim=-1))
""", {"x": X, "target": LABEL}, "loss"),
    Paste("triplet", """
d_ap = (anchor - positive).pow(2).sum(1).sqrt()
d_an = (anchor - negative).pow(2).sum(1).sqrt()
losses = F.relu(d_ap - d_an + 0.5)
losses.mean()
""", {"anchor": X, "positive": X, "negative": X}, "losses.mean()"),
    Paste("contrastive", """
class ContrastiveLoss(torch.nn.Module):
    def __init__(self, margin=2.0):
        super().__init__()
        self.margin = margin

    def forward(self, output1, output2, label):
        euclidean_distance = F.pairwise_distance(output1, output2, keepdim=True)
        loss_contrastive = torch.mean((1 - label) * torch.pow(euclidean_distance, 2) +
                                      (label) * torch.pow(torch.clamp(self.margin - euclidean_distance, min=0.0), 2))
        return loss_contrastive
""", {"output1": X, "output2": X, "label": ("pos", 5, 1)}, "ContrastiveLoss()(output1, output2, label)"),
    Paste("info nce", """
z1 = F.normalize(z1, dim=1)
z2 = F.normalize(z2, dim=1)
z = torch.cat([z1, z2], dim=0)
sim = z @ z.T / temperature
N = z1.shape[0]
mask = torch.eye(2 * N, dtype=torch.bool)
sim = sim.masked_fill(mask, -9e15)
pos = torch.cat([torch.diag(sim, N), torch.diag(sim, -N)])
loss = (-pos + torch.logsumexp(sim, dim=-1)).mean()
""", {"z1": X, "z2": X}, "loss", parameters={"temperature": 0.5}),
    Paste("clip loss", """
image_features = image_features / image_features.norm(dim=-1, keepdim=True)
text_features = text_features / text_features.norm(dim=-1, keepdim=True)
logits = logit_scale.exp() * image_features @ text_features.t()
labels = torch.arange(logits.shape[0], device=logits.device)
loss = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.t(), labels)) / 2
""", {"image_features": X, "text_features": X, "logit_scale": ()}, "loss"),
    Paste("vae loss", """
def loss_function(recon_x, x, mu, logvar):
    BCE = F.binary_cross_entropy(recon_x, x.view(-1, 4), reduction='sum')
    # 0.5 * sum(1 + log(sigma^2) - mu^2 - sigma^2)
    KLD = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
    return BCE + KLD
""", {"recon_x": ("pos", 5, 4), "x": ("pos", 5, 4), "mu": (5, 2), "logvar": (5, 2)}, "loss_function(recon_x, x, mu, logvar)"),
    Paste("reparametrisation", """
def reparameterize(mu, logvar):
    std = torch.exp(0.5 * logvar)
    eps = torch.randn_like(std)
    return mu + eps * std

z = reparameterize(mu, logvar)
out = (z ** 2).sum()
""", {"mu": X, "logvar": X}, "out", seed=1),
    Paste("gaussian nll", "loss = 0.5 * (torch.log(var.clamp(min=1e-6)) + (x - mu) ** 2 / var.clamp(min=1e-6)).mean()", {"x": X, "mu": X, "var": ("pos", 5, 4)}, "loss"),
    Paste("gaussian nll module", "nn.GaussianNLLLoss(full=True)(mu, y, var)", {"mu": X, "y": X, "var": ("pos", 5, 4)}, "nn.GaussianNLLLoss(full=True)(mu, y, var)"),
    Paste("mixture density", """
def mdn_loss(pi_logits, sigma_raw, mu, y):
    pi = F.softmax(pi_logits, dim=1)
    sigma = torch.exp(sigma_raw)
    m = torch.distributions.Normal(loc=mu, scale=sigma)
    log_prob = m.log_prob(y.expand_as(mu))
    weighted = torch.logsumexp(log_prob + torch.log(pi), dim=1)
    return -torch.mean(weighted)

mdn_loss(pi_logits, sigma_raw, mu, y)
""", {"pi_logits": X, "sigma_raw": X, "mu": X, "y": (5, 1)}, "mdn_loss(pi_logits, sigma_raw, mu, y)"),
    Paste("mixture of distributions", """
import torch.distributions as D
mix = D.Categorical(logits=w)
comp = D.Independent(D.Normal(mu, sigma), 1)
gmm = D.MixtureSameFamily(mix, comp)
-gmm.log_prob(x).mean()
""", {"w": (3,), "mu": (3, 2), "sigma": ("pos", 3, 2), "x": (5, 2)}, "-gmm.log_prob(x).mean()"),
    Paste("reinforce", """
probs = F.softmax(states @ theta, dim=-1)
m = torch.distributions.Categorical(probs)
log_probs = m.log_prob(actions)
R = 0
returns = []
for r in [1.0, 0.0, 2.0, 1.0, 0.5][::-1]:
    R = r + 0.99 * R
    returns.insert(0, R)
returns = torch.tensor(returns)
returns = (returns - returns.mean()) / (returns.std() + 1e-8)
policy_loss = []
for log_prob, R in zip(log_probs, returns):
    policy_loss.append(-log_prob * R)
loss = torch.stack(policy_loss).sum()
""", {"states": X, "theta": (4, 3), "actions": ("int", 0, 3, 5)}, "loss"),
    Paste("ppo", """
ratio = torch.exp(new_logp - old_logp.detach())
surr1 = ratio * adv
surr2 = torch.clamp(ratio, 1.0 - 0.2, 1.0 + 0.2) * adv
policy_loss = -torch.min(surr1, surr2).mean()
""", {"new_logp": (6,), "old_logp": (6,), "adv": (6,)}, "policy_loss"),
    Paste("dqn target", """
q = q_values.gather(1, actions.unsqueeze(1)).squeeze(1)
with torch.no_grad():
    next_q = next_values.max(1)[0]
    target = rewards + 0.99 * next_q * (1 - done)
loss = F.smooth_l1_loss(q, target)
""", {"q_values": X, "next_values": X, "actions": LABEL, "rewards": (5,), "done": ("pos", 5)}, "loss"),
    Paste("iou", """
def iou(a, b):
    lt = torch.max(a[:, None, :2], b[None, :, :2])
    rb = torch.min(a[:, None, 2:], b[None, :, 2:])
    wh = (rb - lt).clamp(min=0)
    inter = wh[..., 0] * wh[..., 1]
    area_a = (a[:, 2] - a[:, 0]) * (a[:, 3] - a[:, 1])
    area_b = (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    return inter / (area_a[:, None] + area_b - inter)

a = torch.cat([p, p + s], dim=1)
b = torch.cat([q, q + s], dim=1)
1 - iou(a, b).mean()
""", {"p": ("pos", 3, 2), "q": ("pos", 3, 2), "s": ("pos", 3, 2)}, "1 - iou(a, b).mean()"),
    Paste("huber by hand", "d = (y - p).abs()\nquad = torch.clamp(d, max=1.0)\nlin = d - quad\nloss = (0.5 * quad ** 2 + lin).mean()", {"y": X, "p": X}, "loss"),
    Paste("kl with temperature", """
T = 4.0
soft = F.log_softmax(student / T, dim=1)
teach = F.softmax(teacher / T, dim=1)
loss = nn.KLDivLoss(reduction="batchmean")(soft, teach) * T * T + nn.CrossEntropyLoss(label_smoothing=0.1)(student, y)
""", {"student": X, "teacher": X, "y": LABEL}, "loss"),
    Paste("weighted cross entropy", "w = torch.tensor([0.5, 1.0, 2.0, 1.5])\ncriterion = nn.CrossEntropyLoss(weight=w, ignore_index=1)\ncriterion(x, y)", {"x": X, "y": LABEL}, "criterion(x, y)"),
    Paste("bce with pos weight", "loss_fn = torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor([2.0, 1.0, 1.0, 0.5]))\nloss_fn(x, y)", {"x": X, "y": ("pos", 5, 4)}, "loss_fn(x, y)"),
    Paste("gumbel softmax", "g = -torch.log(-torch.log(torch.rand_like(logits) + 1e-20) + 1e-20)\ny = F.softmax((logits + g) / 0.5, dim=-1)\n(y * torch.arange(4.0)).sum()",
          {"logits": X}, "(y * torch.arange(4.0)).sum()", seed=2),
    Paste("straight through", "p = torch.sigmoid(x)\nb = (p > 0.5).float()\ny = b + p - p.detach()\n(y * w).sum()", {"x": X, "w": X}, "(y * w).sum()"),
    Paste("kl of normals", "from torch.distributions import Normal, kl_divergence\nkl_divergence(Normal(mu, std), Normal(torch.zeros_like(mu), torch.ones_like(std))).sum(-1).mean()",
          {"mu": X, "std": ("pos", 5, 4)}, "kl_divergence(Normal(mu, std), Normal(torch.zeros_like(mu), torch.ones_like(std))).sum(-1).mean()"),
    Paste("rsample", "d = torch.distributions.Normal(mu, sigma.exp())\nz = d.rsample()\nlogp = d.log_prob(z) - torch.log(1 - torch.tanh(z) ** 2 + 1e-6)\nlogp.sum()", {"mu": X, "sigma": X}, "logp.sum()", seed=5),
    Paste("several distributions", """
from torch.distributions import *
a = Gamma(c, r).log_prob(v).sum() + Beta(c, r).log_prob(v * 0.5).sum()
b = Dirichlet(c).log_prob(p / p.sum()) + Laplace(m, c).log_prob(v).sum() + Bernoulli(logits=m).entropy().sum()
a + b + Poisson(r).log_prob(torch.tensor([1.0, 0.0, 3.0])).sum() + Exponential(r).log_prob(v).sum()
""", {"c": ("pos", 3), "r": ("pos", 3), "v": ("pos", 3), "p": ("pos", 3), "m": (3,)},
          "a + b + Poisson(r).log_prob(torch.tensor([1.0, 0.0, 3.0])).sum() + Exponential(r).log_prob(v).sum()"),
    Paste("multivariate normal", "L = torch.tril(A)\ncov = L @ L.T + 0.1 * torch.eye(3)\nmvn = torch.distributions.MultivariateNormal(m, covariance_matrix=cov)\nmvn.log_prob(x).sum()",
          {"A": (3, 3), "m": (3,), "x": (5, 3)}, "mvn.log_prob(x).sum()"),
    Paste("total variation", "tv = torch.sum(torch.abs(img[:, :, :, :-1] - img[:, :, :, 1:])) + torch.sum(torch.abs(img[:, :, :-1, :] - img[:, :, 1:, :]))\ntv / img.numel()", {"img": (1, 2, 4, 4)}, "tv / img.numel()"),
    Paste("center loss", "batch = x.size(0)\ndist = torch.pow(x, 2).sum(dim=1, keepdim=True).expand(batch, 3) + torch.pow(c, 2).sum(dim=1, keepdim=True).expand(3, batch).t()\ndist = dist.addmm(x, c.t(), beta=1, alpha=-2)\ndist.clamp(min=1e-12, max=1e+12).sum() / batch",
          {"x": X, "c": (3, 4)}, "dist.clamp(min=1e-12, max=1e+12).sum() / batch"),
    Paste("mmd", """
def rbf(a, b, gamma=0.5):
    d = torch.cdist(a, b) ** 2
    return torch.exp(-gamma * d)

mmd = rbf(x, x).mean() + rbf(y, y).mean() - 2 * rbf(x, y).mean()
""", {"x": X, "y": X}, "rbf(x, x + 1e-9).mean() * 0 + mmd", plain=None),
    Paste("perceptual gram", "def gram_matrix(input):\n    a, b, c, d = input.size()\n    features = input.view(a * b, c * d)\n    G = torch.mm(features, features.t())\n    return G.div(a * b * c * d)\n\nloss = F.mse_loss(gram_matrix(x), gram_matrix(t).detach())",
          {"x": (1, 3, 2, 2), "t": (1, 3, 2, 2)}, "loss"),
]  # fmt: skip
PASTES = [paste for paste in PASTES if paste.name != "mmd"]
