"""Attention as it is written everywhere."""

from __future__ import annotations

from tests.pastes.paste import Paste

SEQ = (2, 5, 4)

PASTES = [
    Paste("scaled dot product", """
def scaled_dot_product(q, k, v, mask=None):
    d_k = q.size()[-1]
    attn_logits = torch.matmul(q, k.transpose(-2, -1))
    attn_logits = attn_logits / math.sqrt(d_k)
    if mask is not None:
        attn_logits = attn_logits.masked_fill(mask == 0, -9e15)
    attention = F.softmax(attn_logits, dim=-1)
    values = torch.matmul(attention, v)
    return values, attention

values, attn = scaled_dot_product(q, k, v)
values
""", {"q": SEQ, "k": SEQ, "v": SEQ}, "values"),
    Paste("heads by view", """
B, T, C = x.shape
nh = 2
qkv = x @ wqkv
q, k, v = qkv.split(C, dim=2)
k = k.view(B, T, nh, C // nh).transpose(1, 2)
q = q.view(B, T, nh, C // nh).transpose(1, 2)
v = v.view(B, T, nh, C // nh).transpose(1, 2)
att = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
bias = torch.tril(torch.ones(T, T)).view(1, 1, T, T)
att = att.masked_fill(bias[:, :, :T, :T] == 0, float('-inf'))
att = F.softmax(att, dim=-1)
y = att @ v
y = y.transpose(1, 2).contiguous().view(B, T, C)
""", {"x": SEQ, "wqkv": (4, 12)}, "y"),
    Paste("causal self attention", """
class CausalSelfAttention(nn.Module):

    def __init__(self, n_embd, n_head, block_size, attn_pdrop=0.0):
        super().__init__()
        assert n_embd % n_head == 0
        self.c_attn = nn.Linear(n_embd, 3 * n_embd)
        self.c_proj = nn.Linear(n_embd, n_embd)
        self.attn_dropout = nn.Dropout(attn_pdrop)
        self.register_buffer("bias", torch.tril(torch.ones(block_size, block_size))
                                     .view(1, 1, block_size, block_size))
        self.n_head = n_head
        self.n_embd = n_embd

    def forward(self, x):
        B, T, C = x.size() # batch size, sequence length, embedding dimensionality (n_embd)
        q, k ,v  = self.c_attn(x).split(self.n_embd, dim=2)
        k = k.view(B, T, self.n_head, C // self.n_head).transpose(1, 2) # (B, nh, T, hs)
        q = q.view(B, T, self.n_head, C // self.n_head).transpose(1, 2) # (B, nh, T, hs)
        v = v.view(B, T, self.n_head, C // self.n_head).transpose(1, 2) # (B, nh, T, hs)
        att = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
        att = att.masked_fill(self.bias[:,:,:T,:T] == 0, float('-inf'))
        att = F.softmax(att, dim=-1)
        att = self.attn_dropout(att)
        y = att @ v # (B, nh, T, T) x (B, nh, T, hs) -> (B, nh, T, hs)
        y = y.transpose(1, 2).contiguous().view(B, T, C) # re-assemble all head outputs side by side
        y = self.c_proj(y)
        return y

attn = CausalSelfAttention(4, 2, 8)
attn(x)
""", {"x": SEQ}, "attn(x)", ("attn",), seed=0),
    Paste("annotated multi head", """
import copy

def clones(module, N):
    return nn.ModuleList([copy.deepcopy(module) for _ in range(N)])
""".replace("import copy\n", "").replace("copy.deepcopy(module)", "nn.Linear(4, 4)") + """
def attention(query, key, value, mask=None, dropout=None):
    "Compute 'Scaled Dot Product Attention'"
    d_k = query.size(-1)
    scores = torch.matmul(query, key.transpose(-2, -1)) \\
             / math.sqrt(d_k)
    if mask is not None:
        scores = scores.masked_fill(mask == 0, -1e9)
    p_attn = F.softmax(scores, dim = -1)
    if dropout is not None:
        p_attn = dropout(p_attn)
    return torch.matmul(p_attn, value), p_attn

class MultiHeadedAttention(nn.Module):
    def __init__(self, h, d_model, dropout=0.0):
        super(MultiHeadedAttention, self).__init__()
        assert d_model % h == 0
        self.d_k = d_model // h
        self.h = h
        self.linears = clones(None, 4)
        self.attn = None
        self.dropout = nn.Dropout(p=dropout)

    def forward(self, query, key, value, mask=None):
        if mask is not None:
            mask = mask.unsqueeze(1)
        nbatches = query.size(0)
        query, key, value = \\
            [l(x).view(nbatches, -1, self.h, self.d_k).transpose(1, 2)
             for l, x in zip(self.linears, (query, key, value))]
        x, self.attn = attention(query, key, value, mask=mask,
                                 dropout=self.dropout)
        x = x.transpose(1, 2).contiguous() \\
             .view(nbatches, -1, self.h * self.d_k)
        return self.linears[-1](x)

mha = MultiHeadedAttention(2, 4)
mha(q, k, v)
""", {"q": SEQ, "k": SEQ, "v": SEQ}, "mha(q, k, v)", ("mha",), seed=0),
    Paste("rotary", """
def rotate_half(x):
    x1, x2 = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
    return torch.cat((-x2, x1), dim=-1)

dim = q.shape[-1]
inv_freq = 1.0 / (10000 ** (torch.arange(0, dim, 2).double() / dim))
t = torch.arange(q.shape[-2]).type_as(inv_freq)
freqs = torch.einsum("i,j->ij", t, inv_freq)
emb = torch.cat((freqs, freqs), dim=-1)
cos, sin = emb.cos()[None, :, :], emb.sin()[None, :, :]
q_embed = (q * cos) + (rotate_half(q) * sin)
""", {"q": SEQ}, "q_embed"),
    Paste("rms norm", """
class RMSNorm(torch.nn.Module):
    def __init__(self, dim: int, eps: float = 1e-6):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def _norm(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)

    def forward(self, x):
        output = self._norm(x.float().double()).type_as(x)
        return output * self.weight

norm = RMSNorm(4)
norm(x)
""", {"x": SEQ}, "norm(x)", ("norm",), seed=0),
    Paste("torch attention", "F.scaled_dot_product_attention(q, k, v, is_causal=True).sum()", {"q": (1, 2, 4, 3), "k": (1, 2, 4, 3), "v": (1, 2, 4, 3)}, "F.scaled_dot_product_attention(q, k, v, is_causal=True).sum()"),
    Paste("alibi", "slopes = torch.tensor([2 ** (-8 * (i + 1) / 2) for i in range(2)])\npos = torch.arange(5)\nbias = -(pos[None, :] - pos[:, None]).abs()[None] * slopes[:, None, None]\n(scores + bias).softmax(-1).pow(2).sum()", {"scores": (2, 5, 5)}, "(scores + bias).softmax(-1).pow(2).sum()"),
    Paste("graph convolution", "A_hat = adj + torch.eye(4)\nD = torch.diag(A_hat.sum(1) ** -0.5)\nH = torch.relu(D @ A_hat @ D @ X @ W)\nH.sum()", {"adj": ("pos", 4, 4), "X": (4, 3), "W": (3, 2)}, "H.sum()"),
]  # fmt: skip
