"""Runs the handlers: started in the order of delivery, side by side, as aiogram does; where an order was asked for, the
updates of one line one after the other (`lines`)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from aiogram import Bot, Dispatcher

from cluster_lock.election import Term

from .crashes import CrashNotes
from .deadlines import Deadlines
from .feeding import Feeder
from .job import QueuedUpdate
from .lease_checks import may_start
from .queues import Queues
from .rules import Rules
from .state import Facts
from .window import Delivered

LOOK_AGAIN = 0.05
"""Seconds until handlers that could not start, because the lease was not renewed in time, are looked at again."""


class Handling:
    """The handlers of one term. `finished(delivered)` is called for each update that is done with: handled, failed, or
    out of its time. One that was cancelled because the term ends is not done with. `exits(delivered)`: its handler ends
    the process (SystemExit, KeyboardInterrupt)."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        bot: Bot,
        term: Term,
        rules: Rules,
        facts: Facts,
        finished: Callable[[Delivered], None],
        exits: Callable[[Delivered], None],
        notes: CrashNotes,
    ) -> None:
        self._term, self._rules, self._facts, self._finished, self._notes = term, rules, facts, finished, notes
        self._most = 1 if rules.sequential else rules.max_concurrent
        self._queues = Queues()
        self._running: dict[Delivered, QueuedUpdate] = {}
        self._aside: dict[Delivered, QueuedUpdate] = {}
        """What runs too, and nothing waits for its place any more: confirmed early, or left behind."""
        self._closed = False
        self._poller: asyncio.Task[Any] | None = None
        self._one_ended = asyncio.Event()
        self._look_again: asyncio.TimerHandle | None = None
        deadlines: Deadlines | None = None
        if (limit := rules.times.handler_timeout) is not None:
            grace = rules.timing.cancel_grace
            deadlines = Deadlines(bot.id, limit, grace, facts, self._is_ending, finished, self._leave_behind)
        feeder = Feeder(dispatcher, bot, term, rules, facts, notes, deadlines, self._is_ending, finished, exits)
        self._feed, self.redelivery = feeder.feed, feeder.redelivery

    def end_with(self, poller: asyncio.Task[Any] | None) -> None:
        """A cancellation of this task is one of its handlers too, although it hears of it later: at the end of a loop
        all tasks are cancelled at once, and go on in any order."""
        self._poller = poller

    @property
    def waiting(self) -> int:
        """Updates whose handlers have not started."""
        return self._queues.waiting

    @property
    def running(self) -> int:
        return len(self._running) + len(self._aside)

    def submit(self, jobs: Iterable[QueuedUpdate]) -> None:
        """Take these updates, in order."""
        self._queues.enter(jobs)
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
            self._queues.clear()
        self._one_ended.set()

    async def idle(self, timeout: float | None = None) -> bool:
        """Wait until nothing runs (and, unless dropped, nothing waits); False if that takes longer than `timeout`."""
        try:
            async with asyncio.timeout(timeout):
                while self._running or self._aside or not self._queues.is_empty:
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
        queues = self._queues
        if not (queues.ready or queues.urgent) or self._is_ending():
            return
        if not may_start(self._term):
            self._start_later()
            return
        for job in queues.take(self._most - len(self._running)):
            self._running[job.delivered] = job
            job.task = self._term.begin(self._feed(job))
            job.task.add_done_callback(partial(self._ended, job))

    def _start_later(self) -> None:
        if self._look_again is not None:
            self._look_again.cancel()
        self._look_again = asyncio.get_running_loop().call_later(LOOK_AGAIN, self._start_again)

    def _start_again(self) -> None:
        self._queues.restore()
        self._start()

    def _ended(self, job: QueuedUpdate, task: asyncio.Task[None]) -> None:
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
            self._go_on(job)
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            raise error  # out of the poller, not out of a handler: the loop's exception handler says so

    def _go_on(self, job: QueuedUpdate) -> None:
        """After the end of its task."""
        if not job.started:
            self._queues.put_off(job)
            self._start_later()
            return
        if not job.delivered.finished:  # the task did not get that far, and nobody else will
            self._finished(job.delivered)
        if job.line is not None and not job.left_behind:
            self._queues.leave(job)
        self._start()

    def _leave_behind(self, job: QueuedUpdate) -> None:
        self._running.pop(job.delivered, None)
        self._aside[job.delivered] = job
        if job.line is not None:
            self._queues.leave(job)
        job.left_behind = True
        self._start()

    def _is_ending(self) -> bool:
        if self._poller is not None and self._poller.cancelling():
            return True
        return self._closed or self._term.closed or self._term.ended is not None
