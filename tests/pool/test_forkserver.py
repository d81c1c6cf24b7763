"""The parent of the workers: it has one thread when it forks, on every build of PyTorch, and what cannot heal ends the service.

Runs in the ordinary tests and, by `make test-cuda-build`, on PyTorch's CUDA build without a GPU.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from app.errors import EXIT_SETTINGS, EXIT_THREADS, EXIT_WORKERS
from tests.pool.queries import SMALL
from tests.processes import forkserver, workers
from tests.server import Server, clean_environment, free_port, serving_as_people_do
from tests.waiting import wait_for

# Run by every Python process of the service at its start; the parent of the workers is known by its module.
ONLY_IN_THE_PARENT: Final = "import sys\nif 'app.pool.forkserver' in sys.orig_argv:\n"
EXPLAINED: Final = {
    "program": "p = softmax(x @ w, dim=1)\nlabel = argmax(p, dim=1)\nreturn where(label == 0, 0.0, 1.0).mean()",
    "inputs": {"x": [[1.0, 0.5], [-0.3, 0.8]], "w": [[0.2, -0.1], [0.4, 0.3]]},
    "want": ["explain"],
}


def threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def answers(server: Server) -> bool:
    reply = server.http.post("/v1/query", json=SMALL)
    return reply.status_code == 200 and reply.json()["vjp"]["input"]["shape"] == [3]


@pytest.fixture(scope="module", params=["auto", "cpu"])
def server_of_device(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Server]]:
    """The setting of the device, and a server with it where the system has a variable that shows a GPU."""
    settings = {"PULLBACK_WORKERS": "2", "PULLBACK_DEVICE": request.param, "CUDA_VISIBLE_DEVICES": "0"}
    with serving_as_people_do(tmp_path_factory.mktemp(request.param) / "log.txt", **settings) as running:
        yield request.param, running


def test_start_query_kill_explain(server_of_device: tuple[str, Server]) -> None:
    device, server = server_of_device
    logged = len(server.log.read_text())
    parent = forkserver(server.process.pid)
    assert threads(parent) == 1
    # Where no GPU is to be used, none may be seen: fake tensors would ask CUDA for its devices, which spoils the fork.
    variables = Path(f"/proc/{parent}/environ").read_bytes().split(b"\0")
    assert (b"CUDA_VISIBLE_DEVICES=" in variables) == (device == "cpu")
    assert answers(server)
    old = workers(server.process.pid)
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    assert answers(server)
    reply = server.http.post("/v1/query", json=EXPLAINED)
    assert reply.json()["explain"]["inputs"]["w"]["verdict"] == "disconnected"
    assert reply.json()["explain"]["inputs"]["w"]["because"]["line"] == 2
    wait_for(lambda: len(set(workers(server.process.pid)) - set(old)) >= 2)
    assert forkserver(server.process.pid) == parent
    assert threads(parent) == 1
    assert "Traceback" not in server.log.read_text()[logged:]


# What `prepare` does under conditions that a test makes, each in a fork of one process that has imported it and computed nothing.
PREPARED: Final = {
    "a real backward before the first fake tensor": """
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
order = []
backward, enter = torch.autograd._engine_run_backward, FakeTensorMode.__enter__
def recorded_backward(*arguments, **named):
    order.append("backward")
    return backward(*arguments, **named)
def recorded_enter(self):
    order.append("fake")
    return enter(self)
torch.autograd._engine_run_backward, FakeTensorMode.__enter__ = recorded_backward, recorded_enter
from app.pool.forkserver import prepare
from app.settings import Settings
gpus, road = prepare(Settings(device="cpu"))
assert "fake" in order and order[0] == "backward", order[:5]
""",
    "a GPU": """
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
calls = []
def recorded(owner, name):
    original = getattr(owner, name)
    def call(*arguments, **named):
        calls.append(name)
        return original(*arguments, **named)
    setattr(owner, name, call)
recorded(torch.autograd, "_engine_run_backward")
recorded(FakeTensorMode, "__enter__")
recorded(torch.cuda, "is_available")
recorded(torch.cuda, "_lazy_init")
from app.pool import forkserver
from app.settings import Settings
forkserver.gpu_bytes = lambda: ([80 << 30, 80 << 30], "")
gpus, road = forkserver.prepare(Settings())
assert gpus == [80 << 30, 80 << 30] and b"rosenbrock" in road.functions()
assert not calls, calls
""",
    "a GPU that CUDA cannot use": """
from app.pool import forkserver
from app.settings import Settings
def broken():
    raise RuntimeError("the driver is too old" + chr(10) + "  a stack")
forkserver._ask_cuda = broken
assert forkserver.gpu_bytes() == ([], "the driver is too old")
try:
    forkserver.prepare(Settings(device="cuda"))
except forkserver.ServiceError as error:
    assert str(error) == "PULLBACK_DEVICE is cuda, but PyTorch sees no GPU here. CUDA says: the driver is too old", error
gpus, road = forkserver.prepare(Settings(device="auto"))
assert gpus == [] and road.probe()
""",
}
FORKING: Final = """
import gc, os, sys, traceback
gc.disable()
from app.pool import forkserver
from app.road import Road
for path in sys.argv[1:]:
    if os.fork() == 0:
        os.dup2(os.open(path + ".err", os.O_WRONLY | os.O_CREAT), 2)
        try:
            exec(open(path).read(), {})
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    with open(path + ".status", "w") as file:
        file.write(str(os.wait()[1]))
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """For each of `PREPARED` the status of its process, and what it has written."""
    folder = tmp_path_factory.mktemp("prepared")
    paths = {name: folder / str(number) for number, name in enumerate(PREPARED)}
    for name, path in paths.items():
        path.write_text(PREPARED[name])
    subprocess.run([sys.executable, "-c", FORKING, *map(str, paths.values())], env=clean_environment(), check=True, timeout=850)
    return {
        name: (int(path.with_suffix(".status").read_text()), path.with_suffix(".err").read_text())
        for name, path in paths.items()
    }


def test_a_real_backward_comes_before_the_first_fake_tensor(prepared: dict[str, tuple[int, str]]) -> None:
    """On a CUDA build without a GPU the other order starts threads in the parent; the order is held on every build."""
    assert prepared["a real backward before the first fake tensor"] == (0, "")


def test_with_a_gpu_the_parent_of_the_workers_does_nothing_that_would_open_cuda(prepared: dict[str, tuple[int, str]]) -> None:
    """Neither a backward, which starts a thread for each GPU, nor a fake tensor, which asks whether there is one."""
    assert prepared["a GPU"] == (0, "")


def test_gpus_that_cuda_cannot_use_are_spoken_of(prepared: dict[str, tuple[int, str]]) -> None:
    said = "pullback: there are GPUs, and CUDA cannot use them, so the CPU computes: the driver is too old\n"
    assert prepared["a GPU that CUDA cannot use"] == (0, said)


def test_what_a_start_makes_is_never_looked_through_and_garbage_is_collected_afterwards() -> None:
    """In a process of its own, where nothing else is frozen."""
    script = """
import gc
from app.pool.forkserver import never_collected
looked_through = []
gc.callbacks.append(lambda phase, facts: looked_through.append(facts))
with never_collected():
    many = [[] for _ in range(100_000)]
assert gc.isenabled() and gc.get_freeze_count() > 100_000 and not looked_through
later = []
later.append(later)
del later
assert gc.collect() >= 1 and looked_through
try:
    with never_collected():
        raise ValueError
except ValueError:
    assert gc.isenabled()
"""
    subprocess.run([sys.executable, "-c", script], check=True, env=clean_environment())


# Case → lines of Python that the parent of the workers runs first, settings, the exit status, and what is said in the end.
UNHEALABLE: Final[dict[str, tuple[str, dict[str, str], int, str]]] = {
    "cuda asked for and absent": (
        "    pass",
        {"PULLBACK_DEVICE": "cuda", "CUDA_VISIBLE_DEVICES": ""},
        EXIT_SETTINGS,
        "PULLBACK_DEVICE is cuda",
    ),
    "threads in the parent": (
        "    import threading, time\n    threading.Thread(target=time.sleep, args=(1e3,), daemon=True).start()",
        {},
        EXIT_THREADS,
        "2 threads",
    ),
    "a parent that is killed": ("    import os\n    os.kill(os.getpid(), 9)", {}, EXIT_WORKERS, "died 3 times in a row"),
    "workers that die at once": (
        "    import os\n    os.register_at_fork(after_in_child=lambda: os._exit(1))",
        {"PULLBACK_DEVICE": "cpu"},
        EXIT_WORKERS,
        "A worker died 6 times in a row before it was ready",
    ),
}


@pytest.fixture(scope="module")
def ending(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """For each case a `pullback serve` that will end by itself, all of them at once, as they wait most of the time."""
    command = [str(Path(sys.executable).parent / "pullback"), "serve"]
    with ExitStack() as stack:
        running = {}
        for case, (in_the_parent, settings, _, _) in UNHEALABLE.items():
            folder = tmp_path_factory.mktemp("ending")
            (folder / "sitecustomize.py").write_text(ONLY_IN_THE_PARENT + in_the_parent)
            environment = clean_environment(PULLBACK_PORT=str(free_port()), PULLBACK_WORKERS="1", **settings)
            process = subprocess.Popen(
                command,
                env={**environment, "PYTHONPATH": str(folder)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            running[case] = stack.enter_context(process)
            stack.callback(process.kill)
        yield running


@pytest.mark.parametrize("case", UNHEALABLE)
def test_what_cannot_heal_ends_the_service(ending: dict[str, subprocess.Popen[str]], pair: Server, case: str) -> None:
    _, _, exit_status, said = UNHEALABLE[case]
    _, errors = ending[case].communicate(timeout=280)
    assert ending[case].returncode == exit_status, errors
    lines = [line for line in errors.splitlines() if line.startswith("pullback: ")]
    assert said in lines[-1]
    assert "Traceback" not in errors
    assert answers(pair)


# As many deaths as the second and a half that follow can hold where each is waited for longer than the one before: three, with room.
DEATHS: Final = 5
LATER: Final = 6


def test_workers_that_die_of_settling_are_not_forked_without_end(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        ONLY_IN_THE_PARENT + "    import os\n    from app.road import Road\n"
        "    def settle(self):\n        os.kill(os.getpid(), 9)\n        yield True\n    Road.settle = settle"
    )
    environment = clean_environment(PULLBACK_PORT=str(free_port()), PULLBACK_WORKERS="1", PULLBACK_DEVICE="cpu")
    log = tmp_path / "log"
    command = [str(Path(sys.executable).parent / "pullback"), "serve"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env={**environment, "PYTHONPATH": str(tmp_path)}, stdout=output, stderr=subprocess.STDOUT
        )

    def deaths() -> int:
        return log.read_text().count("a worker died")

    try:
        wait_for(lambda: deaths() >= DEATHS, 240)
        before = deaths()
        time.sleep(1.5)
        assert deaths() <= before + LATER
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
