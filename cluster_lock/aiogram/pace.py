"""When the next getUpdates goes out while handlers are at work.

From the lowest unfinished update on Telegram answers at once, with everything again. So there must be a pause; and as
nothing but another getUpdates can show what is new, it must be short.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from cluster_lock import clock

from .state import Facts
from .window import LIMIT, Window

log = logging.getLogger("cluster_lock.aiogram")

SAME_OFFSET = 0.6, 0.9
"""Seconds from an answer to the next getUpdates with the same offset: at first, and at most while nothing new comes.

Asked again with the same offset within 0.5 s, Telegram returns a single update (Client.cpp:15714). At most 0.9, so
that with the request's own time a new update starts within a second beside a slow handler."""
MOVED_OFFSET = 0.1
"""The same when the offset has moved on: no rule of Telegram's, but each answer repeats what is unfinished."""
FEW = LIMIT // 5
"""After a full answer, which says that more is waiting, the next getUpdates goes out when so few are unconfirmed: the
handlers have work while it is under way, and it repeats little."""
FULL_FOR = 1.0
"""A window that is full for so long is worth a word; a burst of a hundred updates is not."""
SAY_AGAIN = 60.0


class Pace:
    """For one window."""

    def __init__(self, bot_id: int, window: Window, facts: Facts) -> None:
        self._bot_id, self._window, self._facts = bot_id, window, facts
        self._answered_at = clock.now()
        self._pause = SAME_OFFSET[0]
        self._more = False
        self._progress = asyncio.Event()
        self._wake_on_move = False
        self._said_full_at: float | None = None

    def answered(self) -> None:
        """An answer came. The pause counts from here and not from the request: Telegram counts from its receipt."""
        self._answered_at = clock.now()

    def took(self, *, new: int, full: bool, cut: bool) -> None:
        """What the answer brought. `full`: as much as an answer can. `cut`: not even all that is unconfirmed."""
        self._more = full
        self._pause = SAME_OFFSET[0] if new else min(SAME_OFFSET[1], self._pause * 1.25)
        self._say_full(cut)

    def finished(self, *, moved: bool) -> None:
        """A handler has ended. `moved`: it was the lowest unfinished one."""
        if not self._window.pending or (moved and (self._wake_on_move or self._has_room())):
            self._progress.set()

    async def wait(self) -> None:
        """Until another getUpdates can bring something new and does not come too soon."""
        while self._window.pending:
            self._progress.clear()
            if self._window.is_full:
                await self._wait_while_full()
                continue
            moved = self._window.offset != self._window.sent
            left = self._answered_at + (MOVED_OFFSET if moved else self._pause) - clock.now()
            if left <= 0 or (moved and self._has_room()):
                return
            self._wake_on_move = not moved
            await self._wait_progress(left, "handlers are at work")
        self._say_full(False)

    async def wait_for_room(self, room: Callable[[], bool]) -> None:
        """Delivery at most once: what is delivered is confirmed, so nothing but this keeps it from piling up here."""
        while not room():
            self._progress.clear()
            await self._wait_progress(MOVED_OFFSET, "too many updates wait for a handler")

    def _has_room(self) -> bool:
        return self._more and self._window.unconfirmed <= FEW

    async def _wait_while_full(self) -> None:
        self._wake_on_move = True
        limit = FULL_FOR
        while not await self._wait_progress(limit, "the window is full") and self._window.is_full:
            self._say_full(True)
            limit = SAY_AGAIN

    async def _wait_progress(self, timeout: float, reason: str) -> bool:
        with self._facts.waiting(reason):
            try:
                async with asyncio.timeout(timeout):
                    await self._progress.wait()
            except TimeoutError:
                return False
        return True

    def _say_full(self, full: bool) -> None:
        self._facts.window_full = full
        now = clock.now()
        if not full or (self._said_full_at is not None and now < self._said_full_at + SAY_AGAIN):
            return
        self._said_full_at = now
        log.warning(
            "bot %d: the window is full: %d updates wait for the slowest of them to be confirmed, and Telegram shows"
            " nothing new until then (hand long work to a queue of your own, or choose delivery: at_most_once)",
            self._bot_id,
            self._window.unconfirmed,
        )
