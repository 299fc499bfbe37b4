"""The end of a term in good order: end the handlers, say what is left over, confirm what is finished."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from aiogram import Bot

from cluster_lock import clock
from cluster_lock.aio import end, finish
from cluster_lock.election import Term

from .classify import describe
from .fetching import Fetcher
from .handling import Handling
from .job import QueuedUpdate
from .lease_checks import may_poll
from .rules import Rules
from .state import Facts
from .window import Window

log = logging.getLogger("cluster_lock.aiogram")

CONFIRM_LIMIT = 2.0
"""Seconds for a getUpdates that only confirms."""


class Draining:
    """For one term. `held`, with delivery at most once: what was delivered, is not confirmed and so is not handled."""

    def __init__(
        self, bot: Bot, term: Term, rules: Rules, facts: Facts, window: Window, handling: Handling, fetcher: Fetcher
    ) -> None:
        self._bot, self._term, self._rules, self._facts = bot, term, rules, facts
        self._window, self._handling, self._fetcher = window, handling, fetcher

    async def drain(self, limit: float) -> None:
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
        # Without a limit: the lock is not given away while a handler runs, and the giver of the term has the limit.
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

    def left_over(self, held: Sequence[QueuedUpdate], *, is_unsure: bool) -> dict[str, Any]:
        """For the next leader. `is_unsure`: Telegram was asked to confirm what is held, and may have."""
        if held and not is_unsure:
            # Telegram was not even asked to confirm them: they come again.
            return {"offset": held[0].delivered.update_id, "done": []}
        if held:
            self._facts.given_up += len(held)
            log.warning(
                "bot %d: nobody knows whether %d updates were confirmed: not handled (delivery: at_most_once)",
                self._bot.id,
                len(held),
            )
        cut_off = self._window.cut_off
        return {**self._window.handover(), **({"cut_off": cut_off} if cut_off else {})}

    async def confirm(self, until: float, held: Sequence[QueuedUpdate]) -> None:
        """Tell Telegram what is finished, where nobody else will.

        The heir's first getUpdates confirms, by what we hand over; a confirmation of our own could come late, be
        taken for a repetition of its own (same offset within 3 s) and end its poll. Without an heir what we leave
        behind may never be read: the store may be lost, the next poller may know no lock. So then, and only if that
        offset never went out.
        """
        offset = self._window.offset
        if self._term.heir is not None or held or offset is None or offset == self._window.sent:
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


def _what(task: asyncio.Task[Any]) -> str:
    work = task.get_coro()
    return getattr(work, "__qualname__", None) or task.get_name()
