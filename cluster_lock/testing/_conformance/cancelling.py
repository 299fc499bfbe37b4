"""Conformance: a verb may be cancelled at any await, and the client and the store are as good as before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

from .bench import LOCK, Backend, Bench, check, record

MOMENTS = (0, 1, 2, 3, 5, 8, 0.0005, 0.001, 0.002, 0.004, 0.008)
"""When to cancel: after so many turns of the event loop (int), or so many seconds (float)."""


async def cancelled(call: Awaitable[Any], moment: float) -> None:
    """Begin `call`, cancel it at `moment`, and see that it ends soon, by that or by its own result."""
    task = asyncio.ensure_future(call)
    if isinstance(moment, int):
        for _ in range(moment):
            await asyncio.sleep(0)
    else:
        await asyncio.wait([task], timeout=moment)
    task.cancel()
    await asyncio.wait([task], timeout=5.0)
    assert task.done(), "a cancelled verb goes on"
    error = None if task.cancelled() else task.exception()
    assert error is None, f"a cancelled verb raised {error!r}"


async def each_moment() -> AsyncIterator[tuple[float, str]]:
    for number, moment in enumerate(MOMENTS):
        yield moment, f"{LOCK}/{number}"


class Cancelling(Backend):
    @check
    async def test_cancelled_acquire(self, bench: Bench) -> None:
        """After a cancelled acquire the same lease acquires and sees itself; its end frees the lock for the next."""
        driver, other = await bench.clients()
        rival = await bench.long_lease(other, "rival")
        async for moment, name in each_moment():
            lease = await bench.long_lease(driver)
            await cancelled(driver.acquire(lease, name, record("cancelled")), moment)
            grant = await bench.take(driver, lease, name)
            entry = await bench.entry(other, name)
            assert (entry.lease, entry.index, entry.record) == (lease.id, grant.index, grant.record)
            await driver.revoke(lease)
            await bench.until_free(other, name)
            assert (await bench.take(other, rival, name)).token > grant.token

    @check
    async def test_cancelled_release(self, bench: Bench) -> None:
        """After a cancelled release the release is repeated, and the lock is free with its farewell."""
        driver, other = await bench.clients()
        lease, rival = await bench.long_lease(driver), await bench.long_lease(other, "rival")
        async for moment, name in each_moment():
            grant, farewell = await bench.take(driver, lease, name), record("done", released=True)
            await cancelled(driver.release(grant, farewell), moment)
            await driver.release(grant, farewell)
            assert (await bench.take(other, rival, name)).previous == farewell

    @check
    async def test_cancelled_transfer(self, bench: Bench) -> None:
        """After a cancelled transfer it is repeated, and the lock is the heir's, whichever of the two made it so."""
        driver, heir = await bench.clients()
        bench.needs(driver.traits.transfers, "it does not transfer")
        lease, theirs = await bench.long_lease(driver), await bench.long_lease(heir, "heir")
        await heir.announce(theirs, "standby/heir", record("heir"))
        (contender,) = await driver.scan("standby/")
        async for moment, name in each_moment():
            grant = await bench.take(driver, lease, name)
            await cancelled(driver.transfer(grant, contender, record("heir")), moment)
            await driver.transfer(grant, contender, record("heir"))
            entry = await bench.entry(heir, name)
            assert entry.lease == theirs.id
            assert entry.index > grant.index

    @check
    async def test_cancelled_announce_and_withdraw(self, bench: Bench) -> None:
        """A cancelled announce or withdraw is repeated, and then the key stands or is gone."""
        driver, other = await bench.clients()
        lease = await bench.long_lease(driver)
        async for moment, name in each_moment():
            content = record("here")
            await cancelled(driver.announce(lease, name, content), moment)
            await driver.announce(lease, name, content)
            assert (await bench.entry(other, name)).record == content
        async for moment, name in each_moment():
            await cancelled(driver.withdraw(lease, name), moment)
            await driver.withdraw(lease, name)
            assert (await bench.entry(other, name)).lease is None

    @check
    async def test_cancelled_lease_verbs(self, bench: Bench) -> None:
        """After a cancelled grant, renewal or revocation the client goes on, and a repeated revocation frees all."""
        driver, other = await bench.clients()
        async for moment, name in each_moment():
            await cancelled(driver.grant_lease("abandoned", self.ttl), moment)
            lease = await bench.long_lease(driver)
            await bench.take(driver, lease, name)
            await cancelled(driver.renew(lease), moment)
            await driver.renew(lease)
            await cancelled(driver.revoke(lease), moment)
            await driver.revoke(lease)
            assert (await bench.entry(other, name)).lease is None

    @check
    async def test_cancelled_reads_and_waits(self, bench: Bench) -> None:
        """A cancelled read, scan or wait loses nothing: the wait that follows tells the change."""
        driver, other = await bench.clients()
        lease = await bench.long_lease(driver)
        async for moment, name in each_moment():
            position = (await other.read([name])).position
            await cancelled(other.read([name]), moment)
            await cancelled(other.scan("leader/"), moment)
            await cancelled(other.wait_changed([name], position, 30.0), moment)
            grant = await bench.take(driver, lease, name)
            await cancelled(other.wait_changed([name], position, 30.0), moment)
            entry = await bench.until(other, name, lambda entry: entry.lease is not None, since=position)
            assert (entry.lease, entry.index) == (lease.id, grant.index)

    @check
    async def test_many_waits_cancelled_at_once(self, bench: Bench) -> None:
        """Waits that were given up hold nothing: the client still answers at once."""
        driver = await bench.client()
        position = (await driver.read([LOCK])).position
        waits = [asyncio.ensure_future(driver.wait_changed([LOCK], position, 30.0)) for _ in range(30)]
        await asyncio.wait(waits, timeout=0.1)
        for wait in waits:
            wait.cancel()
        await asyncio.wait(waits, timeout=5.0)
        assert all(wait.cancelled() for wait in waits), waits
        await bench.take(driver, await bench.long_lease(driver))
