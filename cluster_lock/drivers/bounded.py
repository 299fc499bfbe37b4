"""A limit in time around every verb of a driver, once for all who ask."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection
from typing import TypeVar

from cluster_lock.driver import Driver
from cluster_lock.errors import BackendUnavailable
from cluster_lock.values import Changes, Entry, Grant, Lease, Traits

T = TypeVar("T")


async def within(seconds: float | None, backend: str, request: Awaitable[T]) -> T:
    """What `request` returns. Raises BackendUnavailable after so many seconds (None: no limit), and for a TimeoutError;
    it may have been applied all the same."""
    try:
        async with asyncio.timeout(seconds):
            return await request
    except TimeoutError as error:
        raise BackendUnavailable(f"{backend} did not answer in time") from error


class BoundedDriver:
    """The verbs of `driver`, each with `seconds`, and BackendUnavailable after them. `wait_changed` has a limit of its
    own, which its caller sets."""

    def __init__(self, driver: Driver, seconds: float) -> None:
        self._driver, self._seconds = driver, seconds

    @property
    def traits(self) -> Traits:
        return self._driver.traits

    @property
    def backend(self) -> str:
        return self._driver.backend

    async def open(self) -> None:
        await self._driver.open()

    async def close(self) -> None:
        await self._driver.close()

    async def grant_lease(self, holder: str, ttl: float) -> Lease:
        return await self._within(self._driver.grant_lease(holder, ttl))

    async def renew(self, lease: Lease) -> int:
        return await self._within(self._driver.renew(lease))

    async def revoke(self, lease: Lease) -> None:
        await self._within(self._driver.revoke(lease))

    async def acquire(self, lease: Lease, name: str, record: bytes) -> Grant | None:
        return await self._within(self._driver.acquire(lease, name, record))

    async def release(self, grant: Grant, farewell: bytes) -> None:
        await self._within(self._driver.release(grant, farewell))

    async def transfer(self, grant: Grant, heir: Entry, record: bytes) -> bool:
        return await self._within(self._driver.transfer(grant, heir, record))

    async def announce(self, lease: Lease, name: str, record: bytes) -> None:
        await self._within(self._driver.announce(lease, name, record))

    async def withdraw(self, lease: Lease, name: str) -> None:
        await self._within(self._driver.withdraw(lease, name))

    async def read(self, names: Collection[str]) -> Changes:
        return await self._within(self._driver.read(names))

    async def scan(self, prefix: str) -> list[Entry]:
        return await self._within(self._driver.scan(prefix))

    async def wait_changed(self, names: Collection[str], since: object | None, at_most: float) -> Changes:
        return await within(None, self._driver.backend, self._driver.wait_changed(names, since, at_most))

    async def _within(self, request: Awaitable[T]) -> T:
        return await within(self._seconds, self._driver.backend, request)
