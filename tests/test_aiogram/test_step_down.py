"""Stepping down: finish what is under way, hand over what is known, confirm where nobody else will."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from aiogram import Bot
from support.polling import BOT, QUICK, polling, until

from cluster_lock import clock
from cluster_lock.aiogram.rules import Rules
from cluster_lock.election import Term
from cluster_lock.testing.telegram import Fault, TelegramSimulator


async def until_idle(simulator: TelegramSimulator, number: int) -> None:
    await until(lambda: len(simulator.oracle.polls()) >= number and simulator.bot(BOT).parked is not None)


async def test_running_handlers_finish_and_waiting_updates_are_left_to_the_heir() -> None:
    """A step-down drains what runs, starts nothing more, and the heir handles the rest: each once, in order."""

    async def work(message: Any, **data: Any) -> None:
        await asyncio.sleep(0.4)

    rules = Rules(order="chat")
    async with TelegramSimulator(strict=True) as simulator, polling(simulator, work, rules=rules) as it:
        ids = simulator.push_many(BOT, 3, chats=(1,)) + simulator.push_many(BOT, 1, chats=(2,))
        await it.handled.until(lambda: len(it.handled.runs) == 2)
        handover = await it.step_down("two")
        assert it.handled.finished == [ids[0], ids[3]]
        assert handover == {"offset": ids[1], "done": [ids[3]]}
        async with polling(simulator, client="two", inherited=handover) as heir:
            await heir.handled.until(lambda: len(heir.handled.finished) == 2)
            assert heir.handled.ids == ids[1:3]
            await heir.step_down()
        report = simulator.oracle.report()
        assert (report.lost, report.duplicated, report.out_of_order, report.overlapping_polls) == (0, 0, 0, 0)


async def test_handlers_are_cancelled_at_the_drain_limit_and_only_those_come_again() -> None:
    """After `drain` seconds a handler is cancelled: its update comes again, those that finished above it do not."""

    async def work(message: Any, **data: Any) -> None:
        if message.text == "slow":
            await asyncio.sleep(3600)

    timing = replace(QUICK, drain=0.3, cancel_grace=3.0)
    async with TelegramSimulator() as simulator, polling(simulator, work, timing=timing) as it:
        slow = simulator.push(BOT, chat_id=9, text="slow")
        rest = simulator.push_many(BOT, 3, chats=(1, 2, 3))
        await it.handled.until(lambda: len(it.handled.finished) == 3)
        began = clock.now()
        handover = await it.step_down("two")
        assert 0.3 <= clock.now() - began < 0.3 + timing.cancel_grace
        assert handover == {"offset": slow, "done": rest, "cut_off": [slow]}
        async with polling(simulator, client="two", inherited=handover) as heir:
            await heir.handled.until(lambda: heir.handled.finished == [slow])
            await heir.step_down()
        report = simulator.oracle.report()
        assert (report.updates_handled, report.lost, report.duplicated) == (4, 0, 0)


async def test_the_body_does_not_return_while_a_handler_swallows_its_cancellation() -> None:
    """At the drain limit too the body waits for the handler, and leaves the limit to the giver of the term."""
    release = asyncio.Event()

    async def work(message: Any, **data: Any) -> None:
        while not release.is_set():
            with suppress(asyncio.CancelledError):
                await release.wait()

    async with TelegramSimulator() as simulator, polling(simulator, work, timing=replace(QUICK, drain=0.1)) as it:
        simulator.push(BOT)
        await it.handled.until(lambda: len(it.handled.runs) == 1)
        stepping_down = asyncio.ensure_future(it.step_down("two"))
        await asyncio.wait([stepping_down], timeout=0.8)
        assert not stepping_down.done()
        release.set()
        await stepping_down


@pytest.mark.parametrize("how", ["the giver's limit is over", "the term ends without a step-down"])
async def test_who_is_cancelled_with_the_lock_in_hand_hands_over_what_is_finished(how: str) -> None:
    """The lock is given away when the last handler has ended, in whatever way the work was ended; what had been
    finished until then is left to the next leader, and is not handled again."""
    release, cancelled = asyncio.Event(), asyncio.Event()

    async def work(message: Any, **data: Any) -> None:
        while message.text == "stubborn" and not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                cancelled.set()

    async with TelegramSimulator() as simulator, polling(simulator, work, timing=replace(QUICK, drain=0.1)) as it:
        simulator.push(BOT, chat_id=1, text="stubborn")
        rest = simulator.push_many(BOT, 3, chats=(1, 2, 3))
        await it.handled.until(lambda: len(it.handled.finished) == 3)
        leading = it.double.work
        assert leading is not None
        if how == "the giver's limit is over":
            it.double.term.begin_step_down("two")
            await cancelled.wait()
        leading.cancel()
        await cancelled.wait()
        release.set()
        with suppress(asyncio.CancelledError):
            await leading
        assert it.double.term.handover == {"offset": rest[-1] + 1, "done": []}


@pytest.mark.parametrize("says", [asyncio.CancelledError, ValueError])
async def test_what_the_end_of_the_loop_cut_off_comes_again(says: type[BaseException]) -> None:
    """When a program ends while handlers run (asyncio.run cancels every task then, in any order), their updates are not
    done with: the next leader handles them."""
    tasks: list[asyncio.Task[Any] | None] = []

    async def work(message: Any, **data: Any) -> None:
        tasks.append(asyncio.current_task())
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            raise says from None

    async with TelegramSimulator() as simulator, polling(simulator, work) as it:
        cut = simulator.push(BOT)
        await it.handled.until(lambda: len(it.handled.runs) == 1)
        tasks.append(leading := it.double.work)
        for task in tasks:
            assert task is not None
            task.cancel()
        assert leading is not None
        with suppress(asyncio.CancelledError):
            await leading
        assert it.double.term.handover == {"offset": cut, "done": [], "cut_off": [cut]}


@pytest.mark.parametrize("handled", ["in the moment of the step-down", "after it"])
async def test_with_an_heir_the_old_leader_sends_nothing_more_and_the_heir_confirms(handled: str) -> None:
    """The heir's first getUpdates carries the offset: no confirmation of the old leader can cross it."""
    release = asyncio.Event()

    async def work(message: Any, **data: Any) -> None:
        await release.wait()

    async with TelegramSimulator(strict=True) as simulator, polling(simulator, work) as it:
        ids = simulator.push_many(BOT, 2, chats=(1, 2))
        await it.handled.until(lambda: len(it.handled.runs) == 2)
        polls = len(simulator.oracle.polls())
        if handled == "after it":
            asyncio.get_running_loop().call_later(0.1, release.set)
        else:
            release.set()
        handover = await it.step_down("two")
        assert len(simulator.oracle.polls()) == polls
        assert simulator.oracle.report().pending == 2
        async with polling(simulator, client="two", inherited=handover) as heir:
            await until(lambda: simulator.oracle.report().pending == 0)
            assert heir.handled.ids == []
            assert {update.acked.client for update in simulator.oracle.updates() if update.acked} == {"two"}
            assert it.handled.finished == ids


async def test_without_an_heir_the_old_leader_confirms_itself() -> None:
    """When nobody took over, what is finished is confirmed at Telegram: the next poller may not know our record."""
    release = asyncio.Event()

    async def work(message: Any, **data: Any) -> None:
        await release.wait()

    async with TelegramSimulator(strict=True) as simulator, polling(simulator, work) as it:
        simulator.push_many(BOT, 2, chats=(1, 2))
        await it.handled.until(lambda: len(it.handled.runs) == 2)
        polls = len(simulator.oracle.polls())
        asyncio.get_running_loop().call_later(0.1, release.set)
        await it.step_down()
        assert len(simulator.oracle.polls()) == polls + 1
        report = simulator.oracle.report()
        assert (report.pending, report.sent_after_term) == (0, 0)


async def test_an_offset_that_went_out_is_not_confirmed_again() -> None:
    """The same offset again within 3 s would be a long poll that ends the next leader's: it is never sent."""
    async with TelegramSimulator(strict=True) as simulator, polling(simulator) as it:
        simulator.push(BOT)
        await it.handled.until(lambda: len(it.handled.finished) == 1)
        await until_idle(simulator, 2)
        polls = len(simulator.oracle.polls())
        await it.step_down()
        assert len(simulator.oracle.polls()) == polls
        assert simulator.oracle.report().pending == 0


async def test_a_last_confirmation_without_an_answer_is_reset_and_holds_up_nothing() -> None:
    """Telegram does not answer the last confirmation: its connection is reset within two seconds, and the term ends."""
    release = asyncio.Event()

    async def work(message: Any, **data: Any) -> None:
        await release.wait()

    async with TelegramSimulator() as simulator, polling(simulator, work) as it:
        simulator.push(BOT)
        await it.handled.until(lambda: len(it.handled.runs) == 1)
        await until(lambda: it.poller.state.waiting == "handlers are at work")
        simulator.inject(Fault("black_hole", times=None))
        release.set()
        began = clock.now()
        handover = await it.step_down()
        assert clock.now() - began < QUICK.drain + QUICK.cancel_grace
        await until(lambda: simulator.oracle.polls()[-1].poll.end == "disconnected")
        assert handover == {"offset": it.handled.ids[0] + 1, "done": []}


async def test_the_lease_is_checked_before_the_last_confirmation() -> None:
    """A lease that ended during the drain confirms nothing."""
    release = asyncio.Event()

    async def work(message: Any, **data: Any) -> None:
        await release.wait()
        it.double.stop_at = clock.now()

    async with TelegramSimulator() as simulator, polling(simulator, work) as it:
        simulator.push(BOT)
        await it.handled.until(lambda: len(it.handled.runs) == 1)
        polls = len(simulator.oracle.polls())
        asyncio.get_running_loop().call_later(0.1, release.set)
        await it.step_down()
        assert len(simulator.oracle.polls()) == polls


async def test_the_heir_gets_the_whole_album() -> None:
    """An album whose first part is cut off at the drain limit, as a collector holds it for all, is handed over whole;
    what is finished beside it is not handled again."""

    async def work(message: Any, **data: Any) -> None:
        if message.text == "1":
            await asyncio.sleep(3600)

    timing = replace(QUICK, drain=0.2)
    async with TelegramSimulator(strict=True) as simulator, polling(simulator, work, timing=timing) as it:
        ids = []
        for text, album in (("1", "a"), ("2", "a"), ("3", None), ("4", "a")):
            message = {"message_id": int(text), "date": 0, "chat": {"id": 5, "type": "private"}, "text": text}
            group = {"media_group_id": album} if album else {}
            ids.append(simulator.push_raw(BOT, {"message": {**message, **group}}))
        await it.handled.until(lambda: len(it.handled.finished) == 3)
        handover = await it.step_down(heir="two")
        assert handover == {"offset": ids[0], "done": [ids[2]], "cut_off": [ids[0], ids[1], ids[3]]}


async def test_callbacks_run_at_both_ends_of_a_term() -> None:
    """on_elected ends before the first update is handled, on_step_down begins after the last; on a loss too."""
    said: list[str] = []

    async def on_elected(bot: Bot, term: Term) -> None:
        await asyncio.sleep(0.1)
        said.append(f"elected {term.fencing_token}")

    async def on_step_down(bot: Bot, term: Term) -> None:
        said.append(f"over {term.fencing_token}")
        raise RuntimeError("which must not hold up anything")

    async def work(message: Any, **data: Any) -> None:
        said.append("handled")

    rules = Rules(on_elected=on_elected, on_step_down=on_step_down)
    async with TelegramSimulator() as simulator:
        simulator.push(BOT)
        async with polling(simulator, work, rules=rules, token=1) as it:
            await it.handled.until(lambda: len(it.handled.finished) == 1)
            await it.step_down()
            it.next_term()
            await until(lambda: "elected 2" in said)
            await it.lose()
    assert said == ["elected 1", "handled", "over 1", "elected 2", "over 2"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
async def test_hand_overs_under_load_lose_and_double_nothing(seed: int) -> None:
    """Five hand-overs while updates stream in and handlers take their time: every update once, in order, no
    conflict."""
    source = random.Random(seed)

    async def work(message: Any, **data: Any) -> None:
        await asyncio.sleep(source.choice([0, 0, 0.01, 0.05, 0.3]))

    async with TelegramSimulator(strict=True, seed=seed) as simulator:
        await simulator.traffic_on(BOT, rate=60, chats=range(1, 13))
        handover: dict[str, Any] = {}
        for number in range(6):
            client = f"client {number}"
            async with polling(simulator, work, client=client, token=number + 1, inherited=handover) as it:
                await asyncio.sleep(source.uniform(0.2, 0.9))
                if number < 5:
                    handover = await it.step_down("the next")
                    continue
                await simulator.traffic_off(BOT)
                await until(lambda: simulator.oracle.report().pending == 0)
                await it.step_down()
        report = simulator.oracle.report()
        assert report.updates_sent > 100
        assert (report.lost, report.duplicated, report.out_of_order) == (0, 0, 0), report.findings
        assert (report.overlapping_polls, report.late_arrivals) == (0, 0), report.findings
