"""The encoding of a reply's arrays that an Accept header asks for: base64 where it leaves the choice."""

from __future__ import annotations

from typing import Final

from app.errors import PullbackError
from app.protocols.describe import describe
from app.protocols.tesseract.arrays import Encoding

# Format → encoding, the default first. JSON numbers are larger and slower, and were the one form that lost infinities elsewhere.
FORMATS: Final[dict[str, Encoding]] = {"json+base64": "base64", "json": "json"}
GPU_TRANSPORTS: Final = ("none",)
COMPRESSIONS: Final = ("none",)
_DEFAULT: Final = "json+base64"
_ANY: Final = ("*/*", "application/*")


def negotiated(accept: str | None) -> str:
    """The key of `FORMATS` that is asked for: of the highest q, the first whose parameters can be met.

    Raises:
        PullbackError: `not_acceptable`.
    """
    if not accept:
        return _DEFAULT
    ranges = [_parsed(text) for text in accept.split(",") if text.strip()]
    for name, parameters in sorted(ranges, key=_quality, reverse=True):
        wanted = _DEFAULT if name in _ANY else name.removeprefix("application/")
        if (
            wanted in FORMATS
            and _quality((name, parameters)) > 0
            and parameters.get("gpu_transport", "none") in GPU_TRANSPORTS
            and parameters.get("compression", "none") in COMPRESSIONS
        ):
            return wanted
    raise PullbackError(
        "not_acceptable",
        "No encoding that the Accept header takes can be given.",
        at="Accept",
        expected=", ".join(f"application/{name}" for name in FORMATS),
        given=describe(accept),
    )


def _parsed(text: str) -> tuple[str, dict[str, str]]:
    name, *rest = text.split(";")
    pairs = (part.partition("=") for part in rest)
    return name.strip().lower(), {key.strip().lower(): value.strip().strip('"').lower() for key, _, value in pairs}


def _quality(parsed: tuple[str, dict[str, str]]) -> float:
    try:
        return float(parsed[1].get("q", 1.0))
    except ValueError:
        return 0.0
