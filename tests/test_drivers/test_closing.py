"""A driver that is closed lets go of the server, whatever it is doing."""

from __future__ import annotations

import asyncio
import contextlib
import gc

import pytest
from support.aio import until
from support.backends import Backend
from support.proxy import Proxy
from support.stores import SERVERS, open_driver

from cluster_lock.driver import Driver
from cluster_lock.errors import BackendRefused, BackendUnavailable

LOCK = "leader/x"
TURNS = range(0, 700, 7)
"""Of the event loop, from the first request to the end: a lease, a lock and the first wait take a few hundred."""


async def work(driver: Driver) -> None:
    """One of each kind of request, and a wait that has no end."""
    lease = await driver.grant_lease("web-1", 10.0)
    await driver.acquire(lease, LOCK, b"{}")
    await driver.wait_changed([LOCK], None, 0.0)
    seen = await driver.read([LOCK])
    await driver.wait_changed([LOCK], seen.position, 60.0)


@pytest.mark.parametrize("backend", SERVERS, indirect=True, scope="session")
async def test_closed_at_any_turn(backend: Backend) -> None:
    """No connection outlives a driver that is closed in the middle of its work, at whatever turn of the loop: what was
    under way fails as for a server that is away, and nothing is left open."""
    async with Proxy("127.0.0.1", backend.port) as proxy:
        way = backend.by_way_of(proxy.port)
        for turns in TURNS:
            await closed_after(turns, open_driver(way, f"closing/{turns}/"))

        def none_is_left() -> bool:
            gc.collect()  # gRPC keeps a connection as long as there is an object of a call
            return proxy.connections == 0

        await until(none_is_left)


async def closed_after(turns: int, driver: Driver) -> None:
    await driver.open()
    working = [asyncio.create_task(work(driver)) for _ in range(2)]
    for _ in range(turns):
        await asyncio.sleep(0)
    await driver.close()
    for task in working:
        with contextlib.suppress(BackendUnavailable, BackendRefused):
            await task
