"""Hosts and origins: under which name this server may be called, and which pages' scripts may call it."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from app.errors import PullbackError
from app.front.access.loopback import is_loopback_name
from app.front.http.exchange import Exchange

_EXPOSED_HEADERS = b"x-request-id, server-timing, retry-after"
# How long a browser may remember a preflight's answer, in seconds.
_PREFLIGHT_AGE_S = b"600"


class Origins:
    """Who may call.

    Arguments:
        host: the address that the server listens on.
        allowed_origins: origins whose pages may call from a browser.
        allowed_hosts: names taken in `Host`, besides loopback's own, where the server listens on loopback.
    """

    def __init__(self, host: str, allowed_origins: Collection[str], allowed_hosts: Collection[str]) -> None:
        self._allowed_origins = frozenset(allowed_origins)
        self._allowed_hosts = frozenset(name.lower() for name in allowed_hosts)
        self._only_loopback = is_loopback_name(host)

    def check_host(self, hosts: list[bytes], http_version: str) -> None:
        """Raises PullbackError: bad_request for no host or two (RFC 9112, section 3.2), foreign_origin for a name that is not ours.

        A page of `evil.example` may have that name point to 127.0.0.1, and then reads what it likes of the server there:
        to its browser that is the page's own origin. Only the name in `Host` tells.
        """
        if len(hosts) > 1 or (not hosts and http_version != "1.0"):
            raise PullbackError(
                "bad_request",
                "An HTTP/1.1 request has exactly one Host header.",
                expected="one Host header",
                given=str(len(hosts)),
                fix="Send Host once.",
            )
        if hosts and self._only_loopback and not self._is_ours(hosts[0].decode("latin-1")):
            raise PullbackError(
                "foreign_origin",
                "This server listens on loopback, and Host has a name that is not loopback's.",
                expected="localhost, 127.0.0.1 or [::1] in Host",
                given=hosts[0].decode("latin-1"),
                fix="Call the server as localhost; behind a proxy, name its host in PULLBACK_ALLOWED_HOSTS.",
            )

    def check_origin(self, exchange: Exchange, origin: str) -> None:
        """Let an allowed page read the response. Raises PullbackError foreign_origin for the pages of others."""
        if self._is_own(origin, exchange.headers.get(b"host", b"").decode("latin-1")):
            return
        if origin not in self._allowed_origins:
            raise PullbackError(
                "foreign_origin",
                "A page from another address sent this, and that address is not on the server's allow-list.",
                expected="an origin in PULLBACK_ALLOWED_ORIGINS, or this server's own",
                given=origin,
                fix="Add the page's origin to PULLBACK_ALLOWED_ORIGINS.",
            )
        exchange.extra += [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-expose-headers", _EXPOSED_HEADERS),
            (b"vary", b"origin"),
        ]

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname
        except ValueError:
            return False
        return is_loopback_name(name) or (name or "") in self._allowed_hosts

    def _is_own(self, origin: str, host: str) -> bool:
        """A page of this very server."""
        try:
            page = urlsplit(origin)
        except ValueError:
            return False
        return bool(host) and page.netloc.lower() == host.lower()


def is_preflight(exchange: Exchange) -> bool:
    """A browser's question whether a page may ask. It never carries credentials (Fetch standard, section 4.8)."""
    return exchange.method == "OPTIONS" and b"access-control-request-method" in exchange.headers


async def answer_preflight(exchange: Exchange) -> None:
    """All verbs and headers that the page of an allowed origin wants."""
    allowed = exchange.headers.get(b"access-control-request-headers", b"content-type")
    headers = [
        (b"access-control-allow-methods", b"GET, HEAD, POST"),
        (b"access-control-allow-headers", allowed),
        (b"access-control-max-age", _PREFLIGHT_AGE_S),
    ]
    await exchange.respond(204, b"text/plain", b"", headers)
