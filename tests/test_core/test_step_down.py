"""A leader is asked over the backend to hand over: who may ask, whom he hears, and what he answers."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import pytest
from support.members import asked, company, stands
from support.sessions import TIMING, holder, key_of, session

from cluster_lock.admin.step_down import ask_to_step_down
from cluster_lock.aio import end
from cluster_lock.drivers.memory import MemoryBackend, MemoryDriver
from cluster_lock.errors import BackendRefused
from cluster_lock.observer import Ending
from cluster_lock.session.invitation import answer_invitations
from cluster_lock.session.request_pace import EVERY
from cluster_lock.session.requests import Ask, Reply
from cluster_lock.testing.faulty import FaultyDriver, slow_reply
from cluster_lock.values import REPLY, REQUEST, Changes, Entry, Origin, Record, Traits

pytestmark = pytest.mark.virtual


@pytest.mark.parametrize("to", [None, "b", "c"])
async def test_a_leader_hands_over_when_asked(to: str | None, store: MemoryBackend) -> None:
    """The leader hands over, after its work has ended, to the first contender, or to the one named; and the one who
    asked is told who leads, in which term, and how long nobody took work."""
    async with company(store, "a", "b", "c") as (a, b, c):
        outcome = await asked(store, to)
        heir = c if to == "c" else b
        assert holder(store, "x") == heir.session.context.identity.instance
        assert heir.leading.is_set()
        assert heir.terms[0].origin is Origin.HANDED_OVER
        assert outcome.after is not None
        assert outcome.after.index == heir.terms[0].fencing_token
        record = Record.from_bytes(outcome.after.record or b"")
        assert record is not None
        assert (record.instance, record.handed_over_by) == (heir.session.context.identity.instance, "a")
        assert outcome.gap is not None
        assert 2 <= outcome.gap <= outcome.seconds < 4
        assert a.terms[0].ended == "stepped down: a test asked for it"


async def test_a_backend_that_moves_no_locks() -> None:
    """Where no lock can be moved nobody is asked to, and the message says what there is."""
    async with company(MemoryBackend(traits=Traits(transfers=False)), "a") as (a,):
        with pytest.raises(BackendRefused, match="stop its leader"):
            await ask_to_step_down(a.session, "x", by="a test", timeout=1)


@pytest.mark.parametrize("linearizable_waits", [False, True])
async def test_an_heir_reads_what_its_wait_has_not_read(linearizable_waits: bool) -> None:
    """An heir reads the lock once before it leads: by its wait, where the store waits so, else by a read of its own."""
    store = MemoryBackend(traits=Traits(linearizable_waits=linearizable_waits))
    async with company(store, "a", "b") as (_, b):
        read, reads = b.session.driver.read, []

        async def counting(names: Collection[str]) -> Changes:
            reads.append(names)
            return await read(names)

        b.session.driver.read = counting  # type: ignore[method-assign]
        await asked(store)
        assert b.terms[0].origin is Origin.HANDED_OVER
        assert reads.count(["leader/x"]) == (0 if linearizable_waits else 1)


async def test_an_heir_that_was_leads_again_although_it_hears_nothing() -> None:
    """A lock that was given to us, and that we gave back, is no news: who asks for it again has it at once, also while
    the waiting request says nothing."""
    store = MemoryBackend(traits=Traits(linearizable_waits=True))
    driver = FaultyDriver(MemoryDriver(store))
    async with session(store, "a") as a, session(store, "b", driver=driver) as b:
        given = await a.lock("x").acquire()
        answering = asyncio.ensure_future(answer_invitations(b.context, "x", None))
        waiting = asyncio.ensure_future(b.lock("x").acquire())
        await asyncio.sleep(1)
        assert await given.find_heir(None)
        assert await given.end({}) is Ending.HANDED_OVER
        hold = await waiting
        driver.always("wait_changed", slow_reply(1000))
        driver.down()  # the wait that is under way ends, and the next one hears nothing
        driver.up()
        await hold.end({})
        async with asyncio.timeout(1):
            again = await b.lock("x").acquire()
        await again.end({})
        await end([answering])


async def test_a_young_term_hands_over_all_the_same(store: MemoryBackend) -> None:
    """A request that comes before a lock that was found free has settled is not answered with a release, after which
    anybody may lead."""
    async with session(store, "corpse") as corpse:
        corpse_hold = await corpse.lock("x").acquire()
        async with company(store, "b", "c") as (b, c):
            store.stranger_deletes(key_of("x"))
            await corpse_hold.end({})
            await asyncio.wait([asyncio.create_task(m.leading.wait()) for m in (b, c)], return_when="FIRST_COMPLETED")
            old, heir = (b, c) if b.leading.is_set() else (c, b)
            assert old.terms[0].origin is Origin.FOUND_FREE
            outcome = await asked(store)
            assert outcome.declined is None
            assert heir.terms[0].origin is Origin.HANDED_OVER


@pytest.mark.parametrize("to", ["nobody", "a"])
async def test_a_leader_leads_on_when_the_named_one_does_not_stand_by(to: str, store: MemoryBackend) -> None:
    """With a name that does not contend, or its own, the leader declines, says so, and its term goes on."""
    async with company(store, "a", "b") as (a, _):
        outcome = await asked(store, to)
        assert outcome.declined == f"{to} does not stand by, or did not answer its invitation"
        assert (a.terms[0].is_valid(), a.terms[0].stepping_down, a.terms[0].request) == (True, False, None)
        assert holder(store, "x") == "a"
        assert (await asked(store, "b")).declined is None
        assert holder(store, "x") == "b"


async def test_a_named_heir_that_is_silent(store: MemoryBackend) -> None:
    """When the named one does not answer its invitation the leader leads on, although another one would."""
    corpse = MemoryDriver(store)
    lease = await corpse.grant_lease("corpse", 10_000)
    record = Record(holder="c", instance="corpse", host="h", pid=1, since="", version="0", names=("x",))
    async with company(store, "a", "b") as (a, _):
        await corpse.announce(lease, "standby/corpse", record.to_bytes())
        assert (await asked(store, "corpse")).declined is not None
        assert a.terms[0].is_valid()


async def test_a_leader_with_nobody_beside_it_leads_on(store: MemoryBackend) -> None:
    """With nobody who could take over, a request ends no term."""
    async with company(store, "a") as (a,):
        assert (await asked(store)).declined == "nobody stands by who answered its invitation"
        assert a.terms[0].is_valid()


async def test_nobody_leads(store: MemoryBackend) -> None:
    """Where nobody leads there is nobody to ask, and nothing is written."""
    async with session(store, "operator") as operator:
        assert await ask_to_step_down(operator, "x", by="a test", timeout=5) is None
    assert stands(store, REQUEST + "x").record is None


async def test_a_request_for_another_term_is_void(store: MemoryBackend) -> None:
    """A request that carries another token than the leader's changes nothing (docs/design.md#requests-name-a-term)."""
    person = MemoryDriver(store)
    lease = await person.grant_lease("person", 10_000)
    async with company(store, "a", "b") as (a, _):
        token = a.terms[0].fencing_token
        for other in (token - 1, token + 1):
            await person.announce(lease, REQUEST + "x", Ask(other, "1", "late").to_bytes())
            await asyncio.sleep(5)
            assert (a.terms[0].is_valid(), a.terms[0].request) == (True, None)
        await person.announce(lease, REQUEST + "x", Ask(token, "1", "in time").to_bytes())
        await asyncio.sleep(5)
        assert holder(store, "x") == "b"


@pytest.mark.parametrize(
    "value", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"token": "1", "number": 1, "by": null, "to": 5}']
)
async def test_what_is_no_request(value: bytes, store: MemoryBackend) -> None:
    """Anything else under the key is no request, and no reply, and harms nobody."""
    person = MemoryDriver(store)
    lease = await person.grant_lease("person", 10_000)
    async with company(store, "a", "b") as (a, _):
        await person.announce(lease, REQUEST + "x", value)
        await person.announce(lease, REPLY + "x", value)
        await asyncio.sleep(5)
        assert a.terms[0].is_valid()
        assert Reply.of(stands(store, REPLY + "x")) is None


async def test_nothing_of_a_request_stays(store: MemoryBackend) -> None:
    """When it was answered, request and reply are gone; the request of a command that died goes with its lease, and the
    reply after it."""
    async with company(store, "a", "b"):
        await asked(store, "nobody")
        await asyncio.sleep(1)
        assert {stands(store, key + "x").record for key in (REQUEST, REPLY)} == {None}
        person = MemoryDriver(store)
        lease = await person.grant_lease("person", 20)
        token = stands(store, "leader/x").index
        await person.announce(lease, REQUEST + "x", Ask(token, "1", "a test", "nobody").to_bytes())
        await asyncio.sleep(5)
        assert Reply.of(stands(store, REPLY + "x")) is not None
        await asyncio.sleep(20)
        assert {stands(store, key + "x").record for key in (REQUEST, REPLY)} == {None}


async def test_a_request_that_is_under_way_is_not_put_off(store: MemoryBackend) -> None:
    """A second request while the leader looks for an heir is declined or has the same end; a stop overrules both."""
    corpse = MemoryDriver(store)
    lease = await corpse.grant_lease("corpse", 10_000)
    record = Record(holder="c", instance="corpse", host="h", pid=1, since="", version="0", names=("x",))
    async with company(store, "a", "b") as (a, b):
        await corpse.announce(lease, "standby/corpse", record.to_bytes())
        first = asyncio.create_task(asked(store, "corpse"))
        await asyncio.sleep(0.1)
        a.election.stop("deploy")
        await first
        await asyncio.wait_for(b.leading.wait(), 10)
        assert a.terms[0].ended == "stepped down: deploy"


async def test_an_overwritten_value_does_not_make_a_leader_deaf(store: MemoryBackend) -> None:
    """Where a stranger's value under the lock moved the index that others see, a request with that one is heard."""
    async with company(store, "a", "b") as (a, _):
        hold = a.session.context.claims.holds["leader/x"]
        entry = stands(store, "leader/x")
        hold.heard(Entry("leader/x", entry.lease, entry.index + 5, b"overwritten"))
        hold.asked(Entry(REQUEST + "x", "1", 1, Ask(entry.index + 5, "1", "a test").to_bytes()))
        await asyncio.sleep(0.1)
        assert a.terms[0].request is not None


async def test_no_answer_in_time(store: MemoryBackend) -> None:
    """A leader that does not answer (an older version, or one that is cut off) is still named when the time is over."""
    async with session(store, "old") as old, old.lock("x").hold():  # nobody listens there
        outcome = await asked(store, timeout=5)
        assert outcome.timed_out
        assert outcome.after is not None
        assert outcome.after.lease == stands(store, "leader/x").lease
        assert stands(store, REQUEST + "x").record is None


async def test_the_request_reaches_a_leader_without_a_request_of_his_own(store: MemoryBackend) -> None:
    """A leader that is never asked sends what it sent before: listening is part of its one waiting request."""
    async with company(store, "a"):
        before = store.requests
        await asyncio.sleep(10 * TIMING.ttl)
        # Each third of a ttl a renewal and its read; each ttl a wait and a look; and what the start left.
        assert store.requests - before <= 10 * (2 * 3 + 2) + 5
        assert key_of("x")


async def test_a_standby_counts_the_requests_that_the_leader_heeds(store: MemoryBackend) -> None:
    """Who has been served is known to each standby, and not to one that does not contend for this lock."""
    async with company(store, "a", "b", "c") as (a, b, c), session(store, "d") as other:
        operator = MemoryDriver(store)
        lease = await operator.grant_lease("operator", 10_000)
        ask = Ask(a.terms[0].fencing_token, "1", "a test")
        await operator.announce(lease, REQUEST + "x", ask.to_bytes())
        await asyncio.sleep(1)
        for each in (a, b, c):
            assert 0 < each.session.context.pace.wait("x", lease.id) <= EVERY
        assert other.context.pace.wait("x", lease.id) == 0
