"""`python -m benchmarks`: small queries, a large VJP, an MLP gradient, Jacobians; one run, printed as ratios.

Knows what is compared with what. Refuses to judge: these machines are noisy, read the ratios.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import safetensors.numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.engine.engine import Engine
from app.limits import Limits
from app.program.functions import load as load_functions
from app.protocols.native import bodies
from app.query import Query
from app.road import Road
from benchmarks import first_answers, gpu, load, processor_time, protocols, servers, sparse
from benchmarks.fairness import containers
from benchmarks.fairness import run as fairness
from benchmarks.soak import run as soak

SAFETENSORS = "application/vnd.safetensors"


def median_ms(action: Callable[[], object], repeats: int, warm: int = 5) -> float:
    """Median of single calls, in milliseconds."""
    for _ in range(warm):
        action()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def asked(client: Client, message: bytes, repeats: int) -> tuple[float, processor_time.Cost]:
    """Median of single queries, in milliseconds, and what each costs in processor time."""
    warm = 5
    clocks = processor_time.Clocks(server_pid())
    median = median_ms(lambda: client.ask(message), repeats, warm)
    return median, clocks.cost(repeats + warm)


def server_pid() -> int:
    """This process's first child is the server."""
    return protocols.family(os.getpid())[1]


class Client:
    """One keep-alive connection that sends a fixed request and reads the whole reply into memory it keeps."""

    def __init__(self, port: int, reply_bytes: int = 64 << 20) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(reply_bytes)

    def ask(self, message: bytes) -> memoryview:
        """The reply's body. Raises RuntimeError unless it is a 200."""
        self._socket.sendall(message)
        view = memoryview(self._buffer)
        got = 0
        end = -1
        while end < 0:
            got += self._socket.recv_into(view[got:])
            end = self._buffer.find(b"\r\n\r\n", 0, got)
        head = bytes(view[:end]).lower()
        length = int(head[head.index(b"content-length:") + 15 :].split(b"\r\n", 1)[0])
        if not head.startswith(b"http/1.1 200"):
            raise RuntimeError(bytes(view[:got]).decode(errors="replace"))
        while got < end + 4 + length:
            got += self._socket.recv_into(view[got : end + 4 + length])
        return view[end + 4 : got]

    def close(self) -> None:
        self._socket.close()


def line(name: str, value: str, ratios: str = "") -> None:
    print(f"{name:<58} {value:>22}  {ratios}", flush=True)


def small_queries(port: int, empty: int, seconds: float) -> None:
    body = orjson.dumps(
        {"operation": "softmax", "inputs": {"input": [0.1 * i for i in range(10)]}, "parameters": {"dim": 0}, "want": ["vjp"]}
    )
    message, nothing = load.request("/v1/query", body), load.request("/", body)
    for clients in (1, 16, 64):
        service_runs, bare_runs = [], []
        for _ in range(3):
            service_runs.append(load.run(port, message, clients, seconds))
            bare_runs.append(load.run(empty, nothing, clients, seconds))
        best, base = max(service_runs, key=lambda r: r.per_second), max(bare_runs, key=lambda r: r.per_second)
        line(
            f"small query (softmax of 10, VJP, JSON), {clients} clients",
            f"{best.median_ms:.2f} ms {best.per_second:,.0f}/s",
            f"empty FastAPI route {base.median_ms:.2f} ms {base.per_second:,.0f}/s: ×{best.median_ms / base.median_ms:.2f}"
            f" (p99 {best.p99_ms:.2f} ms, failed {best.failed})",
        )


def large_vjp(port: int, empty: int) -> None:
    x = np.random.default_rng(0).standard_normal(1_000_000).astype(np.float32)
    query = {"operation": "tanh", "want": ["outputs", "vjp"]}
    body = safetensors.numpy.save({"inputs.input": x, "cotangent.output": x}, metadata={"query": orjson.dumps(query).decode()})
    message = load.request("/v1/query", body, SAFETENSORS, SAFETENSORS)
    client, other = Client(port), Client(empty)
    size = len(body)

    def in_process() -> None:
        leaf = torch.from_numpy(x).requires_grad_()
        torch.autograd.grad(torch.tanh(leaf), leaf, torch.from_numpy(x))

    with servers.raw_echo(size) as echo:
        buffer = memoryview(bytearray(size))

        def raw() -> None:
            echo.sendall(body)
            got = 0
            while got < size:
                got += echo.recv_into(buffer[got:])

        whole, spent = asked(client, message, 40)
        compute, wire = median_ms(in_process, 40), median_ms(raw, 40)
        bare_ms = median_ms(lambda: other.ask(load.request("/echo", body)), 40)
    client.close()
    other.close()
    line(
        "1,000,000-element float32 tanh VJP, safetensors (8 MB each way)",
        f"{whole:.1f} ms",
        f"in process {compute:.1f} + raw echo {wire:.1f} ms: ×{whole / (compute + wire):.2f}; "
        f"uvicorn's echo {bare_ms:.1f} ms: ×{whole / bare_ms:.2f}; {spent}",
    )


def mlp_gradient(port: int) -> None:
    rng = np.random.default_rng(0)
    inputs = {
        "x": rng.standard_normal((64, 784)), "W1": rng.standard_normal((784, 256)) * 0.05, "b1": np.zeros(256),
        "W2": rng.standard_normal((256, 10)) * 0.05, "b2": np.zeros(10),
    }  # fmt: skip
    arrays = {name: value.astype(np.float32) for name, value in inputs.items()}
    labels = rng.integers(0, 10, 64)
    text = "h = relu(x @ W1 + b1)\nreturn nn.functional.cross_entropy(h @ W2 + b2, y)"
    query = {"program": text, "want": ["gradient"], "wrt": ["W1", "b1", "W2", "b2"]}
    tensors: dict[str, NDArray[Any]] = {f"inputs.{name}": value for name, value in arrays.items()}
    tensors["inputs.y"] = labels
    body = safetensors.numpy.save(tensors, metadata={"query": orjson.dumps(query).decode()})
    client = Client(port)
    message = load.request("/v1/query", body, SAFETENSORS, SAFETENSORS)
    leaves = {name: torch.from_numpy(value) for name, value in arrays.items()}
    target = torch.from_numpy(labels)

    def in_process() -> None:
        w1, b1, w2, b2 = (leaves[n].requires_grad_() for n in ("W1", "b1", "W2", "b2"))
        loss = torch.nn.functional.cross_entropy(torch.relu(leaves["x"] @ w1 + b1) @ w2 + b2, target)
        torch.autograd.grad(loss, (w1, b1, w2, b2))

    (whole, spent), alone = asked(client, message, 100), median_ms(in_process, 100)
    client.close()
    line(
        "gradient of a 784-256-10 MLP, batch 64, safetensors",
        f"{whole:.2f} ms",
        f"in process {alone:.2f} ms: ×{whole / alone:.2f}; {spent}",
    )


def jacobians(port: int) -> None:
    def best(function: Callable[[Tensor], Tensor], x: Tensor) -> float:
        repeats = 60
        return min(
            median_ms(lambda: torch.func.jacrev(function)(x), repeats),
            median_ms(lambda: torch.func.jacfwd(function)(x), repeats),
        )

    client = Client(port)
    cases: list[tuple[str, str, dict[str, object], Callable[[Tensor], Tensor], tuple[int, ...]]] = [
        ("softmax, n = 256", "softmax", {"dim": 0}, lambda x: torch.softmax(x, 0), (256,)),
        ("cumsum, n = 256", "cumsum", {"dim": 0}, lambda x: torch.cumsum(x, 0), (256,)),
        ("logsumexp of 64 × 64 over rows", "logsumexp", {"dim": 1}, lambda x: torch.logsumexp(x, 1), (64, 64)),
    ]
    for name, operation, parameters, function, shape in cases:
        x = np.random.default_rng(0).standard_normal(shape)
        body = safetensors.numpy.save(
            {"inputs.input": x},
            metadata={"query": orjson.dumps({"operation": operation, "parameters": parameters, "want": ["jacobian"]}).decode()},
        )
        message = load.request("/v1/query", body, SAFETENSORS, SAFETENSORS)
        (whole, spent), alone = asked(client, message, 60), best(function, torch.from_numpy(x))
        line(
            f"Jacobian of {name}",
            f"{whole:.2f} ms",
            f"best of jacrev and jacfwd in process {alone:.2f} ms: ×{whole / alone:.2f}; {spent}",
        )
    client.close()


def through_protocols(port: int) -> None:
    """CPU time of a small query in all of the server's processes, by protocol."""
    taken = protocols.cpu_us(port, server_pid())
    for name, microseconds in taken.items():
        line(
            f"CPU of a small query, {name}",
            f"{microseconds:.0f} µs",
            f"native {taken['native']:.0f} µs: ×{microseconds / taken['native']:.2f}",
        )


PROGRAM = """
A = x @ Wx + h @ Wh + b
i = sigmoid(A[:, :8])
f = sigmoid(A[:, 8:16])
o = sigmoid(A[:, 16:24])
g = tanh(A[:, 24:])
c2 = f * c + i * g
h2 = o * tanh(c2)
y = h2 @ V
p = softmax(y, dim=1)
picked = log(p)[arange(x.shape[0]), target]
entropy = -(p * log(p)).sum(1)
loss = -picked.mean() - 0.01 * entropy.mean()
decay = 0.0
for w in [Wx, Wh, V]:
    decay = decay + (w ** 2).sum()
scale = (h2 ** 2).mean()
smooth = ((h2[1:] - h2[:-1]) ** 2).mean()
total = loss + 1e-4 * decay + 1e-3 * scale
total = total + 1e-3 * smooth
return total
"""


def programs() -> None:
    """A 20-line program in this process: read and planned for the first time, and again, against its computation alone."""
    road = Road(Limits(), "cpu")
    road.warm()
    rng = np.random.default_rng(0)
    shapes = {"x": (4, 6), "h": (4, 8), "c": (4, 8), "Wx": (6, 32), "Wh": (8, 32), "b": (32,), "V": (8, 5)}
    inputs = {name: rng.standard_normal(shape).tolist() for name, shape in shapes.items()} | {"target": [0, 4, 2, 1]}

    def query(text: str) -> Query:
        body = orjson.dumps({"program": text, "inputs": inputs, "want": ["gradient"], "wrt": ["Wx", "Wh", "b", "V"]})
        return bodies.read(memoryview(body), None, None, Limits())

    engine = Engine(Limits(), "cpu", load_functions(None))
    first = []
    for attempt in range(20):
        fresh = query(PROGRAM.replace("total", f"total{attempt}"))
        start = time.perf_counter()
        engine.answer(fresh)
        first.append(1e3 * (time.perf_counter() - start))
    again = query(PROGRAM)
    whole = median_ms(lambda: engine.answer(again), 200)
    prepared = engine.prepared(again)
    leaves = [torch.from_numpy(np.array(inputs[name])) for name in prepared.function.leaves]

    def alone() -> None:
        parameters = [leaf.requires_grad_() if leaf.is_floating_point() else leaf for leaf in leaves]
        (loss,) = prepared.function.call(*parameters)
        torch.autograd.grad(
            loss, [g for g, name in zip(parameters, prepared.function.leaves, strict=True) if name in prepared.wrt]
        )

    compute = median_ms(alone, 200)
    line("20-line program, first time (read, plan, compute)", f"{statistics.median(first):.1f} ms")
    line("the same, cached", f"{whole:.2f} ms", f"its computation alone {compute:.2f} ms: {whole - compute:+.2f} ms")


def main() -> None:
    others = {"soak": soak.main, "fairness": fairness.main, "containers": containers.main}
    if sys.argv[1:2] and sys.argv[1] in others:
        sys.exit(others[sys.argv[1]](sys.argv[2:]))
    parser = argparse.ArgumentParser(
        description="Benchmarks of Pullback, as ratios, in one run.",
        epilog=f"{', '.join(others)} have options of their own: python -m benchmarks soak --help",
    )
    parser.add_argument(
        "what",
        nargs="?",
        choices=("all", "first", "small", "sparse", "gpu"),
        default="all",
        help="`small`: processor time of small queries alone; `first`: first answers and tails; `sparse`: Jacobians by coordinates; "
        "`gpu`: what a GPU gives",
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="seconds for each load")
    parser.add_argument("--workers", type=int, default=1, help="worker processes of the server")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="of `gpu`; `cpu` tries the benchmark itself")
    parser.add_argument("--fronts", type=int, default=1, help="front processes of the server")
    arguments = parser.parse_args()
    if arguments.what == "gpu":
        sys.exit(gpu.run(arguments.device, arguments.seconds, line, Client, median_ms))
    torch.set_num_threads(1)
    if arguments.what == "sparse":
        sparse.run(line)
        return
    if arguments.what == "first":
        first_answers.run(line)
        return
    if arguments.what == "small":
        with servers.pullback(arguments.workers, PULLBACK_FRONTS=str(arguments.fronts)) as port:
            processor_time.run(port, server_pid(), arguments.seconds, line)
        return
    with servers.pullback(arguments.workers, PULLBACK_FRONTS=str(arguments.fronts)) as port, servers.empty_fastapi() as empty:
        processor_time.run(port, server_pid(), arguments.seconds, line)
        small_queries(port, empty, arguments.seconds)
        large_vjp(port, empty)
        mlp_gradient(port)
        jacobians(port)
        through_protocols(port)
    programs()
    sparse.run(line)


if __name__ == "__main__":
    main()
