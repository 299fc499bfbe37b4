"""Work that a handler starts under the term and leaves: it has the time of a handler."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from aiogram import Bot
from aiogram.types import Message
from support import aio
from support.polling import QUICK, polling, until

from cluster_lock.aiogram.rules import Rules
from cluster_lock.election import Term
from cluster_lock.testing.telegram import TelegramSimulator


async def test_spawned_work_ends_before_on_step_down() -> None:
    """At a step-down what was spawned under the term ends first, also what it spawns itself, and then on_step_down
    runs."""
    said: list[str] = []
    go_on, begun = asyncio.Event(), asyncio.Event()

    async def more() -> None:
        said.append("more")

    async def long(term: Term) -> None:
        begun.set()
        await go_on.wait()
        term.spawn(more())
        said.append("long")

    async def work(message: Message, term: Term, **data: Any) -> None:
        term.spawn(long(term))

    async def step_down(bot: Bot, term: Term) -> None:
        said.append("on_step_down")

    rules = Rules(on_step_down=step_down)
    async with TelegramSimulator() as simulator, polling(simulator, work, rules=rules) as it:
        simulator.push(it.bot.id)
        await begun.wait()
        ending = asyncio.ensure_future(it.step_down())
        await until(lambda: not it.poller.state.polling)
        go_on.set()
        await ending
    assert said == ["long", "more", "on_step_down"]


def test_what_is_cut_off_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """Spawned work that does not end within the drain is cancelled, with a line that names it; work without an end,
    which says so, costs no time."""

    async def main() -> None:
        begun, ended = asyncio.Event(), []

        async def endless() -> None:
            try:
                begun.set()
                await asyncio.Event().wait()
            finally:
                ended.append("endless")

        async def ticking() -> None:
            await asyncio.Event().wait()

        async def work(message: Message, term: Term, **data: Any) -> None:
            term.spawn(ticking(), drains=False)
            term.spawn(endless())

        timing = replace(QUICK, drain=0.1)
        async with TelegramSimulator() as simulator, polling(simulator, work, timing=timing) as it:
            simulator.push(it.bot.id)
            await begun.wait()
            it.double.term.begin_step_down(None)
            assert it.double.work is not None
            await it.double.work
            assert ended == ["endless"]
            assert len(it.double.term.tasks) == 1, "the ticking one is the source's to end"

    aio.run(main())
    [said] = [record.getMessage() for record in caplog.records if "spawned" in record.getMessage()]
    assert "1 tasks that were spawned under the term are cancelled at the drain limit, 0.1 s: " in said
    assert "endless" in said
    assert "ticking" not in said
