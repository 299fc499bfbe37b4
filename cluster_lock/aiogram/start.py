"""`start_polling`: what a program calls instead of `dispatcher.start_polling`, with the same arguments."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiogram import Bot, Dispatcher
from aiogram.dispatcher.event.handler import CallableObject
from aiogram.types.base import UNSET, UNSET_TYPE
from aiogram.utils.backoff import BackoffConfig

from cluster_lock.election import Election, Leadership, Term
from cluster_lock.errors import AlreadyRunning, ClusterLockError, ConfigError
from cluster_lock.host.state_directory import file_name
from cluster_lock.keeper.names import under_keeper, visits_keeper
from cluster_lock.keeper.opening import open_shown_election
from cluster_lock.keeper.slots import slot
from cluster_lock.telegram.times import LONGEST_POLL, TelegramTimes

from .arguments import of_process, of_term
from .conflicts import ConflictRules, OnConflict
from .http_session import check_sessions
from .loading import check
from .poller import Poller, lock_name
from .rules import OnFailed, OnTerm, Rules
from .running import run_pollers
from .stopping import as_running, signals

if TYPE_CHECKING:
    from cluster_lock.config import Settings
    from cluster_lock.process import InstanceLock

log = logging.getLogger("cluster_lock.aiogram")


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
    on_conflict: OnConflict | ConflictRules | None = None,
    on_failed: OnFailed | None = None,
    **kwargs: Any,
) -> None:
    """Poll `bots`, each exactly as long as this process holds its lock; stand by for the others. Until stopped.

    Everything before `config` means what it means in `Dispatcher.start_polling`, except that an update is confirmed
    after its handler. `polling_timeout`, `backoff_config` and
    `tasks_concurrency_limit` win over the configuration; `handle_as_tasks=False` handles one update at a time;
    `handle_signals`: SIGTERM and SIGINT step down in good order, a second one ends at once. `dispatcher.stop_polling()`
    stops in good order, too, and returns when all has ended; out of a handler or a hook, which must end for that, at
    once. So does a cancellation, which is raised when all has ended; a second one ends at once.

    `config`: a file, or the settings; by default what `cluster_lock.config.load()` finds. The bots keep their tokens
    and their server: `bot_from(settings)` makes one of `telegram.token` and `telegram.api`. `leadership`: a source of
    terms of your own; then `config` is read only if it is given. Startup and shutdown hooks run once per process, in
    standbys too, and may ask for `leadership` as an argument; the shutdown hooks have 10 s. `on_elected` and
    `on_step_down` run at the beginning and the end of each term of each bot; they may ask for what handlers may ask
    for: `bot`, `term`, `fencing_token`, `dispatcher` and your own data. An `on_elected` that fails, or has not returned
    after 30 s, ends that term: the bot is left to others for a while, and then tried again. Every other keyword goes to
    the handlers, as with aiogram; data of your own comes before ours of the same name.

    Raises ConfigError, AlreadyRunning when a process of this host polls one of the bots, or stands by for it, under the
    same instance name, TelegramTokenRefused when Telegram refuses the token of every bot, RequestUnguarded when a
    getUpdates could not be taken back at the end of its lease, and what makes leading impossible.
    """
    check("start_polling")
    _refuse_wrong_arguments(bots, kwargs)
    settings = _settings(config, leadership)
    async with AsyncExitStack() as stack:
        stopping = await stack.enter_async_context(as_running(dispatcher))
        await stack.enter_async_context(signals(stopping, handle=handle_signals, kept=_is_kept(leadership)))
        if close_bot_session:
            stack.push_async_callback(_close_sessions, bots)
        await check_sessions(bots)
        source = leadership
        if source is None:
            assert settings is not None
            held = _hold_slots(stack, settings, bots)
            tokens = [bot.token for bot in bots]
            source = await stack.enter_async_context(open_shown_election(settings, held, secrets=tokens))
        data = of_process(dispatcher, bots, source, kwargs)
        rules = _rules(settings, dispatcher, data, on_failed)
        rules = replace(
            rules,
            times=_with_poll_timeout(rules.times, polling_timeout),
            sequential=not handle_as_tasks,
            backoff=backoff_config,
            max_concurrent=tasks_concurrency_limit or rules.max_concurrent,
            limited=bool(tasks_concurrency_limit),
            allowed_updates=_allowed_updates(dispatcher, allowed_updates),
            conflict=_conflict_rules(rules, on_conflict),
            on_elected=_with_data(on_elected, dispatcher, data),
            on_step_down=_with_data(on_step_down, dispatcher, data),
        )
        pollers = [Poller(dispatcher, bot, rules) for bot in bots]
        await run_pollers(
            dispatcher, pollers, source, data, stopping, drain=rules.timing.drain, shared=leadership is not None
        )


def run_polling(dispatcher: Dispatcher, *bots: Bot, **arguments: Any) -> None:
    """`start_polling` in an event loop of its own, as `Dispatcher.run_polling`: uvloop's if it is installed."""
    check("run_polling")
    with suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(start_polling(dispatcher, *bots, **arguments))


def _refuse_wrong_arguments(bots: tuple[Bot, ...], kwargs: Mapping[str, Any]) -> None:
    if not bots:
        raise ValueError("At least one bot instance is required to start polling")
    if "bot" in kwargs:
        raise ValueError(
            "Keyword argument 'bot' is not acceptable, the bot instance should be passed as positional argument"
        )
    if len({bot.id for bot in bots}) < len(bots):
        raise ValueError("The same bot is given twice: it has one lock, and is polled once")


def _settings(config: Settings | str | os.PathLike[str] | None, leadership: Leadership | None) -> Settings | None:
    if config is None and leadership is not None:
        return None
    from cluster_lock.config import Settings, load

    if isinstance(config, Settings):
        return config
    if not isinstance(config, str | os.PathLike | None):
        raise TypeError(
            f"config is the configuration of cluster-lock (a file or Settings), not {type(config).__name__}: put data"
            ' for your handlers into the Dispatcher, dispatcher["config"] = ...'
        )
    return load(None if config is None else Path(config))


def _with_poll_timeout(times: TelegramTimes, given: int | None) -> TelegramTimes:
    if given is None:
        return times
    seconds = min(LONGEST_POLL, max(1, given))
    if seconds != given:
        log.warning("polling_timeout=%s: a getUpdates waits for %d s instead, of 1 to %d", given, seconds, LONGEST_POLL)
    return replace(times, poll_timeout=seconds)


def _is_kept(leadership: Leadership | None) -> bool:
    """Does a keeper stand over this process?"""
    if leadership is None:
        return under_keeper() or visits_keeper()
    return isinstance(leadership, Election) and leadership.kept


def _hold_slots(stack: AsyncExitStack, settings: Settings, bots: tuple[Bot, ...]) -> list[InstanceLock]:
    """Take the names on this host, as `cluster-lock bot start` does; under a keeper, which has them, none."""
    if under_keeper():
        return []
    try:
        held = [slot(settings.instance, lock_name(bot), settings.state_directory) for bot in bots]
        for name in held:
            stack.enter_context(name)
    except AlreadyRunning:
        raise
    except ClusterLockError as error:
        # Nothing is lost by it but this word: the lock in the backend lets one of the two poll, and not both.
        log.warning("a second start of the same bot on this host will not be noticed: %s", error)
        return []
    return held


def _rules(
    settings: Settings | None, dispatcher: Dispatcher, data: Mapping[str, Any], on_failed: OnFailed | None
) -> Rules:
    if settings is None:
        return Rules(data=data, on_failed=on_failed)
    telegram = settings.telegram
    return Rules(
        timing=settings.timing,
        times=settings.telegram_times,
        delivery=telegram.delivery,
        order=telegram.order,
        window=telegram.window,
        max_concurrent=telegram.max_concurrent,
        conflict=ConflictRules(on_conflict=telegram.on_conflict),
        delete_webhook=telegram.delete_webhook,
        instance=settings.instance,
        one_host=settings.backend == "file",
        data=data,
        on_failed=on_failed,
        crash_notes=_crash_notes(settings),
    )


def _crash_notes(settings: Settings) -> Callable[[int], Path] | None:
    try:
        folder = settings.state_directory / "crashes"
    except ConfigError as error:  # a container's user in no list: what can do without a folder does
        log.warning("updates that end the process are not recognised: %s", error)
        return None
    return lambda bot_id: folder / f"{bot_id}-{file_name(settings.instance)}"


def _conflict_rules(rules: Rules, given: OnConflict | ConflictRules | None) -> ConflictRules:
    if given is None or isinstance(given, ConflictRules):
        return given or rules.conflict
    return replace(rules.conflict, on_conflict=given)


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
        await call.call(**{**dispatcher.workflow_data, **of_term(dispatcher, data, term), "bot": bot})

    return on_term


async def _close_sessions(bots: tuple[Bot, ...]) -> None:
    for session in {id(bot.session): bot.session for bot in bots}.values():
        await session.close()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return None
    return uvloop.new_event_loop  # type: ignore[no-any-return,unused-ignore]
