"""Random programs that move, mix, overwrite and choose elements, as texts that are PyTorch's Python too; real and complex ones."""

from __future__ import annotations

import random
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor

SIZE: Final = 6  # elements of the one input, and of every step of a real program
POINTWISE: Final = (
    "sin({a})", "{a} * {a}", "relu({a})", "{a}.abs()", "1e14 * {a}", "1e-14 * {a}", "{a} ** 3", "{a}.clamp(-0.5, 0.5)",
    "torch.where({a} > 0, {a}, {a} * {a})", "{a}.detach() * {a}", "{a}.round() + {a}", "special.erfcx({a})", "special.log_ndtr({a})",
    "nn.functional.softplus({a})", "{a}.floor() * {a}", "{a}.masked_fill({a} < 0, 0.3)", "{a} * ({a} > 0)", "nan_to_num({a})",
    "{a} + {b}", "{a} * {b}", "{a} / ({b} * {b} + 1)", "torch.where({a} > {b}, {a}, {b})", "torch.maximum({a}, {b})", "{a} + 0 * {b}",
    "{a} + 1e-13 * {b}",
)  # fmt: skip
MOVING: Final = (
    "{a}.roll(1, 0)", "{a}.flip(0)", "{a}.cumsum(0)", "{a}.cumprod(0)", "{a}.sort().values", "{a}[{a}.argsort()]",
    "{a}[torch.tensor([{any}])]", "{a}.gather(0, torch.tensor([{any}]))", "torch.cat([{a}[2:], {a}[:2]])",
    "torch.zeros({n}).scatter_add(0, torch.tensor([{any}]), {a})", "torch.zeros({n}).scatter(0, torch.tensor([{each}]), {a})",
    "torch.zeros({n}).index_put((torch.tensor([{any}]),), {a}, accumulate=True)", "{a}.topk({n}).values", "{a}.logcumsumexp(0)",
    "{a}.cummax(0).values", "{a} - {a}.mean()", "{a} + 1e-12 * {a}.sum()", "softmax({a}, 0)", "{a} * {a}.max()", "{a} + {a}.median()",
    "nn.functional.conv1d({a}[None, None], torch.tensor([[[0.5, -1.0, 2.0]]]), padding=1)[0, 0]",
    "nn.functional.avg_pool1d({a}[None], 3, 1, 1)[0]", "nn.functional.max_pool1d({a}[None], 3, 1, 1)[0]",
    "fft.fft({a}).imag", "fft.irfft(fft.rfft({a}), n={n})", "torch.view_as_real(torch.complex({a}, {a}.flip(0)))[:, 1]",
    "torch.complex({a}, {a}.roll(1, 0)).real", "torch.diag(torch.tensor([{zeros}])) @ {a}", "torch.diag({a}) @ {a}",
    "torch.outer({a}, {a}).diagonal()", "torch.where({a}.flip(0) > 0, {a}, {a}.roll(1, 0))", "{a}.repeat_interleave(2)[:{n}]",
    "nn.functional.pad({a}[None], (1, 1), mode='circular')[0][2:]", "{a}.diff(prepend={a}[:1])", "torch.einsum('i,i->i', {a}, {a})",
    "{a}.masked_scatter({a} > 0, {a}.flip(0))", "torch.cdist({a}[:, None], {a}[:, None]).sum(1)", "({a}[{a} > 0]).sum() * {a}",
    "{a}.scatter_reduce(0, torch.tensor([{any}]), {a}, 'prod')", "{a}.index_copy(0, torch.tensor([{each}]), {a})",
    "torch.stack([{a}, {a}.flip(0)]).amax(0)", "{a}.var() * {a}", "{a}.view(2, -1).t().reshape(-1)", "{a}.view(2, -1).softmax(1).view(-1)",
    "nn.functional.embedding(torch.tensor([{any}]), {a}[:, None])[:, 0]", "torch.linalg.solve(torch.eye({n}) * 2 + 0.01, {a})",
)  # fmt: skip
WRITING: Final = (
    "{y} = {a}.clone()\n{y}[::2] *= 3", "{y} = {a}.clone()\n{y}[1:] *= {a}[:-1]", "{y} = [{a}.clone()] * 2\n{y}[0] *= {b}\n{y} = {y}[1]",
    "{y} = {a}.clone()\n{y}[1:] += {a}[:-1]", "{y} = {a}.clone()\n{y}.mul_({b})",
    "{y} = {a}.clone()\nfor i in range(1, {n}):\n    {y}[i] = {y}[i] + 0.5 * {y}[i - 1]", "{y} = {a}.clone()\n{y}[{y} > 0] = 0.5",
    "{y} = torch.zeros({n})\n{y}[:2] = {a}[:2]\n{y}[2:] = {b}[2:]", "{y} = {a}.clone()\nv = {y}.view(2, -1)\nv[0] *= 2",
    "if {a}.sum() > 0:\n    {y} = {a}\nelse:\n    {y} = {a}.flip(0)", "{y} = {a}.clone()\n{y}[{y}.argmax()] = {b}[0]",
    "{y} = {a}\nfor i in range(3):\n    {y} = {y} + 0.1 * ({y}.roll(1, 0) - {y})", "{y} = {a}.clone()\n{y}[-1] = {b}.sum()",
)  # fmt: skip
# Real numbers of a vector: what a Hessian meets that a Jacobian of one step does not.
SCALARS: Final = (
    "return {x}.cumprod(0).sum()", "return {x}.prod()", "return ({x}.logcumsumexp(0) ** 2).sum()", "return {x}.logsumexp(0)",
    "return (nn.functional.conv1d({x}[None, None], {x}[:3][None, None], padding=1) ** 2).sum()",
    "return torch.tanh(nn.functional.conv1d({x}.view(1, 2, 3), {x}[:4].view(2, 1, 2), groups=2, dilation=2)).sum()",
    "return (nn.functional.conv_transpose1d({x}.view(1, 2, 3), {x}[:4].view(2, 1, 2), stride=2, groups=2) ** 3).sum()",
    "return (nn.functional.pad({x}[None], (2, 1), mode='reflect') ** 3).sum()", "return ({x}.unfold(0, 3, 1).prod(1)).sum()",
    "return (nn.functional.fold({x}[:4].view(1, 4, 1), (2, 2), 2) ** 3).sum()", "return (nn.functional.max_pool1d({x}[None], 2) ** 3).sum()",
    "return (nn.functional.interpolate({x}[None, None], scale_factor=2, mode='linear') ** 3).sum()",
    "return torch.linalg.slogdet(torch.outer({x}, {x}) + torch.eye(6))[1]", "return torch.linalg.inv(torch.diag({x} ** 2 + 1)).sum()",
    "return (torch.linalg.cholesky(torch.diag({x} ** 2 + 2)) ** 3).sum()", "return torch.matrix_exp({x}[:4].view(2, 2)).sum()",
    "return (nn.functional.layer_norm({x}.view(2, 3), (3,)) ** 3).sum()", "return (nn.functional.group_norm({x}.view(1, 6), 2) ** 3).sum()",
    "return nn.functional.cross_entropy({x}.view(2, 3), torch.tensor([2, 0]))", "return (fft.rfft({x}).abs() ** 4).sum()",
    "return (torch.zeros(3).scatter_add(0, torch.tensor([0, 1, 0, 2, 2, 0]), {x}) ** 3).sum()",
    "return {x}.scatter_reduce(0, torch.tensor([0, 1, 0, 2, 2, 0]), {x}.flip(0), 'prod').sum()",
    "y = {x}.clone()\ny[1:] *= {x}[:-1]\nreturn (y ** 2).sum()", "y = torch.zeros(6, 6)\ny[0] = {x} ** 2\ny[:, 1] = {x}\nreturn y.norm()",
    "return (({x}[torch.tensor([0, 2, 4])] - {x}[torch.tensor([1, 5, 3])]) ** 4).sum()", "return ({x}.detach() * {x} ** 2).sum()",
    "return (torch.maximum({x}, {x}.flip(0)) ** 2 * {x}).sum()", "return torch.vmap(lambda r: (r ** 3).sum() * r[0])({x}.view(3, 2)).sum()",
)  # fmt: skip
# What reads values to find its elements, mixes small parts of the vector, or hides its steps in functions.
LOOKING: Final = (
    "{y} = {a}.gather(0, ({a}.abs() * 10).long() % {n})", "{y} = {a}[(({a} * 7).round().long()) % {n}]",
    "{y} = torch.zeros({n}).scatter_add(0, ({a} * 3).long().abs() % {n}, {b})", "{y} = {a}[{a}.argsort(descending=True)] * {b}",
    "{y} = torch.ones({n}).scatter_reduce(0, ({a} * 3).long().abs() % {n}, {b}, 'amax')",
    "{y} = {b}.clone()\n{y}[{a} > {b}] = {b}[{a} > {b}] ** 2", "{y} = torch.where({a} > {a}.mean(), {b}, {a}.flip(0))",
    "{y} = {a}.view(2, 3).cummax(1)[0].reshape(-1)", "{y} = {a}.view(3, 2).sort(0).values.reshape(-1)",
    "{y} = torch.einsum('ij,ij->i', {a}.view(2, 3), {b}.view(2, 3)).repeat(3)", "{y} = torch.einsum('i,j->ij', {a}, {b}).tril().sum(0)",
    "{y} = torch.einsum('bi,bj->bij', {a}.view(2, 3), {b}.view(2, 3)).diagonal(dim1=1, dim2=2).reshape(-1)",
    "{y} = nn.functional.conv1d({a}.view(1, 2, 3), {b}.view(2, 1, 3), padding=1, groups=2).reshape(-1)",
    "{y} = nn.functional.conv_transpose1d({a}.view(1, 1, 6), torch.tensor([[[0.5, 0.0, 1.0]]]), padding=1).reshape(-1)",
    "{y} = {a}.unfold(0, 3, 1).prod(1).repeat(2)[:{n}]", "{y} = torch.view_as_complex({a}.view(3, 2)).abs().repeat_interleave(2)",
    "{y} = nn.functional.fold({a}.view(1, 2, 3), (1, 4), (1, 2)).reshape(-1).repeat(2)[:{n}]",
    "{y} = torch.view_as_real(torch.view_as_complex({a}.view(3, 2)) * torch.view_as_complex({b}.view(3, 2)).conj()).reshape(-1)",
    "{y} = {a}.clone()\nv = {y}.view(3, 2)\nv[:, 0] = v[:, 1] * {b}[:3]", "{y} = {a} * 1\nfor i in range(5):\n    {y}[i + 1] += {y}[i] * {b}[i]",
    "def f(u, v):\n    def g(w):\n        return w * v.flip(0)\n    return g(u) + g(v)\n{y} = f({a}, {b})",
    "{y} = nn.functional.batch_norm({a}.view(2, 3), None, None, training=True).reshape(-1) + {b}", "{y} = {a}.kthvalue(2)[0] * {b}",
    "{y} = nn.functional.pad({a}.view(1, 1, 6), (2, 1), mode='reflect')[0, 0, :{n}] * {b}", "{y} = {a}.quantile(0.3) + {b}",
    "{y} = nn.functional.interpolate({a}.view(1, 1, 2, 3), size=(3, 2), mode='nearest').reshape(-1)",
    "{y} = torch.linalg.cross({a}.view(2, 3), {b}.view(2, 3)).reshape(-1)", "{y} = torch.kron({a}[:2], {b}[:3])",
    "{y} = torch.func.grad(lambda u: (u * u.flip(0) * {b}).sum())({a})", "{y} = torch.slice_scatter({a}, {b}[:3], 0, 1, 4)",
    "{y} = torch.func.vmap(lambda u, v: u * v.sum())({a}.view(2, 3), {b}.view(2, 3)).reshape(-1)", "{y} = torch.rot90({a}.view(2, 3)).reshape(-1)",
    "{y} = {a}.as_strided((3, 2), (1, 2)).reshape(-1)", "{y} = torch.select_scatter({a}.view(2, 3), {b}[:3], 0, 1).reshape(-1)",
)  # fmt: skip
COMPLEX: Final = (
    "{a} * {a}", "exp({a} * 0.3)", "{a}.conj()", "{a} * {b}.conj()", "{a} + {b}", "{a} / ({b} + 9)", "{a}.abs() * {b}", "{a}.real * {b}",
    "torch.complex({a}.imag, {a}.real)", "{a}.roll(1, 0)", "{a}.cumsum(0)", "{a}.sum() + {b}", "fft.fft({a})", "{a} * 1j",
    "torch.view_as_complex(torch.view_as_real({a}).flip(1))", "{a}.conj().conj()", "torch.vdot({a}, {b}) + {a}", "torch.dot({a}, {b}) + {a}",
    "torch.outer({a}, {b}).sum(1)", "{a}.clone().mul_({b})", "({a} * {a}.conj()).real * {b}", "sqrt({a} + 9)",
    "torch.real({a}) + 1j * torch.imag({b})",
    "torch.zeros({n}, dtype=torch.complex128).scatter(0, torch.tensor([{each}]), {a})", "{a}.mean() * {b}", "{a}.norm() * {b}", "fft.fft({a}.real)",
    "torch.tensor([{zeros}]) * {a}", "{a}.prod() + {b}", "torch.linalg.solve(torch.eye({n}) * (2 + 1j), {a})",
)  # fmt: skip
ENDS: Final = ("{a}", "{a}", "{a}.real", "{a}.abs()", "({a} * {a}.conj()).real", "torch.view_as_real({a})")
_NAMES: Final = "sin relu exp sqrt softmax nan_to_num"


def real_program(seed: int) -> str:
    """One vector of SIZE to another."""
    rng = random.Random(seed)
    names, lines = ["x"], []
    for number in range(rng.randint(1, 4)):
        kind = rng.choices((POINTWISE, MOVING, WRITING), (4, 5, 1.5))[0]
        line = _filled(rng, rng.choice(kind), names, f"y{number}")
        lines.append(line if kind is WRITING else f"y{number} = {line}")
        names.append(f"y{number}")
    return "\n".join([*lines, f"return {names[-1]}"])


def looking_program(seed: int) -> str:
    """One vector of SIZE to another, by what reads values, mixes parts, or is in functions."""
    rng = random.Random(seed)
    lines = [_filled(rng, rng.choice(LOOKING), ["x", *(f"y{k}" for k in range(number))], f"y{number}") for number in range(3)]
    return "\n".join([*lines, "return y2"])


def complex_program(seed: int) -> str:
    """Of a complex vector, or every third of a real one."""
    rng = random.Random(seed)
    names, lines = (["x"], []) if seed % 3 else (["z"], ["z = torch.complex(x, x.flip(0))"])
    for number in range(rng.randint(1, 4)):
        lines.append(f"y{number} = {_filled(rng, rng.choice(COMPLEX), names, '')}")
        names.append(f"y{number}")
    return "\n".join([*lines, "return " + rng.choice(ENDS).format(a=names[-1])])


def _filled(rng: random.Random, form: str, names: Sequence[str], name: str) -> str:
    def listed(numbers: Sequence[Any]) -> str:
        return ", ".join(map(str, numbers))

    return form.format(
        a=rng.choice(names[-3:]),
        b=rng.choice(names),
        n=SIZE,
        any=listed([rng.randrange(SIZE) for _ in range(SIZE)]),
        each=listed(rng.sample(range(SIZE), SIZE)),
        zeros=listed([rng.choice([0.0, 1.0, 2.0]) for _ in range(SIZE)]),
        y=name,
    )


def in_python(text: str) -> Callable[[Tensor], Tensor]:
    """The program as Python reads it, with PyTorch alone."""
    known: dict[str, Any] = {"torch": torch, "nn": torch.nn, "fft": torch.fft, "special": torch.special}
    known |= {name: getattr(torch, name) for name in _NAMES.split()}
    exec("def program(x):\n" + textwrap.indent(text, "    "), known)  # noqa: S102  # our own texts
    function: Callable[[Tensor], Tensor] = known["program"]
    return function
