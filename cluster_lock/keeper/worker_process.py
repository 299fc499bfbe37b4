"""One worker as its keeper sees it: the process, the link to it, its signs of life."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any, Self

from cluster_lock import __version__
from cluster_lock.errors import KeeperMismatch
from cluster_lock.health import Board
from cluster_lock.patience import Patience
from cluster_lock.session import Session

from .child import Child
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
    """Made with `await WorkerProcess.start(...)`. `pollers`: what it said last of its work. `patience`: counts from its
    start. `alive_at`: when, by that, it last gave a sign of life, None before the first. `left_at`: when it closed its
    end of the pipe: it leads nothing any more, and what it still does is its own."""

    def __init__(self, child: Child, ours: socket.socket, session: Session, board: Board, scope: str) -> None:
        self.child = child
        self.link = Link(self._send)
        self.relay = Relay(session, self.link, overdue=self._overdue, scope=scope)
        self.patience = Patience()
        self.alive_at: float | None = None
        self.left_at: float | None = None
        self.pollers: Sequence[Mapping[str, Any]] = ()
        self.wrong = asyncio.get_running_loop().create_future()
        """Done, with the reason, when it must be ended."""
        self.mismatch: KeeperMismatch | None = None
        self.link.events["hello"] = self._hello
        self.link.events["alive"] = self._alive
        self.link.events["observed"] = lambda what, arguments: told(board, what, arguments)
        self._board = board
        self._pipe, self._outbox = ours, Outbox(ours)
        self._unread = b""
        self._deaf_since: float | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(ours, self._read)

    @classmethod
    async def start(cls, plan: Plan, session: Session, board: Board) -> Self:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                # A keeper may run under another one, whose lock and term these are.
                environ = {key: value for key, value in os.environ.items() if key not in (NAME, TOKEN)}
                environ |= {FD: str(FIRST_FD), **({NAME: plan.name} if plan.name is not None else {})}
                child = await Child.start(
                    plan.command,
                    environ,
                    scope=plan.scope,
                    fds=[theirs.fileno()],
                    allow_setuid=plan.allow_setuid,
                )
            except BaseException:
                ours.close()
                raise
        return cls(child, ours, session, board, plan.scope)

    def is_silent(self, limit: float) -> bool:
        """Has its loop given signs of life, and none for so many seconds?"""
        return self.alive_at is not None and self.patience.seconds() - self.alive_at > limit

    @property
    def deaf(self) -> str | None:
        """A poller that should hear of updates and does not, for a second now: right after a sleep of this host it has
        not looked yet what came meanwhile."""
        if self._deaf_since is None or self.patience.seconds() - self._deaf_since < DEAF_FOR:
            return None
        return _deaf(self.pollers)

    async def close(self) -> None:
        """After its end: give back what it held."""
        self._hang_up("the worker has ended")
        await self.relay.give_back()

    def _hello(self, version: str) -> None:
        self.link.tell("hello", version=__version__)
        if version != __version__:
            self.mismatch = mismatch(__version__, version)
            self._is_wrong(str(self.mismatch))

    def _alive(self, pollers: Sequence[Mapping[str, Any]]) -> None:
        if self.alive_at is None:
            self._board.worker("ready")
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
        try:
            came = self._pipe.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            came = b""
        if not came:
            self.left_at = self.patience.seconds()
            self._hang_up("the worker is gone")
            return
        *lines, self._unread = (self._unread + came).split(b"\n")
        for line in lines:
            self.link.received(line)
        if self.link.closed is not None or len(self._unread) > LONGEST_LINE:
            self._is_wrong("what it says on its pipe is not understood")

    def _hang_up(self, reason: str) -> None:
        if self._pipe.fileno() >= 0:
            self._loop.remove_reader(self._pipe)
            self._outbox.close()
            self._pipe.close()
        self.link.close(reason)


def _deaf(pollers: Sequence[Mapping[str, Any]]) -> str | None:
    return next((str(each["lock"]) for each in pollers if each.get("deaf")), None)
