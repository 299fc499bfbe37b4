"""The one contender record of a process: which locks it waits for, and what it answered when it was invited to take
one.

It stands under the session's lease, so it cannot outlive the process that would have to lead. It is written when what
it says changes, and never to say "I am still here": the lease says that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from .driver import Driver
from .errors import BackendRefused, BackendUnavailable, LeaseExpired
from .values import STANDBY, Lease, Record

log = logging.getLogger("cluster_lock.contender")


class Contender:
    """`lease()`: the current lease, or None while there is none. `record(**more)`: who we are."""

    def __init__(
        self,
        driver: Driver,
        instance: str,
        request: float,
        *,
        lease: Callable[[], Lease | None],
        record: Callable[..., Record],
    ) -> None:
        self.key = STANDBY + instance
        self._driver, self._request, self._lease, self._record = driver, request, lease, record
        self._waits: dict[str, Mapping[str, Any]] = {}
        self._written: tuple[str, dict[str, Mapping[str, Any]] | None] = "", None
        """Under which lease, and what; None: nobody knows, the request was not answered."""
        self._writing = asyncio.Lock()
        self._refused = ""

    def __contains__(self, name: str) -> bool:
        return name in self._waits

    def wait_for(self, name: str) -> None:
        """Be a contender for the lock `name`; `write` says so to the others."""
        self._waits.setdefault(name, {})

    def answer(self, name: str, answer: Mapping[str, Any]) -> None:
        """Answer an invitation to take `name` over; void if nobody here waits for it any more."""
        if name in self._waits:
            self._waits[name] = answer

    def withdraw(self, name: str) -> None:
        """Wait for `name` no more."""
        self._waits.pop(name, None)

    async def write(self) -> None:
        """Make the record say what is so. Never fails: what was not written is written with the next renewal, and a
        lock whose contender has no record is released instead of handed over."""
        try:
            async with asyncio.timeout(self._request), self._writing:
                await self._write()
        except BackendRefused as error:
            if str(error) != self._refused:
                self._refused = str(error)
                log.warning("no contender record, so no lock is handed over to us before it is free: %s", error)
        except (BackendUnavailable, LeaseExpired, TimeoutError) as error:
            why = str(error) or "no answer in time"
            log.debug("contender record not written, again with the next renewal: %s", why)

    async def _write(self) -> None:
        lease = self._lease()
        if lease is None:
            return
        wanted = (lease.id, dict(self._waits))
        if wanted == self._written or (not self._waits and self._written[0] != lease.id):
            return
        self._written = lease.id, None
        if self._waits:
            answers = {name: dict(answer) for name, answer in self._waits.items() if answer}
            record = self._record(names=tuple(sorted(self._waits)), answer=answers)
            await self._driver.announce(lease, self.key, record.to_bytes())
        else:
            await self._driver.withdraw(lease, self.key)
        self._written = wanted
