"""Locks of sessions: who holds, how it is lost, and what never stays behind."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Collection
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from support.sessions import PREFIX, TIMING, holder, key_of, session, standby

from cluster_lock import clock
from cluster_lock.drivers.memory import MemoryBackend, MemoryDriver
from cluster_lock.errors import (
    BackendRefused,
    BackendUnavailable,
    ForeignValue,
    HeldElsewhere,
    LockLost,
    PermissionRefused,
    TokenWentBack,
)
from cluster_lock.lease.guard import NoGuard
from cluster_lock.session.touched import MANY
from cluster_lock.testing.faulty import FaultyDriver, refuse
from cluster_lock.testing.virtual_time import run
from cluster_lock.values import Changes, Grant, Lease, Origin, Record

pytestmark = pytest.mark.virtual


async def test_never_two_holders() -> None:
    """Twenty sessions that take and give one lock at random are never in it two at a time, and each gets it."""
    store, inside, entered = MemoryBackend(), 0, set()

    async def contend(number: int) -> None:
        nonlocal inside
        async with session(store, f"i{number}") as mine:
            for _ in range(3):
                async with mine.lock("x").hold():
                    inside += 1
                    assert inside == 1
                    await asyncio.sleep(0.01)
                    entered.add(number)
                    inside -= 1

    await asyncio.gather(*(contend(number) for number in range(20)))
    assert len(entered) == 20
    assert store.leases() == {}


async def test_tokens_grow_from_grant_to_grant() -> None:
    """Each grant carries a larger fencing token than the one before, no matter who held it."""
    store, tokens = MemoryBackend(), []
    async with session(store, "a") as a, session(store, "b") as b:
        for mine in (a, b, a, a, b):
            async with mine.lock("x").hold() as hold:
                tokens.append(hold.fencing_token)
    assert tokens == sorted(set(tokens))


async def test_a_deleted_key_ends_that_term_only(store: MemoryBackend) -> None:
    """Deleting a lock's key cancels the work under it at once; the lease and its other locks live on."""
    async with session(store, "a") as a, a.lock("other").hold() as other:
        lease = await a.lease()
        with pytest.raises(LockLost, match="deleted"):
            async with a.lock("x").hold():
                store.stranger_deletes(key_of("x"))
                began = clock.now()
                await asyncio.sleep(100)
        assert clock.now() - began < 0.1
        assert other.is_valid()
        assert await a.lease() == lease


class Blind(MemoryDriver):
    """A client whose watch hears nothing after the first answer, as one on a cut-off server."""

    async def wait_changed(self, names, since, at_most):  # type: ignore[no-untyped-def]
        if since is not None:
            await asyncio.sleep(at_most)
        return await super().wait_changed(names, since, 0)


async def test_the_watch_is_not_the_only_detector(store: MemoryBackend) -> None:
    """With a watch that is blind, a deleted key is noticed by the read that follows the next renewal."""
    async with session(store, "a", driver=Blind(store)) as a:
        with pytest.raises(LockLost):
            async with a.lock("x").hold():
                await asyncio.sleep(1)
                store.stranger_deletes(key_of("x"))
                began = clock.now()
                await asyncio.sleep(100)
        assert clock.now() - began <= TIMING.renew_every + 0.1


async def test_an_ended_lease_ends_its_locks_and_is_replaced(store: MemoryBackend) -> None:
    """When the lease is revoked by hand, every lock under it is lost at once and the session has a new lease within 1
    s."""
    async with session(store, "a") as a:
        old = await a.lease()
        with pytest.raises(LockLost):
            async with a.lock("x").hold(), a.lock("y").hold():
                store.end_lease(old.id)
                began = clock.now()
                await asyncio.sleep(100)
        async with a.lock("x").hold() as hold:
            assert clock.now() - began < 1
            assert hold.grant.lease != old
            assert list(store.leases()) == [hold.grant.lease.id]


class Cut(MemoryDriver):
    """A client that can be cut off from the store."""

    down = False

    async def _travel(self) -> None:
        if self.down:
            raise BackendUnavailable("cut off")
        await super()._travel()


async def test_the_old_lease_stays_until_the_work_under_it_has_ended(store: MemoryBackend) -> None:
    """A lease lost to silence is given up, and a new one asked for, only after the work under it has ended."""
    driver = Cut(store)
    async with session(store, "a", driver=driver) as a:
        old = await a.lease()
        hold = await a.lock("x").acquire()
        driver.down = True
        await hold.wait_lost()
        driver.down = False
        while old.id in store.leases():
            assert clock.now() < hold.stop_at + TIMING.ttl
            assert list(store.leases()) == [old.id]
            await asyncio.sleep(0.1)
        assert clock.now() > hold.stop_at + TIMING.stop_time, "it ended by its ttl, nobody revoked it"
        assert a.context.lease.current is None
        await hold.end({})
        assert await asyncio.wait_for(a.lease(), 1) != old


async def test_work_that_swallowed_its_loss_is_told(store: MemoryBackend) -> None:
    """A block that goes on to its end although the lock was lost raises LockLost all the same."""
    async with session(store, "a") as a:
        with pytest.raises(LockLost, match="deleted"):
            async with a.lock("x").hold() as hold:
                store.stranger_deletes(key_of("x"))
                with suppress(asyncio.CancelledError):
                    await hold.wait_lost()
                    await asyncio.sleep(10)


async def test_unreachable_backend_polls_on_until_the_deadline(store: MemoryBackend) -> None:
    """A holder that cannot reach the backend works on until stop_at, is cancelled there, and holds again afterwards."""
    driver = Cut(store)
    async with session(store, "a", driver=driver) as a:
        with pytest.raises(LockLost):
            async with a.lock("x").hold() as hold:
                driver.down = True
                stop_at = hold.stop_at
                await asyncio.sleep(100)
        assert clock.now() == pytest.approx(stop_at, abs=0.05)
        driver.down = False
        async with a.lock("x").hold() as hold:
            assert hold.origin is Origin.FOUND_FREE


class LateAcquire(MemoryDriver):
    """A client whose next acquire is applied only when told, long after its caller gave up."""

    def __init__(self, store: MemoryBackend) -> None:
        super().__init__(store)
        self.held_back: list[tuple[Lease, str, bytes]] = []
        self.hold_back = True

    async def acquire(self, lease: Lease, name: str, record: bytes) -> Grant | None:
        if self.hold_back:
            self.hold_back = False
            self.held_back.append((lease, name, record))
            await asyncio.sleep(1000)
        return await super().acquire(lease, name, record)

    async def arrive(self) -> None:
        await super().acquire(*self.held_back.pop())


async def test_a_late_acquire_is_released(store: MemoryBackend) -> None:
    """An acquire that arrives after its caller gave up makes nobody a holder: the lock is free again at once, and what
    it leaves behind does not pass for a clean release."""
    driver = LateAcquire(store)
    async with session(store, "a", driver=driver) as a, session(store, "b") as b:
        waiting = asyncio.create_task(a.lock("x").acquire())
        await asyncio.sleep(0.1)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await driver.arrive()
        assert holder(store, "x") == "a"
        await asyncio.sleep(0.1)
        assert holder(store, "x") is None
        async with b.lock("x").hold() as hold:
            assert hold.origin is Origin.FOUND_FREE


async def test_an_unanswered_acquire_finds_what_it_made() -> None:
    """An acquire that was applied but not answered is repeated under the same lease and is one grant, not two."""

    class LostReply(MemoryDriver):
        lost = 0

        async def acquire(self, lease: Lease, name: str, record: bytes) -> Grant | None:
            grant = await super().acquire(lease, name, record)
            if self.lost == 0:
                self.lost += 1
                raise BackendUnavailable("the reply was lost")
            return grant

    store = MemoryBackend()
    async with session(store, "a", driver=LostReply(store)) as a, asyncio.timeout(2), a.lock("x").hold() as hold:
        assert hold.grant.index == store.entry(key_of("x"), "x").index


async def test_one_session_takes_turns() -> None:
    """Two users of one session never hold the same lock at once, although the backend would let their lease have it."""
    store, inside = MemoryBackend(), 0
    async with session(store, "a") as a:

        async def use() -> None:
            nonlocal inside
            async with a.lock("x").hold():
                inside += 1
                assert inside == 1
                await asyncio.sleep(0.05)
                inside -= 1

        await asyncio.gather(*(use() for _ in range(5)))
        async with a.lock("x").hold():
            with pytest.raises(HeldElsewhere):
                await a.lock("x").acquire(wait=False)


async def test_not_waiting_says_who_holds(store: MemoryBackend) -> None:
    """`wait=False` on a held lock raises at once, names the holder, and leaves no contender record."""
    async with session(store, "a") as a, session(store, "b") as b, a.lock("x").hold():
        with pytest.raises(HeldElsewhere, match="a on "):
            await b.lock("x").acquire(wait=False)
        await asyncio.sleep(0.1)
        assert standby(store, "b").lease is None


async def test_waiting_leaks_nothing(store: MemoryBackend) -> None:
    """After 1,000 waits that were given up, the store has one lease per session and no contender record."""
    async with session(store, "a") as a, session(store, "b") as b, a.lock("x").hold():
        for _ in range(1000):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await b.lock("x").acquire()
        await asyncio.sleep(0.1)
        assert sorted(name.split("@")[0] for name in store.leases().values()) == ["a", "b"]
        assert standby(store, "b").lease is None
        assert holder(store, "x") == "a"


async def test_an_idle_standby_is_quiet() -> None:
    """In ten minutes a waiting session sends its renewals, one waiting request and one read per ttl, and nothing
    else."""
    holding, waiting = MemoryBackend(), MemoryBackend()
    async with session(holding, "a") as a, a.lock("x").hold():
        driver = Counted(holding)
        async with session(holding, "b", driver=driver) as b:
            task = asyncio.create_task(b.lock("x").acquire())
            await asyncio.sleep(20)
            driver.sent.clear()
            await asyncio.sleep(600)
            task.cancel()
            assert set(driver.sent) == {"renew", "wait_changed", "read"}
            assert abs(driver.sent.count("renew") - 600 / TIMING.renew_every) <= 1
            waits = driver.sent.count("wait_changed") - driver.sent.count("read")  # which is one of no length
            assert waits <= 600 / TIMING.ttl + 1
            assert abs(driver.sent.count("read") - 600 / TIMING.ttl) <= 1
    assert waiting.leases() == {}


class Counted(MemoryDriver):
    """Notes each verb."""

    def __init__(self, store: MemoryBackend) -> None:
        super().__init__(store)
        self.sent: list[str] = []

    def __getattribute__(self, name: str) -> object:
        if name in {"renew", "wait_changed", "acquire", "announce", "withdraw", "scan", "read", "release", "transfer"}:
            self.sent.append(name)
        return super().__getattribute__(name)


@pytest.mark.parametrize("locks", [1, 100, pytest.param(1000, marks=pytest.mark.slow)])
async def test_renewals_do_not_grow_with_the_locks(locks: int, store: MemoryBackend) -> None:
    """A session renews three times per ttl whether it holds one lock or a thousand."""
    driver = Counted(store)
    async with session(store, "a", driver=driver) as a:
        holds = [await a.lock(f"x{number}").acquire() for number in range(locks)]
        driver.sent.clear()
        await asyncio.sleep(4 * TIMING.ttl + 0.1)
        assert driver.sent.count("renew") == 12
        assert driver.sent.count("read") == 12 + 4  # with each renewal what is held, and once per ttl the rest
        assert driver.sent.count("scan") == (4 if locks > MANY else 0)
        for hold in holds:
            await hold.end({})


async def test_a_foreign_value_is_named_and_left_alone(caplog: pytest.LogCaptureFixture, store: MemoryBackend) -> None:
    """A value that is not ours under the key is never overwritten: it is named once, and the wait goes on until it is
    gone."""
    store.stranger_writes(key_of("x"), b"hands off")
    async with session(store, "a") as a:
        with pytest.raises(ForeignValue, match="leader/x"):
            await a.lock("x").acquire(wait=False)
        waiting = asyncio.create_task(a.lock("x").acquire())
        await asyncio.sleep(30)
        assert store.entry(key_of("x"), "x").record == b"hands off"
        assert sum("until a person acts" in record.message for record in caplog.records) == 1
        store.stranger_deletes(key_of("x"))
        hold = await asyncio.wait_for(waiting, 2)
        await hold.end({})


async def test_nobody_leads_on_a_token_that_went_back(store: MemoryBackend) -> None:
    """After the store was set back, an acquire whose token is not above one seen before raises, and holds nothing."""
    async with session(store, "a") as a:
        for _ in range(5):
            async with a.lock("x").hold():
                pass
        store.index = 1
        with pytest.raises(TokenWentBack, match="fencing_floor"):
            await a.lock("x").acquire()
        await asyncio.sleep(TIMING.renew_every + 1)
        assert holder(store, "x") is None


def test_the_last_record_remembers_the_token() -> None:
    """A floor that one leader had binds the next one that has none, whether the first released the lock or died, and
    however many try: a process learns the largest token from what the last holder left, and leaves it as it was."""

    async def main(dies: bool) -> None:
        store = MemoryBackend()
        async with session(store, "a", fencing_floor=5000) as a:
            hold = await a.lock("x").acquire()
            assert hold.fencing_token == 5000 + hold.grant.token
            if dies:
                store.end_lease(hold.grant.lease.id)
                await hold.wait_lost()
            await hold.end({"offset": 7})
        for name in "bcd":
            async with session(store, name) as other:
                with pytest.raises(TokenWentBack, match=r"a on .* under leader/x .*Delete that key if it is not true"):
                    await other.lock("x").acquire()
        async with session(store, "e", fencing_floor=5000) as e, e.lock("x").hold() as hold:
            assert hold.fencing_token > 5000

    for dies in (False, True):
        run(main(dies))


@pytest.mark.parametrize("floor", [0, 10**15], ids=["small tokens", "large ones"])
async def test_origin_of_a_grant(floor: int, store: MemoryBackend) -> None:
    """A lock that was released after it settled says so and hands on what was left; one that expired or was released
    too early is found free."""
    async with session(store, "a", fencing_floor=floor) as a, session(store, "b", fencing_floor=floor) as b:
        hold = await a.lock("x").acquire()
        assert hold.origin is Origin.FOUND_FREE
        await hold.end({"offset": 1})
        hold = await b.lock("x").acquire()
        assert hold.origin is Origin.FOUND_FREE, "the first one was gone before the world could hear of the loss"
        await asyncio.sleep(TIMING.settle)
        await hold.end({"offset": 2})
        hold = await a.lock("x").acquire()
        assert (hold.origin, hold.inherited) == (Origin.RELEASED, {"offset": 2})
        store.stranger_deletes(key_of("x"))
        await hold.wait_lost()
        await hold.end({})
        hold = await b.lock("x").acquire()
        assert (hold.origin, hold.inherited) == (Origin.FOUND_FREE, {})
        await hold.end({})


async def test_a_release_without_an_answer_is_made_good() -> None:
    """A lock whose release could not be delivered is released with the next renewal, not held by nobody for ever."""

    class NoRelease(MemoryDriver):
        refuse = True

        async def release(self, grant: Grant, farewell: bytes) -> None:
            if self.refuse:
                raise BackendUnavailable("no answer")
            await super().release(grant, farewell)

    store = MemoryBackend()
    driver = NoRelease(store)
    async with session(store, "a", driver=driver) as a:
        hold = await a.lock("x").acquire()
        await hold.end({})
        assert holder(store, "x") == "a"
        driver.refuse = False
        await asyncio.sleep(2 * TIMING.renew_every)
        assert holder(store, "x") is None


async def test_a_transfer_to_one_who_left_is_released(store: MemoryBackend) -> None:
    """A lock that is transferred to a process which has just stopped waiting is released by that process at once."""
    client = MemoryDriver(store)
    async with session(store, "a") as a, session(store, "b") as b:
        hold = await a.lock("x").acquire()
        waiting = asyncio.create_task(b.lock("x").acquire())
        await asyncio.sleep(0.1)
        heir = standby(store, "b")
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        lease = Lease(heir.lease or "", 15, "b")
        await client.announce(lease, heir.name, b"{}")
        assert await client.transfer(hold.grant, heir, b"{}")
        await hold.end({})
        await asyncio.sleep(0.1)
        assert holder(store, "x") is None


async def test_fail_fast_and_waiting_at_the_start() -> None:
    """An unreachable backend is waited for; with fail_fast it is an error, and a refusal is one in any case."""

    class Refused(MemoryDriver):
        async def grant_lease(self, holder: str, ttl: float) -> Lease:
            raise PermissionRefused("token lacks session:write")

    store = MemoryBackend()
    driver = Cut(store)
    driver.down = True
    async with session(store, "a", driver=driver, fail_fast=True) as a:
        with pytest.raises(BackendUnavailable):
            await a.lock("x").acquire()
    async with session(store, "a", driver=Refused(store)) as a:
        with pytest.raises(PermissionRefused, match="session:write"):
            await a.lock("x").acquire()
    async with session(store, "a", driver=driver) as a:
        waiting = asyncio.create_task(a.lock("x").acquire())
        await asyncio.sleep(300)
        assert not waiting.done()
        driver.down = False
        await (await asyncio.wait_for(waiting, 3)).end({})


class Stingy(MemoryDriver):
    """A server that grants a shorter ttl than what was asked for."""

    async def grant_lease(self, holder, ttl):  # type: ignore[no-untyped-def]
        return dataclasses.replace(await super().grant_lease(holder, ttl), ttl=TIMING.margin)


async def test_a_ttl_too_short_to_use_is_given_back(store: MemoryBackend) -> None:
    """A lease that is granted for less time than the margin is refused with a sentence, and not left behind."""
    async with session(store, "a", driver=Stingy(store)) as a:
        with pytest.raises(BackendRefused, match="granted a ttl of 3 s"):
            await a.lease()
        assert store.leases() == {}


async def test_records_are_for_people(store: MemoryBackend) -> None:
    """What stands under the lock names the holder in JSON, and is the same bytes for the whole term."""
    async with session(store, "a", config="abc") as a, a.lock("x").hold():
        before = store.entry(key_of("x"), "x")
        record = Record.from_bytes(before.record or b"")
        assert record is not None
        assert (record.instance, record.host, record.config) == ("a", a.context.identity.host, "abc")
        await asyncio.sleep(10 * TIMING.ttl)
        assert store.entry(key_of("x"), "x") == before


async def test_closing_frees_at_once(store: MemoryBackend) -> None:
    """A closed session leaves no lease, no lock, and no contender record, and a waiter elsewhere has the lock at
    once."""
    async with session(store, "b") as b:
        async with session(store, "a") as a:
            await a.lock("x").acquire()
            waiting = asyncio.create_task(b.lock("x").acquire())
            await asyncio.sleep(1)
        hold = await asyncio.wait_for(waiting, 0.1)
        assert hold.origin is Origin.FOUND_FREE
        await hold.end({})
        assert store.entry(f"{PREFIX}standby/a", "").lease is None


async def test_a_wait_that_times_out_is_asked_again() -> None:
    """A driver whose waiting request ends with a TimeoutError ends no session: it is asked again, and hears."""

    class Late(MemoryDriver):
        late = True

        async def wait_changed(self, names: Collection[str], since: object | None, at_most: float) -> Changes:
            if self.late:
                self.late = False
                raise TimeoutError("no answer")
            return await super().wait_changed(names, since, at_most)

    store = MemoryBackend()
    async with session(store, "a", driver=Late(store)) as a:
        hold = await a.lock("x").acquire()
        store.stranger_deletes(key_of("x"))
        assert "was deleted" in await hold.wait_lost()
        assert a.failure is None
        await hold.end({})


async def test_a_longer_lease_has_the_longer_limit() -> None:
    """Where the backend grants a longer ttl than was asked for, a renewal and the read behind it have a third of that
    one."""

    class Generous(MemoryDriver):
        async def grant_lease(self, holder: str, ttl: float) -> Lease:
            return await super().grant_lease(holder, 4 * ttl)

        async def read(self, names: Collection[str]) -> Changes:
            await asyncio.sleep(1.5 * TIMING.request)
            return await super().read(names)

    store = MemoryBackend()
    async with session(store, "a", driver=Generous(store)) as a:
        hold = await a.lock("x").acquire()
        await asyncio.sleep(10 * TIMING.ttl)
        assert hold.loss is None
        await hold.end({})


async def test_work_under_a_closed_session_has_its_time_to_stop() -> None:
    """When a session is closed under work that still runs, the guard gives that work the time to stop, and no more."""
    deadlines: list[float] = []

    class Recording(NoGuard):
        def watch(self, deadline: float, what: str = "") -> Any:
            return SimpleNamespace(move=deadlines.append, done=lambda: None)

    async with session(MemoryBackend(), "a", guard=Recording()) as a:
        hold = await a.lock("x").acquire()
    assert hold.loss == "the session is closed"
    assert deadlines[-1:] == [clock.now() + TIMING.stop_time]
    await hold.end({})


@pytest.mark.parametrize("settle", [True, False])
async def test_a_block_settles(settle: bool) -> None:
    """The block under a lock that was found free begins `settle` later, unless it says that it may begin."""
    async with session(MemoryBackend(), "a") as a:
        await a.lease()
        start = clock.now()
        async with a.lock("x").hold(settle=settle):
            assert (clock.now() - start >= TIMING.settle) is settle


async def test_a_lock_that_is_lost_while_it_settles_has_no_block(store: MemoryBackend) -> None:
    """A block does not begin under a lock that was lost before it had settled."""
    async with session(store, "a") as a:
        await a.lease()

        async def use() -> None:
            async with a.lock("x").hold():
                pytest.fail("it began")

        using = asyncio.ensure_future(use())
        await asyncio.sleep(TIMING.settle / 2)
        store.stranger_deletes(key_of("x"))
        with pytest.raises(LockLost):
            await using


async def test_the_last_word_knows_the_token_of_its_own_term(store: MemoryBackend) -> None:
    """A token that is above the floor of the leader before, and not above the one that it led with, is refused."""
    store.index = 100
    async with session(store, "a", fencing_floor=5000) as a, a.lock("x").hold() as hold:
        assert hold.fencing_token > 5100
    async with session(store, "b", fencing_floor=4980) as b:
        with pytest.raises(TokenWentBack, match=f"says that {hold.fencing_token} was there"):
            await b.lock("x").acquire()


@pytest.mark.parametrize("name", ["jobs/\udc80", "jobs/\0"])
async def test_a_name_that_is_no_text_is_refused(name: str) -> None:
    """Half a character in a lock's name, or a NUL, is refused at once, and costs the other locks nothing."""
    async with session(MemoryBackend(), "a") as one, one.lock("good").hold(settle=False) as hold:
        with pytest.raises(ValueError, match="cannot be called"):
            one.lock(name)
        assert hold.is_valid()


async def test_a_refusal_that_is_over_ends_nobody(store: MemoryBackend) -> None:
    """Who waits for a lock waits on after the backend had refused to let him look, with his lease lost meanwhile."""
    driver = FaultyDriver(MemoryDriver(store))
    async with session(store, "leader") as leader, session(store, "standby", driver=driver) as other:
        hold = await leader.lock("x").acquire()
        waiting = asyncio.ensure_future(other.lock("x").acquire())
        await asyncio.sleep(1)
        denied = refuse(PermissionRefused("the token is not known"))
        for verb in ("wait_changed", "read"):
            driver.always(verb, denied)
        lease = other.context.lease.current
        assert lease is not None
        store.end_lease(lease.id)
        await asyncio.sleep(30)
        assert other.context.lease.current not in (None, lease)
        assert not waiting.done()
        for verb in ("wait_changed", "read"):
            driver.always(verb, None)
        await hold.end({})
        await (await waiting).end({})


async def test_the_record_says_when_the_term_began(store: MemoryBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who takes over after a wait, and who leads again under the same lease, leads since then."""
    monkeypatch.setattr(clock, "utc_text", lambda: f"{clock.now():.1f}")

    def since() -> float:
        record = Record.from_bytes(store.entry(key_of("x"), "x").record or b"")
        assert record is not None
        return float(record.since)

    async with session(store, "a") as a, session(store, "b") as b:
        first = await a.lock("x").acquire()
        taking = asyncio.create_task(b.lock("x").acquire())
        await asyncio.sleep(100)
        began = clock.now()
        store.end_lease(first.grant.lease.id)
        second = await taking
        assert began <= since() <= clock.now()
        await second.end({})
        await asyncio.sleep(100)
        began = clock.now()
        async with b.lock("x").hold():
            assert began <= since() <= clock.now()
        await first.end({})
