"""A driver for the length of a test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

from cluster_lock.driver import Driver

D = TypeVar("D", bound=Driver)


@asynccontextmanager
async def opened(driver: D) -> AsyncIterator[D]:
    await driver.open()
    try:
        yield driver
    finally:
        await driver.close()
