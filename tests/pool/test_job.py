"""Jobs: what a worker is told of a query, and the pieces of its reply."""

from __future__ import annotations

import json

from app.pool.job import WorkerReply, asked_of


def test_a_worker_is_told_all_that_was_asked_and_the_requests_id() -> None:
    asked = asked_of("query", "application/json", None, "*/*")
    assert json.loads(asked.meta('an "id"')) == {**json.loads(asked.text), "request_id": 'an "id"'}


def test_parts_of_a_reply() -> None:
    pieces = [b"first", b"", b"third"]
    sizes = b"".join(len(piece).to_bytes(8, "little") for piece in pieces)
    reply = WorkerReply(200, "application/json", sizes + b"".join(pieces), pieces=3)
    assert [bytes(part) for part in reply.parts()] == pieces
    assert list(WorkerReply(200, "application/json", b"whole").parts()) == []
