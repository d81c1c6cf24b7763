"""The protocols: which addresses are theirs, how their bodies are read, and how they refuse; the one table that front and road share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from app.errors import PullbackError
from app.protocols.message import Reading, TakingApart, Written
from app.protocols.native import endpoints as native
from app.protocols.native import repetition
from app.protocols.oip import endpoints as oip
from app.protocols.routes import RouteTable
from app.protocols.tesseract import endpoints as tesseract
from app.protocols.umbridge import endpoints as umbridge

Refusing = Callable[[PullbackError, str | None], Written]


@dataclass(frozen=True, slots=True)
class Protocol:
    """A foreign protocol.

    Attributes:
        name: the first part of its endpoints' names.
        owns: whether a path is its own, so that a refusal there has its shape.
        readings: of its endpoints, by their names.
        takings_apart: of those whose small queries are answered by a prepared computation where they come again.
    """

    name: str
    owns: Callable[[str], bool]
    routes: RouteTable
    readings: Mapping[str, Reading]
    refused: Refusing
    takings_apart: Mapping[str, TakingApart] = field(default_factory=dict)


def _under(prefix: str) -> Callable[[str], bool]:
    return lambda path: path == prefix or path.startswith(f"{prefix}/")


PROTOCOLS: Final = (
    Protocol("oip", _under(oip.PREFIX), RouteTable(oip.ROUTES), oip.ENDPOINTS, oip.refused, oip.TAKINGS_APART),
    Protocol("umbridge", umbridge.PATHS.__contains__, RouteTable(umbridge.ROUTES), umbridge.ENDPOINTS, umbridge.refused),
    Protocol("tesseract", _under(tesseract.PREFIX), RouteTable(tesseract.ROUTES), tesseract.ENDPOINTS, tesseract.refused),
)
_REFUSING: Final[dict[str, Refusing]] = {protocol.name: protocol.refused for protocol in PROTOCOLS}

PUBLIC_PATHS: Final = frozenset(route.path for protocol in PROTOCOLS for route in protocol.routes.routes if route.public)
READINGS: Final[dict[str, Reading]] = {
    "query": native.query,
    **{endpoint: reading for protocol in PROTOCOLS for endpoint, reading in protocol.readings.items()},
}
TAKINGS_APART: Final[dict[str, TakingApart]] = {
    "query": repetition.taking_apart,
    **{endpoint: taking for protocol in PROTOCOLS for endpoint, taking in protocol.takings_apart.items()},
}


def protocol_of(path: str) -> Protocol | None:
    """The foreign protocol that a path belongs to."""
    for protocol in PROTOCOLS:
        if protocol.owns(path):
            return protocol
    return None


def refused_at(path: str, error: PullbackError, request_id: str | None) -> Written:
    """The refusal in the shape of the protocol that the path belongs to."""
    protocol = protocol_of(path)
    return (native.refused if protocol is None else protocol.refused)(error, request_id)


def refused(endpoint: str, error: PullbackError, request_id: str | None) -> Written:
    """The refusal in the shape of the protocol whose endpoint this is."""
    return _REFUSING.get(endpoint.partition(".")[0], native.refused)(error, request_id)
