"""A CUDA device: what is settled for it, without one here; what becomes of a query whose context is lost."""

from __future__ import annotations

import ast
import subprocess
import sys

import orjson
import pytest
import torch

from app.engine.cuda.device import is_lost
from app.errors import LostDeviceError
from app.limits import Limits
from app.road import Request, Road
from tests.server import clean_environment
from tests.test_floors import APP

# PyTorch's own words (c10/cuda/CUDAException.cpp).
ASSERTED = (
    "CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported at some other API call, so the "
    "stacktrace below might be incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1\n"
)


def asked(query: dict[str, object]) -> Request:
    return Request("query", "x", "application/json", None, None, memoryview(orjson.dumps(query)))


def test_what_a_generator_of_the_cpu_draws_is_drawn_there() -> None:
    """On a GPU the default device is the GPU, and PyTorch refuses to draw there by such a generator."""
    drawn, nameless = 0, []
    for path in APP.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            keywords = {keyword.arg for keyword in call.keywords} if isinstance(call, ast.Call) else set()
            drawn += "generator" in keywords
            if "generator" in keywords and "device" not in keywords:
                nameless.append(f"{path.relative_to(APP)}:{getattr(call, 'lineno', 0)}")
    assert drawn > 5
    assert nameless == []


def test_full_precision_and_one_order_of_additions_are_settled_without_a_warning() -> None:
    """In a process of its own: the settings are the process's. PyTorch refuses to read those that contradict each other."""
    program = """
import torch
from app.engine.cuda.device import compute_alike
compute_alike()
assert torch.backends.cudnn.conv.fp32_precision == torch.backends.cudnn.rnn.fp32_precision == "ieee"
assert torch.backends.cuda.matmul.fp32_precision == "ieee"
assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
assert not torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction
assert not torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction
assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark
assert torch.are_deterministic_algorithms_enabled() and torch.is_deterministic_algorithms_warn_only_enabled()
with torch.backends.cudnn.flags(enabled=True):
    pass
assert not torch.cuda.is_initialized()
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_cpu_is_never_lost() -> None:
    assert not is_lost("cpu")


@pytest.mark.parametrize(
    "query",
    [
        {"operation": "softmax", "inputs": {"input": [1.0, 2.0]}, "parameters": {"dim": 0}},
        {"operation": "softmax", "inputs": {"input": [1.0, 2.0]}, "parameters": {"dim": 7}},
        {"operation": "no such thing"},
    ],
    ids=["answered", "refused by PyTorch", "refused"],
)
def test_a_lost_context_ends_the_worker_in_the_place_of_an_answer(
    monkeypatch: pytest.MonkeyPatch, query: dict[str, object]
) -> None:
    road = Road(Limits(), "cpu")
    assert road.answer(asked(query), lambda _: None).status in (200, 404, 422)

    def synchronize(device: str) -> None:
        raise RuntimeError(ASSERTED)

    # What PyTorch does on a GPU after a kernel's assertion has failed; the rest of the road stays on the CPU.
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    monkeypatch.setattr(road, "_device", "cuda:0")
    with pytest.raises(LostDeviceError, match="cuda:0"):
        road.answer(asked(query), lambda _: None)


def test_a_worker_that_has_lost_its_context_ends_as_one_that_crashed() -> None:
    """The pool then asks its query again, once, and those that waited behind it without blame."""
    program = """
import socket, time
import orjson, torch
from app.limits import Limits
from app.pool.frames import Kind, encode
from app.pool.worker import send_all, work
from app.pool.worker_slots import WorkerSlot
from app.road import Road

def road():
    road = Road(Limits(), "cpu")
    road.probe = lambda: True
    road._device = "cuda:0"
    return road

def synchronize(device):
    raise RuntimeError("CUDA error: device-side assert triggered")

torch.cuda.synchronize = synchronize
front, own = socket.socketpair()
asked = {"endpoint": "query", "request_id": "a", "content_type": None, "content_encoding": None, "accept": None}
body = b'{"operation": "exp", "inputs": {"input": [1.0]}}'
send_all(front, encode(Kind.QUERY, 1, seconds=time.monotonic() + 600, meta=orjson.dumps(asked), body=[body]))
work(own, road, WorkerSlot("cpu", 1, 8 << 30), None)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=clean_environment(), capture_output=True, text=True, timeout=280, check=False
    )
    assert (done.returncode, done.stderr) == (1, "pullback: The CUDA context on cuda:0 is lost.\n")
