"""What a GPU gives: small queries at many clients, a large VJP and a product's VJP beside PyTorch in process and the bus; one run, as ratios."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, Protocol

import numpy as np
import orjson
import safetensors.numpy
import torch
from torch import Tensor

from benchmarks import load, servers
from benchmarks.processor_time import softmax

SAFETENSORS: Final = "application/vnd.safetensors"
COPIED_BYTES: Final = 64 << 20
CLIENTS: Final = (64, 512)
# The side of the product's matrices; on the CPU only the benchmark itself is tried.
SIDES: Final = {"cuda": 4096, "cpu": 256}
REPLY_BYTES: Final = 512 << 20


class Client(Protocol):
    """A connection that keeps its memory."""

    def ask(self, message: bytes) -> memoryview:
        """The body of a 200."""

    def close(self) -> None:
        """Ends it."""


Line = Callable[[str, str, str], None]
Connect = Callable[[int, int], Client]
Median = Callable[[Callable[[], object], int], float]


def gigabytes_per_s(device: str) -> tuple[float, float]:
    """Of copies from pinned memory to the device and back, the best of some."""
    host = torch.empty(COPIED_BYTES, dtype=torch.uint8, pin_memory=device == "cuda")
    there = torch.empty(COPIED_BYTES, dtype=torch.uint8, device=device)

    def best(to: Tensor, of: Tensor) -> float:
        times = []
        for _ in range(10):
            wait(device)
            start = time.perf_counter()
            to.copy_(of, non_blocking=True)
            wait(device)
            times.append(time.perf_counter() - start)
        return COPIED_BYTES / min(times) / 1e9

    return best(there, host), best(host, there)


def wait(device: str) -> None:
    """Until the device has done all."""
    if device == "cuda":
        torch.cuda.synchronize()


def small_queries(device: str, seconds: float, line: Line) -> None:
    """Those that repeat, from many clients at once: by one worker and by two on the device, and by one on the CPU in the same run."""
    message = load.request("/v1/query", softmax(10))
    shown: dict[tuple[str, int, int], load.Load] = {}
    for place, workers in ((device, 1), (device, 2), ("cpu", 1)):
        with servers.pullback(workers, device=place) as port:
            for clients in CLIENTS:
                load.run(port, message, clients, seconds / 4)  # until recipes and graphs are there
                shown[place, workers, clients] = load.run(port, message, clients, seconds)
    for (place, workers, clients), run in shown.items():
        line(
            f"small query (softmax of 10, VJP, JSON), {clients} clients, {place}, {workers} workers",
            f"{run.per_second:,.0f}/s",
            f"×{run.per_second / shown['cpu', 1, clients].per_second:.2f} of one worker on the CPU"
            f" (p99 {run.p99_ms:.2f} ms, failed {run.failed})",
        )


def compared(
    name: str, query: dict[str, Any], tensors: dict[str, Any], alone: Callable[[], object], tools: tuple[Line, Connect, Median],
    device: str, bandwidth: tuple[float, float],
) -> None:  # fmt: skip
    """One query with its tensors in binary, beside its computation in this process and the time that its bytes take on the bus."""
    line, connect, median_ms = tools
    body = safetensors.numpy.save(tensors, metadata={"query": orjson.dumps(query).decode()})
    message = load.request("/v1/query", body, SAFETENSORS, SAFETENSORS)
    limits = {"PULLBACK_BODY_LIMIT_BYTES": str(REPLY_BYTES), "PULLBACK_RESULT_LIMIT_BYTES": str(REPLY_BYTES)}
    with servers.pullback(1, device=device, **limits, PULLBACK_QUEUE_BYTES=str(4 * REPLY_BYTES)) as port:
        client = connect(port, REPLY_BYTES)
        size = len(client.ask(message))
        whole = median_ms(lambda: client.ask(message), 20)
        client.close()
    compute = median_ms(alone, 20)
    bus = 1e3 * (len(body) / bandwidth[0] + size / bandwidth[1]) / 1e9
    line(
        name,
        f"{whole:.1f} ms",
        f"in process, copies included, {compute:.1f} ms: ×{whole / compute:.2f}; its bytes on the bus alone {bus:.2f} ms",
    )


def large_vjp(device: str, bandwidth: tuple[float, float], tools: tuple[Line, Connect, Median]) -> None:
    """tanh of a million float32 numbers and its VJP, 8 MB each way."""
    x = np.random.default_rng(0).standard_normal(1_000_000).astype(np.float32)

    def alone() -> tuple[Tensor, Tensor]:
        leaf = torch.from_numpy(x).to(device).requires_grad_()
        output = torch.tanh(leaf)
        (gradient,) = torch.autograd.grad(output, leaf, torch.from_numpy(x).to(device))
        return output.detach().cpu(), gradient.cpu()

    query = {"operation": "tanh", "want": ["outputs", "vjp"]}
    name = "tanh of 1,000,000 float32 and its VJP, safetensors"
    compared(name, query, {"inputs.input": x, "cotangent.output": x}, alone, tools, device, bandwidth)


def product_vjp(device: str, bandwidth: tuple[float, float], tools: tuple[Line, Connect, Median]) -> None:
    """The VJP of a product of two square matrices: three matrices in, two out."""
    side = SIDES[device]
    rng = np.random.default_rng(0)
    a, b, c = (rng.standard_normal((side, side)).astype(np.float32) for _ in range(3))

    def alone() -> list[Tensor]:
        left, right, cotangent = (torch.from_numpy(matrix).to(device) for matrix in (a, b, c))
        leaves = (left.requires_grad_(), right.requires_grad_())
        return [gradient.cpu() for gradient in torch.autograd.grad(leaves[0] @ leaves[1], leaves, cotangent)]

    query = {"program": "a @ b", "want": ["vjp"]}
    name = f"VJP of a {side} × {side} float32 product, safetensors"
    compared(name, query, {"inputs.a": a, "inputs.b": b, "cotangent.output": c}, alone, tools, device, bandwidth)


def run(device: str, seconds: float, line: Line, connect: Connect, median_ms: Median) -> int:
    """Prints a line for each; 1 where there is no such device. `device`: `cuda`, or `cpu` to try the benchmark itself."""
    if device == "cuda" and not torch.cuda.device_count():
        print("no CUDA device: nothing was measured")
        return 1
    if device == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # as the server computes
        torch.backends.cuda.matmul.allow_tf32 = False
    bandwidth = gigabytes_per_s(device)
    title = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    line(
        f"copies of pinned memory, {title}, PyTorch {torch.__version__}",
        f"{bandwidth[0]:.1f} GB/s",
        f"back {bandwidth[1]:.1f} GB/s",
    )
    tools = (line, connect, median_ms)
    large_vjp(device, bandwidth, tools)
    product_vjp(device, bandwidth, tools)
    small_queries(device, seconds, line)
    return 0
