"""Random programs: values and derivatives against JAX's."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import numpy as np
import pytest

from tests.engine.asking import Array, results
from tests.oracle.programs import SIZE, program

PROGRAMS = 200
TOGETHER = 20  # that XLA compiles as one
# Compiling is nine tenths of what JAX takes here: without optimisation it takes a third less.
QUICK: dict[str, str | bool] = {"xla_backend_optimization_level": "0", "xla_llvm_disable_expensive_passes": True}
# Two implementations of the same function differ by rounding, some hundred times in five steps of which factorisations are part.
RELATIVE, OF_LARGEST = 1e-8, 1e-9
KINDS = (("outputs", "gradient"), ("outputs", "vjp", "jvp"), ("outputs", "hvp"), ("outputs", "vjp", "jvp"))


def numbers(seed: int) -> tuple[dict[str, Array], dict[str, Array], Array]:
    """Point, tangent and cotangent."""
    rng = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {"v": (SIZE,), "w": (SIZE,), "m": (SIZE, SIZE)}
    point, tangent = ({name: rng.normal(size=shape) for name, shape in shapes.items()} for _ in range(2))
    return point, tangent, rng.normal(size=() if program(seed).scalar else SIZE)


def derivatives(seed: int) -> dict[str, Any]:
    """JAX's, to be traced."""
    of, (point, tangent, cotangent) = program(seed).of, numbers(seed)
    at, along = tuple(map(jax.numpy.asarray, point.values())), tuple(tangent.values())
    kinds = KINDS[seed % 4]
    if "gradient" in kinds:
        value, gradient = jax.value_and_grad(of, (0, 1, 2))(*at)
        return {"outputs": value, "gradient": gradient}
    if "hvp" in kinds:
        return {"outputs": of(*at), "hvp": jax.jvp(jax.grad(of, (0, 1, 2)), at, along)[1]}
    value, pushed = jax.jvp(of, at, along)
    return {"outputs": value, "jvp": pushed, "vjp": jax.vjp(of, *at)[1](cotangent)}


@cache
def jax_rows(group: int) -> list[dict[str, Any]]:
    with jax.enable_x64(True):
        traced = jax.jit(lambda: [derivatives(seed) for seed in range(group * TOGETHER, (group + 1) * TOGETHER)]).lower()
        answers: list[dict[str, Any]] = traced.compile(QUICK)()
        return answers


@pytest.mark.parametrize("seed", range(PROGRAMS))
def test_a_random_program(seed: int) -> None:
    point, tangent, cotangent = numbers(seed)
    kinds = KINDS[seed % 4]
    query: dict[str, Any] = {"program": program(seed).text, "inputs": point, "want": kinds}
    if "vjp" in kinds:
        query["cotangent"] = {"output": cotangent}
    if {"jvp", "hvp"} & set(kinds):
        query["tangent"] = tangent
    ours, right = results(**query), jax_rows(seed // TOGETHER)[seed % TOGETHER]
    for kind in kinds:
        one = kind in ("outputs", "jvp")
        pairs = [("output", right[kind])] if one else list(zip(point, right[kind], strict=True))
        for name, value in pairs:
            largest = max(1.0, float(np.abs(value).max()))
            np.testing.assert_allclose(
                ours[kind][name], value, RELATIVE, OF_LARGEST * largest, err_msg=f"{kind} by {name} of\n{query['program']}"
            )
