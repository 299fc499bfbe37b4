"""Runs the handlers: started in the order of delivery, side by side, as aiogram does; where an order was asked for, the
updates of one line one after the other (`lines`)."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from functools import partial

from aiogram import Bot, Dispatcher
from aiogram.methods import TelegramMethod
from aiogram.types import Update

from cluster_lock import clock
from cluster_lock.election import Term

from .arguments import of_term
from .classify import describe
from .crashes import CrashNotes
from .lines import Lines
from .redelivery import Redelivery
from .rules import Rules
from .state import Facts
from .window import Delivered

log = logging.getLogger("cluster_lock.aiogram")

LOOK_AGAIN = 0.05
"""Seconds until handlers that could not start, because the lease was not renewed in time, are looked at again."""
TELL_LIMIT = 60.0
"""Seconds for `on_failed`."""


class CutOff(RuntimeError):
    """What `on_failed` is told of an update whose handler was cut off at a hand-over, and which does not come again: it
    had been confirmed early."""


class Job:
    """One update on its way through its handler."""

    __slots__ = (
        "alarm",
        "cut_off",
        "delivered",
        "left_behind",
        "line",
        "out_of_time",
        "refused",
        "started",
        "task",
        "update",
        "urgent",
    )

    def __init__(
        self,
        delivered: Delivered,
        update: Update,
        line: Hashable = None,
        *,
        urgent: bool = False,
        refused: Exception | None = None,
    ) -> None:
        self.delivered = delivered
        self.update = update
        self.line = line
        """What it is in order with; None: with nothing."""
        self.urgent = urgent
        """It overtakes what waits."""
        self.refused = refused
        """Why it is not handled, but has failed."""
        self.task: asyncio.Task[None] | None = None
        self.alarm: asyncio.TimerHandle | None = None
        self.started = False
        self.out_of_time = False
        self.left_behind = False
        """Out of its time, and it still runs: the next of its line does not wait for it."""
        self.cut_off = False
        """Cancelled because the term ends."""

    @property
    def album(self) -> Hashable:
        return self.delivered.album


class Handling:
    """The handlers of one term. `finished(delivered)` is called for each update that is done with: handled, failed, or
    out of its time. One that was cancelled because the term ends is not done with."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        bot: Bot,
        term: Term,
        rules: Rules,
        facts: Facts,
        finished: Callable[[Delivered], None],
        notes: CrashNotes,
    ) -> None:
        self._dispatcher, self._bot, self._term, self._rules, self._facts = dispatcher, bot, term, rules, facts
        self._finished, self._notes = finished, notes
        self._most = 1 if rules.sequential else rules.max_concurrent
        self._timeout = rules.timing.handler_timeout
        self._lines = Lines()
        self._urgent: deque[Job] = deque()
        self._ready: deque[Job] = deque()
        self._put_off: list[Job] = []
        """What was to start and could not, for the lease."""
        self._running: dict[Delivered, Job] = {}
        self._aside: dict[Delivered, Job] = {}
        """What runs too, and nothing waits for its place any more: confirmed early, or left behind."""
        self._closed = False
        self._one_ended = asyncio.Event()
        self._look_again: asyncio.TimerHandle | None = None
        self._data = of_term(dispatcher, rules.data, term)
        self.redelivery = Redelivery(term)

    @property
    def waiting(self) -> int:
        """Updates whose handlers have not started."""
        return len(self._urgent) + len(self._ready) + len(self._put_off) + self._lines.waiting

    @property
    def running(self) -> int:
        return len(self._running) + len(self._aside)

    def submit(self, jobs: Iterable[Job]) -> None:
        """Take these updates, in order."""
        for job in jobs:
            if job.line is None or self._lines.enter(job):
                (self._urgent if job.urgent else self._ready).append(job)
        self._start()

    def confirmed_early(self, delivered: Delivered) -> None:
        """Its handler runs on, and does not count among those that may run at once, unless the caller has said how
        many those are."""
        self._facts.early_running += 1
        if not self._rules.limited and (job := self._running.pop(delivered, None)) is not None:
            self._aside[delivered] = job
            self._start()

    def close(self, *, drop_waiting: bool) -> None:
        """Take nothing more. `drop_waiting`: what has not started does not start any more."""
        if drop_waiting:
            self._closed = True
            for waiting in (self._urgent, self._ready, self._put_off):
                waiting.clear()
        self._one_ended.set()

    async def idle(self, timeout: float | None = None) -> bool:
        """Wait until nothing runs (and, unless dropped, nothing waits); False if that takes longer than `timeout`."""
        try:
            async with asyncio.timeout(timeout):
                while self._running or self._aside or self._ready or self._urgent or self._put_off:
                    self._one_ended.clear()
                    await self._one_ended.wait()
        except TimeoutError:
            return False
        return True

    def cancel(self) -> None:
        """Cancel what runs and start nothing more. What swallows that goes on: see `idle`."""
        self.close(drop_waiting=True)
        if self._look_again is not None:
            self._look_again.cancel()
        for job in (*self._running.values(), *self._aside.values()):
            job.cut_off = True
            if job.task is not None:
                job.task.cancel()

    def _start(self) -> None:
        if not (self._ready or self._urgent) or self._is_ending():
            return
        if not may_start(self._term):
            self._start_later()
            return
        while (waiting := self._urgent or self._ready) and len(self._running) < self._most:
            job = waiting.popleft()
            self._running[job.delivered] = job
            job.task = self._term.begin(self._run(job))
            job.task.add_done_callback(partial(self._ended, job))

    def _start_later(self) -> None:
        if self._look_again is not None:
            self._look_again.cancel()
        self._look_again = asyncio.get_running_loop().call_later(LOOK_AGAIN, self._start_again)

    def _start_again(self) -> None:
        self._ready.extendleft(reversed(self._put_off))
        self._put_off.clear()
        self._start()

    def _ended(self, job: Job, task: asyncio.Task[None]) -> None:
        delivered = job.delivered
        if self._running.pop(delivered, None) is None:
            del self._aside[delivered]
        if job.alarm is not None:
            job.alarm.cancel()
        if delivered.early:
            self._facts.early_running -= 1
        if job.started:
            self._notes.end(delivered.update_id)
        self._one_ended.set()
        if not self._is_ending():
            if not job.started:
                self._put_off.append(job)
                self._start_later()
            else:
                if not delivered.finished:  # `_run` did not get that far, and nobody else will
                    self._finished(delivered)
                self._leave_line(job)
                self._start()
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error  # out of this module, not out of a handler: the loop's exception handler says so

    def _leave_line(self, job: Job) -> None:
        if job.line is not None and not job.left_behind:
            self._ready.extend(self._lines.leave(job))

    def _is_ending(self) -> bool:
        return self._closed or self._term.closed or self._term.ended is not None

    async def _run(self, job: Job) -> None:
        # The task was made in an earlier turn of the loop, and the loop may have been blocked in between.
        if self._is_ending() or not may_start(self._term):
            return
        delivered = job.delivered
        job.started, delivered.began = True, clock.now()
        self._notes.begin(delivered.update_id)
        if self._timeout is not None:
            job.alarm = asyncio.get_running_loop().call_later(self._timeout, self._out_of_time, job)
        failure: Exception | None = None
        try:
            if job.refused is not None:
                raise job.refused
            data = {"redelivered": job.delivered.update_id in self.redelivery, **self._data}
            response = await self._dispatcher.feed_update(self._bot, job.update, **data)
            if isinstance(response, TelegramMethod):
                await self._dispatcher.silent_call_request(self._bot, response)
        except (KeyboardInterrupt, SystemExit):
            raise  # it ends the process
        except asyncio.CancelledError as error:
            if _was_asked() and self._is_ending():
                await self._cut_off(job, error)
                raise
            failure = self._cancelled(job, error)
        except BaseException as error:  # noqa: BLE001 - logged and confirmed, as aiogram does
            failure = error if isinstance(error, Exception) else _as_exception(error)
            if job.cut_off:
                await self._cut_off(job, failure)
                return
        if job.out_of_time:
            failure = TimeoutError("the handler ran out of its time")
        elif failure is None:
            self._facts.handled += 1
        else:
            self._facts.failed += 1
            self._log_failure(job, failure, "failed, the update is not handled again")
        if failure is not None and not job.cut_off:
            await self._tell(job, failure, TELL_LIMIT)
        self._finished(delivered)

    def _cancelled(self, job: Job, error: asyncio.CancelledError) -> Exception | None:
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

    async def _cut_off(self, job: Job, error: BaseException) -> None:
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

    def _log_failure(self, job: Job, failure: Exception, what: str) -> None:
        log.error(
            "bot %d: the handler of update %d %s: %s",
            self._bot.id,
            job.delivered.update_id,
            what,
            describe(failure, self._bot.token),
            exc_info=failure if failure.__traceback__ is not None and job.refused is None else None,
        )

    def _out_of_time(self, job: Job) -> None:
        """Confirm it whether or not the handler obeys: one stuck handler must not stop the confirming for ever."""
        if self._is_ending():
            return
        log.error(
            "bot %d: the handler of update %d ran out of its time, %g s: cancelled, the update is not handled again",
            self._bot.id,
            job.delivered.update_id,
            self._timeout,
        )
        job.out_of_time = True
        self._facts.timed_out += 1
        if job.task is not None:
            job.task.cancel()
        self._finished(job.delivered)
        job.alarm = asyncio.get_running_loop().call_later(self._rules.timing.cancel_grace, self._leave_behind, job)

    def _leave_behind(self, job: Job) -> None:
        """It does not obey. The updates after it go on without it; only the lock is not given away before it ends."""
        if self._is_ending():
            return
        log.error(
            "bot %d: the handler of update %d goes on although it was cancelled: nothing waits for it any longer",
            self._bot.id,
            job.delivered.update_id,
        )
        self._running.pop(job.delivered, None)
        self._aside[job.delivered] = job
        self._leave_line(job)
        job.left_behind = True
        self._start()

    async def _tell(self, job: Job, error: Exception, limit: float) -> None:
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


def may_start(term: Term) -> bool:
    """The third of the four checks of the lease: before each handler."""
    return term.is_valid()
