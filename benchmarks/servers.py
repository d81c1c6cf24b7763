"""The servers that a run compares: Pullback, an empty FastAPI route, a raw socket echo; each a process that ends with the run."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx

from app.ready import wait

_START_LIMIT_S: Final = 180.0
EMPTY_ROUTE = """
from fastapi import FastAPI, Request
app = FastAPI()

@app.post("/")
async def empty() -> dict[str, bool]:
    return {"ok": True}

@app.post("/echo")
async def echo(request: Request):
    from starlette.responses import Response
    return Response(await request.body())
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _process(command: list[str], url: str, environment: dict[str, str] | None = None) -> Iterator[None]:
    process = subprocess.Popen(
        command, env={**os.environ, **(environment or {})}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(600):
            try:
                if httpx.get(url, timeout=1).status_code < 500:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        else:
            raise RuntimeError(f"{command[0]} did not start")
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def environment(port: int, workers: int, device: str = "cpu", **settings: str) -> dict[str, str]:
    """Of a Pullback server: none of our own settings but these."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PULLBACK_")}
    return inherited | {"PULLBACK_PORT": str(port), "PULLBACK_WORKERS": str(workers), "PULLBACK_DEVICE": device} | settings


@contextmanager
def pullback(workers: int = 1, device: str = "cpu", **settings: str) -> Iterator[int]:
    """A Pullback server; yields its port. `settings`: more of its variables."""
    port = free_port()
    with _process(
        [sys.executable, "-m", "app.cli", "serve"],
        f"http://127.0.0.1:{port}/health/ready",
        environment(port, workers, device, **settings),
    ):
        _wait_for_workers(port, workers)
        yield port


def _wait_for_workers(port: int, workers: int) -> None:
    """A server is ready with its first."""
    while True:
        if f'pullback_workers{{state="idle"}} {workers:.1f}' in httpx.get(f"http://127.0.0.1:{port}/metrics").text:
            return
        time.sleep(0.1)


@contextmanager
def logged_pullback(workers: int, log: Path, group: Path | None = None) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A server's port and process, in a control group; it is still there when this ends well, and killed when not."""
    port = free_port()
    command = [sys.executable, "-m", "app.cli", "serve"]
    if group is not None:
        command = ["sh", "-c", 'echo $$ > "$0"; exec "$@"', str(group / "cgroup.procs"), *command]
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment(port, workers), stdout=output, stderr=subprocess.STDOUT)
    try:
        if not wait("127.0.0.1", port, _START_LIMIT_S, lambda: process.poll() is None):
            raise RuntimeError(f"the server did not start: {log.read_text()[-2000:]}")
        yield port, process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


@contextmanager
def empty_fastapi() -> Iterator[int]:
    """An empty FastAPI route (`POST /`) and a body echo (`POST /echo`) on uvicorn, uvloop and httptools."""
    port = free_port()
    code = f"{EMPTY_ROUTE}\nimport uvicorn\nuvicorn.run(app, port={port}, loop='uvloop', http='httptools', log_level='warning', access_log=False)"
    with _process([sys.executable, "-c", code], f"http://127.0.0.1:{port}/"):
        yield port


@contextmanager
def raw_echo(size: int) -> Iterator[socket.socket]:
    """A connection whose other end, a thread, sends back every `size` bytes it receives."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        peer, _ = listener.accept()
        with peer:
            buffer = memoryview(bytearray(size))
            while True:
                got = 0
                while got < size:
                    n = peer.recv_into(buffer[got:])
                    if n == 0:
                        return
                    got += n
                peer.sendall(buffer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with listener, socket.create_connection(listener.getsockname()) as client:
        yield client
