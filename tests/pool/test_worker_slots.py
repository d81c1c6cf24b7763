"""Worker slots: how many workers, where, with how much of the machine each; and that forkserver and front read the same settings."""

from __future__ import annotations

import os

import pytest

from app.machine.memory_budget import MEBIBYTE, Machine
from app.pool.environment import GPU, NO_GPU, environment, variables
from app.pool.worker_slots import WorkerSlot, limits, worker_slots
from app.settings import Settings

GIB = 1 << 30


def test_without_a_gpu_one_worker_for_each_core() -> None:
    slots = worker_slots(Settings(), [])
    assert len(slots) == max(2, Machine.here().cores)
    assert {slot.device for slot in slots} == {"cpu"}
    assert sum(slot.memory_bytes for slot in slots) <= Machine.here().memory_bytes
    assert sum(slot.threads for slot in slots) <= max(Machine.here().cores, len(slots))


def test_with_gpus_one_worker_for_each() -> None:
    assert [slot.device for slot in worker_slots(Settings(), [80 * GIB, 40 * GIB])] == ["cuda:0", "cuda:1"]
    assert worker_slots(Settings(), [80 * GIB])[0].memory_bytes <= 80 * GIB


def test_more_workers_than_gpus_share_them() -> None:
    slots = worker_slots(Settings(workers=3), [80 * GIB, 80 * GIB])
    assert [slot.device for slot in slots] == ["cuda:0", "cuda:1", "cuda:0"]
    assert 2 * slots[0].memory_bytes <= 80 * GIB


def test_workers_on_one_gpu_leave_room_for_the_contexts_of_all() -> None:
    """Each process takes several hundred megabytes of the GPU before its allocator counts anything."""
    for workers in (1, 2, 5, 8):
        slots = worker_slots(Settings(workers=workers), [24 * GIB, 16 * GIB])
        for gpu, total in (("cuda:0", 24 * GIB), ("cuda:1", 16 * GIB)):
            shares = [slot.memory_bytes for slot in slots if slot.device == gpu]
            assert len(set(shares)) <= 1
            assert sum(shares) + len(shares) * 550 * MEBIBYTE < total
            assert sum(shares) + len(shares) * 650 * MEBIBYTE > 0.9 * total or not shares


def test_more_workers_than_fit_on_a_gpu_are_refused_with_the_number_that_does() -> None:
    with pytest.raises(RuntimeError, match=r"60 workers on a GPU of .* room for 27"):
        worker_slots(Settings(workers=60), [24 * GIB])
    assert worker_slots(Settings(workers=60, worker_memory_bytes=GIB), [24 * GIB])[0].memory_bytes == GIB


def test_settings_decide() -> None:
    assert {slot.device for slot in worker_slots(Settings(device="cpu", workers=3), [80 * GIB])} == {"cpu"}
    slots = worker_slots(Settings(workers=2, worker_memory_bytes=GIB), [])
    assert [(slot.device, slot.threads, slot.memory_bytes) for slot in slots] == [
        ("cpu", max(1, Machine.here().cores // 2), GIB)
    ] * 2
    assert limits(Settings(body_limit_bytes=5), WorkerSlot("cpu", 1, GIB)).memory_bytes == GIB


def test_cuda_without_a_gpu_is_refused() -> None:
    with pytest.raises(RuntimeError, match="no GPU"):
        worker_slots(Settings(device="cuda"), [])


def test_the_forkserver_reads_the_same_settings_but_for_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(workers=3, api_keys=("secret",), allowed_origins=("https://a", "https://b"), body_timeout_s=1.5)
    for name, value in variables(settings).items():
        monkeypatch.setenv(name, value)
    assert Settings() == settings.model_copy(update={"api_keys": ()})
    assert "secret" not in " ".join(environment(settings).values())
    assert environment(settings)["OMP_NUM_THREADS"] == "1"
    assert environment(settings)["PATH"] == os.environ["PATH"]


def test_where_a_gpu_may_be_used_nothing_asks_cuda_for_it_before_the_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*GPU, *NO_GPU):
        monkeypatch.delenv(name, raising=False)
    assert environment(Settings(device="auto")).items() >= GPU.items()
    assert "CUDA_VISIBLE_DEVICES" not in environment(Settings(device="cuda"))
    assert environment(Settings(device="cpu")).items() >= NO_GPU.items()
    assert not environment(Settings(device="cpu")).keys() & GPU.keys()
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "max_split_size_mb:64")
    assert environment(Settings())["PYTORCH_ALLOC_CONF"] == "max_split_size_mb:64"
