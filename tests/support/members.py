"""Processes that contend for the lock x on a store in memory, and a person who asks them to hand over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from support.sessions import PREFIX, session

from cluster_lock.admin.step_down import StepDownOutcome, ask_to_step_down
from cluster_lock.drivers.memory import MemoryBackend
from cluster_lock.election import Election, Term
from cluster_lock.session import Session
from cluster_lock.values import Entry


class Member:
    """One process that contends for the lock x: a session, an election, and what its terms were."""

    def __init__(self, session: Session) -> None:
        self.session, self.election = session, Election(session)
        self.terms: list[Term] = []
        self.leading = asyncio.Event()
        self.task = asyncio.create_task(self.election.lead("x", self._body))

    async def _body(self, term: Term) -> None:
        self.terms.append(term)
        self.leading.set()
        await term.wait_step_down()
        self.leading.clear()
        await asyncio.sleep(2)


@asynccontextmanager
async def company(store: MemoryBackend, *instances: str) -> AsyncIterator[list[Member]]:
    """Members in their order: the first one leads, the others stand by."""
    members: list[Member] = []
    sessions = [session(store, instance) for instance in instances]
    for each in sessions:
        await each.__aenter__()
        members.append(Member(each))
        await asyncio.sleep(1)
    try:
        yield members
    finally:
        for member in members:
            member.election.stop()
        await asyncio.gather(*(member.task for member in members))
        for each in sessions:
            await each.close()


async def asked(store: MemoryBackend, to: str | None = None, timeout: float = 30) -> StepDownOutcome:
    async with session(store, "operator") as operator:
        outcome = await ask_to_step_down(operator, "x", to=to, by="a test", timeout=timeout)
    assert outcome is not None
    return outcome


def stands(store: MemoryBackend, name: str) -> Entry:
    return store.entry(PREFIX + name, name)
