"""What is written while a backend is down: when it begins, when a lock is lost, when it is over, and nothing else."""

from __future__ import annotations

import asyncio
import logging
import os

import pytest
from support.sessions import session

from cluster_lock.drivers.memory import MemoryBackend, MemoryDriver
from cluster_lock.election import Election, Term
from cluster_lock.errors import BackendUnavailable
from cluster_lock.testing.faulty import FaultyDriver, refuse

pytestmark = pytest.mark.virtual


async def work(term: Term) -> None:
    await term.wait_step_down()


def written(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [f"{record.levelname} {record.getMessage()}" for record in caplog.records]


@pytest.mark.parametrize("silent", [False, True], ids=["refusing", "silent"])
@pytest.mark.parametrize("leads", [True, False], ids=["leader", "standby"])
async def test_ten_minutes_without_a_backend(silent: bool, leads: bool, caplog: pytest.LogCaptureFixture) -> None:
    """A standby writes four lines of an outage, however long it lasts; a leader those, and what became of its term,
    with the measured times."""
    caplog.set_level(logging.INFO, "cluster_lock")
    store = MemoryBackend()
    driver = FaultyDriver(MemoryDriver(store))
    async with session(store, "other") as other, session(store, "ours", driver=driver) as ours:
        if not leads:
            elsewhere = asyncio.create_task(Election(other).lead("x", work))
            await asyncio.sleep(1)
        election = Election(ours)
        leading = asyncio.create_task(election.lead("x", work))
        await asyncio.sleep(30)
        caplog.clear()
        driver.down(silent=silent)
        await asyncio.sleep(600)
        began = written(caplog)
        caplog.clear()
        driver.up()
        await asyncio.sleep(30)
        over = written(caplog)
        election.stop()
        await leading
        if not leads:
            elsewhere.cancel()
    assert began[0].startswith("WARNING lease not renewed, trying again for ")
    if leads:
        assert len(began) == 5
        assert "WARNING x: lost after " in began[1]
        assert "the lease was last renewed 11.0 s ago (ttl 15 s): " in began[1]
        assert began[2].startswith("INFO x: not leading any more, the work had ended 0.0")
    else:
        assert len(began) == 4
        assert began[1].startswith("WARNING lease lost: the lease was last renewed 11.0 s ago (ttl 15 s): ")
    assert " was left to its ttl: " in began[-2]
    assert began[-1].startswith("WARNING no lease from memory, trying on: ")
    assert not [line for line in began if line.endswith(": ")]
    assert over[0] == "INFO a new lease from memory"
    assert len(over) == 3 if leads else len(over) <= 3


@pytest.mark.parametrize("silent", [False, True], ids=["refusing", "silent"])
async def test_a_backend_that_is_down_at_the_start(silent: bool, caplog: pytest.LogCaptureFixture) -> None:
    """One line says where the instance is, one that there is no lease, and one that there is, before those of the
    term."""
    caplog.set_level(logging.INFO, "cluster_lock")
    store = MemoryBackend()
    driver = FaultyDriver(MemoryDriver(store))
    driver.down(silent=silent)
    async with session(store, "ours", driver=driver) as ours:
        election = Election(ours)
        leading = asyncio.create_task(election.lead("x", work))
        await asyncio.sleep(600)
        (opened, line) = written(caplog)
        assert opened == "INFO instance ours on memory"
        assert line.startswith("WARNING no lease from memory, trying on: ")
        driver.up()
        await asyncio.sleep(30)
        assert written(caplog)[2:] == [
            "INFO a new lease from memory",
            "INFO x: lock found free, the term begins in 0.25 s",
            "INFO x: leading, term 2, lock found free",
        ]
        election.stop()
        await leading


async def test_a_quiet_standby(caplog: pytest.LogCaptureFixture) -> None:
    """A standby whose leader leads writes one line in three hours."""
    caplog.set_level(logging.INFO, "cluster_lock")
    store = MemoryBackend()
    async with session(store, "a") as a, session(store, "b") as b:
        leading = asyncio.create_task(Election(a).lead("x", work))
        await asyncio.sleep(1)
        caplog.clear()
        waiting = asyncio.create_task(Election(b).lead("x", work))
        await asyncio.sleep(3 * 3600)
        assert written(caplog) == [f"INFO x: waiting, held by a on {a.context.identity.host}, pid {os.getpid()}"]
        waiting.cancel()
        leading.cancel()
        await asyncio.gather(waiting, leading, return_exceptions=True)


async def test_a_watch_that_alone_fails_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """While renewals work and only the watch does not, one line says so, and after its recovery another may."""
    caplog.set_level(logging.INFO, "cluster_lock")
    store = MemoryBackend()
    driver = FaultyDriver(MemoryDriver(store))
    async with session(store, "a", driver=driver) as a:
        leading = asyncio.create_task(Election(a).lead("x", work))
        await asyncio.sleep(30)
        caplog.clear()
        driver.always("wait_changed", refuse(BackendUnavailable("streams are cut")))
        await asyncio.sleep(300)
        (line,) = written(caplog)
        assert line.startswith("WARNING cannot watch the locks (for 1")
        assert line.endswith("streams are cut")
        leading.cancel()
        await asyncio.gather(leading, return_exceptions=True)
