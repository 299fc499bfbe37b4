"""A handler that puts another program in the place of its own: what it leaves."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from aiogram.types import Message
from support.polling import BOT, QUICK, polling, until

from cluster_lock.aiogram.crashes import CrashNotes
from cluster_lock.aiogram.rules import Rules
from cluster_lock.election import Term
from cluster_lock.testing.telegram import TelegramSimulator


async def test_what_a_restart_leaves(tmp_path: Path) -> None:
    """At an exec, in the loop or in a thread, the update that it is for and those that were handled are left as done,
    to the next program and to the next leader; what was being handled beside them is not."""
    notes = tmp_path / "notes"
    tried = asyncio.Event()
    told: list[Any] = []

    def restart() -> None:
        try:
            os.execv("/nowhere", ["/nowhere"])
        except FileNotFoundError:  # so this test lives on, and sees what there is at that moment
            told.append(notes.read_bytes())

    async def work(message: Message, lease: Term, **_: Any) -> None:
        match message.text:
            case "handled":
                return
            case "restart":
                restart()
                told.append(dict(lease.handover))
                await asyncio.to_thread(restart)
                tried.set()
        await asyncio.Event().wait()

    async with TelegramSimulator() as simulator:
        async with polling(simulator, work, rules=Rules(crash_notes=lambda bot_id: notes)) as it:
            under_way = simulator.push(BOT, chat_id=1, text="under way")
            handled = simulator.push(BOT, chat_id=2, text="handled")
            await it.handled.until(lambda: len(it.handled.runs) == 2 and it.handled.finished == [handled])
            restarts = simulator.push(BOT, chat_id=3, text="restart")
            await asyncio.wait_for(tried.wait(), 10)
            in_the_loop, handover, in_a_thread = told
            for left in (in_the_loop, in_a_thread):
                (tmp_path / "left").write_bytes(left)
                (tmp_path / "left").chmod(0o600)
                found = CrashNotes(tmp_path / "left")
                assert (found.done, found.crashes) == ({handled, restarts}, {under_way: 1})
            assert handover == {"offset": under_way, "done": [handled, restarts]}

        # The next one, which finds the lock free.
        notes.write_bytes(in_the_loop)
        async with polling(simulator, rules=Rules(crash_notes=lambda bot_id: notes), timing=QUICK) as it:
            await until(lambda: simulator.oracle.report(drained=False).pending == 0)
            assert it.handled.ids == [under_way]
