"""`python -m benchmarks first`: what first queries cost over cached ones, and a small query's tail beside one of two seconds on two workers."""

from __future__ import annotations

import gc
import http.client
import re
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson

from app.catalogue.read import operations
from app.limits import Limits
from app.road import Request, Road
from benchmarks import servers

Line = Callable[[str, str, str], None]

_OPERATIONS: Final = 200
_REPEATS: Final = 6
_ROUNDS: Final = 3
_LONG_S: Final = 2.0
_EVERY_S: Final = 0.025  # as long as the caches of a processor that others use remember little
_SMALL: Final = {
    "operation": "softmax", "inputs": {"input": [0.1 * i for i in range(10)]}, "parameters": {"dim": 0}, "want": ["vjp"],
}  # fmt: skip


def _rows(rows: int, columns: int) -> list[list[float]]:
    return [[0.1 * ((row * columns + column) % 7) - 0.3 for column in range(columns)] for row in range(rows)]


def _identity(size: int) -> list[list[float]]:
    return [[float(row == column) for column in range(size)] for row in range(size)]


_GPT_BLOCK: Final = """class Attention(nn.Module):
    def __init__(self, n_embd, n_head):
        super().__init__()
        self.c_attn = nn.Linear(n_embd, 3 * n_embd)
        self.c_proj = nn.Linear(n_embd, n_embd)
        self.n_head, self.n_embd = n_head, n_embd
    def forward(self, x):
        B, T, C = x.size()
        q, k, v = (z.view(B, T, self.n_head, C // self.n_head).transpose(1, 2) for z in self.c_attn(x).split(self.n_embd, dim=2))
        att = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
        att = att.masked_fill(torch.tril(torch.ones(T, T)) == 0, float('-inf'))
        return self.c_proj((F.softmax(att, dim=-1) @ v).transpose(1, 2).contiguous().view(B, T, C))
class Block(nn.Module):
    def __init__(self, n_embd, n_head):
        super().__init__()
        self.ln_1, self.attn, self.ln_2 = nn.LayerNorm(n_embd), Attention(n_embd, n_head), nn.LayerNorm(n_embd)
        self.mlp = nn.Sequential(nn.Linear(n_embd, 4 * n_embd), nn.GELU(), nn.Linear(4 * n_embd, n_embd))
    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))
return Block(8, 2)(x).pow(2).mean()"""
HAS_WEIGHTS: Final = re.compile(r"nn\.[A-Z]")
# Programs by what they are, each with its text and its inputs of the n-th shape.
PROGRAMS: Final[dict[str, tuple[str, Callable[[int], dict[str, Any]]]]] = {
    "a line": ("return (x @ w).tanh().sum()", lambda n: {"x": [[0.1] * n], "w": [[0.2]] * n}),
    "entropy": ("p = softmax(x, dim=0)\nreturn -(p * log(p)).sum()", lambda n: {"x": [0.1 * i for i in range(n)]}),
    "Rosenbrock": (
        "return ((1 - x[:-1]) ** 2 + 100 * (x[1:] - x[:-1] ** 2) ** 2).sum()", lambda n: {"x": [0.1] * n},
    ),
    "two layers": (
        "h = relu(x @ W + b)\nreturn nn.functional.mse_loss(h @ V, y)",
        lambda n: {"x": [[0.1] * n] * 4, "W": [[0.3] * 5] * n, "b": [0.1] * 5, "V": [[0.1]] * 5, "y": [[0.0]] * 4},
    ),
    "power iteration, 10 turns": (
        "for _ in range(10):\n    v = A @ v\n    v = v / v.norm()\nreturn v @ A @ v",
        lambda n: {"A": _rows(n, n), "v": [1.0] * n},
    ),
    "recurrent cell, 5 turns": (
        "for t in range(len(x)):\n    h = torch.tanh(x[t] @ Wx + h @ Wh + b)\nreturn (h ** 2).sum()",
        lambda n: {"x": _rows(5, n), "Wx": _rows(n, 4), "Wh": _rows(4, 4), "b": [0.1] * 4, "h": [0.0] * 4},
    ),
    "recurrent cell, as many turns as rows": (
        "for t in range(len(x)):\n    h = torch.tanh(x[t] @ Wx + h @ Wh + b)\nreturn (h ** 2).sum()",
        lambda n: {"x": _rows(n, 3), "Wx": _rows(3, 4), "Wh": _rows(4, 4), "b": [0.1] * 4, "h": [0.0] * 4},
    ),
    "nn.Sequential": (
        "model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))\nreturn ((model(x) - y) ** 2).mean()",
        lambda n: {"x": _rows(n, 4), "y": _rows(n, 1)},
    ),
    "nn.Conv2d and a pool": (
        "conv = nn.Conv2d(1, 4, 3, padding=1)\nh = nn.MaxPool2d(2)(torch.relu(conv(x)))\nreturn h.flatten(1).mean()",
        lambda n: {"x": [[_rows(n, n)]]},
    ),
    "nn.Module with a forward": (
        "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.inner = nn.Linear(4, 8)\n"
        "        self.outer = nn.Linear(8, 3)\n    def forward(self, x):\n        return self.outer(torch.relu(self.inner(x)))\n"
        "return Net()(x).logsumexp(dim=1).sum()",
        lambda n: {"x": _rows(n, 4)},
    ),
    "transformer block": (
        "attention = nn.MultiheadAttention(8, 2, batch_first=True)\na, _ = attention(x, x, x)\nh = nn.LayerNorm(8)(x + a)\n"
        "feed = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))\nreturn nn.LayerNorm(8)(h + feed(h)).pow(2).mean()",
        lambda n: {"x": [_rows(n, 8)]},
    ),
    "while with a bound": (
        "i = 0\nwhile i < 5:\n    x = x - 0.1 * (x ** 3 - x)\n    i += 1\nreturn x.sum()", lambda n: {"x": [0.1] * n},
    ),
    "functions in functions": (
        "def f(z):\n    def g(u):\n        return torch.sin(u) * u\n    return g(z) + g(z + 1)\nreturn f(x).sum()",
        lambda n: {"x": [0.1] * n},
    ),
    "a list of terms": ("return sum([(x ** k).sum() / k for k in range(1, 6)])", lambda n: {"x": [0.1] * n}),
    "attention by a size": (
        "s = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])\nreturn (softmax(s, dim=-1) @ v).sum()",
        lambda n: {name: _rows(n, 8) for name in "qkv"},
    ),
    "attention by B, T, C": (
        "B, T, C = x.shape\nq = (x @ Wq).view(B, T, 2, C // 2).transpose(1, 2)\nk = (x @ Wk).view(B, T, 2, C // 2).transpose(1, 2)\n"
        "v = (x @ Wv).view(B, T, 2, C // 2).transpose(1, 2)\natt = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))\n"
        "att = att.masked_fill(torch.tril(torch.ones(T, T)).view(1, 1, T, T) == 0, float('-inf'))\n"
        "y = F.softmax(att, dim=-1) @ v\nreturn y.transpose(1, 2).contiguous().view(B, T, C).pow(2).mean()",
        lambda n: {"x": [_rows(n, 8)] * 2, **{name: _rows(8, 8) for name in ("Wq", "Wk", "Wv")}},
    ),
    "GPT block": (_GPT_BLOCK, lambda n: {"x": [_rows(n, 8)]}),
    "two layers, by the size of a batch": (
        "h = torch.tanh(x.view(x.size(0), -1) @ W + b)\nreturn ((h @ V - y) ** 2).sum() / x.shape[0]",
        lambda n: {"x": [_rows(3, 2)] * n, "W": _rows(6, 4), "b": [0.1] * 4, "V": _rows(4, 1), "y": _rows(n, 1)},
    ),
    "a net of convolutions, view(B, -1)": (
        "conv = nn.Conv2d(1, 2, 3, padding=1)\nh = F.max_pool2d(torch.relu(conv(x)), 2)\n"
        "return nn.Linear(8, 3)(h.view(x.size(0), -1)).logsumexp(1).mean()",
        lambda n: {"x": [[_rows(4, 4)]] * n},
    ),
    "Kalman step": (
        "xp = A @ m\nPp = A @ P @ A.T + Q\nS = H @ Pp @ H.T + R\nK = Pp @ H.T @ torch.linalg.inv(S)\nm = xp + K @ (z - H @ xp)\n"
        "P = (torch.eye(m.shape[0]) - K @ H) @ Pp\nreturn m.sum() + torch.trace(P)",
        lambda n: {
            **{name: _identity(n) for name in "APQ"}, "m": [0.1] * n, "H": [[1.0] * n], "R": [[0.5]], "z": [0.7],
        },
    ),
    "steps of an ODE": (
        "for _ in range(10):\n    k = torch.tanh(y @ A)\n    y = y + 0.1 * torch.tanh((y + 0.05 * k) @ A)\nreturn y.sum()",
        lambda n: {"y": [0.1] * n, "A": _rows(n, n)},
    ),
}  # fmt: skip


def longer(tensor: Any, by: int) -> Any:
    """A list with its first members again behind it."""
    return tensor + (tensor * by)[:by] if isinstance(tensor, list) and tensor else tensor


def _ms(road: Road, query: dict[str, Any]) -> float | None:
    """Processor time of one answer; None where it is refused."""
    body = memoryview(orjson.dumps(query))
    start = time.thread_time_ns()
    reply = road.answer(Request("query", "x", "application/json", None, None, body), lambda _: None)
    took = (time.thread_time_ns() - start) / 1e6
    return took if reply.status == 200 else None


def _shown(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ms, p90 {statistics.quantiles(values, n=10)[-1]:.2f}"


def _over_cached(road: Road, query: dict[str, Any]) -> tuple[float, float] | None:
    """What the first of a shape costs over a cached one, and the cached one. Before it the road rests, as a worker does between queries."""
    while road.improve():
        pass
    first = _ms(road, query)
    again = [_ms(road, query) or 0.0 for _ in range(_REPEATS)]
    cached = statistics.median(again[1:])
    return None if first is None else (first - cached, cached)


def in_process(line: Line) -> None:
    """Processor time in one worker's road, warm as a fresh worker is."""
    road = Road(Limits(), "cpu")
    road.warm()
    gc.collect()
    gc.freeze()
    catalogue = list(operations().values())
    for kind in ("outputs", "vjp", "jacobian"):
        signatures, shapes, cached = [], [], []
        for operation in catalogue[:: max(1, len(catalogue) // _OPERATIONS)]:
            example = {
                key: value for key, value in operation.example.items() if key not in ("cotangent", "tangent", "expected")
            }
            query = {**example, "want": [kind]}
            first = _ms(road, query)
            if first is None:
                continue
            signatures.append(first)
            for by in (1, 2):
                inputs = {name: longer(value, by) for name, value in example["inputs"].items()}
                if inputs != example["inputs"] and (shape := _over_cached(road, {**query, "inputs": inputs})) is not None:
                    shapes.append(shape[0])
                    cached.append(shape[1])
        line(f"{kind}: first query of an operation, {len(signatures)} operations", _shown(signatures), "")
        line(f"{kind}: first of another shape over a cached one", _shown(shapes), f"cached {_shown(cached)}")
    for title, (text, inputs_of) in PROGRAMS.items():
        query = {"program": text, "want": ["gradient"], **({"seed": 0} if HAS_WEIGHTS.search(text) else {})}
        shown = [_over_cached(road, {**query, "inputs": inputs_of(n)}) for n in range(4, 16)]
        known = [shape for shape in shown[1:] if shape is not None]
        line(
            f"program: {title}",
            _shown([over for over, _ in known]),
            f"cached {_shown([cached for _, cached in known])}, the very first {shown[0][0] if shown[0] else 0:.2f} ms",
        )


def _post(port: int, body: bytes) -> float:
    """Seconds of one query on a connection of its own. Raises RuntimeError where it is refused."""
    start = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("POST", "/v1/query", body, {"Content-Type": "application/json"})
    reply = connection.getresponse()
    answer = reply.read()
    connection.close()
    if reply.status != 200:
        raise RuntimeError(answer.decode(errors="replace"))
    return time.perf_counter() - start


def _long(port: int) -> bytes:
    """A query that computes for about two seconds here, by matrix products."""

    def body(count: int) -> bytes:
        text = f"y = x\nfor i in range({count}):\n    y = w @ y * 0.01\nreturn y.sum()"
        query = {"program": f"w = ones(700, 700)\n{text}", "inputs": {"x": [[1.0] * 700] * 700}, "want": ["outputs"]}
        return orjson.dumps(query)

    count = 5
    took = min(_post(port, body(count)) for _ in range(2))
    more = min(_post(port, body(4 * count)) for _ in range(2)) - took
    return body(max(count, int(_LONG_S * 3 * count / max(more, 1e-3))))


def beside_a_long_one(line: Line) -> None:
    """Latency of a small query every 25 ms from when it was due, while another client's long one holds one of two workers."""
    small = orjson.dumps(_SMALL)
    tails = []
    with servers.pullback(2) as port:
        long = _long(port)
        for _ in range(4):
            _post(port, small)
        for number in range(_ROUNDS):
            running = threading.Thread(target=_post, args=(port, long))
            running.start()
            time.sleep(0.1)
            late: list[float] = []
            due = time.perf_counter()
            while running.is_alive():
                time.sleep(max(0.0, due - time.perf_counter()))
                _post(port, small)
                late.append(1e3 * (time.perf_counter() - due))
                due += _EVERY_S
            tails.append(statistics.quantiles(late, n=100, method="inclusive")[98])
            line(
                f"small query beside a long one, 2 workers, round {number + 1}",
                f"p99 {tails[-1]:.1f} ms",
                f"median {statistics.median(late):.2f} ms of {len(late)}, the worst {max(late):.1f} ms",
            )
    line("the same, median of the rounds", f"p99 {statistics.median(tails):.1f} ms", "")


def run(line: Line) -> None:
    in_process(line)
    beside_a_long_one(line)
