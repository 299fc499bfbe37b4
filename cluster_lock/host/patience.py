"""How long another process has been silent, counted by a process that may have been frozen itself."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

from cluster_lock import clock

LOOK_EVERY = 0.25
MOST = 2 * LOOK_EVERY
"""Seconds that the time between two looks counts at most. More than that was our own sleep (a suspended host, a frozen
container, a stopped process), or we were busy and heard nobody."""


class Patience:
    """Seconds that we were awake since this was made. To be looked at often."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._looked = clock.now()

    def seconds(self) -> float:
        now = clock.now()
        self._seconds += min(now - self._looked, MOST)
        self._looked = now
        return self._seconds

    async def wait(self, futures: Collection[asyncio.Future[Any]], seconds: float) -> None:
        """Until the first of `futures` is done, but for so many seconds at most."""
        until = self.seconds() + seconds
        while not any(future.done() for future in futures) and (left := until - self.seconds()) > 0:
            await asyncio.wait(futures, timeout=min(left, LOOK_EVERY), return_when=asyncio.FIRST_COMPLETED)
