"""Which cluster an endpoint of etcd is of: one that was rebuilt, and endpoints that are silent."""

from __future__ import annotations

import asyncio

import pytest
from support.aio import until
from support.etcd import entry, opened, taken
from support.two_clusters import granted

from cluster_lock import clock
from cluster_lock.errors import BackendRefused, BackendUnavailable, LeaseExpired, NoLeaseYet
from cluster_lock.testing.servers import EtcdCluster, EtcdServer

pytestmark = pytest.mark.etcd


async def test_a_rebuilt_cluster_is_taken_after_a_ttl(etcd_release: str) -> None:
    """A cluster that took the place of ours is not believed for one ttl. Then it is ours, and leases of the old one
    are gone."""
    with EtcdServer(release=etcd_release) as old:
        new = EtcdServer(release=etcd_release, client_port=old.client_port, name="new")
        try:
            async with opened(old.endpoints, request_timeout=1.0) as driver:
                lease = await driver.grant_lease("a", 3)
                renewed = clock.now()  # or a little later: the old cluster is heard of in the answer
                await driver.renew(lease)
                old.kill()
                await asyncio.to_thread(new.start)

                async def gone() -> bool:
                    try:
                        await driver.renew(lease)
                    except (BackendUnavailable, BackendRefused):
                        assert clock.now() - renewed < 20
                        return False
                    except LeaseExpired:
                        return True
                    raise AssertionError("renewed where it was never granted")

                await until(gone)
                assert clock.now() - renewed >= 3
                assert (await entry(driver)).lease is None
                await taken(driver, await driver.grant_lease("a", 3))
        finally:
            new.close()


async def test_a_member_that_is_down_delays_nobody(etcd_release: str) -> None:
    """An endpoint that is down and that the cluster names as its own is waited for by nobody, even if it is half of the
    list."""
    with EtcdCluster(3, release=etcd_release) as cluster:
        leader = cluster.leader
        down = cluster.nodes[(leader + 1) % 3]
        down.kill()
        async with opened([down.endpoint, cluster.nodes[leader].endpoint], request_timeout=3.0) as driver:
            await taken(driver, await driver.grant_lease("a", 60))


async def test_an_endpoint_that_nobody_knows_is_waited_for_once(etcd_server: EtcdServer, etcd_release: str) -> None:
    """If an unknown endpoint stays silent, a first lease is there after one ttl, and the next one at once."""
    with EtcdServer(release=etcd_release) as silent:
        silent.pause()
        async with opened([silent.endpoint, etcd_server.endpoint], request_timeout=1.5) as driver:
            begun = clock.now()
            with pytest.raises(NoLeaseYet):
                await driver.grant_lease("a", 2)
            await granted(driver, 2)
            assert clock.now() - begun >= 2
            await driver.grant_lease("a", 2)
