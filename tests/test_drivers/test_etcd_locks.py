"""What the etcd driver writes, and what late, lost and foreign requests do to it."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable
from typing import Any

import pytest
from support.aio import until
from support.etcd import LOCK, announced, entry, new_prefix, opened, taken, works
from support.proxy import Proxy

from cluster_lock import clock
from cluster_lock.drivers.etcd.library import load
from cluster_lock.errors import BackendRefused, BackendUnavailable, ForeignValue, LeaseExpired
from cluster_lock.testing.servers import EtcdCluster, EtcdServer
from cluster_lock.values import Entry, Lease

pytestmark = pytest.mark.etcd


async def test_keys_are_readable_with_etcdctl(etcd_server: EtcdServer) -> None:
    """A person finds the leader's record at PREFIX/leader/NAME, its lease as etcdctl prints it, and the last word."""
    prefix = new_prefix()
    async with opened(etcd_server.endpoints, prefix=prefix) as driver:
        lease = await driver.grant_lease("web-1", 30)
        grant = await taken(driver, lease, b'{"holder": "web-1"}')
        assert etcd_server.ctl("get", prefix + LOCK, "--print-value-only").strip() == '{"holder": "web-1"}'
        found = json.loads(etcd_server.ctl("get", prefix + LOCK, "-w", "json"))["kvs"][0]
        assert (f"{found['lease']:016x}", found["mod_revision"]) == (lease.id, grant.token)
        assert lease.id in etcd_server.ctl("lease", "list").split()
        await driver.release(grant, b'{"released": true}')
        keys = etcd_server.ctl("get", "--prefix", prefix).split("\n")
        assert keys[:2] == [prefix + "last/telegram/42", '{"released": true}']


async def test_ttl_below_the_floor_is_told(etcd_release: str) -> None:
    """etcd silently raises a ttl below its floor, and the lease says what was granted."""
    with EtcdServer(release=etcd_release, fast=False) as server:
        async with opened(server.endpoints) as driver:
            assert (await driver.grant_lease("a", 1)).ttl == 2  # 1.5 x election timeout, rounded up
            assert (await driver.grant_lease("a", 4.2)).ttl == 5


async def test_overwritten_without_a_lease_is_foreign(etcd_server: EtcdServer) -> None:
    """A lock overwritten by hand belongs to nobody, is named with what to do, and a release leaves it alone."""
    prefix = new_prefix()
    async with opened(etcd_server.endpoints, prefix=prefix) as driver:
        lease = await driver.grant_lease("a", 30)
        grant = await taken(driver, lease)
        etcd_server.ctl("put", prefix + LOCK, "mine now")
        with pytest.raises(ForeignValue, match=f"etcdctl del '{prefix}{LOCK}'"):
            await driver.acquire(lease, LOCK, b"record")
        await driver.release(grant, b"farewell")
        stands = await entry(driver)
        assert (stands.lease, stands.record) == (None, b"mine now")


async def test_value_overwritten_under_our_lease_moves_the_index(etcd_server: EtcdServer) -> None:
    """A stranger who keeps our lease on the key (put --ignore-lease) makes a new index, and acquire again tells it."""
    prefix = new_prefix()
    async with opened(etcd_server.endpoints, prefix=prefix) as driver:
        lease = await driver.grant_lease("a", 30)
        grant = await taken(driver, lease)
        etcd_server.ctl("put", "--ignore-lease", prefix + LOCK, "scribble")
        again = await taken(driver, lease)
        assert again.index > grant.index
        assert again.record == b"scribble"
        await driver.release(grant, b"too old")
        assert (await entry(driver)).lease == lease.id
        await driver.release(again, b"farewell")
        assert (await entry(driver)).lease is None


async def test_dead_lease_writes_nothing(etcd_server: EtcdServer) -> None:
    """Under a lease that an operator revoked every write is refused as a whole, the last word included."""
    async with opened(etcd_server.endpoints) as driver:
        lease = await driver.grant_lease("a", 30)
        etcd_server.ctl("lease", "revoke", lease.id)
        with pytest.raises(LeaseExpired):
            await driver.acquire(lease, LOCK, b"dead")
        with pytest.raises(LeaseExpired):
            await driver.announce(lease, "standby/a", b"dead")
        with pytest.raises(LeaseExpired):
            await driver.renew(lease)
        await driver.revoke(lease)
        assert (await taken(driver, await driver.grant_lease("b", 30))).previous is None


async def test_transfer_needs_a_lease(etcd_server: EtcdServer) -> None:
    """A key that nobody holds is no heir: a lock put without a lease would never end."""
    async with opened(etcd_server.endpoints) as driver:
        grant = await taken(driver, await driver.grant_lease("a", 30))
        assert await driver.transfer(grant, Entry("standby/nobody", None, 1, None), b"heir") is False
        assert (await entry(driver)).index == grant.index


@pytest.mark.parametrize("by", ["release", "transfer"])
async def test_late_copy_finds_the_next_term_unharmed(etcd_server: EtcdServer, by: str) -> None:
    """A release or transfer that hangs on the way and arrives in the next term of the SAME lease changes nothing."""
    prefix = new_prefix()
    async with (
        Proxy(etcd_server.host, etcd_server.client_port) as proxy,
        opened([f"http://127.0.0.1:{proxy.port}"], prefix=prefix, request_timeout=20) as slow,
        opened(etcd_server.endpoints, prefix=prefix) as driver,
    ):
        lease, heir = await driver.grant_lease("a", 30), await driver.grant_lease("heir", 30)
        contender = await announced(driver, heir)
        first = await taken(driver, lease)
        await slow.read([LOCK])  # so that the connection stands
        held = proxy.hold(LOCK.encode())
        verb: Awaitable[Any] = (
            slow.release(first, b"late") if by == "release" else slow.transfer(first, contender, b"late")
        )
        late = asyncio.ensure_future(verb)
        await held.caught.wait()
        await driver.release(first, b"farewell")
        second = await taken(driver, lease)
        await held.deliver()
        assert not await late
        stands = await entry(driver)
        assert (stands.lease, stands.index, stands.record) == (lease.id, second.index, b"record")
        assert second.previous == b"farewell"
        await driver.release(second, b"farewell again")
        assert (await taken(driver, heir)).previous == b"farewell again"


async def test_lost_reply_of_acquire(etcd_server: EtcdServer) -> None:
    """An acquire whose reply was lost is repeated at the next endpoint and gives the grant that was made, all of it."""
    prefix = new_prefix()
    async with (
        Proxy(etcd_server.host, etcd_server.client_port) as proxy,
        opened([f"http://127.0.0.1:{proxy.port}", etcd_server.endpoint], prefix=prefix) as driver,
    ):
        lease = await driver.grant_lease("a", 30)
        await driver.release(await taken(driver, lease), b"farewell")
        lost = proxy.drop_reply(LOCK.encode())
        grant = await taken(driver, lease, b"second")
        assert lost.answered.is_set()
        stands = await entry(driver)
        assert (stands.lease, stands.index, stands.record) == (lease.id, grant.token, b"second")
        assert grant.previous == b"farewell"


async def test_lost_reply_of_transfer(etcd_server: EtcdServer) -> None:
    """A transfer whose reply was lost is repeated at the next endpoint and still says True: the heir holds it."""
    prefix = new_prefix()
    async with (
        Proxy(etcd_server.host, etcd_server.client_port) as proxy,
        opened([f"http://127.0.0.1:{proxy.port}", etcd_server.endpoint], prefix=prefix) as driver,
    ):
        lease, heir = await driver.grant_lease("a", 30), await driver.grant_lease("heir", 30)
        contender, grant = await announced(driver, heir), await taken(driver, lease)
        lost = proxy.drop_reply(LOCK.encode())
        assert await driver.transfer(grant, contender, b"heir's record") is True
        assert lost.answered.is_set()
        assert (await entry(driver)).lease == heir.id


async def test_lost_reply_of_grant_makes_one_lease(etcd_server: EtcdServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease whose grant was answered into the void is found again by the id that we chose, ttl and all."""
    chosen = secrets.randbits(63)
    monkeypatch.setattr(secrets, "randbits", lambda _: chosen)
    async with (
        Proxy(etcd_server.host, etcd_server.client_port) as proxy,
        opened([f"http://127.0.0.1:{proxy.port}", etcd_server.endpoint]) as driver,
    ):
        await driver.read([LOCK])
        lost = proxy.drop_reply(load().rpc.LeaseGrantRequest(TTL=77, ID=chosen).SerializeToString())
        lease = await driver.grant_lease("a", 77)
        assert lost.answered.is_set()
        assert lease == Lease(f"{chosen:016x}", 77.0, "a")
        await driver.renew(lease)
        await driver.revoke(lease)


async def test_what_was_left_may_be_compacted_away(etcd_server: EtcdServer) -> None:
    """Acquire again, when etcd has thrown the history before the grant away: the grant, without what was left."""
    async with opened(etcd_server.endpoints) as driver:
        lease = await driver.grant_lease("a", 30)
        await driver.release(await taken(driver, lease), b"farewell")
        grant = await taken(driver, lease)
        etcd_server.ctl("compact", str(grant.token))
        again = await taken(driver, lease)
        assert (again.token, again.record, again.previous) == (grant.token, b"record", None)


async def test_more_names_than_a_transaction_takes(etcd_server: EtcdServer) -> None:
    """A thousand names are read by one request, absent ones too, and no key between them gets in."""
    async with opened(etcd_server.endpoints) as driver:
        lease = await driver.grant_lease("a", 60)
        names = [f"leader/{number:04}" for number in range(1000)]
        await asyncio.gather(*(taken(driver, lease, name.encode(), name) for name in names[::2]))
        changes = await driver.read([*names[:500], *names[700:]])
        assert len(changes.entries) == 800
        assert {name for name, entry in changes.entries.items() if entry.lease == lease.id} == {
            name for name in names[::2] if not "leader/0500" <= name < "leader/0700"
        }
        assert changes.entries[names[2]].record == names[2].encode()
        assert (await driver.read([])).entries == {}
        await driver.revoke(lease)


async def test_record_too_large_is_refused(etcd_server: EtcdServer) -> None:
    """What etcd will never take is refused, not called unavailable."""
    async with opened(etcd_server.endpoints) as driver:
        lease = await driver.grant_lease("a", 30)
        with pytest.raises(BackendRefused, match="too large"):
            await driver.announce(lease, "standby/a", b"x" * 1_900_000)


async def test_tokens_grow_over_a_killed_server(etcd_release: str) -> None:
    """After kill -9 and restart the lease and its lock are still there, and the next token is larger."""
    with EtcdServer(release=etcd_release) as server:
        async with opened(server.endpoints) as driver:
            lease = await driver.grant_lease("a", 60)
            grant = await taken(driver, lease)
            await asyncio.to_thread(server.kill)
            with pytest.raises(BackendUnavailable):
                await driver.renew(lease)
            await asyncio.to_thread(server.start)
            await until(lambda: works(driver))
            await driver.renew(lease)
            assert (await entry(driver)).index == grant.index
            await driver.release(grant, b"farewell")
            assert (await taken(driver, lease)).token > grant.token


@pytest.mark.slow
async def test_lease_outlives_the_death_of_etcds_leader(etcd_release: str) -> None:
    """When etcd's own leader is killed a silent holder's lock is freed late, by a new count of the ttl, never early."""
    with EtcdCluster(3, release=etcd_release) as cluster:
        dying = cluster.leader
        alive = [node.endpoint for index, node in enumerate(cluster.nodes) if index != dying]
        async with opened(alive, request_timeout=6.0) as driver:
            lease = await driver.grant_lease("a", 2)
            await taken(driver, lease)
            position = (await driver.read([LOCK])).position
            begun = clock.now()
            await driver.renew(lease)
            await asyncio.to_thread(cluster.nodes[dying].kill)
            while True:
                assert clock.now() < begun + 20, "never freed"
                try:
                    changes = await driver.wait_changed([LOCK], position, 2.0)
                except BackendUnavailable:
                    continue  # the election
                position = changes.position
                if LOCK in changes.entries and changes.entries[LOCK].lease is None:
                    break
            assert clock.now() - begun >= lease.ttl
            assert (await taken(driver, await driver.grant_lease("b", 30))).previous == b"record"
