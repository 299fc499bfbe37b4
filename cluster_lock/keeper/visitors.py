"""Programs under `cluster-lock run` that poll a bot, or lead another lock, by themselves: their keeper takes their
locks too, under its one lease.

They knock at the pipe on which the command hears of renewals. What one of them leads is given back when it says that
its work has ended, or when nothing of the whole command is left.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from cluster_lock.aio import end
from cluster_lock.health import Board
from cluster_lock.host.patience import LOOK_EVERY
from cluster_lock.session import Session
from cluster_lock.values import EndReason, Timing
from cluster_lock.version import __version__

from .caller import Caller
from .door import is_ending, made_by, opened
from .telling import told

log = logging.getLogger("cluster_lock.keeper")

LEFT_WITHIN = 1.0
"""Seconds that the command has to end when a program of it is gone that led: it has crashed."""


class Visitors:
    """All of one command, from its start to its end. `door`: our end of its pipe."""

    def __init__(self, door: socket.socket, session: Session, board: Board, scope: str) -> None:
        self._door, self._session, self._board, self._scope = door, session, board, scope
        self._here: list[Visitor] = []
        self._leaving: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(door, self._knocked)

    def __bool__(self) -> bool:
        return bool(self._here)

    def renewed(self, deadline: float) -> None:
        """The session's lease was renewed."""
        for each in self._here:
            each.relay.renewed(deadline)

    def stop(self, reason: EndReason) -> None:
        """Ask them to step down in good order."""
        for each in self._here:
            each.link.tell("stop", reason=reason.to_json())

    async def trouble(self, timing: Timing) -> str:
        """Wait until the command has to be ended because of one of them: why."""
        while True:
            self._news.clear()
            if (reason := next(filter(None, (each.trouble(timing) for each in self._here)), None)) is not None:
                return reason
            news = asyncio.ensure_future(self._news.wait())
            waited: list[asyncio.Future[Any]] = [news, *(each.wrong for each in self._here)]
            try:
                await asyncio.wait(
                    waited,
                    timeout=LOOK_EVERY if self._here else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
            finally:
                await end([news])

    def show(self) -> None:
        """What they said last of their pollers."""
        self._board.pollers.tell([poller for each in self._here for poller in each.pollers])

    def left(self, visitor: Visitor) -> None:
        """Nothing runs any more under what it held."""
        self._here.remove(visitor)
        self.show()
        task = asyncio.ensure_future(visitor.close())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def close(self) -> None:
        """Nothing of the command is left: give back what they held."""
        self._loop.remove_reader(self._door)
        for each in list(self._here):
            self.left(each)
        while self._leaving:
            await asyncio.wait(self._leaving)

    def _knocked(self) -> None:
        pipe = opened(self._door)
        if pipe is None:  # the command is gone, or writes something else
            self._loop.remove_reader(self._door)
            return
        self._here.append(Visitor(pipe, self._session, self._board, self._scope, self))
        self._news.set()


class Visitor(Caller):
    """One of them, from its knock to the end of its pipe."""

    def __init__(self, pipe: socket.socket, session: Session, board: Board, scope: str, visitors: Visitors) -> None:
        super().__init__(session, board, scope)
        self._pid = made_by(pipe)
        self._visitors = visitors
        self._locks: set[str] = set()
        self.link.events["hello"] = self._hello
        self.link.events["observed"] = self._observed
        self._open(pipe)

    def trouble(self, timing: Timing) -> str | None:
        if self.left_at is None or self.wrong.done():
            return super().trouble(timing)
        if self.patience.seconds() - self.left_at < LEFT_WITHIN:
            return None
        return f"the program that led {', '.join(sorted(self.relay.holdings))} is gone"

    async def close(self) -> None:
        """Give back what it held."""
        self._hang_up("the program has ended")
        await self.relay.give_back(self._handovers)
        for lock in self._locks:
            self._board.forget(lock)

    def _hello(self, version: str) -> None:
        self.link.tell("hello", version=__version__, health=self._session.context.identity.health)

    def _observed(self, what: str, arguments: Sequence[Any]) -> None:
        self._locks.add(arguments[0])
        told(self._board, what, arguments)

    def _alive(self, pollers: Sequence[Mapping[str, Any]]) -> None:
        super()._alive(pollers)
        self._visitors.show()

    def _left(self, pipe: socket.socket) -> None:
        self.left_at = self.patience.seconds()
        self._hang_up("the program is gone")
        if self._handovers is not None and is_ending(self._pid):
            self._handovers = None  # it did not become another program
        if self._handovers is not None or not self.relay.holdings:
            self._visitors.left(self)
