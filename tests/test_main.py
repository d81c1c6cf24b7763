"""The start of a server: what settings it refuses, what it imports, what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from app.cli import main
from app.main import BadSettingsError, _check_together, serve
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


# Of what makes no server: setting, value, and what is said of it.
WRONG: Final = [
    ("PORT", "abc", "valid integer"),
    ("HOST", "999.1.1.1", "address of this machine"),
    ("HOST", "", "address of this machine"),
    ("HOST", "[::1]", "such as 127.0.0.1, 0.0.0.0 or ::1"),
    ("WORKERS", "-3", "greater than or equal to 0"),
    ("WORKER_MEMORY_BYTES", "512", "is 512, in which no worker can start"),
    ("WORKER_MEMORY_BYTES", "99999999999999999999", "less than"),
    ("QUEUE_BYTES", "1", "131,072 at least"),
    ("BODY_LIMIT_BYTES", "256", "4,096 at least"),  # MiB were meant
    ("RESULT_LIMIT_BYTES", "256", "4,096 at least"),
    ("BODY_FLOOR_BYTES_PER_S", "inf", "finite"),
    ("REPLY_FLOOR_BYTES_PER_S", "nan", "finite"),
    ("DEFAULT_DEADLINE_S", "400", "no deadline is longer than 300 s"),
    ("DRAIN_TIMEOUT_S", "-1", "greater than 0"),
    ("API_KEYS", ",", "a key is expected"),
    ("API_KEYS", "sha256:zz", "64 hexadecimal digits"),
    ("API_KEYS_FILE", "/nonexistent", "No such file"),
    ("ALLOWED_ORIGINS", "foo", "such as https://app.example: not 'foo'"),
    ("ALLOWED_ORIGINS", "https://a.example,*", "not '*'"),
    ("ALLOWED_ORIGINS", "https://A.example:443/", "as https://a.example: write it so"),
    ("ALLOWED_HOSTS", "*", "not '*'"),
    ("ALLOWED_HOSTS", "a.example:8000", "without scheme and port"),
    ("FUNCTIONS_FOLDER", "/nonexistent", "no such folder"),
    ("ENGINE", "ray", "leave PULLBACK_ENGINE at local"),
    ("LOG_FORMAT", "xml", "'json' or 'text'"),
    ("WORKRES", "3", "did you mean PULLBACK_WORKERS?"),
]


@pytest.mark.parametrize(("name", "value", "said"), WRONG)
def test_a_wrong_setting_is_named_with_its_value_and_what_is_expected(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("app.main._listen", _never)
    monkeypatch.setenv("PULLBACK_" + name, value)
    assert main(["serve"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert "PULLBACK_" + name in lines[0]
    assert said in lines[0]
    assert name in ("API_KEYS", "WORKRES") or value.partition(",")[0] in lines[0]


def _never(*arguments: object) -> None:
    raise AssertionError("something was started")


def test_what_is_right_but_unusual_is_taken() -> None:
    origins = ("null", "http://localhost:3000", "chrome-extension://abcdef", "https://[::1]:8443")
    settings = Settings(
        allowed_origins=origins, allowed_hosts=("my_service", "10.0.0.1", "::1"), api_keys="", host="my_host.internal."
    )
    assert (settings.allowed_origins, settings.api_keys) == (origins, ())
    _check_together(Settings(maximum_deadline_s=10))  # the default is that of the longest then


def test_limits_that_contradict_each_other() -> None:
    with pytest.raises(BadSettingsError, match="PULLBACK_BODY_LIMIT_BYTES is 2,097,152, but"):
        _check_together(Settings(queue_bytes=1 << 20, body_limit_bytes=2 << 20))


def test_a_query_by_itself_says_what_is_wrong_with_the_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PULLBACK_QUEUE_LENGTH", "0")
    assert main(["query", "none.json"]) == 2
    assert "PULLBACK_QUEUE_LENGTH" in capsys.readouterr().err


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
