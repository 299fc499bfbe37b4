"""What the redis driver makes of a primary that is not the one any more that it knew, and of replicas that must have
a grant."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
from support import drivers
from support.aio import until
from support.leases import first_lease
from support.proxy import Proxy
from support.redis import replica_of

from cluster_lock import clock
from cluster_lock.drivers.redis import RedisDriver
from cluster_lock.errors import BackendUnavailable
from cluster_lock.testing.servers import RedisServer
from cluster_lock.values import Grant, Lease

pytestmark = pytest.mark.redis

PREFIX, LOCK = "primaries/", "leader/x"
TTL, REQUEST = 4.0, 4.0


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def replica(server: RedisServer) -> Iterator[RedisServer]:
    with replica_of(server) as replica:
        server.wait_age(TTL + 1)
        yield replica


@asynccontextmanager
async def opened(*urls: str, replicas: int = 0) -> AsyncIterator[RedisDriver]:
    made = RedisDriver(urls, prefix=PREFIX, request_timeout=REQUEST, wait_replicas=replicas)
    async with drivers.opened(made) as driver:
        yield driver


async def taken(driver: RedisDriver, lease: Lease) -> Grant:
    grant = await driver.acquire(lease, LOCK, b"{}")
    assert grant is not None
    return grant


def back_and_forth(server: RedisServer, replica: RedisServer) -> None:
    """The replica, promoted before, keeps what it has; the server takes that over, and is the primary again."""
    server.cli("REPLICAOF", replica.host, str(replica.port))
    server.wait_follows()
    server.promote()
    replica.cli("REPLICAOF", server.host, str(server.port))


async def test_a_primary_that_was_a_replica_for_a_while(server: RedisServer, replica: RedisServer) -> None:
    """Whatever became of a server while a connection to it stood idle, nobody gets a lock from it before all that it
    may have forgotten is over."""
    both = server.url, replica.url
    async with opened(*both) as holder, opened(*both) as other:
        lease, idle = await first_lease(holder, TTL), await first_lease(other, TTL)
        replica.promote()
        before = await taken(holder, lease)
        await holder.renew(lease)
        last = clock.now()
        await asyncio.to_thread(back_and_forth, server, replica)
        with pytest.raises(BackendUnavailable, match="not the primary any more that we knew"):
            await other.acquire(idle, LOCK, b"{}")
        after = await taken(other, await first_lease(other, TTL))
        assert clock.now() - last >= TTL
        assert after.token > before.token


@pytest.mark.parametrize("verb", ["read", "scan", "inspect", "lease_times", "nodes", "renew", "release"])
async def test_a_server_that_was_demoted(server: RedisServer, replica: RedisServer, verb: str) -> None:
    """What is asked on a connection that was made to a primary is not answered by a replica, whose word may be old."""
    async with opened(server.url) as driver:
        lease = await first_lease(driver, TTL)
        grant = await taken(driver, lease)
        verbs: dict[str, Callable[[], Awaitable[object]]] = {
            "read": lambda: driver.read([LOCK]),
            "scan": lambda: driver.scan("leader/"),
            "inspect": lambda: driver.inspect("leader/"),
            "lease_times": lambda: driver.lease_times([lease.id]),
            "nodes": driver.nodes,
            "renew": lambda: driver.renew(lease),
            "release": lambda: driver.release(grant, b"bye"),
        }
        asked = verbs[verb]
        await asyncio.to_thread(server.cli, "REPLICAOF", replica.host, "1")  # where nobody answers
        with pytest.raises(BackendUnavailable, match="not the primary any more that we knew"):
            await asked()
        with pytest.raises(BackendUnavailable, match="only read-only replicas answer"):
            await asked()


async def test_an_answer_of_the_primary_before(server: RedisServer, replica: RedisServer) -> None:
    """An answer that comes when another primary was met already counts for nothing: who gave it may take itself for
    the primary still."""
    async with Proxy(server.host, server.port) as proxy, opened(f"redis://{proxy.host}:{proxy.port}") as driver:
        lease = await first_lease(driver, TTL)
        held = proxy.hold(b"EVALSHA")
        renewing = asyncio.create_task(driver.renew(lease))
        await held.caught.wait()
        replica.promote()
        proxy.redirect(replica.host, replica.port)
        await driver.read([LOCK])
        await held.deliver()
        with pytest.raises(BackendUnavailable, match="another primary was met meanwhile"):
            await renewing


async def test_connections_to_the_primary_before(server: RedisServer, replica: RedisServer) -> None:
    """As soon as another primary is known no connection to the one before is left; a wait goes on at the new one."""
    async with opened(server.url, replica.url) as driver, opened(replica.url, server.url) as other:
        seen = await driver.read([LOCK])
        waiting = asyncio.create_task(driver.wait_changed([LOCK], seen.position, 30.0))
        await until(lambda: clients(server, "pubsub") == 1)
        await asyncio.gather(*(driver.read([LOCK]) for _ in range(3)))
        assert clients(server, "normal") > 1
        replica.promote()
        await asyncio.to_thread(server.cli, "REPLICAOF", replica.host, str(replica.port))
        with pytest.raises(BackendUnavailable):
            await driver.read([LOCK])
        position = (await waiting).position
        await until(lambda: clients(server, "pubsub") == 0)
        lease = await first_lease(other, TTL)
        assert clients(server, "normal") == 0
        waiting = asyncio.create_task(driver.wait_changed([LOCK], position, 60.0))
        await taken(other, lease)
        assert LOCK in (await waiting).entries


def clients(server: RedisServer, kind: str) -> int:
    """Connections of that kind, without that which asks."""
    listed = server.cli("CLIENT", "LIST", "TYPE", kind).splitlines()
    return sum("cmd=client" not in line for line in listed if line.strip())


@pytest.mark.parametrize("way", ["acquire", "transfer"])
async def test_a_grant_that_no_replica_has(server: RedisServer, replica: RedisServer, way: str) -> None:
    """With `wait_replicas` a lock that the replicas do not have is shown to nobody, so that nobody leads on it: neither
    who asked for it nor the heir; it is shown when they have it."""
    async with opened(server.url, replicas=1) as giver, opened(server.url, replicas=1) as driver:
        lease = await first_lease(driver, 2 * TTL)
        await driver.announce(lease, "standby/heir", b"{}")
        (heir,) = await driver.scan("standby/")
        grant = await taken(giver, await first_lease(giver, 2 * TTL)) if way == "transfer" else None
        seen = await driver.read([LOCK])
        replica.pause()
        with pytest.raises(BackendUnavailable, match="0 of 1 replicas"):
            await (giver.transfer(grant, heir, b"{}") if grant else driver.acquire(lease, LOCK, b"{}"))
        await driver.renew(lease)
        with pytest.raises(BackendUnavailable, match="0 of 1 replicas"):
            await driver.acquire(lease, LOCK, b"{}")  # it holds it, as far as the primary knows
        with pytest.raises(BackendUnavailable, match="0 of 1 replicas"):
            await driver.read([LOCK])
        await driver.renew(lease)
        with pytest.raises(BackendUnavailable, match="0 of 1 replicas"):
            await driver.wait_changed([LOCK], seen.position, 10.0)
        await driver.renew(lease)
        replica.resume()
        await until(lambda: "lag=0" in server.cli("INFO", "replication"))
        assert (await driver.read([LOCK])).entries[LOCK].lease == lease.id
        replica.pause()
        assert (await driver.read([LOCK])).entries[LOCK].lease == lease.id  # nothing has changed since
        replica.resume()


async def test_a_primary_that_is_demoted_while_replicas_are_waited_for(
    server: RedisServer, replica: RedisServer
) -> None:
    """That is trouble which passes: who asks again gets the lock from the next primary."""
    async with opened(server.url, replica.url, replicas=1) as driver:
        lease = await first_lease(driver, TTL)
        replica.pause()
        taking = asyncio.ensure_future(driver.acquire(lease, LOCK, b"{}"))
        await until(lambda: "blocked_clients:1" in server.cli("INFO", "clients"))
        await asyncio.to_thread(server.cli, "REPLICAOF", replica.host, str(replica.port))
        with pytest.raises(BackendUnavailable, match="UNBLOCKED"):
            await taking
        replica.resume()
        await asyncio.to_thread(replica.promote)
        await asyncio.to_thread(server.wait_follows)
        await until(lambda: is_given(driver), timeout=5 * TTL)


async def is_given(driver: RedisDriver) -> bool:
    """Is a lease given, and the lock under it? What passes is no answer."""
    try:
        await taken(driver, await driver.grant_lease("a", TTL))
    except BackendUnavailable:
        return False
    return True
