"""Acknowledge after handling, and recognise what comes again."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import pytest
from aiogram import Bot
from aiogram.types import Update
from support import aio
from support.polling import BOT, QUICK, QUICK_TIMES, Handled, polling, until

from cluster_lock.aiogram import UpdateUnreadable
from cluster_lock.aiogram.rules import Rules
from cluster_lock.testing.telegram import Fault, TelegramSimulator
from cluster_lock.values import Origin


async def test_handled_updates_are_confirmed_and_nothing_else_is() -> None:
    """Every update is handled once, in order within its chat, and confirmed only after its handler has ended."""
    async with TelegramSimulator(strict=True) as simulator, polling(simulator) as it:
        ids = simulator.push_many(BOT, 250, chats=range(1, 11))
        await it.handled.until(lambda: len(it.handled.finished) == len(ids))
        handover = await it.step_down()
        assert handover == {"offset": ids[-1] + 1, "done": []}
        report = simulator.oracle.report()
        assert (report.updates_handled, report.lost, report.duplicated, report.out_of_order) == (250, 0, 0, 0)
        assert report.pending == 0
        for update in simulator.oracle.updates():
            assert update.acked is not None
            assert update.runs[0].end is not None
            assert update.acked.at >= update.runs[0].end


async def test_a_slow_handler_holds_back_its_own_confirmation_only() -> None:
    """New updates of other chats start within a second beside a slow handler, and nothing from it on is confirmed."""
    release = asyncio.Event()

    async def work(message: Any, **data: Any) -> None:
        if message.text == "slow":
            await release.wait()

    async with TelegramSimulator(strict=True) as simulator, polling(simulator, work) as it:
        slow = simulator.push(BOT, chat_id=99, text="slow")
        await it.handled.until(lambda: it.handled.ids == [slow])
        for number in range(1, 7):
            pushed = simulator.push(BOT, chat_id=number)
            await it.handled.until(partial(is_finished, it.handled, pushed))
        updates = simulator.oracle.updates()
        assert all(update.acked is None for update in updates)
        delays = [update.runs[0].start - update.pushed for update in updates]
        assert sorted(delays)[-2] < 1.2, delays
        assert it.poller.state.waiting == "handlers are at work"
        release.set()
        await until(lambda: simulator.oracle.report().pending == 0)
        assert it.poller.state.redelivered >= 1
        report = simulator.oracle.report()
        assert (report.updates_handled, report.duplicated, report.lost) == (7, 0, 0)


def is_finished(handled: Handled, update_id: int | None) -> bool:
    return update_id in handled.finished


async def test_beside_a_slow_handler_telegram_is_asked_often_and_never_twice_the_same() -> None:
    """Beside a slow handler no getUpdates carries the offset of the one before (Telegram would return a single update),
    and there are at most ten of them a second."""

    async def work(message: Any, **data: Any) -> None:
        await asyncio.sleep(2.5)

    async with TelegramSimulator(strict=True) as simulator, polling(simulator, work) as it:
        first = simulator.push_many(BOT, 3, chats=(1, 2, 3))[0]
        await it.handled.until(lambda: len(it.handled.finished) == 3)
        beside = [seen.poll for seen in simulator.oracle.polls() if seen.poll.received == 3][1:-1]
        offsets = [int(poll.arguments["offset"]) for poll in beside]
        assert len(offsets) > 5
        assert all(earlier != later for earlier, later in pairwise(offsets)), offsets
        assert set(offsets) == {first, first - 1}
        assert min(later.arrived - earlier.arrived for earlier, later in pairwise(beside)) > 0.1


async def test_a_full_window_is_said_once_and_opens_again() -> None:
    """A hundred updates behind one slow handler, and a strict window: the poller says so, waits, and loses nothing."""
    release = asyncio.Event()

    async def work(message: Any, **data: Any) -> None:
        if message.text == "slow":
            await release.wait()

    rules = Rules(window="strict")
    async with TelegramSimulator(strict=True) as simulator, polling(simulator, work, rules=rules) as it:
        simulator.push(BOT, chat_id=99, text="slow")
        ids = simulator.push_many(BOT, 150, chats=range(1, 20))
        await it.handled.until(lambda: len(it.handled.finished) == 99)
        await until(lambda: it.poller.state.window_full)
        state = it.poller.state
        assert (state.unconfirmed, state.pending, state.waiting) == (100, 1, "the window is full")
        assert not state.deaf
        polls = len(simulator.oracle.polls())
        release.set()
        await it.handled.until(lambda: len(it.handled.finished) == len(ids) + 1)
        assert not it.poller.state.window_full
        assert len(simulator.oracle.polls()) <= polls + 3, "and it did not poll in vain meanwhile"
        assert simulator.oracle.report().duplicated == 0


async def test_updates_beyond_four_megabytes_are_reached_when_those_before_are_confirmed() -> None:
    """Telegram cuts an answer at 4 MiB: what lies beyond comes with the next one, and everything is handled once."""
    async with TelegramSimulator(strict=True) as simulator, polling(simulator) as it:
        ids = [simulator.push(BOT, chat_id=chat, text="x" * 500_000) for chat in range(1, 21)]
        await it.handled.until(lambda: len(it.handled.finished) == len(ids))
        assert it.handled.ids == ids


async def test_a_cut_answer_is_said_to_be_a_full_window() -> None:
    """When big updates behind a slow one hide what is new, the state says so."""
    release = asyncio.Event()

    async def work(message: Any, **data: Any) -> None:
        if message.chat.id == 1:
            await release.wait()

    async with TelegramSimulator(strict=True) as simulator, polling(simulator, work) as it:
        for chat in range(1, 16):
            simulator.push(BOT, chat_id=chat, text="x" * 500_000)
        await it.handled.until(lambda: len(it.handled.finished) >= 7)
        shown = len(it.handled.finished)
        simulator.push(BOT, chat_id=99)
        await until(lambda: it.poller.state.window_full)
        assert len(it.handled.finished) == shown
        release.set()
        await it.handled.until(lambda: len(it.handled.finished) == 16)


def test_what_telegram_lets_expire_makes_no_full_window(caplog: pytest.LogCaptureFixture) -> None:
    """When the last of what is at work expires at Telegram, as a query does after 30 s, the answers are shorter, and
    the window is not full."""

    async def main() -> None:
        release = asyncio.Event()

        async def work(message: Any, **data: Any) -> None:
            await release.wait()

        async with TelegramSimulator(strict=True) as simulator, polling(simulator, work) as it:
            simulator.push_many(BOT, 2, chats=(1, 2))
            simulator.push(BOT, chat_id=3, ttl=30)
            await it.handled.until(lambda: len(it.handled.runs) == 3)
            simulator.jump(31)
            polls = len(simulator.oracle.polls())
            await until(lambda: len([seen for seen in simulator.oracle.polls()[polls:] if seen.poll.received == 2]) > 3)
            state = it.poller.state
            assert (state.window_full_for, state.pending) == (None, 3)
            release.set()
            await it.handled.until(lambda: len(it.handled.finished) == 3)

    aio.run(main())
    assert not [record for record in caplog.records if "full" in record.message]


async def test_a_failed_handler_is_confirmed_counted_and_told() -> None:
    """A handler that raises is logged, its update confirmed as aiogram does, and `on_failed` hears of it."""
    told: list[tuple[int, str]] = []

    async def work(message: Any, **data: Any) -> None:
        raise ValueError("bad luck")

    async def on_failed(bot: Bot, update: Update, error: Exception) -> None:
        told.append((update.update_id, str(error)))

    rules = Rules(on_failed=on_failed)
    async with TelegramSimulator() as simulator, polling(simulator, work, rules=rules) as it:
        ids = simulator.push_many(BOT, 2)
        await until(lambda: simulator.oracle.report().pending == 0)
        assert told == [(update_id, "bad luck") for update_id in ids]
        assert it.poller.state.failed == 2


async def test_a_handler_out_of_its_time_is_confirmed_although_it_goes_on() -> None:
    """At handler_timeout a handler is cancelled; one that swallows that holds back its chat for `cancel_grace`, and
    nothing else."""
    release = asyncio.Event()
    told: list[Exception] = []

    async def work(message: Any, **data: Any) -> None:
        while message.text == "stuck" and not release.is_set():
            with suppress(asyncio.CancelledError):
                await release.wait()

    async def on_failed(bot: Bot, update: Update, error: Exception) -> None:
        told.append(error)

    timing, times = replace(QUICK, cancel_grace=3), replace(QUICK_TIMES, handler_timeout=0.3)
    async with (
        TelegramSimulator() as simulator,
        polling(simulator, work, timing=timing, times=times, rules=Rules(order="chat", on_failed=on_failed)) as it,
    ):
        stuck = simulator.push(BOT, chat_id=1, text="stuck")
        later = simulator.push(BOT, chat_id=1)
        await until(lambda: it.poller.state.timed_out == 1)
        other = simulator.push(BOT, chat_id=2)
        await it.handled.until(lambda: other in it.handled.finished)
        await until(lambda: simulator.oracle.updates()[0].acked is not None)
        assert it.handled.ids == [stuck, other], "the chat keeps its order"
        await it.handled.until(lambda: later in it.handled.finished)
        assert stuck is not None
        assert it.handled.of(stuck).end is None
        await until(lambda: simulator.oracle.report(drained=False).pending == 0)
        release.set()
        await until(lambda: told)
        assert [type(error) for error in told] == [TimeoutError]
        assert (it.poller.state.handled, it.poller.state.failed) == (2, 0)


async def test_a_reply_lost_after_its_getupdates_confirmed_something_loses_and_doubles_nothing() -> None:
    """A getUpdates confirms at its receipt: when its answer is lost, the next one goes on from there."""
    async with TelegramSimulator() as simulator, polling(simulator) as it:
        first = simulator.push_many(BOT, 3)
        await it.handled.until(lambda: len(it.handled.finished) == 3)
        await until(lambda: simulator.oracle.report().pending == 0)
        simulator.inject(Fault("drop", after_processing=True, times=2))
        second = simulator.push_many(BOT, 3)
        await it.handled.until(lambda: len(it.handled.finished) == 6)
        assert it.handled.ids == first + second
        await it.step_down()
        report = simulator.oracle.report()
        assert (report.lost, report.duplicated, report.pending) == (0, 0, 0)


@pytest.mark.parametrize("to", ["lower", "higher"])
async def test_a_new_numbering_is_followed(to: Literal["lower", "higher"]) -> None:
    """After an idle week update ids begin anew at random: nothing is taken for seen, and confirming goes on."""
    async with TelegramSimulator(seed=5) as simulator, polling(simulator) as it:
        first = simulator.push_many(BOT, 3)
        await it.handled.until(lambda: len(it.handled.finished) == 3)
        await until(lambda: simulator.oracle.report().pending == 0)
        simulator.reseed(BOT, to)
        second = simulator.push_many(BOT, 3)
        assert (second[0] < first[0]) == (to == "lower")
        await it.handled.until(lambda: len(it.handled.finished) == 6)
        third = simulator.push_many(BOT, 3)
        await it.handled.until(lambda: len(it.handled.finished) == 9)
        await it.step_down()
        assert it.handled.ids == first + second + third
        assert simulator.oracle.report().pending == 0


async def test_an_update_that_this_aiogram_cannot_read_hides_no_other() -> None:
    """One update that does not fit aiogram's types is counted and confirmed, `on_failed` gets what Telegram sent, and
    those beside it are handled."""
    told: list[tuple[int, Exception]] = []

    async def on_failed(bot: Bot, update: Update, error: Exception) -> None:
        told.append((update.update_id, error))

    sent = {"message": {"message_id": "no number", "chat": {"id": 1, "type": "private"}}}
    rules = Rules(on_failed=on_failed)
    async with TelegramSimulator() as simulator, polling(simulator, rules=rules) as it:
        simulator.push(BOT)
        unreadable = simulator.push_raw(BOT, sent)
        simulator.push(BOT)
        await it.handled.until(lambda: len(it.handled.finished) == 2)
        await until(lambda: simulator.oracle.report(drained=False).pending == 0)
        assert (it.poller.state.handled, it.poller.state.failed) == (2, 1)
        [(update_id, error)] = told
        assert update_id == unreadable
        assert isinstance(error, UpdateUnreadable)
        assert error.raw == {"update_id": unreadable, **sent}


async def test_at_most_once_confirms_before_it_handles() -> None:
    """With delivery at_most_once no handler starts before Telegram has received the offset above its update."""
    rules = Rules(delivery="at_most_once")
    async with TelegramSimulator(strict=True) as simulator, polling(simulator, rules=rules) as it:
        await simulator.traffic_on(BOT, rate=100, seconds=1)
        await it.handled.until(lambda: len(it.handled.finished) == 100)
        for update in simulator.oracle.updates():
            assert update.acked is not None
            assert update.acked.at <= update.runs[0].start
        assert await it.step_down() == {"offset": simulator.oracle.updates()[-1].update_id + 1, "done": []}
        assert simulator.oracle.report().out_of_order == 0


async def test_at_most_once_has_no_window() -> None:
    """With delivery at_most_once a slow handler holds back nothing: more than a hundred updates pass it."""
    release = asyncio.Event()

    async def work(message: Any, **data: Any) -> None:
        if message.text == "slow":
            await release.wait()

    rules = Rules(delivery="at_most_once")
    async with TelegramSimulator(strict=True) as simulator, polling(simulator, work, rules=rules) as it:
        simulator.push(BOT, chat_id=99, text="slow")
        ids = simulator.push_many(BOT, 250, chats=range(1, 20))
        await it.handled.until(lambda: len(it.handled.finished) == len(ids))
        assert not it.poller.state.window_full
        release.set()
        await it.step_down()
        assert simulator.oracle.report().lost == 0


async def test_at_most_once_gives_back_what_it_did_not_confirm() -> None:
    """A step-down between an answer and its confirmation leaves those updates to the next leader: each is handled
    once."""
    rules = Rules(delivery="at_most_once")
    async with TelegramSimulator() as simulator, polling(simulator, rules=rules) as it:
        await until(lambda: simulator.oracle.polls())
        simulator.inject(Fault("delay", delay=0.5))  # the confirmation that follows the next answer
        first = simulator.push_many(BOT, 3)
        await until(lambda: len(simulator.oracle.polls()) == 2)
        second = simulator.push_many(BOT, 3)
        handover = await it.step_down()
        assert it.handled.ids == first
        assert handover == {"offset": second[0], "done": []}
        it.next_term(origin=Origin.RELEASED, inherited=handover)
        await it.handled.until(lambda: len(it.handled.finished) == 6)
        await it.step_down()
        assert it.handled.ids == first + second


async def test_at_most_once_makes_sure_of_its_confirmation_before_it_steps_down() -> None:
    """A confirmation of which nobody knows whether it was received is repeated first, so that a step-down loses
    nothing."""
    rules = Rules(delivery="at_most_once")
    timing = replace(QUICK, drain=6)
    async with TelegramSimulator() as simulator, polling(simulator, rules=rules, timing=timing) as it:
        await until(lambda: simulator.oracle.polls())
        simulator.inject(Fault("drop", after_processing=True))
        ids = simulator.push_many(BOT, 3)
        await until(lambda: it.poller.state.last_error is not None)
        await it.step_down()
        assert it.handled.finished == ids
        assert it.poller.state.given_up == 0
