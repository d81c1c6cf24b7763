"""explain and check as text: what a person must find in it, and the shape of the page."""

from __future__ import annotations

from typing import Any

from app.printing_reports import WIDTH, check_text, explain_text

CUT = {
    "verdict": "disconnected",
    "because": {
        "line": 2,
        "text": "label = p.max(1)[1]",
        "operation": "max",
        "reason": "The second result of `max` is whole numbers (int64).",
    },
    "instead": "Let every choice count by its weight: " + "`softmax(p / temperature, dim=1)` " * 5,
    "elements": [],
}
EXPLAIN: dict[str, Any] = {
    "inputs": {
        "w": {**CUT, "findings": [CUT]},
        "other": {**CUT, "findings": [CUT]},
        "x": {
            "verdict": "kink",
            "elements": [[0, 1]],
            "findings": [
                {
                    "verdict": "kink",
                    "because": {
                        "line": 1,
                        "text": "p = relu(x)",
                        "operation": "relu",
                        "reason": "The one-sided derivatives differ here.",
                    },
                    "elements": [[0, k] for k in range(20)],
                    "elements_total": 31,
                    "subgradient": [0.0] * 20,
                },
            ],
        },
        "b": {"verdict": "differentiable", "elements": [], "findings": []},
    },
    "outputs": {"output": {"verdict": "not_differentiable", "elements": [], "findings": []}},
    "steps": [
        {"line": 1, "text": "p = relu(x) @ w", "operation": "relu", "formula": "threshold_backward(grad, result, 0)"},
        {"line": 1, "text": "p = relu(x) @ w", "operation": "@", "formula": "grad.mm(mat2)"},
        {"line": 2, "text": "label = p.max(1)[1]", "operation": "max", "formula": None},
    ],
}
CHECK: dict[str, Any] = {
    "W": {
        "agrees": False,
        "max_error": 0.42,
        "tolerance": 1e-06,
        "worst": [
            {"index": [0, 2], "autodiff": 0.1, "numeric": 0.1, "expected": 0.52},
            {"index": [1, 0], "autodiff": -12.5, "expected": "NaN"},
        ],
        "likely": {
            "code": "constant_factor",
            "factor": 24.0,
            "message": "Yours is 24 times ours, the number of elements: sum instead of mean.",
        },
    },
    "z": {
        "agrees": True,
        "max_error": 0.0,
        "tolerance": 1e-06,
        "worst": [{"index": [], "autodiff": [1.0, -2.0], "numeric": [1.0, 2.0]}],
    },
}


def test_explain_tells_verdict_place_reason_and_way_out() -> None:
    text = explain_text(EXPLAIN)
    for words in (
        "w      disconnected",
        "line 2: label = p.max(1)[1]",
        "whole numbers (int64)",
        "Let every choice",
        "b      differentiable",
    ):
        assert words in text
    assert "not differentiable" in text
    assert "[0, 11] and 19 more" in text
    assert max(map(len, text.splitlines())) <= WIDTH


def test_a_reason_is_told_once() -> None:
    text = explain_text(EXPLAIN)
    assert text.count("whole numbers") == 1
    assert "as for w" in text


def test_steps_stand_under_their_line() -> None:
    lines = explain_text(EXPLAIN).splitlines()
    at = lines.index("    1  p = relu(x) @ w")
    assert lines[at + 1].split(None, 1) == ["relu", "threshold_backward(grad, result, 0)"]
    assert lines[at + 2].split(None, 1) == ["@", "grad.mm(mat2)"]
    assert lines[at + 4].split(None, 1) == ["max", "no derivative"]


def test_check_is_a_table_with_numbers_flush_right() -> None:
    lines = check_text(CHECK).splitlines()
    assert lines[0] == "W  DISAGREES   largest difference 0.42, tolerance 1e-06"
    assert lines[1].split() == ["element", "autodiff", "numeric", "expected"]
    assert lines[2].split() == ["[0,", "2]", "0.1", "0.1", "0.52"]
    assert lines[3].split() == ["[1,", "0]", "-12.5", "-", "NaN"]
    assert len({len(line) for line in lines[1:4]}) == 1
    assert "sum instead of mean" in " ".join(" ".join(lines[4:]).split())


def test_check_of_a_complex_number_that_agrees() -> None:
    text = check_text({"z": CHECK["z"]})
    assert text.startswith("z  agrees")
    assert "1-2j" in text
    assert "1+2j" in text


def test_a_wrong_shape_is_said() -> None:
    report: dict[str, Any] = {
        "agrees": False,
        "max_error": None,
        "tolerance": 1e-6,
        "worst": [],
        "shape": {"autodiff": [3], "expected": [8, 3]},
    }
    assert "The derivative has shape [3], yours has [8, 3]." in check_text({"b": report})
