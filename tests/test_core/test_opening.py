"""The session that the settings describe."""

from __future__ import annotations

import asyncio

import pytest

from cluster_lock import config
from cluster_lock.config import Settings
from cluster_lock.drivers.memory import MemoryDriver
from cluster_lock.errors import BackendUnavailable
from cluster_lock.session.opening import open_session
from cluster_lock.testing.faulty import FaultyDriver

pytestmark = pytest.mark.virtual


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FaultyDriver:
    """What the settings describe: a backend that is away."""
    driver = FaultyDriver(MemoryDriver())
    driver.down()
    monkeypatch.setattr(config, "open_driver", lambda settings: driver)
    return driver


async def test_a_backend_that_is_away_is_waited_for(driver: FaultyDriver) -> None:
    """A session waits for a backend that is away when the program starts, unless it was asked to fail fast."""
    async with open_session(Settings(instance="a"), fail_fast=True) as session:
        with pytest.raises(BackendUnavailable):
            await session.lease()
    async with open_session(Settings(instance="a")) as session:
        waiting = asyncio.ensure_future(session.lease())
        await asyncio.sleep(60)
        assert not waiting.done()
        driver.up()
        assert await waiting
