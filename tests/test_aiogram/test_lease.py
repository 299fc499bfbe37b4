"""The four checks of the lease, and what is left when it is lost: nothing."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from typing import Any

import pytest
from aiogram.methods import GetUpdates
from support.polling import BOT, QUICK, client_bot, polling, simulator_thread, until

from cluster_lock import clock
from cluster_lock.aiogram.http_session import GuardedRequest
from cluster_lock.errors import LockLost
from cluster_lock.testing.telegram import Fault, TelegramSimulator


async def test_an_answer_that_is_ready_when_a_blocked_loop_wakes_up_past_the_lease_is_not_dispatched() -> None:
    """A loop blocked past the lease wakes up with updates in its socket: no handler starts, nothing is confirmed."""
    with simulator_thread() as (simulator, call):
        async with polling(simulator) as it:
            await until(lambda: simulator.bot(BOT).parked is not None)
            it.double.stop_at = clock.now() + 0.2
            threading.Timer(0.1, call, [simulator.push, BOT]).start()
            time.sleep(0.5)  # noqa: ASYNC251 - the blocked loop is what this is about
            delivered = simulator.oracle.updates()[0].delivered
            assert delivered, "the answer waited in the socket"
            await asyncio.sleep(0.3)  # nothing may happen in it
            assert it.poller.state.pending == 0, "dropped as a whole, not kept for later"
            await it.lose()
            assert it.handled.runs == []
            assert simulator.oracle.updates()[0].acked is None
            assert len(simulator.oracle.polls()) == 1


async def test_a_handler_does_not_start_when_its_predecessor_blocked_the_loop_past_the_lease() -> None:
    """The lease is checked before each handler: the next update of the chat stays where it is."""

    async def work(message: Any, **data: Any) -> None:
        it.double.stop_at = clock.now() + 0.1
        time.sleep(0.3)  # noqa: ASYNC251 - the blocked loop is what this is about

    async with TelegramSimulator() as simulator, polling(simulator, work) as it:
        ids = simulator.push_many(BOT, 3)
        await it.handled.until(lambda: len(it.handled.finished) == 1)
        await asyncio.sleep(0.3)  # nothing may happen in it
        await it.lose()
        assert it.handled.ids == ids[:1]
        assert not any(update.acked for update in simulator.oracle.updates())


async def test_a_getupdates_is_not_written_when_the_lease_ended_while_its_connection_was_made() -> None:
    """Connecting may take seconds: the lease is checked once more between the connecting and the writing."""

    def refuse() -> None:
        raise LockLost("too late")

    async with TelegramSimulator() as simulator, client_bot(simulator) as bot:
        with pytest.raises(LockLost):
            await GuardedRequest(bot.session, refuse, lambda: 1.0).ask(bot, GetUpdates(timeout=1), 5)
        await bot.get_me()
        assert simulator.oracle.polls() == []


async def test_a_lease_that_was_only_renewed_late_goes_on() -> None:
    """Between stop_at and a renewal that moves it on nothing is sent or started; then everything goes on."""
    async with TelegramSimulator() as simulator, polling(simulator) as it:
        await until(lambda: simulator.bot(BOT).parked is not None)
        far, it.double.stop_at = it.double.stop_at, clock.now()
        pushed = simulator.push(BOT)
        await until(lambda: it.poller.state.waiting == "the lease was not renewed in time")
        assert it.handled.runs == []
        it.double.stop_at = far
        await it.handled.until(lambda: it.handled.finished == [pushed])


async def test_a_lost_lease_ends_the_poll_and_the_handlers_at_once_and_confirms_nothing() -> None:
    """On loss the parked getUpdates is reset, handlers are cancelled, and no byte goes to Telegram any more."""

    async def work(message: Any, **data: Any) -> None:
        if message.text == "slow":
            await asyncio.Event().wait()

    async with TelegramSimulator() as simulator, polling(simulator, work) as it:
        simulator.push(BOT, chat_id=1, text="slow")
        simulator.push(BOT, chat_id=2)
        await it.handled.until(lambda: len(it.handled.finished) == 1 and len(it.handled.runs) == 2)
        began = clock.now()
        await it.lose()
        assert clock.now() - began < QUICK.stop_time
        assert [run.outcome for run in it.handled.runs] == ["cancelled", "ok"]
        polls = len(simulator.oracle.polls())
        await asyncio.sleep(0.5)  # nothing may happen in it
        report = simulator.oracle.report(drained=False)
        assert (len(simulator.oracle.polls()), report.sent_after_term, report.pending) == (polls, 0, 2)
        assert it.double.term.handover == {}


async def test_a_parked_getupdates_is_reset_on_loss() -> None:
    """The server sees the connection of a lost leader end at once, not when its long poll would have."""
    async with TelegramSimulator() as simulator, polling(simulator) as it:
        await until(lambda: simulator.bot(BOT).parked is not None)
        await it.lose()
        await until(lambda: simulator.oracle.polls()[0].poll.end == "disconnected", timeout=1)


async def test_the_work_is_not_over_before_a_handler_that_swallows_its_cancellation() -> None:
    """Anybody who gives the lock away waits for the body: it does not pretend to be done while a handler runs."""
    release = asyncio.Event()

    async def work(message: Any, **data: Any) -> None:
        while not release.is_set():
            with suppress(asyncio.CancelledError):
                await release.wait()

    async with TelegramSimulator() as simulator, polling(simulator, work) as it:
        simulator.push(BOT)
        await it.handled.until(lambda: len(it.handled.runs) == 1)
        losing = asyncio.ensure_future(it.lose())
        for _ in range(3):
            await asyncio.sleep(0.1)
            assert it.double.work is not None
            assert not it.double.work.done()
            it.double.work.cancel()  # once more changes nothing
        release.set()
        await losing


async def test_no_getupdates_goes_out_after_the_lease_whatever_failed_before() -> None:
    """A wait after a failure that outlasts the lease ends without another request."""
    async with TelegramSimulator() as simulator:
        simulator.inject(Fault(status=502))
        async with polling(simulator) as it:
            await until(lambda: it.poller.state.last_error is not None)
            it.double.stop_at = clock.now()
            await until(lambda: it.poller.state.waiting == "the lease was not renewed in time")
            assert len(simulator.oracle.polls()) == 1


async def test_handlers_get_the_term_and_its_fencing_token() -> None:
    """A handler may ask for `lease` and `fencing_token`; what it spawns in the lease ends with it."""
    got: list[Any] = []

    async def work(message: Any, lease: Any, fencing_token: int, **data: Any) -> None:
        got.extend((lease, fencing_token, lease.spawn(asyncio.Event().wait())))

    async with TelegramSimulator() as simulator, polling(simulator, work, token=19) as it:
        simulator.push(BOT)
        await it.handled.until(lambda: len(it.handled.finished) == 1)
        assert got[:2] == [it.double.term, 19]
        await it.lose()
        assert got[2].cancelled()
