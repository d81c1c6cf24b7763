"""`python -m tests.engine.planning.growth`: what the plan of each query says and by how much a fresh process grew, in bytes, as JSON.

A process of its own, because it forks for each query and so must have one thread; and for what `large_programs` asks.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

from app.pool.linux import keep_buffers
from tests.engine.asking import ask
from tests.engine.planning import large_programs
from tests.engine.planning.large_programs import memory
from tests.share import ask_whole, share

RNG = np.random.default_rng(0)
CHAIN = "for i in range(12):\n    x = abs(x * 1.01)\nreturn x.sum()"
QUERIES: Mapping[str, dict[str, Any]] = {
    "bincount": {"operation": "bincount", "inputs": {"input": np.array([8_000_000])}},
    "combinations": {"operation": "combinations", "inputs": {"input": RNG.normal(size=1500)}},
    "repeat_interleave": {"program": "repeat_interleave(x, n)", "inputs": {"x": np.ones(3), "n": np.array([10**7, 10**6, 1])}},
    "nonzero": {"operation": "nonzero", "inputs": {"input": RNG.normal(size=(2000, 1000))}},
    "unique": {"operation": "unique", "inputs": {"input": RNG.normal(size=1_000_000)}},
    "matrix_exp": {"operation": "matrix_exp", "inputs": {"input": RNG.normal(size=(500, 500)) / 30}},
    "matrix_exp, vjp": {"operation": "matrix_exp", "inputs": {"input": RNG.normal(size=(300, 300)) / 30}, "want": ["vjp"]},
    "conv3d": {
        "operation": "nn.functional.conv3d",
        "inputs": {"input": RNG.normal(size=(1, 4, 40, 40, 40)), "weight": RNG.normal(size=(4, 4, 5, 5, 5))},
    },
    "conv_transpose3d, vjp": {
        "operation": "nn.functional.conv_transpose3d",
        "inputs": {"input": RNG.normal(size=(1, 4, 30, 30, 30)), "weight": RNG.normal(size=(4, 4, 5, 5, 5))},
        "want": ["vjp"],
    },
    "conv2d of one channel, vjp": {
        "operation": "nn.functional.conv2d", "want": ["vjp"],
        "inputs": {"input": RNG.normal(size=(64, 1, 128, 128)).astype(np.float32), "weight": np.ones((1, 1, 3, 3), np.float32)},
    },
    "conv_transpose1d of one channel": {
        "operation": "nn.functional.conv_transpose1d",
        "inputs": {"input": RNG.normal(size=(64, 1, 20_000)).astype(np.float32), "weight": np.ones((1, 1, 5), np.float32)},
    },
    "logcumsumexp": {
        "operation": "logcumsumexp", "inputs": {"input": RNG.normal(size=1_000_000)}, "parameters": {"dim": 0}, "want": ["vjp"],
    },
    "check": {"program": "tanh(x).sum()", "inputs": {"x": RNG.normal(size=250_000)}, "want": ["check"]},
    "explain": {"program": "tanh(x).sum()", "inputs": {"x": RNG.normal(size=1_000_000)}, "want": ["explain"]},
    "explain of corners": {"operation": "nn.functional.relu", "inputs": {"input": RNG.normal(size=250_000)}, "want": ["explain"]},
    "explain of an order": {"operation": "median", "inputs": {"input": RNG.normal(size=250_000)}, "want": ["explain"]},
    "explain of a program": {"program": CHAIN, "inputs": {"x": RNG.normal(size=100_000)}, "want": ["explain"]},
    "check of jumps": {
        "operation": "fake_quantize_per_tensor_affine", "inputs": {"input": RNG.normal(size=200_000)},
        "parameters": {"scale": 0.1, "zero_point": 0, "quant_min": 0, "quant_max": 255}, "want": ["check"],
    },
    "check of a program": {"program": CHAIN, "inputs": {"x": RNG.normal(size=100_000)}, "want": ["check"]},
    "explain of complex numbers": {
        "operation": "asinh", "want": ["explain"],
        "inputs": {"input": (RNG.normal(size=100_000) + 1j * RNG.normal(size=100_000)).astype(np.complex64)},
    },
    "explain of more than is sent": {
        "operation": "igamma", "want": ["explain"],
        "inputs": {"input": RNG.uniform(0.5, 2, size=(60_000, 1)).astype(np.float16), "other": np.array([0.5, 1, 2], np.float16)},
    },
    "check of windows": {
        "operation": "nn.functional.conv3d", "want": ["check"],
        "inputs": {name: RNG.normal(size=(7, 7, *side)).astype(np.float16) for name, side in (("input", (10,) * 3), ("weight", (5, 5, 9)))},
    },
    "precision of a program": {"program": CHAIN, "inputs": {"x": RNG.normal(size=10_000)}, "want": ["precision"]},
    "precision": {"program": "tanh(x).sum()", "inputs": {"x": RNG.normal(size=100_000)}, "want": ["precision"]},
    "asin, vjp": {"operation": "asin", "inputs": {"input": RNG.uniform(-0.5, 0.5, 1_000_000)}, "want": ["vjp"]},
    "atan2, jvp": {"operation": "atan2", "inputs": {"input": RNG.normal(size=10**6), "other": RNG.normal(size=10**6)}, "want": ["jvp"]},
    "cdist, jvp": {
        "operation": "cdist", "inputs": {"x1": RNG.normal(size=(1000, 50)), "x2": RNG.normal(size=(900, 50))}, "want": ["jvp"],
    },
    "hfft, vjp": {"operation": "fft.hfft", "inputs": {"input": RNG.normal(size=(700, 700))}, "want": ["vjp"]},
    "erfcx, vjp": {"operation": "special.erfcx", "inputs": {"input": RNG.normal(size=300_000)}, "want": ["vjp"]},
    "det, vjp": {"operation": "linalg.det", "inputs": {"A": RNG.normal(size=(600, 600))}, "want": ["vjp"]},
    "cholesky, jvp": {"operation": "linalg.cholesky", "inputs": {"A": RNG.normal(size=(600, 600)) + 600 * np.eye(600)}, "want": ["jvp"]},
    "views of less, vjp": {"program": "x.expand(500, 4000)", "inputs": {"x": RNG.normal(size=(1, 4000))}, "want": ["vjp"]},
    "asin, jacobian": {
        "operation": "asin", "inputs": {"input": RNG.uniform(-0.5, 0.5, 2500)}, "want": ["jacobian"], "format": "dense",
    },
    "eigh, jacobian": {"operation": "linalg.eigh", "inputs": {"A": RNG.normal(size=(40, 40))}, "want": ["jacobian"], "format": "dense"},
    "fft, jacobian": {"operation": "fft.fft", "inputs": {"input": RNG.normal(size=1500)}, "want": ["jacobian"], "format": "dense"},
    "tanh, hessian": {"program": "(tanh(x @ x) * x).sum()", "inputs": {"x": RNG.normal(size=(35, 35))}, "want": ["hessian"], "format": "dense"},
    "log_softmax, gradient": {"program": "log_softmax(x, 1).sum()", "inputs": {"x": RNG.normal(size=(1000, 1000))}, "want": ["gradient"]},
    "hessians of a batch, dense and thinned": {
        "program": "tanh(x).sum()", "inputs": {"x": RNG.normal(size=(8, 900))}, "want": ["hessian"], "format": "diagonal", "batched": ("x",),
    },
    "not far over: hessians of a batch, one by one": {
        "program": "tanh(x).sum()", "inputs": {"x": RNG.normal(size=(8, 150_000))}, "want": ["hessian"], "format": "diagonal", "batched": ("x",),
    },
    "not far over: explain of what has no derivative": {
        "operation": "randn_like", "seed": 0, "inputs": {"input": RNG.normal(size=2_500_000)}, "want": ["explain"],
    },
    "series of our own, jvp": {"operation": "sinc", "inputs": {"input": RNG.normal(size=300_000)}, "want": ["jvp"]},
    "series of our own, twice": {
        "program": "special.i1e(x).sum()", "inputs": {"x": RNG.normal(size=200_000)}, "want": ["hvp"],
    },
    "values of a series of our own, batched": {
        "operation": "sinc", "inputs": {"input": RNG.normal(size=(4, 400_000))}, "batched": ("input",),
    },
    "matrix_exp of half precision, twice": {
        "program": "matrix_exp(x).float().sum()", "want": ["hvp"], "inputs": {"x": (RNG.normal(size=(300, 300)) / 30).astype(np.float16)},
    },
    "mvlgamma of many terms": {"operation": "mvlgamma", "inputs": {"input": np.full(4, 1e7)}, "parameters": {"p": 10**6}},
    "an LSTM by oneDNN": {
        "program": "nn.LSTM(16, 32)(x)[0].sum()", "inputs": {"x": RNG.normal(size=(50, 512, 16)).astype(np.float32)},
        "want": ["gradient"], "wrt": ("x",), "seed": 0,
    },
    "a Fisher matrix": {"operation": "nn.functional.selu", "inputs": {"input": RNG.normal(size=1500)}, "want": ["fisher"]},
    "differences of what has no derivative, jvp": {
        "operation": "heaviside", "want": ["jvp"],
        "inputs": {name: RNG.normal(size=1_500_000).astype(np.float32) for name in ("input", "values")},
    },
    "the search for what overflows": {
        "operation": "sinh", "inputs": {"input": np.full(1_000_000, 90 + 1j, np.complex64)}, "want": ["vjp"],
    },
    "half precision looked at in float64": {
        "operation": "cumsum", "inputs": {"input": RNG.normal(size=700_000).astype(np.float16)}, "parameters": {"dim": 0},
    },
    "patterns on the way to a small one": {
        "program": "diagonal(x @ x)", "inputs": {"x": RNG.normal(size=(150, 150))}, "want": ["jacobian"], "format": "sparse",
    },
    "passes that run together for a sparse form": {
        "program": "logsumexp(x[:, None] - y, 1)", "inputs": {"x": RNG.normal(size=300), "y": RNG.normal(size=300)},
        "want": ["jacobian"], "format": "sparse",
    },
    "patterns of steps that are over": {
        "program": "for i in range(40):\n    x = x + 0.1 * (roll(x, 1) - 2 * x + roll(x, -1))\nreturn (x ** 2).sum()",
        "inputs": {"x": RNG.normal(size=30_000)}, "want": ["jacobian"], "format": "auto",
    },
    "batch_norm, jvp": {
        "program": "F.batch_norm(x, None, None, training=True)", "inputs": {"x": RNG.normal(size=(50_000, 32)).astype(np.float32)}, "want": ["jvp"],
    },
    "eigh of many, jvp": {
        "program": "linalg.eigh(x + x.mT).eigenvalues", "inputs": {"x": RNG.normal(size=(4000, 16, 16))}, "want": ["jvp"],
    },
    "grid_sample, jvp": {
        "program": "F.grid_sample(x, g, align_corners=False)", "want": ["jvp"],
        "inputs": {"x": RNG.normal(size=(1000, 4, 16, 16)), "g": RNG.uniform(-0.9, 0.9, (1000, 16, 16, 2))},
    },
    "a large input that many steps read, twice": {
        "program": "w = zeros(64)\nfor k in range(8):\n    w = w - 0.1 * (a.T @ (a @ w - y)) / len(y)\n(w ** 2).sum()",
        "inputs": {"a": RNG.normal(size=(20_000, 64)), "y": RNG.normal(size=20_000)}, "want": ["hvp"], "wrt": ("a",),
    },
    "a large input of which many steps read a part, twice": {
        "program": "s = zeros(x.shape[0])\nfor t in range(20):\n    s = 0.9 * s + x[:, t]\n(s ** 2).sum()",
        "inputs": {"x": RNG.normal(size=(60_000, 20))}, "want": ["hvp"],
    },
    "svd": {"operation": "linalg.svd", "inputs": {"A": RNG.normal(size=(500, 500))}, "want": ["vjp"]},
}  # fmt: skip


def _class(named: tuple[str, dict[str, Any]]) -> tuple[str, str]:
    """Of a query: what it wants, and what is asked of its plan."""
    name, query = named
    return name.partition(":")[0] if ":" in name else "", query.get("want", ["outputs"])[0]


def in_child(work: Callable[[], object]) -> Any:
    """What `work()` gives in a process forked for it."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        with os.fdopen(write, "w") as pipe:
            json.dump(work(), pipe)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        result = json.loads(pipe.read())
    os.waitpid(child, 0)
    return result


def grown(query: dict[str, Any]) -> dict[str, int]:
    """`plan` and `taken`, of this process."""
    before = memory("RssAnon:")
    plan = ask(**query).plan["peak_bytes"]
    # Without the pages of libraries: how many of them are mapped at a touch hangs on what other processes have read.
    taken = memory("VmHWM:") - memory("RssFile:") - memory("RssShmem:") - before
    return {"plan": plan, "taken": taken, "files": memory("RssFile:")}


if __name__ == "__main__":
    torch.set_num_threads(1)
    ask_whole("--whole" in sys.argv)
    # What PyTorch imports at its first plan on fakes and its first derivatives is a worker's, not a query's.
    ask(program="tanh(x).sum()", inputs={"x": np.ones(2)}, want=["check", "explain"])
    large = in_child(large_programs.all_asked)  # first: malloc gives back what each of them took
    keep_buffers()
    ask(program="tanh(x).sum()", inputs={"x": np.ones(100_000)}, want=["gradient", "jvp"])
    asked = share(QUERIES.items(), 4, _class)
    growth = {name: in_child(partial(grown, query)) for name, query in asked}
    sys.stdout.write(json.dumps({"growth": growth, "large": large}))
