"""The work of one term: poll, hand updates to their handlers, stop in good order or at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from aiogram import Bot, Dispatcher
from aiogram.types import Update

from cluster_lock import clock
from cluster_lock.aio import end, finish
from cluster_lock.election import Term
from cluster_lock.errors import LockLost, RequestUnguarded
from cluster_lock.host.at_exec import at_exec
from cluster_lock.values import Origin

from .classify import describe
from .crashes import GIVEN_UP, SUSPECTED, CrashedTooOften, CrashNotes
from .early import Early
from .fetching import Fetcher
from .handling import Handling, Job
from .http_session import Raw
from .lines import album, conversation, dialogue, is_urgent
from .pace import Pace
from .reading import Cut, UpdateUnreadable, read
from .recovery import Recovery
from .rules import Rules
from .state import Facts
from .window import LIMIT, Delivered, Window, inherited_window

log = logging.getLogger("cluster_lock.aiogram")

CONFIRM_LIMIT = 2.0
"""Seconds for a getUpdates that only confirms."""
REPEAT_LIMIT = 5.0
"""The same when it may be a repetition, which Telegram stretches to 3 s (Client.cpp:15714)."""


SUSPECTS = "suspects"
"""The line of what may end the process: one update at a time, so that there is no doubt which of them does."""


class TermWork:
    """Made for one term, run once."""

    def __init__(self, dispatcher: Dispatcher, bot: Bot, term: Term, rules: Rules, facts: Facts) -> None:
        self._dispatcher, self._bot, self._term, self._rules, self._facts = dispatcher, bot, term, rules, facts
        self._is_limited = rules.limited or rules.sequential
        """The caller has limited the concurrency: then all wait alike, as with aiogram."""
        self._notes = CrashNotes(rules.crash_notes(bot.id) if rules.crash_notes is not None else None)
        self._window = starting_window(term, self._notes.done)
        self._suspects: set[Hashable] = set()
        """Updates that were being handled in several crashes, or where there is an order their lines: they are one line
        for this term."""
        self._handling = Handling(dispatcher, bot, term, rules, facts, self._finished, self._notes)
        self._fetcher = Fetcher(bot, term, rules.timing, rules.allowed_updates, lambda raw: read(raw, bot))
        self._recovery = Recovery(bot, term, rules, facts)
        self._early = Early(bot.id, self._window, facts, self._handling.confirmed_early)
        self._pace = Pace(bot.id, self._window, facts, self._relieve)
        self._cut = Cut()
        self._held: list[Job] = []
        """Delivery at most once: not confirmed yet, so not handled yet."""
        self._was_elected = False
        self._asked_at = 0.0

    async def run(self) -> None:
        """Return when the term was asked to end and everything has been handled, handed over or given back.

        Cancelled (the lease is lost): end at once, confirm nothing, and return only when no handler runs any more.
        """
        self._facts.begin(self._window)
        not_at_exec = at_exec(self._leave)
        try:
            await self._lead_until_step_down()
            drained = self._asked_at + self._rules.timing.drain
            until = drained + self._rules.timing.cancel_grace
            await self._drain(max(0.0, drained - clock.now()))
            self._term.handover.update(self._left_over())
            await self._confirm(until)
            await finish(self._say_step_down(max(0.5, until - clock.now())))
        finally:
            self._facts.end()
            self._handling.cancel()
            await finish(self._end())
            not_at_exec()
            self._notes.close()

    def _leave(self) -> None:
        """A handler puts another program in the place of this one, as a /restart does: that is the end of its update,
        which would otherwise come again, and restart again. What else was under way comes again."""
        if self._rules.delivery == "at_most_once":
            return  # whatever has begun is confirmed
        done = self._window.finished
        if (update_id := self._notes.current()) is not None:
            done.add(update_id)
            log.info("bot %d: update %d ends with this program, which another one replaces", self._bot.id, update_id)
        self._notes.leave(done)
        handover = self._window.handover()
        if handover:
            offset = handover["offset"]
            self._term.handover.update(handover, done=sorted(each for each in done if each >= offset))

    async def _lead_until_step_down(self) -> None:
        asked = asyncio.ensure_future(self._term.wait_step_down())
        polling = asyncio.ensure_future(self._lead())
        try:
            await asyncio.wait((polling, asked), return_when=asyncio.FIRST_COMPLETED)
            self._asked_at = clock.now()
            if self._held and not polling.done():
                # Their confirmation is under way: cut off, nobody would know whether they are ours to handle.
                await asyncio.wait([polling], timeout=min(REPEAT_LIMIT, self._rules.timing.drain))
        except asyncio.CancelledError:
            self._handling.cancel()  # at once, and not after the polling has ended
            raise
        finally:
            self._facts.end()
            self._fetcher.abort()
            await finish(end((polling, asked)))
        if not polling.cancelled():
            polling.result()

    async def _lead(self) -> None:
        self._was_elected = True
        if self._rules.on_elected is not None:
            with self._facts.waiting("on_elected"):
                await self._rules.on_elected(self._bot, self._term)
        while not self._is_leaving():
            await self._poll()

    def _is_leaving(self) -> bool:
        return self._term.stepping_down and not self._is_unsure()

    def _is_unsure(self) -> bool:
        """Delivery at most once: Telegram was asked to confirm what we hold, and we do not know that it has."""
        return bool(self._held) and self._window.sent == self._window.offset

    async def _poll(self) -> None:
        """Once: wait for the moment, ask, dispatch."""
        if self._rules.delivery == "at_least_once":
            await self._pace.wait()
        elif self._handling.waiting >= LIMIT:
            await self._pace.wait_for_room(lambda: self._handling.waiting < LIMIT)
        if self._is_leaving():  # it began while we waited, in the very step in which the last handler ended
            return
        if not may_poll(self._term):
            await self._until_valid()
            return
        updates = await self._ask()
        if updates is None:
            return
        if not may_dispatch(self._term):
            # Dropped, not lost: the offset has not moved, so it comes again, to us or to the next leader.
            log.warning("bot %d: dropped an answer that came after the lease", self._bot.id)
            await self._until_valid()
            return
        self._take(updates)

    async def _until_valid(self) -> None:
        """The lease was not renewed in time by our own look at the clock. Whoever gave us the term cancels us, or has a
        renewal in hand that we could not see; either way nothing is sent or started now."""
        with self._facts.waiting("the lease was not renewed in time"):
            while not self._term.is_valid():  # noqa: ASYNC110 - time passes, and that tells nobody
                await asyncio.sleep(0.05)

    async def _ask(self) -> list[Raw] | None:
        """One getUpdates. None if it failed, after the wait that its failure asks for."""
        timeout = 0.0 if self._held else self._rules.timing.poll_timeout
        sent_at = clock.now()
        self._facts.asks()
        self._pace.asks()
        try:
            updates = await self._fetcher.get_updates(self._window.ask(), timeout=timeout)
        except LockLost:  # the lease ended while the connection was made
            await self._until_valid()
            return None
        except RequestUnguarded:
            raise
        except Exception as error:  # noqa: BLE001 - each kind has its rule, and none may end the polling
            self._facts.poll_ended(describe(error, self._bot.token))
            try:
                await self._recovery.after(error, sent_at)
            except LockLost:
                await self._until_valid()
            return None
        self._facts.poll_ended()
        self._pace.answered()
        self._recovery.succeeded(survived=bool(updates) or clock.now() - sent_at >= timeout > 0)
        return updates

    def _relieve(self, *, cut: bool) -> float | None:
        """One at a time: then to confirm one early would let no other begin."""
        if self._rules.window == "strict" or self._rules.sequential:
            return None
        return self._early.relieve(cut=cut)

    def _take(self, updates: list[Raw]) -> None:
        by_id: dict[int, Raw] = {update["update_id"]: update for update in updates}
        self._handling.redelivery.answered(by_id)
        new = self._window.take(by_id)
        raw = [by_id[delivered.update_id] for delivered in new]
        jobs = self._jobs(new, raw)
        self._pace.took(
            full=len(by_id) >= LIMIT,
            cut=not new and len(by_id) < LIMIT and self._cut.look_at(updates),
            album=bool(new) and new[-1].album is not None,
        )
        if self._rules.delivery == "at_most_once":
            for delivered in new:
                self._window.finish(delivered)
            jobs, self._held = self._held, jobs
        self._handling.submit(jobs)

    def _jobs(self, new: Sequence[Delivered], raw: Sequence[Raw]) -> list[Job]:
        updates = self._fetcher.updates(delivered.update_id for delivered in new)
        lines = self._lines(updates, raw)
        jobs = []
        for delivered, update, sent, line in zip(new, updates, raw, lines, strict=True):
            if (of_album := album(sent)) is not None:
                self._window.join(delivered, of_album)
            refused: Exception | None = None
            if isinstance(update, UpdateUnreadable):
                refused, update = update, Update(update_id=delivered.update_id)
            elif crashes := self._too_often(delivered.update_id):
                refused = CrashedTooOften(f"it was being handled in {crashes} crashes of this instance")
            urgent = line is None and not self._is_limited and is_urgent(sent)
            jobs.append(Job(delivered, update, line, urgent=urgent, refused=refused))
        return jobs

    def _lines(self, updates: Sequence[Update | UpdateUnreadable], raw: Sequence[Raw]) -> Sequence[Hashable]:
        """What each of these is in order with; None: with nothing."""
        if self._rules.sequential or (self._rules.order == "none" and not self._notes.crashes):
            return [None] * len(raw)
        ids = [sent["update_id"] for sent in raw]
        lines = [self._line(update, sent) for update, sent in zip(updates, raw, strict=True)]
        for update_id, line in zip(ids, lines, strict=True):
            if self._notes.crashes.get(update_id, 0) >= SUSPECTED:
                self._suspects.add(update_id if line is None else line)
        return [
            SUSPECTS if (update_id if line is None else line) in self._suspects else line
            for update_id, line in zip(ids, lines, strict=True)
        ]

    def _line(self, update: Update | UpdateUnreadable, raw: Raw) -> Hashable:
        if self._rules.order == "none" or is_urgent(raw):
            return None
        if self._rules.order == "member" and isinstance(update, Update):
            return dialogue(self._dispatcher, self._bot, update)
        return "chat", conversation(raw)

    def _too_often(self, update_id: int) -> int:
        crashes = self._notes.crashes.get(update_id, 0)
        return crashes if crashes >= GIVEN_UP else 0

    def _finished(self, delivered: Delivered) -> None:
        self._pace.finished(moved=self._window.finish(delivered))

    async def _drain(self, limit: float) -> None:
        """End the handlers in good order. What has not started is not started: the next leader does it, unless it is
        confirmed already and would be lost."""
        at_least_once = self._rules.delivery == "at_least_once"
        until = clock.now() + limit
        self._handling.close(drop_waiting=at_least_once)
        if await self._handling.idle(limit):
            await self._drain_spawned(until)
            return
        cancelled = self._handling.running + (0 if at_least_once else self._handling.waiting)
        log.warning("bot %d: %d handlers are cancelled at the drain limit, %g s", self._bot.id, cancelled, limit)
        if not at_least_once:
            self._facts.given_up += cancelled
        self._handling.cancel()
        # Without a limit: the lock is not given away while a handler runs, and whoever gave us the term has the limit.
        await self._handling.idle()
        await self._drain_spawned(until)

    async def _drain_spawned(self, until: float) -> None:
        """What handlers have spawned has the same time as they."""
        cut = await self._term.drain(until - clock.now())
        if cut:
            log.warning(
                "bot %d: %d tasks that were spawned under the term are cancelled at the drain limit, %g s: %s. One"
                " without an end is not waited for: term.spawn(..., drains=False)",
                *(self._bot.id, len(cut), self._rules.timing.drain, ", ".join(sorted(map(_what, cut)))),
            )
            await asyncio.wait(cut, timeout=self._rules.timing.cancel_grace)

    def _left_over(self) -> dict[str, Any]:
        if self._held and not self._is_unsure():
            # Telegram was not even asked to confirm them: they come again.
            return {"offset": self._held[0].delivered.update_id, "done": []}
        if self._held:
            self._facts.given_up += len(self._held)
            log.warning(
                "bot %d: nobody knows whether %d updates were confirmed: not handled (delivery: at_most_once)",
                self._bot.id,
                len(self._held),
            )
        cut_off = self._window.cut_off
        return {**self._window.handover(), **({"cut_off": cut_off} if cut_off else {})}

    async def _confirm(self, until: float) -> None:
        """Tell Telegram what is finished, where nobody else will.

        The heir's first getUpdates confirms, by what we hand over; a confirmation of our own could come late, be
        taken for a repetition of his (same offset within 3 s) and end his poll. Without an heir what we leave behind
        may never be read: the store may be lost, the next poller may know no lock. So then, and only if that offset
        never went out.
        """
        offset = self._window.offset
        if self._term.heir is not None or self._held or offset is None or offset == self._window.sent:
            return
        limit = min(CONFIRM_LIMIT, until - clock.now())
        if limit <= 0 or not may_poll(self._term):
            return
        asking = asyncio.ensure_future(self._fetcher.get_updates(offset, timeout=0.0, limit=1))
        try:
            await asyncio.wait([asking], timeout=limit)
        finally:
            self._fetcher.abort()
            await finish(end([asking]))
        if asking.cancelled() or asking.exception() is not None:
            error = TimeoutError() if asking.cancelled() else asking.exception() or TimeoutError()
            log.info(
                "bot %d: Telegram did not answer the last confirmation, up to %d updates may come again: %s",
                self._bot.id,
                len(self._window),
                describe(error, self._bot.token),
            )

    async def _say_step_down(self, limit: float) -> None:
        call = self._rules.on_step_down
        if call is None or not self._was_elected:
            return
        self._was_elected = False
        try:
            async with asyncio.timeout(limit):
                await call(self._bot, self._term)
        except Exception:
            log.exception("bot %d: on_step_down failed", self._bot.id)

    async def _end(self) -> None:
        await self._say_step_down(self._rules.timing.stop_time / 2)
        await self._handling.idle()


def _what(task: asyncio.Task[Any]) -> str:
    work = task.get_coro()
    return getattr(work, "__qualname__", None) or task.get_name()


def starting_window(term: Term, done: Iterable[int] = ()) -> Window:
    """Go on where a leader left off that stepped down. After one that was lost nobody knows; Telegram does. `done`:
    what is known to be finished all the same."""
    return Window(finished=done) if term.origin is Origin.FOUND_FREE else inherited_window(term.inherited, done)


def may_poll(term: Term) -> bool:
    """The first and the last of the four checks of the lease: before each getUpdates, the final confirmation among
    them. A stale one would take the new leader's place, and its offset would confirm what nobody handled."""
    return term.is_valid()


def may_dispatch(term: Term) -> bool:
    """The second check: right after the answer. A loop that was blocked past the deadline wakes up with an answer
    ready, in the same step in which its timers find out."""
    return term.is_valid()
