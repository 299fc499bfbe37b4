"""The keeper of a worker: owns the session, and sees to it that no lock is held for a worker that is not there, and
that no worker goes on with its work when its lock is gone."""

from __future__ import annotations

import asyncio
import logging

from cluster_lock import clock
from cluster_lock.errors import NotStarted
from cluster_lock.health import Board
from cluster_lock.host.patience import LOOK_EVERY
from cluster_lock.session import Session

from .again import StartBackoff, spoken
from .caller import time_to_stop
from .plan import KeeperSpec
from .stopping import ENDS, KeeperStopping
from .worker_process import WorkerProcess

log = logging.getLogger("cluster_lock.keeper")

SLOW_START = 10.0
"""Seconds after which a worker that has not asked for its lock is worth a word. It is not ended: nothing waits for
it, and whatever it loads or migrates would have to begin anew."""
NOT_AGAIN = frozenset({2, 73, 76, 77, 78})
"""Exit codes that say what no restart of ours repairs: wrong arguments, already running, of another version than we
are, refused, wrong settings."""


class Keeper:
    """Runs the plan's command as the worker of `session`, anew when it ends, until it is told to stop."""

    def __init__(self, session: Session, plan: KeeperSpec, stopping: KeeperStopping, board: Board) -> None:
        self.worker: WorkerProcess | None = None
        self.restarts = 0
        self._session, self._plan, self._stopping, self._board = session, plan, stopping, board

    async def run(self) -> int:
        """The exit code: the worker's, or 128 + the number of a second signal. Raises KeeperMismatch and NotStarted."""
        backoff = StartBackoff()
        while self._stopping.asked is None:
            began = clock.now()
            try:
                code = await self._run_once()
                reason = f"the worker ended with {spoken(code)}"
            except NotStarted as error:
                if not self._again(error.exit_code):
                    raise
                code, reason = error.exit_code, str(error)
            if self._stopping.asked is not None:
                return 0 if self._stopping.hurried is None else 128 + self._stopping.hurried
            if self.worker is not None and self.worker.mismatch is not None:
                raise self.worker.mismatch
            if not self._again(code):
                return code
            wait = backoff.after(clock.now() - began)
            log.error("%s, starting it again in %.1f s", reason, wait)
            if await self._stopping.within(wait):
                return 0
            self.restarts += 1
        return 0

    async def _run_once(self) -> int:
        """From the worker's start to its end: its exit code. Raises NotStarted."""
        self.worker = worker = await WorkerProcess.start(self._plan, self._session, self._board)
        self._board.worker_changed("starting")
        try:
            return await self._stand_over(worker)
        finally:
            await worker.child.end()
            self._board.worker_changed("gone", reason=f"the worker ended with {spoken(worker.child.code or 0)}")
            await worker.close()

    def renewed(self, deadline: float) -> None:
        """The session's lease was renewed."""
        if self.worker is not None:
            self.worker.relay.renewed(deadline)

    def pass_on(self, number: int) -> bool:
        """A signal that is for the worker. False: it is for us."""
        if self.worker is None or number in ENDS:
            return False
        self.worker.child.signal(number)
        return True

    def _again(self, code: int) -> bool:
        restart = self._plan.restart
        if restart == "never" or code in NOT_AGAIN or self._session.failure is not None:
            return False
        return restart == "always" or code != 0

    async def _stand_over(self, worker: WorkerProcess) -> int:
        """Until the worker has ended, by itself or because it had to: its exit code."""
        ended = asyncio.ensure_future(worker.child.wait())
        asked = asyncio.ensure_future(self._stopping.wait())
        slow = asyncio.get_running_loop().call_later(SLOW_START, _say_slow, worker)
        try:
            while not ended.done() and not asked.done():
                await worker.patience.wait((ended, asked, worker.wrong), LOOK_EVERY)
                if not ended.done() and (reason := worker.trouble(self._session.timing)) is not None:
                    log.error("killing the worker: %s", reason)
                    return await worker.child.end()
            if not ended.done():
                await self._stop(worker)
            return await ended
        finally:
            slow.cancel()
            asked.cancel()
            ended.cancel()

    async def _stop(self, worker: WorkerProcess) -> None:
        """Let it finish what is under way, and end it if it does not."""
        self._board.stop(self._stopping.reason)
        worker.stop(self._stopping.reason)
        hurried = asyncio.ensure_future(self._stopping.wait_hurried())
        ended = asyncio.ensure_future(worker.child.wait())
        try:
            await worker.patience.wait((hurried, ended), time_to_stop(self._session.timing))
            if not ended.done():
                log.warning("the worker has not ended: killing it")
                await worker.child.end()
        finally:
            hurried.cancel()
            ended.cancel()


def _say_slow(worker: WorkerProcess) -> None:
    if not worker.asks:
        log.warning(
            "the worker has not asked for its lock %g s after its start: waiting for what it imports and for its"
            " startup hooks",
            SLOW_START,
        )
