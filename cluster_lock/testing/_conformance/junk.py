"""Conformance: whatever a stranger puts under the prefix, no verb fails for it."""

from __future__ import annotations

from cluster_lock.driver import Inspectable

from .bench import LOCK, Backend, Bench, check, record

VALUES = (b"", b"\xff\xfe\x00", b"{", b"[" * 5000, b'{"holder": 5}', "\ud800".encode("utf-16-be", "surrogatepass"))
KEYS = (
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


class Junk(Backend):
    @check
    async def test_values_are_any_bytes(self, bench: Bench) -> None:
        """A record comes back as it was written, whatever bytes it has, from each verb that tells of it."""
        driver, other = await bench.clients()
        lease = await bench.long_lease(driver)
        for number, value in enumerate(VALUES):
            name = f"standby/junk-{number}"
            await driver.announce(lease, name, value)
            assert (await other.read([name])).entries[name].record == value
        found = {entry.name: entry.record for entry in await other.scan("standby/junk-")}
        assert found == {f"standby/junk-{number}": value for number, value in enumerate(VALUES)}

    @check
    async def test_strange_keys_disturb_nobody(self, bench: Bench) -> None:
        """Keys under the prefix that are no names, held by a living lease or by none, are passed over: a lock is taken,
        watched, shown and released beside them, and a lease revoked."""
        bench.needs_hook("stranger_writes_bytes")
        driver, waiter = await bench.clients()
        lease, mine = await bench.long_lease(driver), await bench.long_lease(waiter, "waiter")
        position = (await waiter.read([LOCK, "standby/waiter"])).position
        for end in KEYS:
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
