"""`start_polling` in the place of aiogram's: the same arguments, hooks and habits."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
from aiogram import Bot, Dispatcher
from aiogram.fsm.storage.memory import MemoryStorage
from aiogram.types import Message
from aiogram.utils.backoff import BackoffConfig
from support import aio
from support.aio import PATIENCE
from support.leadership_double import LeadershipDouble
from support.polling import BOT, TOKEN, ClientBot, Handled, dispatcher_with, until

from cluster_lock import aiogram as ours
from cluster_lock.aio import Backoff
from cluster_lock.aiogram import ConflictPersists, TelegramTokenRefused, early, start_polling
from cluster_lock.aiogram.poller import lock_name
from cluster_lock.config import Settings
from cluster_lock.config.model import TelegramSection
from cluster_lock.election import Term
from cluster_lock.testing.telegram import Fault, TelegramSimulator
from cluster_lock.values import EndCode

LOCK = f"telegram/{BOT}"


@asynccontextmanager
async def started(
    simulator: TelegramSimulator, dispatcher: Dispatcher, *bots: Bot, **arguments: Any
) -> AsyncIterator[tuple[LeadershipDouble, asyncio.Task[None]]]:
    """start_polling under way, standing by."""
    leadership = LeadershipDouble()
    arguments = {"handle_signals": False, **arguments}
    running = asyncio.ensure_future(start_polling(dispatcher, *bots, leadership=leadership, **arguments))
    await until(lambda: running.done() or any(leadership.is_standing_by(lock_name(bot)) for bot in bots))
    try:
        yield leadership, running
    finally:
        leadership.stop()
        await asyncio.wait([running], timeout=PATIENCE)
        running.cancel()
        await asyncio.wait([running])


def has_handled(handled: Handled, number: int) -> bool:
    return len(handled.finished) == number


def test_every_parameter_of_aiograms_start_polling_is_ours_too() -> None:
    """Each parameter of the installed aiogram's start_polling and run_polling is known here by its name and kind."""
    own = inspect.signature(start_polling).parameters
    for theirs in (Dispatcher.start_polling, Dispatcher.run_polling):
        for name, parameter in inspect.signature(theirs).parameters.items():
            if name == "self":
                continue
            assert name in own, f"aiogram has a new parameter: {name}"
            assert own[name].kind is parameter.kind, name


async def test_startup_and_shutdown_run_once_per_process_and_terms_have_hooks_of_their_own() -> None:
    """Hooks run as with aiogram, in a standby too; on_elected and on_step_down run per term; both get what they ask."""
    said: list[Any] = []
    handled = Handled()
    async with TelegramSimulator() as simulator:
        dispatcher = dispatcher_with(simulator, handled, greeting="hello")
        bot = ClientBot(simulator, "one")

        @dispatcher.startup()
        async def on_startup(bot: Bot, bots: Any, dispatcher: Dispatcher, greeting: str, extra: int) -> None:
            said.append(("startup", bot.id, len(bots), greeting, extra))

        @dispatcher.shutdown()
        async def on_shutdown(bot: Bot) -> None:
            said.append(("shutdown", bot.id))

        async def elected(lease: Term, fencing_token: int, extra: int) -> None:
            said.append(("elected", lease.name, fencing_token, extra))

        def step_down(bot: Bot) -> None:
            said.append(("stepped down", bot.id))

        options = {"on_elected": elected, "on_step_down": step_down, "extra": 3}
        async with started(simulator, dispatcher, bot, **options) as (leadership, running):
            assert said == [("startup", 42, 1, "hello", 3)]
            assert simulator.oracle.polls() == [], "a standby sends no getUpdates"
            for number in (1, 2):
                term = leadership.grant(LOCK)
                simulator.push(BOT)
                await handled.until(partial(has_handled, handled, number))
                term.term.step_down("test")
                await until(lambda: leadership.is_standing_by(LOCK))
            leadership.stop()
            await running
        assert said[1:] == [
            ("elected", LOCK, 1, 3),
            ("stepped down", 42),
            ("elected", LOCK, 2, 3),
            ("stepped down", 42),
            ("shutdown", 42),
        ]


async def test_several_bots_are_each_led_wherever_they_are_free() -> None:
    """Each bot has a lock and a term of its own, and its handlers know which bot they serve."""
    handled = Handled()
    async with TelegramSimulator() as simulator:
        bots = [ClientBot(simulator, "one", token=f"{number}:TOKEN") for number in (1, 2, 3)]
        dispatcher = dispatcher_with(simulator, handled)
        async with started(simulator, dispatcher, *bots) as (leadership, running):
            await until(lambda: all(leadership.is_standing_by(lock_name(bot)) for bot in bots))
            leadership.grant("telegram/1")
            leadership.grant("telegram/3")
            for bot in (1, 2, 3):
                simulator.push(bot, chat_id=bot)
            await handled.until(lambda: len(handled.finished) == 2)
            assert sorted(run.chat for run in handled.runs) == [1, 3]
            leadership.grant("telegram/2")
            await handled.until(lambda: len(handled.finished) == 3)
            leadership.stop()
            await running
        assert simulator.oracle.report().pending == 0


async def test_a_refused_token_releases_its_bot_and_not_the_others() -> None:
    """401 for one of two bots: the other one is polled on; when none is left, TelegramTokenRefused says so."""
    handled = Handled()
    async with TelegramSimulator() as simulator:
        bots = [ClientBot(simulator, "one", token=f"{number}:TOKEN") for number in (1, 2)]
        simulator.revoke(1)
        async with started(simulator, dispatcher_with(simulator, handled), *bots) as (leadership, running):
            await until(lambda: leadership.is_standing_by("telegram/2"))
            leadership.grant("telegram/2")
            simulator.push(2)
            await handled.until(lambda: len(handled.finished) == 1)
            assert not leadership.is_standing_by("telegram/1")
            simulator.revoke(2)
            with pytest.raises(TelegramTokenRefused, match=r"bot [12]"):
                await running


async def test_telegram_may_be_down_at_the_start() -> None:
    """Without an answer from Telegram the process stands by all the same: another failure is the poller's to meet."""
    async with TelegramSimulator() as simulator:
        simulator.inject(Fault("drop", method="getMe"))
        handled = Handled()
        dispatcher, bot = dispatcher_with(simulator, handled), ClientBot(simulator, "one")
        async with started(simulator, dispatcher, bot) as (leadership, _):
            leadership.grant(LOCK)
            simulator.push(BOT)
            await handled.until(lambda: len(handled.finished) == 1)


async def test_aiograms_parameters_do_what_they_say() -> None:
    """polling_timeout, handle_as_tasks, allowed_updates, tasks_concurrency_limit and backoff_config reach the
    poller."""
    highest = now = 0

    async def work(message: Message, **data: Any) -> None:
        nonlocal highest, now
        now += 1
        highest = max(now, highest)
        await asyncio.sleep(0.02)
        now -= 1

    for options, most in (({"handle_as_tasks": False}, 1), ({"tasks_concurrency_limit": 2}, 2)):
        handled = Handled(work)
        highest = 0
        async with TelegramSimulator() as simulator:
            bot = ClientBot(simulator, "one")
            backoff = BackoffConfig(min_delay=0.01, max_delay=0.02, factor=1.3, jitter=0.0)
            arguments = {
                "polling_timeout": 1,
                "allowed_updates": ["message"],
                "backoff_config": backoff,
                **options,
            }
            async with started(simulator, dispatcher_with(simulator, handled), bot, **arguments) as (leadership, _):
                simulator.inject(Fault(status=502, times=5))
                simulator.push_many(BOT, 6, chats=range(1, 7))
                leadership.grant(LOCK)
                await handled.until(partial(has_handled, handled, 6), timeout=8)
                assert highest == most
                assert simulator.push(BOT, kind="callback_query") is None
                await until(lambda: len(simulator.oracle.polls()) >= 8)


@pytest.mark.parametrize("order", ["none", "chat"])
async def test_order_and_window_come_from_the_configuration(
    order: Literal["none", "chat"], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """`telegram.order` and `telegram.window` reach the poller: with `chat` the second update of a chat waits, and a
    strict window is full behind a hundred, however long they take."""
    monkeypatch.setattr(early, "LONG", 0.1)
    release = asyncio.Event()

    async def work(message: Message, **data: Any) -> None:
        await release.wait()

    handled = Handled(work)
    settings = Settings(telegram=TelegramSection(order=order, window="strict"), instance="a")
    async with TelegramSimulator() as simulator:
        bot, dispatcher = ClientBot(simulator, "one"), dispatcher_with(simulator, handled)
        async with started(simulator, dispatcher, bot, config=settings) as (leadership, _):
            simulator.push_many(BOT, 120)
            leadership.grant(LOCK)
            await until(lambda: "the window is full" in caplog.text)
            assert len(handled.runs) == (1 if order == "chat" else 100)
            release.set()
            await handled.until(lambda: len(handled.finished) == 120)


async def test_the_kinds_of_updates_are_those_that_have_handlers() -> None:
    """Without allowed_updates Telegram is asked for what the Dispatcher has handlers for."""
    async with TelegramSimulator() as simulator:
        bot = ClientBot(simulator, "one")
        async with started(simulator, dispatcher_with(simulator, Handled()), bot) as (leadership, _):
            leadership.grant(LOCK)
            await until(lambda: simulator.bot(BOT).parked is not None)
            assert simulator.push(BOT, kind="callback_query") is None
            assert simulator.push(BOT) is not None


@pytest.mark.parametrize("from_handler", [True, False])
async def test_stop_polling_stops_it(from_handler: bool) -> None:
    """`dispatcher.stop_polling()` works as with aiogram, also out of a handler, whose update is confirmed."""

    async def work(message: Message, **data: Any) -> None:
        if from_handler:
            await dispatcher.stop_polling()

    handled = Handled(work)
    async with TelegramSimulator() as simulator:
        dispatcher, bot = dispatcher_with(simulator, handled), ClientBot(simulator, "one")
        async with started(simulator, dispatcher, bot) as (leadership, running):
            leadership.grant(LOCK)
            simulator.push(BOT)
            await handled.until(lambda: len(handled.finished) == 1)
            if not from_handler:
                await dispatcher.stop_polling()
            await asyncio.wait_for(running, 2)
        assert [run.outcome for run in handled.runs] == ["ok"]
        assert simulator.oracle.report().pending == 0
        with pytest.raises(RuntimeError, match="not started"):
            await dispatcher.stop_polling()


async def test_cancelling_start_polling_leaves_nothing_behind() -> None:
    """Unlike aiogram's, a cancelled start_polling stops polling: no task of it goes on, and shutdown hooks have run."""
    said: list[str] = []
    handled = Handled()
    async with TelegramSimulator() as simulator:
        dispatcher, bot = dispatcher_with(simulator, handled), ClientBot(simulator, "one")
        dispatcher.shutdown.register(lambda: said.append("shutdown"))
        before = asyncio.all_tasks()
        async with started(simulator, dispatcher, bot) as (leadership, running):
            leadership.grant(LOCK)
            await until(lambda: simulator.bot(BOT).parked is not None)
            running.cancel()
            await asyncio.wait([running])
            assert running.cancelled()
            assert said == ["shutdown"]
            left = {task for task in asyncio.all_tasks() - before if "simulator" not in str(task)}
            assert not [task for task in left if "cluster_lock/aiogram" in str(task)]
            polls = len(simulator.oracle.polls())
            await asyncio.sleep(0.3)  # nothing may happen in it
            assert len(simulator.oracle.polls()) == polls


def test_dialogues_in_memory_are_warned_about_once(caplog: pytest.LogCaptureFixture) -> None:
    """A Dispatcher that keeps its FSM in memory is told that a hand-over forgets it; one without FSM is not."""

    async def main() -> None:
        async with TelegramSimulator() as simulator:
            for options in ({"storage": MemoryStorage()}, {"disable_fsm": True}):
                bot = ClientBot(simulator, "one")
                async with started(simulator, dispatcher_with(simulator, Handled(), "one", **options), bot):
                    pass

    caplog.set_level(logging.WARNING, "cluster_lock")
    aio.run(main())
    assert len([record for record in caplog.records if "MemoryStorage" in record.getMessage()]) == 1


async def test_the_sessions_are_closed_unless_that_is_not_wanted() -> None:
    """close_bot_session closes the bots' HTTP session at the end, and False leaves it open."""
    async with TelegramSimulator() as simulator:
        for close in (True, False):
            bot = ClientBot(simulator, "one")
            dispatcher = dispatcher_with(simulator, Handled())
            async with started(simulator, dispatcher, bot, close_bot_session=close):
                session: Any = bot.session
                http = await session.create_session()
            assert http.closed == close
            await bot.session.close()


@pytest.mark.parametrize(
    ("bots", "arguments", "error", "text"),
    [
        (0, {}, ValueError, "At least one bot"),
        (2, {}, ValueError, "twice"),
        (1, {"bot": 1}, ValueError, "'bot' is not acceptable"),
        (1, {"config": {"my": "own"}}, TypeError, r'dispatcher\["config"\]'),
    ],
)
def test_wrong_arguments_are_refused_with_a_sentence(
    bots: int, arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    """What cannot be meant is refused before anything starts, and the text says what to do."""
    with pytest.raises(error, match=text):
        asyncio.run(start_polling(Dispatcher(), *[Bot(TOKEN)] * bots, **arguments))


def test_the_lock_of_a_bot_is_named_by_its_public_id() -> None:
    """The name holds the id and the environment, never the token."""
    from aiogram.client.session.aiohttp import AiohttpSession
    from aiogram.client.telegram import TEST

    assert lock_name(Bot(TOKEN)) == "telegram/42"
    assert lock_name(Bot(TOKEN, session=AiohttpSession(api=TEST))) == "telegram-test/42"


async def test_the_manager_gives_up_after_its_retries_and_tells_of_each_conflict() -> None:
    """PollingManager waits 1, 2, 4 times its delay, calls back each time, and raises ConflictPersists after the
    last."""
    told: list[ours.Conflict] = []
    async with TelegramSimulator() as simulator:
        bot, leadership = ClientBot(simulator, "one"), LeadershipDouble()
        simulator.inject(Fault(status=409, description="Conflict: terminated by other getUpdates", times=4))
        manager = ours.PollingManager(max_retries=3, initial_delay=0.05, max_delay=0.2)
        running = asyncio.ensure_future(
            manager.start_polling_with_retry(
                dispatcher_with(simulator, Handled()),
                bot,
                on_conflict_callback=told.append,
                leadership=leadership,
                handle_signals=False,
            )
        )
        await until(lambda: leadership.is_standing_by(LOCK))
        leadership.grant(LOCK)
        with pytest.raises(ConflictPersists):
            await running
        assert [conflict.attempt for conflict in told] == [1, 2, 3, 4]
        assert [conflict.delay for conflict in told] == [0.05, 0.1, 0.2, 0.2]
        assert (leadership.terms, leadership.is_standing_by(LOCK)) == ({}, False)
        assert leadership.reason is not None
        assert leadership.reason.code is EndCode.BOT_FAILED


def test_the_managers_own_numbers() -> None:
    """PollingManager is made with its four numbers, which have the defaults that its users know, and waits to the
    second unless it is told otherwise."""
    defaults = {
        name: parameter.default for name, parameter in inspect.signature(ours.PollingManager).parameters.items()
    }
    assert defaults == {
        "max_retries": 5,
        "initial_delay": 5.0,
        "max_delay": 300.0,
        "backoff_factor": 2.0,
        "jitter": 0.0,
    }


@pytest.mark.parametrize("takes_it", [True, False])
def test_the_managers_rules_are_its_numbers(takes_it: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The waits are 5, 10, 20, 40 and 80 s, then it gives up; a callback without an argument is called without one."""
    called: list[Any] = []
    given: dict[str, Any] = {}

    async def start_polling(*_: Any, **arguments: Any) -> None:
        given.update(arguments)

    async def with_it(conflict: ours.Conflict) -> None:
        called.append(conflict)

    async def without() -> None:
        called.append(None)

    monkeypatch.setattr("cluster_lock.aiogram.manager.start_polling", start_polling)
    callback: Any = with_it if takes_it else without
    manager = ours.PollingManager()
    asyncio.run(manager.start_polling_with_retry(Dispatcher(), Bot(TOKEN), on_conflict_callback=callback))
    rules = given["on_conflict"]
    pause = Backoff(rules.first, rules.longest, rules.factor, rules.jitter)
    assert [pause.next() for _ in range(rules.give_up_after)] == [5.0, 10.0, 20.0, 40.0, 80.0]
    conflict = ours.Conflict(BOT, LOCK, 1, 5.0, 1, False, "Conflict")
    asyncio.run(rules.on_conflict(conflict))
    assert called == [conflict if takes_it else None]


def test_a_wrong_configuration_is_refused_before_telegram_is_asked(tmp_path: Path) -> None:
    """A file with an error in it raises ConfigError with its line; no request is sent."""
    from cluster_lock.errors import ConfigError

    file = tmp_path / "config.yaml"
    file.write_text("backend: nonsense\n")
    with pytest.raises(ConfigError, match=r"config\.yaml:1"):
        asyncio.run(start_polling(Dispatcher(), Bot(TOKEN), config=file))
