"""Drivers of a real etcd for tests."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from cluster_lock.drivers.etcd import EtcdDriver
from cluster_lock.errors import BackendUnavailable
from cluster_lock.testing.servers import EtcdServer
from cluster_lock.values import Entry, Grant, Lease

LOCK = "leader/telegram/42"


def new_prefix() -> str:
    """One that no other test uses, and which the role of `EtcdServer(auth=True)` may read and write."""
    return f"cluster-lock/{uuid.uuid4().hex[:12]}/"


@asynccontextmanager
async def opened(
    endpoints: Sequence[str], *, prefix: str = "", request_timeout: float = 4.0, **access: Any
) -> AsyncIterator[EtcdDriver]:
    """A driver that is closed at the end of the block; `prefix`: a new one unless given."""
    driver = EtcdDriver(endpoints, prefix=prefix or new_prefix(), request_timeout=request_timeout, **access)
    await driver.open()
    try:
        yield driver
    finally:
        await driver.close()


async def taken(driver: EtcdDriver, lease: Lease, record: bytes = b"record", name: str = LOCK) -> Grant:
    """The grant of a lock that must be free, or ours."""
    grant = await driver.acquire(lease, name, record)
    assert grant is not None, f"{name} was refused to {lease.holder}"
    return grant


async def entry(driver: EtcdDriver, name: str = LOCK) -> Entry:
    return (await driver.read([name])).entries[name]


async def announced(driver: EtcdDriver, lease: Lease) -> Entry:
    """The entry of `lease.holder` as a contender."""
    name = f"standby/{lease.holder}"
    await driver.announce(lease, name, b"contender")
    return await entry(driver, name)


def started(server: EtcdServer, method: str, service: str = "KV", kind: str = "unary") -> float:
    """How many calls of a gRPC method the server has begun to serve."""
    return server.metric(
        f'grpc_server_started_total{{grpc_method="{method}",grpc_service="etcdserverpb.{service}",grpc_type="{kind}"}}'
    )


async def works(driver: EtcdDriver) -> bool:
    """Whether the server answers the driver at this moment; for `until`."""
    with contextlib.suppress(BackendUnavailable):
        return bool(await driver.read([LOCK]))
    return False
