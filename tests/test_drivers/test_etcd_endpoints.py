"""Endpoints of etcd that are dead, deaf, cut off or nonsense."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import psutil
import pytest
from support.aio import PATIENCE, until
from support.etcd import LOCK, entry, new_prefix, opened, started, taken, works
from support.proxy import Proxy

from cluster_lock import clock
from cluster_lock.drivers.etcd import EtcdDriver
from cluster_lock.errors import BackendRefused, BackendUnavailable
from cluster_lock.testing.servers import EtcdCluster, EtcdServer
from cluster_lock.testing.servers.base import free_ports

pytestmark = pytest.mark.etcd

SLACK = 3.0
"""Seconds that a busy machine may add to a time limit."""


async def test_environment_does_not_redirect(etcd_server: EtcdServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that the environment names is not used for the lock."""
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{next(free_ports())}")
    async with opened(etcd_server.endpoints) as driver:
        assert (await entry(driver)).lease is None


async def test_nobody_there(etcd_server: EtcdServer) -> None:
    """With no server at any endpoint each verb says so within its time, naming all, and works when one comes up."""
    ports = free_ports()
    dead = [f"http://127.0.0.1:{next(ports)}" for _ in range(2)]
    async with opened(dead, request_timeout=1.0) as driver:
        begun = clock.now()
        for verb in (driver.grant_lease("a", 30), driver.read([LOCK]), driver.wait_changed([LOCK], 5, 3.0)):
            with pytest.raises(BackendUnavailable) as caught:
                await verb
            assert all(endpoint in str(caught.value) for endpoint in dead)
        assert clock.now() - begun < 3 * 1.0 + SLACK


async def test_server_comes_up_later() -> None:
    """However long its server was away, the driver works within 1.2 s of the server's being ready."""
    server = EtcdServer()
    try:
        async with opened(server.endpoints, request_timeout=1.0) as driver:
            back = clock.now() + 5.5  # left to itself gRPC tries at 0, 1, 2.6, 5.2 and 9.3 s
            while clock.now() < back:
                with pytest.raises(BackendUnavailable):
                    await driver.read([LOCK])
                await asyncio.sleep(0.1)
            await asyncio.to_thread(server.start)
            await until(lambda: works(driver), timeout=1.2 + 1.0)
    finally:
        server.close()


@pytest.mark.parametrize("fault", ["kill", "pause"])
async def test_next_endpoint_is_asked_in_time(etcd_release: str, fault: str) -> None:
    """The first endpoint dies or goes deaf, and it was etcd's leader: verbs go on at the others, within their time."""
    # With fast timing a busy machine makes the leader change by itself.
    with EtcdCluster(3, release=etcd_release, fast=False) as cluster:
        leader = cluster.leader
        nodes = [cluster.nodes[leader], *(node for index, node in enumerate(cluster.nodes) if index != leader)]
        async with opened([node.endpoint for node in nodes], request_timeout=9.0) as driver:
            lease = await driver.grant_lease("a", 30)
            grant = await taken(driver, lease)
            position = (await driver.read([LOCK])).position
            # Established at the node that will fail, and looked at again afterwards.
            position = (await driver.wait_changed([LOCK], position, 0.2)).position
            await asyncio.to_thread(getattr(nodes[0], fault))
            await asyncio.to_thread(cluster.wait_leader, other_than=leader)
            begun = clock.now()
            await driver.renew(lease)
            assert clock.now() - begun < 3.0 + SLACK, "the deaf endpoint had more than its share"
            begun = clock.now()
            assert (await entry(driver)).index == grant.index
            assert clock.now() - begun < 3.0, "the deaf endpoint was asked first again"
            await driver.release(grant, b"farewell")
            changes = await driver.wait_changed([LOCK], position, 5.0)
            assert changes.entries[LOCK].lease is None, "the watch stayed with the deaf endpoint"
            nodes[0].resume() if fault == "pause" else await asyncio.to_thread(nodes[0].start)


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace makes the disk hang")
async def test_a_server_whose_disk_hangs_is_not_listened_to(etcd_release: str) -> None:
    """A follower whose disk hangs tells its watches nothing and renews leases all the same: a waiter hears what
    happened from another one, soon after the wait at that one is over."""
    with EtcdCluster(3, release=etcd_release, fast=False) as cluster:
        leader = cluster.nodes[cluster.leader]
        hung, *others = (node for node in cluster.nodes if node is not leader)
        endpoints = [node.endpoint for node in (hung, leader, *others)]
        prefix = new_prefix()
        async with (
            opened(endpoints, prefix=prefix, request_timeout=3.0) as driver,
            opened([leader.endpoint], prefix=prefix) as other,
        ):
            lease = await driver.grant_lease("a", 60)
            position = (await driver.read([LOCK])).position
            position = (await driver.wait_changed([LOCK], position, 0.2)).position
            with disk_hangs(hung) as tracing:
                await until(lambda: tracing.poll() is not None or hangs(hung))
                if tracing.poll() is not None:
                    pytest.skip("strace may not attach to a process here")
                await taken(other, await other.grant_lease("b", 60))
                begun, news = clock.now(), None
                while news is None or news.lease is None:
                    await driver.renew(lease)
                    changes = await driver.wait_changed([LOCK], position, 6.0)
                    position, news = changes.position, changes.entries.get(LOCK)
                assert clock.now() - begun < 6.0 + 3.0 + SLACK


@contextmanager
def disk_hangs(server: EtcdServer) -> Iterator[subprocess.Popen[bytes]]:
    """Each sync of its files takes a minute, or until the end of the block, while this process runs."""
    calls = "fsync,fdatasync"
    inject = ("-e", f"trace={calls}", "-e", f"inject={calls}:delay_enter=60000000")
    tracing = subprocess.Popen(["strace", "-f", "-qq", "-o", "/dev/null", "-p", str(server.pid), *inject])
    try:
        yield tracing
    finally:
        tracing.terminate()
        tracing.wait(PATIENCE)


async def hangs(server: EtcdServer) -> bool:
    """Does it answer no linearizable read?"""
    async with opened([server.endpoint], request_timeout=0.3) as driver:
        try:
            lease = await driver.grant_lease("c", 30)
            await driver.read([LOCK])
            await driver.revoke(lease)
        except BackendUnavailable:
            return True
    return False


async def test_deaf_server_costs_the_time_limit_and_no_more(etcd_release: str) -> None:
    """With the one server stopped every verb says unavailable when its time is over; it works again afterwards."""
    with EtcdServer(release=etcd_release) as server:
        async with opened(server.endpoints, request_timeout=1.0) as driver:
            lease = await driver.grant_lease("a", 60)
            grant = await taken(driver, lease)
            contender = await entry(driver)
            position = (await driver.read([LOCK])).position
            server.pause()
            for verb in (
                partial(driver.grant_lease, "b", 30),
                partial(driver.renew, lease),
                partial(driver.revoke, lease),
                partial(driver.acquire, lease, "leader/other", b""),
                partial(driver.release, grant, b""),
                partial(driver.transfer, grant, contender, b""),
                partial(driver.announce, lease, "standby/a", b""),
                partial(driver.withdraw, lease, "standby/a"),
                partial(driver.read, [LOCK]),
                partial(driver.scan, "standby/"),
                partial(driver.wait_changed, [LOCK], None, 5.0),
                partial(driver.wait_changed, [LOCK], position, 5.0),
            ):
                begun = clock.now()
                with pytest.raises(BackendUnavailable):
                    await verb()
                assert clock.now() - begun < 1.0 + SLACK
            server.resume()
            await until(lambda: works(driver))
            # What timed out may have been applied or not; whichever it was, going on from here is sound.
            await driver.revoke(lease)
            await taken(driver, await driver.grant_lease("b", 30))


async def test_black_hole_and_healing(etcd_server: EtcdServer) -> None:
    """A connection that swallows everything fails verbs in time; when the network heals the driver works again."""
    async with (
        Proxy(etcd_server.host, etcd_server.client_port) as proxy,
        opened([f"http://127.0.0.1:{proxy.port}"], request_timeout=1.5) as driver,
    ):
        lease = await driver.grant_lease("a", 60)
        proxy.black_hole()
        for _ in range(3):
            begun = clock.now()
            with pytest.raises(BackendUnavailable):
                await driver.renew(lease)
            assert clock.now() - begun < 1.5 + SLACK
        proxy.heal()
        await until(lambda: works(driver))
        await driver.renew(lease)


async def test_without_a_quorum_nothing_is_believed(etcd_release: str) -> None:
    """A server that has lost its cluster answers no verb, and a watch at it ends instead of staying silent."""
    with EtcdCluster(3, release=etcd_release) as cluster:
        async with opened([cluster.nodes[0].endpoint], request_timeout=1.0) as driver:
            lease = await driver.grant_lease("a", 60)
            await taken(driver, lease)
            position = (await driver.read([LOCK])).position
            waiting = asyncio.ensure_future(driver.wait_changed([LOCK], position, 30.0))
            await asyncio.sleep(0.1)  # not needed for the result: lets the watch be there, as it usually is
            for node in cluster.nodes[1:]:
                await asyncio.to_thread(node.kill)
            with pytest.raises(BackendUnavailable):
                await asyncio.wait_for(waiting, 15.0)
            for verb in (driver.read([LOCK]), driver.acquire(lease, "leader/other", b"")):
                with pytest.raises(BackendUnavailable):
                    await verb


async def test_epoch_is_the_clusters_term(etcd_release: str) -> None:
    """Renewals, reads and watches tell the same epoch at every node, and a larger one after a new leader is elected."""

    async def epochs(driver: EtcdDriver) -> set[int]:
        lease = await driver.grant_lease("a", 30)
        await taken(driver, lease)
        seen = await driver.read([LOCK])
        await driver.announce(lease, LOCK, b"changed")
        heard = await driver.wait_changed([LOCK], seen.position, 5.0)
        return {await driver.renew(lease), seen.epoch, heard.epoch}

    with EtcdCluster(3, release=etcd_release) as cluster:
        told = set()
        for node in cluster.nodes:
            async with opened([node.endpoint]) as driver:
                told |= await epochs(driver)
        (before,) = told
        leader = cluster.leader
        await asyncio.to_thread(cluster.nodes[leader].kill)
        await asyncio.to_thread(cluster.wait_leader, other_than=leader)
        async with opened(cluster.endpoints) as driver:
            await until(lambda: works(driver))
            (after,) = await epochs(driver)
        assert after > before


async def test_something_else_listens() -> None:
    """A port where something that is no etcd answers is unavailable, not a crash."""

    async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    other = await asyncio.start_server(http, "127.0.0.1", 0)
    port = other.sockets[0].getsockname()[1]
    async with opened([f"http://127.0.0.1:{port}"], request_timeout=1.0) as driver:
        with pytest.raises((BackendUnavailable, BackendRefused)):
            await driver.read([LOCK])
    other.close()


async def test_closed_under_a_request(etcd_release: str) -> None:
    """Closing ends what is under way at once, with "unavailable", not with a cancellation that nobody asked for."""
    with EtcdServer(release=etcd_release) as server:
        async with opened(server.endpoints, request_timeout=20.0) as driver:
            lease = await driver.grant_lease("a", 60)
            position = (await driver.read([LOCK])).position
            waiting = asyncio.ensure_future(driver.wait_changed([LOCK], position, 20.0))
            await until(lambda: server.metric("etcd_debugging_mvcc_watcher_total") == 1)
            server.pause()
            verbs = [waiting, *map(asyncio.ensure_future, (driver.read([LOCK]), driver.renew(lease)))]
            await asyncio.sleep(0.1)
            begun = clock.now()
            await driver.close()
            results = await asyncio.gather(*verbs, return_exceptions=True)
            assert clock.now() - begun < SLACK
            assert [type(result) for result in results] == [BackendUnavailable] * 3, results
            with pytest.raises(BackendUnavailable, match="closed"):
                await driver.read([LOCK])


async def test_renewal_is_one_request_and_ends_well(etcd_release: str) -> None:
    """Fifty renewals of a lease with ten locks are fifty calls, and to the server each of them ended well."""
    with EtcdServer(release=etcd_release) as server:
        async with opened(server.endpoints) as driver:
            lease = await driver.grant_lease("a", 60)
            await asyncio.gather(*(taken(driver, lease, b"", f"leader/{number}") for number in range(10)))
            requests = {method: started(server, method) for method in ("Txn", "Range", "Put")}
            for _ in range(50):
                await driver.renew(lease)
            assert started(server, "LeaseKeepAlive", "Lease", "bidi_stream") == 50
            assert {method: started(server, method) for method in requests} == requests
            ended_well = (
                'grpc_server_handled_total{grpc_code="OK",grpc_method="LeaseKeepAlive",'
                'grpc_service="etcdserverpb.Lease",grpc_type="bidi_stream"}'
            )
            await until(lambda: server.metric(ended_well) == 50)
            threads = psutil.Process().num_threads()
            for _ in range(50):
                await driver.renew(lease)
            assert psutil.Process().num_threads() <= threads + 2
