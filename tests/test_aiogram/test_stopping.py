"""How `start_polling` ends: anybody who asks, handlers and hooks have their time, and no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from aiogram import Bot, Dispatcher
from aiogram.types import Message
from support import aio
from support.aio import PATIENCE
from support.leadership_double import LeadershipDouble
from support.polling import BOT, ClientBot, Handled, dispatcher_with, until
from support.sessions import session

from cluster_lock.aiogram import Poller, running, start_polling
from cluster_lock.aiogram.stopping import PollerStopping
from cluster_lock.drivers.memory import MemoryBackend
from cluster_lock.election import Election, Leadership, Role, Term
from cluster_lock.telegram.errors import TelegramTokenRefused
from cluster_lock.testing.telegram import TelegramSimulator

LOCK = f"telegram/{BOT}"


class Slow(Handled):
    """A handler that goes on until the test lets it end."""

    def __init__(self) -> None:
        super().__init__(self._work)
        self.go_on = asyncio.Event()

    async def _work(self, message: Message, **data: Any) -> None:
        await self.go_on.wait()


@asynccontextmanager
async def leading(
    dispatcher: Dispatcher, bot: Bot, leadership: LeadershipDouble | None = None, **arguments: Any
) -> AsyncIterator[tuple[LeadershipDouble, asyncio.Task[None]]]:
    """start_polling under way, elected."""
    leadership = leadership or LeadershipDouble()
    task = asyncio.ensure_future(
        start_polling(dispatcher, bot, leadership=leadership, handle_signals=False, **arguments)
    )
    await until(lambda: task.done() or leadership.is_standing_by(LOCK))
    if not task.done():
        leadership.grant(LOCK)
    try:
        yield leadership, task
    finally:
        leadership.stop()
        task.cancel()
        task.cancel()
        await asyncio.wait([task])
        await bot.session.close()


async def test_stop_polling_returns_when_all_has_ended() -> None:
    """After `await dispatcher.stop_polling()` no handler runs any more, the shutdown hooks have run, and start_polling
    has returned: what handlers use may be closed. A task that a startup hook has begun may wait for it too."""
    said: list[str] = []
    async with TelegramSimulator() as simulator:
        handled = Slow()
        dispatcher, bot = dispatcher_with(simulator, handled, disable_fsm=True), ClientBot(simulator, "one")
        stop = asyncio.Event()
        tasks = []

        async def stopped() -> None:
            await stop.wait()
            await dispatcher.stop_polling()
            said.append(f"stopped after {[run.outcome for run in handled.runs]}")

        @dispatcher.startup()
        async def start() -> None:
            tasks.append(asyncio.ensure_future(stopped()))

        dispatcher.shutdown.register(lambda: said.append("shutdown"))
        async with leading(dispatcher, bot) as (_, task):
            simulator.push(BOT)
            await handled.until(lambda: bool(handled.runs))
            stop.set()
            term = await begun_to_step_down(task)
            assert not said, term
            handled.go_on.set()
            await asyncio.wait_for(asyncio.gather(*tasks, task), 10)
        assert said == ["shutdown", "stopped after ['ok']"]


def has_begun(handled: Handled) -> bool:
    return bool(handled.runs)


async def begun_to_step_down(task: asyncio.Task[None]) -> str:
    """Turns of the loop in which whatever does not wait would have ended."""
    for _ in range(50):
        await asyncio.sleep(0)
    assert not task.done()
    return "it waits for the handler"


async def test_a_cancellation_drains() -> None:
    """A start_polling that is cancelled, as by the lifespan of a web server, lets handlers end before it does, and runs
    the shutdown hooks; cancelled once more it ends them at once."""
    for twice in (False, True):
        said: list[str] = []
        async with TelegramSimulator() as simulator:
            handled = Slow()
            dispatcher, bot = dispatcher_with(simulator, handled, disable_fsm=True), ClientBot(simulator, "one")
            dispatcher.shutdown.register(partial(said.append, "shutdown"))
            async with leading(dispatcher, bot) as (_, task):
                simulator.push(BOT)
                await handled.until(partial(has_begun, handled))
                task.cancel()
                await begun_to_step_down(task)
                if twice:
                    task.cancel()
                else:
                    handled.go_on.set()
                await asyncio.wait([task], timeout=PATIENCE)
                assert task.cancelled()
            assert [run.outcome for run in handled.runs] == ["cancelled" if twice else "ok"]
            assert said == ["shutdown"]


def test_shutdown_hooks_have_a_limit(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A shutdown hook that hangs is cut off after its time, with a line, and start_polling ends all the same."""

    async def main() -> None:
        async with TelegramSimulator() as simulator:
            dispatcher = dispatcher_with(simulator, Handled(), disable_fsm=True)
            dispatcher.shutdown.register(asyncio.Event().wait)
            async with leading(dispatcher, ClientBot(simulator, "one")) as (_, task):
                await asyncio.wait_for(dispatcher.stop_polling(), 10)
                await asyncio.wait_for(task, 10)

    monkeypatch.setattr(running, "HOOKS_WITHIN", 0.1)
    aio.run(main())
    assert "the shutdown hooks have not returned within 0.1 s: cut off" in caplog.text


def test_a_startup_hook_that_hangs_does_not_keep_it_from_stopping(caplog: pytest.LogCaptureFixture) -> None:
    """Who asks for the end while a startup hook hangs gets it, after the time of a drain."""

    async def main() -> None:
        async with TelegramSimulator() as simulator:
            dispatcher = dispatcher_with(simulator, Handled(), disable_fsm=True)
            began = asyncio.Event()

            @dispatcher.startup()
            async def hang() -> None:
                began.set()
                await asyncio.Event().wait()

            bot = ClientBot(simulator, "one")
            stopping = PollerStopping()
            poller = Poller(dispatcher, bot)
            task = asyncio.ensure_future(
                running.run_pollers(dispatcher, [poller], LeadershipDouble(), {}, stopping, drain=0.05)
            )
            await began.wait()
            stopping.ask("SIGTERM")
            await asyncio.wait_for(task, 10)
            await bot.session.close()

    aio.run(main())
    assert "the startup hooks have not returned since the stop was asked for (SIGTERM): cut off" in caplog.text


async def test_a_job_that_a_startup_hook_waits_for_is_an_error_at_once() -> None:
    """`await leadership.run(job)` in a startup hook would wait for ever: it raises, and the text says what to write. A
    task of its own waits for its term."""
    async with TelegramSimulator() as simulator:
        dispatcher = dispatcher_with(simulator, Handled(), disable_fsm=True)
        tasks = []

        async def job(term: Term) -> None:
            raise AssertionError("nothing is led")

        @dispatcher.startup()
        async def start(leadership: Leadership) -> None:
            tasks.append(asyncio.create_task(leadership.run(job)))
            await asyncio.sleep(0)
            await leadership.run(job)

        bot = ClientBot(simulator, "one")
        election = Election(Nobodys())  # type: ignore[arg-type]
        with pytest.raises(RuntimeError, match=r"asyncio\.create_task\(leadership\.run\(job\)\)"):
            await start_polling(dispatcher, bot, leadership=election, handle_signals=False)
        assert not tasks[0].done()
        tasks[0].cancel()


class Nobodys:
    """A contest whose locks nobody ever gets."""


async def test_a_refused_token_that_a_startup_hook_meets() -> None:
    """A token that Telegram refuses ends it as such, also where a startup hook is the first to ask Telegram."""
    async with TelegramSimulator() as simulator:
        simulator.revoke(BOT)
        dispatcher, bot = dispatcher_with(simulator, Handled(), disable_fsm=True), ClientBot(simulator, "one")

        @dispatcher.startup()
        async def start(bot: Bot) -> None:
            await bot.set_my_commands([])

        with pytest.raises(TelegramTokenRefused, match="Telegram refuses the token of bot 42"):
            await start_polling(dispatcher, bot, leadership=LeadershipDouble(), handle_signals=False)


async def test_two_programs_share_a_leadership() -> None:
    """Of two start_polling that share an election, the end of one leaves the other alone, and the election reports the
    pollers of both while they run."""
    async with TelegramSimulator() as simulator, session(MemoryBackend(), "a") as one:
        election, running = Election(one), []
        for token in ("1:TOKEN", "2:TOKEN"):
            dispatcher = dispatcher_with(simulator, Handled(), disable_fsm=True)
            bot = ClientBot(simulator, "one", token=token)
            task = asyncio.ensure_future(start_polling(dispatcher, bot, leadership=election, handle_signals=False))
            running.append((dispatcher, task))
        await until(lambda: all(simulator.oracle.polls(bot) for bot in (1, 2)))
        assert {report["bot_id"] for report in election.reports()} == {1, 2}
        (first, first_task), (second, second_task) = running
        await first.stop_polling()
        await first_task
        assert [report["bot_id"] for report in election.reports()] == [2]
        assert election.role("telegram/2") is Role.LEADER
        await second.stop_polling()
        await second_task
