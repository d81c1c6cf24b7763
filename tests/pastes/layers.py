"""Single layers and short stacks, with weights and without."""

from __future__ import annotations

from tests.pastes.paste import Paste

X, IMG, SEQ = (3, 4), (2, 3, 6, 6), (2, 5, 4)

PASTES = [
    Paste("linear", "layer = nn.Linear(4, 2)\nlayer(x)", {"x": X}, "layer(x)", ("layer",), seed=0),
    Paste("linear relu linear", "net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))\nnet(x).mean()", {"x": X}, "net(x).mean()", ("net",), seed=1),
    Paste("ordered dict", """
from collections import OrderedDict
net = nn.Sequential(OrderedDict([("fc1", nn.Linear(4, 3)), ("act", nn.Tanh()), ("fc2", nn.Linear(3, 2, bias=False))]))
out = net(x)
""", {"x": X}, "out", ("net",), seed=1),
    Paste("convolution", "conv = nn.Conv2d(3, 4, kernel_size=3, padding=1, stride=2)\nF.relu(conv(x)).sum()", {"x": IMG}, "F.relu(conv(x)).sum()", ("conv",), seed=0),
    Paste("convolution circular", "conv = nn.Conv1d(4, 2, 3, padding=1, padding_mode='circular')\nconv(x.transpose(1, 2))", {"x": SEQ}, "conv(x.transpose(1, 2))", ("conv",), seed=0),
    Paste("transposed convolution", "up = nn.ConvTranspose2d(3, 2, 2, stride=2)\nup(x).tanh()", {"x": IMG}, "up(x).tanh()", ("up",), seed=0),
    Paste("layer norm", "ln = nn.LayerNorm(4)\nln(x) ** 2", {"x": X}, "ln(x) ** 2", ("ln",), seed=0),
    Paste("group norm", "nn.GroupNorm(1, 3)(x).exp().mean()", {"x": IMG}, "nn.GroupNorm(1, 3)(x).exp().mean()"),
    Paste("batch norm in training", "bn = nn.BatchNorm2d(3)\nbn(x).pow(3).sum()", {"x": IMG}, "bn(x).pow(3).sum()", ("bn",), seed=0),
    Paste("batch norm in evaluation", "bn = nn.BatchNorm1d(4)\nbn.eval()\nbn(x).pow(3).sum()", {"x": X}, "bn(x).pow(3).sum()", ("bn",), seed=0),
    Paste("batch norm by hand", """
def batch_norm(x, gamma, beta, eps=1e-5):
    mu = x.mean(dim=0)
    var = ((x - mu) ** 2).mean(dim=0)
    x_hat = (x - mu) / torch.sqrt(var + eps)
    return gamma * x_hat + beta
""", {"x": (6, 4), "gamma": (4,), "beta": (4,)}, "batch_norm(x, gamma, beta)"),
    Paste("layer norm by hand", """
class LayerNorm(nn.Module):
    "Construct a layernorm module (See citation for details)."
    def __init__(self, features, eps=1e-6):
        super(LayerNorm, self).__init__()
        self.a_2 = nn.Parameter(torch.ones(features))
        self.b_2 = nn.Parameter(torch.zeros(features))
        self.eps = eps

    def forward(self, x):
        mean = x.mean(-1, keepdim=True)
        std = x.std(-1, keepdim=True)
        return self.a_2 * (x - mean) / (std + self.eps) + self.b_2

norm = LayerNorm(4)
norm(x)
""", {"x": X}, "norm(x)", ("norm",), seed=0),
    Paste("embedding", "emb = nn.Embedding(10, 3, padding_idx=0)\nemb(tokens).sum(1) ** 2", {"tokens": ("int", 1, 10, 2, 4)}, "emb(tokens).sum(1) ** 2", ("emb",), seed=4),
    Paste("lstm", "lstm = nn.LSTM(4, 3, batch_first=True)\nout, (h, c) = lstm(x)\nout[:, -1].sum() + c.sum()", {"x": SEQ}, "out[:, -1].sum() + c.sum()", ("lstm",), seed=0),
    Paste("two layer lstm with states", "rnn = nn.LSTM(input_size=4, hidden_size=3, num_layers=2)\nh0 = torch.zeros(2, 5, 3)\nc0 = torch.zeros(2, 5, 3)\noutput, (hn, cn) = rnn(x, (h0, c0))\nhn", {"x": SEQ}, "hn", ("rnn",), seed=0),
    Paste("gru", "gru = nn.GRU(4, 3, bidirectional=True)\nout, hn = gru(x)\nout.pow(2).sum()", {"x": SEQ}, "out.pow(2).sum()", ("gru",), seed=0),
    Paste("rnn cells", "cell = nn.GRUCell(4, 3)\nh = torch.zeros(5, 3)\nfor t in range(x.size(0)):\n    h = cell(x[t], h)\nh.sum(0)", {"x": SEQ}, "h.sum(0)", ("cell",), seed=0),
    Paste("multihead attention", "mha = nn.MultiheadAttention(4, 2, batch_first=True)\nout, weights = mha(x, x, x)\nout.sum() + (weights ** 2).sum()", {"x": SEQ}, "out.sum() + (weights ** 2).sum()", ("mha",), seed=0),
    Paste("encoder layer", "layer = nn.TransformerEncoderLayer(d_model=4, nhead=2, dim_feedforward=8, dropout=0.0, batch_first=True)\nlayer(x).pow(2).mean()", {"x": SEQ}, "layer(x).pow(2).mean()", ("layer",), seed=0),
    Paste("encoder", "encoder_layer = nn.TransformerEncoderLayer(d_model=4, nhead=2, dim_feedforward=8, dropout=0.0, batch_first=True)\nencoder = nn.TransformerEncoder(encoder_layer, num_layers=2)\nencoder(x).pow(2).mean()", {"x": SEQ}, "encoder(x).pow(2).mean()", ("encoder",), seed=0),
    Paste("prelu and dropout", "act = nn.PReLU()\ndrop = nn.Dropout(0.5)\ndrop.eval()\ndrop(act(x)).sum()", {"x": X}, "drop(act(x)).sum()", ("act",), seed=0),
    Paste("dropout in training", "drop = nn.Dropout(p=0.3)\ny = (drop(x) * w).sum()", {"x": X, "w": X}, "y", seed=11),
    Paste("pooling", "y = nn.MaxPool2d(2)(x)\nz = nn.AvgPool2d(kernel_size=3, stride=1, padding=1)(x)\nnn.AdaptiveAvgPool2d(1)(x).sum() + y.sum() + z.pow(2).sum() + nn.AdaptiveMaxPool2d((2, 2))(x).sum()", {"x": IMG}, "nn.AdaptiveAvgPool2d(1)(x).sum() + y.sum() + z.pow(2).sum() + nn.AdaptiveMaxPool2d((2, 2))(x).sum()"),
    Paste("padding and upsampling", "y = nn.ReflectionPad2d(1)(x)\ny = nn.Upsample(scale_factor=2, mode='bilinear', align_corners=False)(y)\nnn.ZeroPad2d(1)(nn.ConstantPad2d(1, 0.5)(y)).pow(2).sum()", {"x": IMG}, "nn.ZeroPad2d(1)(nn.ConstantPad2d(1, 0.5)(y)).pow(2).sum()"),
    Paste("flatten and friends", "y = nn.Flatten()(x)\nz = nn.Unflatten(1, (12, 9))(y)\nnn.PixelShuffle(2)(z.view(2, 12, 3, 3)).sin().sum() + nn.Identity()(y).sum()", {"x": IMG}, "nn.PixelShuffle(2)(z.view(2, 12, 3, 3)).sin().sum() + nn.Identity()(y).sum()"),
    Paste("activations", "mods = [nn.ReLU(), nn.LeakyReLU(0.2), nn.ELU(), nn.GELU(), nn.SiLU(), nn.Softplus(), nn.Hardtanh(), nn.Softmax(dim=1), nn.LogSoftmax(dim=-1), nn.Mish(), nn.Sigmoid(), nn.Tanh(), nn.SELU(), nn.Softsign(), nn.LogSigmoid(), nn.Hardswish(), nn.GELU(approximate='tanh')]\nsum(m(x).pow(2).sum() for m in mods)", {"x": X}, "sum(m(x).pow(2).sum() for m in mods)"),
    Paste("loss modules", "a = nn.MSELoss()(x, y) + nn.L1Loss(reduction='sum')(x, y) + nn.SmoothL1Loss(beta=0.5)(x, y) + nn.HuberLoss(delta=0.3)(x, y)\na + nn.CosineEmbeddingLoss()(x, y, torch.ones(3)) + nn.MarginRankingLoss(margin=0.1)(x, y, torch.ones(3, 4)) + nn.TripletMarginLoss()(x, y, x * 2) + nn.PoissonNLLLoss()(x, y.abs()) + nn.CosineSimilarity(dim=1)(x, y).sum() + nn.PairwiseDistance()(x, y).sum()", {"x": X, "y": X}, "a + nn.CosineEmbeddingLoss()(x, y, torch.ones(3)) + nn.MarginRankingLoss(margin=0.1)(x, y, torch.ones(3, 4)) + nn.TripletMarginLoss()(x, y, x * 2) + nn.PoissonNLLLoss()(x, y.abs()) + nn.CosineSimilarity(dim=1)(x, y).sum() + nn.PairwiseDistance()(x, y).sum()"),
    Paste("bilinear", "b = nn.Bilinear(4, 3, 2)\nb(x, y).sum()", {"x": X, "y": (3, 3)}, "b(x, y).sum()", ("b",), seed=0),
    Paste("a parameter", "w = nn.Parameter(torch.randn(4, 2) * 0.1)\n(x @ w).pow(2).sum()", {"x": X}, "(x @ w).pow(2).sum()", ("w",), seed=8),
    Paste("a leaf", "w = torch.randn(4, requires_grad=True)\nloss = ((x @ w) ** 2).mean()\nloss.backward()", {"x": X}, "loss", ("w",), seed=8),
    Paste("weight decay", "net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))\nl2 = sum(p.pow(2).sum() for p in net.parameters())\nloss = net(x).pow(2).mean() + 1e-2 * l2", {"x": X}, "loss", ("net",), seed=2),
    Paste("own initialisation", "fc = nn.Linear(4, 3)\nnn.init.xavier_uniform_(fc.weight)\nnn.init.zeros_(fc.bias)\nfc(x).sum()", {"x": X}, "fc(x).sum()", ("fc",), seed=2),
]  # fmt: skip
