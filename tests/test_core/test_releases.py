"""A lock that a process holds without working on it: releases that are not confirmed, and requests that come late."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

import pytest
from support.aio import until
from support.sessions import TIMING, holder, session, until_steps_down

from cluster_lock.drivers.memory import MemoryBackend, MemoryDriver
from cluster_lock.election import Election
from cluster_lock.errors import BackendUnavailable, ForeignValue
from cluster_lock.health import Board
from cluster_lock.health.verdict import why_not_ready
from cluster_lock.observer import Ending
from cluster_lock.session.touched import MANY
from cluster_lock.testing.faulty import FaultyDriver, refuse
from cluster_lock.testing.virtual_time import run
from cluster_lock.values import Origin

pytestmark = pytest.mark.virtual

FULL = refuse(BackendUnavailable("the disk is full"))


def test_a_release_that_is_not_confirmed_is_not_called_one(caplog: pytest.LogCaptureFixture) -> None:
    """When the store takes no writes at a step-down, the log does not say that the lock was released, and within two
    ttl its lease is given up, so that the lock is free."""
    caplog.set_level(logging.INFO)

    async def main() -> None:
        store = MemoryBackend()
        driver = FaultyDriver(MemoryDriver(store))
        async with session(store, "a", driver=driver) as a:
            election = Election(a)
            leading = asyncio.ensure_future(election.lead("x", until_steps_down))
            await until(lambda: election.term("x") is not None)
            driver.always("release", FULL)
            election.stop("test")
            await leading
            assert holder(store, "x") == "a"
            await asyncio.sleep(2 * TIMING.ttl)
            assert holder(store, "x") is None
            assert await a.lease()

    run(main())
    assert "lock released" not in caplog.text
    assert "the release of the lock is not confirmed" in caplog.text
    assert "could not be released within a ttl, so the lease that holds it is given up" in caplog.text


async def test_other_locks_are_worth_more_than_a_lease_that_holds_a_free_one(store: MemoryBackend) -> None:
    """While another lock is led under the lease it is kept, the release is tried again with each renewal, and the lock
    is free soon after the store takes writes."""
    driver = FaultyDriver(MemoryDriver(store))
    async with session(store, "a", driver=driver) as a, a.lock("y").hold() as other:
        hold = await a.lock("x").acquire()
        driver.always("release", FULL)
        assert await hold.end({}) is Ending.UNCONFIRMED
        await asyncio.sleep(5 * TIMING.ttl)
        assert other.is_valid()
        assert holder(store, "x") == "a"
        driver.always("release", None)
        await asyncio.sleep(TIMING.renew_every + 1)
        assert holder(store, "x") is None
        assert other.is_valid()


async def test_a_late_release_leaves_what_the_first_was_to_leave(store: MemoryBackend) -> None:
    """When a leader could not release the lock, and the next renewal does it, the next leader inherits what the term
    had left, and does not wait for an end of work that it was told of."""
    driver = FaultyDriver(MemoryDriver(store))
    async with session(store, "a", driver=driver) as a, a.lock("y").hold(), session(store, "b") as b:
        hold = await a.lock("x").acquire()
        await asyncio.sleep(TIMING.settle)
        driver.always("release", FULL)
        assert await hold.end({"offset": 7}) is Ending.UNCONFIRMED
        await asyncio.sleep(2 * TIMING.renew_every)
        driver.always("release", None)
        taken = await b.lock("x").acquire()
        assert taken.inherited == {"offset": 7}
        assert taken.origin is Origin.RELEASED
        await taken.end({})


def test_a_free_lock_that_cannot_be_had_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """A standby that renews its lease and cannot take a free lock warns once, is not ready, and is ready again when it
    can."""

    async def main() -> None:
        store = MemoryBackend()
        driver, board = FaultyDriver(MemoryDriver(store)), Board("a")
        async with session(store, "a", driver=driver, observer=board) as a:
            election = Election(a)
            await a.lease()
            driver.always("acquire", FULL)
            leading = asyncio.ensure_future(election.lead("x", until_steps_down))
            await asyncio.sleep(4 * TIMING.ttl)
            assert any("cannot be taken" in reason and "disk is full" in reason for reason in why_not_ready(board))
            driver.always("acquire", None)
            await until(lambda: election.term("x") is not None)
            assert why_not_ready(board) == []
            election.stop()
            await leading

    run(main())
    assert sum("nobody holds it, and it cannot be taken" in record.message for record in caplog.records) == 1


async def test_a_lock_with_a_foreign_value_is_not_ready(store: MemoryBackend) -> None:
    """A standby that no lock can be given to until a person acts is not ready, as long as that is so."""
    driver, board = FaultyDriver(MemoryDriver(store)), Board("a")
    async with session(store, "a", driver=driver, observer=board) as a:
        driver.always("acquire", refuse(ForeignValue("a person's")))
        leading = asyncio.ensure_future(Election(a).lead("x", until_steps_down))
        await until(lambda: any("a person's" in reason for reason in why_not_ready(board)))
        leading.cancel()
        with suppress(asyncio.CancelledError):
            await leading
        assert not any("a person's" in reason for reason in why_not_ready(board))


@pytest.mark.parametrize("others", [0, MANY + 1])
async def test_an_acquire_that_arrives_after_ages_is_released(others: int, store: MemoryBackend) -> None:
    """However late an acquire arrives that nobody waits for any more, the lock is free about one ttl later; also when
    more locks were touched since than anybody can remember."""
    driver = FaultyDriver(MemoryDriver(store))
    async with session(store, "a", driver=driver) as a:
        await a.lease()
        gate = driver.hold("acquire")
        taking = asyncio.ensure_future(a.lock("x").acquire())
        await gate.arrived.wait()
        taking.cancel()
        with suppress(asyncio.CancelledError):
            await taking
        for number in range(others):
            await (await a.lock(f"y{number}").acquire()).end({})
        await asyncio.sleep(100 * TIMING.ttl + 2)  # between two looks
        gate.open()
        await until(lambda: holder(store, "x") == "a")
        await asyncio.sleep(TIMING.ttl + TIMING.renew_every)
        assert holder(store, "x") is None
