"""Waiting for etcd: what a watch may lose, what it costs, and what it leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import shutil

import pytest
from support.aio import run, until
from support.etcd import LOCK, opened, started, taken, works
from support.proxy import Proxy

from cluster_lock import clock
from cluster_lock.drivers.etcd import EtcdDriver
from cluster_lock.errors import BackendUnavailable
from cluster_lock.testing.servers import EtcdServer
from cluster_lock.values import Changes

pytestmark = pytest.mark.etcd

SLACK = 3.0
"""Seconds that a busy machine may add to a time limit."""


def watchers(server: EtcdServer) -> float:
    return server.metric("etcd_debugging_mvcc_watcher_total")


def watch_streams(server: EtcdServer) -> float:
    """How many were ever opened."""
    return started(server, "Watch", "Watch", "bidi_stream")


async def test_idle_waiter_sends_nothing(etcd_release: str) -> None:
    """Wait after wait with nothing to hear is one watch on one stream, whatever the number of names, and at the end of
    each wait the read of one key."""
    with EtcdServer(release=etcd_release) as server:
        async with opened(server.endpoints) as driver:
            names = [LOCK, "invite/telegram/42", "standby/web-1", *(f"leader/{number}" for number in range(50))]
            position = (await driver.read(names)).position
            reads = started(server, "Txn") + started(server, "Range")
            for _ in range(10):
                changes = await driver.wait_changed(names, position, 0.1)
                assert all(entry.lease is None for entry in changes.entries.values())
                position = changes.position
            assert watch_streams(server) == 1
            assert watchers(server) == 1
            assert started(server, "Txn") + started(server, "Range") == reads + 10


async def test_waiter_goes_on_over_its_own_news(etcd_release: str) -> None:
    """A waiter that is told one change after another needs one stream for all of them."""
    with EtcdServer(release=etcd_release) as server:
        async with opened(server.endpoints) as driver:
            lease, position = await driver.grant_lease("a", 30), (await driver.read([LOCK])).position
            for number in range(20):
                await driver.announce(lease, LOCK, str(number).encode())
                changes = await driver.wait_changed([LOCK], position, 5.0)
                position = changes.position
                assert changes.entries[LOCK].record == str(number).encode()
            assert watch_streams(server) == 1


async def test_changes_between_names_wake_nobody(etcd_server: EtcdServer) -> None:
    """Changes of keys that are not waited for do not end a wait, though they lie between those that are."""
    async with opened(etcd_server.endpoints) as driver, opened(etcd_server.endpoints) as elsewhere:
        lease, other = await driver.grant_lease("a", 30), await elsewhere.grant_lease("b", 30)
        names = ["leader/1", "leader/9"]
        position = (await driver.read(names)).position
        waiting = asyncio.ensure_future(driver.wait_changed(names, position, 20.0))
        for number in range(20):
            await driver.announce(lease, "leader/5", str(number).encode())
            await elsewhere.announce(other, "leader/9", str(number).encode())
        assert not waiting.done()
        grant = await taken(driver, lease, b"", "leader/9")
        changes = await waiting
        assert set(changes.entries) == {"leader/9"}
        assert changes.entries["leader/9"].index == grant.index


@pytest.mark.parametrize("moment", ["opening", "waiting", "between"])
async def test_cancelled_wait_leaves_no_watcher(etcd_release: str, moment: str) -> None:
    """A wait that is cancelled ends at once and takes its watch with it; one that nobody goes on with ends soon."""
    with EtcdServer(release=etcd_release) as server:
        async with opened(server.endpoints) as driver:
            position = (await driver.read([LOCK])).position
            if moment == "between":
                await driver.wait_changed([LOCK], position, 0.1)
                assert watchers(server) == 1
            else:
                waiting = asyncio.ensure_future(driver.wait_changed([LOCK], position, 30.0))
                if moment == "opening":
                    await asyncio.sleep(0)
                else:
                    await until(lambda: watchers(server) == 1)
                begun = clock.now()
                waiting.cancel()
                await asyncio.wait([waiting])
                assert waiting.cancelled()
                assert clock.now() - begun < 10  # and not the 30 s of the wait
                await driver.read([LOCK])  # on the same connection, so what came before it has arrived
            await until(lambda: watchers(server) == 0)
            await until(lambda: server.metric("etcd_debugging_mvcc_watch_stream_total") == 0)
            await until(lambda: len(asyncio.all_tasks()) == 1)


async def test_close_ends_a_watch_between_two_waits(etcd_release: str) -> None:
    """Closing the driver leaves no watch and no task, also if the last wait had just ended."""
    with EtcdServer(release=etcd_release) as server:
        driver = EtcdDriver(server.endpoints, request_timeout=4.0)
        await driver.open()
        await driver.wait_changed([LOCK], (await driver.read([LOCK])).position, 0.1)
        await driver.close()
        await until(lambda: watchers(server) == 0)
        await until(lambda: len(asyncio.all_tasks()) == 1)


async def test_waits_with_the_same_position_do_not_disturb_each_other(etcd_server: EtcdServer) -> None:
    """Several waits for the same names at once, and one after another from one position, are all told the change."""
    async with opened(etcd_server.endpoints) as driver:
        lease, position = await driver.grant_lease("a", 30), (await driver.read([LOCK])).position
        await driver.wait_changed([LOCK], position, 0.05)
        waits = [asyncio.ensure_future(driver.wait_changed([LOCK], position, 10.0)) for _ in range(5)]
        await asyncio.sleep(0)
        grant = await taken(driver, lease)
        for changes in await asyncio.gather(*waits):
            assert changes.entries[LOCK].index == grant.index
        for _ in range(2):
            assert (await driver.wait_changed([LOCK], position, 10.0)).entries[LOCK].index == grant.index


async def test_compacted_position_is_read_afresh(etcd_server: EtcdServer) -> None:
    """From a position that was compacted away the wait is a fresh read of all names, and its position serves again."""
    async with opened(etcd_server.endpoints) as driver:
        lease = await driver.grant_lease("a", 30)
        position = (await driver.read([LOCK, "leader/other"])).position
        grant = await taken(driver, lease)
        await driver.announce(lease, "standby/a", b"")
        etcd_server.ctl("compact", str((await driver.read([LOCK])).position))
        changes = await driver.wait_changed([LOCK, "leader/other"], position, 20.0)
        assert changes.entries[LOCK].index == grant.index
        assert changes.entries["leader/other"].lease is None
        await driver.release(grant, b"farewell")
        assert (await driver.wait_changed([LOCK], changes.position, 5.0)).entries[LOCK].lease is None


async def test_compaction_under_a_waiter(etcd_server: EtcdServer) -> None:
    """A waiter that has heard everything is not disturbed when the history behind it is compacted."""
    async with opened(etcd_server.endpoints) as driver:
        lease = await driver.grant_lease("a", 30)
        position = (await driver.read([LOCK])).position
        position = (await driver.wait_changed([LOCK], position, 0.05)).position
        waiting = asyncio.ensure_future(driver.wait_changed([LOCK], position, 20.0))
        for number in range(5):
            await driver.announce(lease, "standby/a", str(number).encode())
        etcd_server.ctl("compact", str((await driver.read([LOCK])).position))
        grant = await taken(driver, lease)
        changes = await waiting
        assert changes.entries[LOCK].index == grant.index


def test_store_that_went_back(etcd_release: str) -> None:
    """After a rebuild, whose revisions are below our position, a wait is a fresh read, not silence."""

    async def main() -> None:
        with EtcdServer(release=etcd_release) as server:
            async with opened(server.endpoints) as driver:
                lease = await driver.grant_lease("a", 60)
                for number in range(20):
                    await driver.announce(lease, "standby/a", str(number).encode())
                grant = await taken(driver, lease)
                before = await driver.read([LOCK])
                await asyncio.to_thread(server.kill)
                shutil.rmtree(server.data_dir / "data")
                await asyncio.to_thread(server.start)
                after = await told(driver, before.position)
                assert after.entries[LOCK].lease is None
                assert after.entries[LOCK].index < grant.index

    async def told(driver: EtcdDriver, position: object) -> Changes:
        give_up = clock.now() + 10
        while clock.now() < give_up:
            with contextlib.suppress(BackendUnavailable):
                return await driver.wait_changed([LOCK], position, 10.0)
            await asyncio.sleep(0.02)
        raise AssertionError("not reached again")

    run(main())


@pytest.mark.parametrize("fault", ["restart", "cut"])
async def test_broken_stream_is_told_and_nothing_is_lost(etcd_release: str, fault: str) -> None:
    """A wait whose stream breaks says so at once; the next one, from the same position, tells what came meanwhile."""
    with EtcdServer(release=etcd_release) as server:
        async with (
            Proxy(server.host, server.client_port) as proxy,
            opened([f"http://127.0.0.1:{proxy.port}"], prefix="cluster-lock/") as driver,
            opened(server.endpoints, prefix="cluster-lock/") as other,
        ):
            lease = await other.grant_lease("a", 60)
            position = (await driver.read([LOCK])).position
            waiting = asyncio.ensure_future(driver.wait_changed([LOCK], position, 60.0))
            await until(lambda: watchers(server) == 1)
            if fault == "cut":
                await proxy.refuse()
                grant = await taken(other, lease)
                await proxy.accept()
            else:
                await asyncio.to_thread(server.restart, kill=True)
            with pytest.raises(BackendUnavailable):
                await waiting
            if fault == "restart":
                await until(lambda: works(other))
                grant = await taken(other, lease)
            await until(lambda: works(driver))
            changes = await driver.wait_changed([LOCK], position, 10.0)
            assert changes.entries[LOCK].index == grant.index


async def test_deaf_stream_does_not_hold_a_wait(etcd_server: EtcdServer) -> None:
    """A wait at a connection that swallows everything is over in its time, established or not."""
    async with (
        Proxy(etcd_server.host, etcd_server.client_port) as proxy,
        opened([f"http://127.0.0.1:{proxy.port}"], request_timeout=1.5) as driver,
    ):
        position = (await driver.read([LOCK])).position
        position = (await driver.wait_changed([LOCK], position, 0.1)).position
        proxy.black_hole()
        begun = clock.now()
        for name in (LOCK, "leader/other"):
            with pytest.raises(BackendUnavailable):
                await driver.wait_changed([name], position, 1.5)
        assert clock.now() - begun < 1.5 + 1.5 + SLACK


@pytest.mark.slow
async def test_pings_find_the_dead_and_spare_the_living() -> None:
    """A wait at a connection that swallows everything ends after some 13 s, not after minutes; at one that is merely
    silent it goes on, though etcd hangs up on clients that ping too often."""

    async def dead(server: EtcdServer) -> None:
        async with (
            Proxy(server.host, server.client_port) as proxy,
            opened([f"http://127.0.0.1:{proxy.port}"]) as driver,
        ):
            position = (await driver.read([LOCK])).position
            waiting = asyncio.ensure_future(driver.wait_changed([LOCK], position, 60.0))
            await until(lambda: watchers(server) == 2)
            proxy.black_hole()
            begun = clock.now()
            with pytest.raises(BackendUnavailable):
                await waiting
            assert clock.now() - begun < 20

    async def living(server: EtcdServer) -> None:
        async with opened(server.endpoints) as driver:
            position = (await driver.read([LOCK])).position
            assert (await driver.wait_changed([LOCK], position, 27.0)).entries[LOCK].lease is None

    with EtcdServer() as server:
        await asyncio.gather(dead(server), living(server))
