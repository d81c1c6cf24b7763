"""Derivatives that clients might send to `check`, right ones in many notations and planted mistakes: random programs, mpmath, kinks."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import mpmath
import torch
from torch import Tensor

from app.errors import PullbackError
from tests.oracle.test_random_derivations import KINDS, MISTAKES, derivation, derivative, planted, point, rounded, text_of

MP: Final = mpmath.MPContext()
MP.dps = 60
PROGRAMS, POINTWISE, MATRICES, KINKS = 1000, 600, 200, 600  # seeds of each; chosen
_FIRST: Final = 50_000  # seed, far from those of the tests
# Points of another size than the normal one, and with ties.
_STYLES: Final[dict[str, Callable[[Tensor, random.Random], Tensor]]] = {
    "normal": lambda x, _: x,
    "large": lambda x, rng: x * 10.0 ** rng.choice((1, 2, 3, 5)),
    "tiny": lambda x, rng: x * 10.0 ** -rng.choice((2, 5, 10)),
    "of many sizes": lambda x, rng: (
        x * 10.0 ** torch.tensor([rng.uniform(-6, 3) for _ in x.reshape(-1)]).double().reshape(x.shape)
    ),
    "with ties": lambda x, _: (x * 2).round() / 2,
}
# Program of x → the same in mpmath, and where x is drawn.
_FUNCTIONS: Final[dict[str, tuple[Callable[[Any], Any], str]]] = {
    "sin(x)": (MP.sin, "any"), "cos(x)": (MP.cos, "any"), "exp(x)": (MP.exp, "exponent"), "log(x)": (MP.log, "positive"),
    "tanh(x)": (MP.tanh, "exponent"), "sigmoid(x)": (lambda x: 1 / (1 + MP.exp(-x)), "exponent"), "sqrt(x)": (MP.sqrt, "positive"),
    "F.softplus(x)": (lambda x: MP.log(1 + MP.exp(x)), "exponent"), "erf(x)": (MP.erf, "middle"), "erfc(x)": (MP.erfc, "middle"),
    "lgamma(x)": (MP.loggamma, "positive"), "expm1(x)": (MP.expm1, "exponent"), "asin(x)": (MP.asin, "unit"), "atan(x)": (MP.atan, "any"),
    "atanh(x)": (MP.atanh, "unit"), "1 / x": (lambda x: 1 / x, "any"), "x ** 3": (lambda x: x**3, "any"), "asinh(x)": (MP.asinh, "any"),
    "sin(x) / x": (lambda x: MP.sin(x) / x, "any"), "sqrt(1 + x**2) - 1": (lambda x: MP.sqrt(1 + x * x) - 1, "middle"),
    "1 - cos(x)": (lambda x: 1 - MP.cos(x), "middle"), "x - sin(x)": (lambda x: x - MP.sin(x), "middle"),
    "log(sigmoid(x))": (lambda x: -MP.log(1 + MP.exp(-x)), "middle"), "F.gelu(x)": (lambda x: x * (1 + MP.erf(x / MP.sqrt(2))) / 2, "middle"),
    "x ** 2.5": (lambda x: x ** MP.mpf(2.5), "positive"), "sin(1e6 * x)": (lambda x: MP.sin(10**6 * x), "middle"),
}  # fmt: skip
_EXPONENTS: Final = {
    "any": ((-1, 1), (-1, 1), (2, 6), (6, 12), (-12, -3)), "exponent": ((-1, 0.5), (0.5, 1.5), (-12, -2)),
    "positive": ((-1, 1), (2, 8), (-12, -3)), "middle": ((-1, 0.3), (0.3, 0.7), (-6, -1)), "unit": ((-1, -0.01), (-9, -2)),
}  # fmt: skip


@dataclass(frozen=True)
class Believed:
    """One question to `check`; `title` is its own and stays the same from run to run. `mistake` is None where it is right."""

    title: str
    text: str
    inputs: Mapping[str, Tensor]
    name: str
    derivative: Tensor
    mistake: str | None


def every(step: int = 1) -> Iterator[Believed]:
    """All of them, or those of every `step`th seed, in the order of the seeds."""
    sources = ((_of_program, PROGRAMS), (_of_function, POINTWISE), (_of_matrix, MATRICES), (_of_kink, KINKS))
    for source, count in sources:
        for seed in range(0, count, step):
            yield from source(seed, random.Random(_FIRST + seed))


def _of_program(seed: int, rng: random.Random) -> Iterator[Believed]:
    text, name, style = text_of(_FIRST + seed), rng.choice("vwm"), rng.choice([*_STYLES])
    leaves = {n: _STYLES[style](leaf, rng) for n, leaf in point(_FIRST + seed).items()}
    kind = rng.choice([k for k in KINDS if style == "normal" or k != "central differences"])
    try:
        sent, right = derivation(kind, text, leaves, name), derivative(text, leaves, name)
    except PullbackError:  # PyTorch refuses it: kron of some views
        return
    if bool(torch.isfinite(sent).all() & torch.isfinite(right).all()):
        yield Believed(f"program {seed} {style} {kind}", text, leaves, name, sent, None)
    if style != "with ties" and bool(torch.isfinite(right).all()):
        yield from _planted(f"program {seed} {style}", text, leaves, name, right, rng)


def _planted(
    title: str, text: str, inputs: Mapping[str, Tensor], name: str, right: Tensor, rng: random.Random
) -> Iterator[Believed]:
    mistake = rng.choice(MISTAKES)
    wrong = planted(mistake, right, rng)
    if wrong is not None:
        yield Believed(f"{title}, mistaken: {mistake}", text, inputs, name, wrong, mistake)


def _of_function(seed: int, rng: random.Random) -> Iterator[Believed]:
    text = sorted(_FUNCTIONS)[seed % len(_FUNCTIONS)]
    function, domain = _FUNCTIONS[text]
    points = []
    for _ in range(rng.choice((1, 2, 4))):
        sign = 1.0 if domain == "positive" else rng.choice((-1.0, 1.0))
        points.append(sign * 10.0 ** rng.uniform(*rng.choice(_EXPONENTS[domain])))
    exact = []
    for value in points:
        with MP.workdps(120):
            x, step = MP.mpf(value), MP.mpf(10) ** -40 * abs(value)
            exact.append(float((function(x + step) - function(x - step)) / (2 * step)))
    right, inputs = torch.tensor(exact, dtype=torch.float64), {"x": torch.tensor(points, dtype=torch.float64)}
    if bool(torch.isfinite(right).all()):
        digits = rng.choice((6, 8, 12, 17))
        yield Believed(f"function {seed} {digits} digits", f"({text}).sum()", inputs, "x", rounded(right, digits), None)
        yield from _planted(f"function {seed}", f"({text}).sum()", inputs, "x", right, rng)


def _of_matrix(seed: int, rng: random.Random) -> Iterator[Believed]:
    """Hilbert's matrix and a little of the unit matrix, whose condition is some 1e3 to 1e8."""
    n, shift = rng.choice((3, 4, 5, 6, 8)), 10.0 ** -rng.choice((3, 5, 8))
    h = torch.tensor([[1 / (i + j + 1) for j in range(n)] for i in range(n)], dtype=torch.float64)
    h = h + shift * torch.eye(n, dtype=torch.float64)
    inverse = MP.matrix(h.tolist()) ** -1
    text, exact = rng.choice(
        [
            ("logdet(h)", inverse.T),
            ("det(h)", inverse.T * MP.det(MP.matrix(h.tolist()))),
            ("inverse(h).sum()", -(inverse.T * MP.ones(n) * inverse.T)),
        ]
    )
    right = torch.tensor([[float(exact[i, j]) for j in range(n)] for i in range(n)], dtype=torch.float64)
    digits = rng.choice((6, 8, 12, 17))
    yield Believed(f"matrix {seed} {digits} digits", text, {"h": h}, "h", rounded(right, digits), None)
    yield from _planted(f"matrix {seed}", text, {"h": h}, "h", right, rng)


def _of_kink(seed: int, rng: random.Random) -> Iterator[Believed]:
    """Any subgradient is right, and what lies beyond all of them is wrong."""
    generator = torch.Generator().manual_seed(seed)
    n = rng.choice((2, 3, 5, 8, 20))
    x, c, share = (torch.randn(n, generator=generator, dtype=torch.float64) for _ in range(3))
    at, share = torch.rand(n, generator=generator) < 0.5, torch.sigmoid(share)
    at[0] = True
    x = torch.where(at, 0.0, x * 10.0 ** rng.choice((0, 0, 3, -4)))
    mixture = share * at / (share * at).sum()
    positive = (x > 0).double()
    tied = torch.where(at, x.max() + 1, x)
    cases: list[tuple[str, Tensor, Tensor, Tensor]] = [
        ("(c * abs(x)).sum()", x, c * torch.where(at, 2 * share - 1, x.sign()), c * torch.where(at, 1.3, x.sign())),
        ("(c * relu(x)).sum()", x, c * torch.where(at, share, positive), c * torch.where(at, -0.4, positive)),
        (
            "F.leaky_relu(x, 0.2).sum()",
            x,
            torch.where(at, 0.2 + 0.8 * share, 0.2 + 0.8 * positive),
            torch.where(at, 0.05, positive),
        ),
        ("x.max()", tied, mixture, 1.5 * mixture),
        ("-((-x).min())", tied, mixture, mixture * 0),
        ("torch.median(x)", torch.ones_like(x), share / share.sum(), share / share.sum() + 0.1),
        ("x.norm()", torch.zeros_like(x), c / c.norm() * share[0], c / c.norm() * 1.5),
        ("log(1 + abs(x).sum())", x, torch.where(at, 2 * share - 1, x.sign()) / (1 + x.abs().sum()), torch.ones_like(x) * 3),
    ]
    text, where, right, wrong = rng.choice(cases)
    inputs = {"x": where, "c": c} if "c *" in text else {"x": where}
    digits = rng.choice((6, 8, 12, 17))
    yield Believed(f"kink {seed} {digits} digits", text, inputs, "x", rounded(right, digits), None)
    yield Believed(f"kink {seed}, mistaken: beyond", text, inputs, "x", wrong, "beyond")
