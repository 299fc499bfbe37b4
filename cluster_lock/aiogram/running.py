"""Lead with pollers until stopped: the Dispatcher's hooks, and one bot's trouble kept from the others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import asdict
from typing import Any

from aiogram import Bot, Dispatcher
from aiogram.exceptions import TelegramNotFound, TelegramUnauthorizedError
from aiogram.fsm.storage.memory import MemoryStorage
from aiogram.methods import GetMe

from cluster_lock.aio import end, finish
from cluster_lock.election import Election, Leadership
from cluster_lock.telegram.errors import RequestUnguarded, TelegramTokenRefused
from cluster_lock.values import EndCode, EndReason

from .classify import describe
from .http_session import GuardedRequest
from .poller import Poller
from .recovery import SECOND_LOOK, refused_again
from .stopping import PollerStopping

log = logging.getLogger("cluster_lock.aiogram")

FIRST_LOOK = 10.0
"""Seconds for the first word with Telegram. Without an answer we stand by all the same."""
HOOKS_WITHIN = 10.0
"""Seconds for the shutdown hooks, all together."""
HURRIED_WITHIN = 1.0
"""The same after a second signal."""


async def run_pollers(
    dispatcher: Dispatcher,
    pollers: Iterable[Poller],
    leadership: Leadership,
    data: Mapping[str, Any],
    stopping: PollerStopping,
    *,
    drain: float,
    shared: bool = False,
) -> None:
    """Lead with these pollers until stopped, with the Dispatcher's hooks around it. `shared`: others may lead by this
    leadership, too, and go on when it is only we who stop."""
    pollers = list(pollers)
    _warn_about_memory_storage(dispatcher)

    def stop(reason: EndReason) -> None:
        if shared and isinstance(leadership, Election) and not stopping.by_signal:
            for poller in pollers:
                leadership.stop(reason, poller.lock)
        else:
            leadership.stop(reason)

    stopping.then(stop)
    hooks = {**dispatcher.workflow_data, **data, "bot": pollers[-1].bot}
    with ExitStack() as stack:
        if isinstance(leadership, Election):
            stack.enter_context(leadership.reporting(lambda: [asdict(poller.state) for poller in pollers]))
        with leadership.nothing_led_yet() if isinstance(leadership, Election) else nullcontext():
            if not await _startup(dispatcher, hooks, pollers, stopping, drain):
                return
        try:
            await _lead_all(pollers, leadership, stopping)
        finally:
            await finish(_shutdown(dispatcher, hooks, stopping))


async def _startup(
    dispatcher: Dispatcher, hooks: Mapping[str, Any], pollers: list[Poller], stopping: PollerStopping, drain: float
) -> bool:
    """The startup hooks, in this very task, as with aiogram: False if they had to be cut off, since somebody asked to
    stop. Raises what they raise; TelegramTokenRefused if it was that which ended them."""

    async def cut_off() -> None:
        await stopping.wait()
        async with asyncio.timeout(drain):
            await stopping.hurried.wait()

    cutting = asyncio.ensure_future(cut_off())
    try:
        async with asyncio.timeout(None) as limit:
            cutting.add_done_callback(lambda _: limit.reschedule(0) if not cutting.cancelled() else None)
            await dispatcher.emit_startup(**hooks)
    except TimeoutError:
        if not limit.expired():
            raise
        log.error("the startup hooks have not returned since the stop was asked for (%s): cut off", stopping.reason)
        return False
    except (TelegramUnauthorizedError, TelegramNotFound):
        for poller in pollers:
            await _first_look(poller.bot)
        raise
    finally:
        await finish(end([cutting]))
        if not cutting.cancelled():
            cutting.exception()
    return True


async def _shutdown(dispatcher: Dispatcher, hooks: Mapping[str, Any], stopping: PollerStopping) -> None:
    """The shutdown hooks, for a limited time: whatever they do, the process ends. Raises what they raise."""
    work = asyncio.ensure_future(dispatcher.emit_shutdown(**hooks))
    stopping.own.add(work)
    hurrying = asyncio.ensure_future(stopping.hurried.wait())
    try:
        await asyncio.wait((work, hurrying), timeout=HOOKS_WITHIN, return_when=asyncio.FIRST_COMPLETED)
        if hurrying.done():
            await asyncio.wait([work], timeout=HURRIED_WITHIN)
    finally:
        hurrying.cancel()
    if work.done():
        work.result()
        return
    work.cancel()
    await asyncio.wait([work], timeout=HURRIED_WITHIN / 2)
    left = "cut off" if work.done() else "left behind, since they do not let themselves be cancelled"
    limit = HURRIED_WITHIN if stopping.hurried.is_set() else HOOKS_WITHIN
    log.error("the shutdown hooks have not returned within %g s: %s", limit, left)


async def _lead_all(pollers: list[Poller], leadership: Leadership, stopping: PollerStopping) -> None:
    """Each bot by itself. One whose token is refused leaves the others alone; any other failure stops them all.

    When we are cancelled, all stop in good order, as after a signal; cancelled once more, at once."""
    leads = {asyncio.ensure_future(_lead(poller, leadership, stopping)): poller for poller in pollers}
    hurrying = asyncio.ensure_future(stopping.hurried.wait())
    failures: list[BaseException] = []
    cancelled: asyncio.CancelledError | None = None
    try:
        left = set(leads)
        while left and not stopping.hurried.is_set():
            try:
                done, _ = await asyncio.wait({*left, hurrying}, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError as error:
                if cancelled is not None:
                    raise
                cancelled = error
                stopping.ask("start_polling was cancelled")
                continue
            for task in [task for task in left if task in done]:
                left.discard(task)
                failure = task.exception()
                if failure is None:
                    continue
                failures.append(failure)
                if isinstance(failure, TelegramTokenRefused):
                    log.error("%s: not polled", failure)
                else:
                    text = f"bot {leads[task].bot.id} failed: {type(failure).__name__}"
                    stopping.ask(EndReason(text, EndCode.BOT_FAILED))
    finally:
        await finish(end([*leads, hurrying]))
        await finish(_close(pollers))
    if cancelled is not None:
        raise cancelled
    others = [error for error in failures if not isinstance(error, TelegramTokenRefused)]
    if others or len(failures) == len(leads):
        raise (others or failures)[0]


async def _lead(poller: Poller, leadership: Leadership, stopping: PollerStopping) -> None:
    await _first_look(poller.bot)
    if stopping.reason is not None:
        return
    await leadership.lead(poller.lock, poller.run, answer=poller.answer)


async def _first_look(bot: Bot) -> None:
    """Know a refused token now and not in the hour of need, and that our requests can be reset; open the connection.
    Telegram may be down: no matter."""
    try:
        async with asyncio.timeout(FIRST_LOOK):
            me = await GuardedRequest(bot.session, lambda: None, lambda: FIRST_LOOK).ask(bot, GetMe())
    except RequestUnguarded:
        raise
    except (TelegramUnauthorizedError, TelegramNotFound) as error:
        log.warning("bot %d: Telegram refuses the token, looking once more: %s", bot.id, describe(error, bot.token))
        await asyncio.sleep(SECOND_LOOK)
        await refused_again(bot)
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


async def _close(pollers: list[Poller]) -> None:
    for poller in pollers:
        await poller.close()
