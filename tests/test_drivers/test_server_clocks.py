"""Servers whose leases end by the wall clock, and what setting that clock does. What stands in the store says when
things end, so to move that by an hour is to move the clock by an hour the other way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager

import pytest
from support.drivers import opened
from support.leases import first_lease
from support.postgres import set_up_long_ago

from cluster_lock import clock
from cluster_lock.driver import Driver
from cluster_lock.drivers.postgres import PostgresDriver
from cluster_lock.drivers.redis import RedisDriver
from cluster_lock.errors import LeaseExpired
from cluster_lock.testing.servers import PostgresServer, RedisServer

PREFIX, LOCK = "clocks/", "leader/x"
TTL = 4.0
HOUR = 3600


class Ground(ABC):
    """A server of the test's own."""

    def driver(self) -> AbstractAsyncContextManager[Driver]:
        return opened(self.make())

    @abstractmethod
    def make(self) -> Driver: ...

    @abstractmethod
    def set_clock(self, seconds: int) -> None:
        """Set it by so much; back, if that is less than nothing."""


class OnRedis(Ground):
    def __init__(self, server: RedisServer) -> None:
        self.server = server

    def make(self) -> Driver:
        return RedisDriver([self.server.url], prefix=PREFIX, request_timeout=5.0)

    def set_clock(self, seconds: int) -> None:
        # Redis has no times on keys but the ends of leases. To have been an hour ahead leaves an index of then.
        for key in self.server.cli("KEYS", f"{PREFIX}lease/*").split():
            left = int(self.server.cli("PTTL", key)) - 1000 * seconds
            self.server.cli("PEXPIRE", key, str(left)) if left > 0 else self.server.cli("DEL", key)
        if seconds < 0:
            index = int(self.server.cli("GET", f"{PREFIX}index")) - 1000000 * seconds
            self.server.cli("SET", f"{PREFIX}index", str(index))


class OnPostgres(Ground):
    def __init__(self, server: PostgresServer) -> None:
        self.server = server

    def make(self) -> Driver:
        return PostgresDriver(self.server.dsn, prefix=PREFIX, request_timeout=5.0)

    def set_clock(self, seconds: int) -> None:
        by = f"interval '{-seconds} seconds'"
        self.server.sql(
            f"UPDATE cluster_lock.lease SET expires_at = expires_at + {by};"
            f" UPDATE cluster_lock.key SET changed_at = changed_at + {by};"
            f" UPDATE cluster_lock.server SET base = base + {by}"
        )


@pytest.fixture(
    params=[
        pytest.param("redis", marks=pytest.mark.redis),
        pytest.param("15", marks=pytest.mark.postgres),
        pytest.param("18", marks=pytest.mark.postgres),
    ]
)
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    if request.param == "redis":
        with RedisServer() as redis:
            yield OnRedis(redis)
    else:
        with PostgresServer(release=request.param) as postgres:
            set_up_long_ago(postgres)
            yield OnPostgres(postgres)


async def test_set_forward_and_back(ground: Ground) -> None:
    """Set forward it ends leases, for their holders, too, and the next token is larger; also after it was set right."""
    async with ground.driver() as driver, ground.driver() as other:
        first = await driver.acquire(await first_lease(driver, TTL), LOCK, b"a")
        assert first is not None
        ground.set_clock(HOUR)
        with pytest.raises(LeaseExpired):
            await driver.renew(first.lease)
        second = await other.acquire(await first_lease(other, TTL), LOCK, b"b")
        assert second is not None
        assert second.token > first.token
        ground.set_clock(-HOUR)
        await other.renew(second.lease)
        await other.release(second, b"")
        third = await driver.acquire(await first_lease(driver, TTL), LOCK, b"a")
        assert third is not None
        assert third.token > second.token


async def test_set_back_while_a_holder_dies(ground: Ground) -> None:
    """New leases are given, and after a ttl its lock is free, not only when the clock is there again."""
    async with ground.driver() as driver, ground.driver() as other:
        first = await driver.acquire(await first_lease(driver, TTL), LOCK, b"a")
        assert first is not None
        ground.set_clock(-2 * HOUR)
        looked = clock.now()
        position = (await other.read([LOCK])).position
        heir = await first_lease(other, TTL)
        second = None
        while second is None:
            assert clock.now() - looked < 60
            position = (await other.wait_changed([LOCK], position, 2.0)).position
            await other.renew(heir)
            second = await other.acquire(heir, LOCK, b"b")
        assert clock.now() - looked >= TTL
        assert second.token > first.token


async def test_set_back_while_a_holder_lives(ground: Ground) -> None:
    """It keeps its lock."""
    async with ground.driver() as driver, ground.driver() as other:
        first = await driver.acquire(await first_lease(driver, TTL), LOCK, b"a")
        assert first is not None
        heir = await first_lease(other, TTL)
        ground.set_clock(-2 * HOUR)
        until = clock.now() + 2 * TTL
        while clock.now() < until:
            await driver.renew(first.lease)
            await other.renew(heir)
            await other.read([LOCK])
            assert await other.acquire(heir, LOCK, b"b") is None
