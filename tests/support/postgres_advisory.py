"""Drivers of PostgreSQL in the mode `advisory`, and which locks the server has given them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from support.postgres import driver_at

from cluster_lock.drivers.postgres import PostgresDriver
from cluster_lock.testing.servers import PostgresServer
from cluster_lock.values import Grant, Lease

PREFIX = "test/"
"""Of `driver_at`."""
LOCK, OTHER = "leader/x", "leader/y"
LOCKED = "FROM pg_locks WHERE locktype = 'advisory' AND granted"


@asynccontextmanager
async def advisory_at(dsn: str, **options: Any) -> AsyncIterator[PostgresDriver]:
    async with driver_at(dsn, mode="advisory", **options) as driver:
        yield driver


async def taken(driver: PostgresDriver, lease: Lease, name: str = LOCK) -> Grant:
    grant = await driver.acquire(lease, name, lease.holder.encode())
    assert grant is not None
    return grant


def processes(server: PostgresServer, name: str = LOCK) -> list[str]:
    """Those of the server that have the advisory lock of this name, found as docs/postgres.md says."""
    number = f"('x' || left(encode(sha256('{PREFIX}{name}'), 'hex'), 16))::bit(64)::bigint"
    return server.sql(f"SELECT pid {LOCKED} AND classid::bigint << 32 | objid::bigint = {number}").split()
