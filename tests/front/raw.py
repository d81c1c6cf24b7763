"""HTTP by hand over a socket, for requests that no client would send."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson

from tests.waiting import HANG_S


class Line:
    """One connection to a server."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._rest = b""  # of what has come after the last response

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def try_send(self, data: bytes) -> None:
        """Send, though the server may have hung up already."""
        try:
            self.connection.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return

    def reply(self) -> tuple[int, dict[str, str], Any]:
        """The next response: status, headers by lower-case name, JSON body."""
        status, headers, body = self.response()
        return status, headers, orjson.loads(body) if body else None

    def response(self) -> tuple[int, dict[str, str], bytes]:
        """The next response, its body as it came."""
        data = self._rest
        while b"\r\n\r\n" not in data:
            data += self._more()
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        size = int(headers.get("content-length", "0"))
        while len(body) < size:
            body += self._more()
        body, self._rest = body[:size], body[size:]
        return int(lines[0].split()[1]), headers, body

    def is_silent(self) -> bool:
        """Nothing has come that was not read yet, and the server has not hung up."""
        return not self._rest and not select.select([self.connection], [], [], 0)[0]

    def is_closed(self) -> bool:
        """The server hangs up (within the socket's timeout)."""
        try:
            return self.connection.recv(1) == b""
        except ConnectionResetError:
            return True

    def _more(self) -> bytes:
        data = self.connection.recv(65536)
        if not data:
            raise ConnectionError("the server has hung up in the middle of a response")
        return data


@contextmanager
def line(port: int, timeout_s: float = HANG_S, address: str = "127.0.0.1") -> Iterator[Line]:
    """A connection from this address of the machine. `timeout_s`: how long one waits for a byte, or for room to send one."""
    with socket.create_connection(("127.0.0.1", port), timeout_s, (address, 0)) as connection:
        yield Line(connection)


def head(path: str = "/v1/query", method: str = "POST", **headers: str) -> bytes:
    """A request's head; header names are written with underscores for dashes."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
