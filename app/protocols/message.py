"""What passes between the road and a protocol: the message that came, what the protocol may ask of the server, and what it gives."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np

from app.limits import Limits
from app.protocols.elements import Array
from app.protocols.json_numbers import finite_text, is_finite
from app.protocols.models import Models
from app.query import Answer, Query, TensorData

Buffer = bytes | bytearray | memoryview
# Above this size reading and computing take so long that what is spent besides does not matter.
SIZE_LIMIT_BYTES: Final = 64 << 10
# The sign, in a signature, of a bare tensor with numbers of both types: where such tensors are a list, they are not of one dtype.
MIXED: Final = "d mixed"

# Magnitudes that a prepared computation takes, by the type code of the array: whole numbers that are exact in float64, so that no note
# of rounding is due, and what float32 holds.
_MAGNITUDES: Final = {"q": 1 << 53, "f": 3.4028234e38}

# The numbers of one tensor; of a binary body, its bytes.
Numbers: TypeAlias = "array[float] | array[int] | memoryview"


def is_within_magnitude(code: str, values: Sequence[float]) -> bool:
    """Whether a prepared computation takes these numbers, at least one, in an array of this type code."""
    limit = _MAGNITUDES.get(code)
    return limit is None or (max(values) <= limit and min(values) >= -limit)


@dataclass(frozen=True, slots=True)
class Message:
    """A request as a protocol reads it.

    Attributes:
        endpoint: its name in the protocol's routes.
        parameters: what the path said (`{model}` of a route), and the headers that the route names, by lower-case name.
        value: what the body spells, where that has been read already (`strict_json.plain_object`); whoever reads it may change it.
        tensors: those of `value` that have been read already, by their paths (`inputs.x`).
        family: of `value` all but shapes and numbers of `tensors`, as `Repetition` has it.
    """

    endpoint: str
    body: memoryview
    content_type: str | None = None
    content_encoding: str | None = None
    accept: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    value: dict[str, Any] | None = None
    tensors: Mapping[str, TensorData] = field(default_factory=dict)
    family: Hashable = None


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
class Repetition:
    """A query taken apart.

    Attributes:
        signature: equal for queries that differ in nothing but numbers of their tensors; hashable.
        numbers: of each tensor or list of tensors, row-major, the inputs before the cotangents and these before the
            tangents, each in the order of the body.
        names: of a binary body, its tensors' places in the query (`inputs.x`), in the order of `numbers`.
        value: of a body in JSON, what it spells, as `Message` has it.
        heads: in the order of `numbers`, (path, dtype, shape, whether it is bare) of each tensor, where each is one as it stands.
    """

    signature: tuple[Any, ...]
    numbers: tuple[Numbers, ...]
    names: tuple[str, ...] | None = None
    value: dict[str, Any] | None = None
    heads: tuple[tuple[str, str, tuple[int, ...], bool], ...] = ()

    @property
    def tensors(self) -> dict[str, TensorData]:
        """As `Message` has them; whoever computes in place copies them first, for the numbers may be computed with once more."""
        return {
            path: TensorData(dtype, shape, memoryview(numbers).cast("B").toreadonly(), is_bare)
            for (path, dtype, shape, is_bare), numbers in zip(self.heads, self.numbers, strict=False)
        }

    @property
    def family(self) -> Hashable:
        """Equal for queries in JSON that differ in nothing but shapes and numbers of their tensors; None of others."""
        if self.value is None or not self.heads:
            return None
        return tuple([part for part in self.signature if type(part) is not tuple or (part and type(part[0]) is str)])

    def is_of(self, query: Query) -> bool:
        """Whether its numbers are those of the query's inputs, cotangents and tangents one by one, each of one dtype."""
        if self.names is not None:
            return True  # by their names they are told from what is no tensor of the query
        has_lists = any(type(value) is tuple for value in query.inputs.values())
        sent = len(query.inputs) + len(query.cotangent) + len(query.tangent)
        return len(self.numbers) == sent and not (has_lists and MIXED in self.signature)


@dataclass(frozen=True, slots=True)
class Cut:
    """A reply cut at its tensors' numbers.

    Attributes:
        pieces: what stands before, between and behind them.
        order: which of the answer's results, counted in its order, stands in each gap.
        flat: in lists without nesting; binary: as their bytes.
    """

    pieces: Sequence[bytes]
    order: tuple[int, ...]
    media_type: str
    headers: Mapping[str, str] = field(default_factory=dict)
    flat: bool = False
    binary: bool = False

    def joined(self, results: Sequence[Array]) -> list[Buffer] | None:
        """The body with other numbers, a large binary one in pieces; None where a number is not finite, of which more is to be said."""
        if not all(map(is_finite, results)):
            return None
        parts: list[Buffer] = [self.pieces[0]]
        is_large = False
        for position, piece in zip(self.order, self.pieces[1:], strict=True):
            values = results[position]
            if not self.binary:
                parts += (finite_text(values.reshape(-1) if self.flat else values), piece)
            elif values.nbytes <= SIZE_LIMIT_BYTES:
                parts += (values.tobytes(), piece)
            else:
                parts += (values.reshape(-1).view(np.uint8).data, piece)
                is_large = True
        return [part for part in parts if len(part)] if is_large else [b"".join(parts)]


@dataclass(frozen=True, slots=True)
class Asked:
    """A query, and how its answer is written.

    Attributes:
        otherwise: asked instead where `query` is refused because nothing in it can be differentiated.
        cut: the reply to an answer of finite real tensors, with gaps for other numbers; None where it is not written so.
    """

    query: Query
    write: Callable[[Answer], Written]
    otherwise: Query | None = None
    cut: Callable[[Answer], Cut | None] | None = None


Reading = Callable[[Message, Server], Asked | Written]
# A body → the query taken apart; None for what must be read by the whole road.
BodyTakenApart = Callable[[Buffer], Repetition | None]
# What takes apart the bodies of all messages that agree with this one in all else; None where they are read by the whole road.
TakingApart = Callable[[Message], BodyTakenApart | None]
