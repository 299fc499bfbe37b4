"""Endpoints of two etcd clusters in one list: nobody leads in both."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from support.aio import run, until
from support.etcd import entry, new_prefix, opened, taken

from cluster_lock import clock
from cluster_lock.drivers.etcd import EtcdDriver
from cluster_lock.errors import BackendRefused, BackendUnavailable, LeaseExpired
from cluster_lock.testing.servers import EtcdCluster, EtcdServer
from cluster_lock.values import Lease

pytestmark = pytest.mark.etcd


@pytest.fixture
def two(etcd_release: str) -> Iterator[tuple[EtcdServer, EtcdServer]]:
    with EtcdServer(release=etcd_release) as one, EtcdServer(release=etcd_release) as other:
        yield one, other


def leases(server: EtcdServer) -> int:
    return int(server.ctl("lease", "list").split()[1])


def test_two_clusters_at_first_contact(two: tuple[EtcdServer, EtcdServer]) -> None:
    """A list that names two clusters gives no lease, in either order, and the text names both."""
    endpoints = [server.endpoint for server in two]

    async def main() -> None:
        for order in (endpoints, endpoints[::-1]):
            async with opened(order) as driver:
                with pytest.raises(BackendRefused, match="belong to 2 clusters") as refused:
                    await driver.grant_lease("a", 30)
                assert refused.value.exit_code == 78
                assert all(endpoint in str(refused.value) for endpoint in endpoints)
        assert [leases(server) for server in two] == [0, 0]

    run(main())


def test_one_of_two_clusters_is_silent_at_first(two: tuple[EtcdServer, EtcdServer]) -> None:
    """Who starts while one of them is silent waits, and is refused when both answer."""
    one, other = two

    async def main() -> None:
        one.pause()
        async with opened([one.endpoint, other.endpoint], request_timeout=1.0) as driver:
            for _ in range(3):
                with pytest.raises(BackendUnavailable, match=f"no lease yet: {one.endpoint}"):
                    await driver.grant_lease("a", 30)
            one.resume()

            async def refused() -> bool:
                try:
                    await driver.grant_lease("a", 30)
                except BackendUnavailable:  # it has not come round yet
                    return False
                except BackendRefused as error:
                    return "2 clusters" in str(error)
                raise AssertionError("granted")

            await until(refused)
        assert [leases(server) for server in two] == [0, 0]

    run(main())


def test_a_second_cluster_appears_later(two: tuple[EtcdServer, EtcdServer]) -> None:
    """A leader does not follow its list into another cluster; it finds out when one appears, and its lease is renewed
    no more while both answer. When the stranger has gone for a ttl all is well again."""
    one, other = two

    async def main() -> None:
        prefix = new_prefix()
        other.kill()
        async with opened([one.endpoint, other.endpoint], prefix=prefix, request_timeout=1.0) as driver:
            lease = await granted(driver, 4)
            grant = await taken(driver, lease)
            await asyncio.to_thread(other.start)
            one.pause()
            with pytest.raises(BackendUnavailable, match="not listened to"):
                await driver.renew(lease)
            one.resume()

            async def refused() -> bool:
                try:
                    await driver.renew(lease)
                except BackendRefused as error:
                    return one.endpoint in str(error) and other.endpoint in str(error)
                except BackendUnavailable:
                    return False
                return False

            await until(refused)
            with pytest.raises(BackendUnavailable, match="2 clusters"):
                await driver.acquire(lease, "leader/other", b"")
            with pytest.raises(BackendRefused, match="2 clusters"):
                await driver.grant_lease("a", 4)
            (stranger,) = [node for node in await driver.nodes() if node.address == other.endpoint]
            assert "not of ours" in (stranger.problem or "")
            await driver.release(grant, b"farewell")
            await driver.revoke(lease)
            assert leases(other) == 0
            other.kill()
            lease = await granted(driver, 4)
            await driver.renew(lease)
            await driver.revoke(lease)

    run(main(), timeout=60)


def test_a_rebuilt_cluster_is_taken_after_a_ttl(etcd_release: str) -> None:
    """A cluster that took the place of ours is not believed for one ttl. Then it is ours, and leases of the old one
    are gone."""

    async def main() -> None:
        with EtcdServer(release=etcd_release) as old:
            new = EtcdServer(release=etcd_release, client_port=old.client_port, name="new")
            try:
                async with opened(old.endpoints, request_timeout=1.0) as driver:
                    lease = await driver.grant_lease("a", 3)
                    await driver.renew(lease)
                    renewed = clock.now()
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

                    await until(gone, timeout=30)
                    assert clock.now() - renewed >= 3
                    assert (await entry(driver)).lease is None
                    await taken(driver, await driver.grant_lease("a", 3))
            finally:
                new.close()

    run(main(), timeout=60)


def test_a_member_that_is_down_delays_nobody(etcd_release: str) -> None:
    """An endpoint that is down and that the cluster names as its own is waited for by nobody, even if it is half of the
    list."""

    async def main() -> None:
        with EtcdCluster(3, release=etcd_release) as cluster:
            leader = cluster.leader
            down = cluster.nodes[(leader + 1) % 3]
            down.kill()
            async with opened([down.endpoint, cluster.nodes[leader].endpoint], request_timeout=3.0) as driver:
                await taken(driver, await driver.grant_lease("a", 60))

    run(main(), timeout=60)


def test_an_endpoint_that_nobody_knows_is_waited_for_once(etcd_server: EtcdServer, etcd_release: str) -> None:
    """If an unknown endpoint stays silent, a first lease is there after one ttl, and the next one at once."""

    async def main() -> None:
        with EtcdServer(release=etcd_release) as silent:
            silent.pause()
            async with opened([silent.endpoint, etcd_server.endpoint], request_timeout=1.5) as driver:
                begun = clock.now()
                await granted(driver, 2)
                assert clock.now() - begun >= 2
                await driver.grant_lease("a", 2)

    run(main(), timeout=60)


async def granted(driver: EtcdDriver, ttl: float) -> Lease:
    """A lease, as soon as there is one."""
    found: list[Lease] = []

    async def tried() -> bool:
        try:
            found.append(await driver.grant_lease("a", ttl))
        except (BackendUnavailable, BackendRefused):
            return False
        return True

    await until(tried, timeout=30)
    return found[0]
