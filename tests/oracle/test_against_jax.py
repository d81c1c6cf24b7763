"""Random programs: values and derivatives against JAX's."""

from __future__ import annotations

import json
from functools import cache
from typing import Any, Final

import numpy as np
import pytest

from tests.engine.asking import Array, results
from tests.oracle.jax_answers import FILE, KINDS, PROGRAMS, computed, numbers
from tests.oracle.programs import program

# Of each kind some.
COMPUTED_AGAIN: Final = (0, 37, 74, 111, 148, 185)
# Two implementations of the same function differ by rounding, some hundred times in five steps of which factorisations are part.
RELATIVE, OF_LARGEST = 1e-8, 1e-9


@cache
def written() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(FILE.read_text())
    return rows


def assert_same(kind: str, ours: dict[str, Any], right: Any, inputs: dict[str, Array], text: str) -> None:
    one = kind in ("outputs", "jvp")
    pairs = [("output", right)] if one else list(zip(inputs, right, strict=True))
    for name, value in pairs:
        largest = max(1.0, float(np.abs(value).max()))
        np.testing.assert_allclose(ours[name], value, RELATIVE, OF_LARGEST * largest, err_msg=f"{kind} by {name} of\n{text}")


@pytest.mark.parametrize("seed", range(PROGRAMS))
@pytest.mark.share(2)
def test_a_random_program(seed: int) -> None:
    point, tangent, cotangent = numbers(seed)
    kinds, text = KINDS[seed % 4], program(seed).text
    right = written()[seed]
    assert right["text"] == text, "what JAX says of it is to be computed anew: python -m tests.oracle.jax_answers"
    assert right["answer"].keys() == set(kinds)
    query: dict[str, Any] = {"program": text, "inputs": point, "want": kinds}
    if "vjp" in kinds:
        query["cotangent"] = {"output": cotangent}
    if {"jvp", "hvp"} & set(kinds):
        query["tangent"] = tangent
    ours = results(**query)
    for kind in kinds:
        assert_same(kind, ours[kind], right["answer"][kind], point, text)


def test_what_is_written_is_what_jax_says() -> None:
    assert {seed % 4 for seed in COMPUTED_AGAIN} == set(range(4))
    for seed, answer in zip(COMPUTED_AGAIN, computed(COMPUTED_AGAIN), strict=True):
        for kind, value in written()[seed]["answer"].items():
            names = ("output",) if kind in ("outputs", "jvp") else tuple(numbers(seed)[0])
            values = (answer[kind],) if len(names) == 1 else answer[kind]
            assert_same(kind, dict(zip(names, values, strict=True)), value, numbers(seed)[0], program(seed).text)
