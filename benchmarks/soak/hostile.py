"""Hostile clients: each does its worst once, on a connection of its own, and says whether what came back is what it asked for."""

from __future__ import annotations

import contextlib
import http.client
import random
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

_TIMEOUT_S: Final = 40.0
_HEADERS: Final = {"Content-Type": "application/json"}


def _asked(port: int, body: bytes, headers: Mapping[str, str] = _HEADERS) -> tuple[int, str]:
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


def runs_into_its_deadline(port: int) -> bool:
    query = {**_eigenvalues(3000), "timeout_s": random.choice([0.5, 1.0, 3.0])}
    return _asked(port, orjson.dumps(query)) in {(504, "deadline_exceeded"), (429, "queue_full")}


def leaves_a_long_query(port: int) -> bool:
    _raw(port, _message(_eigenvalues(3000)), linger_s=0.3)
    return True


def leaves_amid_its_body(port: int) -> bool:
    _raw(port, _message({}, declared=5_000_000), b" " * 700_000)
    return True


def trickles(port: int) -> bool:
    _raw(port, _message({}, declared=100_000), *[b" "] * 10, pause_s=0.1)
    return True


def reads_nothing(port: int) -> bool:
    query = {"program": "return zeros(1000000) + x", "inputs": {"x": 1.0}, "encoding": "base64"}
    _raw(port, _message(query), linger_s=1.0)
    return True


def talks_garbage(port: int) -> bool:
    _raw(port, random.randbytes(4000), linger_s=0.05)
    return True


def sends_no_json(port: int) -> bool:
    return _asked(port, b'{"operation": "exp", "inputs": {"input": [1.0, ') == (400, "bad_json")


def has_a_long_name(port: int) -> bool:
    return _asked(port, orjson.dumps({"function": "f" * 70_000})) == (404, "unknown_function")


def has_a_long_header(port: int) -> bool:
    return _asked(port, b"{}", {**_HEADERS, "Accept": "x/" + "y" * 32_000})[0] in (400, 406, 431)


def wants_too_much(port: int) -> bool:
    query = {"program": "return zeros(100000, 100000, 1000) * x", "inputs": {"x": 1.0}}
    return _asked(port, orjson.dumps(query))[0] in (413, 422, 507)


def sends_a_bomb(port: int) -> bool:
    """20 KB that are 20 MB of white space."""
    import gzip

    body = gzip.compress(b" " * 20_000_000 + b"{}", 9)
    return _asked(port, body, {**_HEADERS, "Content-Encoding": "gzip"})[0] in (400, 413)


def kills_where_it_is_not_refused(port: int) -> bool:
    """What is known to make PyTorch read beyond its tensors is refused before it runs."""
    query = {
        "operation": "segment_reduce", "inputs": {"data": [1.0, 2.0, 3.0], "lengths": [3, 4_000_000]}, "parameters": {"reduce": "sum"}
    }  # fmt: skip
    return 400 <= _asked(port, orjson.dumps(query))[0] < 500


CLIENTS: Final[tuple[Callable[[int], bool], ...]] = (
    runs_into_its_deadline, leaves_a_long_query, leaves_amid_its_body, trickles, reads_nothing, talks_garbage, sends_no_json,
    has_a_long_name, has_a_long_header, wants_too_much, sends_a_bomb, kills_where_it_is_not_refused,
)  # fmt: skip
