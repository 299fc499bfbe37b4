"""What people are told of a wait for a lock, and of the end of a term."""

from __future__ import annotations

import asyncio
import logging

import pytest
from support.aio import until
from support.sessions import TIMING, key_of, session

from cluster_lock.drivers.memory import MemoryBackend, MemoryDriver
from cluster_lock.election import Election, Term
from cluster_lock.errors import BackendUnavailable, HeldElsewhere, StillHeld
from cluster_lock.health import Board
from cluster_lock.health.verdict import why_not_ready
from cluster_lock.testing.faulty import FaultyDriver, refuse
from cluster_lock.values import Grant, Lease

pytestmark = pytest.mark.virtual

NO_ANSWER = refuse(BackendUnavailable("no answer"))
CANNOT_BE_TAKEN = "nobody holds it, and it cannot be taken"


class KeptBack(MemoryDriver):
    """A client whose backend gives no lock away while `kept_back`, as Consul does after a lease has ended."""

    kept_back = True

    async def acquire(self, lease: Lease, name: str, record: bytes) -> Grant | None:
        return None if self.kept_back else await super().acquire(lease, name, record)


def said(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if text in record.getMessage()]


async def test_one_moment_without_an_answer_is_not_told(store: MemoryBackend, caplog: pytest.LogCaptureFixture) -> None:
    """A free lock that cannot be taken is told of once, when that has lasted for the time between two renewals; and
    again if it comes back."""
    driver = FaultyDriver(MemoryDriver(store))
    async with session(store, "a", driver=driver) as a:
        await a.lease()
        for times in (1, 2):
            driver.always("acquire", NO_ANSWER)
            waiting = asyncio.ensure_future(a.lock("x").acquire())
            await asyncio.sleep(TIMING.renew_every - 1)
            assert len(said(caplog, CANNOT_BE_TAKEN)) == times - 1
            await asyncio.sleep(TIMING.renew_every)
            assert len(said(caplog, CANNOT_BE_TAKEN)) == times
            driver.always("acquire", None)
            await (await waiting).end({})


async def test_an_answer_ends_the_trouble(store: MemoryBackend) -> None:
    """A free lock that could not be taken is no trouble any more when the backend answers, though it gives it to
    nobody yet."""
    inner, board = KeptBack(store), Board("a")
    driver = FaultyDriver(inner)
    async with session(store, "a", driver=driver, observer=board) as a:
        await a.lease()
        driver.always("acquire", NO_ANSWER)
        waiting = asyncio.ensure_future(a.lock("x").acquire())
        await asyncio.sleep(2 * TIMING.renew_every)
        assert any("no answer" in why for why in why_not_ready(board))
        driver.always("acquire", None)
        await asyncio.sleep(2)
        assert not any("no answer" in why for why in why_not_ready(board))
        inner.kept_back = False
        await (await waiting).end({})


async def test_each_reason_of_an_end_is_told(store: MemoryBackend, caplog: pytest.LogCaptureFixture) -> None:
    """The end of a lost term is told with the one reason of the loss; where the lock was lost while the last work of a
    step-down ended, with both."""
    caplog.set_level(logging.INFO)
    is_ending = asyncio.Event()

    async def last_work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            is_ending.set()
            await asyncio.sleep(0.5)

    async def body(term: Term) -> None:
        term.spawn(last_work())
        await term.wait_step_down()

    async with session(store, "a") as a:
        election = Election(a)
        leading = asyncio.ensure_future(election.lead("x", body))
        await until(lambda: election.term("x") is not None)
        store.stranger_deletes(key_of("x"))
        await until(lambda: said(caplog, "not leading any more"))
        (lost,) = said(caplog, "not leading any more")
        assert "the key of x was deleted" in lost
        assert "lost meanwhile" not in lost
        await until(lambda: election.term("x") is not None)
        is_ending.clear()
        election.stop("deploy")
        await is_ending.wait()
        store.stranger_deletes(key_of("x"))
        await leading
    assert "(stepped down: deploy; lost meanwhile: the key of x was deleted" in said(caplog, "not leading any more")[1]


async def test_who_does_not_wait_is_told_of_a_holder_that_the_store_does_not_show(store: MemoryBackend) -> None:
    """It is held elsewhere then, too; who waits gets the lock when that is over."""
    driver = FaultyDriver(MemoryDriver(store))
    async with session(store, "a", driver=driver) as a:
        driver.always("acquire", refuse(StillHeld("process 7 of the server has it")))
        with pytest.raises(HeldElsewhere, match="process 7"):
            async with a.lock("x").hold(wait=False):
                pass
        waiting = asyncio.ensure_future(a.lock("x").acquire())
        await asyncio.sleep(TIMING.ttl)
        assert not waiting.done()
        driver.always("acquire", None)
        await (await waiting).end({})
