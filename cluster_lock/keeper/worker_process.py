"""One worker as its keeper sees it: the process, the link to it, its signs of life.

The process stays the same when it puts another program in its own place (os.execv, to restart itself). What ran in it
before is gone then, so its locks are given back; what comes instead is a worker that starts. Processes that the program
before had started are still there: they were not ours to end while it lived, and are now below the next one.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Self

from cluster_lock import __version__
from cluster_lock.errors import KeeperMismatch
from cluster_lock.health import Board
from cluster_lock.patience import Patience
from cluster_lock.session import Session

from .again import starting
from .child import Child
from .door import is_ending, made_by, opened
from .init import FIRST_FD
from .link import LONGEST_LINE, Link, mismatch
from .names import FD, NAME, TOKEN
from .outbox import Outbox
from .plan import Plan
from .relay import Relay
from .telling import told

log = logging.getLogger("cluster_lock.keeper")

DEAF_FOR = 1.0


class WorkerProcess:
    """Made with `await WorkerProcess.start(...)`. What it is now, anew for each program that it becomes:

    `pollers`: what it said last of its work. `alive_at`: when, by `patience`, it last gave a sign of life, None before
    the first. `asks`: it has asked for a lock; until then it is starting, and may take its time (imports, startup
    hooks). `left_at`: when it closed its end of the pipe: it leads nothing any more, and what it still does is its own.
    `patience`: counts from the start of the process.
    """

    def __init__(self, child: Child, door: socket.socket, session: Session, board: Board, scope: str) -> None:
        self.child = child
        self.wrong = asyncio.get_running_loop().create_future()
        """Done, with the reason, when it must be ended."""
        self.mismatch: KeeperMismatch | None = None
        self.patience = Patience()
        self._session, self._board, self._scope = session, board, scope
        self._loop = asyncio.get_running_loop()
        self._door = door
        self._pipe: socket.socket | None = None
        self._doing: asyncio.Future[None] | None = None
        self._knocker: int | None = None
        self._stop: str | None = None
        self._begin()
        self.link.close("the worker has not knocked yet")
        door.setblocking(False)
        self._loop.add_reader(door, self._knocked)

    def _begin(self) -> None:
        self.link = Link(self._send)
        self.relay = Relay(self._session, self.link, asked=self._asked, overdue=self._overdue, scope=self._scope)
        self.alive_at: float | None = None
        self.asks = False
        self.left_at: float | None = None
        self.pollers: Sequence[Mapping[str, Any]] = ()
        self._handovers: Mapping[str, Mapping[str, Any]] | None = None
        """What it left when it was about to put another program in its place; None: it was not."""
        self._unread = b""
        self._deaf_since: float | None = None
        self.link.events["hello"] = self._hello
        self.link.events["alive"] = self._alive
        self.link.events["exec"] = self._execs
        self.link.events["observed"] = lambda what, arguments: told(self._board, what, arguments)

    @classmethod
    async def start(cls, plan: Plan, session: Session, board: Board) -> Self:
        with starting("another process"):
            ours, theirs = socket.socketpair()
        with theirs:
            try:
                # A keeper may run under another one, whose lock and term these are.
                environ = {key: value for key, value in plan.environ().items() if key not in (NAME, TOKEN)}
                environ |= {FD: str(FIRST_FD), **({NAME: plan.name} if plan.name is not None else {})}
                child = await Child.start(
                    plan.command,
                    environ,
                    scope=plan.scope,
                    fds=[theirs.fileno()],
                    numbered=FD,
                    allow_setuid=plan.allow_setuid,
                )
            except BaseException:
                ours.close()
                raise
        return cls(child, ours, session, board, plan.scope)

    def stop(self, reason: str) -> None:
        """Ask it to stop, and whatever program it becomes from now on."""
        self._stop = reason
        if self.alive_at is not None:
            self.link.tell("stop", reason=reason)
        else:
            self.child.signal(signal.SIGTERM)

    def is_silent(self, limit: float) -> bool:
        """Does it lead, or stand by, and has its loop given no sign of life for so many seconds?"""
        return self.asks and self.alive_at is not None and self.patience.seconds() - self.alive_at > limit

    @property
    def deaf(self) -> str | None:
        """A poller that should hear of updates and does not, for a second now: right after a sleep of this host it has
        not looked yet what came meanwhile."""
        if self._deaf_since is None or self.patience.seconds() - self._deaf_since < DEAF_FOR:
            return None
        return _deaf(self.pollers)

    async def close(self) -> None:
        """After its end: give back what it held."""
        self._loop.remove_reader(self._door)
        self._door.close()
        if self._doing is not None:
            await self._doing
        self._hang_up("the worker has ended")
        await self.relay.give_back()

    def _knocked(self) -> None:
        """A program begins in the worker: the first, or one that has taken the place of the one before."""
        pipe = opened(self._door)
        if pipe is None:
            self._loop.remove_reader(self._door)
        else:
            self._then(self._enter(pipe))

    async def _enter(self, pipe: socket.socket) -> None:
        wrong = self._not_instead(pipe)
        if wrong is not None:
            pipe.close()
            self._is_wrong(wrong)
            return
        if self._pipe is not None:
            await self._replaced(self._pipe)
        await self.relay.give_back()
        self._begin()
        self._pipe, self._outbox = pipe, Outbox(pipe)
        self._loop.add_reader(pipe, self._read)

    def _not_instead(self, pipe: socket.socket) -> str | None:
        """Why whoever knocks is not the one program that the worker is now: a child of it, perhaps. None: it is."""
        knocker = made_by(pipe)
        if self._knocker not in (None, knocker):
            return f"process {knocker} knocked, which is not process {self._knocker} that had knocked before"
        self._knocker = knocker
        # What the one before has said last, and the end of its pipe, may have come together with the knock.
        while self._pipe is not None and (came := _received(self._pipe)) is not None:
            if not came:
                return None
            self._heard(came)
        if self._pipe is not None and self._handovers is None:
            return "another program knocked while the one before was there"
        return None

    def _execs(self, handovers: Mapping[str, Mapping[str, Any]]) -> None:
        """If its pipe comes to an end now, and it lives, it was by that. An exec may fail, and says so to nobody."""
        self._handovers = handovers

    async def _replaced(self, pipe: socket.socket) -> None:
        """Nothing of the program that it was, which had this pipe, runs any more: what that one held is free, and the
        next one starts."""
        if self._pipe is not pipe:  # known already, by a knock that came together with the end of the pipe
            return
        log.info("the worker has put another program in its place")
        self._hang_up("another program has taken its place")
        self.alive_at, self.asks, self.pollers, self._deaf_since = None, False, (), None
        self._board.worker("gone", reason="the worker restarts itself")
        self._board.worker("starting", self._knocker)
        await self.relay.give_back(self._handovers)

    def _then(self, work: Coroutine[Any, Any, None]) -> None:
        """One after the other."""
        self._doing = asyncio.ensure_future(_after(self._doing, work))

    def _asked(self) -> None:
        if not self.asks:
            self.asks = True
            self.alive_at = self.patience.seconds()  # the last one may be from before a startup hook that blocked
            self._board.worker("ready", self._knocker)  # and not its init, which is our child

    def _hello(self, version: str) -> None:
        self.link.tell("hello", version=__version__)
        if version != __version__:
            self.mismatch = mismatch(__version__, version)
            self._is_wrong(str(self.mismatch))
        elif self._stop is not None:
            self.link.tell("stop", reason=self._stop)

    def _alive(self, pollers: Sequence[Mapping[str, Any]]) -> None:
        self._handovers = None  # it is there still
        self.alive_at, self.pollers = self.patience.seconds(), pollers
        if _deaf(pollers) is None:
            self._deaf_since = None
        elif self._deaf_since is None:
            self._deaf_since = self.alive_at
        self._board.worker_alive()
        self._board.pollers(pollers)

    def _overdue(self, name: str) -> None:
        self._is_wrong(f"{name} is lost, and the work under it has not ended in time")

    def _is_wrong(self, reason: str) -> None:
        if not self.wrong.done():
            self.wrong.set_result(reason)

    def _send(self, line: bytes) -> None:
        if len(self._outbox) > LONGEST_LINE:
            self._is_wrong("it does not read its pipe")
            return
        self._outbox.send(line)

    def _read(self) -> None:
        assert self._pipe is not None
        came = _received(self._pipe)
        if came is None:
            return
        if not came and (self._handovers is None or is_ending(self._knocker)):
            self.left_at = self.patience.seconds()
            self._hang_up("the worker is gone")
        elif not came:
            self._loop.remove_reader(self._pipe)
            self._then(self._replaced(self._pipe))
        else:
            self._heard(came)

    def _heard(self, came: bytes) -> None:
        *lines, self._unread = (self._unread + came).split(b"\n")
        for line in lines:
            self.link.received(line)
        if self.link.closed is not None or len(self._unread) > LONGEST_LINE:
            self._is_wrong("what it says on its pipe is not understood")

    def _hang_up(self, reason: str) -> None:
        if self._pipe is not None:
            self._loop.remove_reader(self._pipe)
            self._outbox.close()
            self._pipe.close()
            self._pipe = None
        self.link.close(reason)


def _received(pipe: socket.socket) -> bytes | None:
    """What has come; nothing at its end; None if there is nothing now."""
    try:
        return pipe.recv(65536)
    except BlockingIOError:
        return None
    except OSError:
        return b""


async def _after(before: asyncio.Future[None] | None, work: Coroutine[Any, Any, None]) -> None:
    if before is not None:
        await before
    await work


def _deaf(pollers: Sequence[Mapping[str, Any]]) -> str | None:
    return next((str(each["lock"]) for each in pollers if each.get("deaf")), None)
