"""A lock that stands under our lease although nobody here works on it is released at once.

It gets there by an acquire that was given up or whose answer was lost and that is applied later, by a copy of one, or
by a transfer that nobody waits for any more. A renewed lease would hold it for ever (interleaving M1, coordination trap
9).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Container, Iterable
from typing import TYPE_CHECKING

from . import clock
from .errors import BackendRefused, BackendUnavailable, LeaseExpired
from .values import Entry, Grant

if TYPE_CHECKING:
    from .session import Session

log = logging.getLogger("cluster_lock.reconcile")


class Reconciler:
    """Follows every key that an acquire of ours may still arrive at. `unsure`: those to be read with the next
    renewal."""

    def __init__(self, session: Session) -> None:
        self.unsure: set[str] = set()
        self._session = session
        self._touched: dict[str, float] = {}
        self._seen: dict[str, int] = {}
        """By key: `session.seen` when the first acquire went out of those that were not answered."""
        self._given: dict[str, int] = {}
        """By key: the index of the latest grant that we gave away, and know it. Older news is about that one."""
        self._over: dict[str, int] = {}
        """By key: the index of the latest grant that nobody may work under, whether or not it is known to be given
        away."""

    def touch(self, key: str) -> None:
        """An acquire of `key` is on its way: listen for it, even if whoever asked goes away."""
        if key not in self._touched:
            self._session.watch.follow(key)
        self._touched[key] = clock.now()

    def asks(self, key: str) -> int:
        """An acquire of `key` goes out. The largest fencing token seen before its grant can have been made: it may be
        told of one that an earlier acquire made, whose answer was lost."""
        self.touch(key)
        return self._seen.setdefault(key, self._session.seen)

    def is_answered(self, key: str) -> None:
        """The acquire of `key` was."""
        self._seen.pop(key, None)

    def renewed_lease(self) -> None:
        """There is another lease: what stood under the one before is no business of ours."""
        self.unsure.clear()
        self._seen.clear()

    def has_touched(self, key: str) -> bool:
        """May an acquire of `key` still be under way?"""
        return key in self._touched

    def doubt(self, key: str) -> None:
        """Nobody knows whether `key` is under our lease: the next renewal, or the watch, finds out."""
        self.touch(key)
        self.unsure.add(key)

    def ended(self, grant: Grant) -> None:
        """Nobody works under this grant any more, or ever did; nobody will."""
        self._over[grant.name] = grant.index

    def is_over(self, grant: Grant) -> bool:
        """Is this a grant that nobody may work under?"""
        return grant.index == self._over.get(grant.name)

    def gave_away(self, grant: Grant) -> None:
        """The backend has confirmed that this grant is over."""
        self._given[grant.name] = grant.index

    def is_old(self, entry: Entry) -> bool:
        """Is this news about a grant that we gave away since?"""
        return entry.index <= self._given.get(entry.name, 0)

    def forget_old(self, in_use: Container[str]) -> None:
        """Follow no longer what no request can be under way to any more. One read that finds nothing is no reason: the
        request may come after it."""
        timing = self._session.timing
        # A transfer comes when the work of the leader that invited us has ended.
        long_ago = clock.now() - 2 * timing.ttl - timing.drain - timing.cancel_grace
        for key in [key for key, at in self._touched.items() if at < long_ago]:
            self.unsure.discard(key)
            if key not in in_use:
                del self._touched[key]
                self._seen.pop(key, None)
                self._given.pop(key, None)
                self._over.pop(key, None)
                self._session.watch.unfollow(key)

    async def look(self, keys: Iterable[str]) -> None:
        """Read `keys` now, as far as that is possible; what has become ours unasked is released."""
        for key in keys:
            self.doubt(key)
        try:
            async with asyncio.timeout(self._session.timing.request):
                changes = await self._session.driver.read(list(keys))
        except (BackendUnavailable, BackendRefused, TimeoutError) as error:
            log.debug("looking again with the next renewal: %s", str(error) or "no answer in time")
        else:
            for entry in changes.entries.values():
                self._session.heard(entry)

    async def release(self, entry: Entry) -> None:
        """Release what stands under our lease at `entry`, unless somebody here asks for it after all.

        The farewell does not say `released`: whoever led before may not have heard of it yet, so the next one
        settles."""
        session, lease = self._session, self._session.current_lease
        if lease is None or entry.lease != lease.id or entry.name in session.claimed | session.holds.keys():
            return
        log.warning("%s was found under our lease although nobody here waits for it: releasing it", entry.name)
        grant = Grant(entry.name, lease, entry.index, entry.index, entry.record or b"")
        self.ended(grant)  # whoever asks from here on may not make it his own: the release may arrive at any moment
        try:
            async with asyncio.timeout(session.timing.request):
                await session.driver.release(grant, session.record().to_bytes())
            self.gave_away(grant)
        except LeaseExpired as error:
            session.expired(lease, error)
        except (BackendUnavailable, BackendRefused, TimeoutError) as error:
            self.doubt(entry.name)
            log.debug("not released, again with the next renewal: %s", str(error) or "no answer in time")
