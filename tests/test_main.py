"""The start of a server: what settings it refuses, what it imports, what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from app.main import BadSettingsError, serve
from app.settings import Settings
from tests.server import Server, clean_environment, serving

EVERYWHERE: Final = "0.0.0.0"  # noqa: S104 - that is what is tested


def test_importing_the_front_does_not_import_torch() -> None:
    code = "import sys, app.main, app.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_takes_long_to_import_is_not_imported_before_ctrl_c_is_heeded() -> None:
    code = "import sys, app.cli; sys.exit(any(name in sys.modules for name in ('pydantic', 'orjson', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_parent_of_the_workers_starts_before_the_front_reads_its_packages() -> None:
    """Both take as long as the packages that they read, so they read them at once."""
    code = """
import sys, app.main
from app.settings import Settings
class Started(BaseException):
    pass
def start(settings):
    raise Started(settings.workers, [name for name in ("fastapi", "uvicorn", "numpy", "prometheus_client") if name in sys.modules])
app.main.ForkserverProcess = start
try:
    app.main.serve(Settings(port=0, workers=2, fronts=1))
except Started as started:
    assert started.args == (2, []), started
    sys.exit(7)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 7


@pytest.mark.parametrize("host", [EVERYWHERE, "::", "192.0.2.1", "example.invalid"])
def test_without_a_key_it_stays_on_loopback(host: str) -> None:
    with pytest.raises(BadSettingsError, match="PULLBACK_API_KEYS"):
        serve(Settings(host=host))


def test_a_port_that_is_taken(server: Server) -> None:
    with pytest.raises(BadSettingsError, match=str(server.port)):
        serve(Settings(port=server.port))


def test_it_says_where_it_answers(server: Server) -> None:
    assert f"Pullback answers on {server.url} — docs at /docs\n" in server.log.read_text()


def test_what_pytorch_warns_of_does_not_get_into_the_log(server: Server) -> None:
    """Of rows without a batching rule: of the whole road, and of what comes often enough to be answered by a recipe."""
    for number in (1.0, 1.5, 2.0, 2.5, 3.5):
        query = {"program": "cummax(x, 0).values", "inputs": {"x": [number, 3.0, 2.0]}, "want": ["jacobian"]}
        server.http.post("/v1/query", json=query).raise_for_status()
    assert "batching rule" not in server.log.read_text()


def test_its_log_can_be_text_and_it_may_be_open_to_the_network(tmp_path: Path) -> None:
    settings = {"PULLBACK_LOG_FORMAT": "text", "PULLBACK_HOST": EVERYWHERE, "PULLBACK_OPEN_TO_NETWORK": "true"}
    with serving(tmp_path / "log.txt", **settings) as running:
        running.http.get("/health/live", headers={"X-Request-Id": "in-text"})
    assert any(
        " request " in line and "request_id=in-text" in line and "status=200" in line
        for line in running.log.read_text().splitlines()
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--port", "70000"], "PULLBACK_PORT"),
        (["--host", EVERYWHERE], "PULLBACK_API_KEYS"),
        (["--workers", "many"], "PULLBACK_WORKERS"),
        (["--engine", "ray"], "PULLBACK_ENGINE"),
        (["--worker-memory-bytes", "512"], "PULLBACK_WORKER_MEMORY_BYTES is 512"),  # MiB were meant
        (["--fronts", "3", "--workers", "2"], "PULLBACK_FRONTS"),
    ],
)
def test_wrong_settings_are_named(arguments: list[str], said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "serve", *arguments],
        env=clean_environment(),
        capture_output=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 2
    assert said in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
