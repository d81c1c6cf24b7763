"""The command `pullback`, as a person at a terminal uses it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from app.settings import Settings
from tests.pool.questions import SMALL
from tests.server import Server, clean_environment


def pullback(*arguments: str, text: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "app.cli", *arguments]
    return subprocess.run(command, input=text, env=clean_environment(), capture_output=True, check=False, timeout=60)


def test_serve_help_lists_every_setting() -> None:
    shown = " ".join(pullback("serve", "--help").stdout.decode().split())
    for name, field in Settings.model_fields.items():
        assert f"PULLBACK_{name.upper()}" in shown
        assert f"--{name.replace('_', '-')}" in shown
        assert " ".join(str(field.description).split()) in shown


@pytest.fixture
def query(tmp_path: Path) -> str:
    path = tmp_path / "query.json"
    path.write_bytes(orjson.dumps({**SMALL, "want": ["outputs", "jacobian"]}))
    return str(path)


def test_query_to_a_server(server: Server, query: str) -> None:
    done = pullback("query", query, "--url", server.url)
    assert done.returncode == 0, done.stderr
    shown = done.stdout.decode()
    assert "outputs.output  float64[3]" in shown
    assert "jacobian.output.input  float64[3, 3]" in shown
    assert "0.30061" in shown


def test_query_in_this_process_gives_the_same(server: Server, query: str) -> None:
    here, there = pullback("query", query, "--json"), pullback("query", query, "--json", "--url", server.url)
    assert orjson.loads(here.stdout)["jacobian"] == orjson.loads(there.stdout)["jacobian"]


def test_query_from_standard_input(server: Server) -> None:
    assert b"vjp.input" in pullback("query", "-", "--url", server.url, text=orjson.dumps(SMALL)).stdout


def test_a_refused_query(server: Server) -> None:
    done = pullback("query", "-", "--url", server.url, text=b'{"operation": "softmux"}')
    assert done.returncode == 1
    assert b"404 unknown_operation" in done.stderr
    assert b"softmax" in done.stderr
    assert done.stdout == b""


@pytest.mark.parametrize("arguments", [["query", "/no/such/file.json"], ["query", "-", "--url", "http://127.0.0.1:9"]])
def test_what_cannot_be_asked(arguments: list[str]) -> None:
    done = pullback(*arguments, text=b"{}")
    assert done.returncode in (1, 2)
    assert done.stderr.startswith(b"pullback: ")
    assert b"Traceback" not in done.stderr


def test_operations() -> None:
    done = pullback("operations", "pinv")
    assert done.returncode == 0
    assert any(line.startswith("linalg.pinv ") for line in done.stdout.decode().splitlines())
    assert len(pullback("operations").stdout.splitlines()) > 500
    assert pullback("operations", "no such thing").returncode == 1
