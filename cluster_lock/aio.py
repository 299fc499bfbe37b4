"""What asyncio does not say in one word."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Iterable
from typing import Any

JITTER = 0.2
ASK_AGAIN = 10.0
"""Seconds: longer than any of ours tidies up."""


class Backoff:
    """Waits that grow while something goes on failing: `first` seconds, then `factor` times as long each time, up to
    `longest`. Each is a little off, so that many clients that failed together do not come back together."""

    def __init__(self, first: float, longest: float, factor: float = 2.0, jitter: float = JITTER) -> None:
        self.first, self.longest, self.factor, self.jitter = first, longest, factor, jitter
        self._next = first

    def next(self) -> float:
        """Seconds to wait now; the next wait is longer."""
        pause = self._next
        self._next = min(self.longest, pause * self.factor)
        return random.uniform((1 - self.jitter) * pause, min((1 + self.jitter) * pause, self.longest))

    def reset(self) -> None:
        self._next = self.first


async def end(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel `tasks` and wait until they have ended. Their results and errors are the caller's affair.

    What swallowed its cancellation hears of it again: asyncio.wait_for of Python 3.11 does, when what it waits for ends
    at the same time, and so do client libraries.
    """
    waiting = set(tasks)
    while waiting:
        for task in waiting:
            task.cancel()
        _, waiting = await asyncio.wait(waiting, timeout=ASK_AGAIN)


async def finish(work: Coroutine[Any, Any, Any]) -> None:
    """Await `work` to its end even if we are cancelled meanwhile; the cancellation is raised after it.

    For clean-up that is bounded in itself and must not be left half done.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])  # which leaves the task alone when it is cancelled itself
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled
