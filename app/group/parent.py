"""The parent of several fronts: takes connections and hands them out, replaces a front that dies, and ends all of them together.

It imports no more than it needs, runs no event loop and starts no thread, so that it may fork at any time, and computes next to nothing.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from app.errors import EXIT_WORKERS, ServiceError
from app.group.board import Board
from app.group.front_process import FrontProcess, has_children, reap
from app.group.gathering import Gatherings
from app.group.messages import Line, Message, line
from app.pool import linux

_BACKLOG: Final = 2048  # as one front's own (uvicorn's default); the kernel cuts it to net.core.somaxconn
_ACCEPT_AT_ONCE: Final = 32  # then the fronts' own words are heard: to accept and hand on so many takes 0.3 ms (measured)
_MESSAGES_AT_ONCE: Final = 32  # and then connections are accepted again: so many are read in 0.05 ms (measured)
# Seconds before the n-th attempt in a row, after fronts that died before they were ready.
_BACK_OFF_S: Final = (0.0, 0.5, 1.0, 2.0, 5.0)
# What dies so often in a row before any front was ever ready will not heal.
_TRIES: Final = 6
_LAST_WORDS_TURNS: Final = 16  # a line has room for some hundred words
_LOOK_EVERY_S: Final = 1.0  # deaths wake it at once; this is for clocks that stand still, which count after twenty seconds
_TURN_S: Final = 0.25  # how late we look at clocks where nothing is heard
_RETRY_S: Final = 0.05  # where no descriptor is left, or every front has its line full
_REAP_S: Final = 0.005  # between a front's last word and its end, which takes as long as its memory takes to be freed
# After the last query, for connections to take their last bytes (2 s) and workers to be reaped (2 s), and as much again.
_END_LIMIT_S: Final = 8.0
_ORPHANS_LIMIT_S: Final = 2.0  # for what fronts that were killed have left; it has been killed with them


class Parent:
    """The parent.

    Arguments:
        board: with a row for each front.
        listeners: bound sockets, the first of them that of clients; closed here.
        run: what a front does in its own process, with its index and its line to us: returns its exit status.
        note: called with an event and its facts, for the operator's log.
        on_ready: called once, when the first front can answer.
    """

    def __init__(
        self,
        board: Board,
        listeners: Sequence[socket.socket],
        run: Callable[[int, Line], int],
        note: Callable[..., None],
        on_ready: Callable[[], None],
    ) -> None:
        self._run = run
        self._note = note
        self._on_ready = on_ready
        self._listeners = listeners
        self._board = board
        self._fronts: dict[int, FrontProcess] = {}
        self._gatherings = Gatherings(self._fronts)
        self._failures = [0] * board.rows
        self._due = dict.fromkeys(range(board.rows), 0.0)  # index → when a front is to be started there
        self._ever_ready = False
        self._picks = 0
        self._unplaced: list[tuple[socket.socket, bool]] = []
        self._accepts_from = 0.0
        self._signals = 0
        self._is_draining = False
        self._kill_at = 0.0  # when fronts that were told to end are killed; 0 = none was
        self._failure: ServiceError | None = None
        self._looked = 0.0
        self._wakeup = _wakeup()
        self._poll = select.poll()
        self._polled: frozenset[int] = frozenset()

    def serve(self) -> None:
        """Serve until SIGTERM or SIGINT; every process of the service has ended when this returns.

        Raises:
            ServiceError: a front says that the service cannot go on.
        """
        linux.adopt_orphans()
        for listener in self._listeners:
            listener.setblocking(False)
            listener.listen(_BACKLOG)
        with self._signals_counted():
            while self._turn():
                pass
        self._wait_for_orphans()
        self._close()
        if self._failure is not None:
            raise self._failure

    def _close(self) -> None:
        for end in (*self._wakeup, *self._listeners, *(connection for connection, _ in self._unplaced)):
            end.close()

    # One turn

    def _turn(self) -> bool:
        """Hear what there is to hear; False when the service has ended."""
        now = time.monotonic()
        if self._signals:
            self._heed_signals(now)
        if self._kill_at:
            if now > self._kill_at:
                for front in self._fronts.values():
                    front.kill()
        elif not self._is_draining:
            self._start_due(now)
        self._wait(now)
        if now - self._looked > _LOOK_EVERY_S:
            self._looked = now
            self._look_after()
            self._mourn(reap())
        elif any(front.has_hung_up for front in self._fronts.values()):
            self._mourn(reap())
        self._gatherings.round(time.monotonic())
        if self._is_draining and not self._kill_at and all(front.is_drained for front in self._fronts.values()):
            self._end(now)
        return bool(self._fronts) or not self._kill_at

    def _wait(self, now: float) -> None:
        fronts = {front.line.fileno(): front for front in self._fronts.values() if not front.has_hung_up}
        is_up = any(front.is_up for front in self._fronts.values())
        takes = is_up and now >= self._accepts_from and not self._kill_at and not self._unplaced
        listeners = {listener.fileno(): listener for listener in self._listeners} if takes else {}
        poll = self._poll_of(frozenset((self._wakeup[0].fileno(), *fronts, *listeners)))
        pause = _RETRY_S if self._unplaced or now < self._accepts_from else _TURN_S
        if len(fronts) < len(self._fronts):
            pause = _REAP_S
        for descriptor, _ in poll.poll(1e3 * max(0.0, min(pause, self._gatherings.left_s(now)))):
            if descriptor in fronts:
                self._hear(fronts[descriptor])
            elif descriptor in listeners:
                self._accept(listeners[descriptor])
            else:
                with contextlib.suppress(BlockingIOError):
                    self._wakeup[0].recv(64)
        if self._unplaced and not self._kill_at:
            waiting, self._unplaced = self._unplaced, []
            for connection, is_counted in waiting:
                self._assign(connection, is_counted)

    def _poll_of(self, descriptors: frozenset[int]) -> select.poll:
        if descriptors != self._polled:
            self._polled = descriptors
            self._poll = select.poll()
            for descriptor in descriptors:
                self._poll.register(descriptor, select.POLLIN)
        return self._poll

    # Connections

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPT_AT_ONCE):
            if self._unplaced:
                return
            try:
                connection, _ = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:
                self._accepts_from = time.monotonic() + _RETRY_S
                return
            self._assign(connection, listener is self._listeners[0])

    def _assign(self, connection: socket.socket, is_counted: bool) -> None:
        """Hand it to the front that has fewest, of those that are ready where any is; of equals to whoever waits for one longest."""
        up = [front for front in self._fronts.values() if front.is_up]
        ready = [front for front in up if front.is_ready]
        for front in sorted(ready or up, key=lambda front: (front.load, front.picked)):
            if front.hand_over(connection, is_counted=is_counted):
                self._picks += 1
                front.picked = self._picks
                return
        self._unplaced.append((connection, is_counted))

    # Fronts

    def _start_due(self, now: float) -> None:
        for index, due in list(self._due.items()):
            if due <= now:
                del self._due[index]
                self._start(index)

    def _start(self, index: int) -> None:
        parent = os.getpid()
        parent_line, front_line = line()
        try:
            pid = os.fork()
        except OSError as error:
            parent_line.close()
            front_line.close()
            self._note("a front cannot be started yet", level="error", front=index, error=str(error))
            self._due[index] = time.monotonic() + _BACK_OFF_S[-1]
            return
        if pid == 0:
            parent_line.close()
            linux.die_with_parent(parent)
            self._become_front(index, front_line)
        front_line.close()
        self._fronts[index] = FrontProcess(index, pid, parent_line, self._board)

    def _become_front(self, index: int, own: Line) -> None:
        """In the child: never returns."""
        status = 1
        try:
            linux.ignore_terminal_signals()
            for front in self._fronts.values():
                front.line.close()
                front.forget_connections()
            self._close()
            status = self._run(index, own)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def _mourn(self, ended: dict[int, int]) -> None:
        for front in [front for front in self._fronts.values() if front.pid in ended]:
            front.reaped()
            # What it has said last is still on its line.
            for _ in range(_LAST_WORDS_TURNS):
                self._hear(front)
            self._unplaced += [(connection, True) for connection in front.left_behind()]
            front.close()
            del self._fronts[front.index]
            self._gatherings.lost(front)
            if self._kill_at or self._is_draining:
                continue
            code = ended[front.pid]
            self._note("a front died and is started again", level="error", front=front.index, code=code)
            self._tell_ready()
            self._follow(front)

    def _follow(self, front: FrontProcess) -> None:
        index = front.index
        self._failures[index] = 0 if front.is_ready else self._failures[index] + 1
        if not self._ever_ready and self._failures[index] >= _TRIES:
            self._fail(
                ServiceError(
                    f"A front died {_TRIES} times in a row before it was ready, and none ever was; what it said stands above.",
                    EXIT_WORKERS,
                )
            )
            return
        delay = _BACK_OFF_S[min(self._failures[index], len(_BACK_OFF_S) - 1)]
        self._due[index] = time.monotonic() + delay

    def _look_after(self) -> None:
        for front in self._fronts.values():
            front.forget_taken()
            if front.looks_hung():
                self._note("a front hangs", level="error", front=front.index)
                front.kill()

    # What fronts say

    def _hear(self, front: FrontProcess) -> None:
        for _ in range(_MESSAGES_AT_ONCE):
            try:
                message = front.line.heard()
            except BlockingIOError:
                return
            if message is None:
                # Dead, or about to be.
                front.has_hung_up = True
                front.kill()
                return
            self._heard(front, message)

    def _heard(self, front: FrontProcess, message: Message) -> None:
        match message["say"]:
            case "taken":
                front.forget_taken()
            case "up":
                front.is_up = True
            case "ready":
                self._is_ready(front, message["ready"])
            case "gather":
                front.counts = message["counts"]
                self._gatherings.begin(front, message["number"], time.monotonic())
            case "counts":
                front.counts = message["counts"]
                self._gatherings.answered(front, message.get("number"))
            case "quarantined":
                self._tell_others(front, "quarantined", mark=message["mark"], size=message["size"])
            case "lesson":
                self._tell_others(front, "lesson", asked=message["asked"], meta=message["meta"], body=message["body"])
            case "deadly lesson":
                self._tell_others(front, "deadly lesson", mark=message["mark"])
            case "drained":
                front.is_drained = True
            case "failed":
                self._fail(ServiceError(message["reason"], message["status"]))

    def _is_ready(self, front: FrontProcess, ready: bool) -> None:
        front.is_ready = ready
        if ready and not self._ever_ready:
            self._ever_ready = True
            self._on_ready()
        self._tell_ready()

    def _tell_ready(self) -> None:
        count = sum(each.is_ready for each in self._fronts.values())
        for each in self._fronts.values():
            each.line.say("ready", others=count - each.is_ready)

    def _tell_others(self, but: FrontProcess, word: str, **facts: Any) -> None:
        for front in self._fronts.values():
            if front is not but:
                front.line.say(word, **facts)

    # The end

    def _fail(self, failure: ServiceError) -> None:
        if self._failure is None:
            self._failure = failure
            self._end(time.monotonic())

    def _heed_signals(self, now: float) -> None:
        """The first begins the drain; the second ends everything at once."""
        signals, self._signals = self._signals, 0
        if not self._is_draining:
            self._is_draining = True
            self._tell_all("drain")
            signals -= 1
        if signals:
            self._tell_all("kill")
            self._kill_at = self._kill_at or now + _END_LIMIT_S

    def _end(self, now: float) -> None:
        self._tell_all("end")
        self._kill_at = now + _END_LIMIT_S

    def _tell_all(self, word: str) -> None:
        for front in self._fronts.values():
            if not front.line.say(word):
                front.kill()

    def _wait_for_orphans(self) -> None:
        patience = time.monotonic() + _ORPHANS_LIMIT_S
        while has_children() and time.monotonic() < patience:
            reap()
            time.sleep(0.005)

    @contextlib.contextmanager
    def _signals_counted(self) -> Iterator[None]:
        def count(number: int, frame: object) -> None:
            self._signals += 1

        def hang_up(number: int, frame: object) -> None:
            """As the first signal, never as the second: the shell and the system may both send it."""
            self._signals = max(self._signals, 0 if self._is_draining else 1)

        before = {number: signal.signal(number, count) for number in (signal.SIGTERM, signal.SIGINT)}
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # `nohup`
            before[signal.SIGHUP] = signal.signal(signal.SIGHUP, hang_up)
        previous = signal.set_wakeup_fd(self._wakeup[1].fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(previous)
            for number, handler in before.items():
                signal.signal(number, handler)


def _wakeup() -> tuple[socket.socket, socket.socket]:
    """A signal writes to the second, so that whoever waits for the first wakes up."""
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    return ends
