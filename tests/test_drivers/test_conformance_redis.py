"""The redis driver keeps the contract."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import redis.asyncio

from cluster_lock.driver import Driver
from cluster_lock.drivers.redis import RedisDriver
from cluster_lock.testing.conformance import DriverConformance
from cluster_lock.testing.servers import RedisServer
from cluster_lock.values import Lease

pytestmark = pytest.mark.redis

LONGEST_TTL = 30
"""Seconds, of the leases that the suite asks for. A younger server gives none away."""


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


class TestRedis(DriverConformance):
    server: RedisServer

    @pytest.fixture(autouse=True)
    def _server(self, redis_server: RedisServer) -> None:
        self.server = redis_server
        self.server.wait_age(LONGEST_TTL)  # one test restarts it

    async def open_driver(self) -> Driver:
        driver = RedisDriver([self.server.url], prefix=self.prefix, request_timeout=4.0)
        await driver.open()
        return driver

    async def stranger_writes(self, name: str, value: bytes) -> None:
        await self.stranger_writes_bytes(name.encode(), value, None)

    async def stranger_writes_bytes(self, key: bytes, value: bytes, lease: Lease | None) -> None:
        header = f"{lease.id} 1 ".encode() if lease is not None else b""
        async with redis.asyncio.Redis(host=self.server.host, port=self.server.port) as client:
            await client.set(self.prefix.encode() + key, header + value)

    async def stranger_deletes(self, name: str) -> None:
        self.server.cli("DEL", self.prefix + name)

    async def count_leases(self) -> int:
        return len(self.server.cli("KEYS", "*/lease/*").split())

    async def forgotten_position(self) -> object:
        driver = await self.open_driver()
        position = (await driver.read(["leader/x"])).position
        await driver.close()
        return position

    async def restart_server(self) -> None:
        await asyncio.to_thread(self.server.restart)
