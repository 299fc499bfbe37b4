"""The one lease of a session: asked for, renewed, lost, given up, and asked for again.

A lease that is lost takes every lock under it along. Each is told, the work under them ends, the old lease is given up,
and a new one is asked for: waiters go on waiting through all of it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from cluster_lock import clock
from cluster_lock.aio import Backoff
from cluster_lock.driver import Driver
from cluster_lock.drivers.bounded import within
from cluster_lock.errors import BackendRefused, BackendUnavailable, ClusterLockError, LeaseExpired, NoLeaseYet
from cluster_lock.lease.watchdog import Watchdog, lease_gone
from cluster_lock.observer import Observer
from cluster_lock.values import EndCode, EndReason, Lease, Timing

from .watch import Watch

log = logging.getLogger("cluster_lock.session")

GIVE_UP = 10
"""For so many ttl we try to revoke an abandoned lease. By then it is forgotten, or nobody answers at all."""
PAUSE = 0.1, 1.0
"""Seconds between two tries, first and longest."""
CLOSED = EndReason("the session is closed", EndCode.SESSION_ENDED)


class LeaseEvents(Protocol):
    """What a lease tells the locks under it."""

    def granted(self) -> None:
        """There is a new lease, and nothing stands under it yet."""
        ...

    async def confirm(self, epoch: int) -> None:
        """After each renewal, which counts when this returns."""
        ...

    def moved(self, deadline: float) -> None:
        """The lease lasts until then."""
        ...

    def lost(self, reason: EndReason) -> None:
        """It is not to be trusted any more."""
        ...

    async def idle(self) -> None:
        """Return when no work runs under it any more."""
        ...


class SessionLease:
    """`fail_fast`: the first try that finds no backend is the last one."""

    def __init__(
        self, driver: Driver, timing: Timing, holder: str, watch: Watch, observer: Observer, *, fail_fast: bool
    ) -> None:
        self._driver, self._timing, self._holder = driver, timing, holder
        self._watch, self._observer, self._fail_fast = watch, observer, fail_fast
        self._watchdog: Watchdog | None = None
        self._events: LeaseEvents
        self.failure: ClusterLockError | None = None
        """Why there will never be a lease again."""

    async def get(self) -> Lease:
        """The current lease, as soon as there is one to be trusted. Raises what makes it impossible to get one."""
        while True:
            news = self._watch.news
            if self.failure is not None:
                raise self.failure
            if (lease := self.current) is not None:
                return lease
            await self._watch.changed(news)

    @property
    def current(self) -> Lease | None:
        """The lease, if there is one that is trusted at this very moment."""
        watchdog = self._watchdog
        trusted = watchdog is not None and not watchdog.lost.done() and clock.now() < watchdog.stop_at
        return watchdog.lease if watchdog is not None and trusted else None

    @property
    def latest(self) -> Lease | None:
        """The lease, trusted or not."""
        return self._watchdog.lease if self._watchdog is not None else None

    @property
    def stop_at(self) -> float:
        """The moment at which work under the current lease is cancelled; in the past while there is none."""
        return self._watchdog.stop_at if self._watchdog is not None else float("-inf")

    @property
    def deadline(self) -> float:
        """The moment after which the current lease is not trusted."""
        return self._watchdog.deadline if self._watchdog is not None else float("-inf")

    def note_expired(self, lease: Lease, error: LeaseExpired) -> None:
        """The backend said, to another request than a renewal, that `lease` is gone."""
        if lease == self.latest:
            self.lose(lease_gone(error))

    def lose(self, reason: EndReason) -> None:
        """It is not to be trusted from now on."""
        if self._watchdog is not None:
            self._watchdog.lose(reason)

    def renew_soon(self) -> None:
        """A key of ours is gone. Alone, or with the lease? Ask now: the sooner a new one is asked for, the better."""
        if self._watchdog is not None:
            self._watchdog.renew_soon()

    def fail(self, error: ClusterLockError) -> None:
        """There will never be a lease again; the first reason stays."""
        self.failure = self.failure or error
        self.lose(EndReason(str(error), EndCode.SESSION_ENDED))
        self._watch.wake()

    def abandon(self) -> Lease | None:
        """The session is closed: the lease that is still to be given up."""
        watchdog, self._watchdog = self._watchdog, None
        if watchdog is None:
            return None
        watchdog.lose(CLOSED)
        return watchdog.lease

    async def run(self, events: LeaseEvents) -> None:
        """Have a lease, and another one after each that is lost, until cancelled, or until there can be none."""
        self._events = events
        try:
            while True:
                self._watchdog = watchdog = await self._grant()
                events.granted()
                await watchdog.run()
                await events.idle()  # each was told, and its work ends before the old lease is given up
                # For long: a store that comes back may still have it, counting anew, and no lease is to be had before.
                await self.give_up(watchdog.lease, clock.now() + GIVE_UP * watchdog.timing.ttl)
        except ClusterLockError as error:
            self.fail(error)

    async def give_up(self, lease: Lease, until: float) -> None:
        """Revoke, trying until `until`: an abandoned lease must not stand beside the next one
        (docs/design.md#abandoned-lease)."""
        backoff = Backoff(*PAUSE)
        while True:
            limit = max(0.05, min(self._timing.request, until - clock.now()))
            try:
                return await within(limit, self._driver.backend, self._driver.revoke(lease))
            except (BackendUnavailable, BackendRefused) as error:
                if clock.now() >= until:
                    return log.info("lease %s was left to its ttl: %s", lease.id, error)
            await asyncio.sleep(backoff.next())

    async def _grant(self) -> Watchdog:
        """A new lease, however long it takes. What can never work is raised, but only while none was ever granted."""
        first, said, backoff = self._watchdog is None, False, Backoff(*PAUSE)
        while True:
            sent = clock.now()
            try:
                request = self._driver.grant_lease(self._holder, self._timing.ttl)
                lease = await within(self._timing.request, self._driver.backend, request)
                watchdog = await self._watched(lease, sent)
            except (BackendUnavailable, BackendRefused) as error:
                # A process that starts once more begins that wait anew.
                at_once = self._fail_fast and not isinstance(error, NoLeaseYet)
                if first and (at_once or isinstance(error, BackendRefused)):
                    raise
                self._observer.lease_unsure(f"no lease from {self._driver.backend}: {error}")
                if not said:
                    log.warning("no lease from %s, trying on: %s", self._driver.backend, error)
                    said = True
            else:
                if said or not first:
                    log.info("a new lease from %s", self._driver.backend)
                return watchdog
            await asyncio.sleep(backoff.next())

    async def _watched(self, lease: Lease, sent: float) -> Watchdog:
        try:
            timing = self._timing.promised(lease.ttl)
        except ValueError as error:
            await self.give_up(lease, clock.now() + self._timing.request)
            raise BackendRefused(f"{self._driver.backend} granted a ttl of {lease.ttl:g} s: {error}") from error
        events = self._events
        watchdog = Watchdog(
            self._driver, lease, sent, timing, confirm=events.confirm, moved=events.moved, observer=self._observer
        )
        self._observer.lease_granted(timing, watchdog.deadline)
        # At once, and not when `run` has returned: a renewal that hangs may delay that, a bug may prevent it.
        watchdog.lost.add_done_callback(lambda lost: self._lost(watchdog, lost.result()))
        return watchdog

    def _lost(self, watchdog: Watchdog, reason: EndReason) -> None:
        if self._watchdog is watchdog:  # else the session is closed, which is no loss
            self._events.lost(reason)
            self._observer.lease_lost(reason)
