"""A branch on a value is part of what `explain` says, with the place where it flips; so is a line inside a function or a module."""

from __future__ import annotations

import numpy as np
import pytest

from tests.engine.asking import ask, results


@pytest.mark.parametrize(
    ("x", "words"), [([1.0, 2.5], ("True", "2.5 apart")), ([0.25, 0.75], ("False", "lies where it flips"))]
)
def test_a_branch_and_its_distance_are_named(x: list[float], words: tuple[str, str]) -> None:
    text = "if x.sum() > 1:\n    y = x * 2\nelse:\n    y = x ** 2\ny.sum()"
    report = results(program=text, inputs={"x": np.array(x)}, want=["explain"])["explain"]
    *at_flip, finding = report["outputs"]["output"]["findings"]
    assert len(at_flip) == words[1].startswith("lies")  # what is seen of the other branch
    assert finding["because"]["line"] == 1
    assert all(word in finding["because"]["reason"] for word in words)


def test_the_other_side_is_followed_where_it_holds() -> None:
    text = "if x.sum() > 1:\n    y = x * 2\nelse:\n    y = x ** 2\ny.sum()"
    below, above = (
        results(program=text, inputs={"x": np.array(v)}, want=["gradient"])["gradient"]["x"] for v in ([0.1, 0.2], [3.0, 4.0])
    )
    np.testing.assert_allclose(below, [0.2, 0.4])
    np.testing.assert_allclose(above, [2.0, 2.0])


def test_the_note_names_the_line() -> None:
    notes = ask(program="n = x.sum().item()\nx * n", inputs={"x": np.array([1.0])}, want=["outputs"]).notes
    assert [(note.code, note.at.split(":")[0]) for note in notes] == [("branch", "1")]


def test_lines_within_functions_and_writes_are_named() -> None:
    text = "def f(t):\n    y = t.clone()\n    y[0] = t.round().sum()\n    return y\nf(x).sum()"
    report = results(program=text, inputs={"x": np.array([0.3, 1.2])}, want=["explain"])["explain"]
    lines = {(step["line"], step["text"]) for step in report["steps"]}
    assert {(2, "y = t.clone()"), (3, "y[0] = t.round().sum()"), (5, "f(x).sum()")} <= lines


def test_a_region_without_gradients_is_the_reason() -> None:
    text = "with torch.no_grad():\n    y = x * 2\ny.sum()"
    report = results(program=text, inputs={"x": np.array([0.3, 1.2])}, want=["explain"])["explain"]
    assert report["inputs"]["x"]["verdict"] == "disconnected"
    assert report["inputs"]["x"]["because"]["line"] == 2
