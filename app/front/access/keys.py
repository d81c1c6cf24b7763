"""API keys: which headers carry one, and whether it is one of ours."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Iterator

from app.errors import PullbackError


class ApiKeys:
    """The keys of one server, none of which is kept: only their digests are.

    Arguments:
        keys: each as it is, or as `sha256:` and its hash in hexadecimal. A hash without salt serves keys, which are long and
            random, and not passwords.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = tuple(_digest(key) for key in keys)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def check(self, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """Who has the key, as a name that tells no key. Raises PullbackError unauthorized, unless a header carries a key and none a wrong one.

        Credentials of another scheme may be a proxy's and say nothing to us, so they do not spoil a key beside them; as
        Basic credentials may be either (RFC 7617), they count where their password is a key, and else are passed over.
        """
        owner = ""
        for candidate, must_be_known in _candidates(headers):
            is_key = self._is_key(candidate)
            if must_be_known and not is_key:
                raise _unauthorized()
            if is_key:
                owner = hashlib.sha256(candidate).hexdigest()[:16]
        if not owner:
            raise _unauthorized()
        return owner

    def _is_key(self, candidate: bytes) -> bool:
        """Takes the same time wherever they differ."""
        digest = hashlib.sha256(candidate).digest()
        is_key = False
        for known in self._digests:
            is_key |= hmac.compare_digest(digest, known)
        return is_key


def _digest(key: str) -> bytes:
    scheme, _, digits = key.partition(":")
    return bytes.fromhex(digits) if scheme == "sha256" else hashlib.sha256(key.encode()).digest()


def _candidates(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bool]]:
    """What may be a key, and whether it is meant for nobody but us."""
    for name, value in headers:
        if name == b"x-api-key":
            yield value, True
        elif name == b"authorization":
            # The scheme's name is case-insensitive (RFC 9110, section 11.1).
            scheme, _, credentials = value.partition(b" ")
            if scheme.lower() == b"bearer":
                yield credentials.strip(), True
            elif scheme.lower() == b"basic":
                yield _password(credentials.strip()), False


def _password(credentials: bytes) -> bytes:
    """Of Basic credentials, base64 of `user:password`; empty where they are not. The user may be anyone."""
    try:
        return base64.b64decode(credentials, validate=True).partition(b":")[2]
    except binascii.Error:
        return b""


def _unauthorized() -> PullbackError:
    return PullbackError(
        "unauthorized",
        "This server answers only to those who have one of its API keys.",
        expected="the header Authorization: Bearer KEY, or X-API-Key: KEY, or Basic with the key as password",
        fix="Send one of the keys that the server was started with (PULLBACK_API_KEYS).",
    )
