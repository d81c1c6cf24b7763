"""What one small query costs through each protocol: CPU time of all the server's processes, rounds interleaved, the best of each."""

from __future__ import annotations

import contextlib
import http.client
import json
import struct
import time
from pathlib import Path
from typing import Any, Final

ROUNDS: Final = 12
QUERIES_A_ROUND: Final = 60
_X: Final = [0.1, 0.2, 0.3]
_G: Final = [1.0, 0.0, 0.0]


def _tensor(name: str, data: list[float] | None) -> dict[str, Any]:
    described = {"name": name, "shape": [3], "datatype": "FP64"}
    return {**described, "parameters": {"binary_data_size": 24}} if data is None else {**described, "data": data}


def _open_inference(binary: bool) -> tuple[str, bytes, dict[str, str]]:
    tensors = [_tensor("input", None if binary else _X), _tensor("cotangent.output", None if binary else _G)]
    outputs = [{"name": "output"}, {"name": "vjp.input"}]
    parameters = {"dim": 0, "binary_data_output": binary}
    text = json.dumps({"inputs": tensors, "outputs": outputs, "parameters": parameters}).encode()
    tail = struct.pack("<6d", *_X, *_G) if binary else b""
    headers = {"Inference-Header-Content-Length": str(len(text))} if binary else {}
    return "/v2/models/softmax/infer", text + tail, headers


def requests() -> dict[str, tuple[str, bytes, dict[str, str]]]:
    """Protocol → the address, body and headers of the same small query."""
    native = {
        "operation": "softmax", "inputs": {"input": _X}, "parameters": {"dim": 0}, "want": ["outputs", "vjp"],
        "cotangent": {"output": _G},
    }  # fmt: skip
    vjp_body = {
        "inputs": {"input": _X, "dim": 0}, "vjp_inputs": ["input"], "vjp_outputs": ["output"], "cotangent_vector": {"output": _G},
    }  # fmt: skip
    return {
        "native": ("/v1/query", json.dumps(native).encode(), {}),
        "Open Inference Protocol, JSON": _open_inference(binary=False),
        "Open Inference Protocol, binary": _open_inference(binary=True),
        "Tesseract": ("/tesseract/softmax/vector_jacobian_product", json.dumps(vjp_body).encode(), {}),
    }


def family(pid: int) -> list[int]:
    """The process and all that come from it."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(descendant for child in children for descendant in family(int(child)))]


def cpu_s(pid: int) -> dict[int, float]:
    """CPU seconds of the process and all that come from it, by their CPU clocks (clock_getcpuclockid(3): ~pid << 3, and 2)."""
    taken: dict[int, float] = {}
    for one in family(pid):
        with contextlib.suppress(OSError):  # it has ended
            taken[one] = time.clock_gettime((~one << 3) | 2)
    return taken


def cpu_us(port: int, pid: int) -> dict[str, float]:
    """Microseconds of CPU that one small query takes in the server `pid` and its workers, by protocol."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    asked = requests()
    best = dict.fromkeys(asked, float("inf"))
    for round_number in range(ROUNDS + 1):
        for name, (path, body, headers) in asked.items():
            before = cpu_s(pid)
            for _ in range(QUERIES_A_ROUND):
                connection.request("POST", path, body, headers)
                reply = connection.getresponse()
                answer = reply.read()
                if reply.status != 200:
                    raise RuntimeError(answer.decode(errors="replace"))
            after = cpu_s(pid)
            # The first warms every path; and a worker that came or went takes its clock with it.
            if round_number and before.keys() == after.keys():
                best[name] = min(best[name], 1e6 * (sum(after.values()) - sum(before.values())) / QUERIES_A_ROUND)
    connection.close()
    return best
