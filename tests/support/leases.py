"""Leases of servers that give none away for a while after their start."""

from __future__ import annotations

import asyncio

from cluster_lock.driver import Driver
from cluster_lock.errors import BackendUnavailable
from cluster_lock.values import Lease


async def first_lease(driver: Driver, ttl: float, holder: str = "somebody") -> Lease:
    """A lease, as soon as there is one to be had. The first request after a fault may find its connection dead."""
    while True:
        try:
            return await driver.grant_lease(holder, ttl)
        except BackendUnavailable:
            await asyncio.sleep(0.05)
