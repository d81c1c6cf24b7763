"""Every knob of the service: name, default, unit, meaning."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from ipaddress import ip_address
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.limits import Limits

PREFIX: Final = "PULLBACK_"
# Shown nowhere, and told to no worker: none needs a key to answer.
SECRETS: Final = frozenset({"api_keys", "api_keys_file"})
# Of the command line's client, and of programs that start a server (the command to start it by): not of the server.
_OTHERS: Final = frozenset({"PULLBACK_API_KEY", "PULLBACK_SERVE"})
# Kubernetes sets such variables in every container of a namespace for a Service named `pullback`.
_SERVICE_LINK: Final = re.compile(
    r"PULLBACK_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_HASHED_KEY: Final = re.compile(r"sha256:[0-9a-fA-F]{64}")
# A name of a host, internationalised ones as they are sent (RFC 1123, section 2.1); the underscore is Docker's.
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?")
# Ports that a browser leaves out of an origin (URL standard, "special scheme").
_LEFT_OUT_PORTS: Final = {"http": 80, "https": 443}
# What sets an origin that a browser does not show, as that of a file or a sandboxed frame (HTML standard, "opaque origin").
_OPAQUE_ORIGIN: Final = "null"
# What a machine can count in; more is a slip, and no system call takes it.
_MOST_BYTES: Final = (1 << 63) - 1


def unknown_variables(environment: Iterable[str]) -> dict[str, str | None]:
    """The names among these variables that look like settings and are none, each with the nearest that is one."""
    known = {name.upper() for name in Settings.model_fields}
    unknown = {}
    for variable in sorted(environment):
        name = variable.upper().removeprefix(PREFIX)
        if (
            name != variable.upper()
            and name not in known
            and PREFIX + name not in _OTHERS
            and not _SERVICE_LINK.fullmatch(variable)
        ):
            # By the names without the prefix, which would make all of them alike.
            unknown[variable] = next((PREFIX + near for near in get_close_matches(name, known, 1)), None)
    return unknown


def checked_keys(keys: tuple[str, ...]) -> tuple[str, ...]:
    """The same keys. Raises ValueError where one is meant for a hash and is none."""
    if any(key.startswith("sha256:") and not _HASHED_KEY.fullmatch(key) for key in keys):
        raise ValueError("sha256: stands before a hash of 64 hexadecimal digits (sha256sum gives it)")
    return keys


def is_host(name: str) -> bool:
    """Whether it is an address or a name; what ends in a number is no name (URL standard, "ends in a number")."""
    try:
        ip_address(name)
    except ValueError:
        return bool(_HOST_NAME.fullmatch(name)) and not name.rstrip(".").rpartition(".")[2].isdecimal()
    return True


def as_sent(origin: str) -> str | None:
    """The origin as a browser sends it (RFC 6454, section 6.2); None where it is none."""
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return None
    if not (parts.scheme and parts.hostname) or parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc:
        return None
    if not is_host(parts.hostname):
        return None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    shown = "" if port in (None, _LEFT_OUT_PORTS.get(parts.scheme)) else f":{port}"
    return f"{parts.scheme}://{host}{shown}"


class Settings(BaseSettings):
    """The settings of one server, frozen. Each field is the variable `PULLBACK_` + its name in capitals."""

    model_config = SettingsConfigDict(env_prefix="PULLBACK_", frozen=True, extra="forbid")

    host: str = Field(
        "127.0.0.1", description="Address to listen on. Another than loopback is taken only with API keys or `open_to_network`."
    )
    port: int = Field(8000, ge=0, le=65535, description="TCP port; 0 takes a free one.")
    metrics_port: int = Field(
        0, ge=0, le=65535, description="TCP port on which `/metrics` and `/health/…` alone are served, without a key; 0 = none."
    )
    open_to_network: bool = Field(False, description="Listen on an address that is not loopback although no API key is set.")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="`auto`: one worker for each GPU, else one for each core."
    )
    workers: int = Field(
        0,
        ge=0,
        le=1024,
        description="Worker processes; 0 = one for each GPU, else one for each core and at least two, fewer where memory is short. "
        "On the CPU two small ones come beside them while all are busy, the light worker and its standby.",
    )
    fronts: int = Field(
        0,
        ge=0,
        le=64,
        description="Front processes, which share the port, the workers and the limits; each needs a worker of its own. 0 = one for each "
        "four workers that have cores and 4 GiB of memory, at most 8; one beside GPUs.",
    )
    worker_memory_bytes: int = Field(
        0,
        ge=0,
        le=_MOST_BYTES,
        description="Memory that one worker may take, in bytes; 0 = its share of what front and queue leave.",
    )
    queue_length: int = Field(1024, ge=1, description="Queries that may wait; one more is answered 429.")
    queue_bytes: int = Field(
        0,
        ge=0,
        le=_MOST_BYTES,
        description="Bytes of bodies and replies that may be held at once; more is answered 429; "
        "0 = a quarter of the memory, at most 1 GiB or 128 MiB a core.",
    )
    body_limit_bytes: int = Field(
        0,
        ge=0,
        le=_MOST_BYTES,
        description="Largest body, in bytes, after decompression too; 0 = by the memory, at most 256 MiB.",
    )
    result_limit_bytes: int = Field(
        0,
        ge=0,
        le=_MOST_BYTES,
        description="Largest answer, in bytes of its tensors, refused before anything is allocated; 0 = by the memory, at most 256 MiB.",
    )
    cost_limit_flops: float = Field(Limits().flops, gt=0, description="Floating-point operations that one query may plan.")
    body_timeout_s: float = Field(30.0, gt=0, description="Seconds without a byte of the body before 408.")
    body_floor_bytes_per_s: float = Field(
        4096,
        ge=0,
        allow_inf_nan=False,
        description="Bytes a second that a body must come at, over any `PULLBACK_BODY_TIMEOUT_S`; below it 408.",
    )
    reply_floor_bytes_per_s: float = Field(
        4096,
        ge=0,
        allow_inf_nan=False,
        description="Bytes a second at which a client must take its reply, over the same time; below it it is cut.",
    )
    default_deadline_s: float = Field(
        30.0, gt=0, description="Deadline of a query that names none, in seconds; at most the longest."
    )
    maximum_deadline_s: float = Field(300.0, gt=0, description="Longest deadline a query may ask for, in seconds.")
    drain_timeout_s: float = Field(30.0, gt=0, description="Seconds that queries in flight have after SIGTERM.")
    batching: Literal["exact", "tolerant", "off"] = Field(
        "exact",
        description="Small queries of one kind that wait in a worker are computed together: `exact` where each has the bits that it has "
        "alone, `tolerant` where its last bits may differ too, `off` never.",
    )
    quarantine_s: float = Field(60.0, ge=0, description="Seconds for which a query that killed two workers is refused.")
    api_keys: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Accepted API keys, comma-separated (`Authorization: Bearer KEY` or `X-API-Key`), each as it is or as "
        "`sha256:` and its hash in hexadecimal; none = open.",
    )
    api_keys_file: str | None = Field(
        None,
        description="File with API keys, one a line, `#` before a comment; they count beside those of `PULLBACK_API_KEYS`.",
    )
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Origins, comma-separated, whose pages may call from a browser; our own pages always may."
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Names, comma-separated, that `Host` may have where the server listens on loopback; its own always may."
    )
    functions_folder: str | None = Field(None, description="Folder of kept functions, one `NAME.py` each.")
    engine: Literal["local", "ray"] = Field(
        "local", description="Who holds the workers: this machine; `ray` is refused so far."
    )
    log_format: Literal["json", "text"] = Field("json", description="One line a request, as JSON or as text.")

    @field_validator("api_keys", "allowed_origins", "allowed_hosts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("api_keys", mode="before")
    @classmethod
    def _check_is_a_key(cls, value: object) -> object:
        """Set and without a key it would open what was to be closed; empty it is not set."""
        if isinstance(value, str) and value and not value.strip(" ,"):
            raise ValueError("a key is expected, or several with commas between them")
        return value

    @field_validator("api_keys")
    @classmethod
    def _check_hashes(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        return checked_keys(keys)

    @field_validator("host")
    @classmethod
    def _check_host(cls, host: str) -> str:
        if not is_host(host):
            raise ValueError("an address of this machine is expected, such as 127.0.0.1, 0.0.0.0 or ::1, or a name of it")
        return host

    @field_validator("allowed_hosts")
    @classmethod
    def _check_hosts(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not is_host(name):
                raise ValueError(
                    f"names are expected, without scheme and port and each in full, such as app.example: not {name!r}"
                )
        return names

    @field_validator("allowed_origins")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        """One that no browser sends in this way would never be met."""
        for origin in origins:
            sent = _OPAQUE_ORIGIN if origin == _OPAQUE_ORIGIN else as_sent(origin)
            if sent is None:
                raise ValueError(f"origins are expected, each in full, such as https://app.example: not {origin!r}")
            if sent != origin:
                raise ValueError(f"a browser sends {origin!r} as {sent}: write it so")
        return origins

    @field_validator("port", mode="before")
    @classmethod
    def _pass_over_service_link(cls, value: object) -> object:
        """`tcp://10.0.0.1:8000` is what Kubernetes sets for a Service of our name, and says nothing of where to listen."""
        if isinstance(value, str) and value.startswith("tcp://"):
            return cls.model_fields["port"].default
        return value
