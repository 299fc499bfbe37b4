"""Conformance: contender records, and giving the lock to the one who waits."""

from __future__ import annotations

import asyncio

from cluster_lock.driver import Driver
from cluster_lock.values import Entry, Grant, Lease

from .bench import LOCK, Backend, Bench, check, record

HEIR = "standby/heir"


class Hall:
    """A leader that holds the lock and a contender that waits, on two clients."""

    leader: Driver
    heir: Driver
    lease: Lease
    heirs_lease: Lease
    grant: Grant
    contender: Entry

    @classmethod
    async def of(cls, bench: Bench) -> Hall:
        hall = cls()
        hall.leader, hall.heir = await bench.clients()
        bench.needs(hall.leader.traits.transfers, "it does not transfer")
        hall.lease = await bench.long_lease(hall.leader, "leader")
        hall.heirs_lease = await bench.long_lease(hall.heir, "heir")
        hall.grant = await bench.take(hall.leader, hall.lease)
        await hall.heir.announce(hall.heirs_lease, HEIR, record("heir"))
        (hall.contender,) = await hall.leader.scan("standby/")
        return hall


class Handover(Backend):
    @check
    async def test_announced_keys_are_scanned_oldest_first(self, bench: Bench) -> None:
        """A scan shows every key under the prefix, its lease and record, in the order of their last change."""
        one, other = await bench.clients()
        leases = [await bench.long_lease(driver, f"web-{n}") for n, driver in enumerate((one, other, one), 8)]
        contents = {f"standby/{lease.holder}": record(lease.holder) for lease in leases}
        for (name, content), lease, driver in zip(contents.items(), leases, (one, other, one), strict=True):
            await driver.announce(lease, name, content)
        await bench.take(one, leases[0])
        await one.announce(leases[0], "standbyx/no", record("no"))
        found = await other.scan("standby/")
        assert {entry.name: entry.record for entry in found} == contents
        assert [entry.lease for entry in found] == [lease.id for lease in leases]
        assert [entry.index for entry in found] == sorted({entry.index for entry in found})
        assert found == list((await one.read(list(contents))).entries.values())
        await one.announce(leases[0], "standby/web-8", record("answer"))
        assert [entry.name for entry in await other.scan("standby/")] == [f"standby/web-{n}" for n in (9, 10, 8)]

    @check
    async def test_scan_of_nothing(self, bench: Bench) -> None:
        """Where nothing stands a scan is empty."""
        assert await (await bench.client()).scan("standby/") == []

    @check
    async def test_announce_replaces(self, bench: Bench) -> None:
        """Announcing again replaces the record, and wakes who watches it."""
        one, other = await bench.clients()
        lease, answer = await bench.long_lease(one), record("answer")
        await one.announce(lease, HEIR, record("heir"))
        position = (await other.read([HEIR])).position
        await one.announce(lease, HEIR, answer)
        seen = await bench.until(other, HEIR, lambda entry: entry.record == answer, since=position)
        assert seen.lease == lease.id

    @check
    async def test_announce_replaces_what_another_lease_wrote(self, bench: Bench) -> None:
        """A key announced by one lease and then by another belongs to the other; the end of the first leaves it."""
        one, other = await bench.clients()
        first, second = await bench.long_lease(one), await bench.long_lease(other)
        await one.announce(first, HEIR, record("first"))
        mine = record("second")
        await other.announce(second, HEIR, mine)
        await one.withdraw(first, HEIR)
        await one.revoke(first)
        entry = await bench.entry(one, HEIR)
        assert (entry.lease, entry.record) == (second.id, mine)

    @check
    async def test_announced_key_ends_with_its_lease(self, bench: Bench) -> None:
        """The end of a lease, by revocation or expiry, takes what it announced out of scans and reads."""
        one, other = await bench.clients()
        revoked = await bench.long_lease(one)
        await one.announce(revoked, "standby/revoked", record("revoked"))
        await one.revoke(revoked)
        assert await other.scan("standby/") == []
        if one.traits.expires:
            expiring = await bench.lease(one)
            await one.announce(expiring, "standby/expired", record("expired"))
            await bench.until_free(other, "standby/expired", within=bench.expiry(expiring, one))
            assert await other.scan("standby/") == []

    @check
    async def test_withdraw_deletes_its_own_only(self, bench: Bench) -> None:
        """Withdrawing deletes the lease's own key and wakes who watches it, never anybody else's; twice is fine."""
        one, other = await bench.clients()
        mine, theirs = await bench.long_lease(one), await bench.long_lease(other)
        await one.announce(mine, HEIR, record("mine"))
        position = (await other.read([HEIR])).position
        await other.withdraw(theirs, HEIR)
        assert (await bench.entry(other, HEIR)).lease == mine.id
        await one.withdraw(mine, HEIR)
        await bench.until_free(other, HEIR, since=position)
        await one.withdraw(mine, HEIR)
        assert await other.scan("standby/") == []

    @check
    async def test_transfer_gives_the_lock_in_one_step(self, bench: Bench) -> None:
        """The heir is told, reads its own lease under the lock with a larger index, and needs no write to hold it."""
        hall = await Hall.of(bench)
        position = (await hall.heir.read([LOCK])).position
        content = record("heir")
        waiting = asyncio.create_task(
            bench.until(hall.heir, LOCK, lambda entry: entry.lease != hall.lease.id, since=position)
        )
        await asyncio.wait([waiting], timeout=0.05)  # so that it waits already, as an heir does
        assert await hall.leader.transfer(hall.grant, hall.contender, content) is True
        entry = await waiting
        assert (entry.lease, entry.record) == (hall.heirs_lease.id, content), "something was seen in between"
        assert entry.index > hall.grant.index
        assert await hall.leader.acquire(hall.lease, LOCK, record("leader")) is None
        again = await bench.take(hall.heir, hall.heirs_lease)
        assert (again.token, again.index, again.record) == (entry.index, entry.index, content)

    @check
    async def test_heir_rules_by_what_it_read(self, bench: Bench) -> None:
        """A grant put together from the heir's read is as good as any: it releases, and the next token is larger."""
        hall = await Hall.of(bench)
        assert await hall.leader.transfer(hall.grant, hall.contender, record("heir"))
        entry = await bench.entry(hall.heir)
        grant = Grant(LOCK, hall.heirs_lease, entry.index, entry.index, entry.record or b"")
        farewell = record("heir", released=True)
        await hall.heir.release(grant, farewell)
        back = await bench.take(hall.leader, hall.lease)
        assert back.previous == farewell
        assert back.token > entry.index

    @check
    async def test_old_leader_leaves_after_a_transfer(self, bench: Bench) -> None:
        """After a transfer nothing that the old leader does, not even the end of its lease, touches the heir's lock."""
        hall = await Hall.of(bench)
        assert await hall.leader.transfer(hall.grant, hall.contender, record("heir"))
        entry = await bench.entry(hall.heir)
        await hall.leader.renew(hall.lease)
        await hall.leader.release(hall.grant, record("leader", released=True))
        await hall.leader.revoke(hall.lease)
        assert await bench.entry(hall.heir) == entry
        await hall.heir.revoke(hall.heirs_lease)
        await bench.take(hall.leader, await bench.long_lease(hall.leader))

    @check
    async def test_transfer_to_an_heir_that_answered_since(self, bench: Bench) -> None:
        """The heir's key may have been announced anew since it was scanned, as an answer to an invitation is."""
        hall = await Hall.of(bench)
        await hall.heir.announce(hall.heirs_lease, HEIR, record("answer"))
        assert await hall.leader.transfer(hall.grant, hall.contender, record("heir")) is True

    @check
    async def test_transfer_refused_when_the_heir_withdrew(self, bench: Bench) -> None:
        """An heir that took its key back gets nothing, though its lease lives on; the leader keeps its lock."""
        hall = await Hall.of(bench)
        await hall.heir.withdraw(hall.heirs_lease, HEIR)
        await self._refused(bench, hall)

    @check
    async def test_transfer_refused_when_the_heirs_lease_is_gone(self, bench: Bench) -> None:
        """An heir whose lease ended gets nothing; the leader keeps its lock as it was."""
        hall = await Hall.of(bench)
        await hall.heir.revoke(hall.heirs_lease)
        await self._refused(bench, hall)

    @check
    async def test_transfer_refused_when_the_heirs_key_changed_hands(self, bench: Bench) -> None:
        """An heir whose key was announced by another lease since gets nothing; the leader keeps its lock as it was."""
        hall = await Hall.of(bench)
        await hall.heir.announce(await bench.long_lease(hall.heir, "restarted"), HEIR, record("restarted"))
        await self._refused(bench, hall)

    async def _refused(self, bench: Bench, hall: Hall) -> None:
        before = await bench.entry(hall.heir)
        assert await hall.leader.transfer(hall.grant, hall.contender, record("heir")) is False
        assert await bench.entry(hall.heir) == before
        assert (before.lease, before.index) == (hall.lease.id, hall.grant.index)
        await hall.leader.release(hall.grant, record("leader", released=True))
        assert (await bench.entry(hall.heir)).lease is None

    @check
    async def test_everything_twice_at_once(self, bench: Bench) -> None:
        """Each request of a term that arrives twice at the same moment does what one does: the same grant, one heir,
        one farewell, and nothing left in the way of the next term."""
        driver, heir = await bench.clients()
        lease, mine = await bench.long_lease(driver), await bench.long_lease(heir, "heir")
        content, farewell = record("holder"), record("done", released=True)
        one, same = await asyncio.gather(*(driver.acquire(lease, LOCK, content) for _ in range(2)))
        assert one is not None
        assert same is not None
        assert (one.token, one.index, one.record) == (same.token, same.index, same.record)
        await asyncio.gather(*(heir.announce(mine, HEIR, content) for _ in range(2)))
        (contender,) = await driver.scan("standby/")
        grant = one
        if driver.traits.transfers:
            gave = await asyncio.gather(*(driver.transfer(one, contender, content) for _ in range(2)))
            assert True in gave
            entry = await bench.entry(driver)
            assert entry.lease == mine.id
            driver, lease, grant = heir, mine, Grant(LOCK, mine, entry.index, entry.index, entry.record or b"")
        await asyncio.gather(*(driver.release(grant, farewell) for _ in range(2)))
        await asyncio.gather(*(heir.withdraw(mine, HEIR) for _ in range(2)))
        assert await driver.scan("") == []
        again = await bench.take(driver, lease)
        assert again.previous == farewell
        assert again.token > grant.token
        await asyncio.gather(*(driver.revoke(lease) for _ in range(2)))
        assert (await bench.entry(driver)).lease is None

    @check
    async def test_late_transfer_of_an_earlier_term_changes_nothing(self, bench: Bench) -> None:
        """A second copy of a transfer that comes when the SAME lease leads its next term gives nothing away."""
        hall = await Hall.of(bench)
        await hall.leader.release(hall.grant, record("leader", released=True))
        second = await bench.take(hall.leader, hall.lease)
        assert await hall.leader.transfer(hall.grant, hall.contender, record("heir")) is False
        assert (await bench.entry(hall.heir)).index == second.index
        assert await hall.leader.transfer(second, hall.contender, record("heir")) is True
        assert await hall.leader.transfer(second, hall.contender, record("heir")) is False
        entry = await bench.entry(hall.heir)
        grant = Grant(LOCK, hall.heirs_lease, entry.index, entry.index, entry.record or b"")
        await hall.heir.release(grant, record("heir", released=True))
        third = await bench.take(hall.leader, hall.lease)
        assert await hall.leader.transfer(second, hall.contender, record("heir")) is False
        entry = await bench.entry(hall.heir)
        assert (entry.lease, entry.index) == (hall.lease.id, third.index)
