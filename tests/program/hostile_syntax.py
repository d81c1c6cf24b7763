"""Hostile texts in the newer parts of the language: functions, classes, writes, modules, derivatives, loops on values."""

from __future__ import annotations

from typing import Final

_FUNCTIONS = [
    "f = lambda: f\nf()()()", "f = lambda: f()\nf()", "(lambda f: f(f))(lambda f: f(f))", "(lambda f: f(f)(f))(lambda f: f)",
    "y = lambda f: (lambda a: a(a))(lambda a: f(lambda v: a(a)(v)))\ny(lambda f: lambda n: f(n))(x)",
    "def f(): return g()\ndef g(): return f()\nf()", "def f(n): return f(n - 1) if n else x\nf(100000)", "def f(*a): return f(*a, *a)\nf(x)",
    "def f(k=f): return k\nf()", "def f(a, a): return a\nf(x, x)", "def f(a, /, b, *, c): return a\nf(x)", "def f(**k): return f(**k)\nf()",
    "f = [lambda: 0]\nfor i in range(200):\n    f.append(lambda g=f[-1]: g())\nf[-1]()", "def f():\n    global f\n    f = x\n    return f\nf()",
    "def f():\n    nonlocal y\n    y = 1\nf()", "global x\nx", "def f(x):\n    def g(): return f(x)\n    return g()\nf(x)",
    "map(lambda a: map(lambda b: b, x), x)", "list(map(lambda a: list(map(lambda b: b, range(3000))), range(3000)))", "reduce(lambda a, b: a, range(10 ** 9))",
    "from functools import reduce\nreduce(lambda a, b: [a, b], range(60))", "from functools import partial\np = partial(partial, partial)\nfor i in range(1000):\n    p = p(partial)\np",
    "filter(lambda a: a, x)", "sorted([3, 1], key=lambda a: x)", "sorted(range(9000), key=lambda a: [b for b in range(9000)])",
    "import itertools\nlist(itertools.product(range(1000), repeat=30))", "import itertools\nlist(itertools.permutations(range(5000)))",
    "import itertools\nlist(itertools.chain(*[range(9000)] * 9000))", "import itertools\nitertools.count()", "import itertools\nlist(itertools.combinations(range(100), 50))",
    "[lambda: i for i in range(20000)]", "f = lambda: (yield)\nf()", "lambda *, a: a", "f'{x}'", "f'{9 ** 9 ** 9}'", "f'{1:>99999999}'", "s = 'a'\nfor i in range(60):\n    s = s + s\ns",
    "s = 'a'\nfor i in range(60):\n    s = f'{s}{s}'\ns", "'a' * 10 ** 9", "str(10 ** 70)", "str(x)", "'a'.format(x)", "'{}'.join(['a'])", "'a'.__class__", "f'{().__class__}'",
    "(lambda: __import__('os'))()", "(lambda: x.__class__)()", "f = getattr\nf(x, 'data')", "getattr(x, '__class__')", "setattr(x, 'a', 1)\nx", "hasattr(x, '__dict__')",
    "isinstance(x, type)", "type(x)(x)", "type('A', (), {})()", "object()", "super().__init__()", "super(x, w)", "vars()", "dict(__class__=1)['__class__'].x",
    "import os.path", "import torch._C", "from torch import _C", "from torch._C import _jit_clear_class_registry", "import torch.utils.cpp_extension as t\nt.load('a')",
    "from torch import load\nload('/etc/passwd')", "from torch.hub import load\nload('a', 'b')", "import numpy\nnumpy.load('/etc/passwd')", "import numpy as np\nnp.fromfile('/etc/passwd')",
    "from numpy import memmap\nmemmap('/etc/passwd')", "import torch as os\nos.system('id')", "import torch.os as o\no.system('id')", "from torch.serialization import os\nos.system('id')",
    "from torch import os\nos.system('id')", "import math as m\nm.__loader__", "import typing\ntyping.sys.exit()", "from collections import abc\nabc.sys.modules",
    "import functools\nfunctools.sys.exit()", "import itertools as i\ni.__spec__", "from torch.nn import modules\nmodules.module.os.system('id')", "torch.nn.modules.module.sys.exit()",
    "F.os.system('id')", "nn.functional.warnings.sys.exit()", "np.os.system('id')", "math.sys", "from __future__ import braces\nx", "from os import *\nx", "from torch.utils.data import os\nos.getcwd()",
    "torch.autograd.os", "torch.distributions.os.system('id')", "from torch.distributions import *\nos.system('id')", "torch.func.sys", "torch.optim.os.system('id')",
]  # fmt: skip
_CLASSES = [
    "class A: pass\nA().__class__", "class A:\n    def __del__(self): pass\nA()", "class A:\n    def __getattr__(self, n): return self\nA().b", "class A(A): pass\nA()",
    "class A(x): pass\nA()", "class A(object, metaclass=type): pass\nA()", "class A(torch.Tensor): pass\nA(x)", "class A(nn.Linear): pass\nA(3, 2)(x)", "class A(torch.autograd.Function): pass\nA.apply(x)",
    "class A(torch.autograd.Function):\n    def forward(ctx, x): return A.apply(x)\n    def backward(ctx, g): return g\nA.apply(x)",
    "class A(torch.autograd.Function):\n    def forward(ctx, x): return x\n    def backward(ctx, g): return A.apply(g)\nA.apply(x)",
    "class A(torch.autograd.Function):\n    def forward(ctx, x): return ctx\n    def backward(ctx, g): return ctx\nA.apply(x)",
    "class A(nn.Module):\n    def forward(self, x): return self(x)\nA()(x)", "class A(nn.Module):\n    def __init__(self): self.a = A()\nA()(x)",
    "class A:\n    def __init__(self):\n        self.a = self\nA().a.a.a.a", "class A:\n    def __call__(self): return self()\nA()()", "class A:\n    def __getitem__(self, i): return self[i]\nA()[0]",
    "class A(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.a = self\n        self.w = nn.Parameter(x)\n    def forward(self, x): return x * self.a.a.w\nA()(x)",
    "class A(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.a = nn.ModuleList()\n        self.a.append(self.a)\n    def forward(self, x): return x\nA().apply(lambda m: m)",
    "class A(nn.Module):\n    def __init__(self):\n        self.a = self\n    def forward(self, x): return x\nA().apply(print)", "class A(nn.Module):\n    def forward(self): return super().forward()\nA()()",
    "class A:\n    x = [i for i in range(10 ** 9)]\nA()", "class A:\n    import os\nA()", "class A:\n    def f(self): return self.__dict__\nA().f()", "class A:\n    def f(self): return self._secret\nA().f()",
    "class A: pass\nA.a = 1\nA.__subclasses__()", "class A: pass\na = A()\na.__class__ = A\na", "class A: pass\nsetattr(A(), '__class__', 1)", "class A: pass\ngetattr(A(), '__init__')", "nn.Module().__dict__",
    "nn.Linear(3, 2).__class__", "nn.Linear(3, 2).forward.__globals__", "nn.Linear(3, 2)._parameters", "nn.Linear.__init__", "nn.Linear(3, 2).register_forward_hook(print)", "nn.Module.__subclasses__()",
    "nn.Linear(10 ** 9, 10 ** 9)(x)", "nn.Linear(10 ** 30, 2)(x)", "nn.Linear(-1, 2)(x)", "nn.Linear('a', 2)(x)", "nn.Linear(x, 2)(x)", "nn.Linear(3)(x)", "nn.Linear()(x)", "nn.Linear(3, 2, device=x)(x)", "nn.Linear(2.5, 2)(x)",
    "nn.LSTM(3, 2, num_layers=10 ** 6)(x)", "nn.LSTM(3, 2, 10 ** 6)(x)", "nn.LSTM(10 ** 6, 10 ** 6)(x)", "nn.Transformer(num_encoder_layers=10 ** 5)(x, x)", "nn.Transformer(512, 8, 10 ** 5)(x, x)", "nn.TransformerEncoder(nn.TransformerEncoderLayer(2, 1), 10 ** 6)(x)",
    "nn.TransformerEncoder(x, 2)(x)", "nn.Sequential(x)(x)", "nn.Sequential(1, 2)(x)", "nn.Sequential(*[nn.ReLU()] * 9000)(x)", "nn.Sequential(nn.Linear)(x)", "nn.ModuleList([nn.Linear(3, 2)])(x)", "nn.ModuleDict({'a': x})['b']", "nn.Embedding(10 ** 9, 10 ** 9)(x)",
    "nn.Embedding(3, 2, max_norm=1.0)(x)", "nn.Conv2d(10 ** 5, 10 ** 5, 10 ** 3)(x)", "nn.Conv2d(3, 2, 0)(x)", "nn.Conv2d(3, 2, 3, padding_mode='evil')(x)", "nn.MultiheadAttention(3, 2)(x, x, x)", "nn.Upsample(scale_factor=10 ** 9)(x[None, None])", "nn.AdaptiveAvgPool2d(10 ** 9)(x[None])",
    "nn.ZeroPad2d(10 ** 9)(x)", "nn.Unflatten(0, (10 ** 9, -1))(x)", "nn.CrossEntropyLoss(weight='a')(x, w)", "nn.CrossEntropyLoss()(x)", "nn.MSELoss()(x)", "nn.MSELoss(reduction='evil')(x, x)", "nn.ReLU(x)(x)", "nn.Dropout(p=7)(x)", "nn.GELU(approximate=x)(x)",
    "nn.Parameter()", "nn.Parameter('a')", "nn.Parameter(3)", "nn.init.evil_(x)", "nn.init.uniform_('a')", "nn.init.orthogonal_(torch.zeros(3))", "nn.init.__dict__", "nn.utils.clip_grad_norm_('a', 1)", "nn.utils.parametrize.register_parametrization(x, 'a', x)",
    "torch.optim.SGD([x], lr=1).__class__", "torch.optim.SGD([x]).step()\nx * 2", "nn.DataParallel(nn.Linear(3, 2))(x)", "nn.Lineer(3, 2)(x)", "nn.Sequential(nn.Linear(3, 2))[5](x)", "nn.Linear(3, 2).weight.evil", "nn.Linear(3, 2).evil()", "nn.Linear(3, 2)[0]", "len(nn.Linear(3, 2))",
]  # fmt: skip
_WRITES = [
    "x[5] = 1\nx", "x['a'] = 1\nx", "x[0] = 'a'\nx", "x[0] = [x]\nx", "x[x] = 1\nx", "x[0] = w\nx", "x[:, :, 0] = 1\nx", "x[0][0][0] = 1\nx", "x += w\nx", "x += 'a'\nx", "x @= x\nx", "x.add_(w)", "x.add_('a')", "x.evil_()", "x.__setitem__(0, 1)",
    "x.expand(5, 2, 3)[0] = 1\nx", "y = x[0].expand(2, 3)\ny += 1\ny", "x.long().add_(0.5)", "y = torch.arange(3)\ny += 0.5\ny", "y = torch.zeros(3, requires_grad=True)\ny += 1\ny", "x.resize_(10 ** 9)", "x.set_(w)", "x.as_strided_((10 ** 9,), (0,))", "x.as_strided((10 ** 9,), (1,))",
    "x.as_strided((9,), (1,), 100)", "x.data_ptr()", "x.storage()[0]", "x.untyped_storage()", "x.data = 'a'\nx", "x.grad = w\nx.evil", "x.shape = (6,)\nx", "x.T = w\nx", "x.dtype = 1\nx", "x.requires_grad = w\nx.evil", "x._grad = w\nx", "y = x\nfor i in range(3000):\n    y = y[:]\ny[0] = 1\ny",
    "r = x\nfor i in range(300):\n    r = r.view(-1)\nfor i in range(2000):\n    r += 1\nx", "y = [x[i % 2] for i in range(1500)]\nfor r in y:\n    r += 1\nx", "y = torch.zeros(10 ** 5, 10 ** 5)\ny[0] = 1\ny", "y = torch.zeros(3000, 3000)\nfor i in range(3000):\n    y[i] = i\ny[0]",
    "for i in range(5000):\n    x[0, 0] += 1\nx", "a, b = x\na += b\na", "for r in x:\n    r += 1\nx", "x.unbind()[0].add_(1)\nx", "x.chunk(2)[0].zero_()\nx", "torch.add(x, 1, out=w)\nw", "torch.add(x, 1, out='a')", "x.uniform_(1, 0)", "x.normal_(0, -1)", "x.random_(10 ** 30)", "x.fill_(w)", "x.copy_(w)", "x.copy_('a')",
    "x.scatter_(0, x, x)", "x.scatter_(9, w, x)", "x.index_add_(0, x, x)", "x.masked_fill_(x, 0)", "x.fill_diagonal_('a')", "x.clamp_()", "x.t_().evil", "x.unsqueeze_(99)", "x.squeeze_('a')", "F.relu(x[0].expand(9, 3), inplace=True)", "torch.evil_(x)", "del x\nx", "del x[0]\nx", "del x.T\nx", "del y",
    "with x: pass", "with open('a') as f: pass", "with torch.autocast('cpu'):\n    x", "with torch.no_grad(", "with torch.evil():\n    x", "with torch.no_grad() as g:\n    x\ng.evil", "async with x: pass", "with torch.set_grad_enabled(x):\n    x",
]  # fmt: skip
_DERIVATIVES = [
    "torch.func.grad(x)", "torch.func.grad()(x)", "torch.func.grad(lambda a: a)(x)", "torch.func.grad(lambda a: 1)(x)", "torch.func.grad(lambda a: a.sum())()", "torch.func.grad(lambda a: a.sum(), argnums=5)(x)", "torch.func.grad(lambda a: a.sum(), argnums='a')(x)", "torch.func.grad(lambda a: a.sum(), evil=1)(5)",
    "f = lambda a: a.sum()\nfor i in range(50):\n    f = torch.func.grad(f)\nf(x[0, 0])", "f = lambda a: (a ** 9).sum()\nfor i in range(8):\n    g = f\n    f = lambda a, g=g: torch.func.grad(g)(a).sum()\nf(x)", "y = (x ** 9).sum()\nfor i in range(9):\n    y = torch.autograd.grad(y, x, create_graph=True)[0].sum()\ny",
    "torch.func.jacrev(torch.func.jacrev(torch.func.jacrev(torch.func.jacrev(lambda a: a ** 5))))(x)", "torch.func.hessian(torch.func.hessian(lambda a: (a ** 5).sum()))(x)", "torch.func.vmap(lambda a: a)(5)", "torch.func.vmap(lambda a: a, in_dims=9)(x)", "torch.func.vmap(lambda a, b: a)(x, w)",
    "torch.func.vmap(torch.func.vmap(torch.func.vmap(lambda a: a)))(x)", "torch.func.vmap(lambda a: a.item())(x)", "torch.func.vmap(lambda a: 1)(x)", "torch.vmap(x)(x)", "torch.func.vjp(lambda a: a)", "torch.func.vjp(5, x)", "torch.func.vjp(lambda a: a, x)[1]()", "torch.func.vjp(lambda a: a, x)[1](w)",
    "torch.func.jvp(lambda a: a, x, x)", "torch.func.jvp(lambda a: a, (x,), (w,))", "torch.func.jvp()", "torch.func.functional_call(x, {}, x)", "torch.func.functional_call(nn.Linear(3, 2), {'evil': x}, (x,))", "torch.func.evil(x)", "torch.autograd.grad()", "torch.autograd.grad(x, x)", "torch.autograd.grad(x.sum(), w)",
    "torch.autograd.grad(5, x)", "torch.autograd.grad(x.sum(), 'a')", "torch.autograd.grad(x.sum(), x, is_grads_batched=True)", "torch.autograd.grad(x.sum(), x, grad_outputs=w)", "torch.autograd.grad(x.long().sum(), x)", "torch.autograd.backward(5)", "torch.autograd.functional.jacobian(5, x)", "torch.autograd.functional.evil(x)",
    "x.sum().backward().evil", "x.backward()\nx.grad.evil", "x.grad + 1", "x.sum().backward()\nw.grad + 1", "for i in range(3000):\n    x.sum().backward()\nx.grad", "y = [x]\nfor i in range(60):\n    y = [y, y]\ntorch.func.grad(lambda a: 1)(y)", "y = {}\ny['a'] = y\ntorch.func.grad(lambda a: 1)(y)", "y = [x]\ny.append(y)\ntorch.vmap(lambda a: a)(y)",
    "torch.func.grad(torch.func.grad)(x)", "torch.func.grad(nn.Linear(3, 2))(x)", "torch.func.grad(print)(x)", "torch.func.grad(lambda a: F.dropout(a).sum())(x)", "torch.compile(lambda a: a)(x)", "torch.jit.trace(lambda a: a, x)", "torch.fx.symbolic_trace(lambda a: a)", "torch.autograd.Function.apply(x)", "torch.autograd.graph.Node",
    "torch.distributions.Normal(x)", "torch.distributions.Normal(0, 1).evil", "torch.distributions.Normal(0, 1).evil(x)", "torch.distributions.Evil(x)", "torch.distributions.Normal('a', 1).log_prob(x)", "torch.distributions.Normal(0, 1).log_prob()", "torch.distributions.Normal(0, 1).log_prob('a')", "torch.distributions.Normal(0, 1).sample((10 ** 12,))",
    "torch.distributions.Normal(0, 1).sample((10 ** 6, 10 ** 6))", "torch.distributions.Binomial(10 ** 12, 0.5).enumerate_support()", "torch.distributions.VonMises(x, x).sample()", "torch.distributions.LKJCholesky(10 ** 6).sample()", "torch.distributions.kl_divergence(x, x)", "torch.distributions.kl.os", "torch.distributions.Normal(0, 1).__class__",
    "torch.distributions.Independent(x, 9).log_prob(x)", "torch.distributions.Categorical(x).log_prob(9)", "torch.distributions.MultivariateNormal(x, x).log_prob(x)", "y = [x]\nfor i in range(60):\n    y = [y, y]\ntorch.distributions.Normal(y, 1).log_prob(x)", "torch.distributions.transforms.os", "torch.distributions.TransformedDistribution(x, x).log_prob(x)",
]  # fmt: skip
_LOOPS = [
    "while True: pass\nx", "while True:\n    x = x + 1\nx", "while x.sum() < 1e9:\n    x = x + 1e-9\nx", "while x.sum() > -1:\n    pass\nx", "while 1: y = 1\nx", "while n:\n    n = n + 1\nx", "while x:\n    x = x\nx", "i = 0\nwhile i < 10 ** 9:\n    i += 1\nx * i", "while (y := 1):\n    pass\nx",
    "for i in range(10 ** 4):\n    for j in range(10 ** 4):\n        while True:\n            break\nx", "while x[0, 0] == x[0, 0]:\n    x = x * 1.0\nx", "if x:\n    y = x\ny", "if x == x:\n    y = x\ny", "y = 1 if x else 2\nx * y", "x.tolist()[0].evil", "torch.zeros(10 ** 5).tolist()", "x.item()", "int(x)", "float(x.sum().item() * 1e400)",
    "for i in range(int(x.sum() * 1e9)):\n    x = x + 1\nx", "zeros(int(x.abs().sum() * 1e12))", "[x] * int(x.abs().sum() * 1e9)", "assert False", "assert n == 4", "assert x.sum() > 1e9\nx.evil", "raise ValueError", "raise ValueError(f'{x}')", "raise\nx", "try:\n    x\nfinally:\n    x", "match x:\n    case _: x", "if x.sum() != 0: raise x",
    "exit()", "quit()", "input()", "breakpoint()", "print(__import__('os'))", "print(x.__class__)\nx", "assert __import__('os')\nx", "assert x.__class__\nx", "f'{__import__(chr(111))}'", "x: __import__('os') = 1\nx.evil", "def f(x: open('a')): return x.evil\nf(x)", "!cat /etc/passwd\nx", "%run evil.py\nx.evil", "$HOME\nx", ">>> import os\n>>> os.system('id')",
    ">>> x\n... \n>>> eval('1')", "```python\nimport os\n```", "In [1]: import os", "\u201ceval\u201d('1')", "x \u2212", "\u2018a\u2019.__class__", "import torch; import os; x", "import torch, os\nx", "from torch import nn, os as o\no.system('id')", "a, *b, *c = x\na", "*a = x\na", "a, *b = 5\na", "(a, *b), c = x\na", "x[*x]", "[*x, *5]", "{**x}", "{**{'a': x}, **5}", "f(**5)", "relu(*5)",
    "{i: i for i in range(10 ** 9)}", "{x: 1 for i in range(3)}", "{(1, 2): x}", "{'a': x for i in range(9)}['b']", "(y := x) + (z := y.evil)", "[(y := i) for i in range(10 ** 9)]", "x = y = z = x.evil", "x = (yield)", "import torch\nimport torch\n" * 400 + "x.evil", "print(x)\n" * 1500 + "x.evil", "def f(): pass\n" * 1000 + "x.evil",
]  # fmt: skip


def _many() -> list[tuple[str, str]]:
    """Texts of many functions, classes and levels."""
    return [
        ("thousands of functions", "\n".join(f"def f{i}(x): return x" for i in range(700)) + "\nf699(x).evil"),
        ("a chain of functions", "def f0(x): return x\n" + "\n".join(f"def f{i}(x): return f{i - 1}(x)" for i in range(1, 400)) + "\nf399(x)"),
        ("doubling calls", "f0 = lambda a: a\n" + "\n".join(f"f{i} = lambda a: f{i - 1}(f{i - 1}(a))" for i in range(1, 60)) + "\nf59(x)"),
        ("doubling on plain values", "f0 = lambda a: a\n" + "\n".join(f"f{i} = lambda a: f{i - 1}(a) + f{i - 1}(a)" for i in range(1, 60)) + "\nx * f59(1)"),
        ("deep closures", "\n".join("  " * i + f"def f{i}():" for i in range(60)) + "\n" + "  " * 60 + "return x\nf0()"),
        ("nested lambdas", "lambda: " * 400 + "x"), ("called lambdas", "(lambda: " * 40 + "x" + ")()" * 40),
        ("thousands of classes", "\n".join(f"class A{i}: pass" for i in range(700)) + "\nx.evil"),
        ("a tower of classes", "class A0: pass\n" + "\n".join(f"class A{i}(A{i - 1}): pass" for i in range(1, 600)) + "\nA599().evil"),
        ("a lattice of classes", "class A0: pass\nclass B0: pass\n" + "\n".join(f"class A{i}(A{i - 1}, B{i - 1}): pass\nclass B{i}(A{i - 1}, B{i - 1}): pass" for i in range(1, 60)) + "\nA59().evil"),
        ("many layers", "for i in range(3000):\n    x = nn.Linear(3, 3)(x)\nx"), ("deep sequence", "net = nn.ReLU()\nfor i in range(60):\n    net = nn.Sequential(net, net)\nnet(x)"),
        ("nested sequences", "net = nn.ReLU()\nfor i in range(500):\n    net = nn.Sequential(net)\nnet(x)"), ("many parameters", "w = [nn.Parameter(torch.zeros(2 ** 24)) for i in range(3000)]\nsum(p.sum() for p in w)"),
        ("nested with", "\n".join(" " * i + "with torch.no_grad():" for i in range(90)) + "\n" + " " * 90 + "x.evil"),
        ("chains of comparisons", " < ".join(["x.sum()"] * 500)), ("many stars", "a, " * 500 + "*b = x"), ("many writes", "x[0] = 1\n" * 1500 + "x.evil"), ("many problems", "y = foo(x)\n" * 1000 + "y"),
        ("many prompts", ">>> x\n1\n" * 1500), ("many fences", "```\n" * 3000 + "x.evil"), ("long f-string", "f'" + "{n}" * 3000 + "'"), ("nested f-strings", "f'{" * 60 + "n" + "}'" * 60), ("branches", "if x.sum() != 0: x = x + 1\n" * 500 + "x.evil"),
        ("loops of branches", "for i in range(9000):\n    if x.sum() != 0:\n        pass\nx.evil"), ("global everywhere", "def f():\n    global y\n    y = 1\n" * 300 + "f()\nx.evil"),
    ]  # fmt: skip


SYNTAX: Final[list[tuple[str, str]]] = [
    (text if len(text) < 60 else f"{text[:57]}...", text) for text in (*_FUNCTIONS, *_CLASSES, *_WRITES, *_DERIVATIVES, *_LOOPS)
] + _many()
