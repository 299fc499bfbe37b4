"""The etcd driver keeps the contract, on both releases that are supported."""

from __future__ import annotations

import asyncio

import pytest

from cluster_lock.driver import Driver
from cluster_lock.drivers.etcd import EtcdDriver
from cluster_lock.drivers.etcd.library import load
from cluster_lock.testing.conformance import DriverConformance
from cluster_lock.testing.servers import EtcdServer
from cluster_lock.values import Lease

pytestmark = pytest.mark.etcd


class TestEtcd(DriverConformance):
    server: EtcdServer

    @pytest.fixture(autouse=True)
    def _server(self, etcd_server: EtcdServer) -> None:
        self.server = etcd_server

    async def open_driver(self) -> Driver:
        driver = EtcdDriver(self.server.endpoints, prefix=self.prefix, request_timeout=4.0)
        await driver.open()
        return driver

    async def stranger_writes(self, name: str, value: bytes) -> None:
        await self.stranger_writes_bytes(name.encode(), value, None)

    async def stranger_writes_bytes(self, key: bytes, value: bytes, lease: Lease | None) -> None:
        # etcdctl takes no such keys. By the driver's way, which keeps gRPC out of forks.
        grpc, etcdrpc = load()
        async with grpc.aio.insecure_channel(f"{self.server.host}:{self.server.client_port}") as channel:
            held = int(lease.id, 16) if lease is not None else 0
            request = etcdrpc.PutRequest(key=self.prefix.encode() + key, value=value, lease=held)
            await etcdrpc.KVStub(channel).Put(request, timeout=5)

    async def stranger_deletes(self, name: str) -> None:
        self.server.ctl("del", self.prefix + name)

    async def count_leases(self) -> int:
        # "found 3 leases", then one a line
        return int(self.server.ctl("lease", "list").split()[1])

    async def forgotten_position(self) -> object:
        driver = await self.open_driver()
        position = (await driver.read(["leader/x"])).position
        await driver.close()
        for value in "yz":
            self.server.ctl("put", self.prefix + "x", value)
        self.server.ctl("compact", str(int(str(position)) + 2))
        return position

    async def restart_server(self) -> None:
        await asyncio.to_thread(self.server.restart)
