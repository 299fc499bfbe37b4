"""The work of one term: poll, hand updates to their handlers, stop in good order or at once."""

from __future__ import annotations

import asyncio
import logging

from aiogram import Bot, Dispatcher

from cluster_lock import clock
from cluster_lock.aio import end, finish
from cluster_lock.election import Term
from cluster_lock.errors import LockLost
from cluster_lock.host.at_exec import at_exec
from cluster_lock.telegram.errors import RequestUnguarded

from .classify import describe
from .crashes import CrashNotes
from .draining import Draining
from .early import Early
from .fetching import Fetcher
from .handling import Handling
from .http_session import Raw
from .intake import Intake
from .job import QueuedUpdate
from .lease_checks import may_dispatch, may_poll
from .pace import PollingPace
from .reading import Cut, read
from .recovery import Recovery
from .rules import Rules
from .state import Facts
from .window import LIMIT, Delivered, starting_window

log = logging.getLogger("cluster_lock.aiogram")

REPEAT_LIMIT = 5.0
"""Seconds for a getUpdates that confirms and may be a repetition: Telegram stretches that to 3 s (Client.cpp:15714)."""


class TermWork:
    """Made for one term, run once."""

    def __init__(self, dispatcher: Dispatcher, bot: Bot, term: Term, rules: Rules, facts: Facts) -> None:
        self._bot, self._term, self._rules, self._facts = bot, term, rules, facts
        self._notes = CrashNotes(rules.crash_notes(bot.id) if rules.crash_notes is not None else None)
        self._window = starting_window(term, self._notes.done)
        self._handling = Handling(dispatcher, bot, term, rules, facts, self._finished, self._exits, self._notes)
        self._fetcher = Fetcher(bot, term, rules.timing, rules.allowed_updates, lambda raw: read(raw, bot))
        self._intake = Intake(dispatcher, bot, rules, self._window, self._notes)
        self._draining = Draining(bot, term, rules, facts, self._window, self._handling, self._fetcher)
        self._recovery = Recovery(bot, term, rules, facts)
        self._early = Early(bot.id, self._window, facts, self._handling.confirmed_early)
        self._pace = PollingPace(bot.id, self._window, facts, self._relieve)
        self._cut = Cut()
        self._held: list[QueuedUpdate] = []
        """Delivery at most once: not confirmed yet, so not handled yet."""
        self._was_elected = False
        self._asked_at = 0.0

    async def run(self) -> None:
        """Return when the term was asked to end and everything has been handled, handed over or given back.

        Cancelled (the lease is lost): end at once, confirm nothing, and return only when no handler runs any more.
        """
        self._facts.begin(self._window)
        self._handling.end_with(asyncio.current_task())
        not_at_exec = at_exec(self._leave)
        try:
            await self._lead_until_step_down()
            drained = self._asked_at + self._rules.timing.drain
            until = drained + self._rules.timing.cancel_grace
            await self._draining.drain(max(0.0, drained - clock.now()))
            await self._draining.confirm(until, self._held)
            await finish(self._say_step_down(max(0.5, until - clock.now())))
        finally:
            self._facts.end()
            self._handling.cancel()
            await finish(self._end())
            if self._term.ended is None:  # it is not lost: somebody goes on from here, in whatever way this was ended
                self._term.handover.update(self._draining.left_over(self._held, is_unsure=self._is_unsure()))
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

    def _exits(self, delivered: Delivered) -> None:
        """A handler ends the process, as a /restart does: that is the end of its update, which would otherwise come
        again, and end the next process too. What else was under way comes again."""
        self._finished(delivered)
        log.info("bot %d: update %d ends with this process", self._bot.id, delivered.update_id)
        if self._rules.delivery == "at_least_once":
            self._term.handover.update(self._window.handover())

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
        """The lease was not renewed in time by our own look at the clock. The giver of the term cancels us, or has a
        renewal in hand that we could not see; either way nothing is sent or started now."""
        with self._facts.waiting("the lease was not renewed in time"):
            while not self._term.is_valid():  # noqa: ASYNC110 - time passes, and that tells nobody
                await asyncio.sleep(0.05)

    async def _ask(self) -> list[Raw] | None:
        """One getUpdates. None if it failed, after the wait that its failure asks for."""
        timeout = 0.0 if self._held else self._rules.times.poll_timeout
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
            self._handling.redelivery.failed()
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
        jobs = self._intake.jobs(new, raw, self._fetcher.updates(delivered.update_id for delivered in new))
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

    def _finished(self, delivered: Delivered) -> None:
        self._pace.finished(moved=self._window.finish(delivered))

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
