"""Every example of the catalogue is a query that works as it stands: read from JSON, answered by the engine, finite."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import orjson

from app.catalogue.entry import Operation
from app.engine.engine import Engine
from app.limits import Limits
from app.program.functions import load
from app.protocols.native import bodies
from app.query import Answer, TensorData
from tests.browser_numbers import as_a_browser_sends
from tests.many import assert_of_every_operation

LIMITS = Limits()
# Operation → why one of its outputs is empty, or why its example wants no derivative although it has one.
EMPTY = {"linalg.lstsq": "residuals and singular values, as the driver has it"}
NOT_DIFFERENTIATED = {
    "linalg.eig": "with a cotangent of ones the result depends on the phase of the eigenvectors",
    "histogramdd": "only edges that are given pass through, and the example counts its bins",
}
ENGINE = Engine(LIMITS, "cpu", load(None))


def ask(body: object) -> Answer:
    return ENGINE.answer(bodies.read(memoryview(orjson.dumps(body)), "application/json", None, LIMITS))


def _assert_answered(operation: Operation) -> None:
    assert operation.example["operation"] == operation.name
    results = ask(operation.example).results
    assert set(results) == set(operation.example["want"])
    names = {name.partition(".")[0] for name in results["outputs"]}
    assert any(names <= {output.name for output in signature.outputs} for signature in operation.signatures), names
    assert all(output.shape.count(0) == 0 for output in results["outputs"].values()) or operation.name in EMPTY
    assert ("vjp" in results) == (operation.order > 0) or operation.name in NOT_DIFFERENTIATED
    for gradient in results.get("vjp", {}).values():
        assert gradient.shape.count(0) == 0
    _assert_the_same_from_a_browser(operation, results["outputs"])


def test_every_example_is_answered_and_survives_a_browser() -> None:
    assert_of_every_operation(_assert_answered)


def _assert_the_same_from_a_browser(operation: Operation, first: Mapping[str, TensorData]) -> None:
    again = ask(as_a_browser_sends(operation.example)).results["outputs"]
    assert {name: (t.dtype, t.shape) for name, t in first.items()} == {name: (t.dtype, t.shape) for name, t in again.items()}
    for name, tensor in first.items():
        if tensor.dtype != "bfloat16":
            np.testing.assert_allclose(
                np.frombuffer(tensor.data, tensor.dtype), np.frombuffer(again[name].data, tensor.dtype), rtol=1e-9
            )
