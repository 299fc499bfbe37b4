"""A lock that a person takes from its leader is nobody's before that leader has stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from support.sessions import TIMING, holder, key_of, session

from cluster_lock import clock
from cluster_lock.admin.quarantine import Breaking, Broken, break_now, break_slowly, has_stopped, look_at
from cluster_lock.drivers.memory import MemoryBackend, MemoryDriver
from cluster_lock.election import Election, Term
from cluster_lock.errors import BackendRefused, BackendUnavailable
from cluster_lock.session import Session
from cluster_lock.testing.faulty import FaultyDriver
from cluster_lock.values import Entry, Origin, Record, Traits

pytestmark = pytest.mark.virtual

REQUEST = TIMING.request
OURS = Record(holder="alice", instance="quarantine by alice", host="ops", pid=1, since="", version="0")


@dataclass
class Worker:
    """A body that notes from when to when it worked."""

    worked: list[list[float]] = field(default_factory=list)
    terms: list[Term] = field(default_factory=list)
    leading: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, term: Term) -> None:
        self.terms.append(term)
        self.worked.append([clock.now(), float("inf")])
        self.leading.set()
        try:
            await term.wait_step_down()
        finally:
            self.leading.clear()
            self.worked[-1][1] = clock.now()


def never_beside(first: Worker, second: Worker) -> bool:
    return not any(a[0] < b[1] and b[0] < a[1] for a in first.worked for b in second.worked)


async def lead(session: Session, worker: Worker) -> tuple[Election, asyncio.Task[None]]:
    election = Election(session)
    task = asyncio.create_task(election.lead("x", worker))
    return election, task


async def broken(store: MemoryBackend, moved: Callable[[], None] = lambda: None) -> Broken | None:
    driver = MemoryDriver(store)
    breaking = await look_at(driver, "x", ttl=TIMING.ttl, request=REQUEST)
    assert breaking is not None
    return await break_slowly(driver, breaking, OURS, request=REQUEST, moved=moved)


async def test_a_leader_that_hears_of_it_stops_and_says_so(store: MemoryBackend) -> None:
    """A connected leader stops, stands by again, and thereby says that it has stopped: the lock is free in well under a
    ttl, and nobody worked beside anybody."""
    first, second = Worker(), Worker()
    async with session(store, "a") as a, session(store, "b") as b:
        ea, leading = await lead(a, first)
        await first.leading.wait()
        eb, waiting = await lead(b, second)
        await asyncio.sleep(1)
        outcome = await broken(store)
        assert outcome is not None
        assert outcome.stopped
        assert outcome.seconds < 1
        await asyncio.sleep(1)
        assert first.terms[0].ended is not None
        assert "quarantine by alice" in first.terms[0].ended
        assert (first.leading.is_set(), second.leading.is_set()).count(True) == 1
        assert never_beside(first, second)
        latest = max(first.terms[-1].fencing_token, second.terms[-1].fencing_token)
        assert latest > first.terms[0].fencing_token
        ea.stop()
        eb.stop()
        await asyncio.gather(leading, waiting)


async def test_a_leader_that_is_cut_off_is_waited_for(store: MemoryBackend) -> None:
    """A leader that cannot hear of it works on until its deadline: nobody has the lock before one ttl is over, and then
    the next one settles first."""
    first, second = Worker(), Worker()
    cut_off = FaultyDriver(MemoryDriver(store), request_timeout=REQUEST)
    async with session(store, "a", driver=cut_off) as a, session(store, "b") as b:
        ea, leading = await lead(a, first)
        await first.leading.wait()
        eb, waiting = await lead(b, second)
        await asyncio.sleep(1)
        cut_off.down(silent=True)
        moved: list[float] = []
        outcome = await broken(store, lambda: moved.append(clock.now()))
        assert outcome is not None
        assert not outcome.stopped
        assert TIMING.ttl <= outcome.seconds < TIMING.ttl + 1
        await second.leading.wait()
        assert second.terms[0].origin is Origin.FOUND_FREE
        assert second.worked[0][0] >= moved[0] + TIMING.ttl + TIMING.settle
        assert first.worked[0][1] > moved[0] + 1  # it did work on
        assert never_beside(first, second)
        cut_off.up()
        ea.stop()
        eb.stop()
        await asyncio.gather(leading, waiting)


async def test_a_ttl_longer_than_ours(store: MemoryBackend) -> None:
    """It is the ttl of the lease that is broken that counts, not that of the session that breaks it."""
    leader = MemoryDriver(store)
    await leader.acquire(await leader.grant_lease("a", 60), "leader/x", OURS.to_bytes())
    outcome = await broken(store)
    assert outcome is not None
    assert outcome.seconds >= 60


@pytest.mark.parametrize("renewed", [False, True])
async def test_a_command_that_ends_early_lets_nobody_in(renewed: bool, store: MemoryBackend) -> None:
    """A quarantine whose command is interrupted, or killed, goes on for one ttl of the broken lease from then on."""
    leader = MemoryDriver(store)
    await leader.acquire(await leader.grant_lease("a", 30), "leader/x", OURS.to_bytes())
    breaking = asyncio.create_task(broken(store))
    await asyncio.sleep(25 if renewed else 1)
    breaking.cancel()
    await asyncio.wait([breaking])
    async with session(store, "b") as b:
        hold = await b.lock("x").acquire()
        assert hold.since >= (25 + 20 if renewed else 30)
        await hold.end({})


async def test_what_is_not_as_seen_is_not_broken(store: MemoryBackend) -> None:
    """When the lock has changed hands since it was looked at, nothing is done, slowly or at once, and no lease is
    left."""
    driver = MemoryDriver(store)
    async with session(store, "a") as a:
        hold = await a.lock("x").acquire()
        breaking = await look_at(driver, "x", ttl=15, request=REQUEST)
        assert breaking is not None
        await hold.end({})
        again = await a.lock("x").acquire()
        assert await break_slowly(driver, breaking, OURS, request=REQUEST, moved=pytest.fail) is None
        assert not await break_now(driver, breaking, OURS, request=REQUEST)
        assert again.is_valid()
        assert set(store.leases().values()) == {a.context.identity.holder}
        await again.end({})
    assert await look_at(driver, "x", ttl=15, request=REQUEST) is None


async def test_at_once(store: MemoryBackend) -> None:
    """`now` frees the lock without a wait; a leader that hears of it stops, and the next one settles."""
    driver = MemoryDriver(store)
    first = Worker()
    async with session(store, "a") as a:
        election, leading = await lead(a, first)
        await first.leading.wait()
        breaking = await look_at(driver, "x", ttl=15, request=REQUEST)
        assert breaking is not None
        assert await break_now(driver, breaking, OURS, request=REQUEST)
        await asyncio.sleep(1)
        assert len(first.terms) == 2
        assert first.terms[1].origin is Origin.FOUND_FREE
        election.stop()
        await leading


def test_what_says_that_a_leader_has_stopped() -> None:
    """Only a record under the broken lease that waits for this lock and knows of the move: no other lease's, no other
    lock's, and no late copy of one from before."""
    breaking = Breaking("x", Entry("leader/x", "lease", 10, b""), 15.0, fencing_floor=1000)
    moved = Entry("leader/x", "ours", 20, b"")

    def said(lease: str | None = "lease", names: tuple[str, ...] = ("x",), seen: int = 1020, lock: str = "x") -> bool:
        record = Record(
            holder="a", instance="a", host="h", pid=1, since="", version="0", names=names, tokens={lock: seen}
        )
        return has_stopped(breaking, moved, Entry("standby/a", lease, 30, record.to_bytes()))

    assert said()
    assert not said(lease="another")
    assert not said(lease=None)
    assert not said(names=("y",))
    assert not said(seen=1019)
    assert not said(lock="y")
    assert not has_stopped(breaking, moved, Entry("standby/a", "lease", 30, b"overwritten"))


async def test_a_leader_whose_value_was_overwritten_is_waited_for(store: MemoryBackend) -> None:
    """Who it is does not stand there, so what it says is not heard, and its ttl is waited for."""
    leader = MemoryDriver(store)
    await leader.acquire(await leader.grant_lease("a", 30), "leader/x", b"overwritten")
    outcome = await broken(store)
    assert outcome is not None
    assert (outcome.stopped, outcome.seconds >= 30) == (False, True)


async def test_an_outage_in_the_quarantine(store: MemoryBackend) -> None:
    """A backend that is away for a while in the middle delays the end, and brings nothing forward."""
    leader = MemoryDriver(store)
    driver = FaultyDriver(MemoryDriver(store), request_timeout=REQUEST)
    await leader.acquire(await leader.grant_lease("a", 30), "leader/x", OURS.to_bytes())
    breaking = await look_at(driver, "x", ttl=30, request=REQUEST)
    assert breaking is not None
    task = asyncio.create_task(break_slowly(driver, breaking, OURS, request=REQUEST, moved=lambda: None))
    await asyncio.sleep(3)
    driver.down()
    await asyncio.sleep(12)
    driver.up()
    outcome = await task
    assert outcome is not None
    assert outcome.seconds >= 30
    assert holder(store, "x") is None


async def test_a_quarantine_that_is_lost(store: MemoryBackend) -> None:
    """A quarantine whose lease somebody ends is an error, and not a lock that was freed."""
    leader = MemoryDriver(store)
    await leader.acquire(await leader.grant_lease("a", 30), "leader/x", OURS.to_bytes())
    task = asyncio.create_task(broken(store))
    await asyncio.sleep(3)
    lease = store.entry(key_of("x"), "x").lease
    assert lease is not None
    store.end_lease(lease)
    with pytest.raises(BackendUnavailable, match="ended with its lease"):
        await task


async def test_a_backend_that_moves_no_locks() -> None:
    """Where no lock can be moved there is no quarantine, and the message says what there is."""
    store = MemoryBackend(traits=Traits(transfers=False))
    leader = MemoryDriver(store)
    await leader.acquire(await leader.grant_lease("a", 30), "leader/x", OURS.to_bytes())
    with pytest.raises(BackendRefused, match="--now"):
        await broken(store)
