"""Gives one update to aiogram's dispatcher, and sees how its handler ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from aiogram import Bot, Dispatcher
from aiogram.methods import TelegramMethod

from cluster_lock import clock
from cluster_lock.election import Term

from .arguments import of_term
from .classify import describe
from .crashes import CrashNotes
from .deadlines import Deadlines
from .job import QueuedUpdate
from .lease_checks import may_start
from .redelivery import Redelivery
from .rules import Rules
from .state import Facts
from .window import Delivered

log = logging.getLogger("cluster_lock.aiogram")

TELL_LIMIT = 60.0
"""Seconds for `on_failed`."""


class CutOff(RuntimeError):
    """What `on_failed` is told of an update whose handler was cut off at a hand-over, and which does not come again: it
    had been confirmed early."""


class Feeder:
    """For one term. `finished(delivered)` is called for each update that is done with, well or badly. One that was cut
    off because the term `is_ending()` is not done with. `exits(delivered)`: its handler ends the process."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        bot: Bot,
        term: Term,
        rules: Rules,
        facts: Facts,
        notes: CrashNotes,
        deadlines: Deadlines | None,
        is_ending: Callable[[], bool],
        finished: Callable[[Delivered], None],
        exits: Callable[[Delivered], None],
    ) -> None:
        self._dispatcher, self._bot, self._term, self._rules, self._facts = dispatcher, bot, term, rules, facts
        self._notes, self._deadlines = notes, deadlines
        self._is_ending, self._finished, self._exits = is_ending, finished, exits
        self._data = of_term(dispatcher, rules.data, term)
        self.redelivery = Redelivery(term)

    async def feed(self, job: QueuedUpdate) -> None:
        """Start its handler and wait for its end. It does not start when the term is ending or the lease is in doubt,
        see `job.started`."""
        # The task was made in an earlier turn of the loop, and the loop may have been blocked in between.
        if self._is_ending() or not may_start(self._term):
            return
        delivered = job.delivered
        job.started, delivered.began = True, clock.now()
        self._notes.begin(delivered.update_id)
        if self._deadlines is not None:
            self._deadlines.start(job)
        failure: Exception | None = None
        try:
            if job.refused is not None:
                raise job.refused
            data = {"redelivered": delivered.update_id in self.redelivery, **self._data}
            response = await self._dispatcher.feed_update(self._bot, job.update, **data)
            if isinstance(response, TelegramMethod):
                await self._dispatcher.silent_call_request(self._bot, response)
        except (KeyboardInterrupt, SystemExit):
            self._exits(delivered)
            raise
        except asyncio.CancelledError as error:
            if _was_asked() and self._is_ending():
                await self._cut_off(job, error)
                raise
            failure = self._cancelled(job, error)
        except BaseException as error:  # noqa: BLE001 - logged and confirmed, as aiogram does
            failure = error if isinstance(error, Exception) else _as_exception(error)
            if job.cut_off or (_was_asked() and self._is_ending()):
                await self._cut_off(job, failure)
                return
        if failure is None and not job.out_of_time:
            self._facts.handled += 1
        else:
            await self._failed(job, failure)
        self._finished(delivered)

    async def _failed(self, job: QueuedUpdate, failure: Exception | None) -> None:
        """It raised this, or ran out of its time."""
        if failure is None or job.out_of_time:
            failure = TimeoutError("the handler ran out of its time")
        else:
            self._facts.failed += 1
            self._log_failure(job, failure, "failed, the update is not handled again")
        if not job.cut_off:
            await self._tell(job, failure, TELL_LIMIT)

    def _cancelled(self, job: QueuedUpdate, error: asyncio.CancelledError) -> Exception | None:
        """What the end of a handler by a cancellation means that is not the end of the term."""
        asked = _was_asked()
        if asked and (task := asyncio.current_task()) is not None:
            task.uncancel()
        if job.out_of_time:
            return None
        return RuntimeError(
            "the handler's task was cancelled, and not by the poller"
            if asked
            else f"the handler let a CancelledError out: {error}"  # of something that it awaited
        )

    async def _cut_off(self, job: QueuedUpdate, error: BaseException) -> None:
        """The term ends before the handler: its update comes again, unless it was confirmed early."""
        if not job.delivered.early:
            if isinstance(error, Exception):
                self._log_failure(job, error, "was cancelled and failed, the update comes again")
            return
        self._facts.given_up += 1
        said = CutOff("its handler was cut off at the end of a term, and it had been confirmed early")
        self._log_failure(job, said, "is cut off, the update is lost")
        if may_start(self._term):  # at a hand-over, not when the lock is lost
            await self._tell(job, said, self._rules.timing.cancel_grace / 2)

    def _log_failure(self, job: QueuedUpdate, failure: Exception, what: str) -> None:
        log.error(
            "bot %d: the handler of update %d %s: %s",
            self._bot.id,
            job.delivered.update_id,
            what,
            describe(failure, self._bot.token),
            exc_info=failure if failure.__traceback__ is not None and job.refused is None else None,
        )

    async def _tell(self, job: QueuedUpdate, error: Exception, limit: float) -> None:
        if self._rules.on_failed is None:
            return
        try:
            async with asyncio.timeout(limit):
                await self._rules.on_failed(self._bot, job.update, error)
        except Exception:
            log.exception("bot %d: on_failed itself failed for update %d", self._bot.id, job.delivered.update_id)


def _was_asked() -> bool:
    """Was this task cancelled, or has it only caught the cancellation of something that it awaited?"""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _as_exception(error: BaseException) -> Exception:
    """One that no `except Exception` catches, such as pyo3's PanicException, as one that can be told."""
    wrapped = RuntimeError(f"{type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped
