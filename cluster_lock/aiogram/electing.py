"""`on_elected`, for a limited time: a bot whose hook fails or hangs steps down, and leaves the others alone."""

from __future__ import annotations

import asyncio
import logging

from aiogram import Bot
from aiogram.exceptions import TelegramUnauthorizedError

from cluster_lock.aio import Backoff, end, finish
from cluster_lock.election import Term

from .classify import describe
from .recovery import refused_again
from .rules import OnTerm

log = logging.getLogger("cluster_lock.aiogram")

ELECTED_WITHIN = 30.0
"""Seconds for the hook."""
COOL_DOWN = 5.0, 60.0
"""Seconds without contending after a first failure, doubled after each further one in a row, and at most."""


class Electing:
    """The hook of one bot, over all of its terms."""

    def __init__(self, hook: OnTerm) -> None:
        self._hook = hook
        self._cool_down = Backoff(*COOL_DOWN, jitter=0.0)

    async def __call__(self, bot: Bot, term: Term) -> None:
        """Run the hook; return when it has, or when the step-down has begun that its failure asked for."""
        work = term.spawn(_call(self._hook, bot, term))
        try:
            await asyncio.wait([work], timeout=ELECTED_WITHIN)
        except asyncio.CancelledError:
            await finish(end([work]))
            raise
        if not work.done():
            work.cancel()
            await self._step_down(
                bot,
                term,
                f"on_elected had not returned after {ELECTED_WITHIN:g} s, and was cancelled; what takes longer is a"
                " task, term.spawn(...)",
            )
            return
        error = asyncio.CancelledError() if work.cancelled() else work.exception()
        if error is None:
            self._cool_down.reset()
        elif isinstance(error, Exception | asyncio.CancelledError):
            if isinstance(error, TelegramUnauthorizedError):
                await refused_again(bot)
            log.error("bot %d: on_elected failed: %s", bot.id, describe(error, bot.token), exc_info=error)
            await self._step_down(bot, term, f"on_elected failed: {type(error).__name__}")
        else:
            raise error  # it ends the process

    async def _step_down(self, bot: Bot, term: Term, reason: str) -> None:
        cool_down = self._cool_down.next()
        log.error("bot %d: %s: stepping down, and not contending for %g s", bot.id, reason, cool_down)
        term.step_down(reason, cool_down=cool_down)
        await term.wait_step_down()


async def _call(hook: OnTerm, bot: Bot, term: Term) -> None:
    await hook(bot, term)
