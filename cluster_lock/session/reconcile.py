"""A lock that stands under our lease although nobody here works on it is released at once.

It gets there by an acquire that was given up or whose answer was lost and that is applied later, by a copy of one, by a
transfer that nobody waits for any more, or because the store was set back. A renewed lease would hold it for ever
(interleaving M1, coordination trap 9).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Container
from typing import TYPE_CHECKING

from cluster_lock import clock
from cluster_lock.errors import BackendRefused, BackendUnavailable, LeaseExpired
from cluster_lock.values import LEADER, Entry, Grant

if TYPE_CHECKING:
    from .session import Session

log = logging.getLogger("cluster_lock.reconcile")

MANY = 128
"""Locks. Of more that were ever touched under one lease the names are not kept: then all locks are looked at."""


class Reconciler:
    """Follows every key that an acquire of ours may still arrive at. `unsure`: those to be read with the next
    renewal."""

    def __init__(self, session: Session) -> None:
        self.unsure: set[str] = set()
        self._session = session
        self._touched: dict[str, float] = {}
        self._ever: set[str] = set()
        """What was ever touched under this lease: no request is so old that it could not come yet."""
        self._unreleased: dict[str, float] = {}
        """By key: since when a release is not confirmed."""
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
        if len(self._ever) <= MANY:
            self._ever.add(key)

    def renewed_lease(self) -> None:
        """There is another lease: what stood under the one before is no business of ours."""
        self.unsure.clear()
        self._unreleased.clear()
        self._ever = set(self._touched)

    def forget_indexes(self) -> None:
        """The store was set back: an index says nothing any more about what came before what, and anything may stand
        under our lease again."""
        self._given.clear()
        self._over.clear()
        self.unsure |= self._touched.keys()

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
        self._unreleased.pop(grant.name, None)

    def is_elsewhere(self, key: str) -> None:
        """`key` does not stand under our lease."""
        self._unreleased.pop(key, None)

    def is_unreleased(self, key: str) -> bool:
        """Has the backend not confirmed that it is free of us?"""
        return key in self._unreleased

    def stuck(self) -> str | None:
        """A key that stands under our lease for a whole ttl because the backend confirms no release of it."""
        long_ago = clock.now() - self._session.timing.ttl
        return next((key for key, since in self._unreleased.items() if since < long_ago), None)

    def not_released(self, key: str) -> None:
        """A release of `key` was not confirmed: the next renewals look after it."""
        self._unreleased.setdefault(key, clock.now())
        self.doubt(key)

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
                self._given.pop(key, None)
                self._over.pop(key, None)
                self._session.watch.unfollow(key)

    async def look(self, keys: Collection[str]) -> None:
        """Read `keys` now, as far as that is possible; what has become ours unasked is released."""
        for key in keys:
            self.doubt(key)
        await self._read(keys)

    async def sweep(self) -> None:
        """Read whatever could ever come to stand under our lease, and all that somebody waits for: a request may be
        older than we follow its key, and a watch may be deaf in a store that was set back."""
        asked = self._session.watch.moment
        await self._read({*self._session.watch.wanted, *(self._ever if len(self._ever) <= MANY else ())})
        if len(self._ever) > MANY:
            try:
                async with asyncio.timeout(self._session.timing.request):
                    entries = await self._session.driver.scan(LEADER)
            except (BackendUnavailable, BackendRefused, TimeoutError) as error:
                log.debug("not all locks were looked at: %s", str(error) or "no answer in time")
            else:
                self._session.watch.take({entry.name: entry for entry in entries}, asked)

    async def _read(self, keys: Collection[str]) -> None:
        try:
            async with asyncio.timeout(self._session.timing.request):
                if keys:
                    await self._session.watch.read(keys)
        except (BackendUnavailable, BackendRefused, TimeoutError) as error:
            log.debug("looking again with the next renewal: %s", str(error) or "no answer in time")

    async def release(self, entry: Entry) -> None:
        """Release what stands under our lease at `entry`, unless somebody here asks for it after all.

        The farewell does not say `released`: whoever led before may not have heard of it yet, so the next one
        settles."""
        session, lease = self._session, self._session.current_lease
        if lease is None or entry.lease != lease.id or entry.name in session.claimed | session.holds.keys():
            return
        log.warning("%s was found under our lease although nobody here waits for it: releasing it", entry.name)
        grant = Grant(entry.name, lease, entry.index, entry.index, entry.record or b"")
        farewell = session.record(entry.name.removeprefix(LEADER)).to_bytes()
        await self.give_back(grant, farewell)

    async def give_back(self, grant: Grant, farewell: bytes) -> None:
        """Release a grant that nobody works under, or ever did."""
        session = self._session
        self.touch(grant.name)
        self.ended(grant)  # whoever asks from here on may not make it his own: the release may arrive at any moment
        try:
            async with asyncio.timeout(session.timing.request):
                await session.driver.release(grant, farewell)
            self.gave_away(grant)
        except LeaseExpired as error:
            session.expired(grant.lease, error)
        except (BackendUnavailable, BackendRefused, TimeoutError) as error:
            self.not_released(grant.name)
            log.debug("not released, again with the next renewal: %s", str(error) or "no answer in time")
