"""What is advised in a refusal is accepted; one refusal names all lines that cannot be read."""

from __future__ import annotations

import pytest
import torch

from app.errors import PullbackError
from tests.program.building import built

INPUTS = {
    "x": torch.tensor([[0.5, -1.25, 2.0], [1.5, 0.25, -0.75]], dtype=torch.float64),
    "w": torch.ones(4, 3, dtype=torch.float64),
    "label": torch.tensor([0, 1]),
}
_NET = "class N(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.fc1 = nn.Linear(3, 2)\n    def forward(self, x):\n"

# refused, words of its advice, the same with the advice followed
ADVICE = [
    ("(x^2).sum()", "`x**2`", "(x**2).sum()"),
    ("torch.softmax(x)", "dim=-1", "torch.softmax(x, dim=-1)"),
    ("torch.where(x > 0) + 1", "[0]", "torch.where(x > 0)[0] + 1"),
    ("x.foo()\nx", "", "x.abs()"),
    ("y = np.exp(x)", "torch.exp", "y = torch.exp(x)"),
    ("d = {[1]: x}\nd[1]", "a tuple", "d = {(1,): x}\nd[(1,)]"),
    ("d = {[k]: x for k in (1, 2)}\nd[1]", "a number", "d = {k: x for k in (1, 2)}\nd[1]"),
    (_NET + "        return self.fc(x)\nN()(x)", "`fc1`", _NET + "        return self.fc1(x)\nN()(x)"),
    ("nn.Lineer(3, 2)(x)", "`nn.Linear`", "nn.Linear(3, 2)(x)"),
    ("a, b = x\na += 1\na", ".clone()", "a, b = x\na = a.clone()\na += 1\na"),
    ("a, b = x\na += 1\na", "y[:, :2] *= 2", "y = x.clone()\ny[:, :2] *= 2\ny"),
    ("y = x[0].expand(2, 3)\ny += 1\ny", "clone()", "y = x[0].expand(2, 3)\ny = y.clone()\ny += 1\ny"),
    ("y = torch.arange(3)\ny += 0.5\ny", "y.double()", "y = torch.arange(3)\ny = y.double()\ny += 0.5\ny"),
    ("y = torch.zeros(3, requires_grad=True)\ny += 1\ny", "x.clone()", "y = torch.zeros(3, requires_grad=True)\nz = y.clone()\nz += 1\nz"),
    ("y = torch.zeros(3)\ny += x\ny", "y = y + z", "y = torch.zeros(3)\ny = y + x\ny"),
    ("if x > 0:\n    y = 1\ny", ".all()", "if (x > 0).all():\n    y = 1\nelse:\n    y = 2\ny"),
    ("x.item()", ".sum()", "x.sum().item() * x"),
    ("torch.autograd.grad(x * 2, x)", "grad_outputs=torch.ones_like(y)", "y = x * 2\ntorch.autograd.grad(y, x, grad_outputs=torch.ones_like(y))[0]"),
    ("torch.autograd.grad(x.sum(), w)", "allow_unused=True", "g = torch.autograd.grad(x.sum(), w, allow_unused=True)\nx"),
    ("x.backward()", ".sum()", "x.sum().backward()"),
    ("torch.func.grad(lambda a: a)(x)", "jacrev", "torch.func.jacrev(lambda a: a)(x)"),
    ("torch.func.grad(x)", "lambda x:", "torch.func.grad(lambda x: x.sum())(x)"),
    ("torch.func.jvp(torch.sin, x, x)", "(x,), (v,)", "torch.func.jvp(torch.sin, (x,), (x,))[1]"),
    ("torch.func.grad(lambda a: F.alpha_dropout(a, training=True).sum())(x)", "rand_like(x) > p", "m = (torch.rand_like(x) > 0.5) / 0.5\ntorch.func.grad(lambda a: (a * m).sum())(x)"),
    ("class A(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, x): return x.sign()\nA.apply(x)", "def backward(ctx, grad)",
     "class A(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, x): return x.sign()\n    @staticmethod\n    def backward(ctx, grad): return grad\nA.apply(x)"),
    ("class A(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, x): return x.sign()\n    @staticmethod\n    def backward(ctx, grad): return grad\ntorch.autograd.gradcheck(A.apply, (x,))", "check",
     "class A(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, x): return x.sign()\n    @staticmethod\n    def backward(ctx, grad): return grad\nA.apply(x)"),
    ("nn.ModuleList([nn.ReLU()])(x)", "for layer in layers", "layers = nn.ModuleList([nn.ReLU()])\nfor layer in layers: x = layer(x)\nx"),
    ("x.view(3, -1) @ w", "", "x @ w.T"),
    ("loss = nn.CrossEntropyLoss(x, label)", "", "loss = nn.CrossEntropyLoss()(x, label)"),
    ("v = torch.zeros(3, requires_grad=True)\nopt = torch.optim.Rprop([v])\nx", "w -= lr * w.grad",
     "v = torch.zeros(3, requires_grad=True)\nloss = ((x - v) ** 2).sum()\nloss.backward()\nlr = 0.1\nwith torch.no_grad(): v -= lr * v.grad\nv"),
    ("import copy\nv = nn.Parameter(torch.zeros(3))\nopt = torch.optim.SGD([v], lr=0.1)\nother = copy.deepcopy({'opt': opt})\nx", "Construct another",
     "v = nn.Parameter(torch.zeros(3))\nopt = torch.optim.SGD([v], lr=0.1)\nother = torch.optim.SGD([v], lr=0.1)\nx"),
    ("from mylib import f\ny = f(x)", "Paste the lines", "def f(x):\n    return x\ny = f(x)"),
    ("with open('a') as f:\n    y = x\nx", "without `with`", "y = x\nx"),
    ("'%d %d' % (1,)\nx", "a value for each", "'%d %d' % (1, 2)\nx"),
    ("'%d' % (1, 2)\nx", "a `%` for each value", "'%d %d' % (1, 2)\nx"),
    ("'%1000d' % 1\nx", "`%.3f`", "'%.3f' % 1\nx"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "words", "instead"), ADVICE, ids=[case[0][:60] for case in ADVICE])
def test_what_is_advised_is_accepted(text: str, words: str, instead: str) -> None:
    with pytest.raises(PullbackError) as caught:
        built(text, INPUTS)
    assert words in f"{caught.value.detail} {caught.value.fix}", caught.value.fix
    built(instead, INPUTS)


def test_all_lines_that_cannot_be_read_are_named() -> None:
    text = "y = foo(x)\nz = x + y\nq = x.bar()\nclass A: x = b''\nr = x @ q\ndef f(a):\n    return a.baz()\nf(x)\n"
    with pytest.raises(PullbackError) as caught:
        built(text, INPUTS)
    assert [problem.at for problem in caught.value.problems] == ["1:5", "3:5", "4:14", "7:12"]
    assert caught.value.at == "1:5"
    assert [entry["at"] for entry in caught.value.problem()["problems"]] == ["1:5", "3:5", "4:14", "7:12"]


def test_what_is_left_out_is_noted_once() -> None:
    function = built("import torch\nprint(x)\ny = x.cuda()\ny.sum().backward()", INPUTS)
    (note,) = [message for code, _, message in function.notes if code == "ignored"]
    for words in ("line 1: `import torch`", "line 2: `print`", "line 3: `.cuda()`"):
        assert words in note
