"""Any program under a lock: it runs while the lock is held, once per term, and nothing of it is left when it is not."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from cluster_lock import clock
from cluster_lock.aio import end, finish
from cluster_lock.election import Leadership, Term
from cluster_lock.health import Board
from cluster_lock.host.patience import Patience
from cluster_lock.session import Session

from .again import starting
from .caller import time_to_stop
from .child import Child
from .init import FIRST_FD
from .left_over import end_left_over
from .names import FD, NAME, TOKEN
from .plan import KeeperSpec
from .stopping import REACHES_ALL, KeeperStopping
from .visitors import Visitors

log = logging.getLogger("cluster_lock.keeper")

LAST_WORDS = 0.1
"""Seconds from SIGTERM to SIGKILL when the lock is lost: anybody who finds it free waits `settle`, which is more."""


class _EndedByItself(Exception):
    """The command has, and is not to run again in another term."""


class LockedCommand:
    """Runs the plan's command in each term of the lock `name`, until it ends by itself. `code`: its exit status then.

    It finds its environment and its limits as they were before there was a keeper.
    """

    def __init__(self, name: str, plan: KeeperSpec, session: Session, stopping: KeeperStopping, board: Board) -> None:
        self.code: int | None = None
        self.child: Child | None = None
        self._name, self._plan, self._timing, self._stopping = name, plan, plan.timing, stopping
        self._pipe: socket.socket | None = None
        self._visitors: Visitors | None = None
        self._session, self._board = session, board

    async def run(self, election: Leadership) -> None:
        """Until the command has ended by itself, or was asked to stop. Raises what makes leading impossible."""
        leading = asyncio.ensure_future(election.lead(self._name, self._term))
        asked = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((leading, asked), return_when=asyncio.FIRST_COMPLETED)
            if not leading.done():
                self._board.stop(self._stopping.reason)
                election.stop(self._stopping.reason)
            with suppress(_EndedByItself):
                await leading
        finally:
            await finish(end([leading, asked]))

    def renewed(self, deadline: float) -> None:
        """The lease was renewed."""
        if self.child is not None:
            self.child.until(deadline)
        if self._visitors is not None:
            self._visitors.renewed(deadline)
        self._say({"event": "lease", "deadline": deadline, "now": clock.now(), "clock": clock.NAME})

    def pass_on(self, number: int) -> bool:
        """A signal for the command. False: it does not run."""
        if self.child is None:
            return False
        self.child.signal(number)
        return True

    async def _term(self, term: Term) -> None:
        """One term: the command from its start to the end of all that it started."""
        # However it came to us: what was left here may be from a term before that of the one that gave the lock away.
        await end_left_over(self._plan.scope)
        with starting("another process"):
            ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            self._pipe = ours
            visitors = self._visitors = Visitors(ours, self._session, self._board, self._plan.scope)
            self._say(
                {
                    "event": "leader",
                    "name": term.name,
                    "token": term.fencing_token,
                    "deadline": term.deadline,
                    "now": clock.now(),
                    "clock": clock.NAME,
                }
            )
            more = {FD: str(FIRST_FD), NAME: term.name, TOKEN: str(term.fencing_token)}
            beginning = asyncio.ensure_future(
                Child.start(
                    self._plan.command,
                    self._plan.environ() | more,
                    scope=self._plan.scope,
                    fds=[theirs.fileno()],
                    until=term.deadline,
                    core=self._plan.core,
                    allow_setuid=self._plan.allow_setuid,
                )
            )
            try:
                child = self.child = await asyncio.shield(beginning)
                child.until(term.deadline)  # a renewal may have come meanwhile
                theirs.close()
                self._board.work_began(term.name)
                self.code = await self._until_over(term, child, visitors)
            finally:
                # Lost or cancelled: nothing may be left of it, whatever comes in between.
                await finish(_end(beginning))
                await finish(visitors.close())
                self.child = self._pipe = self._visitors = None
        if self.code is not None and term.request is not None:
            # It ended while somebody was asked to take over: the term goes on to its end, and the command not again.
            raise _EndedByItself

    async def _until_over(self, term: Term, child: Child, visitors: Visitors) -> int | None:
        """Its exit status, None if it had to end because the lock is wanted elsewhere."""
        ended = asyncio.ensure_future(child.wait())
        down = asyncio.ensure_future(term.wait_step_down())
        hurried = asyncio.ensure_future(self._stopping.wait_hurried())
        trouble = asyncio.ensure_future(visitors.trouble(self._timing))
        try:
            await asyncio.wait((ended, down, trouble), return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                return ended.result()
            if trouble.done():
                log.error("%s: killing the command: %s", self._name, trouble.result())
                return await child.end()
            if self._stopping.asked is not None:
                await child.ended_within(REACHES_ALL)
            child.signal(self._stopping.asked or signal.SIGTERM)
            limit = time_to_stop(self._timing) if visitors else self._timing.drain
            visitors.stop(term.request.reason if term.request is not None else self._stopping.reason)
            await Patience().wait((ended, hurried, trouble), limit)
            if not ended.done():
                log.warning("%s: the command has not ended, killing it", self._name)
            code = await child.end()
            return code if self._stopping.asked is not None else None
        finally:
            for task in (ended, down, hurried, trouble):
                task.cancel()

    def _say(self, line: Mapping[str, Any]) -> None:
        if self._pipe is not None:
            try:
                self._pipe.send(json.dumps(line).encode() + b"\n")
            except OSError:
                return  # it does not read this, and need not


async def _end(beginning: asyncio.Future[Child]) -> None:
    await asyncio.wait([beginning])
    if beginning.exception() is not None:
        return
    child = beginning.result()
    if child.code is None:
        child.signal(signal.SIGTERM)
        if not await child.ended_within(LAST_WORDS):
            await child.end()
