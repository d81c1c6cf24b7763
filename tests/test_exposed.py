"""A server run exposed: keys from a file and hashed, metrics on a port of their own, settings that are misspelt, a cheap probe."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import pytest

from app import ready
from app.settings import Settings, unknown_variables
from tests.pool.queries import SMALL
from tests.processes import forkserver
from tests.server import Server, clean_environment, free_port, serving_as_people_do

PLAIN: Final = "a-key-as-it-is"
HASHED: Final = "a-key-of-which-the-server-knows-the-hash"
IN_THE_VARIABLE: Final = "a-hashed-key-in-the-variable"


def hashed(key: str) -> str:
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, int]]:
    """A server with keys and a port for metrics, and that port."""
    folder = tmp_path_factory.mktemp("exposed")
    (folder / "keys").write_text(f"# of the notebooks\n{PLAIN}\n\n{hashed(HASHED).upper().replace('SHA256', 'sha256')}\n")
    port = free_port()
    settings = {
        "PULLBACK_API_KEYS_FILE": str(folder / "keys"),
        "PULLBACK_API_KEYS": hashed(IN_THE_VARIABLE),
        "PULLBACK_METRICS_PORT": str(port),
    }
    with serving_as_people_do(folder / "log.txt", **settings) as running:
        yield running, port


@pytest.mark.parametrize("key", [PLAIN, HASHED, IN_THE_VARIABLE])
@pytest.mark.parametrize("form", ["X-API-Key", "Bearer", "Basic"])
def test_keys_count_from_wherever_they_come(exposed: tuple[Server, int], key: str, form: str) -> None:
    server, _ = exposed
    auth = httpx.BasicAuth("anyone", key) if form == "Basic" else None
    headers = {"X-API-Key": {"X-API-Key": key}, "Bearer": {"Authorization": f"Bearer {key}"}}.get(form, {})
    reply = httpx.post(f"{server.url}/v1/query", json=SMALL, headers=headers, auth=auth, timeout=300)
    assert reply.status_code == 200


@pytest.mark.parametrize("key", ["", "wrong", hashed(PLAIN), hashed(HASHED), hashed(IN_THE_VARIABLE), "# of the notebooks"])
def test_a_hash_is_no_key(exposed: tuple[Server, int], key: str) -> None:
    server, _ = exposed
    reply = server.http.post("/v1/query", json=SMALL, headers={"X-API-Key": key})
    assert (reply.status_code, reply.json()["code"]) == (401, "unauthorized")
    assert server.http.post("/v1/query", json=SMALL, headers={"X-API-Key": PLAIN}).status_code == 200


def test_no_worker_knows_a_key(exposed: tuple[Server, int]) -> None:
    environment = Path(f"/proc/{forkserver(exposed[0].process.pid)}/environ").read_text()
    assert "PULLBACK_METRICS_PORT" in environment
    assert "API_KEYS" not in environment
    assert hashed(IN_THE_VARIABLE) not in environment


def test_metrics_have_a_port_of_their_own(exposed: tuple[Server, int]) -> None:
    server, port = exposed
    monitoring = f"http://127.0.0.1:{port}"
    assert server.http.get("/metrics").status_code == 401
    reply = httpx.get(f"{monitoring}/metrics")
    assert reply.status_code == 200
    assert 'pullback_workers{state="idle"} 1.0' in reply.text
    assert httpx.get(f"{monitoring}/health/ready").json() == {"status": "ready"}


@pytest.mark.parametrize(
    ("verb", "path"),
    [
        ("POST", "/v1/query"), ("POST", "/v1/queries"), ("GET", "/v1/operations"), ("GET", "/v1/functions"), ("GET", "/docs"),
        ("GET", "/openapi.json"), ("GET", "/v2/models/softmax"), ("POST", "/v2/models/softmax/infer"), ("GET", "/Info"),
        ("POST", "/Evaluate"), ("POST", "/tesseract/softmax/apply"), ("GET", "//metrics/../v1/operations"),
    ],
)  # fmt: skip
def test_nothing_else_is_at_that_port(exposed: tuple[Server, int], verb: str, path: str) -> None:
    server, port = exposed
    for headers in ({}, {"X-API-Key": PLAIN}, {"Host": f"127.0.0.1:{server.port}"}):
        reply = httpx.request(verb, f"http://127.0.0.1:{port}{path}", headers=headers, content=b"{}" if verb == "POST" else b"")
        assert (reply.status_code, reply.json()["code"]) == (404, "not_found")
    assert server.http.post("/v1/query", json=SMALL, headers={"X-API-Key": PLAIN}).status_code == 200


def refused(**settings: str) -> str:
    """What `pullback serve` says where it does not start for its settings."""
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "serve"],
        env=clean_environment(PULLBACK_PORT=str(free_port()), **settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        ("# only a comment\n\n", "has no key"),
        ("sha256:abc\n", "64 hexadecimal digits"),
        ("\udcff", "no"),
    ],
)
def test_a_file_without_keys_does_not_open_the_server(tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / "keys").write_text(text, errors="surrogateescape")
    assert said in refused(PULLBACK_API_KEYS_FILE=str(tmp_path / "keys"))


def test_a_wrong_hash_is_refused_and_not_shown() -> None:
    said = refused(PULLBACK_API_KEYS=f"{PLAIN},sha256:0123")
    assert "64 hexadecimal digits" in said
    assert PLAIN not in said


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("PULLBACK_WORKER", "PULLBACK_WORKERS"),
        ("PULLBACK_API_KEY_FILE", "PULLBACK_API_KEYS_FILE"),
        ("PULLBACK_BODY_LIMIT", "PULLBACK_BODY_LIMIT_BYTES"),
        ("pullback_queue_lenght", "PULLBACK_QUEUE_LENGTH"),
        ("PULLBACK_DEFAULT_DEADLINE", "PULLBACK_DEFAULT_DEADLINE_S"),
        ("PULLBACK_XYZZY", None),
    ],
)
def test_the_nearest_setting_is_named(name: str, nearest: str | None) -> None:
    assert unknown_variables([name, "HOME", "PULLBACK_PORT", "pullback_host", "PULLBACK_API_KEY", "PULLBACK_SERVE"]) == {
        name: nearest
    }


def test_an_unknown_setting_is_refused() -> None:
    assert "PULLBACK_WORKER; did you mean PULLBACK_WORKERS?" in refused(PULLBACK_WORKER="3")


def test_what_kubernetes_sets_for_a_service_of_this_name_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    links = {
        "PULLBACK_SERVICE_HOST": "10.0.0.1", "PULLBACK_SERVICE_PORT": "8000", "PULLBACK_SERVICE_PORT_HTTP": "8000",
        "PULLBACK_PORT": "tcp://10.0.0.1:8000", "PULLBACK_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "PULLBACK_PORT_8000_TCP_PROTO": "tcp", "PULLBACK_PORT_8000_TCP_PORT": "8000", "PULLBACK_PORT_8000_TCP_ADDR": "10.0.0.1",
    }  # fmt: skip
    assert unknown_variables(links) == {}
    for name, value in links.items():
        monkeypatch.setenv(name, value)
    assert Settings().port == 8000
    assert ready.main([]) in (0, 1)


def test_the_probe_imports_next_to_nothing(server: Server) -> None:
    """Its cost is Python's start and a socket: a container pays it every few seconds."""

    def imports_of(*arguments: str) -> set[str]:
        done = subprocess.run(
            [sys.executable, "-X", "importtime", *arguments],
            env=clean_environment(PULLBACK_PORT=str(server.port)),
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
        return {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}

    # An editable installation imports its finder into every Python.
    imported = imports_of("-m", "app.ready") - imports_of("-c", "pass")
    assert {name for name in imported if name.split(".")[0] == "app"} <= {"app", "app.ready"}
    assert not imported & {"http.client", "email", "ssl", "argparse", "asyncio", "pydantic", "typing", "urllib.parse", "torch"}
