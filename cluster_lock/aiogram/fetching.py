"""One getUpdates at a time: sent only under the lease, given up in time, aborted and never just forgotten."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from aiogram import Bot
from aiogram.methods import GetUpdates
from aiogram.types import Update

from cluster_lock import clock
from cluster_lock.aio import Backoff
from cluster_lock.election import Term
from cluster_lock.values import Timing

from .http_session import GuardedRequest, Raw
from .state import DEAF_AFTER

REQUEST_SLACK = 10.0
"""Seconds that an answer may take beyond the poll timeout. aiogram's own poller allows 60 more."""

FLOOR = 0.1, 0.5
"""Seconds from one getUpdates to the next when the first one brought nothing and did not wait for it either: at first,
and at most while that goes on. Telegram does not do so for long; a server that is not quite Telegram may."""

ReadAll = Callable[[list[Raw]], Sequence[Any]]


class Fetcher:
    """The getUpdates of one bot in one term. `read` makes aiogram's updates of Telegram's, and something else of one
    that it cannot read; each is read once, however often it is delivered again."""

    def __init__(
        self, bot: Bot, term: Term, timing: Timing, allowed_updates: Sequence[str] | None, read: ReadAll
    ) -> None:
        self._bot, self._term, self._timing = bot, term, timing
        self._allowed = list(allowed_updates) if allowed_updates is not None else None
        self._read_all = read
        self._answer: dict[int, tuple[Raw, Any]] = {}
        """The latest, by id, in order of delivery."""
        self._given: dict[int, Any] = {}
        self._request: GuardedRequest | None = None
        self._fresh = False
        self._floor = Backoff(*FLOOR, jitter=0.0)
        self._not_before = 0.0

    async def get_updates(self, offset: int | None, *, timeout: float, limit: int | None = None) -> list[Raw]:
        """Ask Telegram once. LockLost if the lease is not valid any more when the request could be written.

        Raises TimeoutError when neither an answer nor an error came for poll_timeout + 20 s, RequestUnguarded when it
        could not be reset, and whatever aiogram and the session's middlewares raise. After a failure the next request
        goes over a fresh connection.
        """
        await asyncio.sleep(max(0.0, self._not_before - clock.now()))
        method = GetUpdates(offset=offset, limit=limit, timeout=math.ceil(timeout), allowed_updates=self._allowed)
        sent_at = clock.now()
        request = self._request = GuardedRequest(
            self._bot.session,
            self._term.check,
            lambda: time_left(self._term, self._timing),
            fresh=self._fresh,
            read=self._read,
        )
        self._fresh = True
        try:
            async with asyncio.timeout(timeout + DEAF_AFTER):
                given = await request.ask(self._bot, method, math.ceil(timeout + REQUEST_SLACK))
        finally:
            request.abort()  # what a middleware may have left under way
            self._request = None
        updates = self._take(given)
        self._fresh = False
        early = not updates and clock.now() - sent_at < timeout
        heedless = offset is not None and bool(updates) and all(update["update_id"] < offset for update in updates)
        if early or heedless:
            self._not_before = sent_at + self._floor.next()
        else:
            self._floor.reset()
        return updates

    def updates(self, ids: Iterable[int]) -> list[Any]:
        """What `get_updates` returned last, as `read` and the session's middlewares made it."""
        return [self._given[update_id] for update_id in ids]

    def abort(self) -> None:
        """Reset the connection of the getUpdates that is under way: nothing of it arrives later. Its task is still to
        be cancelled."""
        if self._request is not None:
            self._request.abort()

    def _read(self, raw: list[Raw]) -> list[Update]:
        """What the session's middlewares see."""
        known = [self._answer.get(one["update_id"]) for one in raw]
        repeated = [before is not None and before[0] == one for before, one in zip(known, raw, strict=True)]
        read = iter(self._read_all([one for one, again in zip(raw, repeated, strict=True) if not again]))
        self._answer = {
            one["update_id"]: before if before is not None and again else (one, next(read))
            for one, before, again in zip(raw, known, repeated, strict=True)
        }
        return [update for _, update in self._answer.values() if isinstance(update, Update)]

    def _take(self, given: Any) -> list[Raw]:
        """What the middlewares let through, as Telegram sent it; and what they did not see, as it cannot be read."""
        if not isinstance(given, list):
            raise ValueError("an answer to getUpdates that is no list of updates")
        theirs: dict[int, Update] = {update.update_id: update for update in given}
        kept = {
            update_id: (raw, theirs.get(update_id, update))
            for update_id, (raw, update) in self._answer.items()
            if update_id in theirs or not isinstance(update, Update)
        }
        for update_id, update in theirs.items():
            if update_id not in kept:
                kept[update_id] = update.model_dump(by_alias=True, exclude_none=True), update
        self._given = {update_id: update for update_id, (_, update) in kept.items()}
        return [raw for raw, _ in kept.values()]


def time_left(term: Term, timing: Timing) -> float:
    """Seconds for which a getUpdates that is written now may still be on its way (docs/design.md#late-bytes)."""
    return max(0.001, min(timing.margin, term.deadline - clock.now()))
