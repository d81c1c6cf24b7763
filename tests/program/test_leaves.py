"""What a program prints of gradients, and where PyTorch keeps none: leaves, computed tensors, copies of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from app.errors import PullbackError
from app.query import Answer
from tests.engine.asking import arrays, ask

LEAF = "x = torch.tensor([1.0, 2.0], requires_grad=True)\n"
BACK = "y = (x ** 2).sum()\ny.backward()\n"


def said(answer: Answer, code: str) -> str:
    return " ".join(note.message for note in answer.notes if note.code == code)


def asked(program: str, **fields: Any) -> Answer:
    return ask(program="import torch\n" + program, **fields)


@pytest.mark.parametrize(
    ("program", "shown"),
    [
        (LEAF + BACK + "opt = torch.optim.SGD([x], lr=0.1)\nopt.zero_grad()\nprint(x.grad)", "`x.grad`: None"),
        (LEAF + BACK + "print(x.grad)", "Line 5 prints `x.grad`: tensor([2., 4.])."),
        (LEAF + BACK + "print('x', x.grad, y)", "`x.grad`: tensor([2., 4.])."),
        (LEAF + BACK + "print(f'grad {x.grad}')", "`x.grad`: tensor([2., 4.])."),
        (LEAF + BACK + "print(x.grad[0].item())", "`x.grad`: tensor([2., 4.])."),
        (LEAF + BACK + "y2 = x.sum()\ny2.backward()\nprint(x.grad)", "`x.grad`: tensor([3., 5.])."),
        (LEAF + BACK + "print(x.grad)\nx.grad.zero_()", "`x.grad`: tensor([2., 4.])."),
        (LEAF + "print(x.grad)\n" + BACK, "`x.grad`: None, for no `backward()`"),
        (LEAF + "z = torch.ones(2, requires_grad=True)\n" + BACK + "print(z.grad)", "`z.grad`: None"),
        ("def main():\n    x = torch.ones(2, requires_grad=True)\n    (x ** 3).sum().backward()\n    print(x.grad)\nmain()", "tensor([3., 3.])"),
        ("lin = torch.nn.Linear(2, 1)\nloss = lin(torch.ones(1, 2)).sum()\nloss.backward()\nprint(lin.weight.grad)", "tensor([[1., 1.]])"),
        (LEAF + "noise = torch.randn(2)\ny = (x * noise).sum()\ny.backward()\nprint(x.grad)", "tensor("),
    ],
)  # fmt: skip
def test_printed_gradients_are_told(program: str, shown: str) -> None:
    answer = asked(program, seed=0)
    assert shown in said(answer, "printed"), answer.notes


def test_what_is_printed_of_random_numbers_is_the_gradient_that_is_answered() -> None:
    answer = asked(LEAF + "n = torch.randn(2)\ny = (x * n).sum()\ny.backward()\nprint(x.grad)", seed=3, want=("gradient",))
    printed = said(answer, "printed")
    numbers = [float(word) for word in printed[printed.index("[") + 1 : printed.index("]")].split(",")]
    assert np.allclose(arrays(answer.results)["gradient"]["x"], numbers, atol=1e-4)
    assert "In full" not in printed


def test_of_what_a_loop_prints_the_last_is_told() -> None:
    text = LEAF + "for i in range(3):\n    y = (x ** 2).sum()\n    y.backward()\n    print(x.grad)"
    assert "`x.grad` (3 times, the last time): tensor([ 6., 12.])" in said(asked(text), "printed")


NET = "net = torch.nn.Linear(2, 1)\nnet(torch.ones(1, 2)).sum().backward()\n"


@pytest.mark.parametrize(
    "shows", ["for name, p in net.named_parameters():\n    print(name, p.grad)", "print([p.grad for p in net.parameters()])"]
)
def test_of_several_weights_each_is_told(shows: str) -> None:
    sentence = said(asked(NET + shows, seed=0), "printed")
    assert "of net.weight: tensor([[1., 1.]])" in sentence
    assert "of net.bias: tensor([1.])" in sentence


@pytest.mark.parametrize(
    ("program", "line", "reason", "instead"),
    [
        ("x = torch.randn(3)\ny = x * 2\ny.sum().backward()\nprint(x.grad)", 4, "does not require grad", "(line 2)"),
        (LEAF + "z = x.argmax().float()\nz.backward()", 4, "does not require grad", "cut the path"),
        (LEAF + "z = x.detach().sum()\nz.backward()", 4, "does not require grad", "cut the path"),
        (LEAF + "with torch.no_grad():\n    z = x.sum()\nz.backward()", 5, "does not require grad", "cut the path"),
        (LEAF + "z = x.exp().sum()\nz.backward()\nz.backward()\nprint(x.grad)", 5, "freed", "retain_graph=True"),
        (LEAF + "h = x.exp()\nh.sum().backward()\nh.mean().backward()", 5, "line 3", "retain_graph=True"),
        (
            LEAF + "z = x.exp().sum()\ng, = torch.autograd.grad(z, x)\nh, = torch.autograd.grad(z, x)\nz",
            5,
            "line 3",
            "retain_graph=True",
        ),
        (LEAF + "z = x.exp().sum()\ng, = torch.autograd.grad(z, x)\nz.backward()\nz", 5, "freed", "retain_graph=True"),
        (LEAF + "z = x.exp().sum()\nz.backward()\ng, = torch.autograd.grad(z, x)\nz", 5, "freed", "retain_graph=True"),
        (LEAF + "y = x * 2\ny.sum().backward()\nprint(y.grad)", 5, "computed", "retain_grad()"),
    ],
)
def test_explain_names_what_pytorch_refuses(program: str, line: int, reason: str, instead: str) -> None:
    report = asked(program, want=("explain",), seed=0).results["explain"]
    findings = report["outputs"]["output"]["findings"]
    assert any(
        f["because"].get("line") == line and reason in f["because"]["reason"] and instead in (f["instead"] or "")
        for f in findings
    ), findings


@pytest.mark.parametrize(
    "program",
    [
        LEAF + "z = x.exp().sum()\nz.backward(retain_graph=True)\nz.backward()\nprint(x.grad)",
        LEAF + "for i in range(2):\n    z = x.exp().sum()\n    z.backward()\nprint(x.grad)",
        LEAF + "z = x.sum()\nz.backward()\nz.backward()\nprint(x.grad)",
        LEAF + "z = x.exp().sum()\ng, = torch.autograd.grad(z, x, retain_graph=True)\nh, = torch.autograd.grad(z, x)\ng + h",
        LEAF + "h = x.exp()\ng, = torch.autograd.grad((h * h).sum(), h)\nk, = torch.autograd.grad(h.sum(), x)\ng + k",
        LEAF
        + "z = (x ** 2).sum()\ng, = torch.autograd.grad(z, x, create_graph=True)\nh, = torch.autograd.grad((g * x).sum(), x)\n"
        "z.backward()\nh",
        "w = torch.nn.Parameter(torch.ones(2))\nopt = torch.optim.SGD([w], lr=0.1)\nfor i in range(3):\n    opt.zero_grad()\n"
        "    loss = (w ** 2).sum()\n    loss.backward()\n    opt.step()",
        "w = torch.zeros(2, requires_grad=True)\nfor i in range(3):\n    loss = ((w - 1) ** 2).sum()\n    loss.backward()\n"
        "    with torch.no_grad():\n        w -= 0.1 * w.grad\n        w.grad.zero_()",
        "a = torch.ones(2)\nfor i in range(2):\n    a.requires_grad_(True)\n    loss = (a ** 3).sum()\n    loss.backward()\n"
        "    a = (a + a.grad.sign()).detach()",
        "w = torch.zeros(2, requires_grad=True)\nfor i in range(3):\n    loss = ((w - 1) ** 2).sum()\n    loss.backward()\n"
        "    w.data -= 0.1 * w.grad.data\n    w.grad = None",
    ],
)
def test_what_pytorch_takes_has_no_remark(program: str) -> None:
    assert said(asked(program), "leaf") == ""


def test_where_no_derivative_leads_the_gradient_is_none_and_not_zero() -> None:
    custom = (
        "class Mul(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, a, b):\n        ctx.save_for_backward(a, b)\n"
        "        return a * b\n    @staticmethod\n    def backward(ctx, g):\n        a, b = ctx.saved_tensors\n        return g * b, None\n"
        "b = torch.ones(2, requires_grad=True)\n"
    )
    answer = asked(custom + LEAF + "Mul.apply(x, b).sum().backward()\nprint(x.grad, b.grad)")
    assert "`x.grad`: tensor([1., 1.])" in said(answer, "printed")
    assert "`b.grad`: None" in said(answer, "printed")
    with pytest.raises(PullbackError) as caught:
        asked(LEAF + "y = (x ** 3).sum()\ng, = torch.autograd.grad(y, x)\nh, = torch.autograd.grad(g.sum(), x)\nh")
    assert "create_graph=True" in str(caught.value.fix)


@pytest.mark.parametrize(
    "program",
    [
        "lstm = torch.nn.LSTM(2, 3)\nout, state = lstm(torch.ones(1, 1, 2))\nout, state = lstm(torch.ones(1, 1, 2), state)\nout.sum()",
        "emb = torch.nn.Embedding(4, 2)\nemb(torch.LongTensor([1, 3])).sum()",
        "x = torch.autograd.Variable(torch.ones(2), requires_grad=True)\n(x ** 2).sum()",
        "model = torch.nn.Linear(2, 1)\nparams = dict(model.named_parameters())\ndef loss(p):\n    return torch.func.functional_call(model, p, "
        "(torch.ones(2),)).sum()\ng = torch.func.grad(loss)(params)\nprint(g)",
    ],
)
def test_forms_that_pastes_have(program: str) -> None:
    assert asked(program, seed=0).results["outputs"]


def test_a_variable_of_what_was_computed_is_a_new_leaf() -> None:
    program = "h = torch.autograd.Variable(w * torch.tensor([1.0, 2.0]), requires_grad=True)\n(h ** 2).sum()"
    answer = ask(program=program, inputs={"w": [3.0, 4.0]}, want=("vjp",))
    tree = arrays(answer.results)
    assert tree["vjp"]["h"].tolist() == [6, 16]
    assert tree["vjp"]["w"].tolist() == [0, 0]
    assert any(note.code == "disconnected" for note in answer.notes)


def test_the_output_stays_the_loss() -> None:
    answer = asked(LEAF + BACK + "print(x.grad)", want=("outputs", "gradient"))
    tree = arrays(answer.results)
    assert tree["outputs"]["output"] == 5
    assert tree["gradient"]["x"].tolist() == [2, 4]


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (LEAF + "h = x * 2\ny = (h ** 2).sum()\ny.backward()\nh.grad", "gradient of leaves alone"),
        (LEAF + "h = x * 2\ny = (h ** 2).sum()\ny.backward()\nprint(h.grad)", "is None"),
        (LEAF + "x = x * 2\n" + BACK + "x.grad", "gradient of leaves alone"),
        ("w = torch.zeros(2, requires_grad=True) + 1\ny = w.sum()\ny.backward()\nw.grad", "gradient of leaves alone"),
        ("x = torch.tensor([1.0, 2.0], requires_grad=True).double()\n" + BACK + "print(x.grad)", "its `.grad` is None"),
        (
            "x = torch.tensor([1.0, 2.0], requires_grad=True).to(torch.float64)\n" + BACK + "print(x.grad)",
            "its `.grad` is None",
        ),
        ("x = torch.tensor([1.0, 2.0])\n" + BACK + "x.grad", "requires_grad=True"),
        ("x = torch.tensor([1.0, 2.0])\n" + BACK + "print(x.grad)", "requires_grad=True"),
    ],
)
def test_a_gradient_that_pytorch_does_not_keep_is_noted(program: str, reason: str) -> None:
    assert reason in said(asked(program), "leaf")


@pytest.mark.parametrize(
    "program",
    [
        LEAF + BACK + "x.grad",
        LEAF + "h = x * 2\nh.retain_grad()\ny = (h ** 2).sum()\ny.backward()\nh.grad",
        "x = torch.tensor([1.0, 2.0])\nx.requires_grad_()\n" + BACK + "x.grad",
        "x = torch.tensor([1.0, 2.0])\nx.requires_grad = True\n" + BACK + "x.grad",
        LEAF + "x = (x * 2).detach().requires_grad_()\n" + BACK + "x.grad",
        LEAF + BACK + "with torch.no_grad():\n    x -= 0.1 * x.grad\nx.grad",
        "p = torch.nn.Parameter(torch.ones(2))\ny = p.sum()\ny.backward()\np.grad",
    ],
)
def test_a_leaf_is_not(program: str) -> None:
    assert said(asked(program), "leaf") == ""


@pytest.mark.parametrize(
    ("program", "is_noted"),
    [
        ("x += 1\n(x ** 2).sum()", True),
        ("x[0] = 0\n(x ** 2).sum()", True),
        ("v = x[1:]\nv.mul_(2)\n(x ** 2).sum()", True),
        ("with torch.no_grad():\n    x += 1\n(x ** 2).sum()", False),
        ("y = x * 1\ny += 1\ny[0] = 0\n(y ** 2).sum()", False),
    ],
)
def test_a_write_into_an_input_is_noted_as_one_into_a_leaf(program: str, is_noted: bool) -> None:
    assert ("into a leaf" in said(asked(program, inputs={"x": [1.0, 2.0]}), "leaf")) is is_noted


def test_an_input_is_a_leaf() -> None:
    assert said(asked("x = x.double()\n" + BACK + "x.grad", inputs={"x": [1.0, 2.0]}), "leaf") == ""


@pytest.mark.parametrize(
    "copy", ["torch.tensor(h)", "torch.tensor([h[0], h[1]])", "torch.Tensor([h[0], 1.0])", "h.new_tensor(h)"]
)
def test_a_copy_of_numbers_passes_no_derivative(copy: str) -> None:
    program = LEAF + f"h = x * 2\nt = {copy}\n(t ** 2).sum()"
    with pytest.raises(PullbackError, match="not_differentiable"):
        asked(program, want=("gradient",))
    entry = asked(program, want=("explain",)).results["explain"]["inputs"]["x"]
    assert entry["verdict"] == "disconnected"
    assert entry["because"]["line"] == 4
    assert "copies the numbers" in entry["because"]["reason"]


@pytest.mark.parametrize("copy", ["torch.as_tensor(h)", "torch.asarray(h)", "h.clone()"])
def test_a_tensor_that_is_handed_on_passes_it(copy: str) -> None:
    gradient = arrays(asked(LEAF + f"h = x * 2\nt = {copy}\n(t ** 2).sum()", want=("gradient",)).results)["gradient"]["x"]
    assert gradient.tolist() == [8, 16]


def test_a_copy_is_a_memory_of_its_own() -> None:
    output = arrays(asked("t = torch.tensor(x)\nt += 1\nreturn x", inputs={"x": [1.0, 2.0]}).results)["outputs"]["output"]
    assert output.tolist() == [1, 2]


def test_whole_numbers_cannot_require_grad() -> None:
    with pytest.raises(PullbackError) as caught:
        asked("x = torch.tensor([1, 2], requires_grad=True)\n" + BACK)
    assert caught.value.at == "2:5"
    assert "with a point" in str(caught.value.fix)


def test_where_values_come_from_is_told() -> None:
    assert said(asked(LEAF + BACK), "initialised") == "Not sent, so with the values that the program gives: x."
    text = "net = torch.nn.Linear(2, 1)\nb = torch.zeros(1, requires_grad=True)\nloss = (net(torch.ones(2)) + b).sum()"
    sentences = said(asked(text, seed=0), "initialised")
    assert "initialised as PyTorch does: net.weight, net.bias." in sentences
    assert "the program gives: b." in sentences


@pytest.mark.parametrize("opening", ["", "with torch.no_grad():\n    "])
@pytest.mark.parametrize("called", ["np.array(x)", "np.asarray(x)", "np.array([x[0], x[1]])", "x.numpy()"])
def test_numpy_takes_no_numbers_of_what_requires_grad(called: str, opening: str) -> None:
    text = f"import numpy as np\n{LEAF}{opening}a = {called}\n(torch.tensor(a) * x).sum()"
    if opening:  # PyTorch refuses only where derivatives are followed
        assert arrays(asked(text, want=("gradient",)).results)["gradient"]["x"].tolist() == [1, 2]
        return
    with pytest.raises(PullbackError) as caught:
        asked(text, want=("gradient",))
    assert caught.value.at == "4:5"
    assert "can't call numpy()" in caught.value.detail
    assert "detach()" in str(caught.value.fix)


@pytest.mark.parametrize("called", ["np.array(x.detach() * 2)", "np.asarray((x * 2).tolist())", "(x * 2).detach().numpy()"])
def test_numpy_takes_detached_numbers(called: str) -> None:
    text = f"import numpy as np\n{LEAF}a = {called}\n(torch.tensor(a) * x).sum()"
    assert arrays(asked(text, want=("gradient",)).results)["gradient"]["x"].tolist() == [2, 4]


@pytest.mark.parametrize(
    ("freezing", "bias"),
    [
        ("net.weight.requires_grad_(False)", True),
        ("net.weight.requires_grad = False", True),
        ("net.requires_grad_(False)", False),
    ],
)
def test_a_weight_frozen_after_its_backward_is_stepped_once_more(freezing: str, bias: bool) -> None:
    net = torch.nn.Linear(2, 1).double()
    x, weight = torch.tensor([[1.0, 2.0], [3.0, 5.0]], dtype=torch.float64), net.weight.detach().clone()
    start = net.bias.detach().clone()
    text = f"opt = torch.optim.SGD(net.parameters(), lr=0.1)\nnet(x).sum().backward()\n{freezing}\nopt.step()\n"
    exec(text, {"net": net, "x": x, "torch": torch})  # noqa: S102 (a text of this test)
    inputs = {"x": x.numpy(), "net.weight": weight.numpy(), "net.bias": start.numpy()}
    answer = asked("net = torch.nn.Linear(2, 1)\n" + text + "net(x).sum()", inputs=inputs, want=("outputs", "gradient"))
    np.testing.assert_allclose(arrays(answer.results)["outputs"]["output"], net(x).sum().detach(), 1e-12)
    assert "requires_grad" not in said(answer, "ignored")
    assert "`net.weight`" in said(answer, "frozen")
    assert ("`net.bias`" in said(answer, "frozen")) is not bias


def test_what_is_frozen_is_said_only_where_the_derivatives_are_left_open() -> None:
    text = "net = torch.nn.Linear(2, 1)\nnet.weight.requires_grad = False\nnet(x).sum()"
    inputs = {"x": [[1.0, 2.0]], "net.weight": [[1.0, 2.0]], "net.bias": [0.0]}
    assert said(asked(text, inputs=inputs, want=("gradient",)), "frozen")
    assert not said(asked(text, inputs=inputs, want=("gradient",), wrt=("x",)), "frozen")
    assert not said(asked(text, inputs=inputs, want=("outputs",)), "frozen")


@pytest.mark.parametrize("kind", ["gradient", "vjp"])
@pytest.mark.parametrize(
    ("program", "line", "end"),
    [
        ("y = (x * 2).sum()\nval = y.detach().numpy()", 3, "y = (x * 2).sum()"),
        ("y = (x * 2).sum()\nz = y.detach()\nw = z * 2\nval = w + 1", 3, "y = (x * 2).sum()"),
        ("h = x * 2\nwith torch.no_grad():\n    y = h.sum()\ny", 4, "h = x * 2"),
    ],
)
def test_the_line_that_cuts_the_path_to_the_output_is_named(program: str, line: int, end: str, kind: str) -> None:
    with pytest.raises(PullbackError) as caught:
        asked(program, inputs={"x": [1.0, 2.0]}, want=(kind,))
    assert caught.value.code == "not_differentiable"
    assert f"line {line}, `" in caught.value.detail
    assert f"`{end}`" in str(caught.value.fix)
