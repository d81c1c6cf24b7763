"""Every knob of the service: name, default, unit, meaning.

Knows the variables `PULLBACK_*` (contract, section 7). Refuses to know who reads them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class Settings(BaseSettings):
    """The settings of one server, frozen. Each field is the variable `PULLBACK_` + its name in capitals."""

    model_config = SettingsConfigDict(env_prefix="PULLBACK_", frozen=True, extra="forbid")

    host: str = Field(
        "127.0.0.1", description="Address to listen on. Another than loopback is taken only with API keys or `open_to_network`."
    )
    port: int = Field(8000, ge=0, le=65535, description="TCP port; 0 takes a free one.")
    open_to_network: bool = Field(False, description="Listen on an address that is not loopback although no API key is set.")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="`auto`: one worker for each GPU, else one for each core."
    )
    workers: int = Field(
        0,
        ge=0,
        le=1024,
        description="Worker processes; 0 = one for each GPU, else one for each core and at least two, fewer where memory is short.",
    )
    worker_memory_bytes: int = Field(
        0, ge=0, description="Memory that one worker may take, in bytes; 0 = its share of what front and queue leave."
    )
    queue_length: int = Field(1024, ge=1, description="Queries that may wait; one more is answered 429.")
    queue_bytes: int = Field(
        0,
        ge=0,
        description="Bytes of bodies and replies that may be held at once; more is answered 429; "
        "0 = a quarter of the memory, at most 1 GiB or 128 MiB a core.",
    )
    body_limit_bytes: int = Field(
        0, ge=0, description="Largest body, in bytes, after decompression too; 0 = by the memory, at most 256 MiB."
    )
    result_limit_bytes: int = Field(
        0,
        ge=0,
        description="Largest answer, in bytes of its tensors, refused before anything is allocated; 0 = by the memory, at most 256 MiB.",
    )
    cost_limit_flops: float = Field(1e15, gt=0, description="Floating-point operations that one query may plan.")
    body_timeout_s: float = Field(30.0, gt=0, description="Seconds without a byte of the body before 408.")
    body_floor_bytes_per_s: float = Field(
        4096, ge=0, description="Bytes a second that a body must come at, over any `PULLBACK_BODY_TIMEOUT_S`; below it 408."
    )
    reply_floor_bytes_per_s: float = Field(
        4096, ge=0, description="Bytes a second at which a client must take its reply, over the same time; below it it is cut."
    )
    default_deadline_s: float = Field(30.0, gt=0, description="Deadline of a query that names none, in seconds.")
    maximum_deadline_s: float = Field(300.0, gt=0, description="Longest deadline a query may ask for, in seconds.")
    drain_timeout_s: float = Field(30.0, gt=0, description="Seconds that queries in flight have after SIGTERM.")
    quarantine_s: float = Field(60.0, ge=0, description="Seconds for which a query that killed two workers is refused.")
    api_keys: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Accepted API keys, comma-separated (`Authorization: Bearer KEY` or `X-API-Key`); none = open."
    )
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Origins, comma-separated, whose pages may call from a browser; our own pages always may."
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Names, comma-separated, that `Host` may have where the server listens on loopback; its own always may."
    )
    functions_folder: str | None = Field(None, description="Folder of kept functions, one `NAME.py` each.")
    engine: Literal["local", "ray"] = Field("local", description="Who holds the workers: this machine or a Ray cluster.")
    log_format: Literal["json", "text"] = Field("json", description="One line a request, as JSON or as text.")

    @field_validator("api_keys", "allowed_origins", "allowed_hosts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value
