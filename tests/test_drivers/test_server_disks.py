"""Servers whose disk is full: nothing is given away that is not on it, and all goes on when there is room."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.aio import until
from support.drivers import opened
from support.leases import first_lease
from support.postgres import let_time_pass, set_up_long_ago
from support.small_disk import AS_ROOT, fill, small_disk

from cluster_lock.driver import Driver
from cluster_lock.drivers.postgres import PostgresDriver
from cluster_lock.drivers.redis import RedisDriver
from cluster_lock.errors import BackendUnavailable, LeaseExpired
from cluster_lock.testing.servers import PostgresServer, RedisServer
from cluster_lock.values import Grant

pytestmark = AS_ROOT

LOCK = "leader/x"
TTL = 4.0
RECORD = b"x" * 100_000


async def until_it_takes_no_more(driver: Driver, ttl: float = TTL) -> list[Grant]:
    """What was given until then."""
    grants: list[Grant] = []
    with pytest.raises(BackendUnavailable):
        while True:
            lease = await driver.grant_lease("a", ttl)
            grant = await driver.acquire(lease, f"leader/{len(grants)}", RECORD)
            assert grant is not None
            grants.append(grant)
    return grants


async def taken(driver: Driver, name: str) -> Grant:
    """As soon as it can be had. A server that was just started refuses for a while."""
    while True:
        try:
            grant = await driver.acquire(await first_lease(driver, TTL), name, b"b")
        except (BackendUnavailable, LeaseExpired):
            grant = None
        if grant is not None:
            return grant
        await asyncio.sleep(0.05)


@pytest.mark.redis
@pytest.mark.parametrize("fsync", ["always", "everysec"])
async def test_redis(tmp_path: Path, fsync: str) -> None:
    """Whether it ends itself or refuses writes, who asks hears that it is not available; a token from before the disk
    was full is not given again."""
    with small_disk(tmp_path, "size=4m,mode=700"), RedisServer(persistent=True, data_dir=tmp_path) as server:
        server.cli("CONFIG", "SET", "appendfsync", fsync)
        async with opened(RedisDriver([server.url], prefix="disk/", request_timeout=2.0)) as driver:
            first = await taken(driver, LOCK)
            await driver.revoke(first.lease)
            room = fill(tmp_path)
            await until_it_takes_no_more(driver)
            room.unlink()
            if fsync == "always":
                await until(lambda: not server.running)
                await asyncio.to_thread(server.start)
            assert (await taken(driver, LOCK)).token > first.token


@pytest.fixture
def postgres_disk(postgres_release: str) -> Iterator[tuple[PostgresServer, Path]]:
    # Its user may not enter the folders of pytest.
    with (
        tempfile.TemporaryDirectory(prefix="cluster-lock-") as folder,
        small_disk(Path(folder), "size=120m") as disk,
        PostgresServer(release=postgres_release, data_dir=disk) as server,
    ):
        set_up_long_ago(server)
        yield server, disk


@pytest.mark.postgres
async def test_postgres(postgres_disk: tuple[PostgresServer, Path]) -> None:
    """What cannot be written is not given; what was given stands afterwards, and the next token is larger."""
    server, disk = postgres_disk
    async with opened(PostgresDriver(server.dsn, prefix="disk/", request_timeout=5.0)) as driver:
        first = await driver.acquire(await driver.grant_lease("a", 600.0), LOCK, b"a")
        assert first is not None
        room = fill(disk)
        given = [first, *await until_it_takes_no_more(driver, 600.0)]
        room.unlink()
        if not server.running:
            await asyncio.to_thread(server.start)
        await until(lambda: server.sql("SELECT 1") == "1")
        let_time_pass(server)
        stands = await driver.read([grant.name for grant in given])
        assert [stands.entries[grant.name].index for grant in given] == [grant.index for grant in given]
        assert (await taken(driver, "leader/next")).token > max(grant.token for grant in given)
