"""Take a lock away from a leader that may not hear of it.

A leader that is cut off from the backend works on until its deadline. Nobody else may have its lock before that
(docs/design.md#broken-by-hand). So the lock is moved to a lease of ours, by the transaction of a transfer. It is freed
when the old leader has said that its work has ended, or after one ttl of its lease: a renewal that was sent before the
move is trusted for no longer, and one that was sent after it does not count, because a read of the lock follows it.

The old leader says so by standing by again: under the same lease, for this lock, and knowing of our move.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from cluster_lock import clock
from cluster_lock.aio import end
from cluster_lock.driver import Driver, Inspectable
from cluster_lock.drivers.bounded import within
from cluster_lock.errors import BackendRefused, BackendUnavailable, LeaseExpired
from cluster_lock.values import LEADER, STANDBY, Entry, Grant, Lease, LeaseTimes, Record, contender_key

from .first_lease import first_lease

log = logging.getLogger("cluster_lock.quarantine")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Breaking:
    """A lock as it stands, to be taken away. `ttl`: of the lease that holds it, as granted, or as we would ask for."""

    name: str
    entry: Entry
    ttl: float
    fencing_floor: int = 0

    @property
    def record(self) -> Record | None:
        """Of the holder; None if somebody overwrote it."""
        return Record.from_bytes(self.entry.record or b"")

    @property
    def grant(self) -> Grant:
        """The holder's own: everything that is done with it fails once it is not what stands there any more."""
        lease = Lease(self.entry.lease or "", self.ttl, "")
        return Grant(self.entry.name, lease, self.entry.index, self.entry.index, self.entry.record or b"")


@dataclass(frozen=True, slots=True)
class Broken:
    """`stopped`: the old leader said so; else its ttl was waited for. `seconds`: for so long nobody could have it."""

    stopped: bool
    seconds: float


async def look_at(driver: Driver, name: str, *, ttl: float, request: float, fencing_floor: int = 0) -> Breaking | None:
    """What there is to be taken away; None if nobody holds the lock. `ttl`: where the backend does not tell."""
    entry = (await within(request, driver.backend, driver.read([LEADER + name]))).entries[LEADER + name]
    if entry.lease is None:
        return None
    times = LeaseTimes()
    if isinstance(driver, Inspectable):
        try:
            times = (await within(request, driver.backend, driver.lease_times([entry.lease]))).get(entry.lease, times)
        except BackendRefused as error:
            log.debug("the ttl of lease %s is not told, %g s is assumed: %s", entry.lease, ttl, error)
    return Breaking(name, entry, max(ttl, times.ttl or 0.0), fencing_floor)


async def break_now(driver: Driver, breaking: Breaking, ours: Record, *, request: float) -> bool:
    """Free the lock at once. The old leader may work beside the next one, for up to one ttl. False: it was not as seen
    any more, and nothing was done."""
    entry = (await within(request, driver.backend, driver.read([breaking.entry.name]))).entries[breaking.entry.name]
    if (entry.lease, entry.index) != (breaking.entry.lease, breaking.entry.index):
        return False
    await within(request, driver.backend, driver.release(breaking.grant, ours.to_bytes()))
    return True


async def break_slowly(
    driver: Driver, breaking: Breaking, ours: Record, *, request: float, moved: Callable[[], None]
) -> Broken | None:
    """Take the lock away, wait, free it. None: it was not as seen any more, and nothing was done.

    `ours`: what people see under the lock meanwhile. `moved()` is called when the lock is ours. If this is cancelled,
    or its process dies, the lock stays closed for at least one ttl from then on. Raises BackendUnavailable and
    BackendRefused.
    """
    if not driver.traits.transfers:
        raise BackendRefused(f"{driver.backend} cannot move a lock, so it can only be freed at once (--now)")
    # As long as the lease that it follows, so that even a death of ours lets nobody in early.
    lease = await first_lease(driver, ours.holder, breaking.ttl, request=request)
    renewing = asyncio.ensure_future(_keep(driver, lease, request))
    try:
        entry = await _move(driver, breaking, lease, ours, request)
        if entry is None:
            await within(request, driver.backend, driver.revoke(lease))
            return None
        since = clock.now()  # after the answer: no renewal that counts was sent later
        moved()
        stopped = await _wait(driver, breaking, entry, since + breaking.ttl, renewing)
        grant = Grant(entry.name, lease, entry.index, entry.index, entry.record or b"")
        # Not `released`: the next leader settles, as always when a term did not end in good order.
        await within(request, driver.backend, driver.release(grant, ours.to_bytes()))
        await within(request, driver.backend, driver.revoke(lease))
        return Broken(stopped, clock.now() - since)
    except LeaseExpired as error:
        raise BackendUnavailable(f"{driver.backend}: the quarantine ended with its lease: {error}") from error
    finally:
        await end([renewing])


async def _move(driver: Driver, breaking: Breaking, lease: Lease, ours: Record, request: float) -> Entry | None:
    """The lock under our lease; None if it was not as seen. A transfer needs a contender: for a moment we are one, who
    waits for nothing."""
    key = f"{STANDBY}{ours.holder}"
    await within(request, driver.backend, driver.announce(lease, key, ours.to_bytes()))
    heir = Entry(key, lease.id, 0, ours.to_bytes())
    done = await within(request, driver.backend, driver.transfer(breaking.grant, heir, ours.to_bytes()))
    await within(request, driver.backend, driver.withdraw(lease, key))
    if not done:
        return None
    entry = (await within(request, driver.backend, driver.read([breaking.entry.name]))).entries[breaking.entry.name]
    if entry.lease != lease.id:
        raise BackendUnavailable(f"{breaking.name} was taken from us in the same moment; look again")
    return entry


async def _wait(driver: Driver, breaking: Breaking, moved: Entry, until: float, renewing: asyncio.Future[None]) -> bool:
    """Until the old leader has stopped (True) or its time is over."""
    record = breaking.record
    if record is None:
        await asyncio.wait([renewing], timeout=max(0.0, until - clock.now()))
        if renewing.done():
            renewing.result()
        return False
    key, position = contender_key(record), None
    while (left := until - clock.now()) > 0:
        if renewing.done():
            renewing.result()
        try:
            at_most = min(left, 1.0)
            changes = await within(at_most + 2.0, driver.backend, driver.wait_changed([key], position, at_most))
        except BackendUnavailable as error:
            log.info("cannot hear whether the old leader has stopped, waiting for its ttl: %s", error)
            position = None
            await asyncio.sleep(min(left, 0.5))
            continue
        position = changes.position
        if key in changes.entries and has_stopped(breaking, moved, changes.entries[key]):
            return True
    return False


def has_stopped(breaking: Breaking, moved: Entry, standby: Entry) -> bool:
    """Does this contender record say that the old leader works no more?

    Only under the lease from which the lock was taken, only if it waits for this lock, which it does not while it holds
    it, and only if it was composed after the move: nothing before that can know of so large an index, a late copy of an
    older record neither.
    """
    record = Record.from_bytes(standby.record or b"")
    return (
        record is not None
        and standby.lease is not None
        and standby.lease == breaking.entry.lease
        and breaking.name in record.names
        and record.known(breaking.name) >= breaking.fencing_floor + moved.index
    )


async def _keep(driver: Driver, lease: Lease, request: float) -> None:
    """Renew until cancelled; an outage is sat out, and LeaseExpired raised."""
    while True:
        await asyncio.sleep(lease.ttl / 3)
        try:
            await within(request, driver.backend, driver.renew(lease))
        except (BackendUnavailable, BackendRefused) as error:
            log.info("the quarantine was not renewed, trying again: %s", error)
