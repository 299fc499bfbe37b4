"""Once per host: each bot of each instance. `start_polling` sees to it as `cluster-lock bot start` does."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiogram import Bot, Dispatcher
from support import aio
from support.aio import PATIENCE
from support.polling import ClientBot, Handled, dispatcher_with, until
from support.settings import load_text

from cluster_lock.aiogram import start_polling
from cluster_lock.config import Settings
from cluster_lock.errors import AlreadyRunning
from cluster_lock.keeper.slots import locks_here, slot
from cluster_lock.testing.telegram import TelegramSimulator

ONE, TWO = "1:TOKEN", "2:TOKEN"


def settings_in(folder: Path, instance: str = "web-1", health: str = "off") -> Settings:
    return load_text(folder, f"instance: {instance}\nhealth: {health}\nfile:\n  directory: {folder / 'locks'}\n")


@asynccontextmanager
async def polling(settings: Settings, dispatcher: Dispatcher, *bots: Bot) -> AsyncIterator[asyncio.Task[None]]:
    """A program of its own, as far as locks are concerned."""
    running = asyncio.ensure_future(start_polling(dispatcher, *bots, config=settings, handle_signals=False))
    try:
        yield running
    finally:
        if not running.done():
            await dispatcher.stop_polling()
        await asyncio.wait([running], timeout=PATIENCE)


async def test_two_bots_of_one_instance_both_poll(tmp_path: Path) -> None:
    """Two programs of one instance name on one host, each with its own bot, run side by side; each can be found by its
    bot, and says which process it is."""
    settings = settings_in(tmp_path)
    async with TelegramSimulator() as simulator:
        dispatchers = [dispatcher_with(simulator, Handled(), disable_fsm=True) for _ in range(2)]
        bots = [ClientBot(simulator, "web-1", token=token) for token in (ONE, TWO)]
        async with polling(settings, dispatchers[0], bots[0]), polling(settings, dispatchers[1], bots[1]):
            await until(lambda: all(simulator.oracle.polls(bot) for bot in (1, 2)))
            assert locks_here("web-1", settings.state_directory) == {"telegram/1", "telegram/2"}
            info = slot("web-1", "telegram/2", settings.state_directory).info()
            assert info is not None
            assert (info.pid, info.ready) == (os.getpid(), True)
        assert locks_here("web-1", settings.state_directory) == set()


async def test_it_shows_how_it_is(tmp_path: Path) -> None:
    """A program with the one line serves its health where the settings say, and says so under its name, by which
    `bot status` finds it; the page knows its poller."""
    settings = settings_in(tmp_path, health="127.0.0.1:0")
    async with TelegramSimulator() as simulator:
        handled = Handled()
        dispatcher = dispatcher_with(simulator, handled, disable_fsm=True)
        async with polling(settings, dispatcher, ClientBot(simulator, "web-1", token=ONE)):
            await until(lambda: bool(simulator.oracle.polls()))
            simulator.push(1)
            await handled.until(lambda: bool(handled.finished))
            info = slot("web-1", "telegram/1", settings.state_directory).info()
            assert info is not None
            assert info.health is not None
            async with aiohttp.ClientSession() as http, http.get(f"{info.health}/health") as answer:
                shown = await answer.json()
            assert shown["role"] == "leader"
            assert shown["last_poll_age"] is not None


async def test_the_same_bot_of_the_same_instance_is_refused(tmp_path: Path) -> None:
    """The same bot under the same instance name is refused at once, with the process that has it, the file, and what to
    do, also where one of several bots is the same; under another name it stands by."""
    settings = settings_in(tmp_path)
    async with TelegramSimulator() as simulator:

        def program(*tokens: str) -> tuple[Dispatcher, *tuple[Bot, ...]]:
            bots = [ClientBot(simulator, "web-1", token=token) for token in tokens]
            return dispatcher_with(simulator, Handled(), disable_fsm=True), *bots

        async with polling(settings, *program(ONE)):
            await until(lambda: bool(simulator.oracle.polls()))
            for tokens in ((ONE,), (TWO, ONE)):
                with pytest.raises(AlreadyRunning, match=r"instance 'web-1' of telegram/1 is already") as refused:
                    await start_polling(*program(*tokens), config=settings, handle_signals=False)
                path = slot("web-1", "telegram/1", settings.state_directory).path
                for told in (
                    f"process {os.getpid()} ",
                    str(path),
                    "bot stop --instance web-1`",
                    "CLUSTER_LOCK_INSTANCE",
                ):
                    assert told in str(refused.value)
            assert locks_here("web-1", settings.state_directory) == {"telegram/1"}, "nothing is left of it"
            async with polling(settings_in(tmp_path, "web-2"), *program(ONE)) as standby:
                await until(lambda: "telegram/1" in locks_here("web-2", settings.state_directory))
                assert not standby.done()


def test_without_a_state_directory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where no state can be kept the bot is polled all the same, and one sentence says what will not be noticed."""

    async def main() -> None:
        settings = settings_in(tmp_path)
        (tmp_path / "state").write_text("a file where the folder would be")
        async with TelegramSimulator() as simulator:
            dispatcher = dispatcher_with(simulator, Handled(), disable_fsm=True)
            async with polling(settings, dispatcher, ClientBot(simulator, "web-1", token=ONE)):
                await until(lambda: bool(simulator.oracle.polls()))
        [said] = [record.message for record in caplog.records if "second start" in record.message]
        assert str(tmp_path / "state") in said

    with caplog.at_level(logging.WARNING, "cluster_lock"):
        aio.run(main())
