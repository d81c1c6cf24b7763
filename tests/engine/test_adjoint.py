"""Replies that hold both modes carry a note where the two contradict each other, and none where they do not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from app.catalogue import better_rules
from app.catalogue.operation_page import page
from app.catalogue.read import find, operations
from app.errors import PullbackError
from app.query import Note, Query, TensorData
from tests.engine.asking import ENGINE, ask, data
from tests.engine.test_properties import example
from tests.op_db import Case, cases
from tests.share import is_whole, share

# Operation → why its two modes part: of these the note is right.
APART = {
    "logcumsumexp": "its forward mode loses half of the digits beside numbers of 10,000, as one of PyTorch's samples has",
    "nn.functional.ctc_loss": "its backward is of log_softmax and the loss together",
}
SAMPLES = 2 if is_whole() else 1


def disagreements(query: Query) -> list[Note]:
    return [note for note in ENGINE.answer(query).notes if note.code == "modes_disagree"]


def _vectors(rng: np.random.Generator, results: dict[str, TensorData]) -> dict[str, TensorData]:
    vectors = {}
    for name, value in results.items():
        numbers = rng.standard_normal(value.shape)
        if value.dtype.startswith("complex"):
            numbers = numbers + 1j * rng.standard_normal(value.shape)
        dtype = "float32" if value.dtype == "bfloat16" else value.dtype
        vectors[name] = data(numbers.astype(dtype))
    return vectors


def both_ways(query: Query) -> list[Note]:
    """The notes with vectors of ones and with random ones."""
    rng = np.random.default_rng(3)
    query = replace(query, want=("vjp", "jvp"), cotangent={}, tangent={})
    plain = ENGINE.answer(query)
    tangent, cotangent = _vectors(rng, plain.results["vjp"]), _vectors(rng, plain.results["jvp"])
    ones = [note for note in plain.notes if note.code == "modes_disagree"]
    return ones + disagreements(replace(query, cotangent=cotangent, tangent=tangent))


@pytest.mark.parametrize("dtype", [None, "float32", "bfloat16"])
def test_no_example_of_the_catalogue_is_called_wrong(dtype: Any) -> None:
    wrong, tried = {}, 0
    every = list(operations().values())
    for operation in every if dtype is None else share(every, 3):
        if operation.order < 1 or operation.name in APART:
            continue
        try:
            notes = both_ways(replace(example(operation), dtype=dtype))
        except PullbackError:
            continue  # no narrow numbers, no second derivative, a phase that is free
        tried += 1
        if notes:
            wrong[operation.name] = notes[0].message
    assert tried > (300 if dtype is None or is_whole() else 100)
    assert not wrong, wrong


def _page(name: str) -> Any:
    try:
        operation = find(name)
    except PullbackError:
        return None
    return page(operation) if name in (operation.name, *operation.aliases) and operation.order >= 1 else None


def _query(case: Case) -> Query:
    tensors = {
        name: tuple(data(t.resolve_conj().numpy(), bare=False) for t in value)
        if isinstance(value, list)
        else data(value.resolve_conj().numpy(), bare=False)
        for name, value in case.inputs.items()
    }
    return Query(operation=case.operation, inputs=tensors, parameters=case.parameters)


def test_no_sample_of_pytorch_is_called_wrong() -> None:
    wrong, tried = {}, 0
    for case in cases(_page, SAMPLES):
        if isinstance(case, str) or case.operation in APART:
            continue
        try:
            notes = both_ways(_query(case))
        except PullbackError:
            continue  # a sample with whole numbers, or of a form that has no derivative
        tried += 1
        if notes:
            wrong[f"{case.operation} {case.number}"] = notes[0].message
    assert tried > 250 * SAMPLES
    assert not wrong, wrong


def note_of(**query: Any) -> Note:
    (note,) = [note for note in ask(**query).notes if note.code == "modes_disagree"]
    return note


def test_where_a_branch_not_taken_makes_reverse_mode_nan() -> None:
    """The derivative is 0 and 1/4; reverse mode multiplies 0 by the infinite one of the branch that is not taken."""
    query: dict[str, Any] = {"program": "where(x > 0, sqrt(x), 0*x)", "inputs": {"x": [-1.0, 4.0]}}
    note = note_of(**query, want=["vjp", "jvp"])
    assert note.code == "modes_disagree"
    assert note.at == "vjp"
    assert "give 0.25: `jvp` is right, and `vjp` is wrong" in note.message
    assert (
        note_of(program="where(x > 0, sqrt(x), 0*x).sum()", inputs=query["inputs"], want=["gradient", "jvp"]).at == "gradient"
    )


def test_where_a_constant_piece_makes_forward_mode_nan() -> None:
    note = note_of(program="sqrt(relu(x))", inputs={"x": [-1.0, 4.0]}, want=["vjp", "jvp"])
    assert note.at == "jvp"
    assert "`vjp` is right, and `jvp` is wrong" in note.message


@pytest.mark.parametrize("dtype", [None, "float32", "float16"])
def test_pytorch_alone_is_wrong_of_a_negative_modulus(monkeypatch: pytest.MonkeyPatch, dtype: str | None) -> None:
    """Without the row of app/catalogue/better_rules.py that mends it."""
    monkeypatch.delitem(better_rules.BETTER, "polar")
    query: dict[str, Any] = {
        "program": "torch.polar(r, a).imag",
        "inputs": {"r": [-2.0, 1.0], "a": [0.5, 0.2]},
        "want": ["vjp", "jvp"],
    }
    if dtype == "float16":
        query["program"] = "torch.polar(r.float(), a.float()).imag.half()"
    note = note_of(**query, dtype=dtype)
    assert note.code == "modes_disagree"
    assert "`jvp` is right, and `vjp` is wrong" in note.message


def test_several_cotangents_and_tangents_are_all_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(better_rules.BETTER, "polar")
    query: dict[str, Any] = {
        "program": "torch.polar(r, a).imag", "inputs": {"r": [2.0, -1.0], "a": [0.5, 0.2]}, "want": ["vjp", "jvp"],
        "cotangent": {"output": [[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]}, "tangent": {"r": [[1.0, 0.0], [0.0, 1.0]], "a": [[0.0, 0.0], [0.0, 0.0]]},
    }  # fmt: skip
    assert "`jvp` is right" in note_of(**query).message
    query["inputs"] = {"r": [2.0, 1.0], "a": [0.5, 0.2]}
    assert not [note for note in ask(**query).notes if note.code == "modes_disagree"]


def test_a_sample_of_a_batch_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    note = note_of(
        program="where(x > 0, sqrt(x), 0*x)",
        inputs={"x": [[1.0, 4.0], [2.0, 3.0], [-1.0, 1.0]]},
        want=["vjp", "jvp"],
        batched=("x",),
    )
    assert note.message.startswith("Sample 2: ")


def test_cancellation_is_no_contradiction() -> None:
    """Both modes are 2 here, by sums of terms of 10^16."""
    x = [1.0, 4.0]
    query: dict[str, Any] = {"program": "((x*1e8 - y*1e8)*1e8 + x).sum()", "inputs": {"x": x, "y": x}, "want": ["vjp", "jvp"]}
    assert not [note for note in ask(**query).notes if note.code == "modes_disagree"]
