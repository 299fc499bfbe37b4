"""Endpoints of two clusters in one list: nobody leads in both."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from support.aio import until
from support.consul_lab import LOCK, client, destroy, record
from support.refusing import RefusingAgent
from support.two_clusters import Pair, granted, is_refused, problem_of, two_clusters

from cluster_lock.errors import BackendRefused, BackendUnavailable, LeaseExpired
from cluster_lock.testing.servers import ConsulServer

PAIRS = pytest.mark.parametrize(
    ("backend", "twins"),
    [
        pytest.param("etcd34", False, marks=pytest.mark.etcd),
        pytest.param("etcd35", False, marks=pytest.mark.etcd),
        pytest.param("consul", False, marks=pytest.mark.consul),
        pytest.param("consul", True, marks=pytest.mark.consul),
    ],
    ids=["etcd34", "etcd35", "consul", "twins"],
)


@pytest.fixture
def two(backend: str, twins: bool) -> Iterator[Pair]:
    """`twins`: with equal addresses."""
    with two_clusters(backend, twins=twins) as pair:
        yield pair


@PAIRS
async def test_two_clusters_at_first_contact(two: Pair) -> None:
    """A list with endpoints of two clusters gives no lease, in either order, and the text names both."""
    for urls in (two.urls, two.urls[::-1]):
        async with two.driver(*urls, request_timeout=4.0) as driver:
            with pytest.raises(BackendRefused, match="belong to 2 clusters") as refused:
                await driver.grant_lease("a", 30)
            assert refused.value.exit_code == 78
            assert all(url in str(refused.value) for url in urls)
    assert two.leases == [0, 0]


@PAIRS
async def test_one_of_two_clusters_is_silent_at_first(two: Pair) -> None:
    """Who starts while one of them is silent waits, and is refused when both answer."""
    two.one.pause()
    async with two.driver() as driver:
        for _ in range(3):
            with pytest.raises(BackendUnavailable, match=f"no lease yet: {two.urls[0]}"):
                await driver.grant_lease("a", 30)
        two.one.resume()
        await until(lambda: is_refused(driver))
    assert two.leases == [0, 0]


@PAIRS
async def test_a_second_cluster_appears_later(two: Pair) -> None:
    """A leader does not follow its list into another cluster, to which its lease would be gone; it finds out when one
    appears, and its lease is renewed no more while both answer. When the stranger has gone for a ttl all is well
    again."""
    two.other.kill()
    async with two.driver() as driver:
        lease = await granted(driver, 4)
        grant = await driver.acquire(lease, LOCK, record("a"))
        assert grant is not None
        await asyncio.to_thread(two.other.start)
        two.one.pause()
        with pytest.raises(BackendUnavailable, match="not listened to"):
            await driver.renew(lease)
        two.one.resume()
        await until(lambda: is_refused(driver, lease))
        with pytest.raises(BackendUnavailable, match="2 clusters"):
            await driver.acquire(lease, "leader/other", record("a"))
        with pytest.raises(BackendRefused, match="2 clusters"):
            await driver.grant_lease("a", 4)
        assert "not of ours" in await problem_of(driver, two.urls[1])
        await driver.release(grant, record("a", released=True))
        await driver.revoke(lease)
        assert two.leases[1] == 0
        two.other.kill()
        lease = await granted(driver, 4)
        await driver.renew(lease)
        await driver.revoke(lease)


# -- Consul ------------------------------------------------------------------------------------------------------------


@pytest.mark.consul
async def test_a_stranger_is_shown_no_token(consul_server: ConsulServer) -> None:
    """An agent whose servers are others is asked for nothing but those."""
    async with (
        RefusingAgent("500 Internal Server Error", "", peers='["10.0.0.9:8300"]') as stranger,
        client(consul_server.url, stranger.url, token="5ecret") as driver,
    ):
        with pytest.raises(BackendRefused, match="2 clusters"):
            await driver.grant_lease("a", 30)
        assert stranger.asked == []


@pytest.mark.consul
async def test_a_session_that_somebody_ends_brings_no_doubt(consul_server: ConsulServer) -> None:
    """When no agent knows the session any more it has ended: that is told as such, and the next one is to be had at
    once."""
    urls = consul_server.url, consul_server.url.replace("127.0.0.1", "localhost")
    async with client(*urls) as driver:
        lease = await driver.grant_lease("a", 30)
        destroy(consul_server, lease)
        assert "does not know our session" in await problem_of(driver, urls[0])
        with pytest.raises(LeaseExpired):
            await driver.renew(lease)
        await driver.revoke(await driver.grant_lease("a", 30))
