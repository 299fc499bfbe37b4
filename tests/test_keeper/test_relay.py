"""The keeper's side: whatever becomes of a worker's wish, no lock is held that nobody knows of."""

from __future__ import annotations

import asyncio
import contextlib

from cluster_lock.driver import Driver
from cluster_lock.drivers.memory import MemoryBackend, MemoryDriver
from cluster_lock.keeper.link import PipeLink
from cluster_lock.keeper.relay import Relay
from cluster_lock.lease.guard import NoGuard
from cluster_lock.session import Session


async def test_a_wish_that_is_cancelled_when_it_is_granted(store: MemoryBackend) -> None:
    """A worker that goes away in the very moment in which its lock is granted leaves no lock behind."""
    driver: Driver = MemoryDriver(store)
    async with Session(driver, instance="a", guard=NoGuard()) as session:
        link = PipeLink(lambda line: None)
        relay = Relay(session, link, asked=lambda: None, overdue=lambda name: None)
        granted, go_on = asyncio.Event(), asyncio.Event()

        async def answer_invitations(name: str, answer: object) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                granted.set()
                await go_on.wait()

        relay._source.answer_invitations = answer_invitations  # type: ignore[method-assign]
        taking = asyncio.create_task(relay._take("x"))
        await granted.wait()
        taking.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with contextlib.suppress(asyncio.CancelledError):
            await taking
        link.close("the worker is gone")
        await relay.give_back()
        assert not session.context.claims.holds
