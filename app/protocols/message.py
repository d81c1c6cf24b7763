"""What passes between the road and a protocol: the message that came, what the protocol may ask of the server, and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from app.limits import Limits
from app.protocols.models import Models
from app.query import Answer, Query

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Message:
    """A request as a protocol reads it.

    Attributes:
        endpoint: its name in the protocol's routes.
        parameters: what the path said (`{model}` of a route), and the headers that the route names, by lower-case name.
    """

    endpoint: str
    body: memoryview
    content_type: str | None = None
    content_encoding: str | None = None
    accept: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OutputType:
    """An output before it is computed."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Server:
    """What a protocol may ask of the server that it speaks for.

    Attributes:
        outputs: (query, abstract) → its outputs by name; nothing is computed. `abstract`: its tensors have no values yet, so that
            outputs whose shapes depend on values are refused. Raises PullbackError as the query would.
    """

    limits: Limits
    models: Models
    outputs: Callable[[Query, bool], Mapping[str, OutputType]]


@dataclass(frozen=True, slots=True)
class Written:
    """A reply. `buffers`: the body in pieces; `headers`: by lower-case name, besides Content-Type."""

    media_type: str
    buffers: Sequence[Buffer]
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 200


@dataclass(frozen=True, slots=True)
class Asked:
    """A query, and how its answer is written.

    Attributes:
        otherwise: asked instead where `query` is refused because nothing in it can be differentiated.
    """

    query: Query
    write: Callable[[Answer], Written]
    otherwise: Query | None = None


Reading = Callable[[Message, Server], Asked | Written]
