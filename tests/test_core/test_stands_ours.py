"""A lock that stands under our lease, by no request of ours: whether it is led on, given back, or asked for anew."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import replace

import pytest
from support.aio import until
from support.sessions import TIMING, holder, session

from cluster_lock.drivers.memory import MemoryBackend, MemoryDriver
from cluster_lock.errors import TokenWentBack
from cluster_lock.values import LEADER, Changes, Grant, Lease

pytestmark = pytest.mark.virtual


async def test_what_a_restore_left_us_is_given_back_and_asked_for_anew(store: MemoryBackend) -> None:
    """Who waits, and is holder again after a restore by a grant of long ago, gives that back, and leads with a larger
    token than ever if there is one."""
    async with session(store, "a") as a, session(store, "b") as b:
        await b.lease()
        first = await a.lock("x").acquire()
        saved = store.save()
        await first.end({})
        later = await b.lock("x").acquire()
        waiting = asyncio.ensure_future(a.lock("x").acquire())
        await until(lambda: a.context.identity.tokens.largest("x") == later.fencing_token)
        store.restore(saved, bump=1_000_000)
        assert holder(store, "x") == "a"
        hold = await asyncio.wait_for(waiting, 3 * TIMING.ttl)
        assert hold.fencing_token > later.fencing_token
        await hold.end({})
        await later.end({})


class Copying(MemoryDriver):
    """A client whose every acquire comes after somebody's copy of another one."""

    def __init__(self, store: MemoryBackend) -> None:
        super().__init__(store)
        self.acquires = 0

    async def acquire(self, lease: Lease, name: str, record: bytes) -> Grant | None:
        self.acquires += 1
        await super().acquire(lease, name, b"{}")
        return await super().acquire(lease, name, record)


async def test_a_lock_is_asked_for_anew_once(store: MemoryBackend) -> None:
    """Who finds a lock under its lease again and again, with a token that is too small, says so after the second
    time."""
    async with session(store, "a", fencing_floor=5000) as a, a.lock("x").hold():
        pass
    driver = Copying(store)
    async with session(store, "b", driver=driver) as b, asyncio.timeout(TIMING.ttl):
        with pytest.raises(TokenWentBack, match="says that"):
            await b.lock("x").acquire()
    assert driver.acquires == 2


class Retold(MemoryDriver):
    """A client that makes each text anew that the store says, as one that reads it from a connection."""

    async def wait_changed(self, names: Collection[str], since: object | None, at_most: float) -> Changes:
        changes = await super().wait_changed(names, since, at_most)
        entries = {name: replace(entry, lease=retold(entry.lease)) for name, entry in changes.entries.items()}
        return replace(changes, entries=entries)


def retold(text: str | None) -> str | None:
    return None if text is None else text.encode().decode()


async def test_a_lease_is_known_by_its_text(store: MemoryBackend) -> None:
    """What stands under our lease is ours, whoever told of it: it is released where nobody here asked for it."""
    other = MemoryDriver(store)
    for _ in range(16):  # Python keeps each text of one character only once
        await other.grant_lease("other", TIMING.ttl)
    async with session(store, "a", driver=Retold(store)) as a:
        with a.context.watch.following(LEADER + "x"):
            assert await other.acquire(await a.lease(), LEADER + "x", b"{}")
            await asyncio.sleep(1)
            assert holder(store, "x") is None
