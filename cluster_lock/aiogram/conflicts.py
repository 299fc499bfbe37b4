"""Counting 409s: one is an accident, three in a minute are somebody who polls outside of the lock.

A 409 is no fence and no news about the lock (docs/design.md#conflict-is-no-fence). Telegram lets the newest getUpdates
win, so the holder of the lock just asks again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

from cluster_lock.aio import JITTER

STORM = 3
STORM_SPAN = 60.0


@dataclass(frozen=True, slots=True)
class Conflict:
    """One 409 while the lock was ours. `attempt` counts those since a getUpdates last went well, from 1; `delay` is the
    wait in seconds before the next try; `in_last_minute` and `storm` say how bad it is."""

    bot_id: int
    lock: str
    attempt: int
    delay: float
    in_last_minute: int
    storm: bool
    text: str


ConflictCallback = Callable[[Conflict], Awaitable[None] | None]
OnConflict = Literal["retry", "step_down", "exit"] | ConflictCallback


@dataclass(frozen=True, slots=True, kw_only=True)
class ConflictRules:
    """What to do about 409. Waits of `first` seconds, `factor` times longer each time, up to `longest`; each by up to
    `jitter` of it (0.2: a fifth) longer or shorter, so that two who fight do not keep step.

    `give_up_after`: raise ConflictPersists at the conflict after so many tries in a row; None: never.
    `on_conflict`: "retry" goes on; "step_down" and "exit" (ConflictPersists) act when it has become a storm; a
    function, sync or async, is called with each Conflict, and the poller goes on.
    """

    first: float = 1.0
    longest: float = 15.0
    factor: float = 2.0
    jitter: float = JITTER
    give_up_after: int | None = None
    on_conflict: OnConflict = "retry"


@dataclass(slots=True)
class Conflicts:
    """The 409s of one bot, over all its terms."""

    in_row: int = 0
    storm: bool = False
    _met: deque[float] = field(default_factory=deque)

    def met(self, now: float, *, tolerated: bool = False) -> bool:
        """Another one. True if that makes it a storm. `tolerated`: it may be the long poll of the leader before."""
        self.in_row += 1
        if not tolerated:
            self._met.append(now)
        if self.storm or self.in_last_minute(now) < STORM:
            return False
        self.storm = True
        return True

    def survived(self, now: float) -> bool:
        """A getUpdates lasted its full time or brought updates: never less, a poll that merely began proves nothing.
        True if that ends a storm."""
        self.in_row = 0
        if not self.storm or self.in_last_minute(now):
            return False
        self.storm = False
        return True

    def in_last_minute(self, now: float) -> int:
        while self._met and self._met[0] <= now - STORM_SPAN:
            self._met.popleft()
        return len(self._met)
