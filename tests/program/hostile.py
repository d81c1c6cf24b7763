"""Texts that nobody should be able to run: each must be refused, with `bad_program` or a code about size, within two seconds."""

from __future__ import annotations

from typing import Final

from tests.program.hostile_syntax import SYNTAX

# Sent along with every text: x is [2, 3], w is [3, 2], n is a parameter.
INPUTS: Final[dict[str, list[list[float]]]] = {
    "x": [[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]],
    "w": [[1.0, 0.5], [-0.5, 2.0], [0.25, 1.0]],
}
PARAMETERS: Final[dict[str, int]] = {"n": 3}
CODES: Final = (
    "bad_program", "too_costly", "result_too_large", "body_too_large", "not_scalar", "shape_mismatch", "operation_failed", "bad_parameter",
    "bad_tensor", "out_of_memory",
)  # fmt: skip

_IMPORTS = [
    "import os", "import os\nx", "import torch\nx", "import numpy as np\nx", "from os import system\nx",
    "from torch import *\nx", "__import__('os').system('id')", "__import__('os')", "importlib.import_module('os')",
    "x = __import__\nx", "import\u00a0os\nx", "from . import app\nx", "import os as x\nx", "x; import os", "if n: import os\nx",
    "def f(x):\n    import os\n    return x",
]  # fmt: skip
_DUNDERS = [
    "x.__class__", "x.__class__.__bases__[0].__subclasses__()", "().__class__.__mro__[1]", "x.__dict__",
    "x.__init__.__globals__", "__builtins__", "__builtins__['eval']('1')", "x.__getattribute__('data')", "(1).__class__",
    "''.__class__", "[].__class__", "{}.__class__", "x._version", "x._base", "x._backward_hooks", "torch._C",
    "torch._C._jit_clear_class_registry()", "torch.__version__", "x._is_view()", "__name__", "__file__", "__loader__",
    "__doc__", "__debug__", "relu.__globals__", "relu.__code__", "softmax.__call__(x)", "__class__", "torch.ops.aten.relu(x)",
    "torch.utils.data", "torch._dynamo.reset()", "torch.nn.functional.__builtins__", "x.__add__(x)", "x.T.__class__",
    "linalg.__file__", "torch.os.system('id')", "torch.sys.modules", "torch.nn.functional.torch.os", "F.torch.os.system('id')",
    "math.__loader__",
]  # fmt: skip
_BUILTINS = [
    "eval('1')", "exec('1')", "compile('1', '', 'eval')", "open('/etc/passwd')", "open('/etc/passwd').read()", "input()",
    "globals()", "locals()", "vars()", "dir(x)", "getattr(x, 'data')", "getattr(x, '__class__')", "setattr(x, 'a', 1)",
    "delattr(x, 'a')", "hasattr(x, 'a')", "type(x)", "type('A', (), {})", "isinstance(x, int)", "print(x)", "breakpoint()",
    "help()", "exit()", "quit()", "memoryview(b'a')", "bytes(10**9)", "bytearray(10**9)", "str(x)", "repr(x)",
    "format(x, '>1000000000')", "object()", "super()", "iter(x)", "next(x)", "map(relu, [x])", "filter(None, [x])", "id(x)",
    "hash(x)", "callable(x)", "classmethod(x)", "chr(65)", "ord('a')", "set([1])", "frozenset([1])", "os.system('id')",
    "sys.exit()", "subprocess.run('id')", "torch.load('/etc/passwd')", "torch.save(x, '/tmp/a')", "torch.hub.load('a', 'b')",
    "torch.jit.script('a')", "torch.from_file('/etc/passwd')", "torch.classes.load_library('a')",
    "torch.ops.load_library('a.so')", "torch.cuda.is_available()", "torch.set_num_threads(1)", "torch.manual_seed(0)\nx",
    "torch.use_deterministic_algorithms(True)\nx", "torch.set_default_dtype(torch.float32)\nx",
    "torch.autograd.grad(x.sum(), x)", "torch.multiprocessing.spawn(1)", "torch.distributed.init_process_group()",
    "torch.compile(x)", "torch.utils.cpp_extension.load_inline('a', 'b')", "torch.testing.assert_close(x, x)",
    "torch.export.load('a')", "np.load('a')", "x.share_memory_()", "x.numpy()", "x.storage()", "x.data_ptr()", "x.cuda()",
    "x.to('cuda')", "x.to('meta')", "x.pin_memory()", "x.backward()", "x.register_hook(1)", "x.requires_grad_()", "x.grad",
    "x.item()", "x.tolist()", "float(x[0, 0])", "int(x[0, 0])", "x.apply_(1)", "x.add_(1)", "x.zero_()", "x.resize_(9)",
    "x.set_(w)", "x[0] = 1\nx", "x[0, 0] += 1\nx", "x.T[0] = 1\nx", "x.data = w\nx", "x.a = 1\nx", "x.shape = 1\nx", "relu_(x)",
    "F.relu(x, inplace=True)", "F.relu(x, True)", "torch.add(x, 1, out=x)", "zeros(3, device='cuda')",
    "zeros(3, requires_grad=True)", "nn.Linear(3, 2)(x)", "nn.ReLU()(x)", "nn.Module()", "torch.nn.Parameter(x)",
    "Tensor.__new__(x)", "torch.Tensor.data.fget(x)", "torch.empty(10)", "x.new_empty(10)",
]  # fmt: skip
_ENDLESS = [
    "x if -1 in itertools.count() else x", "x * next(filter(None, itertools.repeat(0)))", "x * next(filter(None, itertools.cycle([0])))",
    "x if 0.5 in range(10**12) else w", "x if 'a' in range(10**12) else w", "x * round(5, -10**9)", "x * len('a'.zfill(10**9))",
    "x * len(('a' * 9000).replace('a', 'b' * 9000))",
    "x * len(json.dumps([1], indent=10**9))", "x * len(json.dumps([[1] * 90] * 90, separators=('a' * 9999, ':')))",
    "def fib(n): return 1 if n < 2 else fib(n - 1) + fib(n - 2)\nx * fib(28)",
]  # fmt: skip
_SYNTAX = [
    "lambda: x", "f = lambda a: a\nx", "(lambda: x)()", "while True: pass", "while 1:\n    x = x\nx", "class A: pass",
    "class A:\n    y = x\nx", "with x: pass", "with torch.no_grad():\n    y = x\ny", "try:\n    x\nexcept:\n    x", "raise x",
    "assert x", "del x", "global x\nx", "nonlocal x", "async def f(x): return x", "await x", "yield x", "yield from x",
    "return (yield x)", "(y := x)", "[y := x for _ in range(3)]", "x if (y := 1) else x", "f'{x}'", "f'{x.__class__}'",
    "f'{x!r:>{n}}'", "'{0.__class__}'.format(x)", "'%s' % x", "'%1000000000d' % 1", "'a'.join(['b'])", "'a'.encode()",
    "'a' + 'b'", "'a' * 3", "'abc'[0]", "b'abc'", "{x}", "{1, 2}", "{a for a in x}", "{a: a for a in [1]}", "a, *b = x\nb",
    "*x", "print x", "x y", "match n:\n    case 3:\n        x", "def f(x): return f(x)\n", "def f(x):\n    return f(x)",
    "def f(x): return x\ndef g(x): return x", "@f\ndef g(x): return x", "def f(*args): return x", "def f(**k): return x",
    "def f(x):\n    def g(y): return y\n    return g(x)", "def f(y): return y", "@relu\ndef f(x): return x",
    "def f(x=__import__('os')): return x", "def f(k=open('a')): return x", "relu(**{'input': x})", "relu(_x=x)",
    "for i in range(3):\n    x\nelse:\n    x\nx", "x = 1 if", "(", ")", "x[", "x = = 1", "x +", "\tx\n  x", "return", "", " ",
    "\n\n", "# nothing", "pass", "x = 1", "'text'", "\"\"\"doc\"\"\"", "return None", "return 'text'", "return {}", "return []",
    "return ()", "return {1: x}", "return {'a': 'b'}", "return {'a': x, 'a': w}", "return {'': x}", "return [[x]]",
    "return x\nx", "return x\nreturn x", "if True:\n    return x\n    x", "for i in range(2):\n    break\n    x\nx", "x is w",
    "x in w", "x and w", "x or w", "not x", "0 < x < 1", "if x > 0:\n    y = x\ny", "if x.sum():\n    y = x\ny",
    "x if x.sum() > 0 else w", "range(x)", "for i in range(x): pass\nx", "for i in 5: pass\nx", "[i for i in x if i.sum() > 0]",
    "max(x, 0.0)", "max(0, x)", "x + 'a'", "x + [1]", "x + None", "x['a']", "x[1.5]", "x[1.5:]", "[x, w][x]", "{'a': x}['b']",
    "[x][3]", "zeros(x)", "arange(x)", "tensor([x, w])", "tensor('a')", "len(5)", "None.shape", "(1).shape", "'a'.shape",
    "[1].shape", "n.sum()", "x()", "x(1)", "n(x)", "(x)(w)", "x.shape()", "x.sum", "relu", "torch.relu", "torch", "F",
    "nn.functional", "torch.nn", "y", "x.foo", "x.foo()", "foo(x)", "torch.foo(x)", "foo.bar(x)", "F.foo(x)",
    "softmax(x, dim=1, foo=2)", "softmax(x, dim=1, dim=1)", "softmax(x, dim=1, axis=1)", "np.exp(x)", "tf.exp(x)", "jnp.exp(x)",
    "x.values", "max(x, 1).foo", "max(x, 1) + 1", "max(x, 1)[7]", "relu(max(x, 1))", "a, b, c = x\na", "a, b = 5\na",
    "for a, b, c in [(1, 2)]: pass\nx", "1 / 0", "5 % 0", "5 // 0", "0.0 ** -1", "1 << -1", "-'a'", "~1.5", "sum(5)",
    "sum(['a', 'b'])", "sorted([x])", "sorted([1, 'a'])", "min([])", "max()", "round('a')", "abs('a')", "float('abc')",
    "int('12')", "range()", "range(1, 2, 0)", "range(1.5)", "zip(5, 6)", "enumerate(5)", "reversed(5)", "list(5)",
    "tuple(None)", "dict(a=1)", "break", "continue", "x.append(1)", "[].append(1, 2)\nx", "[1].pop(5)\nx", "5 = x",
    "None = x\nx", "f(x) = 1", "x + 1 = 2", "(x, 1) = w, 2", "x: int", "y += 1\ny", "y: int\nx",
]  # fmt: skip
_SHADOWS = [
    "softmax = 3\nsoftmax(x, dim=1)", "sum = x\nsum(x)", "range = 5\n[i for i in range(3)]", "len = x\nlen(x)",
    "torch = x\ntorch.relu(x)", "F = 3\nF.relu(x)", "zip = n\nzip(x, x)", "relu = relu\nrelu(x)", "f = relu\nf(x)",
    "x = softmax\nx(w)", "def softmax(x): return softmax(x)", "True = x\nx", "x = eval\nx('1')", "__builtins__ = x\nx",
    "ｅｖａｌ('1')", "x.ｄａｔａ_ptr()", "x.\uff3f\uff3fclass\uff3f\uff3f", "\uff3f\uff3fimport\uff3f\uff3f('os')", "ｏｐｅｎ('a')",
]  # fmt: skip
_SIZES = [
    "10 ** 10 ** 10", "2 ** 10000", "9 ** 9 ** 9 * x", "1 << 100000", "1 << (1 << 30)", "x * (2 ** 200)", "x + 10 ** 30",
    "pow(10, 1000)", "x ** (10 ** 40)", "10 ** 400 * x", "[0] * 10 ** 9", "[0] * 10 ** 5", "(0,) * 10 ** 9",
    "[[0] * 1000] * 1000 * 1000", "list(range(10 ** 9))", "sum(range(10 ** 9))", "range(10 ** 18)[10 ** 17] * [0]",
    "max(range(10 ** 9)) * x", "sorted(range(10 ** 9))", "tuple(range(10 ** 8))", "zip(range(10 ** 9), range(10 ** 9))",
    "tensor(range(10 ** 9))", "x[range(10 ** 9)]", "len(range(10 ** 100)) * x", "int(1e300) * x", "round(1e300)",
    "math.floor(1e300)", "int(float('inf'))", "int(float('nan'))", "math.exp(10000)", "10.0 ** 1000", "math.pow(10, 1000)",
    "1e308 * 10 * 'a'", "math.gcd(10 ** 70, 3) << 300", "for i in range(10 ** 9): x = x + 1\nx",
    "for i in range(10001): pass\nx", "for i in range(5000):\n    x = x + 1\nx",
    "for i in range(200):\n    for j in range(200):\n        pass\nx",
    "for i in range(100):\n    for j in range(100):\n        for k in range(100):\n            x = x + 1\nx",
    "[x + 1 for i in range(10 ** 6)]", "[i for i in range(9000) for j in range(9000)]",
    "[[i for i in range(1000)] for j in range(1000)]", "sum([i * j for i in range(3000) for j in range(3000)]) * x",
    "y = 3\nfor i in range(9999):\n    y = y * y\nx", "y = [x]\nfor i in range(60):\n    y = y + y\nstack(y)",
    "y = [x]\nfor i in range(60):\n    y = [y, y]\nstack(y)", "y = [1]\nfor i in range(60):\n    y = [y, y]\ntensor(y)",
    "y = 1\nfor i in range(60):\n    y = [y, y]\nx * (y == y)", "y = 1\nfor i in range(60):\n    y = [y, y]\nsorted(y)",
    "y = 1\nfor i in range(60):\n    y = [y, y]\nx[y]", "y = [1]\ny.append(y)\nstack(y)", "y = [1]\ny.append(y)\nreturn y",
    "y = [1]\ny.append(y)\nx * (y == y)", "y = [x]\nfor i in range(9000):\n    y.extend(y)\nx",
    "y = [0] * 9999\nfor i in range(9999):\n    y = y + []\n    z = [a for a in y]\nx",
    "y = [1] * 9000\nfor i in range(9000):\n    z = tensor(y)\nx", "y = [1] * 9000\nfor i in range(9000):\n    z = sum(y)\nx",
    "y = [1] * 9000\nfor i in range(9000):\n    z = y == y\nx", "zeros(10 ** 12)", "zeros(10 ** 6, 10 ** 6)", "ones(2 ** 40)",
    "full((10 ** 5, 10 ** 5, 10 ** 5), 1.0)", "eye(10 ** 7)", "arange(10 ** 12)", "arange(0, 1, 1e-12)",
    "linspace(0, 1, 10 ** 11)", "randn(10 ** 11)", "randperm(10 ** 11)", "tril_indices(10 ** 6, 10 ** 6)",
    "hann_window(10 ** 11)", "zeros(-1)", "zeros(2 ** 70)", "zeros(10 ** 18, 10 ** 18)", "x.repeat(10 ** 6, 10 ** 6)",
    "x.expand(10 ** 12, 2, 3)", "x.new_zeros(10 ** 12)", "outer(zeros(10 ** 6), zeros(10 ** 6))",
    "zeros(10 ** 6)[:, None] * zeros(10 ** 6)", "for i in range(40):\n    x = cat([x, x])\nx",
    "for i in range(12):\n    x = kron(x, x)\nx", "x.reshape(10 ** 30)", "x[10 ** 30]", "x[:10 ** 30]", "x.sum(10 ** 30)",
    "tensor(10 ** 30)", "tensor([1, [2]])", "x.view(2 ** 63)", "linalg.matrix_power(x @ w, -2 ** 63)",
    "nn.functional.pad(x, (2 ** 40, 2 ** 40))",
]  # fmt: skip

# Tuples that hold themselves many times, or very deep: a hash or a comparison would walk them for ever, or until the stack ends.
_SHARED_TUPLE, _DEEP_TUPLE = (
    "t = (1, 1)\nfor i in range(40):\n    t = (t, t)",
    f"t = ()\nfor i in range(8500):\n    t = {'(' * 20}t{',)' * 20}",
)
_USES_OF_TUPLES = (
    "d = {}\nd.get(t, 1)", "d = {1: 2}\nd.setdefault(t, 1)", "d = {1: 2}\nd.pop(t, 1)", "d = {}\nd.update([(t, 1)])", "y = {t}",
    "y = {1: 2}\ny = t in y", "y = {v for v in [t]}", "y = set([t])", "y = {1}\ny.add(t)", "y = {1}\ny.discard(t)", "y = t in {1}",
    "y = {1: t}.items() & {1}", "@functools.lru_cache\ndef f(v):\n    return 1\nf(t)", "@functools.cache\ndef f(v):\n    return 1\nf(v=t)",
    "class K:\n    T = t\nmatch {1: 2}:\n    case {K.T: v}:\n        x = v",
    "from enum import Enum\nclass K(Enum):\n    A = t\n    B = (t[0],) if len(t) == 1 else (t[0], t[1])",
    "from functools import partial\ny = {partial(relu, t)}\ny = {t: 1}",
)  # fmt: skip
# A use that is not guarded never ends with the one; the other, which takes half a second to build, shows what guards them, so a third is enough.
_TUPLES = [f"{_SHARED_TUPLE}\n{use}\nx" for use in _USES_OF_TUPLES] + [
    f"{_DEEP_TUPLE}\n{use}\nx" for use in _USES_OF_TUPLES[::3]
]

_CLASSES_OF_ERRORS = [
    f"import contextlib\nt = (KeyError, KeyError)\nfor i in range(40):\n    t = (t, t)\n{use}\nx + 'a'"
    for use in (
        "with contextlib.suppress((t, ValueError)):\n    raise ValueError",
        "try:\n    raise ValueError\nexcept t:\n    x = w\nexcept ValueError:\n    x = x",
    )
]

_COPIES = [
    f"l = [0] * 9999\nh = []\n{line}\nx + 'a'"
    for line in (
        "h = list(zip(*[l] * 9999))", "h = list(zip(*[l] * 9999, strict=True))", "h = list(map(lambda *a: a, *[l] * 9999))",
        "h = list(itertools.zip_longest(*[l] * 9999))",
        "for i in range(9000):\n    h.append(list(itertools.product(l[:70], l[:70])))",
        "for i in range(9000):\n    h = (l + [1]).index(1)", "for i in range(9000):\n    h = l.count(1)",
        *(
            f"d = {{str(i): i for i in range(9000)}}\nfor i in range(900):\n    h.append({copied})"
            for copied in (
                "d.copy()", "{**d}", "dict(d)", "dict(**d)", "collections.OrderedDict(d)", "d | {}", "list(d.items())", "copy.copy(d)",
                "{}.update(d)", "types.SimpleNamespace(**d)", "set(d)",
            )
        ),
        *(
            f"s = 'ab' * 4990\nfor i in range(9000):\n    h.append({text})"
            for text in ("list(s)", "s.split('a')", "s.upper()", "f'{s}{i}'", "'%s%d' % (s, i)", "s[1:]", "'{}!'.format(s)")
        ),
    )
]  # fmt: skip


def _deep() -> list[tuple[str, str]]:
    """Texts that are deep, long or not text at all."""
    return [
        ("parentheses", "(" * 100_000 + "x" + ")" * 100_000), ("few parentheses", "(" * 250 + "x" + ")" * 250),
        ("minus", "-" * 4_000 + "x"), ("many minus", "-" * 100_000 + "x"), ("not", "not " * 3_000 + "x"),
        ("brackets", "[" * 150 + "]" * 150), ("calls", "relu(" * 150 + "x" + ")" * 150), ("subscripts", "x" + "[0]" * 3_000),
        ("attributes", "x" + ".T" * 4_000), ("sum of many", "+".join(["x"] * 5_000)), ("power tower", "**".join(["2"] * 2_000)),
        ("ternaries", "x if n else " * 1_000 + "x"), ("comparisons", "<".join(["1"] * 4_000) + "\nx.foo"),
        ("nested blocks", "\n".join(" " * i + "if n:" for i in range(120)) + "\n" + " " * 120 + "x"),
        ("nested loops", "\n".join(" " * i + "for i in range(2):" for i in range(60)) + "\n" + " " * 60 + "x = x"),
        ("elif chain", "if n == 0:\n    y = x\n" + "".join(f"elif n == {i}:\n    y = x\n" for i in range(1, 500)) + "y"),
        ("nested comprehension", "[" * 90 + "x" + " for i in range(2)]" * 90), ("digits", "9" * 5_000),
        ("digits within the limit", "9" * 4_000 + " * x"), ("hexadecimal", "0x" + "f" * 10_000 + " * x"),
        ("exponent", "1e" + "9" * 4_000 + "j + 'a'"), ("a megabyte", "x" * 1_000_000),
        ("a megabyte of lines", "x = x + 1\n" * 100_000), ("a megabyte of spaces", " " * 1_000_000 + "x"),
        ("a megabyte of comments", "#" * 1_000_000), ("long string", "relu('" + "a" * 12_000 + "')"),
        ("long name", "a" * 15_000), ("many steps", "x = x + 1\n" * 1_600 + "x"[:0]), ("backslashes", "\\\n" * 8_000),
        ("newlines only", "\n" * 16_000), ("semicolons", "x;" * 8_000 + "y"),
        ("many arguments", "cat([" + "x," * 5_000 + "y])"), ("null byte", "x\x00"), ("null bytes", "\x00" * 100),
        ("lone surrogate", "x + '\ud800'"), ("surrogates", "\ud800\udfff" * 100), ("control characters", "x\x01\x02\x1b[31m"),
        ("right to left", "x \u202e + w"), ("zero width", "x\u200b + 1"), ("byte order mark", "\ufeff\ufeffx"),
        ("emoji", "x + 🙂"), ("not breaking space", "x\u00a0+ 1"), ("form feed", "x\f + y"), ("vertical tab", "x \v + 1"),
        ("coding line", "# -*- coding: utf-7 -*-\n+AGEAYg-"), ("wide digits", "x + １"), ("bytes as text", "b'\\xff\\xfe'"),
        ("unterminated string", "'" * 3 + "x"), ("tabs and spaces", "if n:\n\tx\n        x"), ("shell", "$(id)"),
        ("template", "{{ x }}"), ("sql", "x'; DROP TABLE a; --"), ("html", "<script>x</script>"), ("json", '{"program": "x"}'),
        ("pickle", "cos\nsystem\n(S'id'\ntR."),
    ]  # fmt: skip


HOSTILE: Final[list[tuple[str, str]]] = (
    [
        (text if len(text) < 60 else f"{text[:57]}...", text)
        for text in (
            *_IMPORTS,
            *_DUNDERS,
            *_BUILTINS,
            *_SYNTAX,
            *_ENDLESS,
            *_SHADOWS,
            *_SIZES,
            *_TUPLES,
            *_CLASSES_OF_ERRORS,
            *_COPIES,
        )
    ]
    + _deep()
    + SYNTAX
)

# Those that mean something harmless: they are answered.
HARMLESS: Final = frozenset([
    'print(x)',
    'id(x)', 'x is w', "int('12')", "ord('a')", "return {'a': x, 'a': w}",
    'x.a = 1\nx', 'for i in range(3):\n    x\nelse:\n    x\nx', 'class A(nn.Linear): pass\nA(3, 2)(x)',
    'import os\nx', 'from os import system\nx', 'import\xa0os\nx', 'if n: import os\nx', 'def f(x):\n    import os\n    return x',
    "getattr(x, 'data')", "hasattr(x, 'a')", 'iter(x)', 'callable(x)', 'torch.compile(x)',
    "f = getattr\nf(x, 'data')", 'torch.optim.SGD([x]).step()\nx * 2', 'torch.compile(lambda a: a)(x)', 'import torch; import os; x',
    'import torch, os\nx', 'import torch\nx', 'import numpy as np\nx', 'from torch import *\nx', 'isinstance(x, int)', 'map(relu, [x])',
    'torch.manual_seed(0)\nx', 'torch.use_deterministic_algorithms(True)\nx', 'torch.set_default_dtype(torch.float32)\nx',
    'torch.autograd.grad(x.sum(), x)', 'x.share_memory_()', 'x.cuda()', 'type(x)(x)', "x.to('cuda')", 'x.pin_memory()',
    'x.requires_grad_()', 'float(x[0, 0])', 'int(x[0, 0])', 'x.add_(1)', 'x.zero_()', 'x[0] = 1\nx', 'x[0, 0] += 1\nx', 'x.T[0] = 1\nx',
    'relu_(x)', 'F.relu(x, inplace=True)', 'torch.add(x, 1, out=x)', "zeros(3, device='cuda')", 'zeros(3, requires_grad=True)',
    'nn.Linear(3, 2)(x)', 'nn.ReLU()(x)', 'torch.nn.Parameter(x)', 'torch.empty(10)', 'x.new_empty(10)', 'f = lambda a: a\nx',
    '(lambda: x)()', 'class A:\n    y = x\nx', 'with torch.no_grad():\n    y = x\ny', '(y := x)', '[y := x for _ in range(3)]',
    'x if (y := 1) else x', 'a, *b = x\nb', 'def f(x): return x\ndef g(x): return x', 'def f(*args): return x', 'def f(**k): return x',
    'def f(x):\n    def g(y): return y\n    return g(x)', "relu(**{'input': x})", 'x = 1', 'if x.sum():\n    y = x\ny',
    'x if x.sum() > 0 else w', '[i for i in x if i.sum() > 0]', 'max(x, 0.0)', 'max(0, x)', 'dict(a=1)', 'y: int\nx',
    'relu = relu\nrelu(x)', 'f = relu\nf(x)', 'x\u200b + 1', '\ufeff\ufeffx', 'x\xa0+ 1', 'def f(a, a): return a\nf(x, x)',
    'def f():\n    global f\n    f = x\n    return f\nf()', 'from __future__ import braces\nx',
    'class A(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.a = self\n        self.w = nn.Parameter(x)\n    def forward(self, x): return x * self.a.a.w\nA()(x)',
    'nn.Linear(3, 2, device=x)(x)', 'x[x] = 1\nx', 'x.uniform_(1, 0)',
    'torch.func.jacrev(torch.func.jacrev(torch.func.jacrev(torch.func.jacrev(lambda a: a ** 5))))(x)',
    'torch.func.hessian(torch.func.hessian(lambda a: (a ** 5).sum()))(x)', 'torch.func.grad(lambda a: F.dropout(a).sum())(x)',
    'torch.distributions.Categorical(x).log_prob(9)', 'float(x.sum().item() * 1e400)', 'a, *b, *c = x\na', '(a, *b), c = x\na',
    "x if 0.5 in range(10**12) else w", "x if 'a' in range(10**12) else w", "x * round(5, -10**9)",
    "x = x + 1\n" * 1_600, ">>> x\n1\n" * 1_500, " < ".join(["x.sum()"] * 500),
])  # fmt: skip
