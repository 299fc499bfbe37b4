"""Handlers that take longer than `handler_timeout`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from .job import QueuedUpdate
from .state import Facts
from .window import Delivered

log = logging.getLogger("cluster_lock.aiogram")


class Deadlines:
    """Cancels a handler after `timeout` seconds and confirms its update. One that goes on for `grace` seconds more is
    left behind: then `left_behind(job)` is called. None of this once the term `is_ending()`, which has its own
    limits."""

    def __init__(
        self,
        bot_id: int,
        timeout: float,
        grace: float,
        facts: Facts,
        is_ending: Callable[[], bool],
        finished: Callable[[Delivered], None],
        left_behind: Callable[[QueuedUpdate], None],
    ) -> None:
        self._bot_id, self._timeout, self._grace, self._facts = bot_id, timeout, grace, facts
        self._is_ending, self._finished, self._left_behind = is_ending, finished, left_behind

    def start(self, job: QueuedUpdate) -> None:
        """Its handler starts."""
        job.alarm = asyncio.get_running_loop().call_later(self._timeout, self._out_of_time, job)

    def _out_of_time(self, job: QueuedUpdate) -> None:
        """Confirm it whether or not the handler obeys: one stuck handler must not stop the confirming for ever."""
        if self._is_ending():
            return
        log.error(
            "bot %d: the handler of update %d ran out of its time, %g s: cancelled, the update is not handled again",
            self._bot_id,
            job.delivered.update_id,
            self._timeout,
        )
        job.out_of_time = True
        self._facts.timed_out += 1
        if job.task is not None:
            job.task.cancel()
        self._finished(job.delivered)
        job.alarm = asyncio.get_running_loop().call_later(self._grace, self._leave_behind, job)

    def _leave_behind(self, job: QueuedUpdate) -> None:
        """It does not obey. The updates after it go on without it; only the lock is not given away before it ends."""
        if self._is_ending():
            return
        log.error(
            "bot %d: the handler of update %d goes on although it was cancelled: nothing waits for it any longer",
            self._bot_id,
            job.delivered.update_id,
        )
        self._left_behind(job)
