"""Classes of the program: nn.Module with weights, containers, methods, several models."""

from __future__ import annotations

from tests.pastes.paste import Paste

X, IMG, SEQ = (3, 4), (2, 1, 8, 8), (2, 5, 4)

_AUTOENCODER = """
class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        self.decoder = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4), nn.Sigmoid())

    def encode(self, x):
        return self.encoder(x)

    def forward(self, x):
        return self.decoder(self.encode(x))
"""

PASTES = [
    Paste("mlp", """
import torch
import torch.nn as nn
import torch.nn.functional as F

class Net(nn.Module):
    def __init__(self, n_in=4, n_hidden=6, n_out=3):
        super(Net, self).__init__()
        self.fc1 = nn.Linear(n_in, n_hidden)
        self.fc2 = nn.Linear(n_hidden, n_out)

    def forward(self, x):
        x = F.relu(self.fc1(x))
        x = self.fc2(x)
        return F.log_softmax(x, dim=1)

net = Net()
criterion = nn.NLLLoss()
loss = criterion(net(x), y)
net.zero_grad()
loss.backward()
""", {"x": X, "y": ("int", 0, 3, 3)}, "loss", ("net",), seed=0),
    Paste("lenet", """
class Net(nn.Module):

    def __init__(self):
        super().__init__()
        # 1 input image channel
        self.conv1 = nn.Conv2d(1, 3, 3)
        self.conv2 = nn.Conv2d(3, 4, 2)
        self.fc1 = nn.Linear(4 * 1 * 1, 5)
        self.fc2 = nn.Linear(5, 2)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), (2, 2))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        x = self.fc2(x)
        return x


net = Net()
print(net)
output = net(x)
target = target.view(2, -1)
loss = nn.MSELoss()(output, target)
""", {"x": IMG, "target": (2, 2)}, "loss", ("net",), seed=0),
    Paste("only a class", _AUTOENCODER, {"x": X}, "model(x)", ("model",), seed=0, plain=f"{_AUTOENCODER}\nmodel = Autoencoder()\n"),
    Paste("vae", """
class VAE(nn.Module):
    def __init__(self):
        super(VAE, self).__init__()
        self.fc1 = nn.Linear(4, 5)
        self.fc21 = nn.Linear(5, 2)
        self.fc22 = nn.Linear(5, 2)
        self.fc3 = nn.Linear(2, 5)
        self.fc4 = nn.Linear(5, 4)

    def encode(self, x):
        h1 = F.relu(self.fc1(x))
        return self.fc21(h1), self.fc22(h1)

    def reparameterize(self, mu, logvar):
        std = torch.exp(0.5*logvar)
        eps = torch.randn_like(std)
        return mu + eps*std

    def decode(self, z):
        h3 = F.relu(self.fc3(z))
        return torch.sigmoid(self.fc4(h3))

    def forward(self, x):
        mu, logvar = self.encode(x.view(-1, 4))
        z = self.reparameterize(mu, logvar)
        return self.decode(z), mu, logvar

model = VAE()
recon, mu, logvar = model(x)
BCE = F.binary_cross_entropy(recon, x, reduction='sum')
KLD = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
loss = BCE + KLD
""", {"x": ("pos", 3, 4)}, "loss", ("model",), seed=5),
    Paste("residual blocks in a list", """
class Block(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.ff = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x):
        return x + self.ff(self.norm(x))

class Model(nn.Module):
    def __init__(self, dim, depth=2):
        super().__init__()
        self.blocks = nn.ModuleList([Block(dim) for _ in range(depth)])
        self.head = nn.Linear(dim, 1)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(dim=1))

model = Model(4)
model(x).sum()
""", {"x": SEQ}, "model(x).sum()", ("model",), seed=0),
    Paste("module dict and buffer", """
class M(nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleDict({'a': nn.Linear(4, 3), 'b': nn.Linear(4, 3)})
        self.register_buffer('scale', torch.tensor([1.0, 2.0, 3.0]))
        self._temperature = 0.5

    def forward(self, x, which='a'):
        return self.parts[which](x) * self.scale / self._temperature

m = M()
(m(x) * m(x, which='b')).sum()
""", {"x": X}, "(m(x) * m(x, which='b')).sum()", ("m",), seed=0),
    Paste("named layers by setattr", """
class Deep(nn.Module):
    def __init__(self, sizes):
        super().__init__()
        self.n = len(sizes) - 1
        for i in range(self.n):
            setattr(self, f'layer{i}', nn.Linear(sizes[i], sizes[i + 1]))

    def forward(self, x):
        for i in range(self.n):
            x = torch.tanh(getattr(self, f'layer{i}')(x))
        return x

Deep([4, 5, 3])(x).sum()
""", {"x": X}, "net(x).sum()", ("net",), seed=0, plain="""
class Deep(nn.Module):
    def __init__(self, sizes):
        super().__init__()
        self.n = len(sizes) - 1
        for i in range(self.n):
            setattr(self, f'layer{i}', nn.Linear(sizes[i], sizes[i + 1]))

    def forward(self, x):
        for i in range(self.n):
            x = torch.tanh(getattr(self, f'layer{i}')(x))
        return x

net = Deep([4, 5, 3])
"""),
    Paste("lstm tagger", """
class LSTMTagger(nn.Module):

    def __init__(self, embedding_dim, hidden_dim, vocab_size, tagset_size):
        super(LSTMTagger, self).__init__()
        self.hidden_dim = hidden_dim
        self.word_embeddings = nn.Embedding(vocab_size, embedding_dim)
        self.lstm = nn.LSTM(embedding_dim, hidden_dim)
        self.hidden2tag = nn.Linear(hidden_dim, tagset_size)

    def forward(self, sentence):
        embeds = self.word_embeddings(sentence)
        lstm_out, _ = self.lstm(embeds.view(len(sentence), 1, -1))
        tag_space = self.hidden2tag(lstm_out.view(len(sentence), -1))
        tag_scores = F.log_softmax(tag_space, dim=1)
        return tag_scores

model = LSTMTagger(3, 4, 10, 3)
loss = nn.NLLLoss()(model(sentence), tags)
""", {"sentence": ("int", 0, 10, 5), "tags": ("int", 0, 3, 5)}, "loss", ("model",), seed=0),
    Paste("actor critic", """
class ActorCritic(nn.Module):
    def __init__(self, state_dim, action_dim):
        super().__init__()
        self.actor = nn.Sequential(nn.Linear(state_dim, 5), nn.Tanh(), nn.Linear(5, action_dim), nn.Softmax(dim=-1))
        self.critic = nn.Sequential(nn.Linear(state_dim, 5), nn.Tanh(), nn.Linear(5, 1))

    def evaluate(self, state, action):
        dist = torch.distributions.Categorical(self.actor(state))
        return dist.log_prob(action), self.critic(state), dist.entropy()

policy = ActorCritic(4, 2)
logprobs, values, entropy = policy.evaluate(state, action)
loss = -(logprobs * adv).mean() + 0.5 * nn.MSELoss()(values.squeeze(), ret) - 0.01 * entropy.mean()
""", {"state": (6, 4), "action": ("int", 0, 2, 6), "adv": (6,), "ret": (6,)}, "loss", ("policy",), seed=0),
    Paste("unet piece", """
class DoubleConv(nn.Module):
    def __init__(self, in_ch, out_ch):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(in_ch, out_ch, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_ch),
            nn.ReLU(inplace=True),
        )

    def forward(self, x):
        return self.net(x)

class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = DoubleConv(1, 2)
        self.pool = nn.MaxPool2d(2)
        self.mid = DoubleConv(2, 4)
        self.up = nn.ConvTranspose2d(4, 2, 2, 2)
        self.out = DoubleConv(4, 1)

    def forward(self, x):
        c1 = self.down(x)
        m = self.mid(self.pool(c1))
        u = self.up(m)
        return self.out(torch.cat([u, c1], dim=1))

model = UNet()
model.train()
y = model(x)
y.pow(2).mean()
""", {"x": IMG}, "y.pow(2).mean()", ("model",), seed=0),
    Paste("spectral features", """
class FourierFeatures(nn.Module):
    def __init__(self, n, scale=1.0):
        super().__init__()
        self.B = nn.Parameter(torch.randn(4, n) * scale, requires_grad=False)
        self.lin = nn.Linear(2 * n, 1)

    def forward(self, x):
        p = 2 * math.pi * x @ self.B
        return self.lin(torch.cat([torch.sin(p), torch.cos(p)], -1))

f = FourierFeatures(3)
f(x).sum()
""", {"x": X}, "f(x).sum()", ("f",), seed=0),
    Paste("weights by apply", """
def init_weights(m):
    if isinstance(m, nn.Linear):
        nn.init.kaiming_normal_(m.weight, nonlinearity='relu')
        m.bias.data.fill_(0.01)

net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))
net.apply(init_weights)
net(x).sum()
""", {"x": X}, "net(x).sum()", ("net",), seed=0),
    Paste("training loop of one step", """
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
optimizer.zero_grad()
pred = model(x)
loss = F.mse_loss(pred, y)
loss.backward()
torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
optimizer.step()
print(f"loss {loss.item():.3f}")
""", {"x": X, "y": (3, 1)}, "loss", ("model",), seed=0, plain="model = nn.Linear(4, 1)\npred = model(x)\nloss = F.mse_loss(pred, y)"),
    Paste("shared weights", """
class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(6, 4)
        self.out = nn.Linear(4, 6, bias=False)
        self.out.weight = self.emb.weight

    def forward(self, t):
        return self.out(self.emb(t).mean(1))

m = Tied()
m(t).logsumexp(1).sum()
""", {"t": ("int", 0, 6, 2, 3)}, "m(t).logsumexp(1).sum()", ("m",), seed=0),
    Paste("inheritance", """
class Base(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.d = d
        self.w = nn.Parameter(torch.ones(d))

    def forward(self, x):
        return self.transform(x * self.w)

    def transform(self, x):
        raise NotImplementedError

class Child(Base):
    def __init__(self, d):
        super().__init__(d)
        self.lin = nn.Linear(d, 2)

    def transform(self, x):
        return self.lin(x).tanh()

c = Child(4)
c(x).sum()
""", {"x": X}, "c(x).sum()", ("c",), seed=0),
    Paste("a plain class", """
class Standardize:
    def __init__(self, mean, std):
        self.mean = mean
        self.std = std

    def __call__(self, x):
        return (x - self.mean) / self.std

t = Standardize(x.mean(0), 2.0)
t(x).pow(2).sum()
""", {"x": X}, "t(x).pow(2).sum()"),
]  # fmt: skip
