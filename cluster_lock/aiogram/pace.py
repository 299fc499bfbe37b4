"""When the next getUpdates goes out while handlers are at work.

From the lowest unfinished update on Telegram answers at once, with everything again. So there must be a pause; and as
nothing but another getUpdates can show what is new, it must be short.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from cluster_lock import clock

from .state import FULL_FOR, Facts
from .window import LIMIT, Window

log = logging.getLogger("cluster_lock.aiogram")

AGAIN = 0.15, 1.0
"""Seconds from an answer to the next getUpdates beside handlers at work, at least and at most; in between twice what
the answer before took, which repeats everything that is unfinished."""
MOVED = 0.1
"""The same at most when the offset has moved on."""
ALBUM = 0.02
"""The same for a moment after a part of an album: who collects them waits for the others for a tenth of a second."""
ALBUM_FOR = 0.3
"""Seconds for which another part of it may come."""
FEW = LIMIT // 5
"""After a full answer, which says that more is waiting, the next getUpdates goes out when so few are unconfirmed: the
handlers have work while it is under way, and it repeats little."""
SAY_AGAIN = 60.0


class PollingPace:
    """For one window. `relieve(cut=...)` may empty it; it says in how many seconds it could, or None."""

    def __init__(self, bot_id: int, window: Window, facts: Facts, relieve: Callable[..., float | None]) -> None:
        self._bot_id, self._window, self._facts, self._relieve = bot_id, window, facts, relieve
        self._asked_at = self._answered_at = clock.now()
        self._pause = AGAIN[0]
        self._album_until = 0.0
        self._more = self._cut = False
        self._progress = asyncio.Event()
        self._wake_on_move = False
        self._said_full_at: float | None = None

    def asks(self) -> None:
        """A getUpdates goes out."""
        self._asked_at = clock.now()

    def answered(self) -> None:
        """Its answer came."""
        self._answered_at = now = clock.now()
        self._pause = min(max(AGAIN[0], 2 * (now - self._asked_at)), AGAIN[1])

    def took(self, *, full: bool, cut: bool = False, album: bool = False) -> None:
        """What the answer brought. `full`: as much as an answer can. `cut`: not even all that is unconfirmed, for its
        length. `album`: the last of what is new is a part of one."""
        self._more, self._cut = full, cut
        if album:
            self._album_until = self._answered_at + ALBUM_FOR
        self._see(cut)

    def finished(self, *, moved: bool) -> None:
        """A handler has ended. `moved`: it was the lowest unfinished one."""
        if not self._window.pending or (moved and (self._wake_on_move or self._has_room())):
            self._progress.set()

    async def wait(self) -> None:
        """Until another getUpdates can bring something new and does not come too soon."""
        while self._window.pending:
            self._progress.clear()
            until_relieved = self._relieve(cut=self._cut)
            if self._window.is_full:
                await self._wait_while_full(until_relieved)
                continue
            moved = self._window.offset != self._window.sent
            left = self._answered_at + self._pause_now(moved) - clock.now()
            if left <= 0 or (moved and self._has_room()):
                break
            self._wake_on_move = not moved
            await self._wait_progress(left, "handlers are at work")
        self._see(self._cut)

    async def wait_for_room(self, room: Callable[[], bool]) -> None:
        """Delivery at most once: what is delivered is confirmed, so nothing but this keeps it from piling up here."""
        while not room():
            self._progress.clear()
            await self._wait_progress(MOVED, "too many updates wait for a handler")

    def _pause_now(self, moved: bool) -> float:
        if self._answered_at < self._album_until:
            return ALBUM
        return min(self._pause, MOVED) if moved else self._pause

    def _has_room(self) -> bool:
        return self._more and self._window.unconfirmed <= FEW

    async def _wait_while_full(self, until_relieved: float | None) -> None:
        """Until it is not full, or may be relieved."""
        self._wake_on_move = True
        self._see(True, say=until_relieved is None)
        assert self._facts.full_since is not None
        said = self._said_full_at is not None and self._said_full_at >= self._facts.full_since
        limit = SAY_AGAIN if said else FULL_FOR
        if until_relieved is not None:
            limit = min(limit, until_relieved)
        await self._wait_progress(limit, "the window is full")

    async def _wait_progress(self, timeout: float, reason: str) -> None:
        with self._facts.waiting(reason), suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._progress.wait()

    def _see(self, full: bool, *, say: bool = True) -> None:
        """Note since when the window is full, and say so unless it will soon be relieved. Full once, it is until it is
        far from it: behind a line of updates that wait for each other there is room for one more after each."""
        now, facts = clock.now(), self._facts
        if not full:
            if not self._window.is_crowded and not self._cut:
                facts.full_since = None
            return
        if facts.full_since is None:
            facts.full_since = now
        said = self._said_full_at is not None and now < self._said_full_at + SAY_AGAIN
        if not say or said or now < facts.full_since + FULL_FOR:
            return
        self._said_full_at = now
        log.warning(
            "bot %d: the window is full: Telegram shows nothing new until the lowest of %d updates is confirmed, %s",
            self._bot_id,
            self._window.unconfirmed,
            self._why_full(),
        )

    def _why_full(self) -> str:
        lowest = self._window.lowest
        if self._cut:
            return "and together they are longer than an answer of Telegram's may be"
        if lowest is not None and not lowest.has_begun:
            return (
                "and that waits for its turn: too many are in line behind each other (telegram.order), or too few may"
                " be handled at a time (telegram.max_concurrent)"
            )
        return (
            "and its handler is slow (hand long work to a queue of your own, or choose window: open or delivery:"
            " at_most_once)"
        )
