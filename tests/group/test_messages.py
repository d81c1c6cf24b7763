"""Messages between processes: words, connections, and an end that is gone."""

from __future__ import annotations

import socket

import pytest

from app.group.messages import line


def test_words_keep_their_borders_and_their_order() -> None:
    ours, theirs = line()
    assert ours.say("ready", ready=True)
    assert ours.say("counts", number=None, counts={"cqueries": 1.5})
    assert theirs.heard() == {"say": "ready", "ready": True}
    assert theirs.heard() == {"say": "counts", "number": None, "counts": {"cqueries": 1.5}}
    with pytest.raises(BlockingIOError):
        theirs.heard()
    ours.close()
    assert theirs.heard() is None
    assert not theirs.say("up")
    theirs.close()


def test_a_connection_is_handed_over() -> None:
    ours, theirs = line()
    client, server = socket.socketpair()
    assert ours.hand_over(server)
    server.close()
    message = theirs.heard()
    assert message is not None
    assert message.connection is not None
    with message.connection, client:
        client.sendall(b"here")
        assert message.connection.recv(4) == b"here"
    ours.close()
    theirs.close()


def test_nobody_waits_for_an_end_that_does_not_listen() -> None:
    ours, theirs = line()
    said = sum(ours.say("counts", counts={"x": "y" * 1000}) for _ in range(10_000))
    assert 0 < said < 10_000
    for _ in range(said):
        theirs.heard()
    assert ours.say("up")
    ours.close()
    theirs.close()
