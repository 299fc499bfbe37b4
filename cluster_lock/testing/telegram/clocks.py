"""The simulator's own time: the loop's by default, so that it can jump; or stepped by a test, so that nobody waits.

The oracle does not use it: what it stamps is compared with reports of other processes, on the host's boot clock.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    def cancel(self) -> None: ...


class Clock(Protocol):
    """Seconds that only grow, and calls at moments of them."""

    def now(self) -> float: ...

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` once at `when` (at once, but never inside this call, when that has passed)."""
        ...

    def jump(self, seconds: float) -> None:
        """Move time forward. What became due is called."""
        ...


async def sleep(clock: Clock, seconds: float) -> None:
    """Wait for `seconds` of the clock."""
    if seconds <= 0:
        return
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake() -> None:
        if not done.done():
            done.set_result(None)

    timer = clock.call_at(clock.now() + seconds, wake)
    try:
        await done
    finally:
        timer.cancel()


class _LoopTimer:
    def __init__(self, clock: LoopClock, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self._clock = clock
        self._callback = callback
        self._handle: asyncio.TimerHandle | None = None

    def arm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._handle = asyncio.get_running_loop().call_at(self.when - self._clock.skew, self._fire)

    def cancel(self) -> None:
        self._clock.timers.discard(self)
        if self._handle is not None:
            self._handle.cancel()

    def _fire(self) -> None:
        self._clock.timers.discard(self)
        self._callback()


class LoopClock:
    """The running loop's time plus what was jumped."""

    def __init__(self) -> None:
        self.skew = 0.0
        self.timers: set[_LoopTimer] = set()

    def now(self) -> float:
        return asyncio.get_running_loop().time() + self.skew

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        timer = _LoopTimer(self, when, callback)
        self.timers.add(timer)
        timer.arm()
        return timer

    def jump(self, seconds: float) -> None:
        _refuse_backwards(seconds)
        self.skew += seconds
        for timer in list(self.timers):
            timer.arm()


class _ManualTimer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class ManualClock:
    """Time that stands still until a test moves it: 24 hours pass in no time, and no loop is needed."""

    def __init__(self, start: float = 1_000_000.0) -> None:
        self._now = start
        self._order = itertools.count()
        self._timers: list[tuple[float, int, _ManualTimer]] = []

    def now(self) -> float:
        return self._now

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        timer = _ManualTimer(callback)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    def jump(self, seconds: float) -> None:
        """Move on by `seconds`; every call that becomes due is made at its own moment, in order."""
        _refuse_backwards(seconds)
        end = self._now + seconds
        while self._timers and self._timers[0][0] <= end:
            when, _, timer = heapq.heappop(self._timers)
            if timer.callback is not None:
                self._now = max(self._now, when)
                timer.callback()
        self._now = end


def _refuse_backwards(seconds: float) -> None:
    if seconds < 0:
        raise ValueError(f"the server's clock is monotonic: it cannot jump by {seconds} s")
