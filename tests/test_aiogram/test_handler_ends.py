"""However a handler ends, or if it never does: the bot goes on, and what was not handled is not confirmed."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from aiogram import Bot, Dispatcher
from aiogram.types import Message, Update
from support.polling import BOT, QUICK, QUICK_TIMES, polling, until

from cluster_lock.aiogram.rules import Rules
from cluster_lock.testing.telegram import TelegramSimulator


class Panic(BaseException):
    """As pyo3's PanicException: no `except Exception` catches it."""


@pytest.mark.parametrize("how", ["cancelled", "panics"])
async def test_no_end_of_a_handler_leaves_the_bot_deaf(how: str) -> None:
    """A handler whose task the bot's own code cancels, or that raises what is no Exception, has failed: its update is
    confirmed, `on_failed` is told, its chat goes on, and the window does not fill up behind it."""
    tasks: list[asyncio.Task[Any]] = []
    told: list[tuple[int, Exception]] = []

    async def work(message: Message, **data: Any) -> None:
        if message.text == "first" and how == "panics":
            raise Panic("at the disco")
        if message.text == "first":
            task = asyncio.current_task()
            assert task is not None
            tasks.append(task)
            await asyncio.sleep(3600)
        if message.text == "stop that":
            tasks.pop().cancel()

    async def on_failed(bot: Bot, update: Update, error: Exception) -> None:
        told.append((update.update_id, error))

    async with TelegramSimulator() as simulator, polling(simulator, work, rules=Rules(on_failed=on_failed)) as it:
        first = simulator.push(BOT, chat_id=1, text="first")
        assert first is not None
        await it.handled.until(lambda: first in it.handled.ids)
        if how == "cancelled":
            simulator.push(BOT, chat_id=2, text="stop that")
        next_one = simulator.push(BOT, chat_id=1)
        others = simulator.push_many(BOT, 120, chats=range(3, 30))
        await it.handled.until(lambda: {next_one, *others} <= set(it.handled.finished))
        await until(lambda: simulator.oracle.report(drained=False).pending == 0)
        assert [update_id for update_id, _ in told] == [first]
        assert (it.poller.state.failed, it.poller.state.timed_out) == (1, 0)
        assert it.handled.ids.count(first) == 1


@pytest.mark.parametrize("sequential", [False, True], ids=["by chat", "sequential"])
async def test_a_thread_that_never_comes_back_holds_back_nothing(sequential: bool) -> None:
    """A plain function that hangs is left behind at the end of its time, with its chat's next update and a hundred
    others behind it; the lock is not given away before it has ended."""
    release, handled = threading.Event(), set()
    dispatcher = Dispatcher()

    @dispatcher.message()
    def hangs(message: Message, event_update: Update) -> None:
        if message.text == "hang":
            release.wait(60)
        handled.add(event_update.update_id)

    times = replace(QUICK_TIMES, handler_timeout=0.3)
    rules = Rules(sequential=sequential)
    async with (
        TelegramSimulator() as simulator,
        polling(simulator, dispatcher=dispatcher, times=times, rules=rules) as it,
    ):
        simulator.push(BOT, chat_id=1, text="hang")
        behind = {simulator.push(BOT, chat_id=1), *simulator.push_many(BOT, 120, chats=range(2, 30))}
        await until(lambda: handled == behind)
        await until(lambda: simulator.oracle.report(drained=False).pending == 0)
        losing = asyncio.ensure_future(it.lose())
        with suppress(TimeoutError):
            async with asyncio.timeout(0.3):
                await asyncio.shield(losing)
        assert not losing.done()
        release.set()
        await losing


async def test_a_handler_that_fails_while_it_is_cut_off_is_not_handled() -> None:
    """One that is cancelled at the drain limit and whose clean-up raises has not handled its update: it comes again."""

    async def work(message: Message, **data: Any) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            raise ValueError("another operation is in progress")

    timing = replace(QUICK, drain=0.2)
    async with TelegramSimulator() as simulator, polling(simulator, work, timing=timing) as it:
        cut_off = simulator.push(BOT)
        await it.handled.until(lambda: cut_off in it.handled.ids)
        handover = await it.step_down(heir="two")
        assert handover == {"offset": cut_off, "done": [], "cut_off": [cut_off]}
        assert simulator.oracle.report(drained=False).pending == 1
