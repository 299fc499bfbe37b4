"""Conformance: at most one lease holds a lock, and every grant has a larger token than the ones before."""

from __future__ import annotations

import asyncio

from cluster_lock.errors import ForeignValue

from .bench import LOCK, Backend, Bench, check, raised, record

ODD_NAMES = (
    "leader/with space",
    "leader/100%25",
    "leader/why?recurse",
    "leader/a/b//c",
    "leader/a/b/c",
    "leader/a#b&c=d+e;f",
    "leader/..",
    "leader/.hidden",
    "leader/quote\"'\\`$HOME",
    "leader/-1001234567890",
    "leader/Ünïcödé-日本-🤖",
    "leader/CASE",
    "leader/case",
    "leader/case:",
    "leader/" + "long" * 60,
    "leader/" + "long" * 60 + "!",
)


class Locks(Backend):
    @check
    async def test_acquire_gives_what_a_read_shows(self, bench: Bench) -> None:
        """A grant carries the token, and its index, lease and record are what everybody reads under the key."""
        holder, other = await bench.clients()
        lease, content = await bench.long_lease(holder), record("a")
        grant = await bench.take(holder, lease, content=content)
        assert (grant.name, grant.lease, grant.record, grant.previous) == (LOCK, lease, content, None)
        assert 0 < grant.token <= grant.index
        entry = await bench.entry(other)
        assert (entry.name, entry.lease, entry.index, entry.record) == (LOCK, lease.id, grant.index, content)

    @check
    async def test_acquire_again_is_the_same_grant(self, bench: Bench) -> None:
        """The same lease acquires again: the same token, and the record stays what it was, byte for byte."""
        driver = await bench.client()
        lease, content = await bench.long_lease(driver), record("first")
        grant = await bench.take(driver, lease, content=content)
        for _ in range(2):
            again = await bench.take(driver, lease, content=record("second"))
            assert (again.token, again.index, again.record) == (grant.token, grant.index, content)
        entry = await bench.entry(driver)
        assert (entry.index, entry.record) == (grant.index, content)

    @check
    async def test_acquire_again_tells_again_what_was_left(self, bench: Bench) -> None:
        """An acquire whose answer was lost is repeated and still learns what the last holder left."""
        driver = await bench.client()
        lease, farewell = await bench.long_lease(driver), record("gone", released=True)
        await driver.release(await bench.take(driver, lease), farewell)
        first, second = await bench.take(driver, lease), await bench.take(driver, lease)
        assert (first.previous, second.previous) == (farewell, farewell)

    @check
    async def test_refused_while_another_lease_holds(self, bench: Bench) -> None:
        """Another lease is refused, from the same client and from another, and nothing of the holder's changes."""
        holder, other = await bench.clients()
        grant = await bench.take(holder, await bench.long_lease(holder))
        before = await bench.entry(other)
        for driver in (holder, other):
            assert await driver.acquire(await bench.long_lease(driver, "other"), LOCK, record("other")) is None
        assert await bench.entry(other) == before
        assert before.index == grant.index

    @check
    async def test_high_contention_has_one_winner(self, bench: Bench) -> None:
        """Of many leases that acquire at once exactly one is granted, round after round, with growing tokens."""
        drivers = [await bench.client() for _ in range(5)]
        leases = [
            (driver, await bench.long_lease(driver, f"contender-{number}"))
            for number in range(self.contenders)
            for driver in [drivers[number % len(drivers)]]
        ]
        tokens = [0]
        for _ in range(3):
            grants = await asyncio.gather(
                *(driver.acquire(lease, LOCK, record(lease.holder)) for driver, lease in leases)
            )
            (winner,) = [grant for grant in grants if grant is not None]
            entry = await bench.entry(drivers[0])
            assert (entry.lease, entry.index, entry.record) == (winner.lease.id, winner.index, winner.record)
            tokens.append(winner.token)
            await drivers[0].release(winner, record("winner", released=True))
        assert tokens == sorted(set(tokens)), tokens

    @check
    async def test_concurrent_verbs_of_one_client(self, bench: Bench) -> None:
        """One client serves many verbs at once, each with its own right answer."""
        driver = await bench.client()
        lease = await bench.long_lease(driver)
        names = [f"{LOCK}/{number}" for number in range(20)]
        contents = [record(name) for name in names]
        others = [asyncio.ensure_future(call) for _ in range(5) for call in (driver.renew(lease), driver.read(names))]
        grants = await asyncio.gather(
            *(driver.acquire(lease, name, content) for name, content in zip(names, contents, strict=True))
        )
        await asyncio.gather(*others)
        assert [grant.record for grant in grants if grant] == contents
        await asyncio.gather(*(driver.release(grant, record("done", released=True)) for grant in grants if grant))
        assert {entry.lease for entry in (await driver.read(names)).entries.values()} == {None}

    @check
    async def test_release_frees_and_leaves_the_farewell_once(self, bench: Bench) -> None:
        """The next holder reads the farewell; the one after it reads what the next holder wrote, not the farewell."""
        one, other = await bench.clients()
        first, second = await bench.long_lease(one, "first"), await bench.long_lease(other, "second")
        farewell = record("first", released=True)
        await one.release(await bench.take(one, first), farewell)
        assert (await bench.entry(other)).lease is None
        taken = await bench.take(other, second)
        assert taken.previous == farewell
        await other.revoke(second)
        third = await bench.take(one, first)
        assert third.previous == taken.record

    @check
    async def test_after_expiry_the_record_is_left(self, bench: Bench) -> None:
        """Who takes over from a holder that went silent reads that holder's record as `previous`."""
        one, other = await bench.clients()
        bench.needs(one.traits.expires, "its leases do not expire")
        lost = await bench.lease(one)
        grant = await bench.take(one, lost)
        await bench.until_free(other, within=bench.expiry(lost, one))
        assert (await bench.take(other, await bench.long_lease(other))).previous == grant.record

    @check
    async def test_release_is_idempotent(self, bench: Bench) -> None:
        """Releasing again, after the lock or even the lease went to somebody else, changes and raises nothing."""
        one, other = await bench.clients()
        first, second = await bench.long_lease(one), await bench.long_lease(other)
        grant = await bench.take(one, first)
        farewell = record("first", released=True)
        await one.release(grant, farewell)
        await one.release(grant, record("late", released=True))
        taken = await bench.take(other, second)
        assert taken.previous == farewell
        await one.release(grant, record("late", released=True))
        await one.revoke(first)
        await one.release(grant, record("late", released=True))
        assert (await bench.entry(other)).index == taken.index

    @check
    async def test_late_release_of_an_earlier_term_changes_nothing(self, bench: Bench) -> None:
        """A second copy of a release that comes when the SAME lease leads its next term takes nothing from it."""
        driver, other = await bench.clients()
        lease, rival = await bench.long_lease(driver), await bench.long_lease(other, "rival")
        first = await bench.take(driver, lease)
        farewell = record("first", released=True)
        await driver.release(first, farewell)
        second = await bench.take(driver, lease)
        await driver.release(first, farewell)
        entry = await bench.entry(other)
        assert (entry.lease, entry.index, entry.record) == (lease.id, second.index, second.record)
        assert await other.acquire(rival, LOCK, record("rival")) is None

    @check
    async def test_tokens_grow_over_every_end_of_a_term(self, bench: Bench) -> None:
        """Each grant has a larger token than all before it, whether they ended by release, revocation or expiry."""
        driver, other = await bench.clients()
        lasting = await bench.long_lease(driver)
        grant = await bench.take(driver, lasting)
        tokens = [grant.token]
        await driver.release(grant, record("one", released=True))
        ending = await bench.long_lease(other)
        tokens.append((await bench.take(other, ending)).token)
        await other.revoke(ending)
        if driver.traits.expires:
            silent = await bench.lease(other)
            tokens.append((await bench.take(other, silent)).token)
            await bench.until_free(driver, within=bench.expiry(silent, driver))
        grant = await bench.take(driver, lasting)
        tokens.append(grant.token)
        await driver.release(grant, record("two", released=True))
        tokens.append((await bench.take(driver, lasting)).token)
        assert tokens == sorted(set(tokens)), tokens

    @check
    async def test_key_deleted_by_a_person(self, bench: Bench) -> None:
        """A deleted key is free for all, wakes who watches it, ends no lease; tokens go on where the trait says so."""
        holder, other = await bench.clients()
        bench.needs_hook("stranger_deletes")
        lease, rival = await bench.long_lease(holder), await bench.long_lease(other, "rival")
        grant = await bench.take(holder, lease)
        position = (await holder.read([LOCK])).position
        await self.stranger_deletes(LOCK)
        gone = await bench.until_free(holder, since=position)
        assert gone.index >= grant.index
        await holder.renew(lease)
        taken = await bench.take(other, rival)
        assert taken.previous in (None, grant.record)
        if other.traits.tokens_survive_deletion:
            assert taken.token > grant.token
        await holder.release(grant, record("late", released=True))
        assert (await bench.entry(other)).index == taken.index

    @check
    async def test_foreign_value_is_named_and_never_overwritten(self, bench: Bench) -> None:
        """What a stranger put under a free lock's key is refused with the key's name, and stands as it was."""
        driver = await bench.client()
        bench.needs_hook("stranger_writes")
        lease = await bench.long_lease(driver)
        await self.stranger_writes(LOCK, b"not ours")
        before = await bench.entry(driver)
        for _ in range(2):
            assert LOCK in str(await raised(driver.acquire(lease, LOCK, record("a")), ForeignValue))
        assert await bench.entry(driver) == before
        assert before.lease is None

    @check
    async def test_odd_names_are_all_different_locks(self, bench: Bench) -> None:
        """Names with spaces, slashes, percent signs, letters of any script are each their own lock, read as written."""
        holder, other = await bench.clients()
        lease, rival = await bench.long_lease(holder), await bench.long_lease(other, "rival")
        grants = {name: await bench.take(holder, lease, name) for name in ODD_NAMES}
        read = (await other.read(ODD_NAMES)).entries
        assert {name: entry.record for name, entry in read.items()} == {n: grant.record for n, grant in grants.items()}
        assert [entry.name for entry in await other.scan("leader/")] == list(ODD_NAMES)
        for name in ODD_NAMES:
            assert await other.acquire(rival, name, record("rival")) is None
        for name in ODD_NAMES:
            await holder.release(grants[name], record(name, released=True))
            assert (await bench.take(other, rival, name)).token > grants[name].token

    @check
    async def test_prefixes_keep_apart(self, bench: Bench) -> None:
        """The same name under another prefix is another lock."""
        one = await bench.client()
        mine, self.prefix = self.prefix, f"other-{self.prefix}"
        other = await bench.client()
        self.prefix = mine
        await bench.take(one, await bench.long_lease(one))
        assert (await bench.entry(other)).lease is None
        await bench.take(other, await bench.long_lease(other))
        assert len(await one.scan("leader/")) == 1

    @check
    async def test_failed_acquires_leak_nothing(self, bench: Bench) -> None:
        """After 1,000 refusals the server has no more leases than before, and the lock goes to the next at once."""
        holder, waiter = await bench.clients()
        bench.needs_hook("count_leases")
        lease, mine = await bench.long_lease(holder), await bench.long_lease(waiter, "waiter")
        grant = await bench.take(holder, lease)
        before = await self.count_leases()
        for _ in range(20):
            refused = await asyncio.gather(*(waiter.acquire(mine, LOCK, record("waiter")) for _ in range(50)))
            assert set(refused) == {None}
        assert await self.count_leases() <= before  # those of others may have expired
        await holder.release(grant, record("holder", released=True))
        await bench.take(waiter, mine)
