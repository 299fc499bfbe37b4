"""A stop while a plain handler, which nobody can cancel, works in its thread."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import pytest
from aiogram import Dispatcher
from aiogram.types import Message
from support.aio import PATIENCE
from support.polling import BOT, QUICK, polling, until

from cluster_lock.testing.telegram import TelegramSimulator


async def test_a_plain_handler_that_outlives_the_drain_has_handled_its_update(caplog: pytest.LogCaptureFixture) -> None:
    """Its end is waited for, and then its update is left to the heir as done: it does not come again."""
    begun, release = threading.Event(), threading.Event()
    dispatcher = Dispatcher(disable_fsm=True)

    def plain(message: Message) -> None:
        begun.set()
        release.wait(PATIENCE)

    dispatcher.message.register(plain)
    timing = replace(QUICK, drain=0.05)
    async with TelegramSimulator() as simulator, polling(simulator, dispatcher=dispatcher, timing=timing) as it:
        update_id = simulator.push(BOT)
        assert update_id is not None
        await until(begun.is_set)
        ending = asyncio.ensure_future(it.step_down("heir"))
        await until(lambda: "cancelled at the drain limit" in caplog.text)
        assert not ending.done()
        release.set()
        handover = await ending
        assert handover == {"offset": update_id + 1, "done": []}
