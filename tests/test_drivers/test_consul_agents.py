"""Several agents, servers that lose one another, and many requests at once."""

from __future__ import annotations

import asyncio

import pytest
from support.aio import until
from support.consul_lab import LOCK, TXN, Recorder, client, record, taken, unavailable, works

from cluster_lock import clock
from cluster_lock.errors import BackendUnavailable
from cluster_lock.testing.servers import ConsulCluster, ConsulServer

pytestmark = pytest.mark.consul


# -- several agents ----------------------------------------------------------------------------------------------------


async def test_next_agent_is_asked_within_the_same_time(consul_server: ConsulServer) -> None:
    """With one agent refusing and one silent, each verb still succeeds in its time; and the one that answered stays
    the one that is asked first."""
    async with Recorder(consul_server) as refusing, Recorder(consul_server) as silent:
        urls = refusing.url, silent.url, consul_server.url
        async with client(*urls, request_timeout=9.0) as driver:
            lease = await driver.grant_lease("a", 60)
            await refusing.refuse()
            silent.black_hole()
            begun = clock.now()
            await driver.renew(lease)
            assert clock.now() - begun < 9.0
            begun = clock.now()
            for _ in range(20):
                await driver.renew(lease)
            assert clock.now() - begun < 10, "each renewal asked the silent agent first"
            assert await driver.acquire(lease, LOCK, record("a"))
            await refusing.accept()
            heard = len(refusing.lines())
            await driver.read([LOCK])
            assert len(refusing.lines()) == heard


async def test_wait_that_hung_is_not_repeated_where_it_hung(consul_server: ConsulServer) -> None:
    """When the agent that a wait was parked at stands still, the wait ends in time and the next verb asks another."""
    async with (
        Recorder(consul_server) as stopping,
        client(stopping.url, consul_server.url, request_timeout=8.0) as driver,
    ):
        position = (await driver.read([LOCK])).position
        stopping.black_hole()
        begun = clock.now()
        with pytest.raises(BackendUnavailable) as raised:
            await driver.wait_changed([LOCK], position, 1.0)
        assert clock.now() - begun < 5.0
        assert stopping.url in str(raised.value)
        assert consul_server.url not in str(raised.value), "it had no time to be asked"
        begun = clock.now()
        await driver.read([LOCK])
        assert clock.now() - begun < 3.5


async def test_all_agents_down(consul_server: ConsulServer) -> None:
    """When nobody answers, the error says of each agent why."""
    async with client("http://127.0.0.1:1", "http://127.0.0.2:1") as driver:
        with pytest.raises(BackendUnavailable) as raised:
            await driver.grant_lease("a", 30)
        assert "http://127.0.0.1:1" in str(raised.value)
        assert "http://127.0.0.2:1" in str(raised.value)


async def test_cluster_loses_its_leader() -> None:
    """When the leading server of three is killed, session and lock live on through the other two, and what is granted
    then has a larger token."""
    with ConsulCluster(3) as cluster:
        leader = cluster.leader
        urls = [
            cluster.nodes[leader].url,
            *(node.url for node in cluster.nodes if node is not cluster.nodes[leader]),
        ]
        async with client(*urls, request_timeout=2.0) as driver:
            lease = await driver.grant_lease("a", 60)
            grant = await taken(driver, lease)
            cluster.nodes[leader].kill()
            await until(lambda: works(driver, lease))
            entry = (await driver.read([LOCK])).entries[LOCK]
            assert (entry.lease, entry.index) == (lease.id, grant.index)
            await driver.release(grant, record("a", released=True))
            assert (await taken(driver, await driver.grant_lease("b", 60))).token > grant.token


async def test_server_without_its_cluster_says_nothing() -> None:
    """A server that lost the others answers no question about a lock, rather than with what it knew before."""
    with ConsulCluster(3) as cluster:
        leader = cluster.leader
        alone, *others = cluster.nodes[leader:] + cluster.nodes[:leader]
        async with client(alone.url, request_timeout=2.0) as driver:
            lease = await driver.grant_lease("a", 60)
            await taken(driver, lease)
            position = (await driver.read([LOCK])).position
            for node in others:
                node.pause()
            await unavailable(driver.read([LOCK]), 1.0)
            await unavailable(driver.read([LOCK, "leader/other"]), 2.0)
            await unavailable(driver.scan("leader/"), 2.0)
            await unavailable(driver.wait_changed([LOCK], position, 3.0), 3.0)
            await unavailable(driver.acquire(lease, LOCK, record("a")), 2.0)
            for node in others:
                node.resume()
            await until(lambda: works(driver, lease))


# -- many at once ------------------------------------------------------------------------------------------------------


async def test_renewal_does_not_stand_in_line(consul_server: ConsulServer) -> None:
    """With hundreds of requests under way a renewal is answered before they are; never more than 50 are at once."""
    async with Recorder(consul_server) as proxy, client(proxy.url, request_timeout=20.0) as driver:
        lease = await driver.grant_lease("a", 30)
        proxy.delay = 0.05
        names = [f"{LOCK}/{number}" for number in range(300)]
        crowd = asyncio.gather(*(driver.acquire(lease, name, record("a")) for name in names))
        await until(lambda: len(proxy.lines()) > 60)
        await driver.renew(lease)
        assert not crowd.done()
        assert len(proxy.lines("GET")) < 200, "it stood behind all the others"
        assert proxy.connections <= 50
        assert None not in await crowd
        assert proxy.connections <= 50
        proxy.delay = 0.0
        await driver.revoke(lease)


async def test_wait_for_many_names_is_one_connection(consul_server: ConsulServer) -> None:
    """A wait for 250 names is one request on one connection, and the verbs beside it need one more."""
    async with Recorder(consul_server) as proxy, client(proxy.url) as driver:
        names = [f"{LOCK}/{number}" for number in range(250)]
        position = (await driver.read(names)).position
        waiting = asyncio.ensure_future(driver.wait_changed(names, position, 20.0))
        await until(lambda: any("wait=" in line for line in proxy.lines()))
        lease = await driver.grant_lease("a", 30)
        assert await driver.acquire(lease, names[200], record("a"))
        assert (await waiting).entries[names[200]].lease == lease.id
        assert sum("wait=" in line for line in proxy.lines()) == 1
        assert proxy.connections == 2


async def test_held_reply_does_not_hold_up_others(consul_server: ConsulServer) -> None:
    """While one request hangs on its connection the others are answered on theirs."""
    async with Recorder(consul_server) as proxy, client(proxy.url) as driver:
        lease = await driver.grant_lease("a", 30)
        held = proxy.hold(TXN)
        acquiring = asyncio.ensure_future(driver.acquire(lease, LOCK, record("a")))
        await held.caught.wait()
        await driver.renew(lease)
        assert (await driver.read([LOCK])).entries[LOCK].lease is None
        await held.deliver()
        assert await acquiring
