"""Rehearsal: what one worker had to learn for a small query the others learn while nobody waits, and so does whoever replaces them.

The first query of its kind costs a worker many times what the next one costs: it is planned, and what repeats is prepared. The worker
says so with its answer, and the query is kept. A worker that rests is given it, computes it and throws the answer away; nothing is
counted, logged or blamed. It is done with one query at a time and is back within milliseconds, and one worker always rests beside it.
Other fronts are told of it, whose workers rehearse it likewise; and of one that has cost a worker its life, which none rehearses again.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from typing import Final

from app.pool.frames import Buffer
from app.pool.job import WorkerReply
from app.pool.queueing.quarantine import fingerprint

_COUNT_LIMIT: Final = 64  # queries that are kept, the latest: with their bodies less than 0.5 MB
_BYTES_LIMIT: Final = 4 << 10  # of one body
# What took longer is not small: whoever comes while it is rehearsed would wait so long. A first query takes up to some 20 ms.
_SECONDS_LIMIT: Final = 0.03
# The first time it is planned, the second time what repeats is prepared (app/engine/recipes.py), the third time that is used.
_TIMES: Final = 3
# Fingerprints of lessons that are not learnt again, the latest: as many as lessons; some 100 bytes each.
_DEADLY_LIMIT: Final = 64
# After which a worker that does not come back is replaced: a hundred times what any query here took.
_OVERDUE_S: Final = 3.0


@dataclass(slots=True, eq=False)
class Lesson:
    """A query that was the first of its kind somewhere: what is asked besides the body, what a worker is told of that, and the body.

    Attributes:
        times: worker number → how often it has computed this.
    """

    asked: bytes
    meta: bytes
    body: bytes
    times: Counter[int] = field(default_factory=Counter)


class Rehearsal:
    """The lessons, and which worker is at which.

    Arguments:
        tell: tells other fronts of a new one, by the arguments of `learn`.
        tell_deadly: and of one that has cost a worker its life, by that of `forget`.
    """

    def __init__(
        self,
        tell: Callable[[bytes, bytes, bytes], None] = lambda *_: None,
        tell_deadly: Callable[[bytes], None] = lambda _: None,
    ) -> None:
        self._tell = tell
        self._tell_deadly = tell_deadly
        self._deadly: OrderedDict[bytes, None] = OrderedDict()
        self._lessons: OrderedDict[tuple[bytes, bytes], Lesson] = OrderedDict()
        self._running: dict[int, tuple[Lesson, float]] = {}

    @property
    def running_count(self) -> int:
        """Workers that rehearse now; one at the most."""
        return len(self._running)

    def note(self, worker: int, asked: bytes, meta: bytes, body: tuple[Buffer, ...], reply: WorkerReply) -> bool:
        """A worker had to learn for this query; True where it is kept for the others.

        `asked`: what is asked besides the body, without the request's id.
        """
        if sum(map(len, body)) > _BYTES_LIMIT or reply.status != 200 or reply.timings.get("compute", 0.0) > _SECONDS_LIMIT:
            return False
        text = b"".join(body)
        if self._is_deadly(asked, text):
            return False
        if (asked, text) not in self._lessons:
            self._tell(asked, b'{"request_id":"",%b' % asked[1:], text)  # its client's id is nobody else's
        self._keep(asked, meta, text).times[worker] += 1
        return True

    def learn(self, asked: bytes, meta: bytes, body: bytes) -> None:
        """A worker of another front had to learn for this query; arguments as of `note`."""
        if not self._is_deadly(asked, body):
            self._keep(asked, meta, body)

    def forget(self, mark: bytes) -> None:
        """The lesson of this fingerprint may have cost a worker its life, here or in another front: nobody learns it again."""
        self._lessons = OrderedDict(
            (key, lesson) for key, lesson in self._lessons.items() if fingerprint(key[0], key[1:]) != mark
        )
        self._deadly[mark] = None
        if len(self._deadly) > _DEADLY_LIMIT:
            self._deadly.popitem(last=False)

    def _is_deadly(self, asked: bytes, body: bytes) -> bool:
        return bool(self._deadly) and fingerprint(asked, (body,)) in self._deadly

    def _keep(self, asked: bytes, meta: bytes, body: bytes) -> Lesson:
        key = asked, body
        lesson = self._lessons.setdefault(key, Lesson(asked, meta, body))
        self._lessons.move_to_end(key)
        if len(self._lessons) > _COUNT_LIMIT:
            self._lessons.popitem(last=False)
        return lesson

    def begin(self, worker: int, now: float) -> Lesson | None:
        """What this worker rehearses now, the latest first; None where it has nothing to learn."""
        lesson = next((lesson for lesson in reversed(self._lessons.values()) if lesson.times[worker] < _TIMES), None)
        if lesson is not None:
            lesson.times[worker] += 1
            self._running[worker] = lesson, now
        return lesson

    def done(self, worker: int) -> None:
        """It is through with its lesson."""
        self._running.pop(worker, None)

    def died(self, worker: int) -> None:
        """A worker is gone, and what it rehearsed is forgotten, by other fronts too: it may have cost its life."""
        running = self._running.pop(worker, None)
        if running is not None:
            lesson = running[0]
            mark = fingerprint(lesson.asked, (lesson.body,))
            self.forget(mark)
            self._tell_deadly(mark)
        for lesson in self._lessons.values():
            lesson.times.pop(worker, None)

    def keep(self, workers: Set[int]) -> None:
        """Now and then: all but these are gone, also those that were replaced and did not die."""
        for worker in self._running.keys() - workers:
            self.died(worker)
        for lesson in self._lessons.values():
            for worker in lesson.times.keys() - workers:
                del lesson.times[worker]

    def overdue(self, now: float) -> list[int]:
        """Workers that should have been back."""
        return [worker for worker, (_, since) in self._running.items() if now - since > _OVERDUE_S]
