"""The worker's side: terms that come through a pipe from the keeper, which owns the session.

A thread reads the pipe, so that a handler which blocks the loop does not keep a renewal from moving the deadline
(docs/design.md#pipe-thread). What the thread may not decide it leaves to the loop. The end of the pipe is the end of
every term: the keeper is gone, and nobody renews any more.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import select
import socket
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any
from weakref import WeakSet

from cluster_lock import clock
from cluster_lock.aio import end
from cluster_lock.election import Election
from cluster_lock.election.source import HeldLock
from cluster_lock.errors import ConfigError, KeeperMismatch
from cluster_lock.host.at_exec import at_exec
from cluster_lock.host.patience import LOOK_EVERY, Patience
from cluster_lock.lease.guard import Guard, NoGuard, process_guard
from cluster_lock.observer import SILENT, Observer
from cluster_lock.session.invitation import Answer
from cluster_lock.values import EndCode, EndReason, Timing
from cluster_lock.version import __version__

from .door import knock, visit
from .link import LONGEST_LINE, PipeLink, mismatch, written
from .names import no_keeper
from .outbox import Outbox
from .pipe_holding import PipeHeldLock, PipeLease
from .telling import Both, Telling

log = logging.getLogger("cluster_lock.keeper")


ALIVE_EVERY = 0.5
GREETED_WITHIN = 10.0
AHEAD = 1.0
"""A moment so far in the future was not read from this host's clock."""


@asynccontextmanager
async def open_worker_election(timing: Timing, *, observer: Observer = SILENT) -> AsyncIterator[Election]:
    """The election of a process that a keeper started. `timing`: of the settings that both have read. Raises
    ConfigError if there is no keeper, and KeeperMismatch if it is of another version."""
    async with _open_election(PipeLockSource(knock(), timing), observer) as election:
        yield election


@asynccontextmanager
async def open_visiting_election(timing: Timing, *, observer: Observer = SILENT) -> AsyncIterator[Election | None]:
    """The same for a program under `cluster-lock run`. None if its keeper cannot be reached, or is of another version:
    then the program leads by itself."""
    async with AsyncExitStack() as stack:
        election: Election | None = None
        if (pipe := visit()) is not None:
            try:
                election = await stack.enter_async_context(_open_election(PipeLockSource(pipe, timing), observer))
            except (ConfigError, KeeperMismatch) as error:
                log.warning("leading without the keeper of `cluster-lock run` above: %s", error)
        yield election


@asynccontextmanager
async def _open_election(contest: PipeLockSource, observer: Observer) -> AsyncIterator[Election]:
    election = Election(contest, observer=Both(Telling(contest.link), observer))
    election.kept = True
    contest.reports = lambda: election.reports()
    contest.handovers = lambda: election.handovers()
    async with contest:
        contest.link.events["stop"] = lambda reason: election.stop(EndReason.from_json(reason))
        await contest.greet()
        election.page = contest.page
        yield election


_open: WeakSet[PipeLockSource] = WeakSet()


class PipeLockSource:
    """The locks of the keeper at the other end of `pipe`."""

    def __init__(self, pipe: socket.socket, timing: Timing, *, guard: Guard | NoGuard | None = None) -> None:
        self.reports: Callable[[], Sequence[Mapping[str, Any]]] = list
        """What the keeper is told twice a second."""
        self.handovers: Callable[[], Mapping[str, Mapping[str, Any]]] = dict
        """By lock, what its term leaves: told when another program takes the place of this one."""
        self.link = PipeLink(self._send)
        self.link.verbs |= {"answer": self._answer, "willing": self._willing}
        self.link.events |= {"hello": self._hello, "lost": self._heard_lost, "lease": lambda **_: None}
        self._lease = PipeLease(self.link, timing, guard or process_guard())
        self._pipe = pipe
        self.page: str | None = None
        """Where the keeper shows how this process is."""
        self._keepers: str | None = None
        """The keeper's version."""
        self._greeted = asyncio.Event()
        """It has said its version, or the pipe is closed."""
        self._answers: dict[str, Answer | None] = {}
        self._holdings: dict[str, PipeHeldLock] = {}
        self._lost: dict[tuple[str, int], EndReason] = {}
        """Terms that ended before the answer that began them was looked at."""

    @property
    def timing(self) -> Timing:
        return self._lease.timing

    async def __aenter__(self) -> PipeLockSource:
        self._loop = asyncio.get_running_loop()
        self._outbox = Outbox(self._pipe)
        self._reader = threading.Thread(target=self._read, name="cluster-lock-pipe", daemon=True)
        self._reader.start()
        self._living = asyncio.ensure_future(self._live())
        self._not_at_exec = at_exec(self._say_exec)
        _open.add(self)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._not_at_exec()
        _open.discard(self)
        await end([self._living])
        self._outbox.close()
        with suppress(OSError):  # the keeper is gone already
            self._pipe.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self.link.close("the worker ends")

    async def greet(self) -> None:
        """Exchange versions with the keeper, first of all. Raises ConfigError, KeeperMismatch."""
        self.link.tell("hello", version=__version__)
        heard, patience = asyncio.ensure_future(self._greeted.wait()), Patience()
        try:
            while not heard.done() and self.link.closed is None and patience.seconds() < GREETED_WITHIN:
                await patience.wait([heard], LOOK_EVERY)
        finally:
            heard.cancel()
        if self._keepers is None:
            if self.link.closed is not None:
                # A keeper of 0.1, which knows of no doors, reads the knock as a line and drops what came with it.
                why = f"{self.link.closed}, or it is cluster-lock 0.1 and was upgraded while it ran: start it again"
                raise no_keeper(self._pipe.fileno(), why)
            raise mismatch("of a version that does not say which", __version__)
        if self._keepers != __version__:
            raise mismatch(self._keepers, __version__)

    def _hello(self, version: str, health: str | None = None) -> None:
        self._keepers, self.page = version, health
        self._greeted.set()

    # What an election needs

    async def take(self, name: str) -> HeldLock:
        try:
            given = await self.link.call("take", name=name)
        except asyncio.CancelledError:
            self.link.tell("drop", name=name)  # the answer may be on its way
            raise
        held = self._holdings[name] = PipeHeldLock(self._lease, name, given, self._ended)
        if (reason := self._lost.pop((name, held.fencing_token), None)) is not None:
            held.lose(reason)
        elif self.link.closed is not None:
            held.lose(EndReason(self.link.closed, EndCode.LOST))
        return held

    async def answer_invitations(self, name: str, answer: Answer | None) -> None:
        self._answers[name] = answer
        try:
            await asyncio.Event().wait()
        finally:
            del self._answers[name]

    async def _answer(self, name: str) -> Mapping[str, Any]:
        answer = self._answers.get(name)
        return await answer() if answer is not None else {}

    async def _willing(self, name: str, answer: Mapping[str, Any]) -> bool:
        held = self._holdings.get(name)
        return held is not None and await held.is_willing(answer)

    def _ended(self, held: PipeHeldLock) -> None:
        self._holdings.pop(held.name, None)

    # Signs of life

    async def _live(self) -> None:
        while True:
            self.link.tell("alive", pollers=[dict(each) for each in self.reports()])
            await asyncio.sleep(ALIVE_EVERY)

    # The pipe

    def _send(self, line: bytes) -> None:
        self._outbox.send(line)

    def _say_exec(self) -> None:
        """In any thread: when this pipe comes to its end, it was an exec that ended it, and another program begins.
        Unsaid, if the keeper has not even read what was said before."""
        if not self._outbox:
            with suppress(OSError):  # the keeper is gone, or does not read
                self._pipe.send(written({"event": "exec", "handovers": self.handovers()}))

    def _read(self) -> None:
        """The thread."""
        reason, rest = "the keeper is gone", b""
        ready = select.poll()
        ready.register(self._pipe, select.POLLIN)
        try:
            while True:
                ready.poll()
                try:
                    came = self._pipe.recv(65536)
                except BlockingIOError:
                    continue
                if not came:
                    break
                *lines, rest = (rest + came).split(b"\n")
                for line in lines:
                    self._look(line)
                if len(rest) > LONGEST_LINE:
                    raise ValueError("a line without an end")
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            reason = f"the pipe from the keeper failed: {error!r}"
        self._end_all(reason)

    def _look(self, line: bytes) -> None:
        """What cannot wait for the loop, in the thread."""
        if line.startswith(b'{"event":"lease"'):
            content = json.loads(line)
            possible = content["now"] <= clock.now() + AHEAD and content["deadline"] < float("inf")
            if content["clock"] != clock.NAME or not possible:  # what is no number is not possible either
                raise ValueError("its moments are not of this host's clock")
            self._move(content["deadline"])
        self._tell_loop(self.link.received, line)

    def _move(self, deadline: float) -> None:
        self._lease.deadline = deadline
        with self._lease.guard.together():
            for held in list(self._holdings.values()):
                held.moved(deadline)

    def _end_all(self, reason: str) -> None:
        for held in list(self._holdings.values()):
            held.cut()
        self._tell_loop(self._closed, reason)

    def _closed(self, reason: str) -> None:
        self.link.close(reason)
        self._greeted.set()
        for held in list(self._holdings.values()):
            held.lose(EndReason(reason, EndCode.LOST))

    def _heard_lost(self, name: str, token: int, reason: Sequence[str]) -> None:
        held = self._holdings.get(name)
        if held is not None and held.fencing_token == token:
            held.lose(EndReason.from_json(reason))
        else:
            self._lost[name, token] = EndReason.from_json(reason)

    def _tell_loop(self, call: Callable[..., None], *arguments: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: the process ends
            self._loop.call_soon_threadsafe(call, *arguments)


def _after_fork() -> None:
    """In a forked child: the end of the pipe is the end of the parent's program, not of all that it has forked."""
    for contest in _open:
        contest._pipe.close()
    _open.clear()


os.register_at_fork(after_in_child=_after_fork)
