"""Moments at which two things happen at once: an answer that comes late, a cancellation in the middle of giving a lock
away, a request beside another one. Each was a defect once."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from dataclasses import replace

import pytest
from support.aio import until
from support.sessions import TIMING, holder, key_of, session, standby, until_steps_down

from cluster_lock import clock
from cluster_lock.drivers.memory import MemoryBackend, MemoryDriver
from cluster_lock.election import Election, Term
from cluster_lock.errors import ClusterLockError, LockLost
from cluster_lock.session import Hold
from cluster_lock.testing.faulty import LOST_REPLY, LOST_REQUEST, FaultyDriver, slow_reply, slow_request
from cluster_lock.testing.virtual_time import run
from cluster_lock.values import EndCode, EndReason, Origin, Record

pytestmark = pytest.mark.virtual


async def expires(hold: Hold) -> str:
    return await asyncio.wait_for(hold.wait_lost(), 60)


async def until_held(store: MemoryBackend, name: str, by: str) -> None:
    await until(lambda: holder(store, name) == by)


async def test_a_contender_that_saw_the_new_leader_is_no_sign_of_a_restore(store: MemoryBackend) -> None:
    """Two that start at the same moment: one leads although the other wrote, before it was asked, that it had seen the
    new leader's token."""
    first, second = FaultyDriver(MemoryDriver(store)), FaultyDriver(MemoryDriver(store))
    async with session(store, "a", driver=first) as a, session(store, "b", driver=second) as b:
        first.next("scan", slow_request(2))
        second.next("acquire", slow_reply(0.5))
        ea, eb = Election(a), Election(b)
        leading = asyncio.create_task(ea.lead("x", until_steps_down))
        await until_held(store, "x", "a")
        waiting = asyncio.create_task(eb.lead("x", until_steps_down))
        await asyncio.sleep(1)
        record = Record.from_bytes(standby(store, "b").record or b"")
        assert record is not None
        assert record.known("x") == store.entry(key_of("x"), "x").index
        await asyncio.sleep(5)
        assert ea.term("x") is not None
        eb.stop()
        ea.stop()
        await asyncio.gather(leading, waiting)


async def test_a_lock_is_not_taken_while_its_release_is_under_way(store: MemoryBackend) -> None:
    """Anybody who gives up waiting and asks again at once gets a grant of its own, and not the one that came for the
    first request and is being released: that release would take the lock from under it."""
    driver = FaultyDriver(MemoryDriver(store))
    async with session(store, "a", driver=driver) as a, session(store, "b") as b:
        await asyncio.gather(a.lease(), b.lease())
        driver.next("acquire", slow_reply(1))
        driver.next("release", slow_request(1))
        with suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await a.lock("x").acquire()
        first = await asyncio.wait_for(a.lock("x").acquire(), 30)
        waiting = asyncio.create_task(b.lock("x").acquire())
        await asyncio.sleep(10)
        assert first.is_valid()
        assert holder(store, "x") == "a"
        await first.end({})
        second = await waiting
        await second.end({})


async def test_a_grant_of_a_lost_answer_is_no_sign_of_a_restore(store: MemoryBackend) -> None:
    """A grant that an unanswered acquire made is a good grant, though another term of this process, under another lock
    and at a higher token, begins and ends before it is asked for again."""
    driver = FaultyDriver(MemoryDriver(store))
    async with session(store, "a", driver=driver) as a:
        await a.lease()
        await asyncio.sleep(1)
        driver.always("wait_changed", LOST_REQUEST)
        driver.next("acquire", LOST_REPLY)
        taking = asyncio.create_task(a.lock("x").acquire())
        await until_held(store, "x", "a")
        async with a.lock("y").hold() as y:
            pass
        x = await taking
        assert x.fencing_token < y.fencing_token
        await x.end({})


async def test_an_heir_that_waits_no_more_keeps_no_lock() -> None:
    """A lock that is given to the one that was invited, but has gone away during a long drain, is free again soon,
    although it waits for another lock and so is a contender still."""
    store, timing = MemoryBackend(), replace(TIMING, ttl=5.0, margin=1.5, drain=20.0)
    sessions = [session(store, name, timing=timing) for name in "abcd"]
    async with AsyncExitStack() as stack:
        a, b, c, d = [await stack.enter_async_context(one) for one in sessions]
        other = await c.lock("z").acquire()
        also_waiting = asyncio.create_task(b.lock("z").acquire())
        leader, heir = Election(a), Election(b)

        async def drains(term: Term) -> None:
            await term.wait_step_down()
            await asyncio.sleep(19)

        leading = asyncio.create_task(leader.lead("x", drains))
        await until_held(store, "x", "a")
        waiting = asyncio.create_task(heir.lead("x", until_steps_down))
        await asyncio.sleep(1)
        leader.stop()
        await asyncio.sleep(1)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await leading
        next_one = await asyncio.wait_for(d.lock("x").acquire(), 5)
        await next_one.end({})
        await other.end({})
        await (await also_waiting).end({})


async def test_a_hold_that_has_ended_is_not_valid() -> None:
    """Nobody takes a lock that was given away for his own."""
    async with session(MemoryBackend(), "a") as a:
        hold = await a.lock("x").acquire()
        await hold.end({})
        assert not hold.is_valid()
        with pytest.raises(LockLost):
            await hold.verify()


async def test_news_of_another_lock_is_no_sign_of_a_restore(store: MemoryBackend) -> None:
    """A grant whose answer is under way while another lock is taken elsewhere, at a higher index, is a good grant."""
    driver = FaultyDriver(MemoryDriver(store))
    async with session(store, "a", driver=driver) as a, session(store, "b") as b, session(store, "c") as c:
        y = await b.lock("y").acquire()
        waiting = [asyncio.create_task(one.lock("y").acquire()) for one in (a, c)]
        await asyncio.sleep(1)
        driver.next("acquire", slow_reply(2))
        taking = asyncio.create_task(a.lock("x").acquire())
        await until_held(store, "x", "a")
        y.heir = standby(store, "c")
        assert await y.end({})
        x = await taking
        assert a.context.identity.tokens.of("y") > x.fencing_token
        await x.end({})
        for one in reversed(waiting):
            await (await one).end({})


async def test_a_lock_handed_over_beside_another_is_no_sign_of_a_restore(store: MemoryBackend) -> None:
    """An heir that hears of a later grant of another lock before it looks at its own leads all the same."""
    driver = FaultyDriver(MemoryDriver(store))
    async with session(store, "a") as a, session(store, "b", driver=driver) as b, session(store, "c") as c:
        x, y = await a.lock("x").acquire(), await a.lock("y").acquire()
        bx = asyncio.create_task(b.lock("x").acquire())
        await asyncio.sleep(1)
        cy = asyncio.create_task(c.lock("y").acquire())
        by = asyncio.create_task(b.lock("y").acquire())
        await asyncio.sleep(1)
        driver.next("read", slow_request(2))
        x.heir, y.heir = standby(store, "b"), standby(store, "c")
        assert await x.end({})
        assert await y.end({})
        hold = await bx
        assert hold.origin is Origin.HANDED_OVER
        await hold.end({})
        await (await cy).end({})
        await (await by).end({})


async def test_a_grant_that_was_lost_before_its_answer_came_is_not_led(store: MemoryBackend) -> None:
    """Anybody who hears that the lock is somebody else's before the answer to its own acquire comes does not hold
    it."""
    driver = FaultyDriver(MemoryDriver(store))
    async with session(store, "a", driver=driver) as a, session(store, "b") as b:
        driver.next("acquire", slow_reply(3))
        taking = asyncio.create_task(a.lock("x").acquire())
        await until_held(store, "x", "a")
        store.stranger_deletes(key_of("x"))
        async with b.lock("x").hold():
            await asyncio.sleep(3.1)
            if taking.done():
                assert not taking.result().is_valid()
                await taking.result().end({})
                taking = asyncio.create_task(a.lock("x").acquire())
                await asyncio.sleep(1)
                assert not taking.done()
        await (await taking).end({})


async def test_a_cancelled_release_leaves_no_lock_behind(store: MemoryBackend) -> None:
    """A block under a lock that is cancelled in the middle of its release has freed the lock all the same."""
    driver = FaultyDriver(MemoryDriver(store))
    async with session(store, "a", driver=driver) as a:
        driver.next("release", slow_request(1))

        async def use() -> None:
            async with a.lock("x").hold():
                pass

        using = asyncio.create_task(use())
        await asyncio.sleep(0.5)
        using.cancel()
        with pytest.raises(asyncio.CancelledError):
            await using
        assert holder(store, "x") is None


async def test_an_end_that_is_cut_short_is_made_good(store: MemoryBackend) -> None:
    """A lock whose `end` was cancelled before anything was sent is released with the next renewal."""
    driver = FaultyDriver(MemoryDriver(store))
    async with session(store, "a", driver=driver) as a:
        hold = await a.lock("x").acquire()
        driver.next("release", LOST_REQUEST)
        ending = asyncio.create_task(hold.end({}))
        await asyncio.sleep(0.01)
        ending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ending
        await asyncio.sleep(TIMING.renew_every + 1)
        assert holder(store, "x") is None


def test_a_standby_that_is_cancelled_at_any_moment_holds_nothing() -> None:
    """Whenever `lead` is cancelled, also in the very step in which it gets the lock, the lock is free soon after."""

    async def main(turns: int) -> None:
        store = MemoryBackend()
        async with session(store, "a") as a:
            await a.lease()
            leading = asyncio.create_task(Election(a).lead("x", until_steps_down))
            for _ in range(turns):
                await asyncio.sleep(0)
            leading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leading
            await asyncio.sleep(0.1)
            assert (holder(store, "x"), a.context.claims.holds) == (None, {}), (
                f"cancelled after {turns} turns of the loop"
            )

    for turns in range(40):
        run(main(turns))


async def test_a_stop_overrules_a_conditional_step_down(store: MemoryBackend) -> None:
    """A leader that is stopped while it looks for somebody willing stops, although nobody is."""
    async with session(store, "a") as a, session(store, "b") as b, asyncio.timeout(60):
        election = Election(a)
        leading = asyncio.create_task(election.lead("x", until_steps_down))
        await until_held(store, "x", "a")
        waiting = asyncio.create_task(b.lock("x").acquire())  # a contender that answers no invitation
        await asyncio.sleep(1)
        term = election.term("x")
        assert term is not None
        term.step_down("no route", willing=lambda said: False)
        await asyncio.sleep(0.1)
        election.stop("deploy")
        await leading
        assert term.ended == "stepped down: deploy"
        await (await waiting).end({})


def test_a_job_is_not_begun_again_in_a_term_that_ends() -> None:
    """When a term ends for whatever reason, `run` begins its job again in the next term only, and nothing of it runs
    when the lock is given away."""

    async def main(cancel: bool) -> None:
        store = MemoryBackend()
        running = 0

        async def job(term: Term) -> None:
            nonlocal running
            running += 1
            try:
                await asyncio.sleep(1000)
            finally:
                running -= 1

        async def body(term: Term) -> None:
            try:
                await asyncio.sleep(5)
            finally:
                await asyncio.sleep(0.2)

        async with session(store, "a") as a:
            election = Election(a)
            working = asyncio.create_task(election.run(job))
            leading = asyncio.create_task(election.lead("x", body))
            await asyncio.sleep(2)
            assert running == 1
            if cancel:
                leading.cancel()
            await asyncio.gather(leading, return_exceptions=True)
            await asyncio.sleep(1)
            assert (holder(store, "x"), running) == (None, 0)
            election.stop()
            await working

    run(main(cancel=False))
    run(main(cancel=True))


async def test_what_a_cancelled_task_spawns_ends_with_the_term(store: MemoryBackend) -> None:
    """A task that is begun while the term is being ended has ended, too, before the lock is given away."""
    holders: list[str | None] = []

    async def late() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            holders.append(holder(store, "x"))

    async def body(term: Term) -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            with suppress(LockLost):
                term.spawn(late())
            await asyncio.sleep(0.1)

    async with session(store, "a") as a:
        leading = asyncio.create_task(Election(a).lead("x", body))
        await until_held(store, "x", "a")
        await asyncio.sleep(1)
        leading.cancel()
        await asyncio.gather(leading, return_exceptions=True)
        assert holder(store, "x") is None
        assert holders in ([], ["a"])
        assert not [task for task in asyncio.all_tasks() if "late" in repr(task)]


async def test_a_lock_whose_release_was_not_answered_can_be_taken_again(store: MemoryBackend) -> None:
    """A session whose release was lost and that asks for the lock again gets it, under a larger token."""
    driver = FaultyDriver(MemoryDriver(store))
    async with session(store, "a", driver=driver) as a:
        first = await a.lock("x").acquire()
        driver.always("release", LOST_REQUEST)
        await first.end({})
        again = asyncio.create_task(a.lock("x").acquire())
        await asyncio.sleep(0.5)
        driver.always("release", None)
        second = await asyncio.wait_for(again, TIMING.renew_every + 2)
        assert second.fencing_token > first.fencing_token
        await driver.deliver_again("release")
        await asyncio.sleep(1)
        await second.end({})
        assert holder(store, "x") is None


async def test_a_cancellation_is_not_lost_when_the_lock_is_lost_too(store: MemoryBackend) -> None:
    """A block that is cancelled from outside in the same step in which its lock is lost ends as cancelled."""
    async with session(store, "a") as a:

        async def use() -> None:
            async with a.lock("x").hold():
                await asyncio.sleep(1000)

        using = asyncio.create_task(use())
        await asyncio.sleep(0.1)
        hold = a.context.claims.holds["leader/x"]
        using.cancel()
        hold.lose(EndReason("the test says so", EndCode.LOST))
        with pytest.raises(asyncio.CancelledError):
            await using


async def test_who_waits_when_the_session_closes_is_told(store: MemoryBackend) -> None:
    """A wait for a lock of a session that is closed, or was never opened, raises instead of hanging."""
    with pytest.raises(ClusterLockError, match="not open"):
        await asyncio.wait_for(session(store, "c").lock("x").acquire(), 60)
    async with session(store, "a") as a, a.lock("x").hold():
        async with session(store, "b") as b:
            waiting = asyncio.create_task(b.lock("x").acquire())
            await asyncio.sleep(1)
        with pytest.raises(ClusterLockError, match="closed"):
            await asyncio.wait_for(waiting, 60)


async def test_a_lease_that_ends_during_a_renewal_is_noticed_at_once(store: MemoryBackend) -> None:
    """News of a lost key that comes while a renewal is under way makes the next one come at once, not a third of a ttl
    later."""
    driver = FaultyDriver(MemoryDriver(store))
    async with session(store, "a", driver=driver) as a:
        hold = await a.lock("x").acquire()
        old = await a.lease()
        driver.next("renew", slow_reply(2))
        await asyncio.sleep(TIMING.renew_every + 0.5)
        store.end_lease(old.id)
        began = clock.now()
        await expires(hold)
        await hold.end({})
        while old == await a.lease():
            await a.context.watch.changed(a.context.watch.news, at_most=0.1)
        assert clock.now() - began < 2


async def test_a_hung_renewal_delays_no_loss(store: MemoryBackend) -> None:
    """When another request says that the lease is gone, its locks are lost at once, even if a renewal hangs."""
    driver = FaultyDriver(MemoryDriver(store))
    async with session(store, "a", driver=driver) as a:
        hold = await a.lock("x").acquire()
        driver.always("wait_changed", slow_request(10))
        driver.next("renew", slow_request(10))
        await asyncio.sleep(TIMING.renew_every + 0.5)
        store.end_lease(hold.grant.lease.id)
        began = clock.now()
        taking = asyncio.create_task(a.lock("y").acquire())
        await expires(hold)
        assert clock.now() - began < 0.1
        await hold.end({})
        await (await taking).end({})


async def test_a_store_that_was_set_back_under_a_living_lease_ends_the_term() -> None:
    """A leader whose key is gone from a store whose index went back, while its lease is still there, stops at the next
    renewal, and says what happened."""

    class Restored(MemoryDriver):
        """Its watch hears nothing more, as one that waits for a revision of the time before the restore."""

        async def wait_changed(self, names, since, at_most):  # type: ignore[no-untyped-def]
            if since is not None and at_most:
                await asyncio.sleep(at_most)
                return await super().wait_changed((), since, 0)
            return await super().wait_changed(names, since, at_most)

    store = MemoryBackend()
    async with session(store, "a", driver=Restored(store)) as a:
        for _ in range(10):
            async with a.lock("y").hold():
                pass
        hold = await a.lock("x").acquire()
        store.stranger_deletes(key_of("x"))
        store.index = 5
        await asyncio.wait_for(hold.wait_lost(), TIMING.renew_every + 1)
        await hold.end({})


async def test_an_answer_from_before_somebody_overwrote_the_value_is_no_sign_of_a_restore(store: MemoryBackend) -> None:
    """A leader whose value is overwritten under its own lease leads on, also when a read from before that is answered
    after it was heard of."""
    driver = FaultyDriver(MemoryDriver(store))
    async with session(store, "a", driver=driver) as a, a.lock("x").hold() as hold:
        driver.next("read", slow_reply(2))
        await asyncio.sleep(TIMING.renew_every + 1)
        await MemoryDriver(store).announce(hold.grant.lease, hold.key, b"another value")
        await asyncio.sleep(0.1)
        assert hold.grant.index > hold.grant.token
        await asyncio.sleep(2 * TIMING.ttl)
        assert hold.is_valid()


async def test_a_copy_of_an_acquire_that_comes_while_a_lost_term_ends_is_released(store: MemoryBackend) -> None:
    """What comes to stand under our lease while the work of a lost term still ends is nobody's, and is released."""
    driver = FaultyDriver(MemoryDriver(store))
    async with session(store, "a", driver=driver) as a:
        hold = await a.lock("x").acquire()
        store.stranger_deletes(key_of("x"))
        await expires(hold)
        await driver.deliver_again("acquire")
        await asyncio.sleep(0.1)
        await hold.end({})
        await asyncio.sleep(1)
        assert holder(store, "x") is None


def test_a_copy_of_an_acquire_does_not_revive_the_term_before() -> None:
    """A key that was deleted and made again by a copy of our own old request is another grant: the term has ended."""

    async def main() -> None:
        store = MemoryBackend()
        driver = FaultyDriver(MemoryDriver(store))
        async with session(store, "a", driver=driver) as a:
            hold = await a.lock("x").acquire()
            store.stranger_deletes(key_of("x"))
            assert await store_acquires_again(driver, store)
            await expires(hold)
            await hold.end({})
            await asyncio.sleep(1)
            assert holder(store, "x") is None

    async def store_acquires_again(driver: FaultyDriver, store: MemoryBackend) -> bool:
        lease = store.entry(key_of("x"), "x").lease
        assert lease is None
        await driver.deliver_again("acquire")
        return holder(store, "x") == "a"

    run(main())
