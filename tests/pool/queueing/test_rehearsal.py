"""What one worker had to learn the others learn while nobody waits: by a pool of real workers, and by the table alone."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable

import orjson
import pytest

from app.pool.job import Result, WorkerReply, asked_of
from app.pool.pool import Pool
from app.pool.queueing.quarantine import fingerprint
from app.pool.queueing.rehearsal import Lesson, Rehearsal
from app.settings import Settings
from tests.pool.long_queries import endless
from tests.waiting import HANG_S

JSON = asked_of("query", "application/json", None, None)
META = JSON.meta("x")
REPLY = WorkerReply(200, "application/json", b"{}", {"compute": 0.001}, first=True)


def softmax(count: int) -> bytes:
    query = {"operation": "softmax", "inputs": {"input": [0.1] * count}, "parameters": {"dim": 0}, "want": ["vjp"]}
    return orjson.dumps(query)


class TestTable:
    def test_each_worker_has_each_lesson_until_it_is_quick(self) -> None:
        table = Rehearsal()
        assert table.note(1, JSON.text, META, (b"a", b"b"), REPLY)
        for _ in range(3):
            lesson = table.begin(2, 0.0)
            assert lesson is not None
            assert (lesson.meta, lesson.body) == (META, b"ab")
            assert table.running_count == 1
            table.done(2)
        assert table.begin(2, 0.0) is None
        assert table.begin(3, 0.0) is not None

    def test_who_answered_first_rehearses_what_only_comes_with_repetition(self) -> None:
        table = Rehearsal()
        table.note(1, JSON.text, META, (b"a",), REPLY)
        assert table.begin(1, 0.0) is not None
        assert table.begin(1, 0.0) is not None
        assert table.begin(1, 0.0) is None

    def test_other_fronts_are_told_once_and_learn_the_same(self) -> None:
        sent = list[tuple[bytes, bytes, bytes]]()
        here = Rehearsal(lambda *lesson: sent.append(lesson))
        for worker in (1, 2):
            assert here.note(worker, JSON.text, META, (b"a", b"b"), REPLY)
        assert sent == [(JSON.text, JSON.meta(""), b"ab")], "the id is its client's alone"
        there = Rehearsal(lambda *_: pytest.fail("it was told already"))
        there.learn(*sent[0])
        lesson = there.begin(7, 0.0)
        assert lesson is not None
        assert (lesson.meta, lesson.body) == (JSON.meta(""), b"ab")
        assert there.note(7, JSON.text, META, (b"ab",), REPLY)

    def test_the_latest_come_first_and_the_oldest_go(self) -> None:
        table = Rehearsal()
        for number in range(100):
            table.note(1, JSON.text, META, (b"%d" % number,), REPLY)
        bodies = []
        while (lesson := table.begin(2, 0.0)) is not None:
            bodies.append(int(lesson.body))
            table.done(2)
        assert bodies[:4] == [99, 99, 99, 98]
        assert min(bodies) == 36

    @pytest.mark.parametrize(
        ("body", "reply"),
        [
            (b"x" * 5000, REPLY),
            (b"x", WorkerReply(422, "application/json", b"{}", {"compute": 0.001}, first=True)),
            (b"x", WorkerReply(200, "application/json", b"{}", {"compute": 0.5}, first=True)),
        ],
        ids=["large", "refused", "slow"],
    )
    def test_what_is_not_small_is_not_kept(self, body: bytes, reply: WorkerReply) -> None:
        table = Rehearsal()
        assert not table.note(1, JSON.text, META, (body,), reply)
        assert table.begin(2, 0.0) is None

    def test_what_cost_a_worker_its_life_is_forgotten_and_nothing_else(self) -> None:
        table = Rehearsal()
        table.note(1, JSON.text, META, (b"good",), REPLY)
        table.note(1, JSON.text, META, (b"bad",), REPLY)
        assert table.begin(2, 10.0) is not None
        assert table.overdue(10.5) == []
        assert table.overdue(20.0) == [2]
        table.died(2)
        assert table.running_count == 0
        lesson = table.begin(3, 20.0)
        assert lesson is not None
        assert lesson.body == b"good"
        table.died(1)
        assert table.overdue(20.1) == []

    def test_what_cost_a_worker_its_life_is_forgotten_by_other_fronts_and_not_learnt_again(self) -> None:
        marks = list[bytes]()
        here, there, late = Rehearsal(tell_deadly=marks.append), Rehearsal(), Rehearsal()
        for table in (here, there):
            table.learn(JSON.text, JSON.meta(""), b"good")
            table.learn(JSON.text, JSON.meta(""), b"bad")
        lesson = here.begin(2, 10.0)
        assert lesson is not None
        assert lesson.body == b"bad"
        here.died(2)
        (mark,) = marks
        there.forget(mark)
        late.forget(mark)  # heard before the lesson itself
        for table in (here, there, late):
            assert not table.note(1, JSON.text, META, (b"ba", b"d"), REPLY)
            table.learn(JSON.text, JSON.meta(""), b"bad")
            table.learn(JSON.text, JSON.meta(""), b"good")
            bodies = set()
            while (lesson := table.begin(9, 20.0)) is not None:
                bodies.add(lesson.body)
                table.done(9)
            assert bodies == {b"good"}

    def test_of_what_cost_lives_the_latest_are_remembered(self) -> None:
        table = Rehearsal()
        for number in range(100):
            table.forget(fingerprint(JSON.text, (b"%d" % number,)))
        assert table.note(1, JSON.text, META, (b"0",), REPLY)
        assert not table.note(1, JSON.text, META, (b"99",), REPLY)


async def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + HANG_S
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        await asyncio.sleep(0.01)


def with_pool(scenario: Callable[[Pool], Awaitable[None]], workers: int) -> list[str]:
    """Runs it on a pool of real workers; the events that the pool noted."""
    events: list[str] = []

    async def run() -> None:
        pool = Pool(Settings(workers=workers, device="cpu"), lambda event, **facts: events.append(event))
        pool.start()
        try:
            await until(lambda: pool.states()["idle"] == workers)
            await scenario(pool)
        finally:
            await pool.stop()

    asyncio.run(run())
    return events


async def answer(pool: Pool, body: bytes) -> WorkerReply:
    ended: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
    pool.ask(JSON, "x", [body], len(body), "", ended.set_result)
    reply = await asyncio.wait_for(ended, HANG_S)
    assert isinstance(reply, WorkerReply)
    assert reply.status == 200
    return reply


def numbers_of(pool: Pool) -> set[int]:
    """Of the processes that are its workers."""
    return {handle.number for handle in pool.supervisor.workers.values()}


def lessons(pool: Pool) -> list[Lesson]:
    return list(pool.rehearsal._lessons.values())


def is_rehearsed(pool: Pool) -> bool:
    """Every worker has had every lesson."""
    numbers = numbers_of(pool)
    return not pool.rehearsal.running_count and all(lesson.times[n] >= 3 for lesson in lessons(pool) for n in numbers)


def test_the_other_worker_and_its_replacement_know_what_one_has_learnt() -> None:
    async def scenario(pool: Pool) -> None:
        for count in range(11, 111):  # on a slow machine not every first one is quick enough to be kept
            assert (await answer(pool, softmax(count))).first
            if len(lessons(pool)) == 3:
                break
        bodies = [lesson.body for lesson in lessons(pool)]
        assert len(bodies) == 3
        await until(lambda: is_rehearsed(pool))
        for handle in list(pool.supervisor.workers.values()):
            os.kill(handle.pid, signal.SIGKILL)
            await until(lambda handle=handle: handle.number not in numbers_of(pool))  # type: ignore[misc]
            await until(lambda: pool.states()["idle"] == 2)
            await until(lambda: is_rehearsed(pool))
            for body in bodies:
                assert not (await answer(pool, body)).first

    with_pool(scenario, 2)


def test_a_lesson_that_never_ends_costs_one_worker_once_and_no_query() -> None:
    async def scenario(pool: Pool) -> None:
        body = orjson.dumps(endless())
        assert pool.rehearsal.note(0, JSON.text, META, (body,), REPLY)
        before = numbers_of(pool)
        await until(lambda: not before.issubset(numbers_of(pool)))
        await until(lambda: pool.states()["idle"] == 2)
        assert not lessons(pool)
        assert len(before - numbers_of(pool)) == 1
        assert (await answer(pool, softmax(4))).first
        assert pool.supervisor.restarts["crash"] == 0

    with_pool(scenario, 2)
