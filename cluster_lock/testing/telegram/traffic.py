"""Messages at a steady rate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .background import end

_TICK = 0.01  # seconds; above 100 messages a second they come in small bursts


class Traffic:
    """Calls `push(count, first)` so that on the whole `rate` messages a second are pushed, until stopped or over."""

    def __init__(self, push: Callable[[int, int], None], rate: float, seconds: float | None) -> None:
        if rate <= 0:
            raise ValueError(f"a rate of {rate} messages a second is no traffic")
        self._push = push
        self._rate = rate
        self._seconds = seconds
        self._pushed = 0
        self._task = asyncio.create_task(self._run())

    @property
    def done(self) -> bool:
        return self._task.done()

    async def stop(self) -> int:
        """Stop; how many messages there were."""
        await end(self._task)
        return self._pushed

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        pause = max(_TICK, 1 / self._rate)
        while True:
            elapsed = loop.time() - started
            if self._seconds is not None:
                elapsed = min(elapsed, self._seconds)
            # By the total that is due, not by the tick: a loop that was late catches up and the rate stays true.
            count = int(elapsed * self._rate) - self._pushed
            if count > 0:
                self._push(count, self._pushed)
                self._pushed += count
            if self._seconds is not None and elapsed >= self._seconds:
                return
            await asyncio.sleep(pause)
