"""Lead with pollers until stopped: the Dispatcher's hooks, signals, and one bot's trouble kept from the others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any
from weakref import WeakKeyDictionary

from aiogram import Bot, Dispatcher
from aiogram.exceptions import TelegramNotFound, TelegramUnauthorizedError
from aiogram.fsm.storage.memory import MemoryStorage
from aiogram.methods import GetMe

from cluster_lock.election import Election
from cluster_lock.errors import RequestUnguarded, TelegramTokenRefused
from cluster_lock.leadership import Leadership
from cluster_lock.process import ShutdownManager
from cluster_lock.tasks import end, finish

from .classify import describe
from .http_session import GuardedRequest
from .poller import Poller

log = logging.getLogger("cluster_lock.aiogram")

FIRST_LOOK = 10.0
"""Seconds for the first word with Telegram. Without an answer we stand by all the same."""


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
    if isinstance(leadership, Election):
        leadership.reports = lambda: [asdict(poller.state) for poller in pollers]
    async with _as_running(dispatcher, leadership), _signals(leadership, handle_signals) as hurried:
        hooks = {"dispatcher": dispatcher, **dispatcher.workflow_data, **data, "bot": pollers[-1].bot}
        await dispatcher.emit_startup(**hooks)
        try:
            await _lead_all(pollers, leadership, hurried)
        finally:
            await dispatcher.emit_shutdown(**hooks)


async def _lead_all(pollers: list[Poller], leadership: Leadership, hurried: asyncio.Event) -> None:
    """Each bot by itself. One whose token is refused leaves the others alone; any other failure stops them all."""
    leads = {asyncio.ensure_future(_lead(poller, leadership)): poller for poller in pollers}
    hurrying = asyncio.ensure_future(hurried.wait())
    failures: list[BaseException] = []
    try:
        left = set(leads)
        while left and not hurried.is_set():
            done, _ = await asyncio.wait({*left, hurrying}, return_when=asyncio.FIRST_COMPLETED)
            for task in [task for task in left if task in done]:
                left.discard(task)
                error = task.exception()
                if error is None:
                    continue
                failures.append(error)
                if isinstance(error, TelegramTokenRefused):
                    log.error("%s: not polled", error)
                else:
                    leadership.stop(f"bot {leads[task].bot.id} failed: {type(error).__name__}")
    finally:
        await finish(end([*leads, hurrying]))
        await finish(_close(pollers))
    others = [error for error in failures if not isinstance(error, TelegramTokenRefused)]
    if others or len(failures) == len(leads):
        raise (others or failures)[0]


async def _lead(poller: Poller, leadership: Leadership) -> None:
    await _first_look(poller.bot)
    await leadership.lead(poller.lock, poller.run, answer=poller.answer)


async def _first_look(bot: Bot) -> None:
    """Know a refused token now and not in the hour of need, and that our requests can be reset; open the connection.
    Telegram may be down: no matter."""
    look = GuardedRequest(lambda: None, lambda: FIRST_LOOK)
    try:
        async with asyncio.timeout(FIRST_LOOK):
            me = await look.make(bot.session, lambda: bot(GetMe()))
    except RequestUnguarded:
        raise
    except (TelegramUnauthorizedError, TelegramNotFound) as error:
        raise TelegramTokenRefused(
            f"Telegram refuses the token of bot {bot.id}: {describe(error, bot.token)}"
        ) from error
    except Exception as error:  # noqa: BLE001 - whatever it is, the poller meets it again and knows what to do
        log.warning("bot %d: Telegram does not say who it is: %s", bot.id, describe(error, bot.token))
    else:
        log.info("bot %d is @%s", bot.id, me.username)


def _warn_about_memory_storage(dispatcher: Dispatcher) -> None:
    if isinstance(dispatcher.storage, MemoryStorage) and dispatcher.fsm in list(dispatcher.update.outer_middleware):
        log.warning(
            "the Dispatcher keeps the state of its dialogues in the memory of this process (MemoryStorage): they are"
            " forgotten at every hand-over. Use a storage that all instances share, or disable_fsm=True"
        )


_running: WeakKeyDictionary[Dispatcher, asyncio.Lock] = WeakKeyDictionary()


@asynccontextmanager
async def _as_running(dispatcher: Dispatcher, leadership: Leadership) -> AsyncIterator[None]:
    """While it is polled here, `dispatcher.stop_polling()` stops us, and `dispatcher.start_polling()`, which would poll
    without a lock, is an error. Who polls it a second time waits for the end of the first, as with aiogram."""

    async def stop_polling() -> None:
        # It does not wait for the end: whoever calls it may be a handler, and the stop waits for handlers.
        leadership.stop("stop_polling was called")

    async def start_polling(*_: Any, **__: Any) -> None:
        raise RuntimeError(
            "this Dispatcher is being polled under a lock: dispatcher.start_polling() would poll without"
        )

    ours = {"stop_polling": stop_polling, "start_polling": start_polling}
    async with _running.setdefault(dispatcher, asyncio.Lock()):
        before = {name: vars(dispatcher)[name] for name in ours if name in vars(dispatcher)}
        vars(dispatcher).update(ours)
        try:
            yield
        finally:
            for name in ours:
                del vars(dispatcher)[name]
            vars(dispatcher).update(before)


@asynccontextmanager
async def _signals(leadership: Leadership, handle: bool) -> AsyncIterator[asyncio.Event]:
    """The first signal steps down in good order, the second sets the event: end without draining. Under a keeper a
    second one is the keeper's to hear, and its way to end this process."""
    hurried = asyncio.Event()
    if not handle:
        yield hurried
        return

    async def hurry() -> None:
        hurried.set()

    async def stop_when_asked() -> None:
        number = await shutdown.wait()
        leadership.stop(number.name if number is not None else "stopping")

    kept = isinstance(leadership, Election) and leadership.kept
    async with ShutdownManager(on_second_signal=hurry, hurries=not kept) as shutdown:
        shutdown.register_signals()
        watching = asyncio.ensure_future(stop_when_asked())
        try:
            yield hurried
        finally:
            await finish(end([watching]))


async def _close(pollers: list[Poller]) -> None:
    for poller in pollers:
        await poller.close()
