"""`on_elected` has a time, and its failure is that of one bot."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiogram import Bot
from support import aio
from support.leadership_double import TermDouble
from support.polling import BOT, client_bot, polling

from cluster_lock.aiogram import electing
from cluster_lock.aiogram.electing import Electing
from cluster_lock.aiogram.rules import Rules
from cluster_lock.election import Term
from cluster_lock.telegram.errors import TelegramTokenRefused
from cluster_lock.testing.telegram import TelegramSimulator


async def failing(bot: Bot, term: Term) -> None:
    raise RuntimeError("set_my_commands: flood")


async def hanging(bot: Bot, term: Term) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("hook", "reason"),
    [(failing, "on_elected failed: RuntimeError"), (hanging, "on_elected had not returned after 0.05 s")],
)
def test_a_bot_whose_hook_does_not_work_steps_down(hook: Any, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook that fails, or hangs, ends the term in good order, without a poll and without an error of the body, and
    the bot is left to others for a while."""

    async def main() -> None:
        async with TelegramSimulator() as simulator, polling(simulator, rules=Rules(on_elected=hook)) as it:
            request = await it.double.term.wait_request()
            assert request.reason.startswith(reason)
            assert request.cool_down == 5
            await it.step_down()
            assert simulator.oracle.polls() == []

    monkeypatch.setattr(electing, "ELECTED_WITHIN", 0.05)
    aio.run(main())


async def test_it_backs_off() -> None:
    """Each failure in a row doubles the time for which the bot does not contend, up to a minute; a success forgets
    them."""
    fails = True

    async def hook(bot: Bot, term: Term) -> None:
        if fails:
            raise RuntimeError("not yet")

    elect = Electing(hook)
    bot = Bot("42:TOKEN")

    async def cool_down() -> float:
        double = TermDouble()
        work = asyncio.ensure_future(elect(bot, double.term))
        request = await double.term.wait_request()
        double.term.begin_step_down()
        await work
        return request.cool_down

    assert [await cool_down() for _ in range(6)] == [5, 10, 20, 40, 60, 60]
    fails = False
    await elect(bot, TermDouble().term)
    fails = True
    assert await cool_down() == 5


async def test_a_refused_token_is_no_failure_of_the_hook() -> None:
    """A hook that Telegram answers with 401, and says so again when it is asked who the bot is, ends the bot as one
    with a refused token."""
    async with TelegramSimulator() as simulator, client_bot(simulator) as bot:
        simulator.revoke(BOT)

        async def hook(bot: Bot, term: Term) -> None:
            await bot.set_my_commands([])

        with pytest.raises(TelegramTokenRefused, match="bot 42"):
            await Electing(hook)(bot, TermDouble().term)


async def test_what_ends_the_term_ends_the_hook() -> None:
    """A hook that runs when the lease is lost has ended when the body has."""
    ended = began = False

    async def hook(bot: Bot, term: Term) -> None:
        nonlocal ended, began
        began = True
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended = True

    async with TelegramSimulator() as simulator, polling(simulator, rules=Rules(on_elected=hook)) as it:
        await aio.until(lambda: began)
        await it.lose()
        assert ended
