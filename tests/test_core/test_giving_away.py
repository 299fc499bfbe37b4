"""The end of a hold, and of a lease: what it is given to, and how long that may take."""

from __future__ import annotations

import asyncio

import pytest
from support.members import stands
from support.sessions import TIMING, holder, key_of, session

from cluster_lock import clock
from cluster_lock.drivers.memory import MemoryBackend, MemoryDriver
from cluster_lock.errors import BackendUnavailable, LockLost
from cluster_lock.observer import Ending
from cluster_lock.testing.faulty import FaultyDriver, refuse, slow_request
from cluster_lock.values import STANDBY, Entry

pytestmark = pytest.mark.virtual

NO_ANSWER = refuse(BackendUnavailable("no answer"))


async def test_an_heir_without_a_record_gets_nothing(store: MemoryBackend) -> None:
    """A lock is not handed over to what says not who it is: it is released."""
    async with session(store, "a") as a:
        hold = await a.lock("x").acquire()
        await asyncio.sleep(TIMING.settle)
        hold.heir = Entry(STANDBY + "b", "b", 1, b"junk")
        assert await hold.end({}) is Ending.RELEASED
        assert holder(store, "x") is None


async def test_the_last_try_of_a_release_has_what_is_left_of_the_time(store: MemoryBackend) -> None:
    """A release that hangs after others that failed is given up when the time of one request is over, all in all."""
    driver = FaultyDriver(MemoryDriver(store), request_timeout=1000)
    async with session(store, "a", driver=driver) as a:
        hold = await a.lock("x").acquire()
        driver.always("release", NO_ANSWER)
        began = clock.now()
        ending = asyncio.ensure_future(hold.end({}))
        await asyncio.sleep(TIMING.request - 0.4)
        driver.always("release", slow_request(900))
        assert await ending is Ending.UNCONFIRMED
        assert TIMING.request <= clock.now() - began < TIMING.request + 0.1


async def test_a_lease_is_given_up_however_late_it_is(store: MemoryBackend) -> None:
    """A lease whose time to be given up is over already is given up with one try all the same."""
    async with session(store, "a") as a:
        lease = await a.lease()
        await a.context.lease.give_up(lease, clock.now() - 1)
        assert lease.id not in store.leases()


async def test_a_block_that_takes_its_cancellation_back_is_told_of_the_loss(store: MemoryBackend) -> None:
    """In a task that was cancelled before and worked on, a block that takes back every cancellation, and ends of the
    one that the loss brought, raises LockLost."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(0)
    async with session(store, "a") as a:
        with pytest.raises(LockLost, match="deleted"):
            async with a.lock("x").hold(settle=False):
                store.stranger_deletes(key_of("x"))
                try:
                    await asyncio.sleep(10)
                finally:
                    while task.uncancel():
                        pass
    assert stands(store, "leader/x").lease is None
