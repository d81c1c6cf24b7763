"""The project's habits: everything is documented, what README, guide and running.md say is tried, packaging and image are what they promise."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import zipfile
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from app import __version__, ready
from app.settings import Settings
from tests.server import Server, clean_environment, free_port

ROOT: Final = Path(__file__).parent.parent
BIN: Final = Path(sys.executable).parent
# What people read before they ask: their commands are tried, and their links lead somewhere.
PAGES: Final = {name: (ROOT / name).read_text() for name in ("README.md", "docs/guide.md", "docs/running.md")}
SETTINGS_PAGE: Final = PAGES["docs/running.md"]
PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())
ADDRESS: Final = "http://127.0.0.1:8000"


# --- what is documented --------------------------------------------------------------------------------------------------


def _shown(default: Any) -> str:
    if default in ((), None):
        return "none"
    if isinstance(default, bool):
        return str(default).lower()
    return f"{default:g}" if isinstance(default, float) else str(default)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented(name: str) -> None:
    field = Settings.model_fields[name]
    assert f"| `PULLBACK_{name.upper()}` | {_shown(field.default)} | {field.description} |" in SETTINGS_PAGE


def test_no_other_setting_is_documented() -> None:
    named = set(re.findall(r"`PULLBACK_([A-Z_]+[A-Z])`", SETTINGS_PAGE))
    assert named == {name.upper() for name in Settings.model_fields}


def test_changelog_has_this_version() -> None:
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


# --- what is said is tried ------------------------------------------------------------------------------------------------


_INTERPRETERS: Final = {"sh": ("bash", "-euo", "pipefail", "-c"), "python": (sys.executable, "-c"), "js": ("node", "-e")}


def _blocks() -> list[tuple[str, str]]:
    """The blocks of every page, the pages one after the other."""
    return [
        block for text in PAGES.values() for block in re.findall(r"^```(\w+)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    ]


def _run(language: str, text: str, server: Server) -> str:
    command = [*_INTERPRETERS[language], text]
    environment = clean_environment(PATH=f"{BIN}:{os.environ['PATH']}", PULLBACK_PORT=str(server.port))
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def assert_like(got: Any, expected: Any, at: str = "") -> None:
    """`got` has everything that `expected` has, numbers to seven digits; how it was planned may change."""
    if isinstance(expected, dict):
        for key, value in expected.items():
            assert key in got, f"{at}.{key}"
            if key not in ("plan", "request_id"):
                assert_like(got[key], value, f"{at}.{key}")
    elif isinstance(expected, list):
        assert len(got) == len(expected), at
        for index, (one, other) in enumerate(zip(got, expected, strict=True)):
            assert_like(one, other, f"{at}[{index}]")
    elif isinstance(expected, float):
        assert math.isclose(got, expected, rel_tol=1e-7, abs_tol=1e-9), f"{at}: {got}, not {expected}"
    else:
        assert got == expected, f"{at}: {got}, not {expected}"


def _without_plan(text: str) -> str:
    return "\n".join(line for line in text.strip().splitlines() if not line.startswith("Plan:")).strip()


@pytest.mark.parametrize("index", [i for i, (language, _) in enumerate(_blocks()) if language in _INTERPRETERS])
def test_commands_do_what_the_pages_say(server: Server, index: int) -> None:
    """`sh`, `python` and `js` blocks are run; a `json` or `text` block that follows is what they print."""
    language, text = _blocks()[index]
    if language == "js" and shutil.which("node") is None:
        pytest.skip("Node is not installed here")
    printed = _run(language, text.replace(ADDRESS, server.url), server)
    following, expected = _blocks()[index + 1] if index + 1 < len(_blocks()) else ("", "")
    if following == "json":
        assert_like(json.loads(printed), json.loads(expected))
    elif following == "text":
        assert _without_plan(printed) == _without_plan(expected)


def test_queries_of_the_pages_are_answered(server: Server) -> None:
    asked = 0
    for language, text in _blocks():
        body = json.loads(text) if language == "json" else {}
        if {"operation", "program", "function"} & set(body):
            reply = server.http.post("/v1/query", json=body)
            assert reply.status_code == 200, reply.text
            asked += 1
    assert asked


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md"])
def test_pages_name_make_targets_that_exist(page: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)\b(?!=)", (ROOT / page).read_text())) <= targets
    assert {"run", "test"} <= targets


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_make_run_shows_an_answer_and_ends_cleanly(tmp_path: Path, ending: signal.Signals) -> None:
    port = free_port()
    environment = clean_environment(PULLBACK_PORT=str(port), PULLBACK_WORKERS="1", BIN=str(BIN))
    log = tmp_path / "log.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(ROOT / "deploy" / "run")],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        until = time.monotonic() + 600
        while "Ctrl-C" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        assert "0.0819" in log.read_text()  # the first element of softmax's Jacobian
        assert ready.is_ready("127.0.0.1", port)
        os.killpg(process.pid, ending)  # as the terminal does, and `kill` of the group
        assert process.wait(120) == 0, log.read_text()
        assert not ready.is_ready("127.0.0.1", port)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


# --- the probe that containers use ---------------------------------------------------------------------------------------


def test_probe_says_yes(server: Server) -> None:
    assert ready.main(["--port", str(server.port)]) == 0


def test_probe_says_no_where_nobody_listens() -> None:
    assert ready.main(["--port", str(free_port())]) == 1


def test_probe_gives_up_on_a_process_that_ended() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    start = time.monotonic()
    assert ready.main(["--port", str(free_port()), "--wait", "250", "--process", str(ended.pid)]) == 1
    assert time.monotonic() - start < 100


# --- packaging -----------------------------------------------------------------------------------------------------------


def _names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\s<>=!~;\[]", requirement)[0].lower().replace("_", "-") for requirement in requirements}


def _pins() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line) for line in lines), "only NAME==VERSION"
    return {name.lower().replace("_", "-"): version for name, version in (line.split("==") for line in lines)}


def test_every_dependency_is_pinned() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    assert _names(PROJECT["project"]["dependencies"]) | _names(extras["dev"]) <= set(_pins())


def test_torch_is_what_was_agreed() -> None:
    assert "torch>=2.11,<2.14" in PROJECT["project"]["dependencies"]
    assert _pins()["torch"] == "2.13.0"


def test_wheel_carries_every_file(tmp_path: Path) -> None:
    """What is not Python (the catalogue, examples, kept functions) is easily forgotten."""
    shutil.copytree(ROOT / "app", tmp_path / "app", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", "wheel", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next((tmp_path / "wheel").iterdir())) as wheel:
        packed = set(wheel.namelist())
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "app").rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert sources <= packed, sources - packed


def test_licence() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert PROJECT["project"]["license"] == "Apache-2.0"


def test_ci_runs_the_one_command() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().rstrip().endswith("exec make test")


# --- image and compose ---------------------------------------------------------------------------------------------------


def _instructions() -> list[tuple[str, str]]:
    text = (ROOT / "Dockerfile").read_text()
    joined = re.sub(r"\\\n", " ", "\n".join(line for line in text.splitlines() if not line.startswith("#")))
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line.strip()]


def _values(instruction: str) -> list[str]:
    return [value for name, value in _instructions() if name == instruction]


def test_image_is_not_root_and_says_how_it_is() -> None:
    assert _values("USER")[-1].split(":") == ["10001", "0"]
    assert _values("STOPSIGNAL") == ["SIGTERM"]
    assert json.loads(_values("ENTRYPOINT")[0]) == ["pullback"]
    assert json.loads(_values("CMD")[0]) == ["serve"]
    probe = _values("HEALTHCHECK")[0].split("CMD", 1)[1]
    assert json.loads(probe) == ["python", "-m", "app.ready"]
    assert "DEVICE=cpu" in _values("ARG")
    assert all(":latest" not in image for image in _values("FROM"))


def test_image_gets_every_file_that_it_copies() -> None:
    """`.dockerignore` starts from nothing, so each COPY must be let in."""
    admitted = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {name for value in _values("COPY") if not value.startswith("--from") for name in value.split()[:-1]}
    assert copied == admitted
    assert all((ROOT / name).exists() for name in copied)


def test_image_knows_the_settings_that_it_sets() -> None:
    named = set(re.findall(r"PULLBACK_([A-Z_]+)=", " ".join(_values("ENV"))))
    assert {name.lower() for name in named} <= set(Settings.model_fields)


def _seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def test_compose_is_careful() -> None:
    service = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]["pullback"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["init"] is True
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert service["healthcheck"]["test"] == ["CMD", "python", "-m", "app.ready"]
    assert service["deploy"]["resources"]["limits"]["memory"]
    drain = float(service["environment"]["PULLBACK_DRAIN_TIMEOUT_S"])
    assert _seconds(service["stop_grace_period"]) > drain
    named = {name.removeprefix("PULLBACK_").lower() for name in service["environment"]}
    assert named <= set(Settings.model_fields)


def test_compose_for_gpus_asks_for_them() -> None:
    service = yaml.safe_load((ROOT / "deploy" / "compose.gpu.yaml").read_text())["services"]["pullback"]
    assert service["build"]["args"] == {"DEVICE": "cuda"}
    (devices,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert devices["driver"] == "nvidia"
    assert devices["capabilities"] == ["gpu"]
