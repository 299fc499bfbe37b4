"""A lease for a command, which asks once and has no time to begin anew."""

from __future__ import annotations

import asyncio
import logging

from cluster_lock import clock
from cluster_lock.driver import Driver
from cluster_lock.drivers.bounded import within
from cluster_lock.errors import NoLeaseYet
from cluster_lock.values import Lease

log = logging.getLogger("cluster_lock.first_lease")

_PAUSE = 0.25


async def first_lease(driver: Driver, holder: str, ttl: float, *, request: float) -> Lease:
    """A new lease; `request`: seconds for one attempt. While too few of several endpoints answer it is waited for, for
    one ttl at most, and this is said once. Raises BackendUnavailable and BackendRefused."""
    until, said = clock.now() + ttl + request, False
    while True:
        try:
            return await within(request, driver.backend, driver.grant_lease(holder, ttl))
        except NoLeaseYet as error:
            if clock.now() >= until:
                raise
            if not said:
                log.warning("%s", error)
                said = True
        await asyncio.sleep(_PAUSE)
