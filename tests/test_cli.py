"""The command `pullback`, as a person at a terminal uses it."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import orjson
import pytest
from safetensors.numpy import save_file

from app.settings import Settings
from tests.pool.queries import SMALL
from tests.server import Server, clean_environment


def pullback(*arguments: str, text: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "app.cli", *arguments]
    return subprocess.run(command, input=text, env=clean_environment(), capture_output=True, check=False, timeout=600)


def test_a_server_is_asked_without_what_only_servers_need(tmp_path: Path) -> None:
    query = tmp_path / "query.json"
    query.write_bytes(orjson.dumps(SMALL))
    script = (
        "import sys; from app import cli; status = cli.main(['query', '--url', '127.0.0.1:9', sys.argv[1]]); "
        "print(status, {'pydantic', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(query)], capture_output=True, text=True, check=True, timeout=600)
    assert done.stdout == "1 set()\n"
    assert "does not answer" in done.stderr


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


def test_a_program_and_its_tensors_from_files(tmp_path: Path) -> None:
    (tmp_path / "lines.py").write_text("import torch.nn as nn\nlayer = nn.Linear(3, 2)\nloss = (layer(x) * w + b).sum() * s\n")
    np.save(tmp_path / "x.npy", np.ones((4, 3)))
    np.savez(tmp_path / "b.npz", b=np.full(2, 0.5))
    save_file({"layer.weight": np.ones((2, 3)), "layer.bias": np.zeros(2)}, tmp_path / "net.safetensors")
    (tmp_path / "w.csv").write_text("first,second\n1.0,2.0\n")
    named_files = [f"x={tmp_path}/x.npy", f"{tmp_path}/b.npz", f"{tmp_path}/net.safetensors", f"w={tmp_path}/w.csv", "s=2"]
    flags = [flag for name in named_files for flag in ("--input", name)]
    done = pullback(
        "query", str(tmp_path / "lines.py"), *flags, "--want", "outputs,gradient", "--wrt", "layer.weight", "--json"
    )
    assert done.returncode == 0, done.stderr
    answer = orjson.loads(done.stdout)
    assert answer["outputs"]["loss" if "loss" in answer["outputs"] else "output"]["data"] == pytest.approx(
        2 * (4 * 3 * 3 + 8 * 0.5)
    )
    assert answer["gradient"]["layer.weight"]["data"] == [[8.0, 8.0, 8.0], [16.0, 16.0, 16.0]]


def test_a_file_of_python_objects_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "evil.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    done = pullback("query", "-", "--input", f"x={tmp_path}/evil.npy", text=b'{"program": "x"}')
    assert done.returncode == 1
    assert b"cannot be read" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_url_without_a_scheme(server: Server, query: str) -> None:
    assert pullback("query", query, "--url", server.url.removeprefix("http://")).returncode == 0


def test_version_and_one_operation() -> None:
    assert pullback("--version").stdout.decode().startswith("pullback ")
    shown = pullback("operations", "softmax").stdout.decode()
    assert "softmax(input, dim" in shown
    assert "differentiable" in shown


def test_ctrl_c_ends_without_a_trace() -> None:
    # Where the tests themselves run in the background, SIGINT is ignored, and a child inherits that.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "app.cli", "query", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_environment()) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(b"{")
        process.stdin.flush()
        while any(fcntl.ioctl(process.stdin, termios.FIONREAD, bytes(4))):
            time.sleep(0.01)  # until it reads standard input
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=300) == 130
        assert b"Traceback" not in process.stderr.read()
