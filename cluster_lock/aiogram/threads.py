"""Handlers that are plain functions.

aiogram runs them in threads, and a thread cannot be cancelled: asyncio would report the end of such a handler while it
still works, and the lock would be given away under it (docs/design.md#end-before-release). So a cancelled one is
awaited to its real end. If that takes too long, the source of the term ends the process. Threads of async handlers are
noted elsewhere (`cluster_lock.lease.threads`); this module works whatever executor the loop has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from weakref import WeakSet

from aiogram import Dispatcher
from aiogram.types import TelegramObject

from cluster_lock.aio import finish
from cluster_lock.election.leadership import current_work

_known: WeakSet[Dispatcher] = WeakSet()


def await_threads_of(dispatcher: Dispatcher) -> None:
    """Have the plain functions among the handlers of `dispatcher` and its routers awaited to their real end."""
    if dispatcher in _known:
        return
    _known.add(dispatcher)
    for name, observer in dispatcher.observers.items():
        if name != "update":  # that one has aiogram's own handler, which calls the others
            observer.middleware.register(_to_its_end)


async def _to_its_end(
    handler: Callable[[TelegramObject, dict[str, Any]], Awaitable[Any]], event: TelegramObject, data: dict[str, Any]
) -> Any:
    if data["handler"].awaitable:
        return await handler(event, data)
    result: Any = None

    async def call() -> None:
        nonlocal result
        result = await handler(event, data)

    try:
        await finish(call())
    except asyncio.CancelledError:
        # Cut off at a step-down it has come to its end all the same, under the lock: it need not come again.
        work, task = current_work(), asyncio.current_task()
        if work is None or task is None or not (work[0].stepping_down and work[0].is_valid()):
            raise
        task.uncancel()
    return result
