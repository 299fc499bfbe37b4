"""Acknowledge after handling, and recognise what comes again."""

from __future__ import annotations

import asyncio
from typing import Any

from support import aio
from support.polling import BOT, polling, until

from cluster_lock.testing.telegram import TelegramSimulator


def test_handled_updates_are_confirmed_and_nothing_else_is() -> None:
    """Every update is handled once, in order within its chat, and confirmed only after its handler has ended."""

    async def main() -> None:
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

    aio.run(main())


def test_a_slow_handler_holds_back_its_own_confirmation_only() -> None:
    """New updates of other chats start within a second beside a slow handler, and nothing from it on is confirmed."""

    async def main() -> None:
        release = asyncio.Event()

        async def work(message: Any, **data: Any) -> None:
            if message.text == "slow":
                await release.wait()

        async with TelegramSimulator(strict=True) as simulator, polling(simulator, work) as it:
            slow = simulator.push(BOT, chat_id=99, text="slow")
            await it.handled.until(lambda: it.handled.ids == [slow])
            for number in range(5):
                simulator.push(BOT, chat_id=number + 1)
                await it.handled.until(lambda: len(it.handled.finished) > number, timeout=5)
            updates = simulator.oracle.updates()
            assert all(update.acked is None for update in updates)
            delays = [update.runs[0].start - update.pushed for update in updates]
            assert max(delays) < 1.2, delays
            release.set()
            await until(lambda: simulator.oracle.report().pending == 0)
            assert it.poller.state.redelivered >= 1
            report = simulator.oracle.report()
            assert (report.updates_handled, report.duplicated, report.lost) == (6, 0, 0)

    aio.run(main())
