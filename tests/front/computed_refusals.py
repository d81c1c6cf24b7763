"""Asks the engine for the refusals that the documentation shows of it; `python -m tests.front.computed_refusals` writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import orjson

from app.engine.engine import Engine
from app.errors import PullbackError
from app.front.openapi import example_refusals
from app.limits import Limits
from app.program.functions import load
from app.protocols.native.bodies import read

PATH: Final = Path(example_refusals.__file__).with_name(example_refusals.FILE)

QUERIES: Final[dict[str, dict[str, Any]]] = {
    "result_too_large": {"program": "x * ones(3000000, 1)", "inputs": {"x": [1.0, 2.0, 3.0, 4.0]}, "want": ["jacobian"]},
    "too_costly": {"program": "a = ones(40000, 40000)\n(a @ a).sum() * x", "inputs": {"x": 1.0}, "want": ["gradient"]},
    "bad_program": {"program": "table = open('x.csv')\nx * 2", "inputs": {"x": [1.0]}},
    "shape_mismatch": {
        "operation": "nn.functional.conv2d",
        "inputs": {"input": [[[[1.0, 2.0], [3.0, 4.0]]] * 2], "weight": [[[[1.0]]] * 3]},
    },
    "not_differentiable": {"operation": "argmax", "inputs": {"input": [1.0, 3.0, 2.0]}, "want": ["vjp"]},
    "not_scalar": {"operation": "tanh", "inputs": {"input": [[1.0, 2.0], [3.0, 4.0]]}, "want": ["gradient"]},
    "bad_cotangent": {"operation": "tanh", "inputs": {"input": [[1.0, 2.0]]}, "want": ["vjp"], "cotangent": {"output": [1.0]}},
    "operation_failed": {"operation": "linalg.cholesky", "inputs": {"input": [[1.0, 2.0], [2.0, 1.0]]}},
    "unknown_function": {"function": "rosenbrok", "inputs": {"x": [1.0, 1.0]}},
}


def asked(query: dict[str, Any]) -> dict[str, Any]:
    """The engine's refusal of `query`."""
    body = orjson.dumps(query)
    try:
        Engine(Limits(), "cpu", load(None)).answer(read(memoryview(body), None, None, Limits()))
    except PullbackError as error:
        return error.problem()
    raise AssertionError(f"answered: {query}")


def recorded() -> dict[str, dict[str, Any]]:
    return {code: {"query": query, "problem": asked(query)} for code, query in QUERIES.items()}


if __name__ == "__main__":
    PATH.write_bytes(orjson.dumps(recorded(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
