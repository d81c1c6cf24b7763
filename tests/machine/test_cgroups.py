"""Control groups as the kernel shows them: v1, v2, both; the process's own group and those above it; in containers and in units."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from app.machine.cgroups import OomKills, cpu_limit, memory_limit, oom_kills
from app.machine.memory_budget import Machine

GIB: Final = 1 << 30
V2: Final = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
# As `docker run` shows it under v1 without a namespace of groups: the group stands at the mount's root, under its name on the host.
V1_DOCKER: Final = (
    "35 31 0:32 /docker/4f2a /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
    "36 31 0:33 /docker/4f2a /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n"
)
V1_HOST: Final = V1_DOCKER.replace("/docker/4f2a", "/")
HYBRID: Final = V1_HOST + "37 31 0:34 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
UNLIMITED_V1: Final = "9223372036854771712"


def machine(root: Path, own: str, mounts: str, files: dict[str, str]) -> Path:
    """A file system with what /proc says of this process's groups, and the groups' files."""
    files = {"proc/self/cgroup": own, "proc/self/mountinfo": "22 1 0:5 / /proc rw - proc proc rw\n" + mounts, **files}
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


@pytest.mark.parametrize(
    ("own", "mounts", "files", "memory", "cores"),
    [
        pytest.param("0::/", V2, {}, None, None, id="v2, the machine itself"),
        pytest.param(
            "0::/",
            V2,
            {"sys/fs/cgroup/memory.max": f"{2 * GIB}", "sys/fs/cgroup/cpu.max": "150000 100000"},
            2 * GIB,
            1.5,
            id="v2, a container with a namespace of its own",
        ),
        pytest.param(
            "0::/system.slice/pullback.service",
            V2,
            {
                "sys/fs/cgroup/system.slice/pullback.service/memory.max": f"{3 * GIB}",
                "sys/fs/cgroup/system.slice/pullback.service/cpu.max": "max 100000",
                "sys/fs/cgroup/system.slice/cpu.max": "400000 100000",
            },
            3 * GIB,
            4.0,
            id="v2, a unit of systemd",
        ),
        pytest.param(
            "0::/a.slice/b.service/inner",
            V2,
            {
                "sys/fs/cgroup/a.slice/b.service/inner/memory.max": "max",
                "sys/fs/cgroup/a.slice/b.service/memory.max": f"{4 * GIB}",
                "sys/fs/cgroup/a.slice/b.service/memory.high": f"{GIB}",
                "sys/fs/cgroup/a.slice/memory.max": f"{2 * GIB}",
            },
            GIB,
            None,
            id="v2, groups above, and the level at which the kernel slows down",
        ),
        pytest.param(
            "0::/../elsewhere", V2, {"sys/fs/cgroup/memory.max": f"{GIB}"}, GIB, None, id="v2, outside of the namespace"
        ),
        pytest.param(
            "12:memory:/docker/4f2a\n4:cpu,cpuacct:/docker/4f2a\n0::/docker/4f2a",
            V1_DOCKER,
            {
                "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2 * GIB}",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "250000",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            2 * GIB,
            2.5,
            id="v1, a container",
        ),
        pytest.param(
            "12:memory:/a/b\n4:cpu,cpuacct:/",
            V1_HOST,
            {
                "sys/fs/cgroup/memory/a/b/memory.limit_in_bytes": UNLIMITED_V1,
                "sys/fs/cgroup/memory/a/memory.limit_in_bytes": f"{5 * GIB}",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": UNLIMITED_V1,
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            5 * GIB,
            None,
            id="v1, on the host, below a limited group",
        ),
        pytest.param(
            "4:memory:/pods/x\n0::/",
            HYBRID,
            {"sys/fs/cgroup/memory/pods/x/memory.limit_in_bytes": f"{GIB}"},
            GIB,
            None,
            id="both side by side, memory by v1",
        ),
        pytest.param("", "", {}, None, None, id="no groups at all"),
    ],
)
def test_limits_are_those_of_the_tightest_group(
    tmp_path: Path, own: str, mounts: str, files: dict[str, str], memory: int | None, cores: float | None
) -> None:
    root = machine(tmp_path, own, mounts, files)
    assert memory_limit(root) == memory
    assert cpu_limit(root) == cores


@pytest.mark.parametrize(("quota", "cores"), [(50_000, 1), (100_000, 1), (199_999, 1), (250_000, 2)])
def test_a_quota_is_rounded_down_to_one_core_at_least(tmp_path: Path, quota: int, cores: int) -> None:
    root = machine(tmp_path, "0::/", V2, {"sys/fs/cgroup/cpu.max": f"{quota} 100000"})
    assert Machine.here(root).cores == min(cores, Machine.here().cores)


def test_a_limit_above_the_machine_is_none(tmp_path: Path) -> None:
    root = machine(tmp_path, "0::/", V2, {"sys/fs/cgroup/memory.max": str(1 << 50)})
    assert Machine.here(root) == Machine.here(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("own", "mounts", "name", "before"),
    [
        ("0::/x.service", V2, "sys/fs/cgroup/x.service/memory.events", "low 0\noom 4\noom_kill {}\noom_group_kill 0"),
        ("4:memory:/x", V1_HOST, "sys/fs/cgroup/memory/x/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill {}"),
        ("0::/", V2, "proc/vmstat", "pgfault 77\noom_kill {}"),
    ],
    ids=["v2", "v1", "no group"],
)
def test_a_kill_for_lack_of_memory_explains_one_death(tmp_path: Path, own: str, mounts: str, name: str, before: str) -> None:
    root = machine(tmp_path, own, mounts, {name: before.format(3)})
    kills = OomKills(root)
    assert oom_kills(root) == 3
    assert not kills.explain_one()
    (root / name).write_text(before.format(5))
    assert [kills.explain_one() for _ in range(3)] == [True, True, False]
