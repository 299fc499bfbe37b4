"""The guarded poller: what a `Leadership` runs for one bot, in every term of its lock."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aiogram import Bot, Dispatcher
from aiogram.exceptions import TelegramNetworkError
from aiogram.methods import GetMe

from cluster_lock import clock
from cluster_lock.election import Term
from cluster_lock.telegram.locks import telegram_lock
from cluster_lock.telegram.poller_state import PollerState

from .electing import Electing
from .rules import Rules
from .state import Facts
from .term_work import TermWork
from .threads import await_threads_of

log = logging.getLogger("cluster_lock.aiogram")

REACHED_FOR = 20.0
"""Seconds for which an earlier look at Telegram counts."""


class Poller:
    """Polls one bot while a term lasts. `await leadership.lead(poller.lock, poller.run, answer=poller.answer)`."""

    def __init__(self, dispatcher: Dispatcher, bot: Bot, rules: Rules | None = None) -> None:
        self.bot = bot
        self.lock = lock_name(bot)
        self._dispatcher = dispatcher
        await_threads_of(dispatcher)
        rules = rules or Rules()
        self._rules = rules if rules.on_elected is None else replace(rules, on_elected=Electing(rules.on_elected))
        self._facts = Facts(bot.id, self.lock, self._rules.times.poll_timeout)
        self._looking: asyncio.Task[bool] | None = None
        self._looked: tuple[float, bool] | None = None

    @property
    def state(self) -> PollerState:
        """What the poller does and did; cheap."""
        return self._facts.snapshot()

    async def run(self, term: Term) -> None:
        """The body of a term.

        Polls until the term is asked to step down; then finishes what is under way within `drain` + `cancel_grace`
        seconds, leaves `offset` and `done` in `term.handover`, and returns. When it is cancelled (the lease is lost) it
        ends at once and confirms nothing. In both cases it returns only when no handler runs any more.
        Raises TelegramTokenRefused and ConflictPersists.
        """
        work = TermWork(self._dispatcher, self.bot, term, self._rules, self._facts)
        log.info("bot %d: polling, fencing token %d", self.bot.id, term.fencing_token)
        try:
            await work.run()
        finally:
            log.info("bot %d: not polling any more", self.bot.id)

    async def answer(self) -> Mapping[str, Any]:
        """For a leader that looks for an heir: whether we reach Telegram. Answers in time and never raises; what takes
        longer than the invitation allows is known by the next one. It also opens the connection that an heir needs."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(self._look())
        await asyncio.wait([self._looking], timeout=self._rules.timing.invite * 0.6)
        if self._looking.done() and not self._looking.cancelled():
            return {"telegram": self._looking.result()}
        recent = self._looked is not None and clock.now() - self._looked[0] < REACHED_FOR and self._looked[1]
        return {"telegram": recent}

    async def close(self) -> None:
        """End what may still be under way outside of a term."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])

    async def _look(self) -> bool:
        try:
            async with asyncio.timeout(self._rules.timing.request):
                await self.bot(GetMe(), request_timeout=max(1, int(self._rules.timing.request)))
        except (TelegramNetworkError, OSError):
            reached = False
        except Exception as error:  # noqa: BLE001 - any answer, however bad, is an answer of Telegram's
            log.debug("bot %d: Telegram is reached, and says %s", self.bot.id, type(error).__name__)
            reached = True
        else:
            reached = True
        self._looked = clock.now(), reached
        return reached


def lock_name(bot: Bot) -> str:
    """The lock of a bot: its public id, never its token, so that it survives a new token. Telegram's test environment
    has queues of its own."""
    is_test = bot.session.api.api_url(token="0", method="getMe").endswith("/test/getMe")
    return telegram_lock(bot.id, test=is_test)
