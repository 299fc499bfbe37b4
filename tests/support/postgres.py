"""PostgreSQL servers that are used as if they had run for long, and the driver at them."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from cluster_lock import clock
from cluster_lock.drivers import postgres
from cluster_lock.testing.servers import PostgresServer, find_tool

LATE = 3.0
"""Seconds by which a busy machine may be late; far from the 10 s for which a cursor of psycopg would wait."""


def set_up_long_ago(server: PostgresServer) -> None:
    """Make the schema, and let the time be over in which nobody gets a lease."""
    server.sql(f"BEGIN; {postgres.ddl()} COMMIT")
    let_time_pass(server)


def let_time_pass(server: PostgresServer) -> None:
    """Whatever was just done to it, from now on it gives leases away."""
    server.sql("SELECT cluster_lock.unsafe_for(0); UPDATE cluster_lock.server SET base = base - interval '1 hour'")


def dump(server: PostgresServer, release: str) -> str:
    """What psql makes the same database of."""
    command = [str(find_tool("postgres", "pg_dump", release)), "--dbname", server.dsn]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@asynccontextmanager
async def driver_at(dsn: str, *, limit: float = 5.0, **options: Any) -> AsyncIterator[postgres.PostgresDriver]:
    """`limit`: seconds that a request may take. Its close waits for nobody."""
    driver = postgres.PostgresDriver(dsn, prefix="test/", request_timeout=limit, **options)
    await driver.open()
    try:
        yield driver
    finally:
        begun = clock.now()
        await driver.close()
        assert clock.now() - begun < LATE
