"""The refusals of an address or a verb, and of what broke on our side, in words that a client can act on."""

from __future__ import annotations

from app.errors import PullbackError


def not_found(path: str) -> PullbackError:
    return PullbackError("not_found", "There is nothing at this address.", given=path, fix="See /docs for what there is.")


def method_not_allowed(method: str, allowed: str) -> PullbackError:
    return PullbackError(
        "method_not_allowed",
        f"This address takes {allowed}, not {method}.",
        expected=allowed,
        given=method,
        fix=f"Send {allowed}.",
    )


def broken() -> PullbackError:
    return PullbackError("internal", "Something broke on our side; it has been logged under the request id.")
