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

from cluster_lock.errors import KeeperMismatch
from cluster_lock.health import Board
from cluster_lock.session import Session
from cluster_lock.values import EndReason
from cluster_lock.version import __version__

from .again import starting
from .caller import Caller, received
from .child import Child
from .door import is_ending, made_by, opened
from .init import FIRST_FD
from .link import mismatch
from .names import FD, NAME, TOKEN
from .plan import KeeperSpec

log = logging.getLogger("cluster_lock.keeper")


class WorkerProcess(Caller):
    """Made with `await WorkerProcess.start(...)`. What a Caller is: anew for each program that it becomes. `patience`
    counts from the start of the process."""

    def __init__(self, child: Child, door: socket.socket, session: Session, board: Board, scope: str) -> None:
        super().__init__(session, board, scope)
        self.child = child
        self.mismatch: KeeperMismatch | None = None
        self._door = door
        self._doing: asyncio.Future[None] | None = None
        self._knocker: int | None = None
        self._stop: EndReason | None = None
        self.link.close("the worker has not knocked yet")
        door.setblocking(False)
        self._loop.add_reader(door, self._knocked)

    def _begin(self) -> None:
        super()._begin()
        self.link.events["hello"] = self._hello

    @classmethod
    async def start(cls, plan: KeeperSpec, session: Session, board: Board) -> Self:
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

    def stop(self, reason: EndReason) -> None:
        """Ask it to stop, and whatever program it becomes from now on."""
        self._stop = reason
        if self.alive_at is not None:
            self.link.tell("stop", reason=reason.to_json())
        else:
            self.child.signal(signal.SIGTERM)

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
        self._open(pipe)

    def _not_instead(self, pipe: socket.socket) -> str | None:
        """Why the process that knocks is not the program that the worker is now: a child of it, perhaps. None: it
        is."""
        knocker = made_by(pipe)
        if self._knocker not in (None, knocker):
            return f"process {knocker} knocked, which is not process {self._knocker} that had knocked before"
        self._knocker = knocker
        # What the one before has said last, and the end of its pipe, may have come together with the knock.
        while self._pipe is not None and (came := received(self._pipe)) is not None:
            if not came:
                return None
            self._heard(came)
        if self._pipe is not None and self._handovers is None:
            return "another program knocked while the one before was there"
        return None

    def _left(self, pipe: socket.socket) -> None:
        if self._handovers is None or is_ending(self._knocker):
            self.left_at = self.patience.seconds()
            self._hang_up("the worker is gone")
        else:
            self._loop.remove_reader(pipe)
            self._then(self._replaced(pipe))

    async def _replaced(self, pipe: socket.socket) -> None:
        """Nothing of the program that it was, which had this pipe, runs any more: what that one held is free, and the
        next one starts."""
        if self._pipe is not pipe:  # known already, by a knock that came together with the end of the pipe
            return
        log.info("the worker has put another program in its place")
        self._hang_up("another program has taken its place")
        self._forget_signs()
        self._board.worker_changed("gone", reason="the worker restarts itself")
        self._board.worker_changed("starting", self._knocker)
        await self.relay.give_back(self._handovers)

    def _then(self, work: Coroutine[Any, Any, None]) -> None:
        """One after the other."""
        self._doing = asyncio.ensure_future(_after(self._doing, work))

    def _asked(self) -> None:
        if not self.asks:
            self._board.worker_changed("ready", self._knocker)  # and not its init, which is our child
        super()._asked()

    def _hello(self, version: str) -> None:
        self.link.tell("hello", version=__version__)
        if version != __version__:
            self.mismatch = mismatch(__version__, version)
            self._is_wrong(str(self.mismatch))
        elif self._stop is not None:
            self.link.tell("stop", reason=self._stop.to_json())

    def _alive(self, pollers: Sequence[Mapping[str, Any]]) -> None:
        super()._alive(pollers)
        self._board.worker_alive()
        self._board.pollers.tell(pollers)


async def _after(before: asyncio.Future[None] | None, work: Coroutine[Any, Any, None]) -> None:
    if before is not None:
        await before
    await work
