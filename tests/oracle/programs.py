"""Random programs in two tongues: each step as a line of Pullback's language and as a JAX function of the values before it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.special as jss

SIZE = 3  # of every axis: JAX compiles each operator anew for each shape
STEPS = 5


@dataclass(frozen=True)
class Line:
    """`text`, with `{0}`, `{1}` for its operands and `{y}` for its result; `takes` and `gives`: `s` scalar, `v` vector, `m` matrix."""

    text: str
    takes: str
    gives: str
    jax: Callable[..., Any]


def _line(form: str, takes: str, gives: str, apply: Callable[..., Any]) -> Line:
    return Line(form if "{y}" in form else f"{{y}} = {form}", takes, gives, apply)


def _recurrence(x: Any, m: Any) -> Any:
    for _ in range(3):
        x = jnp.tanh(m @ x) + 0.1 * x
    return x


def _newton(s: Any) -> Any:
    y = 1 + s**2
    for _ in range(2):
        y = y - (y**3 - 2 - s**2) / (3 * y**2)
    return y


def _spd(m: Any) -> Any:
    return m @ m.T + 3 * jnp.eye(SIZE)


# What XLA takes long to compile (gamma functions, matrix_exp) is left to the identities.
# Domains are kept: what stands under a root, a logarithm or a quotient is at least 1.
POINTWISE: dict[str, Callable[[Any], Any]] = {
    "tanh({0})": jnp.tanh,
    "sin({0})": jnp.sin,
    "cos({0} * 2)": lambda x: jnp.cos(x * 2),
    "exp(-{0} ** 2)": lambda x: jnp.exp(-(x**2)),
    "log(1 + {0} ** 2)": lambda x: jnp.log(1 + x**2),
    "sqrt(1 + {0} * {0})": lambda x: jnp.sqrt(1 + x * x),
    "sigmoid({0})": jax.nn.sigmoid,
    "nn.functional.softplus({0})": jax.nn.softplus,
    "nn.functional.silu({0})": jax.nn.silu,
    "nn.functional.gelu({0})": lambda x: jax.nn.gelu(x, approximate=False),
    "erf({0})": jss.erf,
    "atan({0})": jnp.arctan,
    "{0} / (1 + {0}.abs())": lambda x: x / (1 + jnp.abs(x)),
    "relu({0}) - 0.1 * {0}": lambda x: jax.nn.relu(x) - 0.1 * x,
    "where({0} > 0.2, {0} ** 3, 0.5 * {0})": lambda x: jnp.where(x > 0.2, x**3, 0.5 * x),
    "asinh({0})": jnp.arcsinh,
    "clamp({0}, -0.8, 0.9) + {0}": lambda x: jnp.clip(x, -0.8, 0.9) + x,
    "sinh({0} / 2)": lambda x: jnp.sinh(x / 2),
    "expm1({0} / 3)": lambda x: jnp.expm1(x / 3),
    "log1p({0} ** 2)": lambda x: jnp.log1p(x**2),
    "xlogy(1 + {0} ** 2, 2 + {0} ** 2)": lambda x: jss.xlogy(1 + x**2, 2 + x**2),
    "nn.functional.elu({0})": jax.nn.elu,
    "sinc({0} + 0.3)": lambda x: jnp.sinc(x + 0.3),
}
PAIRS: dict[str, Callable[[Any, Any], Any]] = {
    "{0} * {1}": lambda a, b: a * b,
    "{0} - 0.5 * {1}": lambda a, b: a - 0.5 * b,
    "{0} / (1.5 + {1} ** 2)": lambda a, b: a / (1.5 + b**2),
    "maximum({0}, {1})": jnp.maximum,
    "atan2({0}, 2 + {1} ** 2)": lambda a, b: jnp.arctan2(a, 2 + b**2),
    "hypot({0}, 1 + {1}.abs())": lambda a, b: jnp.hypot(a, 1 + jnp.abs(b)),
    "logaddexp({0}, {1})": jnp.logaddexp,
    "(1 + {0} ** 2) ** tanh({1})": lambda a, b: (1 + a**2) ** jnp.tanh(b),
    "lerp({0}, {1}, 0.3)": lambda a, b: a + 0.3 * (b - a),
}
SHAPED: dict[tuple[str, str, str], Callable[..., Any]] = {
    ("softmax({0}, dim=0)", "v", "v"): lambda v: jax.nn.softmax(v),
    ("log_softmax({0}, dim=-1)", "m", "m"): lambda m: jax.nn.log_softmax(m, -1),
    ("{0}.logsumexp(0)", "v", "s"): lambda v: jss.logsumexp(v),
    ("{0}.sum()", "m", "s"): jnp.sum,
    ("{0}.mean(1)", "m", "v"): lambda m: m.mean(1),
    ("{0}.var(unbiased=True)", "v", "s"): lambda v: v.var(ddof=1),
    ("{0}.std(dim=0, correction=0)", "m", "v"): lambda m: m.std(0),
    ("{0}.norm()", "v", "s"): jnp.linalg.norm,
    ("linalg.matrix_norm({0})", "m", "s"): jnp.linalg.norm,
    ("{0}.prod()", "v", "s"): jnp.prod,
    ("cumsum({0}, 0)", "v", "v"): jnp.cumsum,
    ("cumprod({0}, dim=0)", "v", "v"): jnp.cumprod,
    ("sort({0}).values", "v", "v"): jnp.sort,
    ("{0}.max()", "v", "s"): jnp.max,
    ("{0}.min(dim=1).values", "m", "v"): lambda m: m.min(1),
    ("{0}.flip(0)", "v", "v"): lambda v: v[::-1],
    ("{0}.roll(1, 0)", "v", "v"): lambda v: jnp.roll(v, 1),
    ("{0}[[2, 0, 0]]", "v", "v"): lambda v: v[jnp.array([2, 0, 0])],
    ("{0}[1]", "m", "v"): lambda m: m[1],
    ("{0}[:, 2] + {0}[0]", "m", "v"): lambda m: m[:, 2] + m[0],
    ("{0}.T", "m", "m"): lambda m: m.T,
    ("tril({0}) - triu({0}, 1)", "m", "m"): lambda m: jnp.tril(m) - jnp.triu(m, 1),
    ("diag({0})", "v", "m"): jnp.diag,
    ("{0}.diagonal()", "m", "v"): jnp.diagonal,
    ("trace({0})", "m", "s"): jnp.trace,
    ("linalg.det({0})", "m", "s"): jnp.linalg.det,
    ("logdet({0} @ {0}.T + 3 * eye(3))", "m", "s"): lambda m: jnp.linalg.slogdet(_spd(m))[1],
    ("linalg.inv({0} @ {0}.T + 3 * eye(3))", "m", "m"): lambda m: jnp.linalg.inv(_spd(m)),
    ("linalg.cholesky({0} @ {0}.T + 3 * eye(3))", "m", "m"): lambda m: jnp.linalg.cholesky(_spd(m)),
    ("linalg.eigvalsh({0} @ {0}.T + diag(arange(3.0)))", "m", "v"): lambda m: jnp.linalg.eigvalsh(
        m @ m.T + jnp.diag(jnp.arange(3.0))
    ),
    ("matrix_power({0}, 3)", "m", "m"): lambda m: m @ m @ m,
    ("{0} @ {1}", "mv", "v"): lambda m, v: m @ v,
    ("{0} @ {1} / 2", "mm", "m"): lambda a, b: a @ b / 2,
    ("dot({0}, {1})", "vv", "s"): jnp.dot,
    ("outer({0}, {1})", "vv", "m"): jnp.outer,
    ("linalg.cross({0}, {1})", "vv", "v"): jnp.cross,
    ("einsum('ij,j->i', {0}, {1})", "mv", "v"): lambda m, v: jnp.einsum("ij,j->i", m, v),
    ("linalg.solve({0} @ {0}.T + 3 * eye(3), {1})", "mv", "v"): lambda m, v: jnp.linalg.solve(_spd(m), v),
    ("linalg.lstsq({0} @ {0}.T + 3 * eye(3), {1}[:, None]).solution[:, 0]", "mv", "v"): lambda m, v: jnp.linalg.solve(
        _spd(m), v
    ),
    ("stack([{0}, {1}, {0} * {1}])", "vv", "m"): lambda a, b: jnp.stack([a, b, a * b]),
    ("cat([{0}, {1}])[1:4]", "vv", "v"): lambda a, b: jnp.concatenate([a, b])[1:4],
    ("{0} * {1}", "sv", "v"): lambda s, v: s * v,
    ("{0} + {1}[:, None]", "mv", "m"): lambda m, v: m + v[:, None],
    ("{0} * {1}", "ms", "m"): lambda m, s: m * s,
    ("kron({0}, {1})[1:4, 2:5]", "mm", "m"): lambda a, b: jnp.kron(a, b)[1:4, 2:5],
    ("{0}.reshape(9)[::3]", "m", "v"): lambda m: m.reshape(9)[::3],
    ("nn.functional.layer_norm({0}, [3])", "m", "m"): lambda m: (
        (m - m.mean(1, keepdims=True)) / jnp.sqrt(m.var(1, keepdims=True) + 1e-5)
    ),
    ("nn.functional.mse_loss({0}, {1})", "vv", "s"): lambda a, b: ((a - b) ** 2).mean(),
    ("fft.fft({0}).abs() ** 2", "v", "v"): lambda v: jnp.abs(jnp.fft.fft(v)) ** 2,
    ("nn.functional.conv1d({0}[None, None], {1}[None, None], padding=1)[0, 0]", "vv", "v"): lambda a, b: jnp.convolve(
        a, b[::-1], mode="same"
    ),
    ("sum([{0}[i] * (i + 1) for i in range(3)])", "v", "s"): lambda v: (v * jnp.arange(1, 4)).sum(),
    ("def halved(a):\n    return a / 2 + tanh(a)\n{y} = halved({0})", "v", "v"): lambda v: v / 2 + jnp.tanh(v),
    ("{y} = {0}\nfor i in range(3):\n    {y} = tanh({1} @ {y}) + 0.1 * {y}", "vm", "v"): _recurrence,
    ("{y} = 1 + {0} ** 2\nfor i in range(2):\n    {y} = {y} - ({y} ** 3 - 2 - {0} ** 2) / (3 * {y} ** 2)", "s", "s"): _newton,
}
LINES: tuple[Line, ...] = (
    *(_line(text, kind, kind, f) for text, f in POINTWISE.items() for kind in "svm"),
    *(_line(text, kind * 2, kind, f) for text, f in PAIRS.items() for kind in "svm"),
    # As often as the others together: they are fewer.
    *(_line(text, takes, gives, f) for (text, takes, gives), f in SHAPED.items() for _ in range(2)),
)


@dataclass(frozen=True)
class Program:
    """`text` in Pullback's language of the inputs v, w (vectors) and m (a matrix); `of(v, w, m)` in JAX.

    `scalar`: the result is one number, else a vector.
    """

    text: str
    of: Callable[[Any, Any, Any], Any]
    scalar: bool


def program(seed: int) -> Program:
    """The same for the same seed: some steps, and of everything that they made a sum, or the vectors beside each other."""
    rng = random.Random(seed)
    names: dict[str, list[str]] = {"s": [], "v": ["v", "w"], "m": ["m"]}
    lines: list[str] = []
    steps: list[tuple[str, tuple[str, ...], Callable[..., Any]]] = []
    while len(steps) < STEPS:
        line = rng.choice(LINES)
        if not all(names[kind] for kind in line.takes):
            continue
        # The later, the likelier: programs grow deep rather than wide.
        operands = tuple(rng.choice(names[kind][-3:]) for kind in line.takes)
        result = f"y{len(steps)}"
        text = line.text.replace("{y}", result).replace("halved", f"halved{len(steps)}")
        for index, operand in enumerate(operands):
            text = text.replace(f"{{{index}}}", operand)
        lines.append(text)
        steps.append((result, operands, line.jax))
        names[line.gives].append(result)
    scalar = seed % 4 != 3
    last = [result for result, _, _ in steps[-2:]]
    parts = [f"0.3 * {name}.sin().sum()" for name in last]
    vectors = names["v"][2:] or ["v"]
    lines.append("return " + (" + ".join(parts) if scalar else " + ".join(f"cos({name})" for name in vectors)))

    def of(v: Any, w: Any, m: Any) -> Any:
        values = {"v": v, "w": w, "m": m}
        for result, operands, apply in steps:
            values[result] = apply(*(values[name] for name in operands))
        if scalar:
            return sum(0.3 * jnp.sin(values[name]).sum() for name in last)
        return sum(jnp.cos(values[name]) for name in vectors)

    return Program("\n".join(lines), of, scalar)
