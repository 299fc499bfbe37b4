"""The one contender record of a process: which locks it waits for, and what it answered when it was invited to take
one.

It stands under the session's lease, so it cannot outlive the process that would have to lead, and under a key that is
this process's alone: two that bear one instance's name are two contenders. It is written when what it says changes, or
when somebody deleted or overwrote it, and with the next renewal when a larger token was heard of. It is never written
to say "I am still here": the lease says that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from cluster_lock import clock
from cluster_lock.driver import Driver
from cluster_lock.drivers.bounded import within
from cluster_lock.errors import BackendRefused, BackendUnavailable, LeaseExpired
from cluster_lock.values import LEADER, STANDBY, Entry, Lease, Record, Timing, contender_key

log = logging.getLogger("cluster_lock.contender")


class Contender:
    """`lease()`: the current lease, or None while there is none. `record(*locks, **more)`: who we are, and what we know
    of `locks`. `later(work)`: do it beside."""

    def __init__(
        self,
        driver: Driver,
        timing: Timing,
        *,
        lease: Callable[[], Lease | None],
        record: Callable[..., Record],
        later: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        me = record()
        self.key, self._instance = contender_key(me), me.instance
        self._driver, self._timing = driver, timing
        self._lease, self._record, self._later = lease, record, later
        self._waits: dict[str, Mapping[str, Any]] = {}
        self._sent: tuple[str, Mapping[str, Mapping[str, Any]], Mapping[str, int]] = "", {}, {}
        """Under which lease, what, and with which tokens, was asked for last."""
        self._sent_bytes = b""
        self._sure = True
        """Is that what stands there?"""
        self._writing = asyncio.Lock()
        self._refused = ""
        self._looked_under = ""
        self._twins: dict[tuple[str, str | None], float] = {}
        """Others of our instance's name, by key and lease, and since when they were seen."""

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

    def heard(self, entry: Entry) -> None:
        """News about our key. What does not stand there as we wrote it is read, and written again."""
        lease = self._lease()
        if lease is not None and self._sent[1] and (entry.lease, entry.record) != (lease.id, self._sent_bytes):
            self.doubt()
            self._later(self.write())

    def doubt(self) -> None:
        """Nobody knows any more what stands there."""
        self._sure = False

    async def write(self) -> None:
        """Make the record say what is so. Never fails: what was not written is written with the next renewal, and a
        lock whose contender has no record is released instead of handed over."""
        try:
            await within(self._timing.request, self._driver.backend, self._write_and_look())
        except BackendRefused as error:
            if str(error) != self._refused:
                self._refused = str(error)
                log.warning("no contender record, so no lock is handed over to us before it is free: %s", error)
        except (BackendUnavailable, LeaseExpired) as error:
            log.debug("contender record not written, again with the next renewal: %s", error)

    async def _write_and_look(self) -> None:
        async with self._writing:
            await self._write()
            await self._look_for_twins()

    async def _write(self) -> None:
        lease = self._lease()
        if lease is None:
            return
        answers = {name: dict(answer) for name, answer in self._waits.items() if answer}
        record = self._record(*self._waits, names=tuple(sorted(self._waits)), answer=answers)
        wanted = lease.id, dict(self._waits), record.tokens
        if not self._waits and self._sent[0] != lease.id:
            return  # nothing of ours was ever there
        if wanted == self._sent:
            self._sure = self._sure or (bool(self._waits) and await self._stands(lease))
            if self._sure:
                return
        self._sent, self._sure = wanted, False
        if self._waits:
            self._sent_bytes = record.to_bytes()
            await self._driver.announce(lease, self.key, self._sent_bytes)
        else:
            await self._driver.withdraw(lease, self.key)
        self._sure = True

    async def _stands(self, lease: Lease) -> bool:
        entry = (await self._driver.read([self.key])).entries[self.key]
        return (entry.lease, entry.record) == (lease.id, self._sent_bytes)

    async def _look_for_twins(self) -> None:
        """Once under each lease, and on until it is clear whether what was found is a process that lives, and not the
        record of one that ended."""
        lease = self._lease()
        if lease is None or not self._waits or (self._looked_under == lease.id and not self._twins):
            return
        self._looked_under = lease.id
        leaders = await self._driver.read([LEADER + name for name in self._waits])
        found = [*await self._driver.scan(STANDBY), *leaders.entries.values()]
        records: dict[tuple[str, str | None], Record | None] = {
            (entry.name, entry.lease): Record.from_bytes(entry.record or b"")
            for entry in found
            if entry.name != self.key and entry.lease not in (None, lease.id)
        }
        now = clock.now()
        self._twins = {
            key: self._twins.get(key, now)
            for key, record in records.items()
            if record is not None and record.instance == self._instance
        }
        # A dead one's lease ends, and one whose place we take has handed over.
        longest = (self._driver.traits.expiry_factor + 1) * self._timing.ttl + self._timing.drain
        for key in [key for key, since in self._twins.items() if now - since > longest]:
            del self._twins[key]
            record = records[key]
            assert record is not None
            log.warning(
                "another process has our name, %s: on %s, pid %d. Give each an instance name of its own: a step-down to"
                " that name may go to either",
                *(self._instance, record.host, record.pid),
            )
