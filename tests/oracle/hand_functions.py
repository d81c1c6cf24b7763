"""Derivations by hand of functions of one vector: activations, reductions, orders, sums along an axis, test functions, finance, series."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

from tests.engine.building import normal
from tests.oracle.hand_derivation import Derivation
from tests.oracle.written_out import below, density, sig

V, U, D = normal(5, seed=5), normal(5, seed=7), normal(5, seed=8)
POS: Final = V.abs() + 0.3
UNIT: Final = torch.tanh(V) * 0.8
M, N = normal(4, 3, seed=9), normal(4, 3, seed=10)
P: Final = normal(2, seed=11)
_R: Final = math.sqrt(2 / math.pi)


def back(v: Tensor) -> Tensor:
    """Sums from each element to the last."""
    return v.flip(0).cumsum(0).flip(0)


def hot(v: Tensor, k: int) -> Tensor:
    row = torch.zeros_like(v)
    row.reshape(-1)[k] = 1
    return row


def _gelu_tanh(v: Tensor) -> Tensor:
    t = torch.tanh(_R * (v + 0.044715 * v**3))
    return 0.5 * (1 + t) + 0.5 * v * (1 - t * t) * _R * (1 + 3 * 0.044715 * v * v)


def _gelu_tanh_wrong(v: Tensor) -> Tensor:
    t = torch.tanh(_R * (v + 0.044715 * v**3))
    return 0.5 * (1 + t) + 0.5 * v * (1 - t * t) * _R


def _std(v: Tensor) -> Tensor:
    return ((v - v.mean()) ** 2).sum().div(len(v) - 1).sqrt()


def _poly(v: Tensor) -> Tensor:
    return 2 - 6 * v + 12 * v**2


def _rosen(v: Tensor) -> Tensor:
    g = torch.zeros_like(v)
    g[:-1] += -400 * v[:-1] * (v[1:] - v[:-1] ** 2) - 2 * (1 - v[:-1])
    g[1:] += 200 * (v[1:] - v[:-1] ** 2)
    return g


def _ackley(v: Tensor) -> Tensor:
    n, r = len(v), (v * v).mean().sqrt()
    c = torch.cos(2 * math.pi * v).mean()
    return 4 * (-0.2 * r).exp() * v / (n * r) + c.exp() * 2 * math.pi * torch.sin(2 * math.pi * v) / n


def _griewank(v: Tensor) -> Tensor:
    i = torch.arange(1, len(v) + 1, dtype=v.dtype).sqrt()
    c = torch.cos(v / i)
    return v / 2000 + c.prod() * torch.tan(v / i) / i


def _himmelblau(p: Tensor) -> Tensor:
    x, y = p
    a, b = x * x + y - 11, x + y * y - 7
    return torch.stack([4 * x * a + 2 * b, 2 * a + 4 * y * b])


def _beale(p: Tensor) -> Tensor:
    x, y = p
    a, b, c = 1.5 - x + x * y, 2.25 - x + x * y**2, 2.625 - x + x * y**3
    return 2 * torch.stack([a * (y - 1) + b * (y * y - 1) + c * (y**3 - 1), a * x + b * 2 * x * y + c * 3 * x * y * y])


def _ewma(v: Tensor, wrong: bool = False) -> Tensor:
    """∂ of the last of s ← 0.7 s + 0.3 x."""
    n = len(v)
    powers = 0.7 ** torch.arange(n - 1, -1, -1, dtype=v.dtype)
    return powers if wrong else 0.3 * powers


def _black_scholes(s: Tensor) -> tuple[Tensor, Tensor]:
    d1 = (torch.log(s / 100) + (0.02 + 0.5 * 0.04) * 1.5) / (0.2 * math.sqrt(1.5))
    return d1, d1 - 0.2 * math.sqrt(1.5)


def _logistic_map(v: Tensor) -> Tensor:
    x, d = v, torch.ones_like(v)
    for _ in range(3):
        d = d * 3.2 * (1 - 2 * x)
        x = 3.2 * x * (1 - x)
    return d


def _newton(v: Tensor) -> Tensor:
    """Three Newton steps towards √a, from 1."""
    y, d = torch.ones_like(v), torch.zeros_like(v)
    for _ in range(3):
        d = 0.5 * (d + 1 / y - v * d / y**2)
        y = 0.5 * (y + v / y)
    return d


S: Final = torch.tensor([92.0, 100.0, 121.0], dtype=torch.float64)
HALF: Final = torch.sigmoid(V)
FUNCTIONS: Final[dict[str, Derivation]] = {
    "gelu erf": Derivation("(F.gelu(v) * u).sum()", {"v": V, "u": U}, "v", lambda v, u: u * (below(v) + v * density(v)), {
        "no x phi": (lambda v, u: u * below(v), "wrong_rule"),
        "no cdf": (lambda v, u: u * v * density(v), "? wrong_rule"),
        "forward": (lambda v, u: u * v * below(v), "? wrong_rule"),
        "tanh one": (lambda v, u: u * _gelu_tanh(v) * 1.0, "? wrong_rule"),
        "no u": (lambda v, u: below(v) + v * density(v), "missing_term missing_factor wrong_rule ?"),
    }),
    "gelu tanh": Derivation("F.gelu(v, approximate='tanh').sum()", {"v": V}, "v", _gelu_tanh, {
        "cube": (_gelu_tanh_wrong, "? wrong_rule"),
        "erf": (lambda v: below(v) + v * density(v), "? wrong_rule"),
        "gate": (lambda v: 0.5 * (1 + torch.tanh(_R * (v + 0.044715 * v**3))), "? wrong_rule"),
    }),
    "gelu written out": Derivation(
        "(0.5 * v * (1 + tanh(0.7978845608028654 * (v + 0.044715 * v ** 3)))).sum()", {"v": V}, "v", _gelu_tanh, {
        "cube": (_gelu_tanh_wrong, "missing_term"),
        "one half": (lambda v: 2 * _gelu_tanh(v), "constant_factor"),
        "gate": (lambda v: 0.5 * (1 + torch.tanh(_R * (v + 0.044715 * v**3))), "missing_term"),
    }),
    "silu": Derivation("(v * sigmoid(v)).sum()", {"v": V}, "v", lambda v: sig(v) * (1 + v * (1 - sig(v))), {
        "gate": (sig, "missing_term"),
        "slope": (lambda v: v * sig(v) * (1 - sig(v)), "missing_term"),
        "sign": (lambda v: sig(v) * (1 - v * (1 - sig(v))), "sign_of_term"),
        "s'=s": (lambda v: sig(v) + v * sig(v), "wrong_rule"),
    }),
    "softplus": Derivation("(F.softplus(v) * u).sum()", {"v": V, "u": U}, "v", lambda v, u: u * sig(v), {
        "1-s": (lambda v, u: u * (1 - sig(v)), "wrong_rule"),
        "s(1-s)": (lambda v, u: u * sig(v) * (1 - sig(v)), "? wrong_rule"),
        "forward": (lambda v, u: u * torch.log1p(v.exp()), "? wrong_rule"),
        "exp": (lambda v, u: u * v.exp(), "? wrong_rule"),
    }),
    "softplus beta": Derivation("F.softplus(v, beta=2.0).sum()", {"v": V}, "v", lambda v: sig(2 * v), {
        "no beta": (sig, "? wrong_rule wrong_parameter"),
        "beta": (lambda v: 2 * sig(2 * v), "constant_factor"),
        "half": (lambda v: 0.5 * sig(2 * v), "constant_factor"),
    }),
    "elu": Derivation("(F.elu(v, 0.7) * u).sum()", {"v": V, "u": U}, "v", lambda v, u: u * torch.where(v > 0, 1.0, 0.7 * v.exp()), {
        "no alpha": (lambda v, u: u * torch.where(v > 0, 1.0, v.exp()), "? wrong_parameter wrong_rule"),
        "forward": (lambda v, u: u * torch.where(v > 0, 1.0, 0.7 * (v.exp() - 1)), "? wrong_rule"),
        "relu": (lambda v, u: u * (v > 0), "wrong_rule"),
        "sign": (lambda v, u: u * torch.where(v > 0, 1.0, -0.7 * v.exp()), "?"),
    }),
    "selu": Derivation("F.selu(v).sum()", {"v": V}, "v", lambda v: 1.0507009873554805 * torch.where(v > 0, 1.0, 1.6732632423543772 * v.exp()), {
        "no scale": (lambda v: torch.where(v > 0, 1.0, 1.6732632423543772 * v.exp()), "constant_factor"),
        "relu": (lambda v: (v > 0).to(v.dtype), "wrong_rule"),
    }),
    "mish": Derivation(
        "(v * tanh(F.softplus(v))).sum()", {"v": V}, "v",
        lambda v: torch.tanh(torch.log1p(v.exp())) + v * (1 - torch.tanh(torch.log1p(v.exp())) ** 2) * sig(v), {
        "no sigmoid": (lambda v: torch.tanh(torch.log1p(v.exp())) + v * (1 - torch.tanh(torch.log1p(v.exp())) ** 2),
            "missing_activation_derivative wrong_rule"),
        "gate": (lambda v: torch.tanh(torch.log1p(v.exp())), "missing_term"),
        "1-t": (lambda v: torch.tanh(torch.log1p(v.exp())) + v * (1 - torch.tanh(torch.log1p(v.exp()))) * sig(v), "wrong_rule"),
    }),
    "softsign": Derivation("(v / (1 + v.abs())).sum()", {"v": V}, "v", lambda v: 1 / (1 + v.abs()) ** 2, {
        "unsquared": (lambda v: 1 / (1 + v.abs()), "missing_term"),
        "sign": (lambda v: 1 / (1 + v.abs()) + v.abs() / (1 + v.abs()) ** 2, "sign_of_term"),
    }),
    "hardswish": Derivation("F.hardswish(v).sum()", {"v": V}, "v", lambda v: torch.where(v < -3, 0.0, torch.where(v > 3, 1.0, (2 * v + 3) / 6)), {
        "one v": (lambda v: (v + 3) / 6, "? wrong_rule"),
        "sign": (lambda v: -(2 * v + 3) / 6, "sign"),
    }),
    "log sigmoid": Derivation("(F.logsigmoid(v) * u).sum()", {"v": V, "u": U}, "v", lambda v, u: u * (1 - sig(v)), {
        "s": (lambda v, u: u * sig(v), "wrong_rule"),
        "sign": (lambda v, u: -u * (1 - sig(v)), "sign"),
        "s(1-s)": (lambda v, u: u * sig(v) * (1 - sig(v)), "? wrong_rule"),
    }),
    "log of sigmoid": Derivation("log(sigmoid(v)).sum()", {"v": V}, "v", lambda v: 1 - sig(v), {
        "log forgotten": (lambda v: sig(v) * (1 - sig(v)), "missing_activation_derivative"),
        "sigmoid forgotten": (lambda v: 1 / sig(v), "missing_activation_derivative"),
        "s": (lambda v: sig(v), "wrong_rule ?"),
    }),
    "tanhshrink": Derivation("(v - tanh(v)).sum()", {"v": V}, "v", lambda v: torch.tanh(v) ** 2, {
        "sign": (lambda v: 2 - torch.tanh(v) ** 2, "sign_of_term"),
        "1": (lambda v: torch.ones_like(v), "missing_term"),
    }),
    "sinc": Derivation("(sin(v) / v).sum()", {"v": V}, "v", lambda v: (v * v.cos() - v.sin()) / v**2, {
        "cos over one": (lambda v: v.cos(), "?"),
        "first": (lambda v: v.cos() / v, "missing_term"),
        "sign": (lambda v: (v * v.cos() + v.sin()) / v**2, "sign_of_term"),
        "unsquared": (lambda v: v.cos() / v - v.sin() / v, "quotient_rule"),
    }),
    "chain": Derivation("sin(v ** 2).sum()", {"v": V}, "v", lambda v: 2 * v * torch.cos(v * v), {
        "inner": (lambda v: torch.cos(v * v), "missing_activation_derivative"),
        "sign": (lambda v: -2 * v * torch.cos(v * v), "sign"),
        "no 2": (lambda v: v * torch.cos(v * v), "constant_factor"),
        "cos of inner slope": (lambda v: torch.cos(2 * v), "?"),
        "sin": (lambda v: 2 * v * torch.sin(v * v), "wrong_rule"),
    }),
    "exp of minus square": Derivation("exp(-v ** 2 / 2).sum()", {"v": V}, "v", lambda v: -v * torch.exp(-v * v / 2), {
        "sign": (lambda v: v * torch.exp(-v * v / 2), "sign"),
        "2": (lambda v: -2 * v * torch.exp(-v * v / 2), "constant_factor"),
        "inner": (lambda v: torch.exp(-v * v / 2), "? missing_activation_derivative"),
    }),
    "atan2": Derivation("atan2(v, u).sum()", {"v": V, "u": U}, "v", lambda v, u: u / (u * u + v * v), {
        "by u": (lambda v, u: -v / (u * u + v * v), "wrong_variable swapped"),
        "sign": (lambda v, u: -u / (u * u + v * v), "sign swapped"),
        "root": (lambda v, u: u / (u * u + v * v).sqrt(), "?"),
    }),
    "hypot": Derivation("hypot(v, u).sum()", {"v": V, "u": U}, "v", lambda v, u: v / (u * u + v * v).sqrt(), {
        "by u": (lambda v, u: u / (u * u + v * v).sqrt(), "wrong_variable"),
        "2": (lambda v, u: 2 * v / (u * u + v * v).sqrt(), "constant_factor"),
        "undivided": (lambda v, u: v + 0 * u, "? wrong_rule"),
    }),
    "power, base": Derivation("(p ** u).sum()", {"p": POS, "u": U}, "p", lambda p, u: u * p ** (u - 1), {
        "not lowered": (lambda p, u: u * p**u, "wrong_rule"),
        "by exponent": (lambda p, u: p**u * p.log(), "wrong_variable"),
        "exponent": (lambda p, u: p ** (u - 1), "? missing_factor"),
        "both": (lambda p, u: u * p ** (u - 1) + p**u * p.log(), "?"),
    }),
    "power, exponent": Derivation("(p ** u).sum()", {"p": POS, "u": U}, "u", lambda p, u: p**u * p.log(), {
        "by base": (lambda p, u: u * p ** (u - 1), "wrong_variable"),
        "no log": (lambda p, u: p**u, "? missing_factor wrong_rule"),
        "base 2": (lambda p, u: p**u * p.log2(), "constant_factor"),
    }),
    "x to the x": Derivation("(p ** p).sum()", {"p": POS}, "p", lambda p: p**p * (p.log() + 1), {
        "power rule": (lambda p: p * p ** (p - 1), "missing_term"),
        "exponential rule": (lambda p: p**p * p.log(), "missing_term"),
        "sign": (lambda p: p**p * (p.log() - 1), "sign_of_term"),
    }),
    "x log x": Derivation("(p * log(p)).sum()", {"p": POS}, "p", lambda p: p.log() + 1, {
        "no 1": (lambda p: p.log(), "missing_term"),
        "no log": (lambda p: torch.ones_like(p), "missing_term"),
        "minus": (lambda p: p.log() - 1, "sign_of_term"),
    }),
    "xlogy": Derivation("xlogy(u, p).sum()", {"p": POS, "u": U}, "p", lambda p, u: u / p, {
        "by u": (lambda p, u: p.log(), "wrong_variable"),
        "forgotten": (lambda p, u: 1 / p, "? missing_factor"),
        "sign": (lambda p, u: -u / p, "sign"),
    }),
    "lgamma": Derivation("(lgamma(p) * u).sum()", {"p": POS, "u": U}, "p", lambda p, u: u * torch.digamma(p.double()).to(p.dtype), {
        "log": (lambda p, u: u * p.log(), "? wrong_rule"),
        "sign": (lambda p, u: -u * torch.digamma(p.double()).to(p.dtype), "sign"),
        "trigamma": (lambda p, u: u * torch.polygamma(1, p.double()).to(p.dtype), "? wrong_rule"),
    }),
    "erf": Derivation("(erf(v / 2) * u).sum()", {"v": V, "u": U}, "v", lambda v, u: u * (-v * v / 4).exp() / math.sqrt(math.pi), {
        "no half": (lambda v, u: 2 * u * (-v * v / 4).exp() / math.sqrt(math.pi), "constant_factor"),
        "inner": (lambda v, u: u * (-v * v).exp() / math.sqrt(math.pi), "?"),
        "constant": (lambda v, u: 0.5 * u * (-v * v / 4).exp(), "wrong_rule"),
    }),
    "logit": Derivation("logit(h).sum()", {"h": HALF}, "h", lambda h: 1 / (h * (1 - h)), {
        "inverse": (lambda h: h * (1 - h), "? wrong_rule"),
        "one term": (lambda h: 1 / h, "? wrong_rule"),
        "sign": (lambda h: -1 / (h * (1 - h)), "sign"),
    }),
    "acos": Derivation("(acos(h) * u).sum()", {"h": UNIT, "u": U}, "h", lambda h, u: -u / (1 - h * h).sqrt(), {
        "sign": (lambda h, u: u / (1 - h * h).sqrt(), "sign"),
        "root": (lambda h, u: -u / (1 - h * h), "? wrong_rule"),
        "plus": (lambda h, u: -u / (1 + h * h).sqrt(), "? wrong_rule"),
    }),
    "atanh": Derivation("atanh(h).sum()", {"h": UNIT}, "h", lambda h: 1 / (1 - h * h), {
        "plus": (lambda h: 1 / (1 + h * h), "? wrong_rule"),
        "inverse": (lambda h: 1 - h * h, "? wrong_rule"),
        "root": (lambda h: 1 / (1 - h * h).sqrt(), "? wrong_rule"),
    }),
    "tan": Derivation("(tan(h) * u).sum()", {"h": UNIT, "u": U}, "h", lambda h, u: u / h.cos() ** 2, {
        "1+tan": (lambda h, u: u * (1 + h.tan()), "? wrong_rule"),
        "square": (lambda h, u: u / h.cos(), "wrong_rule"),
        "minus": (lambda h, u: u * (1 - h.tan() ** 2), "wrong_rule"),
    }),
    "cosh": Derivation("(cosh(v) * u).sum()", {"v": V, "u": U}, "v", lambda v, u: u * v.sinh(), {
        "minus": (lambda v, u: -u * v.sinh(), "sign"),
        "cosh": (lambda v, u: u * v.cosh(), "wrong_rule"),
        "sin": (lambda v, u: u * v.sin(), "? wrong_rule"),
    }),
    "rsqrt": Derivation("(rsqrt(p) * u).sum()", {"p": POS, "u": U}, "p", lambda p, u: -0.5 * u * p**-1.5, {
        "sign": (lambda p, u: 0.5 * u * p**-1.5, "sign"),
        "half": (lambda p, u: -u * p**-1.5, "constant_factor"),
        "exponent": (lambda p, u: -0.5 * u * p**-0.5, "wrong_rule"),
    }),
    "reciprocal": Derivation("(u / v).sum()", {"v": V, "u": U}, "v", lambda v, u: -u / v**2, {
        "sign": (lambda v, u: u / v**2, "sign"),
        "unsquared": (lambda v, u: -u / v, "quotient_rule"),
        "by u": (lambda v, u: 1 / v, "wrong_variable"),
    }),
    "logaddexp": Derivation("logaddexp(v, u).sum()", {"v": V, "u": U}, "v", lambda v, u: sig(v - u), {
        "other": (lambda v, u: sig(u - v), "wrong_variable"),
        "slope": (lambda v, u: sig(v - u) * (1 - sig(v - u)), "?"),
        "undivided": (lambda v, u: v.exp(), "?"),
    }),
    "lerp": Derivation("lerp(v, u, 0.3).square().sum()", {"v": V, "u": U}, "v", lambda v, u: 2 * 0.7 * (v + 0.3 * (u - v)), {
        "weight": (lambda v, u: 2 * 0.3 * (v + 0.3 * (u - v)), "wrong_variable constant_factor"),
        "none": (lambda v, u: 2 * (v + 0.3 * (u - v)), "constant_factor missing_term"),
        "no 2": (lambda v, u: 0.7 * (v + 0.3 * (u - v)), "constant_factor"),
    }),
    "clamp": Derivation("(v.clamp(-0.5, 0.9) ** 2 * u).sum()", {"v": V, "u": U}, "v", lambda v, u: 2 * u * v * ((v > -0.5) & (v < 0.9)), {
        "no mask": (lambda v, u: 2 * u * v.clamp(-0.5, 0.9), "missing_activation_derivative"),
        "no 2": (lambda v, u: u * v * ((v > -0.5) & (v < 0.9)), "constant_factor"),
    }),
    "where": Derivation("where(v > 0, v ** 2, 3 * v).sum()", {"v": V}, "v", lambda v: torch.where(v > 0, 2 * v, 3.0), {
        "other way": (lambda v: torch.where(v <= 0, 2 * v, 3.0), "? swapped"),
        "one branch": (lambda v: torch.where(v > 0, 2 * v, 0.0), "missing_term"),
        "no 2": (lambda v: torch.where(v > 0, v, 3.0), "factor_of_term"),
        "both": (lambda v: 2 * v + 3, "?"),
    }),
    "maximum": Derivation("(maximum(v, u) ** 2).sum()", {"v": V, "u": U}, "v", lambda v, u: 2 * v * (v > u), {
        "other": (lambda v, u: 2 * v * (v < u), "? swapped"),
        "no mask": (lambda v, u: 2 * torch.maximum(v, u), "missing_activation_derivative ?"),
        "by u": (lambda v, u: 2 * u * (u > v), "wrong_variable"),
    }),
    "fmod": Derivation("(fmod(v, 0.4) * u).sum()", {"v": V, "u": U}, "v", lambda v, u: u * 1.0, {
        "zero": (lambda v, u: u * 0, "? missing_term"),
        "0.4": (lambda v, u: u * 0.4, "constant_factor"),
        "forward": (lambda v, u: torch.fmod(v, 0.4), "? wrong_variable"),
    }),
    "softmax dot": Derivation("(softmax(v, 0) * u).sum()", {"v": V, "u": U}, "v",
        lambda v, u: torch.softmax(v, 0) * (u - (torch.softmax(v, 0) * u).sum()), {
        "diagonal": (lambda v, u: torch.softmax(v, 0) * (1 - torch.softmax(v, 0)) * u, "softmax_diagonal"),
        "sign": (lambda v, u: torch.softmax(v, 0) * (u + (torch.softmax(v, 0) * u).sum()), "? sign_of_term"),
        "unnormalised": (lambda v, u: torch.softmax(v, 0) * u, "? wrong_rule"),
        "mean for dot": (lambda v, u: torch.softmax(v, 0) * (u - u.mean()), "?"),
    }),
    "log softmax of one": Derivation("log_softmax(v, 0)[2]", {"v": V}, "v", lambda v: hot(v, 2) - torch.softmax(v, 0), {
        "sign": (lambda v: torch.softmax(v, 0) - hot(v, 2), "sign"),
        "no one": (lambda v: -torch.softmax(v, 0), "probability_alone"),
        "off by one": (lambda v: hot(v, 3) - torch.softmax(v, 0), "off_by_one"),
        "softmax": (lambda v: torch.softmax(v, 0)[2] * (hot(v, 2) - torch.softmax(v, 0)), "constant_factor"),
    }),
    "logsumexp with weights": Derivation("(logsumexp(m, 1) * u[:4]).sum()", {"m": M, "u": U}, "m",
        lambda m, u: torch.softmax(m, 1) * u[:4, None], {
        "axis": (lambda m, u: torch.softmax(m, 0) * u[:4, None], "wrong_axis"),
        "no u": (lambda m, u: torch.softmax(m, 1), "? missing_factor"),
        "sign": (lambda m, u: -torch.softmax(m, 1) * u[:4, None], "sign"),
        "exp": (lambda m, u: m.exp() * u[:4, None], "missing_activation_derivative ?"),
    }),
    "log of sum of exponentials": Derivation("log(exp(v).sum())", {"v": V}, "v", lambda v: torch.softmax(v, 0), {
        "log forgotten": (lambda v: v.exp(), "missing_activation_derivative constant_factor"),
        "mean": (lambda v: torch.softmax(v, 0) / 5, "constant_factor"),
        "ones": (lambda v: torch.ones_like(v), "extra_sum"),
    }),
    "cumsum": Derivation("(v.cumsum(0) * u).sum()", {"v": V, "u": U}, "v", lambda v, u: back(u), {
        "forward": (lambda v, u: u.cumsum(0), "not_reversed"),
        "off": (lambda v, u: back(u) - u, "off_by_one"),
        "reversed alone": (lambda v, u: u.flip(0), "?"),
        "u alone": (lambda v, u: u * 1.0, "? wrong_rule missing_activation_derivative"),
    }),
    "cumulative sum along rows": Derivation("(m.cumsum(1) * n).sum()", {"m": M, "n": N}, "m", lambda m, n: n.flip(1).cumsum(1).flip(1), {
        "forward": (lambda m, n: n.cumsum(1), "not_reversed"),
        "axis": (lambda m, n: n.flip(0).cumsum(0).flip(0), "wrong_axis"),
    }),
    "cumprod": Derivation("(p.cumprod(0) * u).sum()", {"p": POS, "u": U}, "p", lambda p, u: back(u * p.cumprod(0)) / p, {
        "undivided": (lambda p, u: back(u * p.cumprod(0)), "wrong_rule ?"),
        "one term": (lambda p, u: u * p.cumprod(0) / p, "?"),
        "forward": (lambda p, u: (u * p.cumprod(0)).cumsum(0) / p, "? not_reversed"),
    }),
    "product": Derivation("prod(v) ** 2", {"v": V}, "v", lambda v: 2 * v.prod() ** 2 / v, {
        "undivided": (lambda v: 2 * v.prod() * torch.ones_like(v), "? missing_activation_derivative"),
        "no 2": (lambda v: v.prod() ** 2 / v, "constant_factor"),
        "outer": (lambda v: v.prod() / v, "constant_factor missing_activation_derivative"),
    }),
    "variance": Derivation("v.var(unbiased=False)", {"v": V}, "v", lambda v: 2 * (v - v.mean()) / 5, {
        "n-1": (lambda v: 2 * (v - v.mean()) / 4, "constant_factor"),
        "no mean": (lambda v: 2 * v / 5, "? statistics_constant"),
        "no 2": (lambda v: (v - v.mean()) / 5, "constant_factor"),
        "sum": (lambda v: 2 * (v - v.mean()), "constant_factor"),
    }),
    "standard deviation": Derivation("v.std()", {"v": V}, "v", lambda v: (v - v.mean()) / (4 * _std(v)), {
        "n": (lambda v: (v - v.mean()) / (5 * _std(v)), "constant_factor"),
        "of variance": (lambda v: 2 * (v - v.mean()) / 4, "constant_factor"),
        "z-score": (lambda v: (v - v.mean()) / _std(v), "constant_factor"),
    }),
    "third moment": Derivation("((v - v.mean()) ** 3).mean()", {"v": V}, "v",
        lambda v: 3 / 5 * ((v - v.mean()) ** 2 - ((v - v.mean()) ** 2).mean()), {
        "constant mean": (lambda v: 3 / 5 * (v - v.mean()) ** 2, "missing_term statistics_constant"),
        "1/n": (lambda v: 3 * ((v - v.mean()) ** 2 - ((v - v.mean()) ** 2).mean()), "constant_factor"),
        "3": (lambda v: ((v - v.mean()) ** 2 - ((v - v.mean()) ** 2).mean()) / 5, "constant_factor"),
    }),
    "norm of order 3": Derivation("v.norm(p=3)", {"v": V}, "v", lambda v: v * v.abs() / (v.abs() ** 3).sum() ** (2 / 3), {
        "undivided": (lambda v: v * v.abs(), "constant_factor"),
        "sign": (lambda v: v.abs() ** 2 / (v.abs() ** 3).sum() ** (2 / 3), "?"),
        "order 2": (lambda v: v / (v * v).sum().sqrt(), "? wrong_parameter"),
    }),
    "norm of order 1": Derivation("v.norm(p=1)", {"v": V}, "v", lambda v: v.sign(), {
        "abs": (lambda v: torch.ones_like(v), "?"),
        "order 2": (lambda v: v / (v * v).sum().sqrt(), "? wrong_parameter"),
        "1/n": (lambda v: v.sign() / 5, "constant_factor"),
    }),
    "norm of infinity": Derivation("v.abs().max()", {"v": V}, "v",
        lambda v: hot(v, int(v.abs().argmax())) * v.sign(), {
        "sign": (lambda v: hot(v, int(v.abs().argmax())) * (-v.sign()), "sign"),
        "all": (lambda v: v.sign(), "missing_activation_derivative ?"),
        "mean": (lambda v: v.sign() / 5, "?"),
    }),
    "norms of rows": Derivation("(m.norm(dim=1) * u[:4]).sum()", {"m": M, "u": U}, "m", lambda m, u: u[:4, None] * m / m.norm(dim=1, keepdim=True),
        {
        "axis": (lambda m, u: u[:4, None] * m / m.norm(dim=0, keepdim=True), "wrong_axis ?"),
        "whole": (lambda m, u: u[:4, None] * m / m.norm(), "?"),
        "squared": (lambda m, u: u[:4, None] * m / m.norm(dim=1, keepdim=True) ** 2, "?"),
        "undivided": (lambda m, u: u[:4, None] * m, "wrong_rule"),
    }),
    "median": Derivation("v.median() ** 2", {"v": V}, "v", lambda v: 2 * v.median() * hot(v, int(v.argsort()[2])), {
        "neighbour": (lambda v: 2 * v.median() * hot(v, int(v.argsort()[3])), "off_by_one ?"),
        "mean": (lambda v: 2 * v.median() * torch.ones_like(v) / 5, "? extra_sum"),
        "no 2": (lambda v: v.median() * hot(v, int(v.argsort()[2])), "constant_factor factor_of_step"),
    }),
    "quantile": Derivation("quantile(v, 0.3)", {"v": V}, "v", lambda v: 0.8 * hot(v, int(v.argsort()[1])) + 0.2 * hot(v, int(v.argsort()[2])), {
        "swapped": (lambda v: 0.2 * hot(v, int(v.argsort()[1])) + 0.8 * hot(v, int(v.argsort()[2])), "?"),
        "nearest": (lambda v: hot(v, int(v.argsort()[1])) * 1.0, "?"),
        "sorted order": (lambda v: 0.8 * hot(v, 1) + 0.2 * hot(v, 2), "?"),
    }),
    "sort": Derivation("(sort(v).values * u).sum()", {"v": V, "u": U}, "v", lambda v, u: u[v.argsort().argsort()], {
        "unsorted": (lambda v, u: u * 1.0, "? missing_activation_derivative"),
        "inverse": (lambda v, u: u[v.argsort()], "inverse_permutation ?"),
        "descending": (lambda v, u: u.flip(0)[v.argsort().argsort()], "? wrong_parameter"),
    }),
    "largest two": Derivation("topk(v, 2).values.sum() ** 2", {"v": V}, "v",
        lambda v: 2 * v.topk(2).values.sum() * (v >= v.topk(2).values[-1]), {
        "smallest": (lambda v: 2 * v.topk(2).values.sum() * (v <= v.sort().values[1]), "?"),
        "three": (lambda v: 2 * v.topk(2).values.sum() * (v >= v.topk(3).values[-1]), "off_by_one ?"),
        "no 2": (lambda v: v.topk(2).values.sum() * (v >= v.topk(2).values[-1]), "constant_factor"),
    }),
    "row maxima": Derivation("(m.amax(1) ** 2).sum()", {"m": M}, "m", lambda m: 2 * m * (m == m.amax(1, keepdim=True)), {
        "columns": (lambda m: 2 * m * (m == m.amax(0, keepdim=True)), "wrong_axis"),
        "all": (lambda m: 2 * m.amax(1, keepdim=True).expand(4, 3), "? missing_activation_derivative extra_sum"),
        "one": (lambda m: 1.0 * (m == m.amax(1, keepdim=True)), "missing_activation_derivative ?"),
    }),
    "roll": Derivation("(roll(v, 1, 0) * u).sum()", {"v": V, "u": U}, "v", lambda v, u: u.roll(-1, 0), {
        "same way": (lambda v, u: u.roll(1, 0), "off_by_one not_reversed ? wrong_shift"),
        "none": (lambda v, u: u * 1.0, "off_by_one"),
        "twice": (lambda v, u: u.roll(-2, 0), "off_by_one"),
    }),
    "flip": Derivation("(flip(v, [0]) * u).sum()", {"v": V, "u": U}, "v", lambda v, u: u.flip(0), {
        "not": (lambda v, u: u * 1.0, "reversed"),
        "sign": (lambda v, u: -u.flip(0), "sign"),
    }),
    "differences": Derivation("(diff(v) ** 2).sum()", {"v": V}, "v",
        lambda v: torch.cat([-2 * v.diff(), 0 * v[:1]]) + torch.cat([0 * v[:1], 2 * v.diff()]), {
        "sign": (lambda v: torch.cat([2 * v.diff(), 0 * v[:1]]) - torch.cat([0 * v[:1], 2 * v.diff()]), "sign"),
        "one end": (lambda v: torch.cat([0 * v[:1], 2 * v.diff()]), "missing_term ?"),
        "plus": (lambda v: torch.cat([2 * v.diff(), 0 * v[:1]]) + torch.cat([0 * v[:1], 2 * v.diff()]), "sign_of_term ?"),
        "no 2": (lambda v: torch.cat([-v.diff(), 0 * v[:1]]) + torch.cat([0 * v[:1], v.diff()]), "constant_factor"),
    }),
    "neighbours": Derivation("((v[1:] - v[:-1]) ** 2).sum()", {"v": V}, "v",
        lambda v: torch.cat([-2 * v.diff(), 0 * v[:1]]) + torch.cat([0 * v[:1], 2 * v.diff()]), {
        "one end": (lambda v: torch.cat([0 * v[:1], 2 * v.diff()]), "missing_term"),
        "other end": (lambda v: torch.cat([-2 * v.diff(), 0 * v[:1]]), "missing_term"),
        "plus": (lambda v: torch.cat([2 * v.diff(), 0 * v[:1]]) + torch.cat([0 * v[:1], 2 * v.diff()]), "sign_of_term"),
    }),
    "trapezoids": Derivation("trapezoid(v ** 2, dx=0.1)", {"v": V}, "v",
        lambda v: 0.2 * v * torch.tensor([0.5, 1, 1, 1, 0.5], dtype=v.dtype), {
        "ends": (lambda v: 0.2 * v, "?"),
        "dx": (lambda v: 2 * v * torch.tensor([0.5, 1, 1, 1, 0.5], dtype=v.dtype), "default_argument"),
    }),
    "polynomial": Derivation("(1 + v * (2 + v * (-3 + v * 4))).sum()", {"v": V}, "v", _poly, {
        "last": (lambda v: 2 - 6 * v + 4 * v**2, "sign_of_term"),
        "constant": (lambda v: 1 + 2 - 6 * v + 12 * v**2, "?"),
        "second": (lambda v: 2 - 3 * v + 12 * v**2, "?"),
    }),
    "polynomial, powers": Derivation("(2 * v - 3 * v ** 2 + 4 * v ** 3).sum()", {"v": V}, "v", _poly, {
        "cube": (lambda v: 2 - 6 * v + 4 * v**2, "factor_of_term"),
        "square": (lambda v: 2 - 3 * v + 12 * v**2, "factor_of_term"),
        "sign": (lambda v: 2 + 6 * v + 12 * v**2, "sign_of_term"),
        "linear": (lambda v: -6 * v + 12 * v**2, "missing_term"),
        "not lowered": (lambda v: 2 - 6 * v + 12 * v**3, "wrong_rule"),
    }),
    "coefficients of a polynomial": Derivation("((stack([v ** k for k in range(3)]).T @ d[:3] - u) ** 2).mean()", {"d": D, "v": V, "u": U}, "d",
        lambda d, v, u: torch.cat([2 / 5 * torch.stack([v**k for k in range(3)]) @ (torch.stack([v**k for k in range(3)]).T @ d[:3] - u),
            0 * d[3:]]), {
        "n": (lambda d, v,
            u: torch.cat([2 * torch.stack([v**k for k in range(3)]) @ (torch.stack([v**k for k in range(3)]).T @ d[:3] - u),
                0 * d[3:]]), "constant_factor"),
        "sign": (lambda d, v,
            u: torch.cat([-2 / 5 * torch.stack([v**k for k in range(3)]) @ (torch.stack([v**k for k in range(3)]).T @ d[:3] - u),
                0 * d[3:]]), "sign swapped"),
    }),
    "rosenbrock": Derivation("(100 * (v[1:] - v[:-1] ** 2) ** 2 + (1 - v[:-1]) ** 2).sum()", {"v": V}, "v", _rosen, {
        "one point": (lambda v: _rosen(v) - torch.cat([0 * v[:1], 200 * (v[1:] - v[:-1] ** 2)]), "missing_term"),
        "sign": (lambda v: _rosen(v) + torch.cat([4 * (1 - v[:-1]), 0 * v[:1]]), "sign_of_term"),
        "inner 2": (lambda v: _rosen(v) + torch.cat([200 * v[:-1] * (v[1:] - v[:-1] ** 2), 0 * v[:1]]), "factor_of_term"),
        "100": (lambda v: torch.cat([-4 * v[:-1] * (v[1:] - v[:-1] ** 2) - 2 * (1 - v[:-1]), 0 * v[:1]]) + torch.cat([0 * v[:1],
            2 * (v[1:] - v[:-1] ** 2)]), "factor_of_term"),
    }),
    "ackley": Derivation("-20 * exp(-0.2 * sqrt((v ** 2).mean())) - exp(cos(2 * 3.141592653589793 * v).mean()) + 20", {"v": V}, "v", _ackley, {
        "2 pi": (lambda v: _ackley(v) - (2 * math.pi - 1) / 5 * torch.cos(2 * math.pi * v).mean().exp() * torch.sin(2 * math.pi * v), "? factor_of_term"),
        "second sign": (lambda v: 2 * 4 * (-0.2 * (v * v).mean().sqrt()).exp() * v / (5 * (v * v).mean().sqrt()) - _ackley(v),
            "sign_of_term wrong_rule"),
        "first": (lambda v: 4 * (-0.2 * (v * v).mean().sqrt()).exp() * v / (5 * (v * v).mean().sqrt()), "missing_term"),
    }),
    "rastrigin": Derivation("10 * 5 + (v ** 2 - 10 * cos(2 * pi * v)).sum()", {"v": V}, "v",
        lambda v: 2 * v + 20 * math.pi * torch.sin(2 * math.pi * v), {
        "sign": (lambda v: 2 * v - 20 * math.pi * torch.sin(2 * math.pi * v), "sign_of_term wrong_rule"),
        "2 pi": (lambda v: 2 * v + 10 * torch.sin(2 * math.pi * v), "factor_of_term"),
        "cos": (lambda v: 2 * v + 20 * math.pi * torch.cos(2 * math.pi * v), "wrong_rule ?"),
    }),
    "griewank": Derivation("1 + (v ** 2).sum() / 4000 - prod(cos(v / sqrt(arange(1, 6, dtype=v.dtype))))", {"v": V}, "v", _griewank, {
        "sign": (lambda v: v / 1000 - _griewank(v), "sign_of_term wrong_rule"),
        "no product": (lambda v: v / 2000 + torch.sin(v / torch.arange(1, 6, dtype=v.dtype).sqrt()) / torch.arange(1, 6, dtype=v.dtype).sqrt(),
            "? missing_activation_derivative"),
        "no i": (lambda v: v / 2000 + (_griewank(v) - v / 2000) * torch.arange(1, 6, dtype=v.dtype).sqrt(), "? missing_activation_derivative"),
    }),
    "himmelblau": Derivation("(p[0] ** 2 + p[1] - 11) ** 2 + (p[0] + p[1] ** 2 - 7) ** 2", {"p": P}, "p", _himmelblau, {
        "swapped": (lambda p: _himmelblau(p).flip(0), "reversed"),
        "sign": (lambda p: -_himmelblau(p), "sign"),
        "no inner 2": (lambda p: torch.stack([2 * p[0] * (p[0] ** 2 + p[1] - 11) + 2 * (p[0] + p[1] ** 2 - 7),
            2 * (p[0] ** 2 + p[1] - 11) + 4 * p[1] * (p[0] + p[1] ** 2 - 7)]), "factor_of_term"),
    }),
    "beale": Derivation("(1.5 - p[0] + p[0] * p[1]) ** 2 + (2.25 - p[0] + p[0] * p[1] ** 2) ** 2 + (2.625 - p[0] + p[0] * p[1] ** 3) ** 2",
        {"p": P}, "p", _beale, {
        "no 2": (lambda p: _beale(p) / 2, "constant_factor"),
        "sign": (lambda p: -_beale(p), "sign"),
    }),
    "booth": Derivation("(p[0] + 2 * p[1] - 7) ** 2 + (2 * p[0] + p[1] - 5) ** 2", {"p": P}, "p",
        lambda p: torch.stack([10 * p[0] + 8 * p[1] - 34, 8 * p[0] + 10 * p[1] - 38]), {
        "inner": (lambda p: torch.stack([2 * (p[0] + 2 * p[1] - 7) + 2 * (2 * p[0] + p[1] - 5)] * 2), "?"),
        "swapped": (lambda p: torch.stack([8 * p[0] + 10 * p[1] - 38, 10 * p[0] + 8 * p[1] - 34]), "reversed"),
    }),
    "styblinski": Derivation("0.5 * (v ** 4 - 16 * v ** 2 + 5 * v).sum()", {"v": V}, "v", lambda v: 2 * v**3 - 16 * v + 2.5, {
        "half": (lambda v: 4 * v**3 - 32 * v + 5, "constant_factor"),
        "linear": (lambda v: 2 * v**3 - 16 * v, "missing_term"),
        "sign": (lambda v: 2 * v**3 + 16 * v + 2.5, "sign_of_term"),
    }),
    "morse": Derivation("(4.0 * (1 - exp(-1.5 * (v - 1.2))) ** 2).sum()", {"v": POS}, "v",
        lambda v: 12 * (1 - (-1.5 * (v - 1.2)).exp()) * (-1.5 * (v - 1.2)).exp(), {
        "a": (lambda v: 8 * (1 - (-1.5 * (v - 1.2)).exp()) * (-1.5 * (v - 1.2)).exp(), "constant_factor"),
        "sign": (lambda v: -12 * (1 - (-1.5 * (v - 1.2)).exp()) * (-1.5 * (v - 1.2)).exp(), "sign"),
        "inner": (lambda v: 8 * (1 - (-1.5 * (v - 1.2)).exp()), "? constant_factor"),
    }),
    "gravity": Derivation("(-1.0 / m.norm(dim=1)).sum()", {"m": M}, "m", lambda m: m / m.norm(dim=1, keepdim=True) ** 3, {
        "force": (lambda m: -m / m.norm(dim=1, keepdim=True) ** 3, "sign"),
        "square": (lambda m: m / m.norm(dim=1, keepdim=True) ** 2, "quotient_rule wrong_rule ?"),
        "unit": (lambda m: m / m.norm(dim=1, keepdim=True), "? missing_activation_derivative"),
    }),
    "delta": Derivation("t = 0.2449489742783178\nd = (log(s / 100) + 0.06) / t\nreturn (s * special.ndtr(d) - 97.04455335485082 * special.ndtr(d - t)).sum()",
        {"s": S}, "s", lambda s: below(_black_scholes(s)[0]), {
        "d2": (lambda s: below(_black_scholes(s)[1]), "?"),
        "put": (lambda s: below(_black_scholes(s)[0]) - 1, "?"),
        "density": (lambda s: density(_black_scholes(s)[0]), "?"),
    }),
    "logistic map": Derivation("x = v\nfor k in range(3):\n    x = 3.2 * x * (1 - x)\nreturn x.sum()", {"v": HALF}, "v", _logistic_map, {
        "one step": (lambda v: 3.2 * (1 - 2 * v), "?"),
        "no chain": (lambda v: _logistic_map(v) / (3.2 * (1 - 2 * v)), "?"),
        "sign": (lambda v: -_logistic_map(v), "sign"),
    }),
    "newton's root": Derivation("y = ones_like(v)\nfor k in range(3):\n    y = 0.5 * (y + v / y)\nreturn y.sum()", {"v": POS}, "v", _newton, {
        "no path through y": (lambda v: 0.5 / (lambda y: y)(0.5 * (0.5 * (1 + v) + v / (0.5 * (1 + v)))), "? missing_term"),
        "sign": (lambda v: -_newton(v), "sign"),
    }),
    "discounted return": Derivation("(v * 0.9 ** arange(5, dtype=v.dtype)).sum() ** 2", {"v": V}, "v",
        lambda v: 2 * (v * 0.9 ** torch.arange(5, dtype=v.dtype)).sum() * 0.9 ** torch.arange(5, dtype=v.dtype), {
        "off by one": (lambda v: 2 * (v * 0.9 ** torch.arange(5, dtype=v.dtype)).sum() * 0.9 ** torch.arange(1, 6, dtype=v.dtype),
            "constant_factor"),
        "no gamma": (lambda v: 2 * (v * 0.9 ** torch.arange(5, dtype=v.dtype)).sum() * torch.ones_like(v),
            "missing_activation_derivative ? missing_factor"),
        "reversed": (lambda v: 2 * (v * 0.9 ** torch.arange(5, dtype=v.dtype)).sum() * 0.9 ** torch.arange(4, -1, -1, dtype=v.dtype), "reversed"),
    }),
    "moving average": Derivation("s = 0.0\nfor k in range(5):\n    s = 0.7 * s + 0.3 * v[k]\nreturn s", {"v": V}, "v", _ewma, {
        "no 0.3": (lambda v: _ewma(v, True), "constant_factor"),
        "backwards": (lambda v: _ewma(v).flip(0), "reversed"),
        "last alone": (lambda v: 0.3 * hot(v, 4), "? missing_term"),
    }),
    "autoregression": Derivation("((v[1:] - d[0] * v[:-1]) ** 2).sum()", {"d": D[:1], "v": V}, "d",
        lambda d, v: -2 * ((v[1:] - d[0] * v[:-1]) * v[:-1]).sum().reshape(1), {
        "sign": (lambda d, v: 2 * ((v[1:] - d[0] * v[:-1]) * v[:-1]).sum().reshape(1), "sign swapped"),
        "no 2": (lambda d, v: -((v[1:] - d[0] * v[:-1]) * v[:-1]).sum().reshape(1), "constant_factor"),
    }),
    "mean of rows": Derivation("(m.mean(0) ** 2).sum()", {"m": M}, "m", lambda m: (2 / 4 * m.mean(0)).expand(4, 3), {
        "1/n": (lambda m: (2 * m.mean(0)).expand(4, 3), "constant_factor"),
        "not spread": (lambda m: 2 / 4 * m.mean(0), "shape"),
        "own": (lambda m: 2 / 4 * m, "?"),
        "axis": (lambda m: (2 / 4 * m.mean(1, keepdim=True)).expand(4, 3), "? wrong_axis"),
        "no 2": (lambda m: (1 / 4 * m.mean(0)).expand(4, 3), "constant_factor"),
    }),
    "distance of pairs": Derivation("cdist(m, n).sum()", {"m": M, "n": N}, "m",
        lambda m, n: ((m[:, None] - n) / (m[:, None] - n).norm(dim=2, keepdim=True)).sum(1), {
        "sign": (lambda m, n: -((m[:, None] - n) / (m[:, None] - n).norm(dim=2, keepdim=True)).sum(1), "sign"),
        "mean": (lambda m, n: ((m[:, None] - n) / (m[:, None] - n).norm(dim=2, keepdim=True)).mean(1), "constant_factor"),
        "by n": (lambda m, n: -((m[:, None] - n) / (m[:, None] - n).norm(dim=2, keepdim=True)).sum(0), "wrong_variable"),
        "undivided": (lambda m, n: (m[:, None] - n).sum(1), "wrong_rule ?"),
    }),
}  # fmt: skip
