"""`start_polling`: what a program calls instead of `dispatcher.start_polling`, with the same arguments."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiogram import Bot, Dispatcher
from aiogram.dispatcher.event.handler import CallableObject
from aiogram.exceptions import TelegramNotFound, TelegramUnauthorizedError
from aiogram.fsm.storage.memory import MemoryStorage
from aiogram.types.base import UNSET, UNSET_TYPE
from aiogram.utils.backoff import BackoffConfig

from cluster_lock.errors import TelegramTokenRefused
from cluster_lock.leadership import Leadership, Term
from cluster_lock.tasks import end, finish

from .classify import describe
from .conflicts import ConflictRules, OnConflict
from .http_session import prepare_sessions
from .poller import Poller
from .rules import OnFailed, OnTerm, Rules

if TYPE_CHECKING:
    from cluster_lock.config import Settings

log = logging.getLogger("cluster_lock.aiogram")

FIRST_LOOK = 10.0
"""Seconds for the first word with Telegram. Without an answer we stand by all the same."""
OURS = "lease", "fencing_token"
"""Arguments that every handler gets from us."""


async def start_polling(
    dispatcher: Dispatcher,
    *bots: Bot,
    polling_timeout: int | None = None,
    handle_as_tasks: bool = True,
    backoff_config: BackoffConfig | None = None,
    allowed_updates: list[str] | UNSET_TYPE | None = UNSET,
    handle_signals: bool = True,
    close_bot_session: bool = True,
    tasks_concurrency_limit: int | None = None,
    config: Settings | str | os.PathLike[str] | None = None,
    leadership: Leadership | None = None,
    on_elected: Callable[..., Any] | None = None,
    on_step_down: Callable[..., Any] | None = None,
    on_conflict: OnConflict | None = None,
    on_failed: OnFailed | None = None,
    **kwargs: Any,
) -> None:
    """Poll `bots`, each exactly as long as this process holds its lock; stand by for the others. Until stopped.

    Everything before `config` means what it means in `Dispatcher.start_polling`, except that an update is confirmed
    after its handler and that updates of one chat are handled in order. `polling_timeout`, `backoff_config` and
    `tasks_concurrency_limit` win over the configuration; `handle_as_tasks=False` handles one update at a time;
    `handle_signals`: SIGTERM and SIGINT step down in good order, a second one ends at once. `dispatcher.stop_polling()`
    works, and returns as soon as the stop is under way (a handler that calls it must end for the stop to be complete).

    `config`: a file, or the settings; by default what `cluster_lock.config.load()` finds. `leadership`: a source of
    terms of your own; then `config` is read only if it is given. Startup and shutdown hooks run once per process, in
    standbys too, and may ask for `leadership` as an argument. `on_elected` and `on_step_down` run at the beginning
    and the end of each term of each bot; they may ask for what handlers may ask for: `bot`, `lease`, `fencing_token`
    and your own data. Every other keyword goes to the handlers, as with aiogram.

    Raises ConfigError, TelegramTokenRefused when Telegram refuses the token of every bot, and what makes leading
    impossible.
    """
    _refuse_wrong_arguments(bots, config, kwargs)
    settings = _settings(config, leadership)
    async with AsyncExitStack() as stack:
        if close_bot_session:
            stack.push_async_callback(_close_sessions, bots)
        await prepare_sessions(bots)
        source = leadership or await stack.enter_async_context(_leadership(settings))
        data = {"bots": bots, "leadership": source, **kwargs}
        rules = _rules(settings, dispatcher, data, on_failed)
        rules = replace(
            rules,
            timing=replace(rules.timing, poll_timeout=polling_timeout) if polling_timeout else rules.timing,
            sequential=not handle_as_tasks,
            backoff=backoff_config,
            max_concurrent=tasks_concurrency_limit or rules.max_concurrent,
            allowed_updates=_allowed_updates(dispatcher, allowed_updates),
            conflict=replace(rules.conflict, on_conflict=on_conflict) if on_conflict else rules.conflict,
            on_elected=_with_data(on_elected, dispatcher, data),
            on_step_down=_with_data(on_step_down, dispatcher, data),
        )
        pollers = [Poller(dispatcher, bot, rules) for bot in bots]
        await run_pollers(dispatcher, pollers, source, data, handle_signals=handle_signals)


def run_polling(dispatcher: Dispatcher, *bots: Bot, **arguments: Any) -> None:
    """`start_polling` in an event loop of its own, as `Dispatcher.run_polling`: uvloop's if it is installed."""
    with suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(start_polling(dispatcher, *bots, **arguments))


async def run_pollers(
    dispatcher: Dispatcher,
    pollers: Iterable[Poller],
    leadership: Leadership,
    data: Mapping[str, Any],
    *,
    handle_signals: bool,
) -> None:
    """Lead with these pollers until stopped, with the Dispatcher's hooks around it."""
    pollers = list(pollers)
    _warn_about_memory_storage(dispatcher)
    async with _as_running(dispatcher, leadership), _signals(leadership, handle_signals):
        hooks = {"dispatcher": dispatcher, **dispatcher.workflow_data, **data, "bot": pollers[-1].bot}
        await dispatcher.emit_startup(**hooks)
        try:
            await _lead_all(pollers, leadership)
        finally:
            await dispatcher.emit_shutdown(**hooks)


async def _lead_all(pollers: list[Poller], leadership: Leadership) -> None:
    """Each bot by itself. One whose token is refused leaves the others alone; any other failure stops them all."""
    leads = {asyncio.ensure_future(_lead(poller, leadership)): poller for poller in pollers}
    failure: BaseException | None = None
    refused = 0
    try:
        left = set(leads)
        while left:
            done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                error = task.exception()
                if isinstance(error, TelegramTokenRefused):
                    log.error("%s; the bot is released", error)
                    refused += 1
                    failure = failure or (error if refused == len(leads) else None)
                elif error is not None:
                    failure = error
                    leadership.stop(f"bot {leads[task].bot.id} failed: {type(error).__name__}")
    finally:
        await finish(end(leads))
        await finish(_close(pollers))
    if failure is not None:
        raise failure


async def _lead(poller: Poller, leadership: Leadership) -> None:
    await _first_look(poller.bot)
    await leadership.lead(poller.lock, poller.run, answer=poller.answer)


async def _first_look(bot: Bot) -> None:
    """Know a refused token now and not in the hour of need; open the connection. Telegram may be down: no matter."""
    try:
        async with asyncio.timeout(FIRST_LOOK):
            me = await bot.me()
    except (TelegramUnauthorizedError, TelegramNotFound) as error:
        raise TelegramTokenRefused(
            f"Telegram refuses the token of bot {bot.id}: {describe(error, bot.token)}"
        ) from error
    except Exception as error:  # noqa: BLE001 - whatever it is, the poller meets it again and knows what to do
        log.warning("bot %d: Telegram does not say who it is: %s", bot.id, describe(error, bot.token))
    else:
        log.info("bot %d is @%s", bot.id, me.username)


def _refuse_wrong_arguments(bots: tuple[Bot, ...], config: object, kwargs: Mapping[str, Any]) -> None:
    if not bots:
        raise ValueError("At least one bot instance is required to start polling")
    if "bot" in kwargs:
        raise ValueError(
            "Keyword argument 'bot' is not acceptable, the bot instance should be passed as positional argument"
        )
    for name in OURS:
        if name in kwargs:
            raise ValueError(f"Keyword argument {name!r} is not acceptable: handlers get it from the lock")
    if len({bot.id for bot in bots}) < len(bots):
        raise ValueError("The same bot is given twice: it has one lock, and is polled once")
    if not isinstance(config, str | os.PathLike | None) and type(config).__name__ != "Settings":
        raise TypeError(
            f"config is the configuration of cluster-lock (a file or Settings), not {type(config).__name__}: put data"
            ' for your handlers into the Dispatcher, dispatcher["config"] = ...'
        )


def _settings(config: Settings | str | os.PathLike[str] | None, leadership: Leadership | None) -> Settings | None:
    if config is None and leadership is not None:
        return None
    from cluster_lock.config import Settings, load

    if isinstance(config, Settings):
        return config
    return load(None if config is None else Path(config))


def _leadership(settings: Settings | None) -> AbstractAsyncContextManager[Leadership]:
    from cluster_lock.election import open_election

    assert settings is not None
    return open_election(settings)


def _rules(
    settings: Settings | None, dispatcher: Dispatcher, data: Mapping[str, Any], on_failed: OnFailed | None
) -> Rules:
    if settings is None:
        return Rules(data=data, on_failed=on_failed)
    telegram = settings.telegram
    return Rules(
        timing=settings.timing,
        delivery=telegram.delivery,
        max_concurrent=telegram.max_concurrent,
        conflict=ConflictRules(on_conflict=telegram.on_conflict),
        delete_webhook=telegram.delete_webhook,
        instance=settings.instance,
        data=data,
        on_failed=on_failed,
    )


def _allowed_updates(dispatcher: Dispatcher, given: list[str] | UNSET_TYPE | None) -> list[str] | None:
    if isinstance(given, UNSET_TYPE):
        return dispatcher.resolve_used_update_types()
    return given


def _with_data(callback: Callable[..., Any] | None, dispatcher: Dispatcher, data: Mapping[str, Any]) -> OnTerm | None:
    """A callback of the user's, given what it asks for by name, as aiogram does with a startup hook."""
    if callback is None:
        return None
    call = CallableObject(callback)

    async def on_term(bot: Bot, term: Term) -> None:
        own = {"bot": bot, "dispatcher": dispatcher, "lease": term, "fencing_token": term.fencing_token}
        await call.call(**{**dispatcher.workflow_data, **data, **own})

    return on_term


def _warn_about_memory_storage(dispatcher: Dispatcher) -> None:
    if isinstance(dispatcher.storage, MemoryStorage) and dispatcher.fsm in list(dispatcher.update.outer_middleware):
        log.warning(
            "the Dispatcher keeps the state of its dialogues in the memory of this process (MemoryStorage): they are"
            " forgotten at every hand-over. Use a storage that all instances share, or disable_fsm=True"
        )


@asynccontextmanager
async def _as_running(dispatcher: Dispatcher, leadership: Leadership) -> AsyncIterator[None]:
    """What aiogram's own start_polling does with the Dispatcher, so that `dispatcher.stop_polling()` stops us and
    nobody starts it twice. The attributes are aiogram's own; they have been there since 3.0."""
    async with dispatcher._running_lock:
        stop = dispatcher._stop_signal = asyncio.Event()
        stopped = dispatcher._stopped_signal = asyncio.Event()

        async def stop_when_asked() -> None:
            await stop.wait()
            leadership.stop("stop_polling was called")
            # Whoever called it may be a handler, and the stop waits for handlers.
            stopped.set()

        watching = asyncio.ensure_future(stop_when_asked())
        try:
            yield
        finally:
            await finish(end([watching]))
            stopped.set()


@asynccontextmanager
async def _signals(leadership: Leadership, handle: bool) -> AsyncIterator[None]:
    if not handle:
        yield
        return
    raise NotImplementedError


async def _close(pollers: list[Poller]) -> None:
    for poller in pollers:
        await poller.close()


async def _close_sessions(bots: tuple[Bot, ...]) -> None:
    for session in {id(bot.session): bot.session for bot in bots}.values():
        await session.close()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return None
    return uvloop.new_event_loop  # type: ignore[no-any-return,unused-ignore]
