"""Order within a chat, work side by side between chats, and what aiogram's users expect of a handler."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from aiogram import Bot, Dispatcher, Router
from aiogram.methods import SendMessage
from aiogram.types import Message
from support import aio
from support.polling import BOT, QUICK, polling, until

from cluster_lock.aiogram.handling import conversation
from cluster_lock.aiogram.rules import Rules
from cluster_lock.testing.telegram import TelegramSimulator

CHAT, USER = {"id": 5, "type": "private"}, {"id": 6, "is_bot": False, "first_name": "x"}


@pytest.mark.parametrize(
    ("update", "key"),
    [
        ({"message": {"chat": CHAT, "from": USER}}, 5),
        ({"edited_channel_post": {"chat": CHAT}}, 5),
        ({"callback_query": {"from": USER, "message": {"chat": CHAT}}}, 5),
        ({"callback_query": {"from": USER, "inline_message_id": "1"}}, 6),
        ({"inline_query": {"from": USER, "query": ""}}, 6),
        ({"chat_member": {"chat": CHAT, "from": USER}}, 5),
        ({"message_reaction": {"chat": CHAT, "user": USER}}, 5),
        ({"poll_answer": {"poll_id": "1", "user": USER}}, 6),
        ({"poll_answer": {"poll_id": "1", "voter_chat": CHAT}}, 5),
        ({"poll": {"id": "1"}}, ("update", 9)),
        ({"something_new": {"chat": CHAT}}, 5),
        ({"something_new": "a word"}, ("update", 9)),
        ({}, ("update", 9)),
    ],
)
def test_what_keeps_updates_in_order(update: dict[str, Any], key: object) -> None:
    """The chat, else whoever sent it, else the update stands for itself; for kinds that aiogram does not know, too."""
    assert conversation({"update_id": 9, **update}) == key


def test_one_chat_is_in_order_and_chats_are_side_by_side() -> None:
    """Handlers of one chat never overlap and start in order; those of others do not wait for them."""

    async def main() -> None:
        async def work(message: Any, **data: Any) -> None:
            await asyncio.sleep(0.02)

        async with TelegramSimulator(strict=True) as simulator, polling(simulator, work) as it:
            simulator.push_many(BOT, 60, chats=range(1, 7))
            await it.handled.until(lambda: len(it.handled.finished) == 60)
            for chat in range(1, 7):
                runs = [run for run in it.handled.runs if run.chat == chat]
                assert [run.text for run in runs] == [str(number) for number in range(1, 11)]
                for earlier, later in pairwise(runs):
                    assert earlier.end is not None
                    assert earlier.end <= later.start
            took = max(run.end or 0 for run in it.handled.runs) - it.handled.runs[0].start
            assert took < 60 * 0.02 * 0.8, "the chats were side by side"

    aio.run(main())


def part(chat: int, number: int, album: str | None) -> dict[str, Any]:
    """A message, of an album or on its own."""
    message = {"message_id": number, "date": int(time.time()), "chat": {**CHAT, "id": chat}, "text": str(number)}
    return {"message": {**message, "from": {**USER, "id": chat}, **({"media_group_id": album} if album else {})}}


@pytest.mark.parametrize("most", [100, 2])
def test_the_parts_of_an_album_do_not_wait_for_each_other(most: int) -> None:
    """They begin in order, also one that is delivered later, and as many at once as may be; what comes before, behind
    or between them, and the next album, waits for the ends of all."""

    async def main() -> None:
        release = asyncio.Event()

        async def work(message: Any, **data: Any) -> None:
            if message.text == "1":
                await release.wait()

        rules = Rules(max_concurrent=most)
        async with TelegramSimulator(strict=True) as simulator, polling(simulator, work, rules=rules) as it:
            for number, album in enumerate((None, "a", "a", "a"), start=0):
                simulator.push_raw(BOT, part(5, number, album))
            await it.handled.until(lambda: it.handled.finished == it.handled.ids[:1] + it.handled.ids[2:4])
            for number, album in enumerate(("a", None, "a", "b", "b", None), start=4):
                simulator.push_raw(BOT, part(5, number, album))
            await it.handled.until(lambda: len(it.handled.finished) == 4)
            await until(lambda: it.poller.state.pending == 6)
            assert [run.text for run in it.handled.runs] == ["0", "1", "2", "3", "4"]
            release.set()
            await it.handled.until(lambda: len(it.handled.finished) == 10)
            runs = it.handled.runs
            assert [run.text for run in runs] == [str(number) for number in range(10)]
            for alone in (0, 5, 6, 9):
                assert all(run.end is not None and run.end <= runs[alone].start for run in runs[:alone])
                assert all((runs[alone].end or 0) <= run.start for run in runs[alone + 1 :])
            await until(lambda: simulator.oracle.report().pending == 0)

    aio.run(main())


@pytest.mark.parametrize("how", ["sequential", "two chats", "stuck"])
def test_what_an_album_does_not_change(how: str) -> None:
    """With `sequential` parts wait like all others, another chat's messages are not of the album, and behind a part
    that does not end, though it is out of its time, the chat goes on."""

    async def main() -> None:
        release = asyncio.Event()

        async def work(message: Any, **data: Any) -> None:
            while message.text == "1" and not release.is_set():
                with suppress(asyncio.CancelledError):
                    await release.wait()

        timing = replace(QUICK, handler_timeout=0.3 if how == "stuck" else 30, cancel_grace=0.2)
        rules = Rules(sequential=how == "sequential")
        async with TelegramSimulator() as simulator, polling(simulator, work, rules=rules, timing=timing) as it:
            simulator.push_raw(BOT, part(5, 1, "a"))
            simulator.push_raw(BOT, part(6 if how == "two chats" else 5, 2, "a"))
            simulator.push_raw(BOT, part(5, 3, None))
            await until(lambda: it.poller.state.pending + len(it.handled.finished) >= 3)
            begin = {"sequential": ["1"], "two chats": ["1", "2"], "stuck": ["1", "2", "3"]}[how]
            await it.handled.until(lambda: len(it.handled.runs) == len(begin))
            await it.handled.until(lambda: len(it.handled.finished) == len(begin) - 1)
            assert [run.text for run in it.handled.runs] == begin
            release.set()
            await it.handled.until(lambda: len(it.handled.finished) == 3)
            assert [run.text for run in it.handled.runs] == ["1", "2", "3"]

    aio.run(main())


@pytest.mark.parametrize(("rules", "most"), [(Rules(max_concurrent=3), 3), (Rules(sequential=True), 1)])
def test_so_many_handlers_at_once_and_no_more(rules: Rules, most: int) -> None:
    """max_concurrent bounds the handlers over all chats; sequential runs one at a time, in order of delivery."""

    async def main() -> None:
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

    aio.run(main())


def test_a_method_that_a_handler_returns_is_sent() -> None:
    """A handler may return a Telegram method, as with aiogram; when Telegram refuses it, that is logged and no more."""

    async def main() -> None:
        async def work(message: Any, **data: Any) -> Any:
            return SendMessage(chat_id=message.chat.id, text="yes" if message.text == "1" else "")

        async with TelegramSimulator() as simulator, polling(simulator, work) as it:
            simulator.push_many(BOT, 2)
            await until(lambda: simulator.oracle.report().pending == 0)
            assert [call.arguments.get("text") for call in simulator.calls("sendMessage")] == ["yes", None]
            assert (it.poller.state.handled, it.poller.state.failed) == (2, 0)

    aio.run(main())


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


def test_a_cancelled_error_out_of_a_handler_is_a_failed_handler() -> None:
    """A handler that lets out the CancelledError of something it awaited has failed; its chat goes on."""

    async def main() -> None:
        async def work(message: Any, **data: Any) -> None:
            if message.text == "1":
                raise asyncio.CancelledError

        async with TelegramSimulator() as simulator, polling(simulator, work) as it:
            simulator.push_many(BOT, 2)
            await until(lambda: simulator.oracle.report(drained=False).pending == 0)
            assert (it.poller.state.handled, it.poller.state.failed) == (1, 1)

    aio.run(main())


def test_error_handlers_and_middlewares_of_the_dispatcher_work() -> None:
    """An update goes through everything that the user registered: middlewares, filters, error handlers, live data."""

    async def main() -> None:
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

    aio.run(main())


def test_only_the_kinds_that_are_asked_for_come() -> None:
    """allowed_updates goes to Telegram with each getUpdates."""

    async def main() -> None:
        rules = Rules(allowed_updates=["callback_query"])
        async with TelegramSimulator() as simulator, polling(simulator, rules=rules):
            await until(lambda: simulator.bot(BOT).parked is not None)
            assert simulator.push(BOT) is None
            assert simulator.push(BOT, kind="callback_query") is not None

    aio.run(main())


def test_the_term_is_not_over_while_a_handler_runs_in_a_thread() -> None:
    """A sync handler runs in a thread that nobody can cancel: the body waits for its real end, result or not."""

    async def main() -> None:
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

    aio.run(main())


def test_a_handler_in_a_thread_is_given_up_at_its_time_limit() -> None:
    """The update of a sync handler that does not come back is confirmed at the limit all the same."""

    async def main() -> None:
        release = threading.Event()
        dispatcher = Dispatcher()
        dispatcher.message.register(lambda message: release.wait() and None)
        timing = replace(QUICK, handler_timeout=0.2)
        async with TelegramSimulator() as simulator, polling(simulator, dispatcher=dispatcher, timing=timing) as it:
            simulator.push(BOT)
            await until(lambda: it.poller.state.timed_out == 1)
            await until(lambda: simulator.oracle.report(drained=False).pending == 0)
            release.set()

    aio.run(main())
