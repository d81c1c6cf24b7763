"""The budget adds up on every machine; and in real control groups the service stays within it, whatever comes at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import httpx
import pytest
from jsonschema import Draft202012Validator

from app.machine.memory_budget import PARENT_BYTES, PARENT_WITH_CUDA_BYTES, Machine, derive
from app.settings import Settings
from tests.cgroup import memory_group
from tests.pool.queries import SMALL
from tests.server import Server, serving_in

MIB: Final = 1 << 20
GIB: Final = 1 << 30


@pytest.mark.parametrize("cores", [1, 2, 3, 8, 64, 256])
@pytest.mark.parametrize("memory_bytes", [512 * MIB, 700 * MIB, GIB, 2 * GIB, 3 * GIB, 4 * GIB, 24 * GIB, 512 * GIB])
def test_it_adds_up(memory_bytes: int, cores: int) -> None:
    budget = derive(Settings(), Machine(memory_bytes, "cgroup", cores))
    assert budget.fits
    assert budget.total_bytes <= memory_bytes
    assert 1 <= budget.workers <= max(2, cores)
    assert budget.workers >= min(2, cores) or memory_bytes < GIB
    assert budget.body_bytes <= budget.queue_bytes / 4
    # As text, an answer takes up to 2.7 times its tensors' bytes (float64 as JSON), and it must find room in the queue.
    assert 2.7 * budget.result_bytes <= budget.queue_bytes
    settled = budget.settled(Settings())
    assert derive(settled, budget.machine) == budget


@pytest.mark.parametrize("memory_bytes", [768 * MIB, GIB, 16 * GIB])
def test_it_adds_up_with_the_larger_build_of_pytorch(memory_bytes: int) -> None:
    small, large = (
        derive(Settings(), Machine(memory_bytes, "cgroup", 2, parent)) for parent in (PARENT_BYTES, PARENT_WITH_CUDA_BYTES)
    )
    assert large.fits
    assert large.worker_bytes <= small.worker_bytes


def test_a_machine_of_some_size_takes_what_it_always_took() -> None:
    budget = derive(Settings(), Machine(64 * GIB, "machine", 4))
    assert (budget.workers, budget.body_bytes, budget.result_bytes, budget.queue_bytes) == (4, 256 * MIB, 256 * MIB, GIB)


@pytest.mark.parametrize(
    "chosen",
    [
        {"workers": 3},
        {"worker_memory_bytes": 300 * MIB},
        {"queue_bytes": 100 * MIB},
        {"body_limit_bytes": 10 * MIB},
        {"workers": 2, "queue_bytes": 50 * MIB},
    ],
)
def test_what_is_given_counts_and_the_rest_is_derived(chosen: dict[str, int]) -> None:
    budget = derive(Settings.model_validate(chosen), Machine(2 * GIB, "cgroup", 4))
    assert budget.fits
    names = {
        "workers": "workers",
        "worker_memory_bytes": "worker_bytes",
        "queue_bytes": "queue_bytes",
        "body_limit_bytes": "body_bytes",
    }
    assert {name: getattr(budget, names[name]) for name in chosen} == chosen


@pytest.mark.parametrize("cores", [1, 2, 8])
def test_a_light_worker_stands_beside_the_others_where_there_is_memory_for_it(cores: int) -> None:
    budget = derive(Settings(), Machine(8 * GIB, "machine", cores))
    assert 0 < budget.light_bytes <= min(256 * MIB, budget.worker_bytes // 4 + 1)
    assert budget.total_bytes <= 8 * GIB
    assert derive(Settings(), Machine(512 * MIB, "cgroup", cores)).light_bytes == 0
    assert derive(Settings(workers=2, worker_memory_bytes=GIB), Machine(2 * GIB, "cgroup", cores)).light_bytes == 0


@pytest.mark.parametrize(
    ("cores", "memory_bytes", "settings", "fronts"),
    [
        (2, 64 * GIB, {}, 1),
        (4, 64 * GIB, {}, 1),
        (8, 64 * GIB, {}, 2),
        (16, 64 * GIB, {}, 4),
        (256, 512 * GIB, {}, 8),
        (64, 8 * GIB, {}, 2),
        (64, 512 * GIB, {"workers": 5}, 1),
        (64, 512 * GIB, {"workers": 9}, 2),
        (2, 8 * GIB, {"fronts": 4}, 4),
    ],
)
def test_fronts_come_with_workers_that_have_cores_and_memory(
    cores: int, memory_bytes: int, settings: dict[str, int], fronts: int
) -> None:
    budget = derive(Settings.model_validate(settings), Machine(memory_bytes, "machine", cores))
    assert budget.fronts == fronts
    assert budget.workers >= fronts
    assert budget.fits
    gpus = Machine(memory_bytes, "machine", cores, PARENT_WITH_CUDA_BYTES, may_have_gpus=True)
    assert derive(Settings.model_validate(settings), gpus).fronts == settings.get("fronts", 1)
    assert derive(Settings.model_validate({**settings, "device": "cpu"}), gpus).fronts == fronts


def test_slabs_are_a_small_part_and_small_containers_have_none() -> None:
    assert derive(Settings(), Machine(24 * GIB, "machine", 2)).slab_bytes == 64 * MIB
    assert derive(Settings(), Machine(512 * MIB, "cgroup", 2)).slab_bytes == 0
    for memory_bytes in (GIB, 2 * GIB, 4 * GIB):
        budget = derive(Settings(), Machine(memory_bytes, "cgroup", 2))
        assert budget.slab_bytes <= budget.worker_bytes // 15
    # What the settings promise to workers is not cut for them.
    tight = derive(Settings(workers=2, worker_memory_bytes=700 * MIB, queue_bytes=100 * MIB), Machine(2200 * MIB, "cgroup", 2))
    assert (tight.worker_bytes, tight.slab_bytes, tight.fits) == (700 * MIB, 0, True)


def test_what_does_not_fit_is_said() -> None:
    budget = derive(Settings(workers=8, worker_memory_bytes=GIB), Machine(2 * GIB, "cgroup", 4))
    assert not budget.fits
    assert budget.facts()["level"] == "warning"


def test_limits_are_shown_and_logged(server: Server) -> None:
    limits = server.http.get("/v1/limits").json()
    here = Machine.here()
    assert limits["workers"] == {"cpu": 1}
    assert limits["derived_from"] == {"memory_bytes": here.memory_bytes, "memory_from": here.memory_from, "cores": here.cores}
    assert 0 < limits["body_bytes"] <= limits["queue_bytes"]
    schema = server.http.get("/openapi.json").json()["components"]["schemas"]["Limits"]
    Draft202012Validator(schema).validate(limits)
    assert '"event":"budget"' in server.log.read_text()


def largest(limit: int) -> bytes:
    """Zeros, of which JSON text holds the most: each takes two bytes of text and ten times as much when it is read."""
    head, tail = b'{"operation": "exp", "want": ["outputs", "vjp"], "timeout_s": 250, "inputs": {"input": [', b"0]}}"
    return head + b"0," * ((limit - len(head) - len(tail)) // 2) + tail


@pytest.mark.parametrize("memory_bytes", [512 * MIB, GIB])
@pytest.mark.share(2)
def test_the_largest_bodies_at_once_within_a_container(tmp_path: Path, memory_bytes: int) -> None:
    with memory_group(memory_bytes) as group, serving_in(group, tmp_path / "log.txt", PULLBACK_WORKERS="0") as server:
        limits = server.http.get("/v1/limits").json()
        assert limits["derived_from"]["memory_bytes"] == memory_bytes
        assert limits["derived_from"]["memory_from"] == "cgroup"
        body = largest(limits["body_bytes"])
        with ThreadPoolExecutor(10) as clients:
            asked = [clients.submit(httpx.post, f"{server.url}/v1/query", content=body, timeout=300) for _ in range(10)]
            beside = server.http.post("/v1/query", json={**SMALL, "timeout_s": 250})
            replies = [future.result() for future in asked]
        assert beside.status_code == 200
        assert {reply.status_code for reply in replies} <= {200, 429, 413, 507}
        assert "a worker died" not in server.log.read_text()
        assert server.http.post("/v1/query", json=SMALL).status_code == 200


def test_a_kill_by_the_kernel_blames_nobody(tmp_path: Path) -> None:
    # More memory is promised to the worker than there is, so the kernel ends it, not the worker's own limit.
    settings = {"PULLBACK_WORKERS": "1", "PULLBACK_WORKER_MEMORY_BYTES": str(64 * GIB)}
    query = {"program": "y = ones(200000000) * x\nreturn y.sum()", "inputs": {"x": 1.0}, "timeout_s": 250}
    with memory_group(700 * MIB) as group, serving_in(group, tmp_path / "log.txt", **settings) as server:
        for _ in range(3):
            reply = server.http.post("/v1/query", json=query)
            assert (reply.status_code, reply.json()["code"]) == (507, "out_of_memory"), reply.text
            assert str(700 * MIB) in reply.json()["expected"]
            assert server.http.post("/v1/query", json=SMALL).status_code == 200
        assert Path(f"/proc/{server.process.pid}").exists()
