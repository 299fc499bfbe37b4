"""Conformance: a lease is a promise with an end, and carries any number of locks."""

from __future__ import annotations

import asyncio

from cluster_lock import clock
from cluster_lock.driver import Driver
from cluster_lock.errors import BackendRefused, LeaseExpired
from cluster_lock.values import Lease

from .bench import LOCK, Backend, Bench, check, raised, record


async def refused_everywhere(driver: Driver, lease: Lease) -> None:
    await raised(driver.renew(lease), LeaseExpired)
    await raised(driver.acquire(lease, LOCK, record("late")), LeaseExpired)
    await raised(driver.announce(lease, LOCK, record("late")), LeaseExpired)
    await raised(driver.renew(lease), LeaseExpired)
    assert (await driver.read([LOCK])).entries[LOCK].lease is None


class Leases(Backend):
    @check
    async def test_lease_says_who_and_how_long(self, bench: Bench) -> None:
        """A new lease names its holder, has an id of its own, and a ttl that the server stands by."""
        driver = await bench.client()
        first, second = await bench.lease(driver, "a"), await bench.lease(driver, "b")
        assert (first.holder, second.holder) == ("a", "b")
        assert first.id != second.id
        assert first.ttl > 0, first

    @check
    async def test_too_short_ttl_is_answered_with_the_servers_own_number(self, bench: Bench) -> None:
        """A ttl below what the server allows is either refused with the server's number or granted as that number."""
        driver = await bench.client()
        error: BackendRefused | None = None
        try:
            lease = await driver.grant_lease("a", 0.001)
        except BackendRefused as refusal:
            error = refusal
        if error is None:
            assert lease.ttl > 0.001, lease
        else:
            assert any(letter.isdigit() for letter in str(error).replace("0.001", "")), error

    @check
    async def test_expiry_frees_the_lock_in_time_and_never_early(self, bench: Bench) -> None:
        """A silent holder loses its lock in the promised time, and not before ttl since its last renewal was sent."""
        holder, waiter = await bench.clients()
        bench.needs(holder.traits.expires, "its leases do not expire")
        lease = await bench.lease(holder)
        await bench.take(holder, lease)
        position = (await waiter.read([LOCK])).position
        last_sent = clock.now()
        await holder.renew(lease)
        await bench.until_free(waiter, since=position, within=bench.expiry(lease, waiter))
        assert clock.now() >= last_sent + lease.ttl, "freed before the lease was over"

    @check
    async def test_without_expiry_the_end_of_the_connection_frees_the_lock(self, bench: Bench) -> None:
        """Where leases do not expire a silent holder keeps its lock, and one that is gone has freed it at once."""
        holder, waiter = await bench.clients()
        bench.needs(not holder.traits.expires, "its leases expire")
        lease = await bench.lease(holder)
        grant = await bench.take(holder, lease)
        position = (await waiter.read([LOCK])).position
        past = clock.now() + lease.ttl * 1.5
        while clock.now() < past:
            position = (await waiter.wait_changed([LOCK], position, past - clock.now())).position
        entry = await bench.entry(waiter)
        assert (entry.lease, entry.index) == (lease.id, grant.index)
        await holder.close()
        await bench.until_free(waiter, since=position)

    @check
    async def test_close_revokes_nothing_where_leases_expire(self, bench: Bench) -> None:
        """Closing the client leaves a lease that expires by itself to expire by itself."""
        holder, waiter = await bench.clients()
        bench.needs(holder.traits.expires, "its leases end with the connection")
        lease = await bench.long_lease(holder)
        await bench.take(holder, lease)
        await holder.close()
        assert (await bench.entry(waiter)).lease == lease.id

    @check
    async def test_close_is_idempotent(self, bench: Bench) -> None:
        """Closing twice is fine, and other clients of the backend do not notice."""
        one, other = await bench.clients()
        await one.close()
        await one.close()
        await bench.take(other, await bench.lease(other))

    @check
    async def test_renewal_keeps_the_lock(self, bench: Bench) -> None:
        """A lease that is renewed in time holds its locks well past its ttl, record and token untouched."""
        driver = await bench.client()
        bench.needs(driver.traits.expires, "its leases do not expire")
        lease = await bench.lease(driver)
        grant = await bench.take(driver, lease)
        position = (await driver.read([LOCK])).position
        past = clock.now() + bench.expiry(lease, driver)
        while clock.now() < past:
            await driver.renew(lease)
            changes = await driver.wait_changed([LOCK], position, lease.ttl / 3)
            position = changes.position
            assert all(entry.lease == lease.id for entry in changes.entries.values()), changes
        entry = await bench.entry(driver)
        assert (entry.lease, entry.index, entry.record) == (lease.id, grant.index, grant.record)

    @check
    async def test_renew_says_the_epoch(self, bench: Bench) -> None:
        """A renewal answers with the store's epoch, which is never above that of a read that follows."""
        driver = await bench.client()
        lease = await bench.lease(driver)
        epoch = await driver.renew(lease)
        assert 0 <= epoch <= (await driver.read([LOCK])).epoch

    @check
    async def test_expired_lease_is_not_revived(self, bench: Bench) -> None:
        """Once a lease has expired, every verb that needs it says so, and what it held stays free."""
        driver, other = await bench.clients()
        bench.needs(driver.traits.expires, "its leases do not expire")
        lease = await bench.lease(driver)
        await bench.take(driver, lease)
        await bench.until_free(other, within=bench.expiry(lease, driver))
        await refused_everywhere(driver, lease)

    @check
    async def test_revoked_lease_is_not_revived(self, bench: Bench) -> None:
        """Once a lease was revoked, every verb that needs it says so, and what it held stays free."""
        driver = await bench.client()
        lease = await bench.lease(driver)
        await bench.take(driver, lease)
        await driver.revoke(lease)
        await refused_everywhere(driver, lease)

    @check
    async def test_revoke_is_idempotent(self, bench: Bench) -> None:
        """Revoking a lease that is gone, or never was, is fine."""
        driver, other = await bench.clients()
        lease = await bench.lease(driver)
        await driver.revoke(lease)
        await driver.revoke(lease)
        await other.revoke(lease)

    @check
    async def test_revoke_frees_without_delay_and_wakes(self, bench: Bench) -> None:
        """A revoked lease frees all it held at once: a waiter is woken and its acquire granted, with no lock-delay."""
        holder, waiter = await bench.clients()
        lease, heir = await bench.long_lease(holder), await bench.long_lease(waiter, "waiter")
        names = [f"{LOCK}/{number}" for number in range(3)]
        for name in names:
            await bench.take(holder, lease, name)
        position = (await waiter.read(names)).position
        revoked = asyncio.create_task(holder.revoke(lease))
        await bench.until_free(waiter, names[0], since=position)
        await revoked
        for name in names:
            await bench.take(waiter, heir, name)

    @check
    async def test_one_lease_holds_many_and_expires_all(self, bench: Bench) -> None:
        """Locks and announced keys of one lease live by its one renewal, and all end with it."""
        driver, other = await bench.clients()
        bench.needs(driver.traits.expires, "its leases do not expire")
        lease = await bench.lease(driver)
        names = [f"{LOCK}/{number}" for number in range(5)]
        await asyncio.gather(*(bench.take(driver, lease, name) for name in names))
        await driver.announce(lease, "standby/many", record("many"))
        await driver.renew(lease)
        names.append("standby/many")
        assert {entry.lease for entry in (await other.read(names)).entries.values()} == {lease.id}
        for name in names:
            await bench.until_free(other, name, within=bench.expiry(lease, driver))

    @check
    async def test_leases_are_independent(self, bench: Bench) -> None:
        """The end of one lease of a client touches nothing that another lease of the same client holds."""
        driver = await bench.client()
        one, other = await bench.long_lease(driver), await bench.long_lease(driver)
        await bench.take(driver, one, f"{LOCK}/1")
        kept = await bench.take(driver, other, f"{LOCK}/2")
        await driver.revoke(one)
        assert (await bench.entry(driver, f"{LOCK}/2")).index == kept.index
        await driver.renew(other)
