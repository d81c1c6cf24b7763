"""The native protocol's endpoints: a query, and its refusals as `application/problem+json`."""

from __future__ import annotations

from functools import partial

import orjson

from app.errors import PROBLEM_MEDIA_TYPE, PullbackError
from app.protocols.message import Asked, Message, Server, Written
from app.protocols.native import bodies, json_answer
from app.query import Answer, Encoding


def query(message: Message, server: Server) -> Asked:
    """`POST /v1/query`. Raises PullbackError: `not_acceptable`, and every refusal of `bodies.read`."""
    media_type = bodies.negotiate(message.accept)
    headers = message.content_type, message.content_encoding
    asked = bodies.read(message.body, *headers, server.limits, message.value, message.tensors, message.family)
    cut = json_answer.cut if media_type == bodies.JSON else bodies.cut
    return Asked(asked, partial(_written, media_type=media_type, encoding=asked.encoding), cut=cut)


def _written(answer: Answer, media_type: str, encoding: Encoding) -> Written:
    return Written(media_type, bodies.write(answer, media_type, encoding))


def refused(error: PullbackError, request_id: str | None) -> Written:
    """The refusal as RFC 9457 has it."""
    return Written(PROBLEM_MEDIA_TYPE, (orjson.dumps(error.problem(request_id)),), status=error.status)
