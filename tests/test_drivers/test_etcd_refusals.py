"""Endpoints of etcd that answer and refuse, beside others that are well; and an etcd that takes no writes."""

from __future__ import annotations

import asyncio
import time

import pytest
from support.aio import in_a_thread, until
from support.etcd import LOCK, announced, entry, opened, taken, works
from support.refusing import refusing_etcd
from support.two_clusters import granted

from cluster_lock import clock
from cluster_lock.drivers.etcd import EtcdDriver
from cluster_lock.errors import BackendRefused, BackendUnavailable, LeaseExpired, PermissionRefused
from cluster_lock.testing.servers import EtcdServer

pytestmark = pytest.mark.etcd

REFUSALS = [
    ("FAILED_PRECONDITION", "etcdserver: rpc not supported for learner"),
    ("UNIMPLEMENTED", "unknown service etcdserverpb.KV"),
    ("PERMISSION_DENIED", "etcdserver: permission denied"),
    ("UNAUTHENTICATED", "who are you"),
    ("INVALID_ARGUMENT", "etcdserver: user name is empty"),
    ("NOT_FOUND", "no such route"),
    ("OUT_OF_RANGE", "etcdserver: mvcc: required revision is a future revision"),
]


async def every_verb(driver: EtcdDriver) -> None:
    lease, theirs = await driver.grant_lease("a", 30), await driver.grant_lease("b", 30)
    grant = await taken(driver, lease)
    position = (await driver.read([LOCK])).position
    await driver.renew(lease)
    assert (await driver.wait_changed([LOCK], position, 0.1)).entries[LOCK].index == grant.index
    heir = await announced(driver, theirs)
    assert [found.name for found in await driver.scan("standby/")] == [heir.name]
    assert await driver.transfer(grant, heir, b"record")
    mine = await driver.acquire(theirs, LOCK, b"record")
    assert mine is not None
    await driver.release(mine, b"farewell")
    assert (await driver.wait_changed([LOCK], position, 5.0)).entries[LOCK].index > grant.index
    await driver.withdraw(theirs, heir.name)
    await driver.revoke(lease)
    with pytest.raises(LeaseExpired):
        await driver.renew(lease)
    await driver.revoke(theirs)


@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
@pytest.mark.parametrize(("code", "words"), REFUSALS, ids=[code for code, _ in REFUSALS])
async def test_who_refuses_is_passed_over(etcd_server: EtcdServer, code: str, words: str, first: bool) -> None:
    """Every verb works beside an endpoint that refuses, wherever that stands in the list; and it is asked only until
    another one has answered."""
    async with refusing_etcd(code, words) as refusing:
        urls = [refusing.url, etcd_server.endpoint, etcd_server.endpoint.replace("127.0.0.1", "localhost")]
        async with opened(urls if first else urls[::-1]) as driver:
            await every_verb(driver)
        assert set(refusing) <= {"Status", "MemberList"}, "it was preferred"


async def test_who_refuses_does_not_keep_what_it_was_given(etcd_release: str) -> None:
    """When the good endpoint was away and is back, it is asked again at once, and the one that refuses no more."""
    with EtcdServer(release=etcd_release) as server:
        async with (
            refusing_etcd(*REFUSALS[0]) as refusing,
            opened([server.endpoint, refusing.url], request_timeout=1.0) as driver,
        ):
            with pytest.raises(BackendUnavailable, match="may be of another cluster"):
                await driver.grant_lease("a", 1)
            lease = await granted(driver, 2)
            await asyncio.to_thread(server.kill)
            for _ in range(3):
                with pytest.raises(BackendUnavailable, match="learner"):
                    await driver.renew(lease)
            await asyncio.to_thread(server.start)
            await until(lambda: works(driver))
            asked = refusing.count("LeaseKeepAlive")
            await driver.renew(await driver.grant_lease("b", 30))
            assert refusing.count("LeaseKeepAlive") == asked


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        (("UNIMPLEMENTED", "no"), ("UNIMPLEMENTED", "no"), BackendRefused),
        (("UNIMPLEMENTED", "no"), ("PERMISSION_DENIED", "etcdserver: permission denied"), PermissionRefused),
        (("UNIMPLEMENTED", "no"), ("UNAVAILABLE", "etcdserver: no leader"), BackendUnavailable),
        (("UNAVAILABLE", "no"), ("PERMISSION_DENIED", "etcdserver: permission denied"), BackendUnavailable),
    ],
    ids=["same", "the most telling", "one may pass", "the first may pass"],
)
async def test_a_refusal_is_what_all_say(one: tuple[str, str], other: tuple[str, str], kind: type[Exception]) -> None:
    """A refusal is raised if all endpoints refuse, the most telling one; else it may pass. Each is named."""
    async with (
        refusing_etcd(*one) as first,
        refusing_etcd(*other) as second,
        opened([first.url, second.url]) as driver,
    ):
        for verb in (driver.read([LOCK]), driver.wait_changed([LOCK], 1, 5.0), driver.grant_lease("a", 9)):
            with pytest.raises((BackendRefused, BackendUnavailable)) as caught:
                await verb
            assert type(caught.value) is kind
            assert first.url in str(caught.value)
            assert second.url in str(caught.value)


async def test_a_stream_that_is_refused_at_once_says_why() -> None:
    """The server's own words reach anybody who watches, also when they come while the request is on its way, as they do
    to a loop that is slow."""

    async def slow(pause: float) -> None:
        while True:
            time.sleep(pause)  # noqa: ASYNC251  # each turn of the loop takes so long
            await asyncio.sleep(0)

    with in_a_thread(refusing_etcd("UNIMPLEMENTED", "no such service")) as refusing:
        async with opened([refusing.url]) as driver:
            for pause in (0.0, 0.001, 0.003):
                slowness = asyncio.ensure_future(slow(pause))
                tried = (driver.wait_changed([f"leader/{number}"], 1, 5.0) for number in range(100))
                for end in await asyncio.gather(*tried, return_exceptions=True):
                    assert isinstance(end, BackendRefused), end
                    assert "no such service" in str(end)
                slowness.cancel()


async def test_what_refuses_takes_no_time_of_its_own(etcd_release: str) -> None:
    """With one endpoint that refuses and one that is silent, a request is over in its one time limit."""
    with EtcdServer(release=etcd_release) as silent:
        async with (
            refusing_etcd(*REFUSALS[0]) as refusing,
            opened([silent.endpoint, refusing.url], request_timeout=1.0) as driver,
        ):
            await driver.read([LOCK])
            silent.pause()
            for verb in (driver.read([LOCK]), driver.wait_changed([LOCK], 1, 5.0), driver.grant_lease("a", 9)):
                begun = clock.now()
                with pytest.raises(BackendUnavailable):
                    await verb
                assert clock.now() - begun < 1.0 + 3.0
            silent.resume()


# -- no writes ---------------------------------------------------------------------------------------------------------


class SmallServer(EtcdServer):
    """One whose quota a few keys use up."""

    def _command(self) -> list[str]:
        return [*super()._command(), "--quota-backend-bytes=2097152"]


async def test_an_etcd_without_space(etcd_release: str) -> None:
    """An etcd whose quota is used up takes no lock: unavailable, in words that say what to do; it renews, reads and
    revokes all the same."""
    with SmallServer(release=etcd_release) as server:
        async with opened(server.endpoints) as driver:
            lease = await driver.grant_lease("a", 60)
            with pytest.raises(BackendUnavailable, match=r"space is used up.*etcdctl alarm disarm"):
                for number in range(100):
                    await driver.announce(lease, f"standby/{number}", b"x" * 100_000)
            for verb in (driver.acquire(lease, LOCK, b"record"), driver.grant_lease("b", 60)):
                with pytest.raises(BackendUnavailable, match="space is used up"):
                    await verb
            await driver.renew(lease)
            assert (await entry(driver)).lease is None
            await driver.revoke(lease)
