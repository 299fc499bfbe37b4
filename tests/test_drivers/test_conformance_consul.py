"""Consul keeps the drivers' contract: the whole suite, on a real server whose data is on disk."""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Iterator
from typing import ClassVar
from urllib.parse import quote

import pytest

from cluster_lock.driver import Driver
from cluster_lock.drivers.consul import ConsulDriver
from cluster_lock.testing.conformance import DriverConformance
from cluster_lock.testing.servers import ConsulServer
from cluster_lock.values import Lease

pytestmark = pytest.mark.consul


class TestConsul(DriverConformance):
    ttl = 1.0
    server: ClassVar[ConsulServer]

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _on_disk(cls) -> Iterator[None]:
        with ConsulServer() as cls.server:
            yield

    async def open_driver(self) -> Driver:
        driver = ConsulDriver([self.server.url], prefix=self.prefix, request_timeout=5.0)
        await driver.open()
        return driver

    def _path(self, name: str) -> str:
        return f"/v1/kv/{quote(self.prefix + name)}"

    async def stranger_writes(self, name: str, value: bytes) -> None:
        await self.stranger_writes_bytes(name.encode(), value, None)

    async def stranger_writes_bytes(self, key: bytes, value: bytes, lease: Lease | None) -> None:
        connection = http.client.HTTPConnection(self.server.host, self.server.http_port, timeout=5)
        path = f"/v1/kv/{quote(self.prefix.encode() + key)}?flags=18446744073709551615"
        connection.request("PUT", path + (f"&acquire={lease.id}" if lease is not None else ""), value)
        connection.getresponse().read()
        connection.close()

    async def stranger_deletes(self, name: str) -> None:
        self.server.request("DELETE", self._path(name))

    async def count_leases(self) -> int:
        return len(self.server.request("GET", "/v1/session/list?consistent"))

    async def forgotten_position(self) -> object:
        return 1_000_000_000

    async def restart_server(self) -> None:
        await asyncio.to_thread(self.server.restart)
