"""Conformance: who waits is told, loses nothing, and comes back in time."""

from __future__ import annotations

import asyncio

from cluster_lock import clock
from cluster_lock.driver import Driver

from .bench import LOCK, Backend, Bench, check, record

NEVER = "leader/never-there"
LATE = 3.0
"""Seconds that an answer may be late on a busy machine before it counts as not in time."""


class Watching(Backend):
    @check
    async def test_read_answers_for_every_name(self, bench: Bench) -> None:
        """A read has an entry for each name asked for, absent ones too, and for no other."""
        driver = await bench.client()
        grant = await bench.take(driver, await bench.long_lease(driver))
        await bench.take(driver, grant.lease, "leader/other")
        entries = (await driver.read([LOCK, NEVER])).entries
        assert set(entries) == {LOCK, NEVER}
        assert (entries[LOCK].name, entries[LOCK].index) == (LOCK, grant.index)
        assert (entries[NEVER].name, entries[NEVER].lease, entries[NEVER].record) == (NEVER, None, None)

    @check
    async def test_absent_key_has_an_index_at_which_it_was_absent(self, bench: Bench) -> None:
        """The index of a key that is gone is not below that of the grant that stood there: views can be ordered."""
        driver, other = await bench.clients()
        lease = await bench.long_lease(driver)
        first = await bench.take(driver, lease)
        await driver.release(first, record("holder", released=True))
        absent = await bench.entry(other)
        assert absent.lease is None
        assert absent.index >= first.index
        assert (await bench.take(driver, lease)).index > absent.index

    @check
    async def test_wait_without_a_position_answers_at_once(self, bench: Bench) -> None:
        """Without a position the answer is the state of all names, and does not wait for a change."""
        driver = await bench.client()
        grant = await bench.take(driver, await bench.long_lease(driver))
        begun = clock.now()
        changes = await driver.wait_changed([LOCK, NEVER], None, 20.0)
        assert clock.now() - begun < 10
        assert set(changes.entries) == {LOCK, NEVER}
        assert changes.entries[LOCK].index == grant.index

    @check
    async def test_change_before_the_wait_is_told_at_once(self, bench: Bench) -> None:
        """A release between a refused acquire and the wait that follows is not slept over."""
        holder, waiter = await bench.clients()
        grant = await bench.take(holder, await bench.long_lease(holder))
        mine = await bench.long_lease(waiter, "waiter")
        position = (await waiter.read([LOCK])).position
        assert await waiter.acquire(mine, LOCK, record("waiter")) is None
        await holder.release(grant, record("holder", released=True))
        begun = clock.now()
        changes = await waiter.wait_changed([LOCK], position, 20.0)
        assert clock.now() - begun < 10
        assert changes.entries[LOCK].lease is None
        await bench.take(waiter, mine)

    @check
    async def test_every_change_is_told_from_position_to_position(self, bench: Bench) -> None:
        """A waiter that goes on from each answer's position hears of every holder that stays until it has heard."""
        holder, waiter = await bench.clients()
        lease, position = await bench.long_lease(holder), (await waiter.read([LOCK])).position
        for _ in range(10):
            grant = await bench.take(holder, lease)
            position = await self._told(waiter, position, lease.id)
            await holder.release(grant, record("holder", released=True))
            position = await self._told(waiter, position, None)

    @check
    async def test_linearizable_wait_tells_of_the_last_change(self, bench: Bench) -> None:
        """Where the trait says so a wait that has two changes to tell of tells of the last, as a read does."""
        holder, waiter = await bench.clients()
        bench.needs(waiter.traits.linearizable_waits, "its waits tell of changes one by one")
        lease, position = await bench.long_lease(holder), (await waiter.read([LOCK])).position
        grant = await bench.take(holder, lease)
        await holder.release(grant, record("holder", released=True))
        grant = await bench.take(holder, lease)
        entry = (await waiter.wait_changed([LOCK], position, 10.0)).entries[LOCK]
        assert (entry.lease, entry.index) == (lease.id, grant.index)

    async def _told(self, driver: Driver, position: object, lease: str | None) -> object:
        give_up = clock.now() + 10
        while clock.now() < give_up:
            changes = await driver.wait_changed([LOCK], position, give_up - clock.now())
            position = changes.position
            if LOCK in changes.entries and changes.entries[LOCK].lease == lease:
                return position
        raise AssertionError(f"not told that {LOCK} is held by {lease}")

    @check
    async def test_short_life_between_two_waits_is_told(self, bench: Bench) -> None:
        """A lock that was taken and freed again since the position has changed, although it looks as it did."""
        holder, waiter = await bench.clients()
        lease = await bench.long_lease(holder)
        position = (await waiter.read([LOCK])).position
        grant = await bench.take(holder, lease)
        await holder.release(grant, record("holder", released=True))
        changes = await waiter.wait_changed([LOCK], position, 10.0)
        assert changes.entries[LOCK].lease is None
        assert changes.entries[LOCK].index >= grant.index

    @check
    async def test_waiter_is_woken_by_acquire_and_release(self, bench: Bench) -> None:
        """A waiter that is already waiting is told of each change, long before its time is up."""
        holder, waiter = await bench.clients()
        lease, position = await bench.long_lease(holder), (await waiter.read([LOCK])).position
        waiting = asyncio.create_task(bench.until(waiter, LOCK, lambda entry: entry.lease == lease.id, since=position))
        await asyncio.wait([waiting], timeout=0.05)  # so that it waits already, as it usually does
        grant = await bench.take(holder, lease)
        assert (await waiting).index == grant.index
        position = (await waiter.read([LOCK])).position
        waiting = asyncio.create_task(bench.until_free(waiter, since=position))
        await asyncio.wait([waiting], timeout=0.05)
        await holder.release(grant, record("holder", released=True))
        await waiting

    @check
    async def test_waiter_is_notified_not_polling(self, bench: Bench) -> None:
        """Where the trait says so a waiter hears of a release in the time of a request, not of a polling period."""
        holder, waiter = await bench.clients()
        bench.needs(holder.traits.notifies, "it polls")
        lease, delays = await bench.long_lease(holder), []
        for _ in range(10):
            grant = await bench.take(holder, lease)
            waiting = asyncio.create_task(bench.until_free(waiter, since=(await waiter.read([LOCK])).position))
            await asyncio.wait([waiting], timeout=0.05)
            await holder.release(grant, record("holder", released=True))
            released = clock.now()
            await waiting
            delays.append(clock.now() - released)
        assert sorted(delays)[2] < 0.05, f"told after {[f'{delay:.3f}' for delay in delays]} s"

    @check
    async def test_one_wait_for_many_names(self, bench: Bench) -> None:
        """One wait covers many names; the one that changed is in the answer, whichever it is."""
        holder, waiter = await bench.clients()
        lease = await bench.long_lease(holder)
        names = [f"{LOCK}/{number}" for number in range(40)]
        position = (await waiter.read(names)).position
        for name in (names[0], names[23], names[-1]):
            waiting = asyncio.create_task(
                bench.until(waiter, name, lambda entry: entry.lease is not None, since=position, names=names)
            )
            await bench.take(holder, lease, name)
            assert (await waiting).lease == lease.id

    @check
    async def test_one_request_for_thousands_of_names(self, bench: Bench) -> None:
        """A read and a wait of thousands of names have an answer for each, and tell the one that changed."""
        holder, waiter = await bench.clients()
        lease = await bench.long_lease(holder)
        names = [f"{LOCK}/{number}" for number in range(3000)]
        first = await waiter.read(names)
        assert list(first.entries) == names
        assert {entry.lease for entry in first.entries.values()} == {None}
        grant = await bench.take(holder, lease, names[2345])
        seen = await bench.until(
            waiter, names[2345], lambda entry: entry.lease is not None, since=first.position, names=names
        )
        assert (seen.lease, seen.index) == (lease.id, grant.index)

    @check
    async def test_wait_returns_in_time(self, bench: Bench) -> None:
        """With nothing to tell a wait is over when its time is, or before, and its position still serves."""
        driver = await bench.client()
        position = (await driver.read([LOCK])).position
        for at_most in (0.0, 1.5):
            begun = clock.now()
            changes = await driver.wait_changed([LOCK], position, at_most)
            assert clock.now() - begun < at_most + LATE
            assert all(entry.lease is None for entry in changes.entries.values())
            position = changes.position
        grant = await bench.take(driver, await bench.long_lease(driver))
        assert (await driver.wait_changed([LOCK], position, 10.0)).entries[LOCK].index == grant.index

    @check
    async def test_own_changes_are_told_too(self, bench: Bench) -> None:
        """A client's own writes wake its own waiter: a late acquire of ours must be noticed by us."""
        driver = await bench.client()
        lease, position = await bench.long_lease(driver), (await driver.read([LOCK])).position
        waiting = asyncio.create_task(bench.until(driver, LOCK, lambda entry: entry.lease == lease.id, since=position))
        grant = await bench.take(driver, lease)
        assert (await waiting).index == grant.index

    @check
    async def test_forgotten_position_is_a_fresh_read(self, bench: Bench) -> None:
        """A position that the backend no longer has is answered with the state of all names, not with an error."""
        driver = await bench.client()
        bench.needs_hook("forgotten_position")
        grant = await bench.take(driver, await bench.long_lease(driver))
        changes = await driver.wait_changed([LOCK, NEVER], await self.forgotten_position(), 10.0)
        assert set(changes.entries) == {LOCK, NEVER}
        assert changes.entries[LOCK].index == grant.index
        await driver.release(grant, record("holder", released=True))
        assert (await driver.wait_changed([LOCK], changes.position, 10.0)).entries[LOCK].lease is None
