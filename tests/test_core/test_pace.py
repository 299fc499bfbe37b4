"""Requests to step down have a pace: one contender's, and everybody's together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from support.members import Member, asked, company, stands
from support.sessions import holder

from cluster_lock import clock
from cluster_lock.drivers.memory import MemoryBackend, MemoryDriver
from cluster_lock.session import request_pace as pace
from cluster_lock.session.request_pace import AT_ONCE, EVERY, RequestPace
from cluster_lock.session.requests import Ask, Reply
from cluster_lock.values import REPLY, REQUEST, Lease

pytestmark = [pytest.mark.slow, pytest.mark.virtual]


class Spammer:
    """Asks the leader of x, again and again, under a lease of its own."""

    def __init__(self, store: MemoryBackend) -> None:
        self.store, self.driver = store, MemoryDriver(store)
        self.lease: Lease | None = None
        self.number = 0

    async def ask(self) -> str:
        self.lease = self.lease or await self.driver.grant_lease("spammer", 10_000)
        self.number += 1
        ask = Ask(stands(self.store, "leader/x").index, str(self.number), "a spammer")
        await self.driver.announce(self.lease, REQUEST + "x", ask.to_bytes())
        return ask.number

    async def go_on(self) -> None:
        while True:
            await self.ask()
            await asyncio.sleep(0.05)


@asynccontextmanager
async def spammed(store: MemoryBackend, number: int) -> AsyncIterator[list[Spammer]]:
    spammers = [Spammer(store) for _ in range(number)]
    tasks = [asyncio.create_task(each.go_on()) for each in spammers]
    try:
        yield spammers
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def terms(members: list[Member]) -> int:
    return sum(len(member.terms) for member in members)


@pytest.mark.parametrize("spammers", [1, 6])
async def test_who_asks_in_a_loop_gets_a_hand_over_in_five_seconds(spammers: int, store: MemoryBackend) -> None:
    """However often one contender asks, whichever instance leads, he is heeded once in five seconds; and however many
    do, they are heeded a few times."""
    async with company(store, "a", "b", "c") as members:
        before = terms(members)
        async with spammed(store, spammers):
            await asyncio.sleep(20 * EVERY)
        handed_over = terms(members) - before
        assert 10 <= handed_over <= 21 * min(spammers, AT_ONCE)
        await asyncio.sleep(EVERY)  # those that are under way


async def test_a_refused_request_is_told_the_wait(store: MemoryBackend) -> None:
    """Who asks again too soon is told when, and is heeded then."""
    async with company(store, "a", "b") as (a, b):
        spammer = Spammer(store)
        await spammer.ask()
        await asyncio.wait_for(b.leading.wait(), 4)
        number = await spammer.ask()
        await asyncio.sleep(1)
        reply = Reply.of(stands(store, REPLY + "x"))
        assert reply is not None
        assert reply.number == number
        assert reply.declined.startswith("a step-down was asked for a moment ago; again in ")
        wait = float(reply.declined.rpartition("in ")[2].removesuffix(" s"))
        assert 0 < wait <= EVERY
        assert holder(store, "x") == "b"
        await asyncio.sleep(wait)
        await spammer.ask()
        await asyncio.wait_for(a.leading.wait(), 5)


async def test_an_operator_gets_through_beside_who_asks_in_a_loop(store: MemoryBackend) -> None:
    """One contender's loop keeps nobody else from being heeded."""
    async with company(store, "a", "b", "c"):
        spammer = Spammer(store)
        await spammer.ask()
        await asyncio.sleep(4)
        for _ in range(3):
            await spammer.ask()
            await asyncio.sleep(0.1)
        assert (await asked(store, "c")).declined is None
        assert holder(store, "x") == "c"


def test_what_is_kept_of_requests_is_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ask, a few are remembered, and after a while none."""
    now = 100.0
    monkeypatch.setattr(clock, "now", lambda: now)
    kept = RequestPace()
    for number in range(1000):
        kept.heeded("x", str(number))
    assert len(kept._heeded["x"]) == pace.KEPT
    assert kept.wait("x", "999") == kept.wait("x", "another") == EVERY
    assert kept.wait("y", "999") == 0
    now += EVERY
    assert kept.wait("x", "999") == 0
