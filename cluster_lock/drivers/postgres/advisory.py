"""The mode `advisory`: the lease row, and besides for each lock `pg_try_advisory_lock` in a session of our own.

A lock is free when both say so, so this is never less than the row. What it adds: leases that end early, because the
server's clock jumped, give nothing away. The session has a lock for as long as somebody may work under it: until it is
released, or its lease is revoked (which comes after the work), or a ttl has passed since the last renewal was sent that
was answered. It outlives the server's word that the lease is gone: the work may take a moment to end.

What the session has is a guard more and no proof. The row is, and where the two disagree the row counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from weakref import WeakValueDictionary

from cluster_lock import clock
from cluster_lock.drivers.bounded import within
from cluster_lock.errors import BackendRefused, BackendUnavailable, LeaseExpired
from cluster_lock.values import Grant, Lease

from .advisory_session import AdvisorySession, key_of
from .beside import Beside
from .errors import NotGiven, SchemaGone, lease_gone
from .holding import Holding
from .link import Link
from .view import View

_A_MOMENT = 0.1
"""Seconds."""
_BEFORE = 0.2
"""Seconds before the end of a lease, at most a fifth of its ttl: nobody works under it any more, since `lock.margin` is
longer. So whom the end of the row wakes finds both free."""


class _Term:
    """A lease, for as long as somebody may work under it."""

    def __init__(self) -> None:
        self.until = 0.0
        self.is_gone = False
        """As the server says."""
        self.timer: asyncio.TimerHandle | None = None


class Advisory(Beside):
    def __init__(self, link: Link, prefix: str) -> None:
        self._link, self._prefix = link, prefix
        self._session = AdvisorySession(link, prefix)
        self._terms: dict[str, _Term] = {}
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """Who takes and who releases a lock here does it one after the other."""

    async def granted(self, ttl: float, of_row: Callable[[], Awaitable[Lease]]) -> Lease:
        """Nor is there a lease without a session: a pooler is refused here, before anybody leads."""
        self._session.ttl = max(self._session.ttl, ttl)

        async def both() -> tuple[Lease, float]:
            await self._session.connect()
            sent = clock.now()
            return await of_row(), sent

        lease, sent = await within(self._link.request_timeout, self._link.backend, both())
        self._lasts(lease, sent)
        return lease

    def renewed(self, lease: Lease, sent: float) -> None:
        self._lasts(lease, sent)
        self._session.see_to_it()

    def gone(self, lease: Lease) -> None:
        if (term := self._terms.get(lease.id)) is not None:
            term.is_gone = True

    async def revoke(self, lease: Lease, of_row: Callable[[], Awaitable[None]]) -> None:
        """First the session, then the row: who is woken by the row finds both free."""
        await within(self._link.request_timeout, self._link.backend, self._revoke(lease, of_row))

    async def _revoke(self, lease: Lease, of_row: Callable[[], Awaitable[None]]) -> None:
        self._forget(lease.id)
        if held := self._under(lease.id):
            await self._session.give_back(held)
        await of_row()

    async def acquire(self, lease: Lease, name: str, of_row: Callable[[], Awaitable[Grant | None]]) -> Grant | None:
        return await within(self._link.request_timeout, self._link.backend, self._acquire(lease, name, of_row))

    async def _acquire(self, lease: Lease, name: str, of_row: Callable[[], Awaitable[Grant | None]]) -> Grant | None:
        if lease.id not in self._terms:
            # Granted by another driver, as nothing of this library does. Its renewals are not heard here: the advisory
            # lock is freed a ttl after this moment, and then the row guards alone.
            self._lasts(lease, clock.now())
        async with self._turn(name):
            tried = await self._session.take(name, lease.id)
            if tried.gone:
                self.gone(lease)
                raise lease_gone(self._link.backend, lease)
            holding = tried.holding
            if holding is None:
                return None
            try:
                grant = await of_row()
            except (NotGiven, SchemaGone, BackendRefused):
                await self._session.give_back([holding])
                raise
            except LeaseExpired:
                if tried.is_new:
                    await self._session.give_back([holding])
                raise
            except (BackendUnavailable, asyncio.CancelledError):
                # The row may be ours. The next look tells, or the end of the lease; until then the session has it.
                holding.since = clock.now()
                if lease.id not in self._terms:  # it has ended meanwhile: nobody looks after what it has
                    self._session.giving_back([holding])
                raise
            if grant is None or lease.id not in self._terms:
                await self._session.give_back([holding])
                return grant
            holding.index, holding.since = grant.index, clock.now()
            return grant

    async def release(self, grant: Grant, of_row: Callable[[], Awaitable[None]]) -> None:
        """First the session, then the row, as `revoke`."""
        await within(self._link.request_timeout, self._link.backend, self._release(grant, of_row))

    async def _release(self, grant: Grant, of_row: Callable[[], Awaitable[None]]) -> None:
        async with self._turn(grant.name):
            held = self._session.held.get(key_of(self._prefix, grant.name))
            # A late copy, of an earlier grant, leaves that of the next term alone.
            if (
                held is not None
                and (held.name, held.lease) == (grant.name, grant.lease.id)
                and held.index <= grant.index
            ):
                await self._session.give_back([held])
            await of_row()

    async def seen(self, view: View) -> None:
        """A row that is not ours any more (a person freed or deleted it), or has not become ours, leaves nothing to
        guard. One whose lease is over is ours still: that may be the clock."""
        foreign = [held for held in self._session.held.values() if self._is_lost(held, view)]
        if foreign:
            # So that who hears that it is free finds it free; a silent session must not make a look late.
            await asyncio.wait([self._session.giving_back(foreign, view.asked)], timeout=_A_MOMENT)

    def _is_lost(self, held: Holding, view: View) -> bool:
        term = self._terms.get(held.lease)
        is_gone = term is not None and term.is_gone
        return (
            not is_gone and view.has(held.name) and view.asked > held.since and view.lease_of(held.name) != held.lease
        )

    async def close(self) -> None:
        for lease_id in list(self._terms):
            self._forget(lease_id)
        await self._session.close()

    def _turn(self, name: str) -> asyncio.Lock:
        return self._turns.setdefault(name, asyncio.Lock())

    def _lasts(self, lease: Lease, sent: float) -> None:
        """Somebody may work under it for almost a ttl from then on."""
        term = self._terms.setdefault(lease.id, _Term())
        term.until = max(term.until, sent + lease.ttl - min(_BEFORE, lease.ttl / 5))
        if term.timer is None:
            self._look_at(lease.id, term)

    def _look_at(self, lease_id: str, term: _Term) -> None:
        left = term.until - clock.now()
        if left > 0:
            term.timer = asyncio.get_running_loop().call_later(left, self._look_at, lease_id, term)
        else:
            self._forget(lease_id)
            if held := self._under(lease_id):
                self._session.giving_back(held)

    def _forget(self, lease_id: str) -> None:
        term = self._terms.pop(lease_id, None)
        if term is not None and term.timer is not None:
            term.timer.cancel()

    def _under(self, lease_id: str) -> list[Holding]:
        return [held for held in self._session.held.values() if held.lease == lease_id]
