"""One getUpdates at a time: sent only under the lease, given up in time, aborted and never just forgotten."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any

from aiogram import Bot
from aiogram.methods import GetUpdates, Response

from cluster_lock import clock
from cluster_lock.leadership import Term
from cluster_lock.values import Timing

from .http_session import GuardedRequest
from .state import DEAF_AFTER

REQUEST_SLACK = 10.0
"""Seconds that an answer may take beyond the poll timeout. aiogram's own poller allows 60 more."""


Raw = dict[str, Any]


class GetRawUpdates(GetUpdates):
    """getUpdates as every session middleware knows it, with an answer that is not looked into: what is repeated costs
    nothing then, and one update that this aiogram cannot read does not hide the ninety-nine beside it."""

    __returning__ = list[Any]


_ANSWER = Response[list[Any]]
"""What aiogram reads such an answer with. Pydantic forgets a parametrised model that nobody holds, and would build it
anew, in milliseconds, for each answer."""


class Fetcher:
    """The getUpdates of one bot in one term."""

    def __init__(self, bot: Bot, term: Term, timing: Timing, allowed_updates: Sequence[str] | None) -> None:
        self._bot, self._term, self._timing = bot, term, timing
        self._allowed = list(allowed_updates) if allowed_updates is not None else None
        self._request: GuardedRequest | None = None
        self._fresh = False

    async def get_updates(self, offset: int | None, *, timeout: float, limit: int | None = None) -> list[Raw]:
        """Ask Telegram once. LockLost if the lease is not valid any more when the request could be written.

        Raises TimeoutError when neither an answer nor an error came for poll_timeout + 20 s, RequestUnguarded when it
        is not known how to reset it, and whatever aiogram and the session's middlewares raise. After a failure the next
        request goes over a fresh connection.
        """
        method = GetRawUpdates(offset=offset, limit=limit, timeout=math.ceil(timeout), allowed_updates=self._allowed)
        request = self._request = GuardedRequest(
            self._term.check, lambda: time_left(self._term, self._timing), fresh=self._fresh
        )
        self._fresh = True
        try:
            async with asyncio.timeout(timeout + DEAF_AFTER):
                updates: Any = await request.make(
                    self._bot.session, lambda: self._bot(method, request_timeout=math.ceil(timeout + REQUEST_SLACK))
                )
        finally:
            self._request = None
        self._fresh = False
        return _checked(updates)

    def abort(self) -> None:
        """Reset the connection of the getUpdates that is under way: nothing of it arrives later. Its task is still to
        be cancelled."""
        if self._request is not None:
            self._request.abort()


def _checked(updates: Any) -> list[Raw]:
    if not all(isinstance(update, dict) and isinstance(update.get("update_id"), int) for update in updates):
        raise ValueError("an answer to getUpdates with something in it that is no update")
    return list(updates)


def time_left(term: Term, timing: Timing) -> float:
    """Seconds for which a getUpdates that is written now may still be on its way (interleaving M10)."""
    return max(0.001, min(timing.margin, term.deadline - clock.now()))
