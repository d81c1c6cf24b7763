"""Cotangents and tangents of a query: checked against the shapes they belong to, cast, and completed."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from app.catalogue.call import DTYPES
from app.catalogue.dtypes import dtype_name
from app.engine.notes import Notes
from app.engine.tensors import is_differentiable, to_torch
from app.errors import PullbackError
from app.query import TensorData

Vectors = dict[str, Tensor]


def ones(output: Tensor) -> Tensor:
    """The cotangent where none is sent, laid out as one that is sent: the last bits of a matrix product may hang on it."""
    return torch.ones_like(output, memory_format=torch.contiguous_format)


def cotangents(
    sent: Mapping[str, TensorData], differentiable: Mapping[str, Tensor], known: Mapping[str, Tensor], notes: Notes
) -> tuple[Vectors, int | None]:
    """One cotangent for each differentiable output that has one, and the length of their leading axis where they are several.

    Arguments:
        sent: what the client sent, by output name.
        differentiable: the outputs that carry a derivative; known: every output.

    Raises:
        PullbackError: `bad_cotangent`.
    """
    if not sent:
        notes.say(
            "cotangent_ones",
            "The cotangent is all ones, so this is the gradient of the sum.",
            "cotangent",
        )
        return {name: ones(value) for name, value in differentiable.items()}, None
    for name in sent:
        if name not in known:
            raise PullbackError(
                "bad_cotangent",
                f"There is no output named `{name}`.",
                at=f"cotangent.{name}",
                expected="one of " + ", ".join(known),
                given=name,
                fix=f"Name the cotangent `{next(iter(differentiable))}`.",
            )
        if name not in differentiable:
            raise PullbackError(
                "bad_cotangent",
                f"The output `{name}` carries no derivative, so it takes no cotangent.",
                at=f"cotangent.{name}",
                expected="a cotangent of " + " or ".join(differentiable),
                fix=f"Leave `cotangent.{name}` out.",
            )
    return _read(sent, {name: differentiable[name] for name in differentiable if name in sent}, "cotangent", "output")


def tangents(sent: Mapping[str, TensorData], wrt: Mapping[str, Tensor], notes: Notes) -> tuple[Vectors, int | None]:
    """One tangent for each of `wrt` (zero where others have one), and the length of their leading axis where they are several.

    Raises:
        PullbackError: `bad_cotangent`.
    """
    if not sent:
        notes.say("tangent_ones", "The tangent is all ones: the derivative along the diagonal of the inputs.", "tangent")
        return {name: torch.ones_like(value) for name, value in wrt.items()}, None
    for name in sent:
        if name not in wrt:
            raise PullbackError(
                "bad_cotangent",
                f"The tangent `{name}` belongs to no input that is differentiated.",
                at=f"tangent.{name}",
                expected="one of " + ", ".join(wrt),
                given=name,
                fix='Name it after an input, and name that input in "wrt" if you send "wrt".',
            )
    vectors, num_vectors = _read(sent, {name: wrt[name] for name in wrt if name in sent}, "tangent", "input")
    lead = () if num_vectors is None else (num_vectors,)
    for name, value in wrt.items():
        if name not in vectors:
            vectors[name] = torch.zeros((*lead, *value.shape), dtype=value.dtype, device=value.device)
    return {name: vectors[name] for name in wrt}, num_vectors


def _read(sent: Mapping[str, TensorData], of: Mapping[str, Tensor], what: str, whose: str) -> tuple[Vectors, int | None]:
    vectors: Vectors = {}
    counts: dict[str, int | None] = {}
    for name, value in of.items():
        data = sent[name]
        shape = tuple(value.shape)
        if data.shape == shape:
            counts[name] = None
        elif data.shape[1:] == shape and len(data.shape) == len(shape) + 1:
            counts[name] = data.shape[0]
        else:
            raise PullbackError(
                "bad_cotangent",
                f"The {what} of `{name}` must have the shape of that {whose}, {list(shape)}; it has {list(data.shape)}.",
                at=f"{what}.{name}",
                expected=f"shape {list(shape)}, or [k, …] in front of it for k of them",
                given=f"shape {list(data.shape)}",
                fix=f"Send a {what} with the shape of `{name}`.",
            )
        vectors[name] = _cast(data, value, f"{what}.{name}")
    lengths = set(counts.values())
    if len(lengths) > 1:
        raise PullbackError(
            "bad_cotangent",
            f"Either every {what} has a leading axis of the same length, or none has.",
            at=what,
            given=", ".join(f"{n}: {c or 'single'}" for n, c in counts.items()),
            fix=f"Send the same number of {what}s for each {whose}.",
        )
    num_vectors = lengths.pop()
    if num_vectors == 0:
        raise PullbackError(
            "bad_cotangent", f"The leading axis of the {what} is empty.", at=what, fix=f"Send at least one {what}."
        )
    return vectors, num_vectors


def _cast(data: TensorData, value: Tensor, at: str) -> Tensor:
    dtype = DTYPES[data.dtype]
    fits = value.dtype.is_complex or not dtype.is_complex
    if not fits or not (data.bare or is_differentiable(dtype)):
        raise PullbackError(
            "bad_cotangent",
            f"It must be {'floating' if not value.dtype.is_complex else 'floating or complex'}, as what it belongs to is "
            f"{str(value.dtype).removeprefix('torch.')}.",
            at=at,
            expected=dtype_name(value.dtype),
            given=data.dtype,
            fix=f'Send it with "dtype": "{dtype_name(value.dtype)}".',
        )
    return to_torch(data, str(value.device)).to(value.dtype)
