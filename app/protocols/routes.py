"""Which address belongs to which protocol, and what answers there: the table of every route of the foreign protocols."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from app.protocols.message import Written
from app.protocols.models import Models


@dataclass(slots=True)
class ModelCounts:
    """What has been counted of one model since the start; durations in seconds.

    Attributes:
        last: Unix time of the last query, in seconds; 0 where there was none.
    """

    succeeded: int = 0
    failed: int = 0
    success_s: float = 0.0
    failure_s: float = 0.0
    queue_s: float = 0.0
    compute_s: float = 0.0
    encode_s: float = 0.0
    last: float = 0.0


@dataclass(frozen=True, slots=True)
class PageRequest:
    """What a page without a body is made from.

    Attributes:
        parameters: what the path said.
        ready: whether queries are answered now.
        counts: by model, of the queries that came through this protocol.
    """

    parameters: Mapping[str, str]
    models: Models
    ready: bool = True
    counts: Mapping[str, ModelCounts] = field(default_factory=dict)


Page = Callable[[PageRequest], Written]


@dataclass(frozen=True, slots=True)
class Route:
    """One address.

    Attributes:
        path: with `{name}` for a part that is a parameter; a part is never empty and holds no `/`.
        endpoint: for POST: the worker's endpoint that its body goes to.
        page: for GET: what answers, without a worker.
        headers: request headers that the endpoint is told, lower case.
        public: asked without a key: by probes.
        counts: the page shows what has been counted.
    """

    method: Literal["GET", "POST"]
    path: str
    summary: str
    endpoint: str = ""
    page: Page | None = None
    headers: tuple[str, ...] = ()
    public: bool = False
    counts: bool = False


class RouteTable:
    """Finds the route of a path: by its parts, exact ones before parameters.

    Arguments:
        routes: of one protocol.
    """

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes: Final = tuple(routes)
        self._exact: dict[str, list[Route]] = {}
        self._patterns: dict[tuple[str, ...], list[Route]] = {}
        for route in routes:
            if "{" in route.path:
                self._patterns.setdefault(tuple(route.path.split("/")), []).append(route)
            else:
                self._exact.setdefault(route.path, []).append(route)

    def find(self, path: str) -> tuple[Sequence[Route], Mapping[str, str]]:
        """The routes of `path`, one for each method, and its parameters; none where there is no such address."""
        exact = self._exact.get(path)
        if exact is not None:
            return exact, {}
        parts = path.split("/")
        for pattern, routes in self._patterns.items():
            # The last part tells most patterns apart.
            if len(pattern) == len(parts) and (pattern[-1] == parts[-1] or pattern[-1][:1] == "{"):
                parameters = _matched(pattern, parts)
                if parameters is not None:
                    return routes, parameters
        return (), {}


def _matched(pattern: Sequence[str], parts: Sequence[str]) -> Mapping[str, str] | None:
    parameters: dict[str, str] = {}
    for wanted, part in zip(pattern, parts, strict=True):
        if wanted[:1] == "{":
            if not part:
                return None
            parameters[wanted[1:-1]] = part
        elif wanted != part:
            return None
    return parameters
