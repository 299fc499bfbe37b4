"""What others do to the store: junk under any key, and a store that is set back to what it was."""

from __future__ import annotations

from cluster_lock.driver import Inspectable
from cluster_lock.errors import ForeignValue
from cluster_lock.values import INVITE, REPLY, REQUEST, STANDBY

from .bench import LOCK, Backend, Bench, check, raised, record

HUGE = 400_000
"""Bytes. Consul takes 512 KiB."""
JUNK = (b"", b"\x00", b"\xff\xfe\x00", b'{"holder": "\\ud800"}', b"[" * 10_000)
KEYS = tuple(kind + "stranger" for kind in (STANDBY, INVITE, REQUEST, REPLY))

STRANGE_ENDS = (
    b"\xff\xfe",
    b"\x00",
    b"\n",
    b"%FF%FE",
    b"%25FF",
    b"%",
    b"\xe2\x80\xae",
    b"\xed\xa0\x80",
    b"/",
    b"//",
    b"a" * 900,
)
"""Ends of keys: what is no text, or no name that a driver writes."""


class Strangers(Backend):
    """Bytes are bytes to a driver, and an old state is a state."""

    @check
    async def test_any_bytes_are_carried(self, bench: Bench) -> None:
        """Whatever bytes stand under a key, of whichever kind, are read, scanned and told to who waits, as they are."""
        driver, other = await bench.clients()
        lease = await bench.long_lease(driver)
        for key in KEYS:
            for junk in JUNK:
                position = (await other.read([key])).position
                await driver.announce(lease, key, junk)
                assert (await bench.entry(other, key)).record == junk
                assert [entry.record for entry in await other.scan(key)] == [junk]
                await bench.until(other, key, lambda entry, junk=junk: entry.record == junk, since=position)  # type: ignore[misc]

    @check
    async def test_a_strangers_value_is_no_obstacle_beside_locks(self, bench: Bench) -> None:
        """What a person wrote under a key that is no lock is read, is nobody's, and is replaced by who announces."""
        bench.needs_hook("stranger_writes")
        driver, other = await bench.clients()
        lease = await bench.long_lease(driver)
        for key in KEYS:
            await self.stranger_writes(key, b"\xff junk")
            assert (await bench.entry(other, key)).lease is None
            assert await other.scan(key) == []
            await driver.announce(lease, key, content := record("holder"))
            entry = await bench.entry(other, key)
            assert (entry.lease, entry.record) == (lease.id, content)

    @check
    async def test_a_huge_value_is_foreign_for_its_lock_alone(self, bench: Bench) -> None:
        """What a person put under a lock's key is named and left as it is, however long it is; it costs no other lock
        anything, and nobody who waits beside it."""
        bench.needs_hook("stranger_writes")
        driver, other = await bench.clients()
        lease, beside = await bench.long_lease(driver), f"{LOCK}/beside"
        await self.stranger_writes(LOCK, b"{" * HUGE)
        position = (await other.read([LOCK, beside])).position
        assert LOCK in str(await raised(driver.acquire(lease, LOCK, record("holder")), ForeignValue))
        grant = await bench.take(driver, lease, beside)
        await bench.until(other, beside, lambda entry: entry.lease == lease.id, since=position, names=[LOCK, beside])
        assert (await bench.entry(other)).lease is None
        assert [entry.name for entry in await other.scan("leader/")] == [beside]
        await driver.release(grant, record("holder", released=True))

    @check
    async def test_strange_keys_disturb_nobody(self, bench: Bench) -> None:
        """Keys under the prefix that are no names, held by a living lease or by none, are passed over: a lock is taken,
        watched, shown and released beside them, and a lease revoked."""
        bench.needs_hook("stranger_writes_bytes")
        driver, waiter = await bench.clients()
        lease, mine = await bench.long_lease(driver), await bench.long_lease(waiter, "waiter")
        position = (await waiter.read([LOCK, "standby/waiter"])).position
        for end in STRANGE_ENDS:
            for folder in (b"leader/", b"standby/"):
                await self.stranger_writes_bytes(folder + end, b"\xff", lease)
                await self.stranger_writes_bytes(folder + b"free" + end, b"\xff", None)
        await self.stranger_writes_bytes(b"", b"\xff", lease)
        await self.stranger_writes_bytes(b"leader/", b"\xff", lease)
        grant = await bench.take(driver, lease)
        await bench.until(
            waiter, LOCK, lambda entry: entry.lease == lease.id, since=position, names=[LOCK, "standby/waiter"]
        )
        await waiter.announce(mine, "standby/waiter", record("waiter"))
        for prefix in ("leader/", "standby/", ""):
            names = [entry.name for entry in await waiter.scan(prefix)]
            assert all(name.encode().decode() == name for name in names)
            if prefix != "leader/":
                assert names.count("standby/waiter") == 1
            if prefix != "standby/":
                assert names.count(LOCK) == 1
            if isinstance(driver, Inspectable):
                assert set(names) <= {entry.name for entry in await driver.inspect(prefix)}
        await driver.release(grant, record("holder", released=True))
        await bench.until_free(waiter, since=None)
        await waiter.withdraw(mine, "standby/waiter")
        await driver.revoke(lease)

    @check
    async def test_a_store_that_was_set_back_says_so(self, bench: Bench) -> None:
        """After a restore a client that knew of something newer reads the state of then, with the lease and the index
        of then, and a wait from a newer position ends with it or with a later one."""
        bench.needs_hook("save_store")
        bench.needs_hook("restore_store")
        driver, other = await bench.clients()
        lease, heir = await bench.long_lease(driver), await bench.long_lease(other, "heir")
        grant = await bench.take(driver, lease)
        saved = await self.save_store()
        await driver.release(grant, record("holder"))
        newer = await bench.take(other, heir)
        known = await driver.read([LOCK])
        assert known.entries[LOCK].index == newer.index
        await self.restore_store(saved)
        entry = await bench.entry(driver)
        assert (entry.lease, entry.index, entry.record) == (lease.id, grant.index, grant.record)
        await bench.until(driver, LOCK, lambda entry: entry.lease == lease.id, since=known.position)
        again = await driver.acquire(lease, LOCK, record("holder"))
        assert again is not None
        assert (again.token, again.record) == (grant.token, grant.record)
