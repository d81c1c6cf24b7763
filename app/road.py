"""The road of a query in a worker: bytes → Query → Answer → bytes. Read this file first."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import orjson
import torch

from app.engine.cuda import device as devices
from app.engine.engine import Engine
from app.engine.errors import translated
from app.engine.joint.proof import Batching
from app.engine.joint.proofs import PROVED_AFTER
from app.engine.recipes import PreparedReply, Recipes
from app.engine.zeros.telling_zeros import RESULTS
from app.errors import LostDeviceError, PullbackError
from app.limits import Limits
from app.program.errors import is_memory
from app.program.functions import load
from app.protocols import registry
from app.protocols.message import Asked, Buffer, Cut, Message, OutputType, Repetition, Server, Written
from app.protocols.models import Models
from app.protocols.native import bodies
from app.query import Answer, Query

_LOG = logging.getLogger("pullback.road")


@dataclass(frozen=True, slots=True)
class Request:
    """What the front hands over.

    Attributes:
        endpoint: `query`, `split` for a list of queries, or an endpoint of a foreign protocol.
        parameters: what the path said, and the headers that the endpoint's route names.
    """

    endpoint: str
    request_id: str
    content_type: str | None
    content_encoding: str | None
    accept: str | None
    body: memoryview
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back.

    Attributes:
        buffers: the body in pieces; for `split`, one JSON body each.
        timings: seconds spent, by `compute` and `encode`.
        labels: `operation`, `want` and `code`, for the metrics.
        headers: by lower-case name, besides Content-Type.
        retire: this worker must be replaced after the reply.
        first: the query was the first of its kind here, so that it was planned.
    """

    status: int
    media_type: str
    buffers: Sequence[Buffer]
    timings: dict[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    retire: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    first: bool = False


class TakenApart(NamedTuple):
    """A query taken apart, and what is prepared for its like; None where nothing is."""

    repetition: Repetition
    prepared: PreparedReply | None


class Road:
    """Answers requests on one device, one at a time."""

    def __init__(self, limits: Limits, device: str, functions_folder: str | None = None, batching: Batching = "exact") -> None:
        if device != "cpu":
            devices.settle(device)
        self._limits = limits
        self._functions = load(functions_folder)
        self._engine = Engine(limits, device, self._functions)
        self._server = Server(limits, Models(self._functions.listing()["functions"]), self._outputs)
        self._device = device
        self.recipes = Recipes(batching)

    def answer(self, request: Request, announce: Callable[[float], None]) -> Reply:
        """`announce(timeout_s)` is called right after decoding where the query names its timeout.

        Raises:
            LostDeviceError: and nothing else; another process may answer.
        """
        take_apart = self.taking_apart(request)
        parts = None if take_apart is None else take_apart(request.body)
        reply = None if parts is None or parts.prepared is None else self.repeated(parts.prepared, parts.repetition)
        return self.whole(request, announce, parts) if reply is None else reply

    def taking_apart(self, request: Request) -> Callable[[Buffer], TakenApart | None] | None:
        """What takes apart the bodies of requests that agree with this one in all else.

        It, or what it returns, is None where the whole road has to read them.
        """
        of_endpoint = registry.TAKINGS_APART.get(request.endpoint)
        of_body = None if of_endpoint is None else of_endpoint(_message(request, memoryview(b"")))
        if of_body is None:
            return None

        def take_apart(body: Buffer) -> TakenApart | None:
            repetition = of_body(body)
            return None if repetition is None else TakenApart(repetition, self.recipes.get(repetition.signature))

        return take_apart

    def repeated(self, prepared: PreparedReply, repetition: Repetition) -> Reply | None:
        """The reply by a recipe; None where the whole road has to speak: the recipe stopped, or a number is not finite."""
        start = time.perf_counter()
        try:
            results = prepared.recipe.run(repetition.numbers)
        except Exception:  # the road will say what PyTorch has against it
            return None
        computed = time.perf_counter()
        body = None if results is None else prepared.joined(results)
        if body is None:
            return None
        self.recipes.note(repetition.signature, prepared, repetition.numbers, computed - start)
        timings = {"compute": computed - start, "encode": time.perf_counter() - computed}
        return Reply(200, prepared.media_type, body, timings, prepared.labels, headers=prepared.headers)

    def repeated_together(self, prepared: PreparedReply, repetitions: Sequence[Repetition]) -> list[Reply | None]:
        """The replies to several queries of one signature, computed together, as many as the recipe's stacks have said.

        None where one has to be asked alone: what PyTorch has against one of them, or a number that is not finite, is its own.
        """
        start = time.perf_counter()
        try:
            rows = prepared.recipe.run_together([repetition.numbers for repetition in repetitions])
        except Exception:  # of one of them, and nobody knows of which
            return [None] * len(repetitions)
        computed = time.perf_counter()
        written = [None if row is None else prepared.joined(row) for row in rows]
        count = len(repetitions)
        timings = {"compute": (computed - start) / count, "encode": (time.perf_counter() - computed) / count}
        return [
            None if body is None else Reply(200, prepared.media_type, body, timings, prepared.labels, headers=prepared.headers)
            for body in written
        ]

    def improve(self) -> bool:
        """Spend about a millisecond that nobody waits for on what makes later answers cheaper; False where there is nothing to do."""
        try:
            return self._engine.improve() or self.recipes.proofs.step()
        except Exception:  # what breaks here breaks a query that needs it too, and that one is told
            _LOG.exception("what was to be prepared broke")
            return True

    def settle(self) -> Iterator[bool]:
        """After a fork: answer small queries, a few milliseconds a step, so that the pages that any query writes to are this process's own.

        All of them belong to the parent at first, and to copy one takes 4 µs: 1,700 of the first query's 8 ms (measured), 140 after this.
        """
        for body in _SETTLING:
            self.answer(Request("query", "settle", None, None, None, memoryview(body)), lambda _: None)
            yield True

    def whole(self, request: Request, announce: Callable[[float], None], parts: TakenApart | None) -> Reply:
        """The answer by the whole road; `announce` and what is raised as above.

        Arguments:
            parts: the query taken apart, where it can be.
        """
        labels = {"operation": "", "want": "", "code": "ok"}
        try:
            if request.endpoint == "split":
                pieces = bodies.split(
                    request.body, request.content_type, request.content_encoding, request.accept, self._limits
                )
                return Reply(200, bodies.JSON, list(pieces), labels=labels)
            return self._read(request, announce, labels, parts)
        except PullbackError as error:
            self._check_device()
            return _refusal(error, request, labels, retire=error.code == "out_of_memory" and self._engine.is_spoiled)
        except Exception as error:  # the last floor: a worker answers whatever happens
            self._check_device()
            if is_memory(error):
                return _refusal(translated(error), request, labels)
            _LOG.exception("query %s broke", request.request_id)
            broken = PullbackError("internal", "Something broke while answering this query; it has been written to the log.")
            return _refusal(broken, request, labels)

    def _check_device(self) -> None:
        """At the end of a query, so that the next one is not blamed for what this one has done to a GPU: 5 µs there, nothing on the CPU."""
        if devices.is_lost(self._device):
            raise LostDeviceError(f"The CUDA context on {self._device} is lost.")

    def refused(self, error: PullbackError, request: Request, *, retire: bool = False) -> Reply:
        """The refusal in the shape of the request's protocol."""
        return _refusal(error, request, {}, retire=retire)

    def _read(
        self, request: Request, announce: Callable[[float], None], labels: dict[str, str], parts: TakenApart | None
    ) -> Reply:
        message = _message(request, request.body, None if parts is None else parts.repetition)
        asked = registry.READINGS[request.endpoint](message, self._server)
        if isinstance(asked, Written):
            return _reply(asked, {}, labels)
        query = asked.query
        if query.timeout_s is not None:
            announce(query.timeout_s)
        labels["operation"] = _name(query)
        labels["want"] = query.want[0] if len(query.want) == 1 else "several"
        plans = self._engine.plans
        start = time.perf_counter()
        query, answer = self._answer(asked)
        computed = time.perf_counter()
        written = asked.write(answer)
        done = time.perf_counter()
        self._check_device()
        if parts is not None and self.recipes.is_due(parts.repetition.signature):
            cut = None if asked.cut is None or not parts.repetition.is_of(query) else asked.cut
            self._learn(parts.repetition, query, answer, cut, b"".join(written.buffers), labels)
        timings = {"compute": computed - start, "encode": done - computed}
        return _reply(written, timings, labels, first=self._engine.plans > plans)

    def _learn(
        self,
        repetition: Repetition,
        query: Query,
        answer: Answer,
        cutting: Callable[[Answer], Cut | None] | None,
        body: bytes,
        labels: Mapping[str, str],
    ) -> None:
        """Keep the recipe of a query just answered, if it answers this very query with the same bytes."""
        if any(note.code == "non_finite" for note in answer.notes):
            return  # what overflows says so at each point for itself, and this point says nothing of others
        if any(note.code == "rounded" and note.at.startswith(RESULTS) for note in answer.notes):
            self.recipes.failed(repetition.signature)  # so does a zero that is none
            return
        recipe = None if cutting is None else self._engine.recipe(query, repetition.names)
        cut = None if recipe is None or cutting is None else cutting(answer)
        if recipe is None or cut is None:
            self.recipes.add(repetition.signature, None)
            return
        prepared = PreparedReply(recipe, cut.joined, cut.media_type, cut.headers, labels)
        recipe.looks_at_zeros = False
        repeated = self.repeated(prepared, repetition)
        recipe.looks_at_zeros = True
        if repeated is not None and b"".join(repeated.buffers) == body:
            self.recipes.add(repetition.signature, prepared, sum(map(len, cut.pieces)))
        else:
            self.recipes.failed(repetition.signature)

    def _answer(self, asked: Asked) -> tuple[Query, Answer]:
        """The query that was answered, and its answer."""
        try:
            return asked.query, self._engine.answer(asked.query)
        except PullbackError as error:
            if asked.otherwise is None or error.code != "not_differentiable":
                raise
        return asked.otherwise, self._engine.answer(asked.otherwise)

    def _outputs(self, query: Query, abstract: bool) -> Mapping[str, OutputType]:
        return {name: OutputType(*kind) for name, kind in self._engine.outputs(query, abstract=abstract).items()}

    def functions(self) -> bytes:
        """The kept functions as `GET /v1/functions` gives them: `{"functions": […]}`."""
        return orjson.dumps(self._functions.listing())

    def probe(self) -> bool:
        """A small forward and backward on the device, its value known: Σ softmax² has the gradient 0 at equal inputs."""
        x = torch.zeros(2, dtype=torch.float64, device=self._device, requires_grad=True)
        (g,) = torch.autograd.grad((torch.softmax(x, 0) ** 2).sum(), x)
        return bool((g.abs() < 1e-12).all())

    def warm(self) -> None:
        """Imports and runs every lazy part of PyTorch once, so that workers forked afterwards answer at once.

        A real backward comes before the first plan on fake tensors: on a CUDA build without a GPU the first backward after a
        FakeTensorMode starts a thread for each device that might be, and a fork from a process with threads breaks autograd.
        """
        self.probe()
        for body in _WARM_UP:
            self.answer(Request("query", "warm-up", None, None, None, memoryview(body)), lambda _: None)
        for _ in range(_REPETITIONS):  # until it is due to be proved: recording has lazy parts of its own
            self.answer(Request("query", "warm-up", None, None, None, memoryview(_REPEATED)), lambda _: None)
        while self.improve():
            pass


def _message(request: Request, body: memoryview, repetition: Repetition | None = None) -> Message:
    headers = request.content_type, request.content_encoding, request.accept
    known = () if repetition is None else (repetition.value, repetition.tensors, repetition.family)
    return Message(request.endpoint, body, *headers, request.parameters, *known)


def _name(query: Query) -> str:
    return query.operation or ("program" if query.program is not None else query.function or "")


def _reply(written: Written, timings: dict[str, float], labels: dict[str, str], *, first: bool = False) -> Reply:
    return Reply(written.status, written.media_type, written.buffers, timings, labels, headers=written.headers, first=first)


def _refusal(error: PullbackError, request: Request, labels: dict[str, str], *, retire: bool = False) -> Reply:
    labels["code"] = error.code
    written = registry.refused(request.endpoint, error, request.request_id)
    return Reply(written.status, written.media_type, written.buffers, labels=labels, retire=retire, headers=written.headers)


# What comes again, a new operation and a program: the roads of most queries.
_SETTLING = (
    b'{"operation": "softmax", "inputs": {"input": [1.0, 2.0]}, "parameters": {"dim": 0}, "want": ["vjp"]}',
    b'{"operation": "exp", "inputs": {"input": [1.0, 2.0]}, "want": ["vjp"], "cotangent": {"output": [1.0, 0.5]}}',
    b'{"program": "h = torch.tanh(x @ w)\\nreturn (h * h).sum()", "inputs": {"x": [[1.0, 2.0]], "w": [[0.5], [0.1]]}, "want": ["gradient"]}',
)
_REPETITIONS = 2 + PROVED_AFTER  # two for a recipe, the others for its proof
_REPEATED = b'{"operation": "softmax", "inputs": {"input": [1.0, 2.0]}, "parameters": {"dim": 0}, "want": ["vjp"]}'
_WARM_UP = (
    b'{"operation": "softmax", "inputs": {"input": [1.0, 2.0]}, "parameters": {"dim": 0}, "want": ["outputs", "vjp", "jvp", "jacobian"]}',
    b'{"program": "return (x @ w).tanh().sum()", "inputs": {"x": [[1.0, 2.0]], "w": [[0.5], [0.1]]}, '
    b'"want": ["gradient", "hessian", "hvp", "explain", "check"]}',
    b'{"operation": "nn.functional.conv2d", "inputs": {"input": [[[[1.0]]]], "weight": [[[[2.0]]]]}, "want": ["vjp", "jvp"]}',
    b'{"program": "dot(x, y)", "inputs": {"x": [[1.0], [2.0]], "y": [[1.0], [2.0]]}, "batched": ["x", "y"], "want": ["gradient"]}',
    b'{"program": "(x[1:] * x[:-1]).sum()", "inputs": {"x": [1.0, 2.0, 3.0]}, "want": ["jacobian", "hessian"], "format": "sparse"}',
    b'{"operation": "softmax", "inputs": {"input": [1.0]}, "parameters": {"dim": 5}}',
)
