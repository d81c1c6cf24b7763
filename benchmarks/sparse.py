"""`python -m benchmarks sparse`: sparse Jacobians and Hessians, first and again, against asdex, CasADi and dense; CPU time in one run."""

from __future__ import annotations

import gc
import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.engine.engine import Engine
from app.limits import Limits
from app.program.functions import load as load_functions
from app.query import Query, TensorData
from app.road import Road

REPEATS = 7
# Fresh functions of each form, by turns: a single first answer of 4 ms varies by half, with what else the machine does.
TURNS = 5
# Of a turn, before the dense one: what follows a dense answer of 32 MB finds no cache warm and is charged up to 7 ms of the system's for its
# pages (measured: 3.1 ms among its like, 4.6 after a dense one), which is no cost of its own.
SPARSE_PER_TURN = 4
LARGE = 100_000
HEAT = "x + 1e-5*(x.roll(1, 0) - 2*x + x.roll(-1, 0))"
ROSENBROCK = "(100*(x[1:] - x[:-1]**2)**2 + (1 - x[:-1])**2).sum()"
STENCIL = (
    "p = nn.functional.pad(x, (1, 1, 1, 1))\nreturn p[2:, 1:-1] + p[:-2, 1:-1] + p[1:-1, 2:] + p[1:-1, :-2] - 4*x + exp(x)"
)
SOFTMAX = "softmax(x, dim=1)"


@dataclass(frozen=True)
class Case:
    """One function in the words of each: a program of ours, a JAX function, a CasADi expression of a column of symbols."""

    name: str
    program: str
    shape: tuple[int, ...]
    want: str
    jax: Callable[[Any, Any], Any]
    casadi: Callable[[Any, Any], Any]


def _jax_stencil(jnp: Any, x: Any) -> Any:
    u = x.reshape(300, 300)
    p = jnp.pad(u, 1)
    return (p[2:, 1:-1] + p[:-2, 1:-1] + p[1:-1, 2:] + p[1:-1, :-2] - 4 * u + jnp.exp(u)).reshape(-1)


def _casadi_stencil(ca: Any, x: Any) -> Any:
    u = ca.reshape(x, 300, 300)
    zero = ca.SX(1, 300)
    up, down = ca.vertcat(u[1:, :], zero), ca.vertcat(zero, u[:-1, :])
    left, right = ca.horzcat(u[:, 1:], zero.T), ca.horzcat(zero.T, u[:, :-1])
    return ca.vec(up + down + left + right - 4 * u + ca.exp(u))


def _casadi_softmax(ca: Any, x: Any) -> Any:
    e = ca.exp(ca.reshape(x, 10, 10_000))
    return ca.vec(e / ca.repmat(ca.sum1(e), 10, 1))


def _jax_softmax(jnp: Any, x: Any) -> Any:
    e = jnp.exp(x.reshape(10_000, 10))
    return (e / e.sum(1, keepdims=True)).reshape(-1)


CASES = (
    Case(
        "Jacobian of a tridiagonal heat step, n = 100,000", HEAT, (LARGE,), "jacobian",
        lambda jnp, x: x + 1e-5 * (jnp.roll(x, 1) - 2 * x + jnp.roll(x, -1)),
        lambda ca, x: x + 1e-5 * (ca.vertcat(x[-1], x[:-1]) - 2 * x + ca.vertcat(x[1:], x[0])),
    ),
    Case(
        "Hessian of Rosenbrock, n = 100,000", ROSENBROCK, (LARGE,), "hessian",
        lambda jnp, x: (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum(),
        lambda ca, x: ca.sum1(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2),
    ),
    Case("Jacobian of a five-point stencil, 300 × 300", STENCIL, (300, 300), "jacobian", _jax_stencil, _casadi_stencil),
    Case("Jacobian of softmax over rows, 10,000 × 10", SOFTMAX, (10_000, 10), "jacobian", _jax_softmax, _casadi_softmax),
)  # fmt: skip


@dataclass(frozen=True)
class Timing:
    """CPU milliseconds of the first answer, with all that it needs, and the least of the following."""

    first: float
    again: float


def cpu_ms(action: Callable[[], object]) -> float:
    start = time.process_time()
    action()
    return 1e3 * (time.process_time() - start)


def timed(prepare: Callable[[], Callable[[], object]]) -> Timing:
    """`prepare()` makes what answers; it is part of the first answer."""
    held: list[Callable[[], object]] = []

    def first() -> None:
        held.append(prepare())
        held[0]()

    return Timing(cpu_ms(first), min(cpu_ms(held[0]) for _ in range(REPEATS)))


def ours(program: str, x: NDArray[np.float64], want: Any, wanted: Any) -> Timing:
    """The engine's whole answer: read plan, patterns, colours, passes, and the tensors as bytes."""
    query = Query(
        program=program,
        inputs={"x": TensorData("float64", x.shape, memoryview(bytearray(x.tobytes())))},
        want=(want,),
        format=wanted,
    )
    engine = Engine(Limits(), "cpu", load_functions(None))
    return timed(lambda: lambda: engine.answer(query))


def _least(x: NDArray[np.float64], form: str, of: int) -> Timing:
    """Of several fresh functions."""
    timings = [ours(HEAT, x, "jacobian", form) for _ in range(of)]
    return Timing(min(timing.first for timing in timings), min(timing.again for timing in timings))


def asdex(case: Case, x: NDArray[np.float64]) -> Timing:
    import asdex as anchor
    import jax

    jax.config.update("jax_enable_x64", True)  # type: ignore[no-untyped-call]
    point = jax.numpy.asarray(x.reshape(-1))
    derivative = anchor.jacobian if case.want == "jacobian" else anchor.hessian

    def prepare() -> Callable[[], object]:
        compiled = jax.jit(derivative(lambda v: case.jax(jax.numpy, v), point))
        return lambda: compiled(point).data.block_until_ready()

    return timed(prepare)


def casadi(case: Case, x: NDArray[np.float64]) -> Timing:
    import casadi as ca

    point = x.reshape(-1)  # NumPy in, as a query's bytes are; the result stays CasADi's own

    def prepare() -> Callable[[], object]:
        symbols = ca.SX.sym("x", x.size)
        value = case.casadi(ca, symbols)
        matrix = ca.jacobian(value, symbols) if case.want == "jacobian" else ca.hessian(value, symbols)[0]
        compiled = ca.Function("matrix", [symbols], [matrix])
        return lambda: compiled(point)

    return timed(prepare)


ANCHORS: dict[str, Callable[[Case, NDArray[np.float64]], Timing]] = {"asdex": asdex, "casadi": casadi}


def run(line: Callable[[str, str, str], None]) -> None:
    """Prints a line for each case: ours, then each anchor that is installed, as ratios."""
    generator = np.random.default_rng(0)
    Road(Limits(), "cpu").warm()  # lazy imports of PyTorch are a worker's, not a query's
    ours(HEAT, generator.random(16), "jacobian", "sparse")
    gc.collect()
    gc.freeze()  # as the workers' parent does: what was imported is not searched again for what a query leaves
    for case in CASES:
        x = generator.random(case.shape)
        own = ours(case.program, x, case.want, "sparse")
        ratios = []
        for name, anchor in ANCHORS.items():
            if importlib.util.find_spec(name) is None:
                ratios.append(f"{name} is not installed")
                continue
            other = anchor(case, x)
            ratios.append(
                f"{name} {other.first:.0f} and {other.again:.1f} ms: first ×{other.first / own.first:.1f} faster, "
                f"again ×{own.again / other.again:.2f} of its"
            )
        line(f"{case.name}, sparse", f"{own.first:.0f}, again {own.again:.1f} ms", "; ".join(ratios))
    for n in (500, 1000, 2000, 4000):
        x = generator.random(n)
        turns = [{form: _least(x, form, of) for form, of in (("sparse", SPARSE_PER_TURN), ("dense", 1))} for _ in range(TURNS)]
        sparse, dense = (
            Timing(min(turn[form].first for turn in turns), min(turn[form].again for turn in turns))
            for form in ("sparse", "dense")
        )
        line(
            f"Jacobian of the heat step, n = {n:,}, sparse",
            f"{sparse.first:.1f}, again {sparse.again:.2f} ms",
            f"dense {dense.first:.0f} and {dense.again:.0f} ms: ×{dense.first / sparse.first:.0f} and ×{dense.again / sparse.again:.0f}",
        )
