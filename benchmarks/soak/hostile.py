"""Hostile clients: each does its worst once, on a connection of its own, and raises where what came back is not what it asked for."""

from __future__ import annotations

import contextlib
import http.client
import random
import socket
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

import orjson

_TIMEOUT_S: Final = 40.0
_HEADERS: Final = {"Content-Type": "application/json"}


class UnexpectedReplyError(Exception):
    """A reply that is none of those which such a client must get; `code`: that of its problem, or nothing."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"{status} {code}")
        self.code = code


def _ask(port: int, body: bytes, allowed: Collection[str | int], headers: Mapping[str, str] = _HEADERS) -> None:
    """Raises UnexpectedReplyError where neither the status nor the code of the reply is allowed; a full queue always is."""
    status, code = _asked(port, body, headers)
    if status not in allowed and code not in allowed and code != "queue_full":
        raise UnexpectedReplyError(status, code)


def _asked(port: int, body: bytes, headers: Mapping[str, str]) -> tuple[int, str]:
    """Status and code of the reply."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
    try:
        connection.request("POST", "/v1/query", body, dict(headers))
        reply = connection.getresponse()
        content = reply.read()
    finally:
        connection.close()
    return reply.status, orjson.loads(content).get("code", "") if reply.status != 200 else ""


def _raw(port: int, *pieces: bytes, pause_s: float = 0.0, linger_s: float = 0.0) -> None:
    """Send some bytes, in pieces, and hang up without reading."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S) as connection:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause_s)
        time.sleep(linger_s)


def _message(query: Any, declared: int | None = None) -> bytes:
    body = orjson.dumps(query)
    length = len(body) if declared is None else declared
    return b"POST /v1/query HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        length,
        body,
    )


def _eigenvalues(size: int) -> dict[str, Any]:
    text = f"a = sin(arange({size * size}) * x).reshape({size}, {size})\nreturn linalg.eigvals(a).real.sum()"
    return {"program": text, "inputs": {"x": random.random()}}  # so that no two are the same


def runs_into_its_deadline(port: int) -> None:
    query = {**_eigenvalues(3000), "timeout_s": random.choice([0.5, 1.0, 3.0])}
    _ask(port, orjson.dumps(query), ["deadline_exceeded"])


def leaves_a_long_query(port: int) -> None:
    _raw(port, _message(_eigenvalues(3000)), linger_s=0.3)


def leaves_amid_its_body(port: int) -> None:
    _raw(port, _message({}, declared=5_000_000), b" " * 700_000)


def trickles(port: int) -> None:
    _raw(port, _message({}, declared=100_000), *[b" "] * 10, pause_s=0.1)


def reads_nothing(port: int) -> None:
    query = {"program": "return zeros(1000000) + x", "inputs": {"x": 1.0}, "encoding": "base64"}
    _raw(port, _message(query), linger_s=1.0)


def talks_garbage(port: int) -> None:
    _raw(port, random.randbytes(4000), linger_s=0.05)


def sends_no_json(port: int) -> None:
    _ask(port, b'{"operation": "exp", "inputs": {"input": [1.0, ', ["bad_json"])


def has_a_long_name(port: int) -> None:
    _ask(port, orjson.dumps({"function": "f" * 70_000}), ["unknown_function"])


def has_a_long_header(port: int) -> None:
    _ask(port, b"{}", [400, 406, 431], {**_HEADERS, "Accept": "x/" + "y" * 32_000})


def wants_too_much(port: int) -> None:
    query = {"program": "return zeros(100000, 100000, 1000) * x", "inputs": {"x": 1.0}}
    _ask(port, orjson.dumps(query), [413, 422, 507])


def sends_a_bomb(port: int) -> None:
    """20 KB that are 20 MB of white space."""
    import gzip

    body = gzip.compress(b" " * 20_000_000 + b"{}", 9)
    _ask(port, body, [400, 413], {**_HEADERS, "Content-Encoding": "gzip"})


def kills_where_it_is_not_refused(port: int) -> None:
    """What is known to make PyTorch read beyond its tensors is refused before it runs."""
    query = {
        "operation": "segment_reduce", "inputs": {"data": [1.0, 2.0, 3.0], "lengths": [3, 4_000_000]}, "parameters": {"reduce": "sum"}
    }  # fmt: skip
    _ask(port, orjson.dumps(query), range(400, 500))


CLIENTS: Final[tuple[Callable[[int], None], ...]] = (
    runs_into_its_deadline, leaves_a_long_query, leaves_amid_its_body, trickles, reads_nothing, talks_garbage, sends_no_json,
    has_a_long_name, has_a_long_header, wants_too_much, sends_a_bomb, kills_where_it_is_not_refused,
)  # fmt: skip
