"""Conformance: the server goes and comes back, with or without what it knew, while leases are in use."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from cluster_lock import clock
from cluster_lock.errors import BackendUnavailable, LeaseExpired
from cluster_lock.values import Grant, Lease

from .bench import LOCK, Backend, Bench, check, record

Answer = TypeVar("Answer")

TTL = 10.0
"""Seconds of a lease that outlives a restart, if the server's memory does."""


async def outlasting(verb: Callable[[], Awaitable[Answer]], within: float) -> Answer:
    """The first answer of a server that is coming back. Raises the last BackendUnavailable after `within` seconds."""
    give_up = clock.now() + within
    while True:
        try:
            return await verb()
        except BackendUnavailable:
            if clock.now() > give_up:
                raise
            await asyncio.sleep(0.05)


async def ends(wait: Awaitable[object]) -> None:
    """A wait that a restart interrupts may fail, or tell of nothing. It may not hang."""
    with suppress(BackendUnavailable):
        await wait


async def got(acquire: Callable[[], Awaitable[Grant | None]], within: float) -> Grant:
    """What is granted as soon as nobody holds the lock, and the server gives anything away again."""
    give_up = clock.now() + within
    while True:
        grant = await outlasting(acquire, within)
        if grant is not None:
            return grant
        assert clock.now() < give_up, f"not granted within {within:g} s"
        await asyncio.sleep(0.05)


class Outages(Backend):
    @check
    async def test_a_restart_doubles_nothing(self, bench: Bench) -> None:
        """Over a restart of the server a lock stays, as it was, with a lease that can still be renewed, and is refused
        to others; who gets it next has a larger token. The clients find the server again by themselves."""
        bench.needs_hook("restart_server")
        driver, other = await bench.clients()
        lease = await bench.lease(driver, ttl=max(self.ttl, TTL))
        grant = await bench.take(driver, lease)
        await self.restart_server()
        patience = bench.expiry(lease, driver)
        try:
            await outlasting(lambda: driver.renew(lease), patience)
        except LeaseExpired:
            kept = False
        else:
            kept = True

        async def for_rival() -> Lease:
            if kept:
                await driver.renew(lease)  # a server may give nobody a lease for as long as this one lives
            return await bench.lease(other, "rival", max(self.ttl, TTL))

        rival = await outlasting(for_rival, patience)
        if kept:
            await driver.renew(lease)
            assert await other.acquire(rival, LOCK, record("rival")) is None
            entry = await bench.entry(other)
            assert (entry.lease, entry.index, entry.record) == (lease.id, grant.index, grant.record)
            await driver.release(grant, record("holder", released=True))
        taken = await got(lambda: other.acquire(rival, LOCK, record("rival")), patience)
        assert taken.token > grant.token, (taken, grant)

    @check
    async def test_a_wait_goes_on_after_a_restart(self, bench: Bench) -> None:
        """Who waits when the server restarts, and asks again from where it was, hears of what changed since."""
        bench.needs_hook("restart_server")
        driver, waiter = await bench.clients()
        lease = await bench.lease(driver, ttl=max(self.ttl, TTL))
        await bench.take(driver, lease)
        position = (await waiter.read([LOCK])).position
        interrupted = asyncio.create_task(ends(waiter.wait_changed([LOCK], position, 30.0)))
        await self.restart_server()
        await interrupted
        patience = bench.expiry(lease, driver)
        again = await outlasting(lambda: bench.lease(driver, "again", max(self.ttl, TTL)), patience)
        await outlasting(lambda: driver.revoke(lease), patience)
        taken = await got(lambda: driver.acquire(again, LOCK, record("again")), patience)
        seen = await outlasting(
            lambda: bench.until(waiter, LOCK, lambda entry: entry.lease == again.id, since=position), patience
        )
        assert seen.index == taken.index
