"""The bot is not silent for a slow handler: when it would be, that one's update is confirmed before its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from aiogram import Bot
from aiogram.types import Update
from support import aio
from support.polling import BOT, QUICK, polling, until

from cluster_lock.aiogram import CutOff, early
from cluster_lock.aiogram.early import LONG, Early
from cluster_lock.aiogram.rules import Rules
from cluster_lock.aiogram.state import Facts
from cluster_lock.aiogram.window import CROWDED, LIMIT, Delivered, Window
from cluster_lock.testing.telegram import TelegramSimulator
from cluster_lock.testing.virtual_time import block


def window_with(updates: int, began: Callable[[int], float]) -> tuple[Window, list[Delivered], list[int], Early]:
    """A window of so many updates, whose handlers began so many seconds from now."""
    from cluster_lock import clock

    window, told = Window(), list[int]()
    window.ask()
    delivered = window.take(range(1, updates + 1))
    for one in delivered:
        one.began = clock.now() + began(one.update_id)
    facts = Facts(BOT, "telegram/42", 10.0)
    return window, delivered, told, Early(BOT, window, facts, lambda one: told.append(one.update_id))


@pytest.mark.virtual
async def test_from_the_lowest_upward_until_there_is_room() -> None:
    """When the window is about to fill, handlers of more than five seconds are confirmed from the lowest upward, and no
    more of them than it takes."""
    window, _, told, relief = window_with(CROWDED + 3, began=lambda number: -LONG)
    assert relief.relieve(cut=False) is None
    assert (told, window.offset, window.unconfirmed) == ([1, 2, 3, 4], 5, CROWDED - 1)


@pytest.mark.virtual
async def test_one_that_has_not_run_for_long_is_waited_for() -> None:
    """A handler below five seconds is not confirmed, nor is one above it; what is left of the five is said."""
    window, _, told, relief = window_with(CROWDED, began=lambda number: -LONG + (2 if number == 1 else 0))
    assert relief.relieve(cut=False) == pytest.approx(2)
    block(1.5)
    assert relief.relieve(cut=False) == pytest.approx(0.5)
    assert told == []
    block(0.5)
    assert relief.relieve(cut=False) is None
    assert (told, window.offset) == ([1], 2)


@pytest.mark.virtual
async def test_one_that_has_not_started_is_never_confirmed() -> None:
    """An update that waits for its handler holds the window, however full it is and whatever runs above it."""
    window, delivered, told, relief = window_with(LIMIT, began=lambda number: -2 * LONG)
    delivered[0].began = Delivered(0).began
    assert relief.relieve(cut=False) is None
    assert relief.relieve(cut=True) is None
    assert (told, window.offset) == ([], 1)


@pytest.mark.virtual
async def test_while_there_is_room_nothing_is_confirmed_early() -> None:
    """Below eighty an update is confirmed after its handler, however long that takes; unless big ones hide all that is
    new: then it is the lowest."""
    window, _, told, relief = window_with(CROWDED - 1, began=lambda number: -3600)
    assert relief.relieve(cut=False) is None
    assert told == []
    relief.relieve(cut=True)
    assert (told, window.offset) == ([1], 2)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long is what takes 0.3 s."""
    monkeypatch.setattr(early, "LONG", 0.3)


SLOW = "slow"


@pytest.mark.usefixtures("short")
def test_a_slow_handler_silences_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Behind handlers that do not end hundreds of updates are handled; theirs are confirmed, told and counted once, and
    they do not count among those that may run at once."""

    async def main() -> None:
        release = asyncio.Event()

        async def work(message: Any, **data: Any) -> None:
            if message.text == SLOW:
                await release.wait()

        rules = Rules(max_concurrent=2)
        async with TelegramSimulator(strict=True) as simulator, polling(simulator, work, rules=rules) as it:
            slow = [simulator.push(BOT, chat_id=chat, text=SLOW) for chat in (99, 98)]
            await it.handled.until(lambda: it.handled.ids == slow)
            others = simulator.push_many(BOT, 300, chats=range(1, 20))
            await it.handled.until(lambda: set(others) <= set(it.handled.finished))
            await until(lambda: simulator.oracle.report(drained=False).pending == 0)
            state = it.poller.state
            assert (state.confirmed_early, state.early_running, state.pending) == (2, 2, 0)
            assert not state.window_full
            release.set()
            await it.handled.until(lambda: len(it.handled.finished) == 302)
            await until(lambda: it.poller.state.early_running == 0)
            assert it.poller.state.handled == 302
            assert len(it.handled.runs) == 302

    with caplog.at_level(logging.WARNING):
        aio.run(main())
    assert sum("confirmed early" in record.message for record in caplog.records) == 2


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("how", ["ends in the drain", "is cut off", "is lost"])
def test_the_end_of_a_term_for_one_that_was_confirmed_early(how: str, caplog: pytest.LogCaptureFixture) -> None:
    """It counts for the drain. Cut off at its limit, it is told to `on_failed`, as it does not come again; when the
    lock is lost, to the log alone."""

    async def main() -> None:
        release, told = asyncio.Event(), list[tuple[int, type[Exception]]]()

        async def work(message: Any, **data: Any) -> None:
            if message.text == SLOW:
                await release.wait()

        async def on_failed(bot: Bot, update: Update, error: Exception) -> None:
            told.append((update.update_id, type(error)))

        timing = replace(QUICK, drain=0.4 if how == "is cut off" else 5)
        rules = Rules(on_failed=on_failed)
        async with (
            TelegramSimulator(strict=True) as simulator,
            polling(simulator, work, rules=rules, timing=timing) as it,
        ):
            slow = simulator.push(BOT, chat_id=99, text=SLOW)
            others = simulator.push_many(BOT, CROWDED + 10, chats=range(1, 20))
            await until(lambda: it.poller.state.early_running == 1)
            await it.handled.until(lambda: len(it.handled.finished) == len(others))
            if how == "is lost":
                await it.lose()
            else:
                asyncio.get_running_loop().call_later(0.1, release.set if how == "ends in the drain" else int)
                handover = await it.step_down(heir="two")
                assert handover == {"offset": others[-1] + 1, "done": []}
            assert told == ([(slow, CutOff)] if how == "is cut off" else [])
            assert it.poller.state.given_up == (0 if how == "ends in the drain" else 1)
            assert it.poller.state.early_running == 0

    aio.run(main())
    assert any("is lost" in record.message for record in caplog.records) == (how != "ends in the drain")


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(
    "rules", [Rules(window="strict"), Rules(sequential=True), Rules(order="chat")], ids=["strict", "one", "chat"]
)
def test_where_it_would_rather_wait(rules: Rules, caplog: pytest.LogCaptureFixture) -> None:
    """A strict window waits for the slow handler, and so does one in which the others wait for it: it is full, and that
    is said once."""

    async def main() -> None:
        release = asyncio.Event()

        async def work(message: Any, **data: Any) -> None:
            if message.text == SLOW:
                await release.wait()

        async with TelegramSimulator(strict=True) as simulator, polling(simulator, work, rules=rules) as it:
            simulator.push(BOT, chat_id=5, text=SLOW)
            ids = simulator.push_many(BOT, 150, chats=(5,) if rules.order == "chat" else range(1, 20))
            behind = 1 if rules.order == "chat" else 0
            await until(lambda: it.poller.state.window_full and it.poller.state.confirmed_early == behind)
            await until(lambda: it.poller.state.unconfirmed == 100)
            assert it.poller.state.waiting == "the window is full"
            await until(lambda: any("the window is full" in record.message for record in caplog.records))
            release.set()
            await it.handled.until(lambda: len(it.handled.finished) == len(ids) + 1)
            await until(lambda: simulator.oracle.report().pending == 0)
            assert it.poller.state.window_full_for is None

    with caplog.at_level(logging.WARNING):
        aio.run(main())
    full = [record.message for record in caplog.records if "the window is full" in record.message]
    assert len(full) == 1
    assert ("waits for its turn" in full[0]) == (rules.order == "chat")


@pytest.mark.usefixtures("short")
async def test_a_limit_of_the_callers_own_holds_for_all() -> None:
    """With tasks_concurrency_limit a handler whose update was confirmed early goes on to count."""
    release, most, now = asyncio.Event(), 0, 0

    async def work(message: Any, **data: Any) -> None:
        nonlocal most, now
        now += 1
        most = max(most, now)
        if message.text == SLOW:
            await release.wait()
        now -= 1

    rules = Rules(max_concurrent=2, limited=True)
    async with TelegramSimulator() as simulator, polling(simulator, work, rules=rules) as it:
        simulator.push(BOT, chat_id=99, text=SLOW)
        ids = simulator.push_many(BOT, 120, chats=range(1, 20))
        await it.handled.until(lambda: len(it.handled.finished) == len(ids))
        assert it.poller.state.confirmed_early == 1
        assert most == 2
        release.set()
