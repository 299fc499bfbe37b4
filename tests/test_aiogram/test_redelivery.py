"""`redelivered`: whether an update may have been handled before."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from math import inf
from typing import Any

from aiogram.types import Message
from support.polling import BOT, QUICK, polling

from cluster_lock.aiogram.redelivery import Redelivery
from cluster_lock.election import Term
from cluster_lock.testing.telegram import TelegramSimulator
from cluster_lock.values import Origin


async def test_what_was_cut_off_is_told_to_the_next_leader() -> None:
    """The update whose handler was cut off at the hand-over is redelivered there, and one that had not begun is not."""
    told: dict[str, bool] = {}
    cut, go_on = asyncio.Event(), asyncio.Event()

    async def work(message: Message, *, redelivered: bool, **data: Any) -> None:
        assert message.text is not None
        told[message.text] = redelivered
        if message.text == "slow":
            cut.set()
            await go_on.wait()

    timing = replace(QUICK, drain=0.05)
    async with TelegramSimulator() as simulator, polling(simulator, work, timing=timing) as it:
        simulator.push(BOT, chat_id=1, text="slow")
        await cut.wait()
        handover = await it.step_down("heir")
        go_on.set()
        simulator.push(BOT, chat_id=1, text="new")
        it.next_term(origin=Origin.HANDED_OVER, inherited=handover, timing=timing)
        await it.handled.until(lambda: len(it.handled.finished) == 2)
    assert told == {"slow": True, "new": False}


async def test_after_a_leader_that_was_lost_all_that_waits_may_have_been_handled() -> None:
    """In a term that was not handed over the updates of the first answer are redelivered, and no later ones."""
    for origin in (Origin.FOUND_FREE, Origin.RELEASED):
        told: list[bool] = []

        async def work(message: Message, *, told: list[bool] = told, redelivered: bool, **data: Any) -> None:
            told.append(redelivered)

        async with TelegramSimulator() as simulator:
            simulator.push_many(BOT, 2, chats=[1, 2])
            async with polling(simulator, work, origin=origin) as it:
                await it.handled.until(lambda it=it: len(it.handled.finished) == 2)  # type: ignore[misc]
                simulator.push(BOT)
                await it.handled.until(lambda it=it: len(it.handled.finished) == 3)  # type: ignore[misc]
        assert told == [True, True, False]


def test_an_answer_after_a_failure_is_not_all() -> None:
    """After a first getUpdates that failed Telegram may answer with one update alone: what comes with the next answer
    waited too, and is redelivered."""
    term = Term("x", 1, Origin.FOUND_FREE, {}, stop_at=lambda: inf, stop_time=1, verify=never)
    redelivery = Redelivery(term)
    redelivery.failed()
    redelivery.answered([1])
    redelivery.answered([1, 2, 3])
    redelivery.answered([4])
    assert [number in redelivery for number in (1, 2, 3, 4)] == [True, True, True, False]


async def never() -> None:
    raise AssertionError("nobody asks")
