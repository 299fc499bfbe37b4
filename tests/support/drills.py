"""A backend that is restored from a snapshot behind the backs of those who lead and wait.

Three instances hand one lock around; a snapshot is taken at a chosen point of its way, more hand-overs follow, and the
snapshot is restored. What must hold then: no token is led on that is not above all before it, and either somebody leads
soon or everybody has said why not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from cluster_lock import clock
from cluster_lock.driver import Driver
from cluster_lock.election import Election, Term
from cluster_lock.errors import TokenWentBack
from cluster_lock.lease.guard import NoGuard
from cluster_lock.session import Session
from cluster_lock.testing.servers import ConsulServer, EtcdServer
from cluster_lock.values import Timing

from .aio import until

TIMING = Timing(ttl=3.0, margin=1.0, stop_time=0.4, settle=0.25, invite=0.3, drain=0.5, cancel_grace=0.3)
LOCK = "x"
NAMES = "abc"
POINTS = ("free", "leading", "inviting", "handed over", "handed back")
"""Where the lock is on its way when the snapshot is taken."""


class Instance:
    """Stands by and leads, until nobody may lead: `refused` says why. `began`: its terms, by the moment."""

    def __init__(self, session: Session) -> None:
        self.session, self.election = session, Election(session)
        self.began: list[tuple[float, int]] = []
        self.term: Term | None = None
        self.refused: str | None = None

    async def live(self) -> None:
        try:
            await self.election.lead(LOCK, self._work)
        except TokenWentBack as error:
            self.refused = str(error)

    async def _work(self, term: Term) -> None:
        self.began.append((clock.now(), term.fencing_token))
        self.term = term
        try:
            await term.wait_step_down()
        finally:
            self.term = None


@dataclass(frozen=True)
class Outcome:
    """`tokens`: of the terms in the order in which they began. `seconds`: for so long nobody led after the store was
    back, until all had said why (`refused`) if nobody ever did. `longest`: what that may be."""

    tokens: list[int]
    seconds: float
    longest: float
    leads: bool
    refused: list[str]

    def check(self) -> None:
        assert sorted(set(self.tokens)) == self.tokens, self
        assert self.leads or len(self.refused) == len(NAMES), self
        assert all("leader/x" in said or "standby/" in said for said in self.refused), self
        assert self.seconds < self.longest, self


async def drill(
    server: EtcdServer | ConsulServer, make: Callable[[Timing], Driver], point: str, *, hands: int = 2, bump: int = 0
) -> Outcome:
    """One drill on a server of its own. `make(timing)`: a driver, not opened. `hands`: so many hand-overs follow the
    snapshot. `bump`: etcd's revisions go on so much higher."""
    async with AsyncExitStack() as stack:
        every = []
        for name in NAMES:
            session = Session(make(TIMING), instance=name, timing=TIMING, guard=NoGuard())
            every.append(Instance(await stack.enter_async_context(session)))
            await session.lease()
        free = await _snapshot_of_a_free_lock(server, every[0].session)
        living = [asyncio.ensure_future(instance.live()) for instance in every]
        try:
            snapshot = free if point == "free" else await _snapshot(server, every, point)
            for _ in range(hands):
                await _hand_on(every)
            await _restore(server, snapshot, bump)
            return await _outcome(every)
        finally:
            for instance in every:
                instance.election.stop("the drill is over")
            await asyncio.wait(living)


async def _snapshot_of_a_free_lock(server: EtcdServer | ConsulServer, session: Session) -> bytes:
    hold = await session.lock(LOCK).acquire()
    await hold.end({})
    return await asyncio.to_thread(server.save_snapshot)


async def _snapshot(server: EtcdServer | ConsulServer, every: list[Instance], point: str) -> bytes:
    for _ in range({"handed over": 1, "handed back": 2}.get(point, 0)):
        await _hand_on(every)
    await _led(every)
    if point != "inviting":
        return await asyncio.to_thread(server.save_snapshot)
    handing = asyncio.ensure_future(_hand_on(every))
    snapshot = await asyncio.to_thread(server.save_snapshot)
    await handing
    return snapshot


async def _restore(server: EtcdServer | ConsulServer, snapshot: bytes, bump: int) -> None:
    if isinstance(server, EtcdServer):
        await asyncio.to_thread(lambda: server.restore_snapshot(snapshot, bump=bump))
    else:
        await asyncio.to_thread(server.restore_snapshot, snapshot)


async def _outcome(every: list[Instance]) -> Outcome:
    back, timing = clock.now(), TIMING
    expiry = timing.ttl * every[0].session.driver.traits.expiry_factor
    longest = expiry + timing.settle + 5.0
    led_at, began_at = back, back

    def decided() -> bool:
        nonlocal led_at, began_at
        now = clock.now()
        if not any(one.term is not None for one in every):
            began_at = now
        else:
            led_at = now
        return all(one.refused for one in every) or now - began_at > expiry

    # Decided is what lasts longer than any lease that nobody renews.
    await until(decided, timeout=2 * expiry + longest + 20)
    leads = any(one.term is not None for one in every)
    seconds = (began_at if leads else clock.now()) - back
    terms = sorted(began for one in every for began in one.began)
    refused = [one.refused for one in every if one.refused is not None]
    return Outcome([token for _, token in terms], seconds, longest, leads, refused)


async def _led(every: list[Instance]) -> Instance:
    def led() -> bool:
        refused = [one.refused for one in every if one.refused is not None]
        assert not refused, refused
        return any(one.term is not None for one in every)

    await until(led)
    return next(one for one in every if one.term is not None)


async def _hand_on(every: list[Instance]) -> None:
    """Until another term has begun, of the next one if all goes well."""
    leader = await _led(every)
    term, heir = leader.term, every[(every.index(leader) + 1) % len(every)]
    assert term is not None
    while leader.term is term:  # an heir whose record has not arrived yet is asked again
        term.step_down("drill", to=heir.session.context.identity.instance)
        await asyncio.sleep(0.05)
    await _led(every)
