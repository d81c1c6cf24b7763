"""`python -m tests.oracle.jax_answers`: JAX's values and derivatives of the random programs, written to jax_answers.json.

XLA compiles them for half a minute, so the tests read what was written, and have some of it computed again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import jax
import numpy as np

from tests.engine.asking import Array
from tests.oracle.programs import SIZE, program

FILE: Final = Path(__file__).with_name("jax_answers.json")
PROGRAMS: Final = 200
TOGETHER: Final = 20  # that XLA compiles as one
# Compiling is nine tenths of what JAX takes here: without optimisation it takes a third less.
QUICK: Final[dict[str, str | bool]] = {"xla_backend_optimization_level": "0", "xla_llvm_disable_expensive_passes": True}
KINDS: Final = (("outputs", "gradient"), ("outputs", "vjp", "jvp"), ("outputs", "hvp"), ("outputs", "vjp", "jvp"))


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


def computed(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """JAX's answers: kind → numbers, or a list of them by the inputs in their order."""
    with jax.enable_x64(True):
        traced = jax.jit(lambda: [derivatives(seed) for seed in seeds]).lower()
        answers: list[dict[str, Any]] = traced.compile(QUICK)()
    return answers


def _plain(answer: dict[str, Any]) -> dict[str, Any]:
    return {
        kind: [np.asarray(each).tolist() for each in value] if isinstance(value, tuple) else np.asarray(value).tolist()
        for kind, value in answer.items()
    }


def main() -> None:
    rows = []
    for start in range(0, PROGRAMS, TOGETHER):
        seeds = range(start, start + TOGETHER)
        for seed, answer in zip(seeds, computed(seeds), strict=True):
            rows.append(json.dumps({"text": program(seed).text, "answer": _plain(answer)}))
    FILE.write_text("[\n" + ",\n".join(rows) + "\n]\n")


if __name__ == "__main__":
    main()
