"""A host that vanishes with an advisory lock of PostgreSQL: the server itself must miss it."""

from __future__ import annotations

import asyncio
import contextlib
import sys

import pytest
from support.netns import Network
from support.postgres import driver_at, set_up_long_ago

from cluster_lock import clock
from cluster_lock.errors import BackendUnavailable
from cluster_lock.testing.servers import PostgresServer

pytestmark = [pytest.mark.netns, pytest.mark.postgres]

TTL = 6.0
LOCK = "leader/x"
HOLDER = f"""
import asyncio, contextlib, sys
from cluster_lock.errors import BackendUnavailable
from cluster_lock.drivers.postgres import PostgresDriver

async def main():
    driver = PostgresDriver(sys.argv[1], prefix="test/", request_timeout=2.0, mode="advisory")
    await driver.open()
    lease = await driver.grant_lease("a", {TTL})
    assert await driver.acquire(lease, {LOCK!r}, b"a")
    print("has it", flush=True)
    while True:
        with contextlib.suppress(BackendUnavailable):
            await driver.renew(lease)
        await asyncio.sleep({TTL} / 3)

asyncio.run(main())
"""


async def test_the_server_misses_it_in_about_a_ttl() -> None:
    """The lock is closed for a ttl, and free when the server's keepalives have found out: in about another half."""
    with (
        Network(2) as network,
        PostgresServer(host=network.hosts[0].address, wrapper=network.hosts[0].wrapper) as server,
    ):
        set_up_long_ago(server)
        command = [*network.hosts[1].wrapper, sys.executable, "-c", HOLDER, f"{server.dsn} sslmode=disable"]
        holder = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        try:
            assert holder.stdout is not None
            assert await holder.stdout.readline() == b"has it\n"
            async with driver_at(f"{server.dsn} sslmode=disable", mode="advisory") as driver:
                lease = await driver.grant_lease("b", 60.0)
                assert await driver.acquire(lease, LOCK, b"b") is None
                network.isolate(1)
                cut, grant = clock.now(), None
                while grant is None:
                    await asyncio.sleep(0.1)
                    with contextlib.suppress(BackendUnavailable):  # the server still has its session
                        grant = await driver.acquire(lease, LOCK, b"b")
                assert TTL / 2 < clock.now() - cut < 2 * TTL + 3.0
        finally:
            holder.kill()
            await holder.wait()
