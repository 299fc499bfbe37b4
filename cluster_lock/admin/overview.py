"""What stands under the prefix, as one picture: who leads which lock, who stands by, what is wrong.

It takes a few requests for any number of locks (and on etcd one for each of the first leases). It changes nothing and
needs only the right to read.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar

from cluster_lock.driver import Driver, Inspectable
from cluster_lock.drivers.bounded import within
from cluster_lock.errors import BackendRefused, BackendUnavailable
from cluster_lock.values import LEADER, STANDBY, BackendNode, Entry, LeaseTimes, Record

T = TypeVar("T")

UNKNOWN = LeaseTimes()


@dataclass(frozen=True, slots=True)
class LockSeen:
    """One lock. `term`: the fencing token, None if nobody holds it, or somebody overwrote the record: where the key
    was changed last says nothing of the holder's token then. `record`: of the holder, None if there is none or
    somebody overwrote it. `foreign`: what stands in the way of every leader. `standbys`: instances, oldest record
    first."""

    name: str
    term: int | None = None
    lease: str | None = None
    times: LeaseTimes = UNKNOWN
    record: Record | None = None
    foreign: bytes | None = None
    standbys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Overview:
    """`nodes_problem`: why there are none."""

    backend: str
    locks: tuple[LockSeen, ...]
    nodes: tuple[BackendNode, ...] = ()
    nodes_problem: str | None = None


LEASES = 200
"""With more leases no times are asked for: etcd wants a request for each, and the picture should take a second."""


async def look(driver: Driver, *, only: Collection[str] = (), fencing_floor: int = 0, request: float) -> Overview:
    """The picture at this moment. `driver` is open; `only`: of these locks, none for all; `request`: what one request
    may take, in seconds. The remaining time is asked for LEASES leases at most.

    Raises BackendUnavailable and BackendRefused if the locks cannot be read; anything else that cannot is left out.
    """
    nodes = asyncio.ensure_future(_nodes(driver, request))
    try:
        held, standbys = await asyncio.gather(
            within(
                request,
                driver.backend,
                driver.inspect(LEADER) if isinstance(driver, Inspectable) else driver.scan(LEADER),
            ),
            within(request, driver.backend, driver.scan(STANDBY)),
        )
        waiting = _waiting(standbys)
        if only:
            held = [entry for entry in held if entry.name.removeprefix(LEADER) in only]
            waiting = {name: who for name, who in waiting.items() if name in only}
        times = await _times(driver, request, {entry.lease for entry in held if entry.lease is not None})
        seen, problem = await nodes
    finally:
        nodes.cancel()
    locks = [_lock(entry, fencing_floor, times, waiting) for entry in held]
    known = {lock.name for lock in locks}
    locks += [LockSeen(name, standbys=who) for name, who in waiting.items() if name not in known]
    return Overview(driver.backend, tuple(sorted(locks, key=lambda lock: lock.name)), seen, problem)


async def foreign_value(driver: Driver, name: str, *, request: float) -> bytes | None:
    """What keeps everybody from having the lock `name`, since no leader wrote it; None if nothing does. Raises as
    `look`."""
    if not isinstance(driver, Inspectable):
        return None
    entries = await within(request, driver.backend, driver.inspect(LEADER + name))
    return next((entry.record or b"" for entry in entries if entry.name == LEADER + name and entry.lease is None), None)


def _lock(
    entry: Entry, fencing_floor: int, times: Mapping[str, LeaseTimes], waiting: Mapping[str, tuple[str, ...]]
) -> LockSeen:
    name = entry.name.removeprefix(LEADER)
    standbys = waiting.get(name, ())
    if entry.lease is None:
        return LockSeen(name, foreign=entry.record or b"", standbys=standbys)
    left = times.get(entry.lease, UNKNOWN)
    record = Record.from_bytes(entry.record or b"")
    term = fencing_floor + entry.index if record is not None else None
    return LockSeen(name, term, entry.lease, left, record, standbys=standbys)


def _waiting(standbys: list[Entry]) -> dict[str, tuple[str, ...]]:
    waiting: defaultdict[str, list[str]] = defaultdict(list)
    for entry in standbys:
        record = Record.from_bytes(entry.record or b"")
        if record is not None:
            for name in record.names:
                waiting[name].append(record.instance)
    return {name: tuple(who) for name, who in waiting.items()}


async def _times(driver: Driver, request: float, leases: set[str]) -> Mapping[str, LeaseTimes]:
    if not isinstance(driver, Inspectable) or not leases or len(leases) > LEASES:
        return {}
    try:
        return await within(request, driver.backend, driver.lease_times(leases))
    except (BackendUnavailable, BackendRefused):
        return {}  # a right that may be missing, and nothing but a number is lost


async def _nodes(driver: Driver, request: float) -> tuple[tuple[BackendNode, ...], str | None]:
    if not isinstance(driver, Inspectable):
        return (), "this driver does not tell"
    try:
        return tuple(await within(request, driver.backend, driver.nodes())), None
    except (BackendUnavailable, BackendRefused) as error:
        return (), str(error)
