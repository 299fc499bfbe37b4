"""The contender record of a process: one key per process, followed and written again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from support.aio import until
from support.sessions import PREFIX, TIMING, holder, session, standby, until_steps_down

from cluster_lock.admin.overview import look
from cluster_lock.drivers.memory import MemoryBackend, MemoryDriver
from cluster_lock.election import Election
from cluster_lock.errors import BackendUnavailable, LeaseExpired, PermissionRefused
from cluster_lock.testing.faulty import FaultyDriver, refuse
from cluster_lock.testing.virtual_time import run
from cluster_lock.values import STANDBY, Record

pytestmark = pytest.mark.virtual


def test_two_of_one_name_are_both_seen(caplog: pytest.LogCaptureFixture) -> None:
    """Two processes of one instance's name are two contenders: `status` shows both, one that goes leaves the other's
    record alone, a step-down to that name goes to the one that is left, and the double name is a warning."""

    async def main() -> None:
        store = MemoryBackend()
        async with session(store, "a") as a, session(store, "web") as first:
            leader = Election(a)
            leading = asyncio.ensure_future(leader.lead("x", until_steps_down))
            await until(lambda: leader.term("x") is not None)
            staying = Election(first)
            waiting = asyncio.ensure_future(staying.lead("x", until_steps_down))
            await until(lambda: standby(store, "web").lease is not None)
            async with session(store, "web") as second:
                going = asyncio.ensure_future(second.lock("x").acquire())
                await until(lambda: len(store.keys_under(PREFIX + STANDBY)) == 2)
                seen = await look(MemoryDriver(store), request=1.0)
                assert seen.locks[0].standbys == ("web", "web")
                await asyncio.sleep(3 * TIMING.ttl + TIMING.drain)
                going.cancel()
                await asyncio.wait([going])
            seen = await look(MemoryDriver(store), request=1.0)
            assert seen.locks[0].standbys == ("web",)
            term = leader.term("x")
            assert term is not None
            term.step_down("test", to="web")
            await until(lambda: staying.term("x") is not None)
            for election, task in ((leader, leading), (staying, waiting)):
                election.stop()
                await task

    run(main())
    assert sum("another process has our name, web" in each.message for each in caplog.records) == 1


def test_a_leader_of_our_name_is_seen(caplog: pytest.LogCaptureFixture) -> None:
    """Who stands by for a lock whose leader has the same instance's name warns of it, once."""

    async def main() -> None:
        store = MemoryBackend()
        async with session(store, "web") as leader, session(store, "web") as second, leader.lock("x").hold():
            waiting = asyncio.ensure_future(second.lock("x").acquire())
            await asyncio.sleep(5 * TIMING.ttl + TIMING.drain)
            waiting.cancel()
            await asyncio.wait([waiting])

    run(main())
    assert sum("another process has our name, web" in each.message for each in caplog.records) == 1


def test_the_record_of_a_process_that_died_is_no_second_process(caplog: pytest.LogCaptureFixture) -> None:
    """One that is started again while the lease of its dead predecessor lasts warns of nothing."""

    async def main() -> None:
        store = MemoryBackend()
        async with session(store, "a") as a, a.lock("x").hold():
            async with session(store, "web") as dead:
                waiting = asyncio.ensure_future(dead.lock("x").acquire())
                await until(lambda: standby(store, "web").lease is not None)
                saved = standby(store, "web")
                waiting.cancel()
                await asyncio.wait([waiting])
            corpse = MemoryDriver(store)
            lease = await corpse.grant_lease("dead", TIMING.ttl)
            await corpse.announce(lease, saved.name, saved.record or b"")
            async with session(store, "web") as again:
                waiting = asyncio.ensure_future(again.lock("x").acquire())
                await asyncio.sleep(5 * TIMING.ttl + TIMING.drain)
                waiting.cancel()
                await asyncio.wait([waiting])

    run(main())
    assert "another process has our name" not in caplog.text


@pytest.mark.parametrize(
    "deed",
    [
        lambda store, key: store.stranger_deletes(key),
        lambda store, key: store.stranger_writes(key, b"junk"),
        lambda store, key: store.stranger_writes(key, b"\xff"),
        lambda store, key: store.stranger_writes(key, store.entry(key, "").record),
    ],
    ids=["deleted", "overwritten", "overwritten with no text", "overwritten with the same"],
)
async def test_a_record_that_somebody_took_away_is_written_again(
    deed: Callable[[MemoryBackend, str], None], store: MemoryBackend
) -> None:
    """A contender whose record was deleted or overwritten is one again at once, and the lock is handed to it."""
    async with session(store, "a") as a, session(store, "b") as b:
        leader, heir = Election(a), Election(b)
        leading = asyncio.ensure_future(leader.lead("x", until_steps_down))
        await until(lambda: leader.term("x") is not None)
        waiting = asyncio.ensure_future(heir.lead("x", until_steps_down))
        await until(lambda: standby(store, "b").lease is not None)
        await asyncio.sleep(1)
        key = PREFIX + standby(store, "b").name
        deed(store, key)
        assert store.entry(key, "").lease is None
        await asyncio.sleep(0.1)
        assert standby(store, "b").lease is not None
        leader.stop()
        await leading
        assert holder(store, "x") == "b"
        heir.stop()
        await waiting
        assert store.keys_under(PREFIX + STANDBY) == []


async def test_what_a_standby_hears_of_stands_in_its_record(store: MemoryBackend) -> None:
    """A standby's record names, one renewal later, the largest token that it has heard of: after a restore those ask
    it who have just begun. A renewal that brings no news writes nothing."""
    async with session(store, "a") as a, session(store, "b") as b, session(store, "c") as c:
        leading = await a.lock("x").acquire()
        waiting = [asyncio.ensure_future(each.lock("x").acquire()) for each in (b, c)]
        await until(lambda: standby(store, "b").lease is not None and standby(store, "c").lease is not None)
        await leading.end({})
        (first,), (second,) = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        hold, left = first.result(), "c" if first is waiting[0] else "b"
        await asyncio.sleep(TIMING.renew_every + 1)
        record = Record.from_bytes(standby(store, left).record or b"")
        assert record is not None
        assert record.known("x") == hold.fencing_token > leading.fencing_token
        index = standby(store, left).index
        await asyncio.sleep(3 * TIMING.ttl)
        assert standby(store, left).index == index
        await hold.end({})
        await (await second).end({})


async def test_the_successor_of_ones_own_name_comes_first(store: MemoryBackend) -> None:
    """A leader that steps down hands over to the contender of its own instance's name, though another one is older."""
    async with session(store, "web") as old, session(store, "other") as other, session(store, "web") as new:
        elections = [Election(old), Election(other), Election(new)]
        tasks = []
        for election in elections:
            tasks.append(asyncio.ensure_future(election.lead("x", until_steps_down)))
            await asyncio.sleep(1)
        elections[0].stop()
        await tasks[0]
        await until(lambda: any(election.term("x") is not None for election in elections))
        assert elections[2].term("x") is not None
        for election, task in zip(elections[1:], tasks[1:], strict=True):
            election.stop()
            await task


async def test_every_other_process_of_ones_name_is_warned_of(
    store: MemoryBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever keys others of our instance's name have, each is a warning, once; one of another name is none."""
    others = MemoryDriver(store)
    lease = await others.grant_lease("others", 10_000)
    for pid, (key, instance) in enumerate([("!", "web"), ("~", "web"), ("a", "app")], 1):
        record = Record(holder="c", instance=instance, host="h", pid=pid, since="", version="0", names=("x",))
        await others.announce(lease, STANDBY + key, record.to_bytes())
    async with session(store, "a") as a, session(store, "web") as web, a.lock("x").hold():
        waiting = asyncio.ensure_future(web.lock("x").acquire())
        await asyncio.sleep(2 * TIMING.ttl + TIMING.drain - 1)
        assert "another process has our name" not in caplog.text, "the record of one that died looks the same"
        await asyncio.sleep(3 * TIMING.ttl)
        waiting.cancel()
        await asyncio.wait([waiting])
    told = [each.getMessage() for each in caplog.records if "another process has our name" in each.getMessage()]
    assert sorted(text.split("pid ")[1][0] for text in told) == ["1", "2"]


async def test_a_record_that_stands_is_not_looked_at_again(store: MemoryBackend) -> None:
    """A standby whose record was written and heard of asks for nothing more with its renewals, and one that never stood
    by takes no record away."""
    driver = FaultyDriver(MemoryDriver(store))
    async with session(store, "a") as a, session(store, "b", driver=driver) as b, a.lock("x").hold():
        await b.lease()
        await asyncio.sleep(2 * TIMING.renew_every)
        assert driver.calls["withdraw"] == driver.calls["announce"] == 0
        waiting = asyncio.ensure_future(b.lock("x").acquire())
        await asyncio.sleep(TIMING.renew_every + 1)  # with the first renewal it says what it has heard
        before = driver.calls["announce"], driver.calls["read"]
        await asyncio.sleep(TIMING.renew_every)
        assert (driver.calls["announce"], driver.calls["read"]) == before
        waiting.cancel()
        await asyncio.wait([waiting])
        assert driver.calls["withdraw"] == 1


async def test_a_record_that_is_refused_is_told_once(store: MemoryBackend, caplog: pytest.LogCaptureFixture) -> None:
    """A backend that refuses the record of a standby is told of once for each reason, and the standby waits on."""
    driver = FaultyDriver(MemoryDriver(store))
    async with session(store, "a") as a, session(store, "b", driver=driver) as b:
        hold = await a.lock("x").acquire()
        driver.always("announce", refuse(PermissionRefused("denied")))
        waiting = asyncio.ensure_future(b.lock("x").acquire())
        await asyncio.sleep(2 * TIMING.ttl)
        driver.always("announce", refuse(PermissionRefused("denied by a rule")))
        await asyncio.sleep(2 * TIMING.ttl)
        assert sum("no contender record" in record.getMessage() for record in caplog.records) == 2
        for error in (BackendUnavailable("no answer"), LeaseExpired("gone")):
            driver.always("announce", refuse(error))
            await asyncio.sleep(TIMING.renew_every)
            assert b.failure is None
        driver.always("announce", None)
        await asyncio.sleep(TIMING.renew_every)
        assert standby(store, "b").lease is not None
        await hold.end({})
        await (await waiting).end({})
