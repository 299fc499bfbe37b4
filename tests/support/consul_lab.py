"""What the tests of the Consul driver share: clients, records, and proxies that note or repeat requests."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

from support.aio import PATIENCE
from support.proxy import Proxy, Rule

from cluster_lock import clock
from cluster_lock.drivers.consul import ConsulDriver
from cluster_lock.errors import BackendUnavailable
from cluster_lock.testing.servers import ConsulServer
from cluster_lock.values import Grant, Lease, Record

LOCK = "leader/telegram/42"
HEIR = "standby/heir"
TXN = b"PUT /v1/txn"
_LATE = 2.0


def record(holder: str, *, released: bool = False) -> bytes:
    return Record(
        holder=holder, instance=holder, host="here", pid=1, since="now", version="0", released=released
    ).to_bytes()


@asynccontextmanager
async def client(*urls: str, **options: Any) -> AsyncIterator[ConsulDriver]:
    """An open driver with a prefix of its own, unless one is given."""
    driver = ConsulDriver(urls, **{"prefix": f"test-{uuid.uuid4().hex[:12]}/", "request_timeout": 5.0, **options})
    await driver.open()
    try:
        yield driver
    finally:
        await driver.close()


def prefix_of(driver: ConsulDriver) -> str:
    return driver._prefix


def raw_key(driver: ConsulDriver, name: str) -> str:
    """The path of the key of `name`, for `ConsulServer.request`."""
    return f"/v1/kv/{quote(prefix_of(driver) + name)}"


def session_of(server: ConsulServer, lease: Lease) -> dict[str, Any] | None:
    """What the server says about a lease, or None if it knows none of that id."""
    found: list[dict[str, Any]] = server.request("GET", f"/v1/session/info/{lease.id}?consistent")
    return found[0] if found else None


def destroy(server: ConsulServer, lease: Lease) -> None:
    """End a lease as a person does: without releasing what it holds."""
    server.request("PUT", f"/v1/session/destroy/{lease.id}")


async def taken(driver: ConsulDriver, lease: Lease, name: str = LOCK) -> Grant:
    """The grant of what must be free."""
    grant = await driver.acquire(lease, name, record(lease.holder))
    assert grant is not None
    return grant


async def works(driver: ConsulDriver, lease: Lease) -> bool:
    """Is a renewal answered?"""
    try:
        await driver.renew(lease)
    except BackendUnavailable:
        return False
    return True


async def unavailable(call: Awaitable[object], within: float) -> None:
    """The call must say that nobody answered, within so many seconds and what this machine may be late."""
    begun = clock.now()
    try:
        answer = await call
    except BackendUnavailable:
        assert clock.now() - begun < within + _LATE
    else:
        raise AssertionError(f"answered {answer!r}")


class Recorder(Proxy):
    """Notes each request as it passes. Clients of these tests send one in one piece."""

    def __init__(self, server: ConsulServer) -> None:
        super().__init__(server.host, server.http_port)
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def rule_for(self, chunk: bytes) -> Rule | None:
        self.requests.append(chunk.decode(errors="replace"))
        return super().rule_for(chunk)

    def lines(self, start: str = "") -> list[str]:
        """The request lines so far that begin like this."""
        lines = [request.split("\r\n", 1)[0] for request in self.requests]
        return [line for line in lines if line.startswith(start)]


class Twice(Recorder):
    """Delivers each PUT a second time, on a connection of its own, while the first one is answered."""

    def __init__(self, server: ConsulServer) -> None:
        super().__init__(server)
        self._copies: set[asyncio.Task[bytes]] = set()
        self.delivered_twice = 0

    def rule_for(self, chunk: bytes) -> Rule | None:
        if chunk.startswith(b"PUT "):
            copy = asyncio.create_task(self._send(chunk))
            self._copies.add(copy)
            copy.add_done_callback(self._sent)
        return super().rule_for(chunk)

    async def _send(self, request: bytes) -> bytes:
        reader, writer = await self.connect()
        try:
            writer.write(request)
            async with asyncio.timeout(PATIENCE):
                return await reader.readline()
        finally:
            writer.close()

    def _sent(self, copy: asyncio.Task[bytes]) -> None:
        self._copies.discard(copy)
        self.delivered_twice += copy.result().startswith(b"HTTP/1.1 ")
