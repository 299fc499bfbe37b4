"""A backend that refuses, is silent or comes back: what is tried again and how often, what is told, what goes on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from dataclasses import replace
from itertools import pairwise

import pytest
from support.aio import until
from support.members import asked, company
from support.sessions import TIMING, holder, key_of, session, until_steps_down

from cluster_lock import clock
from cluster_lock.drivers.memory import MemoryBackend, MemoryDriver
from cluster_lock.election import Election
from cluster_lock.errors import BackendUnavailable, LeaseExpired, PermissionRefused
from cluster_lock.lease.guard import NoGuard, process_guard
from cluster_lock.observer import Ending
from cluster_lock.session import Session
from cluster_lock.session.session_lease import GIVE_UP
from cluster_lock.session.touched import MANY
from cluster_lock.testing.faulty import LOST_REPLY, LOST_REQUEST, FaultyDriver, refuse, slow_reply, slow_request
from cluster_lock.values import LEADER, REQUEST, Changes, Grant, Lease, Origin

pytestmark = pytest.mark.virtual

ERRORS = [BackendUnavailable("no answer"), PermissionRefused("denied"), LeaseExpired("gone")]


class Noted(MemoryDriver):
    """Notes when it was asked for a lock or a renewal; gives no lock while `gives_none`."""

    def __init__(self, store: MemoryBackend) -> None:
        super().__init__(store)
        self.acquires: list[float] = []
        self.renewals: list[float] = []
        self.gives_none = self.is_silent = False

    async def acquire(self, lease: Lease, name: str, record: bytes) -> Grant | None:
        self.acquires.append(clock.now())
        return None if self.gives_none else await super().acquire(lease, name, record)

    async def renew(self, lease: Lease) -> int:
        self.renewals.append(clock.now())
        if self.is_silent:
            raise BackendUnavailable("no answer")
        return await super().renew(lease)


async def test_a_lock_that_is_not_given_is_asked_for_each_second(store: MemoryBackend) -> None:
    """A free lock that the backend does not give yet is asked for again soon, then about once a second and no less."""
    driver = Noted(store)
    driver.gives_none = True
    async with session(store, "a", driver=driver) as a:
        waiting = asyncio.ensure_future(a.lock("x").acquire())
        await asyncio.sleep(30)
        pauses = [after - before for before, after in pairwise(driver.acquires)]
        assert pauses[0] < 0.1
        assert all(0.75 < pause < 1.05 for pause in pauses[6:])
        driver.gives_none = False
        await (await waiting).end({})


async def test_a_renewal_without_an_answer_is_tried_again_unevenly(store: MemoryBackend) -> None:
    """A renewal that fails is tried again after a quarter to three quarters of a second, by chance: what failed for
    many at once does not come back from all at once."""
    driver = Noted(store)
    async with session(store, "a", driver=driver) as a:
        await a.lease()
        driver.is_silent = True
        await asyncio.sleep(10)
        pauses = [after - before for before, after in pairwise(driver.renewals)]
        assert len(pauses) > 6
        assert all(0.2 < pause < 0.8 for pause in pauses)
        assert max(pauses) - min(pauses) > 0.05


async def test_a_lease_that_was_not_answered_is_asked_for_again_at_once(store: MemoryBackend) -> None:
    """The first lost request for a lease costs about a tenth of a second."""
    driver = FaultyDriver(MemoryDriver(store))
    driver.next("grant_lease", LOST_REQUEST)
    async with session(store, "a", driver=driver) as a:
        began = clock.now()
        await a.lease()
        assert 0.05 < clock.now() - began < 0.2


async def test_a_backend_that_is_away_is_told_once(store: MemoryBackend, caplog: pytest.LogCaptureFixture) -> None:
    """While there is no lease to be had that is told once, and once more when there is one; a first lease that comes at
    once is no news."""
    caplog.set_level(logging.INFO)

    def said(text: str) -> int:
        return sum(text in record.getMessage() for record in caplog.records)

    driver = FaultyDriver(MemoryDriver(store))
    async with session(store, "a", driver=driver) as a:
        await a.lease()
        assert (said("no lease from"), said("a new lease from"), said("lease not renewed")) == (0, 0, 0)
        for times in (1, 2):
            driver.down()
            await until(lambda: a.context.lease.current is None)
            await asyncio.sleep((GIVE_UP + 2) * TIMING.ttl)  # the old one is given up before a new one is asked for
            assert (said("no lease from"), said("a new lease from"), said("lease not renewed")) == (
                *(times, times - 1, times),
            )
            driver.up()
            await a.lease()
            assert said("a new lease from") == times


@pytest.mark.parametrize("holds", [False, True])
async def test_a_lost_lease_is_told_where_no_work_says_so(
    holds: bool, store: MemoryBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """The loss of a lease is a warning, unless there is work under it, which is told the reason and says so itself."""
    caplog.set_level(logging.DEBUG)
    async with session(store, "a") as a:
        lease = await a.lease()
        hold = await a.lock("x").acquire() if holds else None
        store.end_lease(lease.id)
        await until(lambda: "lease lost" in caplog.text)
        if hold is not None:
            assert hold.loss is not None
            await hold.end({})
    (level,) = [record.levelno for record in caplog.records if "lease lost" in record.getMessage()]
    assert level == (logging.DEBUG if holds else logging.WARNING)


@pytest.mark.parametrize(
    ("verb", "error"),
    [*(("announce", error) for error in ERRORS), *(("withdraw", error) for error in ERRORS[:2])],
    ids=lambda each: each if isinstance(each, str) else type(each).__name__,
)
async def test_who_cannot_answer_leads_on(verb: str, error: Exception, store: MemoryBackend) -> None:
    """A leader whose answer to a person, or whose invitation, cannot be written or taken away leads on."""
    driver = FaultyDriver(MemoryDriver(store))
    async with session(store, "a", driver=driver) as a, company(store, "b") as (b,):
        b.election.stop()
        await b.task
        election = Election(a)
        leading = asyncio.ensure_future(election.lead("x", until_steps_down))
        await until(lambda: election.term("x") is not None)
        driver.always(verb, refuse(error))
        outcome = await asked(store, timeout=10)
        assert (outcome.declined is None) is (verb == "announce")
        await asyncio.sleep(3 * TIMING.ttl)
        assert a.failure is None
        term = election.term("x")
        assert term is not None
        assert term.is_valid()
        election.stop()
        await leading


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_an_invitation_that_cannot_be_written_ends_no_term_in_disorder(
    error: Exception, store: MemoryBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """A leader that is stopped and can invite nobody says so and gives the lock away, to whoever stands by."""
    caplog.set_level(logging.INFO)
    driver = FaultyDriver(MemoryDriver(store))
    async with session(store, "a", driver=driver) as a, session(store, "b") as b:
        mine, other = Election(a), Election(b)
        leading = asyncio.ensure_future(mine.lead("x", until_steps_down))
        await until(lambda: mine.term("x") is not None)
        waiting = asyncio.ensure_future(other.lead("x", until_steps_down))
        await asyncio.sleep(1)
        driver.always("announce", refuse(error))
        mine.stop()
        await leading
        assert "x: no heir could be invited" in caplog.text
        await until(lambda: other.term("x") is not None)
        other.stop()
        await waiting


async def test_requests_are_followed_while_somebody_listens(store: MemoryBackend) -> None:
    """What people ask of a leader is followed by those that listen, from their wait to the end of their term."""
    async with session(store, "a") as a, session(store, "b") as b:
        hold = await a.lock("x").acquire()
        assert REQUEST + "x" not in a.context.watch.wanted
        waiting = asyncio.ensure_future(b.lock("x").acquire(listens=True))
        await asyncio.sleep(1)
        assert REQUEST + "x" in b.context.watch.wanted
        await hold.end({})
        second = await waiting
        assert REQUEST + "x" in b.context.watch.wanted
        await second.end({})
        assert REQUEST + "x" not in b.context.watch.wanted


@pytest.mark.parametrize("error", ERRORS[:2], ids=lambda error: type(error).__name__)
async def test_contenders_that_cannot_be_asked_are_in_nobodys_way(error: Exception, store: MemoryBackend) -> None:
    """A grant is as good as it was where the records of the contenders cannot be read."""
    driver = FaultyDriver(MemoryDriver(store))
    driver.always("scan", refuse(error))
    async with session(store, "a", driver=driver) as a:
        hold = await a.lock("x").acquire()
        assert hold.origin is Origin.FOUND_FREE
        await hold.end({})


@pytest.mark.parametrize("error", ERRORS[:2], ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("verb", ["scan", "read"])
async def test_a_look_that_fails_ends_no_session(verb: str, error: Exception, store: MemoryBackend) -> None:
    """Where what stands under our lease cannot be looked at, it is looked at again later, and the session lives on."""
    driver = FaultyDriver(MemoryDriver(store))
    async with session(store, "a", driver=driver) as a:
        for number in range(MANY + 2):
            await (await a.lock(f"y{number}").acquire()).end({})
        await asyncio.sleep(5 * TIMING.ttl)  # by then no key is read with the renewal
        lease = await a.lease()
        driver.always(verb, refuse(error))
        await asyncio.sleep(3 * TIMING.ttl)
        driver.always(verb, None)
        assert a.failure is None
        assert await a.lease() == lease
        late = await MemoryDriver(store).acquire(lease, "leader/y1", b"{}")
        assert late is not None
        await asyncio.sleep(2 * TIMING.ttl)
        assert holder(store, "y1") is None


class OfATerm(MemoryDriver):
    """A store whose term has a number that is told anew with each answer."""

    async def renew(self, lease: Lease) -> int:
        await super().renew(lease)
        return int("5000")

    async def read(self, names: Collection[str]) -> Changes:
        return replace(await super().read(names), epoch=int("5000"))


async def test_a_read_of_the_same_term_confirms_a_renewal(store: MemoryBackend) -> None:
    """A renewal counts that was answered in the same term of the store as the read after it."""
    async with session(store, "a", driver=OfATerm(store)) as a, a.lock("x").hold() as hold:
        await asyncio.sleep(5 * TIMING.ttl)
        assert hold.is_valid()


async def test_who_stops_waiting_looks_again_with_the_next_renewal(store: MemoryBackend) -> None:
    """An acquire that arrives after its caller left is found with the next renewal, also by a deaf watch, and where
    leaving itself got no answer."""
    driver = FaultyDriver(MemoryDriver(store), request_timeout=100)
    async with session(store, "a", driver=driver) as a:
        await a.lease()
        await asyncio.sleep(TIMING.ttl + 0.5)  # all keys were looked at a moment ago
        driver.next("acquire", LOST_REQUEST)
        gate = driver.hold("acquire")
        waiting = asyncio.ensure_future(a.lock("x").acquire())
        await gate.arrived.wait()
        await asyncio.sleep(0.2)
        driver.always("withdraw", slow_request(90))
        driver.always("wait_changed", slow_reply(1000))
        driver.down()  # the wait that is under way ends, and the next one hears nothing
        driver.up()
        await asyncio.sleep(0.5)
        waiting.cancel()
        await asyncio.wait([waiting])
        gate.open()
        await asyncio.sleep(TIMING.renew_every + 0.5)
        assert holder(store, "x") is None


class AskedForOneTooMany(MemoryDriver):
    """A store that has no answer where one of these names is asked for, as one whose replicas do not follow."""

    silent_about: Collection[str] = ()

    async def read(self, names: Collection[str]) -> Changes:
        if not {*names}.isdisjoint(self.silent_about):
            raise BackendUnavailable("no replica has it")
        return await super().read(names)


async def test_what_is_in_doubt_is_read_apart(store: MemoryBackend) -> None:
    """A leader whose backend has no answer about another lock, which somebody here stopped waiting for, leads on."""
    driver = AskedForOneTooMany(store)
    async with session(store, "a", driver=driver) as a:
        hold = await a.lock("x").acquire()
        driver.silent_about = {LEADER + "y"}
        a.context.touched.doubt(LEADER + "y")
        await asyncio.sleep(TIMING.ttl + TIMING.renew_every)
        assert LEADER + "y" in a.context.touched.unsure
        assert hold.is_valid()
        await hold.end({})


@pytest.mark.parametrize("error", ERRORS[:2])
async def test_a_lock_that_nobody_could_look_at_is_not_kept(store: MemoryBackend, error: Exception) -> None:
    """Where a process has got a lock without hearing of it, has stopped waiting, and can renew but not read, its lease
    ends, and another one leads."""
    driver = FaultyDriver(MemoryDriver(store))
    async with session(store, "a", driver=driver) as a, session(store, "b") as b:
        await a.lease()
        driver.next("acquire", LOST_REPLY)
        for verb in ("acquire", "read", "scan", "wait_changed"):
            driver.always(verb, refuse(error))
        waiting = asyncio.ensure_future(a.lock("x").acquire())
        await until(lambda: holder(store, "x") == "a")
        waiting.cancel()
        await asyncio.wait([waiting])
        async with asyncio.timeout(3 * TIMING.ttl), b.lock("x").hold():
            assert holder(store, "x") == "b"


async def test_a_release_without_an_answer_is_sent_again_soon(store: MemoryBackend) -> None:
    """One lost release costs the next holder about a tenth of a second; where none is answered, the end takes the time
    of one request."""
    driver = FaultyDriver(MemoryDriver(store))
    async with session(store, "a", driver=driver) as a:
        hold = await a.lock("x").acquire()
        driver.next("release", LOST_REQUEST)
        began = clock.now()
        await hold.end({})
        assert clock.now() - began < 0.2
        hold = await a.lock("x").acquire()
        driver.always("release", LOST_REQUEST)
        began = clock.now()
        await hold.end({})
        assert TIMING.request <= clock.now() - began < TIMING.request + 0.2


async def test_a_renewal_that_works_again_is_told(store: MemoryBackend, caplog: pytest.LogCaptureFixture) -> None:
    """A lease that could not be renewed for a while, and was in time, is told of once more; one that is well is not."""
    caplog.set_level(logging.INFO)
    driver = Noted(store)
    async with session(store, "a", driver=driver) as a:
        await a.lease()
        await asyncio.sleep(2 * TIMING.renew_every)
        assert "renewed again" not in caplog.text
        driver.is_silent = True
        await asyncio.sleep(TIMING.renew_every + 1)
        driver.is_silent = False
        await asyncio.sleep(2 * TIMING.renew_every)
        assert caplog.text.count("lease renewed again after: no answer") == 1


async def test_another_lease_after_a_loss_is_told(store: MemoryBackend, caplog: pytest.LogCaptureFixture) -> None:
    """A lease that the backend ended is followed by another one, which is told also where that came at once."""
    caplog.set_level(logging.INFO)
    async with session(store, "a") as a:
        lease = await a.lease()
        store.end_lease(lease.id)
        await until(lambda: "a new lease from" in caplog.text)
        assert await a.lease() != lease


async def test_a_goodbye_that_was_not_answered_is_said_again(store: MemoryBackend) -> None:
    """A session that ends gives its lease up, also where the first request for that is lost."""
    driver = FaultyDriver(MemoryDriver(store))
    async with session(store, "a", driver=driver) as a:
        await a.lease()
        driver.next("revoke", LOST_REQUEST)
    assert not store.leases()


async def test_a_lock_that_is_seen_to_be_ours_was_found_free(store: MemoryBackend) -> None:
    """Who gets no answer, and hears from its watch that the lock is its own, has not been given it by a leader: it
    settles."""
    driver = FaultyDriver(MemoryDriver(store))
    driver.always("acquire", LOST_REPLY)
    async with session(store, "a", driver=driver) as a:
        hold = await a.lock("x").acquire()
        assert hold.origin is Origin.FOUND_FREE
        await hold.end({})


async def test_a_lock_that_was_seen_to_be_ours_and_is_another_ones(store: MemoryBackend) -> None:
    """What a watch says is asked for before anybody leads on it: meanwhile a person may have freed the lock, and
    another one taken it."""
    driver, other = FaultyDriver(MemoryDriver(store)), MemoryDriver(store)
    async with session(store, "a", driver=driver) as a:
        await a.lease()
        await asyncio.sleep(1)
        driver.always("acquire", LOST_REPLY)
        gate = driver.hold("read")
        waiting = asyncio.ensure_future(a.lock("x").acquire())
        await gate.arrived.wait()
        store.stranger_deletes(key_of("x"))
        assert await other.acquire(await other.grant_lease("b", 60), LEADER + "x", b"{}")
        gate.open()
        await asyncio.sleep(2 * TIMING.ttl)
        assert not waiting.done()
        assert holder(store, "x") == "b"
        waiting.cancel()
        await asyncio.wait([waiting])


async def test_a_hand_over_that_did_not_arrive_is_a_release(store: MemoryBackend) -> None:
    """A leader that gets no answer to its transfer says that it has released the lock, and has."""
    driver = FaultyDriver(MemoryDriver(store))
    driver.always("transfer", LOST_REQUEST)
    async with session(store, "a", driver=driver) as a:
        hold = await a.lock("x").acquire()
        async with company(store, "b") as (b,):
            assert await hold.find_heir(None) == "b"
            assert await hold.end({}) is Ending.RELEASED
            await b.leading.wait()
            assert b.terms[0].origin is Origin.RELEASED


async def test_who_holds_it_is_told_once(store: MemoryBackend, caplog: pytest.LogCaptureFixture) -> None:
    """Who waits is told who holds the lock, once for each that does; of a value that is nobody's, once too."""
    caplog.set_level(logging.INFO)

    def said(text: str) -> int:
        return sum(text in record.getMessage() for record in caplog.records)

    async with session(store, "a") as a, session(store, "b") as b, session(store, "c") as c:
        hold = await a.lock("x").acquire()
        waiting = [asyncio.ensure_future(each.lock("x").acquire()) for each in (b, c)]
        await asyncio.sleep(10 * TIMING.ttl)
        assert said("x: waiting, held by a on") == 2
        await hold.end({})
        (first,), (second,) = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(10 * TIMING.ttl)
        assert said("x: waiting, held by") == 3
        await first.result().end({})
        await (await second).end({})
        store.stranger_writes(key_of("z"), b"a person's")
        foreign = asyncio.ensure_future(a.lock("z").acquire())
        await asyncio.sleep(10 * TIMING.ttl)
        assert said("nobody can lead z until a person acts") == 1
        foreign.cancel()
        await asyncio.wait([foreign])


class NotingGuard(NoGuard):
    """Notes the deadlines that it is told."""

    def __init__(self) -> None:
        self.deadlines: list[float] = []

    def watch(self, deadline: float, what: str = "") -> NotingGuard:
        self.move(deadline)
        return self

    def move(self, deadline: float) -> None:
        self.deadlines.append(deadline)

    def done(self) -> None: ...


async def test_the_guard_is_told_of_each_renewal(store: MemoryBackend) -> None:
    """The guard of the work follows the lease while that is renewed, and no more when it is lost: then the work has
    `stop_time`, whatever the next lease may be worth."""
    guard = NotingGuard()
    async with session(store, "a", guard=guard) as a:
        hold = await a.lock("x").acquire()
        lease = await a.lease()
        await asyncio.sleep(3 * TIMING.renew_every + 1)
        assert len(guard.deadlines) >= 3
        assert sorted(set(guard.deadlines)) == guard.deadlines
        store.end_lease(lease.id)
        await until(lambda: hold.loss is not None)
        told = len(guard.deadlines)
        assert guard.deadlines[-1] <= clock.now() + TIMING.stop_time
        await asyncio.sleep(3 * TIMING.renew_every)
        assert len(guard.deadlines) == told
        await hold.end({})


async def test_a_session_takes_the_guard_that_it_is_given(store: MemoryBackend) -> None:
    """A session watches its work with the guard that it was given, and else with the one of the process."""
    mine = NoGuard()
    assert Session(MemoryDriver(store), guard=mine).context.guard is mine
    assert Session(MemoryDriver(store)).context.guard is process_guard()
