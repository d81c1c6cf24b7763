"""Messages between processes: words, connections, and an end that is gone."""

from __future__ import annotations

import socket

import pytest

from app.group.messages import line


def test_words_keep_their_borders_and_their_order() -> None:
    one_end, other_end = line()
    assert one_end.say("ready", ready=True)
    assert one_end.say("counts", number=None, counts={"cqueries": 1.5})
    assert other_end.heard() == {"say": "ready", "ready": True}
    assert other_end.heard() == {"say": "counts", "number": None, "counts": {"cqueries": 1.5}}
    with pytest.raises(BlockingIOError):
        other_end.heard()
    one_end.close()
    assert other_end.heard() is None
    assert not other_end.say("up")
    other_end.close()


def test_a_connection_is_handed_over() -> None:
    one_end, other_end = line()
    client, server = socket.socketpair()
    assert one_end.hand_over(server)
    server.close()
    message = other_end.heard()
    assert message is not None
    assert message.connection is not None
    with message.connection, client:
        client.sendall(b"here")
        assert message.connection.recv(4) == b"here"
    one_end.close()
    other_end.close()


def test_nobody_waits_for_an_end_that_does_not_listen() -> None:
    one_end, other_end = line()
    said = sum(one_end.say("counts", counts={"x": "y" * 1000}) for _ in range(10_000))
    assert 0 < said < 10_000
    for _ in range(said):
        other_end.heard()
    assert one_end.say("up")
    one_end.close()
    other_end.close()
