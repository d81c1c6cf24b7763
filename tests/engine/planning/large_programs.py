"""Programs whose memory is far above their text, and what asking for them took of a process of their own, whose peak is looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from app.errors import PullbackError
from app.limits import Limits
from tests.engine.asking import ask

LIMITS: Final = Limits(memory_bytes=256 << 20)
# Asked one after the other, a kind each in turn: each reads the program anew.
KINDS: Final = ("outputs", "gradient", "jvp", "hessian", "explain", "check", "precision")
X: Final = [1.5, -2.0, 3.0]
PROGRAMS: Final[Mapping[str, str]] = {
    "arange of a sum": "torch.arange(int((x.abs() * 1e8).sum())).sum() * x.sum()",
    "repeat by value": "n = int(x.abs().max() * 1e8)\nreturn x.repeat(n).sum()",
    "tile": "torch.tile(x, (10**8,)).sum()",
    "expand plus": "(x.expand(10**8, 3) + 1).sum()",
    "masked_select": "y = x.expand(10**8, 3)\nreturn torch.masked_select(y, y > 0).sum()",
    "nonzero arange": "(torch.nonzero(torch.ones(int(x.abs().max()*1e8))).double() * x[0]).sum()",
    "loop doubles": "y = x\nfor i in range(40):\n    y = torch.cat([y, y])\nreturn y.sum()",
    "while doubles": "y = x\nwhile y.abs().sum() < 1e12:\n    y = torch.cat([y, y])\nreturn y.sum()",
    "outer of outer": "a = torch.outer(x.repeat(100), x.repeat(100)).flatten()\nreturn torch.outer(a, a).sum()",
    "repeat_interleave": "torch.repeat_interleave(x, 10**8).sum()",
    "repeat_interleave value": "torch.repeat_interleave(x, (x.abs() * 1e8).long()).sum()",
    "bincount minlength": "torch.bincount(torch.tensor([1, 2]), minlength=10**8).sum() * x.sum()",
    "one_hot classes": "(F.one_hot(torch.tensor([0, 1]), 10**8) * x[0]).sum()",
    "combinations": "torch.combinations(x.repeat(150), 3).sum()",
    "cartesian_prod": "y = x.repeat(100)\nreturn torch.cartesian_prod(y, y, y).sum()",
    "meshgrid": "y = x.repeat(100)\na, b, c = torch.meshgrid(y, y, y, indexing='ij')\nreturn (a * b * c).sum()",
    "unfold": "y = torch.ones(20000) * x[0]\nreturn y.unfold(0, 10000, 1).contiguous().sum()",
    "F.unfold": "y = torch.ones(1, 1, 200, 200) * x[0]\nreturn F.unfold(y, 100).sum()",
    "kron": "y = torch.ones(100, 100) * x[0]\nreturn torch.kron(y, y).sum()",
    "vander": "torch.vander(x, 10**8).sum()",
    "cdist": "y = torch.ones(10**4, 2) * x[0]\nreturn torch.cdist(y, y).sum()",
    "block_diag": "y = torch.ones(10000, 1000) * x[0]\nreturn torch.block_diag(*[y for i in range(100)]).sum()",
    "diag": "torch.diag(torch.ones(10**4) * x[0]).sum()",
    "conv padding": "F.conv1d(x.view(1, 1, 3), torch.ones(1, 1, 1), padding=10**8).sum()",
    "conv2d padding": "F.conv2d(x.view(1, 1, 1, 3), torch.ones(1, 1, 1, 1), padding=10**5).sum()",
    "conv_transpose stride": "F.conv_transpose1d(x.view(1, 1, 3), torch.ones(1, 1, 1), stride=10**8).sum()",
    "interpolate scale": "F.interpolate(x.view(1, 1, 3), scale_factor=1e8).sum()",
    "upsample bicubic": "F.interpolate(x.view(1, 1, 1, 3), size=(10**4, 10**4), mode='bicubic').sum()",
    "pad": "F.pad(x, (10**8, 0)).sum()",
    "irfft n": "torch.fft.irfft(x, n=10**8).abs().sum()",
    "fft2 s": "torch.fft.fft2(x.view(1, 3), s=(10**4, 10**4)).abs().sum()",
    "stft": "torch.stft(torch.ones(10**4) * x[0], 2**14, hop_length=1, return_complex=True).abs().sum()",
    "eye": "(torch.eye(10**6) * x[0]).sum()",
    "full": "(torch.full((10**8,), 2.0) * x[0]).sum()",
    "nn.Linear": "nn.Linear(10**4, 10**4)(torch.ones(10**4) * x[0]).sum()",
    "nn.Embedding": "nn.Embedding(10**8, 10**3)(torch.tensor([1])).sum() * x.sum()",
    "nn.MultiheadAttention": "y = torch.ones(2, 10**4) * x[0]\nreturn nn.MultiheadAttention(10**4, 1)(y, y, y)[0].sum()",
    "nn.Parameter": "w = nn.Parameter(torch.zeros(10**8))\nreturn (w * x[0]).sum()",
    "attention": "q = torch.ones(1, 10**4, 4) * x[0]\nreturn F.scaled_dot_product_attention(q, q, q).sum()",
    "einsum": "y = torch.ones(500) * x[0]\nreturn torch.einsum('i,j,k->ijk', y, y, y).sum()",
    "index with expand": "i = torch.zeros(1, dtype=torch.long).expand(10**8)\nreturn x[i].sum()",
    "embedding": "i = torch.zeros(1, dtype=torch.long).expand(10**8)\nreturn F.embedding(i, x.view(3, 1)).sum()",
    "scatter": "i = torch.zeros(1, dtype=torch.long).expand(10**8)\nreturn torch.zeros(10**8).scatter(0, i, x[0].expand(10**8)).sum()",
    "topk": "x[:1].expand(10**8).topk(5).values.sum()",
    "histc": "torch.histc(x.detach(), 10**8).sum() * x.sum()",
    "vmap": "torch.vmap(lambda i: torch.ones(10**4) * i)(x.repeat(10**4)).sum()",
    "jacobian in it": "torch.func.jacrev(lambda y: y * 2)(torch.ones(10**4) * x[0]).sum()",
    "hessian in it": "torch.func.hessian(lambda y: (y ** 3).sum())(torch.ones(10**4) * x[0]).sum()",
    "cov": "torch.cov(torch.ones(10**4, 2) * x[0]).sum()",
    "svd full": "torch.linalg.svd(torch.ones(10**4, 1) * x[0]).U.sum()",
    "multinomial": "torch.multinomial(x.abs(), 10**8, replacement=True).sum() * x.sum()",
    "pixel_shuffle": "F.pixel_shuffle(x[:1].expand(1, 10**8, 1, 1).contiguous(), 10**4).sum()",
    "unbind many": "ys = torch.unbind(torch.ones(10**7) * x[0])\nreturn torch.stack(ys).sum()",
    "F.pad by value": "F.pad(x, (int(x.abs().max() * 1e8), 0)).sum()",
    "split": "ys = torch.split(torch.ones(10**7) * x[0], 1)\nreturn sum([y.sum() for y in ys])",
    "weights from a product": "w = nn.Parameter(torch.randn(7000, 2) @ torch.randn(2, 7000))\nreturn w[0].sum() * x[0]",
}  # fmt: skip


def memory(line: str) -> int:
    """Bytes of this process, by the line's name in `/proc/self/status`."""
    with open("/proc/self/status") as status:
        return next(int(text.split()[1]) * 1024 for text in status if text.startswith(line))


def asked(program: str, kind: str) -> dict[str, int | str]:
    """The refusal's code and title, and by how many bytes this process grew at most; `answered` where there is none."""
    with open("/proc/self/clear_refs", "w") as peaks:  # 5: the peak of resident memory starts again (proc(5))
        peaks.write("5")
    before, said = memory("RssAnon:"), "answered"
    try:
        ask(LIMITS, program=program, inputs={"x": X}, want=[kind], seed=0)
    except PullbackError as error:
        said = error.code
    return {"said": said, "taken": memory("VmHWM:") - memory("RssFile:") - memory("RssShmem:") - before}


def all_asked() -> dict[str, dict[str, int | str]]:
    """Of each program, twice."""
    ask(program="tanh(x).sum()", inputs={"x": [0.5] * 10_000}, want=["gradient", "jvp"])
    return {
        f"{name}, {kind}": asked(program, kind)
        for place, (name, program) in enumerate(PROGRAMS.items())
        for kind in ("outputs", KINDS[1 + place % (len(KINDS) - 1)])
    }
