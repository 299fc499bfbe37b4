"""Runs the handlers: the updates of one chat in order, different chats side by side, each for a limited time.

The parts of an album, each of which is an update, begin in order and do not wait for each other's ends: what collects
them holds the first one back until it has seen the others.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import partial
from typing import Any

from aiogram import Bot, Dispatcher
from aiogram.methods import TelegramMethod
from aiogram.types import Update

from cluster_lock import clock
from cluster_lock.leadership import Term

from .arguments import of_term
from .classify import describe
from .crashes import CrashNotes
from .redelivery import Redelivery
from .rules import OnFailed, Rules
from .state import Facts
from .window import Delivered

log = logging.getLogger("cluster_lock.aiogram")

LOOK_AGAIN = 0.05
"""Seconds until handlers that could not start, because the lease was not renewed in time, are looked at again."""

Line = deque["Job"]


class Job:
    """One update on its way through its handler."""

    __slots__ = (
        "album",
        "cut_off",
        "delivered",
        "left_behind",
        "line",
        "out_of_time",
        "refused",
        "started",
        "task",
        "until",
        "update",
    )

    def __init__(
        self, delivered: Delivered, update: Update, line: Hashable, *, refused: Exception | None = None
    ) -> None:
        self.delivered = delivered
        self.update = update
        self.line = line
        """What it is in order with; see `conversation`."""
        self.album = album(update) if isinstance(line, int) else None  # else the line is not of one chat
        self.refused = refused
        """Why it is not handled, but has failed."""
        self.task: asyncio.Task[None] | None = None
        self.until = 0.0
        self.started = False
        self.out_of_time = False
        self.left_behind = False
        """Out of its time, and it still runs: the next of its line does not wait for it."""
        self.cut_off = False
        """Cancelled because the term ends."""


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
        self._lines: dict[Hashable, Line] = {}
        self._ready: deque[Line] = deque()
        self._running: dict[Job, None] = {}
        """In the order in which they began, which is the order in which they run out of their time."""
        self._left_behind: set[Job] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._look_again: asyncio.TimerHandle | None = None
        self._data = of_term(dispatcher, rules.data, term)
        self.redelivery = Redelivery(term)
        self.cut_off: list[Delivered] = []
        """Those whose handlers had begun, and were cancelled because the term ends: they come again, unless they have
        finished all the same."""

    @property
    def waiting(self) -> int:
        """Updates whose handlers have not started."""
        return sum(len(line) for line in self._lines.values()) - len(self._running)

    @property
    def running(self) -> int:
        return len(self._running) + len(self._left_behind)

    def submit(self, jobs: Iterable[Job]) -> None:
        """Take these updates, in order."""
        for job in jobs:
            line = self._lines.get(job.line)
            if line is None:
                line = self._lines[job.line] = deque()
                self._ready.append(line)
            line.append(job)
            if job.album is not None and len(line) > 1 and self._next(line) is job:
                self._ready.append(line)
        self._start()

    def close(self, *, drop_waiting: bool) -> None:
        """Take nothing more. `drop_waiting`: what has not started does not start any more."""
        if drop_waiting:
            self._closed = True
            self._ready.clear()
        self._set_idle()

    async def idle(self, timeout: float | None = None) -> bool:
        """Wait until nothing runs (and, unless dropped, nothing waits); False if that takes longer than `timeout`."""
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def cancel(self) -> None:
        """Cancel what runs and start nothing more. What swallows that goes on: see `idle`."""
        self.close(drop_waiting=True)
        for timer in (self._look_again, self._alarm):
            if timer is not None:
                timer.cancel()
        for job in (*self._running, *self._left_behind):
            job.cut_off = True
            if job.started and not job.delivered.finished:
                self.cut_off.append(job.delivered)
            if job.task is not None:
                job.task.cancel()

    def _start(self) -> None:
        if self._ready and not may_start(self._term):
            self._start_later()
            return
        until = clock.now() + self._rules.timing.handler_timeout
        while self._ready and len(self._running) < self._rules.max_concurrent:
            line = self._ready.popleft()
            job = self._next(line)
            assert job is not None, "a line that is ready"
            job.task = self._term.spawn(self._run(job))
            job.until = until
            self._running[job] = None
            job.task.add_done_callback(partial(self._ended, job))
            if job.album is not None and self._next(line) is not None:
                self._ready.appendleft(line)
        self._set_alarm()
        self._set_idle()

    def _set_alarm(self) -> None:
        """One timer, for the handler that began first."""
        first = next((job for job in self._running if not job.out_of_time), None)
        if first is not None and self._alarm is None and not self._closed:
            left = first.until - clock.now()
            self._alarm = asyncio.get_running_loop().call_later(max(0.0, left), self._look_at_times)

    def _look_at_times(self) -> None:
        self._alarm = None
        now = clock.now()
        for job in [job for job in self._running if job.until <= now and not job.out_of_time]:
            self._out_of_time(job)
        self._set_alarm()

    def _start_later(self) -> None:
        if self._look_again is not None:
            self._look_again.cancel()
        self._look_again = asyncio.get_running_loop().call_later(LOOK_AGAIN, self._start)

    def _ended(self, job: Job, task: asyncio.Task[None]) -> None:
        self._left_behind.discard(job)
        if job.started:
            self._notes.end(job.delivered.update_id)
        if not job.left_behind:
            self._leave_line(job)
        if self._is_ending():
            self._set_idle()
        elif not job.started:
            self._start_later()
        else:
            if not job.delivered.finished:  # `_run` did not get that far, and nobody else will
                self._finished(job.delivered)
            if self._ready:
                self._start()
            else:
                self._set_idle()
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error  # out of this module, not out of a handler: the loop's exception handler says so

    def _leave_line(self, job: Job) -> None:
        """The next update of its line may start."""
        del self._running[job]
        line = self._lines[job.line]
        if job.started:
            line.remove(job)
        if not line:
            del self._lines[job.line]
        elif not self._closed and (job.album is None or self._may_go_on(line)):
            self._ready.append(line)

    def _next(self, line: Line) -> Job | None:
        """What may start: the first of the line, or the next part of the album of which all parts before it run."""
        first = line[0]
        if first not in self._running:
            return first
        for job in line:
            if first.album is None or job.album != first.album:
                break
            if job not in self._running:
                return job
        return None

    def _may_go_on(self, line: Line) -> bool:
        """After the end of a part of an album: what comes after it waits for all of its parts."""
        return self._next(line) is not None and not any(line is ready for ready in self._ready)

    def _is_ending(self) -> bool:
        return self._closed or self._term.closed or self._term.ended is not None

    def _set_idle(self) -> None:
        if self._running or self._left_behind or (self._ready and not self._closed):
            self._idle.clear()
        else:
            self._idle.set()

    async def _run(self, job: Job) -> None:
        # The task was made in an earlier turn of the loop, and the loop may have been blocked in between.
        if self._closed or not may_start(self._term):
            return
        job.started = True
        self._notes.begin(job.delivered.update_id)
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
            failure = self._cancelled(job, error)
        except BaseException as error:  # noqa: BLE001 - logged and confirmed, as aiogram does
            failure = error if isinstance(error, Exception) else _as_exception(error)
            if job.cut_off:
                self._log_failure(job, failure, "was cancelled and failed, the update comes again")
                return
        if job.out_of_time:
            failure = TimeoutError("the handler ran out of its time")
        elif failure is None:
            self._facts.handled += 1
        else:
            self._facts.failed += 1
            self._log_failure(job, failure, "failed, the update is not handled again")
        if failure is not None and self._rules.on_failed is not None and not self._closed:
            await self._tell(self._rules.on_failed, job, failure)
        self._finished(job.delivered)

    def _cancelled(self, job: Job, error: asyncio.CancelledError) -> Exception | None:
        """What the end of a handler by a cancellation means. Raises it again if the term ends."""
        task = asyncio.current_task()
        assert task is not None
        asked = task.cancelling() > 0
        if asked and self._is_ending():
            raise error
        if asked:
            task.uncancel()
        if job.out_of_time:
            return None
        return RuntimeError(
            "the handler's task was cancelled, and not by the poller"
            if asked
            else f"the handler let a CancelledError out: {error}"  # of something that it awaited
        )

    def _log_failure(self, job: Job, failure: Exception, what: str) -> None:
        log.error(
            "bot %d: the handler of update %d %s: %s",
            self._bot.id,
            job.delivered.update_id,
            what,
            describe(failure, self._bot.token),
            exc_info=failure if job.refused is None else None,
        )

    def _out_of_time(self, job: Job) -> None:
        """Confirm it whether or not the handler obeys: one stuck handler must not stop the confirming for ever."""
        log.error(
            "bot %d: the handler of update %d ran out of its time, %g s: cancelled, the update is not handled again",
            self._bot.id,
            job.delivered.update_id,
            self._rules.timing.handler_timeout,
        )
        job.out_of_time = True
        self._facts.timed_out += 1
        if job.task is not None:
            job.task.cancel()
        self._finished(job.delivered)
        asyncio.get_running_loop().call_later(self._rules.timing.cancel_grace, self._leave_behind, job)

    def _leave_behind(self, job: Job) -> None:
        """It does not obey. The updates after it go on without it; only the lock is not given away before it ends."""
        if job not in self._running or self._is_ending():
            return
        log.error(
            "bot %d: the handler of update %d goes on although it was cancelled: the next update of its chat does not"
            " wait for it any longer",
            self._bot.id,
            job.delivered.update_id,
        )
        job.left_behind = True
        self._left_behind.add(job)
        self._leave_line(job)
        self._start()

    async def _tell(self, on_failed: OnFailed, job: Job, error: Exception) -> None:
        try:
            async with asyncio.timeout(self._rules.timing.handler_timeout):
                await on_failed(self._bot, job.update, error)
        except Exception:
            log.exception("bot %d: on_failed itself failed for update %d", self._bot.id, job.delivered.update_id)


def _as_exception(error: BaseException) -> Exception:
    """One that no `except Exception` catches, such as pyo3's PanicException, as one that can be told."""
    wrapped = RuntimeError(f"{type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped


def may_start(term: Term) -> bool:
    """The third of the four checks of the lease: before each handler."""
    return term.is_valid()


def album(update: Update) -> str | None:
    """What the parts of one album have in common. A part that is edited later is on its own."""
    message = update.message or update.channel_post or update.business_message
    return message.media_group_id if message is not None else None


def conversation(update: Mapping[str, Any]) -> Hashable:
    """What keeps updates in order: the chat, else whoever sent it, else nothing (the update stands for itself).

    A private chat has the id of its user, so the inline queries of somebody are in order with his messages. Read from
    what Telegram sent, so that kinds of updates that this aiogram does not know are in order too.
    """
    for event in update.values():
        if not isinstance(event, dict):
            continue  # update_id
        message = event.get("message")
        inner = message.get("chat") if isinstance(message, dict) else None
        for who in (event.get("chat"), inner, event.get("from"), event.get("user"), event.get("voter_chat")):
            if isinstance(who, dict) and "id" in who:
                return who["id"]  # type: ignore[no-any-return]
    return "update", update.get("update_id")
