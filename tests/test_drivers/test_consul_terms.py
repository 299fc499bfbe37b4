"""Between two terms of a lock on Consul: no late, doubled or lost request gets through to the wrong one."""

from __future__ import annotations

import asyncio
import json

import pytest
from support.aio import until
from support.consul_lab import (
    HEIR,
    LOCK,
    TXN,
    Recorder,
    Twice,
    client,
    destroy,
    prefix_of,
    raw_key,
    record,
    session_of,
    taken,
)

from cluster_lock.drivers.consul import ConsulDriver
from cluster_lock.errors import BackendUnavailable, ForeignValue
from cluster_lock.testing.servers import ConsulServer
from cluster_lock.values import Entry, Grant

pytestmark = pytest.mark.consul


async def entry_of(driver: ConsulDriver, name: str = LOCK) -> Entry:
    return (await driver.read([name])).entries[name]


# -- requests that come late (docs/design.md#late-copies) --------------------------------------------------------------


async def test_late_copy_of_a_release(consul_server: ConsulServer) -> None:
    """A copy of a release that arrives in the next term of the SAME session leaves the lock with it."""
    async with Recorder(consul_server) as proxy, client(proxy.url) as driver:
        lease = await driver.grant_lease("a", 30)
        first = await taken(driver, lease)
        captured = proxy.capture(TXN)
        await driver.release(first, record("a", released=True))
        second = await taken(driver, lease)
        assert b"409" in (await captured.replay()).split(b"\r\n")[0]
        entry = await entry_of(driver)
        assert (entry.lease, entry.index, entry.record) == (lease.id, second.index, second.record)


async def test_late_copy_of_a_transfer(consul_server: ConsulServer) -> None:
    """A copy of a transfer that arrives when the old leader leads again gives nothing away."""
    async with Recorder(consul_server) as proxy, client(proxy.url) as driver:
        lease, theirs = await driver.grant_lease("a", 30), await driver.grant_lease("heir", 30)
        await driver.announce(theirs, HEIR, record("heir"))
        first = await taken(driver, lease)
        captured = proxy.capture(TXN)
        assert await driver.transfer(first, await entry_of(driver, HEIR), record("heir"))
        entry = await entry_of(driver)
        await driver.release(Grant(LOCK, theirs, entry.index, entry.index, b""), record("heir", released=True))
        second = await taken(driver, lease)
        assert b"409" in (await captured.replay()).split(b"\r\n")[0]
        assert (await entry_of(driver)).index == second.index


async def test_late_copy_of_an_acquire(consul_server: ConsulServer) -> None:
    """A copy of an acquire that arrives after that term was over takes a free lock for nobody."""
    async with Recorder(consul_server) as proxy, client(proxy.url) as driver:
        lease = await driver.grant_lease("a", 30)
        await driver.release(await taken(driver, lease), record("a", released=True))
        captured = proxy.capture(TXN)
        await driver.release(await taken(driver, lease), record("a", released=True))
        assert b"409" in (await captured.replay()).split(b"\r\n")[0]
        assert (await entry_of(driver)).lease is None


async def test_late_copy_of_a_revoke(consul_server: ConsulServer) -> None:
    """Copies of what a revoke sent touch nothing of the session that leads after it."""
    async with Recorder(consul_server) as proxy, client(proxy.url) as driver:
        old, new = await driver.grant_lease("old", 30), await driver.grant_lease("new", 30)
        await taken(driver, old)
        captured = [proxy.capture(TXN), proxy.capture(b"PUT /v1/session/destroy")]
        await driver.revoke(old)
        grant = await taken(driver, new)
        for each in captured:
            await each.replay()
        entry = await entry_of(driver)
        assert (entry.lease, entry.index) == (new.id, grant.index)


async def test_every_put_twice(consul_server: ConsulServer) -> None:
    """A whole life of locks and records goes well while the network delivers each PUT twice."""
    async with Twice(consul_server) as proxy, client(proxy.url) as driver:
        tokens = [0]
        for number in range(10):
            lease, theirs = await driver.grant_lease("a", 30), await driver.grant_lease("heir", 30)
            await driver.announce(theirs, HEIR, record("heir"))
            grant = await taken(driver, lease)
            tokens.append(grant.token)
            assert (await driver.renew(lease), grant.index) == (0, grant.token)
            assert await driver.transfer(grant, await entry_of(driver, HEIR), record(f"heir-{number}"))
            inherited = await driver.acquire(theirs, LOCK, record("heir"))
            assert inherited is not None
            assert inherited.record == record(f"heir-{number}")
            tokens.append(inherited.token)
            await driver.release(inherited, record("heir", released=True))
            again = await taken(driver, lease)
            assert again.previous == record("heir", released=True)
            tokens.append(again.token)
            await driver.withdraw(theirs, HEIR)
            await driver.revoke(lease)
            await driver.revoke(theirs)
            assert (await entry_of(driver)).lease is None
        assert tokens == sorted(set(tokens))
        await until(lambda: proxy.delivered_twice == len(proxy.lines("PUT")))


async def test_acquire_whose_answer_was_lost(consul_server: ConsulServer) -> None:
    """The repeated acquire finds what the first one made: the lock, and what the last holder left."""
    async with Recorder(consul_server) as proxy, client(proxy.url) as driver:
        lease, farewell = await driver.grant_lease("a", 30), record("a", released=True)
        await driver.release(await taken(driver, lease), farewell)
        lost = proxy.drop_reply(TXN)
        with pytest.raises(BackendUnavailable):
            await driver.acquire(lease, LOCK, record("again"))
        assert lost.answered.is_set()
        grant = await driver.acquire(lease, LOCK, record("again"))
        assert grant is not None
        assert (grant.previous, grant.record, grant.token) == (farewell, record("again"), grant.index)


async def test_acquires_of_one_session_at_once(consul_server: ConsulServer) -> None:
    """Acquires of one lock by one session at the same time all get the one grant that was made, as it stands."""
    async with client(consul_server.url) as driver:
        lease = await driver.grant_lease("a", 30)
        for number in range(20):
            name = f"{LOCK}/{number}"
            grants = await asyncio.gather(*(driver.acquire(lease, name, record(str(each))) for each in range(5)))
            entry = await entry_of(driver, name)
            for grant in grants:
                assert grant is not None
                assert (grant.token, grant.index, grant.record) == (entry.index, entry.index, entry.record)


async def test_transfer_whose_answer_was_lost_is_sent_to_the_next_agent(consul_server: ConsulServer) -> None:
    """A transfer that was applied before it was sent again is a transfer that was done, not one that was refused."""
    async with Recorder(consul_server) as proxy, client(proxy.url, consul_server.url) as driver:
        lease, theirs = await driver.grant_lease("a", 30), await driver.grant_lease("heir", 30)
        await driver.announce(theirs, HEIR, record("heir"))
        grant, heir = await taken(driver, lease), await entry_of(driver, HEIR)
        lost = proxy.drop_reply(TXN)
        assert await driver.transfer(grant, heir, record("heir"))
        assert lost.answered.is_set()
        assert (await entry_of(driver)).lease == theirs.id


# -- what was seen last ------------------------------------------------------------------------------------------------


async def test_lock_that_was_seen_free_is_taken_by_one_request(consul_server: ConsulServer) -> None:
    """Who was told that a lock is free takes it with one transaction, and learns what the last holder left."""
    async with (
        Recorder(consul_server) as proxy,
        client(proxy.url) as driver,
        client(consul_server.url, prefix=prefix_of(driver)) as holder,
    ):
        lease, mine = await holder.grant_lease("a", 30), await driver.grant_lease("b", 30)
        grant = await taken(holder, lease)
        position = (await driver.read([LOCK])).position
        await holder.release(grant, record("a", released=True))
        changes = await driver.wait_changed([LOCK], position, 10)
        assert changes.entries[LOCK].lease is None
        before = len(proxy.requests)
        assert (await taken(driver, mine)).previous == record("a", released=True)
        assert len(proxy.requests) == before + 1


@pytest.mark.parametrize("now", ["held", "released again", "deleted", "foreign"])
async def test_what_was_seen_last_is_not_believed(consul_server: ConsulServer, now: str) -> None:
    """A lock that was seen free and has changed since is refused, or taken, by what is so now."""
    async with client(consul_server.url) as driver, client(consul_server.url, prefix=prefix_of(driver)) as other:
        lease, theirs = await driver.grant_lease("a", 30), await other.grant_lease("b", 30)
        await driver.release(await taken(driver, lease), record("a", released=True))
        assert (await entry_of(driver)).lease is None
        between = await taken(other, theirs)
        if now == "held":
            assert await driver.acquire(lease, LOCK, record("a")) is None
            assert (await entry_of(driver)).index == between.index
            return
        await other.release(between, record("b", released=True))
        if now == "deleted":
            consul_server.request("DELETE", raw_key(driver, LOCK))
        if now == "foreign":
            consul_server.request("PUT", raw_key(driver, LOCK), "not ours")
            with pytest.raises(ForeignValue, match=LOCK):
                await driver.acquire(lease, LOCK, record("a"))
            return
        grant = await taken(driver, lease)
        assert grant.previous == (record("b", released=True) if now == "released again" else None)
        assert grant.token > between.token


async def test_foreign_value_that_a_person_deleted(consul_server: ConsulServer) -> None:
    """Once a person has removed what did not belong there, the lock is taken, whatever was seen before."""
    async with client(consul_server.url) as driver:
        lease = await driver.grant_lease("a", 30)
        consul_server.request("PUT", raw_key(driver, LOCK), "not ours")
        assert (await entry_of(driver)).record == b"not ours"
        consul_server.request("DELETE", raw_key(driver, LOCK))
        assert (await taken(driver, lease)).previous is None


# -- heirs that do not wait any more (docs/design.md#heir-that-left) ---------------------------------------------------


@pytest.mark.parametrize("how", ["session destroyed", "key deleted", "key taken over"])
async def test_transfer_to_an_heir_that_is_gone(consul_server: ConsulServer, how: str) -> None:
    """Nothing is given to an heir whose session ended, or under whose key its session does not stand any more."""
    async with client(consul_server.url) as driver:
        lease, theirs = await driver.grant_lease("a", 30), await driver.grant_lease("heir", 30)
        await driver.announce(theirs, HEIR, record("heir"))
        grant, heir = await taken(driver, lease), await entry_of(driver, HEIR)
        if how == "session destroyed":
            destroy(consul_server, theirs)
        elif how == "key deleted":
            consul_server.request("DELETE", raw_key(driver, HEIR))
        else:
            await driver.announce(await driver.grant_lease("restarted", 30), HEIR, record("restarted"))
        assert await driver.transfer(grant, heir, record("heir")) is False
        entry = await entry_of(driver)
        assert (entry.lease, entry.index, entry.record) == (lease.id, grant.index, grant.record)


# -- lock-delay --------------------------------------------------------------------------------------------------------


async def test_revoke_starts_no_lock_delay(consul_server: ConsulServer) -> None:
    """A session that is revoked under the longest lock-delay leaves its locks free for the next one at once, with the
    record of a holder that did not say goodbye, and its contender record deleted."""
    async with client(consul_server.url, lock_delay=60) as driver:
        lease, heir = await driver.grant_lease("a", 30), await driver.grant_lease("b", 30)
        names = [f"{LOCK}{number}" for number in range(40)]
        for name in names:
            await taken(driver, lease, name)
        await driver.announce(lease, HEIR, record("a"))
        await driver.revoke(lease)
        assert session_of(consul_server, lease) is None
        assert consul_server.value(prefix_of(driver) + HEIR) is None
        for name in names:
            assert (await taken(driver, heir, name)).previous == record("a")


async def test_transfer_starts_no_lock_delay(consul_server: ConsulServer) -> None:
    """After a transfer the old leader's session may be destroyed by anybody: no delay holds up the heir's heir."""
    async with client(consul_server.url, lock_delay=60) as driver:
        lease, theirs = await driver.grant_lease("a", 30), await driver.grant_lease("heir", 30)
        await driver.announce(theirs, HEIR, record("heir"))
        assert await driver.transfer(await taken(driver, lease), await entry_of(driver, HEIR), record("heir"))
        destroy(consul_server, lease)
        entry = await entry_of(driver)
        await driver.release(Grant(LOCK, theirs, entry.index, entry.index, b""), record("heir", released=True))
        await taken(driver, await driver.grant_lease("c", 30))


async def test_announce_starts_no_lock_delay(consul_server: ConsulServer) -> None:
    """A record that replaced another session's is replaced again at once, also after that session was destroyed."""
    async with client(consul_server.url, lock_delay=60) as driver:
        one, other = await driver.grant_lease("a", 30), await driver.grant_lease("b", 30)
        await driver.announce(one, HEIR, record("a"))
        await driver.announce(other, HEIR, record("b"))
        destroy(consul_server, one)
        await driver.announce(await driver.grant_lease("c", 30), HEIR, record("c"))
        assert (await entry_of(driver, HEIR)).record == record("c")


async def test_lock_delay_is_waited_out(consul_server: ConsulServer) -> None:
    """After a session was destroyed under its lock nobody gets it before the lock-delay is over, and then somebody
    who asks again does; a record under such a key may be written later too, and the refusal says why."""
    async with client(consul_server.url, lock_delay=1) as driver:
        lease, waiter = await driver.grant_lease("a", 30), await driver.grant_lease("b", 30)
        await taken(driver, lease)
        await driver.announce(lease, HEIR, record("a"))
        destroy(consul_server, lease)
        assert await driver.acquire(waiter, LOCK, record("b")) is None
        with pytest.raises(BackendUnavailable, match="lock-delay"):
            await driver.announce(waiter, HEIR, record("b"))
        grants: list[Grant] = []

        async def granted() -> bool:
            grant = await driver.acquire(waiter, LOCK, record("b"))
            grants.extend([grant] if grant else [])
            return bool(grants)

        await until(granted)
        assert grants[0].previous == record("a")
        await driver.announce(waiter, HEIR, record("b"))


# -- a stranger's hand -------------------------------------------------------------------------------------------------


async def test_value_overwritten_under_our_session(consul_server: ConsulServer) -> None:
    """A `kv put` by anybody leaves the lock with us: the token stays, and the index as it is now guards the release."""
    async with client(consul_server.url) as driver:
        lease = await driver.grant_lease("a", 30)
        grant = await taken(driver, lease)
        consul_server.request("PUT", raw_key(driver, LOCK), "graffiti")
        entry = await entry_of(driver)
        assert (entry.lease, entry.record) == (lease.id, b"graffiti")
        assert entry.index > grant.index
        again = await taken(driver, lease)
        assert (again.token, again.index, again.record) == (grant.token, entry.index, b"graffiti")
        await driver.release(grant, record("a", released=True))
        assert (await entry_of(driver)).lease == lease.id, "the index of the grant is not the one that stands there"
        await driver.release(again, record("a", released=True))
        assert (await entry_of(driver)).lease is None


async def test_lock_that_went_away_and_came_back_is_a_new_grant(consul_server: ConsulServer) -> None:
    """A lock that others took and gave back to us while we did not look has a new token, not the remembered one."""
    async with client(consul_server.url) as driver, client(consul_server.url, prefix=prefix_of(driver)) as other:
        lease, theirs = await driver.grant_lease("a", 30), await other.grant_lease("b", 30)
        await driver.announce(lease, HEIR, record("a"))
        first = await taken(driver, lease)
        consul_server.request("DELETE", raw_key(driver, LOCK))
        between = await taken(other, theirs)
        assert await other.transfer(between, await entry_of(other, HEIR), record("a"))
        back = await taken(driver, lease)
        assert back.token > between.token > first.token


async def test_tokens_grow_over_deletions_and_restarts(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Each grant's token is larger than all before it, over deleted keys and a killed and restarted server."""
    tokens = [0]
    with ConsulServer(data_dir=tmp_path_factory.mktemp("consul")) as server:
        async with client(server.url) as driver:
            lease = await driver.grant_lease("a", 60)
            tokens.append((await taken(driver, lease)).token)
            server.request("DELETE", raw_key(driver, LOCK))
            tokens.append((await taken(driver, lease)).token)
            server.request("DELETE", f"/v1/kv/{prefix_of(driver)}?recurse")
            await asyncio.to_thread(server.restart, kill=True)
            tokens.append((await taken(driver, lease)).token)
            server.request("DELETE", f"/v1/kv/{prefix_of(driver)}?recurse")
            tokens.append((await taken(driver, lease)).token)
    assert tokens == sorted(set(tokens)), tokens


async def test_locks_are_readable_with_consuls_own_tool(consul_server: ConsulServer) -> None:
    """Under the key of an ordinary name, unquoted, stands the record as JSON that a person can read."""
    async with client(consul_server.url) as driver:
        await taken(driver, await driver.grant_lease("a", 30))
        value = consul_server.value(prefix_of(driver) + LOCK)
        assert json.loads(value or b"")["holder"] == "a"
