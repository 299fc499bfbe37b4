"""What aiogram's users expect of a handler, and of how many run at once."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from dataclasses import replace
from typing import Any

import pytest
from aiogram import Bot, Dispatcher, Router
from aiogram.methods import SendMessage
from aiogram.types import Message
from support import aio
from support.polling import BOT, QUICK_TIMES, polling, until

from cluster_lock.aiogram.rules import Rules
from cluster_lock.testing.telegram import TelegramSimulator


@pytest.mark.parametrize(("rules", "most"), [(Rules(max_concurrent=3), 3), (Rules(sequential=True), 1)])
async def test_so_many_handlers_at_once_and_no_more(rules: Rules, most: int) -> None:
    """max_concurrent bounds the handlers over all chats; sequential runs one at a time, in order of delivery."""
    now, highest = 0, 0

    async def work(message: Any, **data: Any) -> None:
        nonlocal now, highest
        now += 1
        highest = max(highest, now)
        await asyncio.sleep(0.01)
        now -= 1

    async with TelegramSimulator(strict=True) as simulator, polling(simulator, work, rules=rules) as it:
        ids = simulator.push_many(BOT, 30, chats=range(1, 11))
        await it.handled.until(lambda: len(it.handled.finished) == 30)
        assert highest == most
        if most == 1:
            assert it.handled.ids == ids


async def test_a_method_that_a_handler_returns_is_sent() -> None:
    """A handler may return a Telegram method, as with aiogram; when Telegram refuses it, that is logged and no more."""

    async def work(message: Any, **data: Any) -> Any:
        return SendMessage(chat_id=message.chat.id, text="yes" if message.text == "1" else "")

    async with TelegramSimulator() as simulator, polling(simulator, work) as it:
        simulator.push_many(BOT, 2)
        await until(lambda: simulator.oracle.report().pending == 0)
        assert [call.arguments.get("text") for call in simulator.calls("sendMessage")] == ["yes", None]
        assert (it.poller.state.handled, it.poller.state.failed) == (2, 0)


def test_each_handler_has_a_context_of_its_own() -> None:
    """What a handler puts into a context variable is not seen by the next one of the same chat."""
    variable = contextvars.ContextVar("variable", default="nothing")
    seen: list[str] = []

    async def main() -> None:
        async def work(message: Any, **data: Any) -> None:
            seen.append(variable.get())
            variable.set(message.text)

        async with TelegramSimulator() as simulator, polling(simulator, work) as it:
            simulator.push_many(BOT, 3)
            await it.handled.until(lambda: len(it.handled.finished) == 3)

    aio.run(main())
    assert seen == ["nothing"] * 3


async def test_a_cancelled_error_out_of_a_handler_is_a_failed_handler() -> None:
    """A handler that lets out the CancelledError of something it awaited has failed; its chat goes on."""

    async def work(message: Any, **data: Any) -> None:
        if message.text == "1":
            raise asyncio.CancelledError

    async with TelegramSimulator() as simulator, polling(simulator, work) as it:
        simulator.push_many(BOT, 2)
        await until(lambda: simulator.oracle.report(drained=False).pending == 0)
        assert (it.poller.state.handled, it.poller.state.failed) == (1, 1)


async def test_error_handlers_and_middlewares_of_the_dispatcher_work() -> None:
    """An update goes through everything that the user registered: middlewares, filters, error handlers, live data."""
    dispatcher = Dispatcher(greeting="hello")
    seen: list[Any] = []

    async def middleware(handler: Any, event: Any, data: dict[str, Any]) -> Any:
        seen.append(data["fencing_token"])
        return await handler(event, data)

    dispatcher.update.outer_middleware.register(middleware)

    @dispatcher.message()
    async def handler(message: Message, greeting: str, own: str, bot: Bot) -> None:
        seen.extend((greeting, own, bot.id, message.bot is bot))
        raise ValueError("caught below")

    @dispatcher.errors()
    async def on_error(event: Any) -> bool:
        seen.append(str(event.exception))
        return True

    rules = Rules(data={"own": "data"})
    async with TelegramSimulator() as simulator, polling(simulator, dispatcher=dispatcher, rules=rules) as it:
        dispatcher["greeting"] = "changed while it runs"
        simulator.push(BOT)
        await until(lambda: it.poller.state.handled == 1)
    assert seen == [7, "changed while it runs", "data", BOT, True, "caught below"]


async def test_only_the_kinds_that_are_asked_for_come() -> None:
    """allowed_updates goes to Telegram with each getUpdates."""
    rules = Rules(allowed_updates=["callback_query"])
    async with TelegramSimulator() as simulator, polling(simulator, rules=rules):
        await until(lambda: simulator.bot(BOT).parked is not None)
        assert simulator.push(BOT) is None
        assert simulator.push(BOT, kind="callback_query") is not None


async def test_the_term_is_not_over_while_a_handler_runs_in_a_thread() -> None:
    """A sync handler runs in a thread that nobody can cancel: the body waits for its real end, result or not."""
    begun, release, ended = threading.Event(), threading.Event(), threading.Event()
    dispatcher = Dispatcher()

    def sync_handler(message: Message) -> Any:
        if message.text == "2":
            begun.set()
            release.wait()
            ended.set()
        return SendMessage(chat_id=message.chat.id, text="done")

    dispatcher.include_router(router := Router())
    router.message.register(sync_handler)
    async with TelegramSimulator() as simulator, polling(simulator, dispatcher=dispatcher) as it:
        simulator.push(BOT)
        await until(lambda: len(simulator.calls("sendMessage")) == 1)
        simulator.push(BOT)
        await until(begun.is_set)
        losing = asyncio.ensure_future(it.lose())
        await asyncio.wait([losing], timeout=0.3)
        assert not losing.done()
        release.set()
        await losing
        assert ended.is_set()
        assert len(simulator.calls("sendMessage")) == 1


async def test_a_handler_in_a_thread_is_given_up_at_its_time_limit() -> None:
    """The update of a sync handler that does not come back is confirmed at the limit all the same."""
    release = threading.Event()
    dispatcher = Dispatcher()
    dispatcher.message.register(lambda message: release.wait() and None)
    times = replace(QUICK_TIMES, handler_timeout=0.2)
    async with TelegramSimulator() as simulator, polling(simulator, dispatcher=dispatcher, times=times) as it:
        simulator.push(BOT)
        await until(lambda: it.poller.state.timed_out == 1)
        await until(lambda: simulator.oracle.report(drained=False).pending == 0)
        release.set()
