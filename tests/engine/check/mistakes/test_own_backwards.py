"""`check` names what is wrong with a hand-written `backward`, by its line, and nothing where it is right."""

from __future__ import annotations

from typing import Any, Final

import pytest

from tests.engine.asking import ask

X: Final = [[0.5, -1.25, 2.0], [1.5, 0.25, -0.75]]
W: Final = [[0.3, -0.7, 1.1], [0.9, 0.4, -1.6]]
CLASS: Final = """
class Own(torch.autograd.Function):
    @staticmethod
    def forward(ctx, {arguments}):
        {forward}

    @staticmethod
    def backward(ctx, g):
        {backward}

{call}
"""


def program(forward: str, backward: str, arguments: str = "x", call: str = "(Own.apply({}) ** 2).sum()") -> str:
    lines = [text.replace("\n", "\n        ") for text in (forward, backward)]
    return CLASS.format(arguments=arguments, forward=lines[0], backward=lines[1], call=call.format(arguments)).strip()


def report(text: str, **inputs: Any) -> dict[str, Any]:
    result: dict[str, Any] = ask(program=text, inputs=inputs or {"x": X}, want=["check"]).results["check"]
    return result


SAVED: Final = "ctx.save_for_backward(x)\nreturn {}"
READ: Final = "x, = ctx.saved_tensors\nreturn {}"
BOTH: Final = "ctx.save_for_backward(x, w)\nreturn {}"
READ_BOTH: Final = "x, w = ctx.saved_tensors\nreturn {}"
# Forward, backward, and what the first explanation says.
MISTAKES: Final[dict[str, tuple[str, str, str]]] = {
    "no factor 2": (SAVED.format("x ** 2"), READ.format("g * x"), "half of ours, the 2 from"),
    "sign": (SAVED.format("x.cos()"), READ.format("g * x.sin()"), "opposite sign"),
    "grad_output forgotten": (SAVED.format("x ** 3"), READ.format("3 * x ** 2"), "does not multiply by the gradient"),
    "the result for the input": (
        "y = torch.sigmoid(x)\nctx.save_for_backward(x)\nreturn y", READ.format("g * x * (1 - x)"), "It reads `x` where it means what",
    ),
    "the input for the result": (
        "y = x.exp() + x\nctx.save_for_backward(y)\nreturn y", READ.format("g * (x.exp() + 1)"), "where it means `x`",
    ),
    "the gradient alone": (SAVED.format("x ** 3"), "return g", "(line 9, `return g`)"),
    "None": (SAVED.format("x * 3"), "return None", "None or zeros"),
    "another formula": (SAVED.format("x.tanh()"), READ.format("g / (1 + x.cosh() ** 2)"), "For a random gradient"),
    "tanh for its square": (
        "y = x.tanh()\nctx.save_for_backward(y)\nreturn y", "y, = ctx.saved_tensors\nreturn g * (1 - y)", "tanh",
    ),
    "softmax's diagonal": (
        "p = torch.softmax(x, -1)\nctx.save_for_backward(p)\nreturn p", "p, = ctx.saved_tensors\nreturn g * p * (1 - p)", "diagonal",
    ),
    "sum for mean": (SAVED.format("x.mean(0)"), READ.format("g.expand_as(x)"), "times ours"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_the_first_explanation_is_the_right_one(case: str) -> None:
    forward, backward, words = MISTAKES[case]
    entry = report(program(forward, backward))["x"]
    assert entry["agrees"] is False
    message = entry["likely"]["message"]
    assert words in message
    assert message.startswith("The `backward` of `Own` (line ")


def test_gradients_in_the_wrong_order() -> None:
    text = program(BOTH.format("x * w ** 2"), READ_BOTH.format("g * 2 * x * w, g * w ** 2"), "x, w")
    entries = report(text, x=X, w=W)
    assert [entries[name]["likely"]["code"] for name in ("x", "w")] == ["wrong_variable"] * 2
    assert "by `w`, not by `x`" in entries["x"]["likely"]["message"]


def test_one_of_two_arguments() -> None:
    entries = report(program(BOTH.format("x * w"), READ_BOTH.format("g * w, g * w"), "x, w"), x=X, w=W)
    assert entries["x"]["agrees"] is True
    assert "by `w`" in entries["w"]["likely"]["message"]


def test_the_one_of_several_functions_that_is_wrong_is_named() -> None:
    right = program(SAVED.format("x.sin()"), READ.format("g * x.cos()"), call="").replace("Own", "Right")
    wrong = program(SAVED.format("x ** 2"), READ.format("g * x"), call="Own.apply(Right.apply(x)).sum()")
    entry = report(right + "\n\n" + wrong)["x"]
    assert "`backward` of `Own`" in entry["likely"]["message"]
    assert "`return g * x`" in entry["likely"]["message"]
    assert not any("`Right`" in claim["message"] for claim in entry["also_possible"])


def test_a_wrong_function_inside_another_is_the_one_that_is_named() -> None:
    inner = program(SAVED.format("x ** 2"), READ.format("g * x"), call="").replace("Own", "Inner")
    text = inner + "\n\n" + "def f(x):\n    return Inner.apply(x.exp())\n\n(f(x) * 3).sum()"
    assert "`backward` of `Inner`" in report(text)["x"]["likely"]["message"]


@pytest.mark.parametrize(
    ("forward", "backward"),
    [
        (SAVED.format("x ** 2"), READ.format("g * 2 * x")),
        ("y = torch.sigmoid(x)\nctx.save_for_backward(y)\nreturn y", "y, = ctx.saved_tensors\nreturn g * y * (1 - y)"),
        (SAVED.format("x.mean(0)"), READ.format("(g / 2).expand_as(x)")),
    ],
)
def test_nothing_is_said_of_a_right_one(forward: str, backward: str) -> None:
    entry = report(program(forward, backward))["x"]
    assert entry["agrees"] is True
    assert "likely" not in entry


@pytest.mark.parametrize(
    ("hook", "words"),
    [
        ("g * 2", "multiplies the gradient by 2"),
        ("g * 1.0001", "multiplies the gradient by 1.0001"),
        ("-g", "turns the sign of the gradient"),
        ("g * 0", "sets the gradient to zero"),
        ("g + 2", "changes the gradient, and not by one factor"),
    ],
)
def test_what_a_hook_does_is_said_in_words(hook: str, words: str) -> None:
    entry = report(f"y = x * x\ny.register_hook(lambda g: {hook})\n(3 * y * x).sum()")["x"]
    assert entry["agrees"] is False
    message = entry["likely"]["message"]
    assert message.startswith("The hook (line 2, ")
    assert words in message
    assert not any(word in message for word in ("forward", "Yours", "ours"))
    assert "Leave the hook out" in message


def test_whose_derivatives_are_compared_is_said_where_none_was_sent() -> None:
    message = report(program(SAVED.format("x ** 2"), READ.format("g * x")))["x"]["likely"]["message"]
    assert "Yours is here what it gives" in message
