"""The lines that `explain`, `precision`, `check` and the notes of a derivative speak of are those of the text, wherever they stand in it."""

from __future__ import annotations

from typing import Any

import pytest

from app.errors import PullbackError
from app.program.reading.source import read
from tests.engine.asking import ask

# text → the line whose words must be told, for each way in which a line can stand away from the end of the program.
FUNCTION = "def g(t):\n    u = t * 2\n    return {}\n\ny = g(x)\ny.sum()"
MODULE = (
    "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.k = 2.0\n    def forward(self, t):\n"
    "        h = t * self.k\n        return {}\n\nnet = Net()\nout = net(x)\nout.sum()"
)
WRITE = "y = x.clone()\ny *= 2\ny[0:2] = {}\ny.sum()"


def _because(text: str, want: str, **fields: Any) -> dict[str, Any]:
    result = ask(program=text, want=[want], **fields).results[want]
    finding = result["inputs"]["x"] if want == "explain" else result["x"]
    because: dict[str, Any] = finding["because"]
    return because


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (FUNCTION.format("torch.round(u)"), 3),
        (MODULE.format("torch.round(h)"), 7),
        (FUNCTION.format("u.argmax().double()"), 3),
        (MODULE.format("h.argmax().double()"), 7),
    ],
)
def test_explain_tells_the_line_that_cuts_the_path(text: str, line: int) -> None:
    because = _because(text, "explain", inputs={"x": [0.5, 1.0, 2.0]})
    assert because["line"] == line
    assert because["text"] == text.split("\n")[line - 1].strip()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (FUNCTION.format("torch.sqrt(u)"), 3),
        (MODULE.format("torch.sqrt(h)"), 7),
        (WRITE.format("torch.sqrt(x[0:2])"), 3),
    ],
)
def test_a_singular_step_is_told_by_its_line(text: str, line: int) -> None:
    words = text.split("\n")[line - 1].strip()
    answer = ask(program=text, inputs={"x": [0.0, 1.0, 2.0]}, want=["gradient", "explain"])
    assert answer.results["explain"]["inputs"]["x"]["because"]["line"] == line
    (note,) = [note for note in answer.notes if note.code == "non_finite"]
    assert f"line {line}, `{words}`" in note.message


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (FUNCTION.format("((u + 1e8) - 1e8) ** 2"), 3),
        (MODULE.format("((h + 1e8) - 1e8) ** 2"), 7),
        ("y = x.clone()\ny -= 1e8\ny += 1e8\n(y ** 2).sum()", 3),
    ],
)
def test_precision_tells_the_line_that_lost_the_digits(text: str, line: int) -> None:
    because = _because(text, "precision", inputs={"x": [20.0, -30.0, -40.0]}, dtype="float32")
    assert because["line"] == line
    assert because["text"] == text.split("\n")[line - 1].strip()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (FUNCTION.format("(u ** 2).mean()"), 3),
        (MODULE.format("(h ** 2).mean()"), 7),
        ("y = x.clone()\ny *= 2\nz = torch.zeros(3)\nz[0] = (y ** 2).mean()\nz.sum()", 4),
    ],
)
def test_check_tells_the_line_of_a_mean_taken_for_a_sum(text: str, line: int) -> None:
    sums = {"x": [8.0, 16.0, 24.0]}
    report = ask(program=text, inputs={"x": [1.0, 2.0, 3.0]}, want=["check"], expected=sums).results["check"]["x"]
    messages = [report["likely"]["message"], *(other["message"] for other in report["also_possible"])]
    assert any(f"line {line}, `{text.split(chr(10))[line - 1].strip()}`" in message for message in messages), messages


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("def g(t):\n    return t @ t.reshape(1, 3)\n\ng(x).sum()", "2:12"),
        (MODULE.format("h @ h.reshape(2, 2)"), "7:20"),
        ("y = x.clone()\ny[0:2] = x\ny.sum()", "2:1"),
    ],
)
def test_a_refusal_has_line_and_column(text: str, at: str) -> None:
    with pytest.raises(PullbackError) as caught:
        ask(program=text, inputs={"x": [1.0, 2.0, 3.0]}, want=["gradient", "check"])
    assert caught.value.at == at


def test_a_text_that_comes_again_is_not_read_again_and_its_refusals_are_its_own() -> None:
    assert read("return x * 2") is read("return x * 2")
    first, again = (read("import _thread\nreturn x") for _ in range(2))
    assert [problem.at for problem in first.problems] == [problem.at for problem in again.problems] != []
    assert not {id(problem) for problem in first.problems} & {id(problem) for problem in again.problems}
