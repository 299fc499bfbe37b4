"""A driver beside the least that does the same by hand, in the same run, round by round: what the benchmarks of the
drivers share.

Two ratios of medians, each with its target: acquire + release of a free lock (1.3), and a hand-over by transfer and
the heir's read, where its wait was none, against release + wake + acquire (0.95). Who waits has its request parked
before the clock starts.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from cluster_lock.driver import Driver
from cluster_lock.values import Changes, Grant, Lease, Record

RECORD = Record(
    holder="web-1", instance="web-1", host="web-1.example.org", pid=4711, since="2024-01-01T00:00:00Z", version="0"
).to_bytes()
TTL = 60
WARM_UP = 20
PARKED = 0.01
"""Seconds after which a waiting request has reached the server."""

Round = Callable[[], Awaitable[float]]


class Raw(Protocol):
    """A client of the same server by hand: no other addresses, no errors, no last word."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def acquire(self, key: str) -> None: ...

    async def release(self, key: str) -> None: ...

    async def until_free(self, key: str) -> None:
        """Wait until somebody releases it, as the server tells it."""
        ...


class Clock:
    """Milliseconds since it was made."""

    def __init__(self) -> None:
        self._begun = time.perf_counter()

    def read(self) -> float:
        return (time.perf_counter() - self._begun) * 1000


async def compare(raws: Sequence[Raw], drivers: Sequence[Driver], rounds: int) -> bool:
    """Two clients of each, opened and closed here. Prints both ratios; whether both are on target."""
    for client in (*raws, *drivers):
        await client.open()
    try:
        leases = [await driver.grant_lease(f"web-{number}", TTL) for number, driver in enumerate(drivers)]
        good = [
            await _report("acquire + release", *_uncontended(raws[0], drivers[0], leases[0]), rounds, 1.3),
            await _report("hand-over", *await _hand_over(raws, drivers, leases), rounds, 0.95),
        ]
        return all(good)
    finally:
        for client in (*drivers, *raws):
            await client.close()


def _uncontended(raw: Raw, driver: Driver, lease: Lease) -> tuple[Round, Round]:
    async def by_hand() -> float:
        clock = Clock()
        await raw.acquire("bench/raw")
        await raw.release("bench/raw")
        return clock.read()

    async def by_driver() -> float:
        clock = Clock()
        grant = await driver.acquire(lease, "leader/bench", RECORD)
        assert grant
        await driver.release(grant, RECORD)
        return clock.read()

    return by_hand, by_driver


async def _hand_over(raws: Sequence[Raw], drivers: Sequence[Driver], leases: Sequence[Lease]) -> tuple[Round, Round]:
    key, name = "bench/raw-handover", "leader/bench-handover"
    await raws[0].acquire(key)
    for number in (0, 1):
        await drivers[number].announce(leases[number], f"standby/web-{number}", RECORD)
    contenders = sorted(await drivers[0].scan("standby/"), key=lambda entry: entry.name)
    granted = await drivers[0].acquire(leases[0], name, RECORD)
    assert granted
    held, leads = granted, [0, 0]

    async def by_hand() -> float:
        old, new = raws[leads[0]], raws[1 - leads[0]]
        told = asyncio.create_task(new.until_free(key))
        await asyncio.sleep(PARKED)
        clock = Clock()
        await old.release(key)
        await told
        await new.acquire(key)
        leads[0] = 1 - leads[0]
        return clock.read()

    async def by_driver() -> float:
        nonlocal held
        old, new = leads[1], 1 - leads[1]
        position = (await drivers[new].read([name])).position
        told: asyncio.Task[Changes] = asyncio.create_task(drivers[new].wait_changed([name], position, 10.0))
        await asyncio.sleep(PARKED)
        clock = Clock()
        handing = asyncio.create_task(drivers[old].transfer(held, contenders[new], RECORD))
        entry = (await told).entries[name]
        if not drivers[new].traits.linearizable_waits:
            entry = (await drivers[new].read([name])).entries[name]
        passed = clock.read()
        assert entry.lease == leases[new].id
        assert await handing
        held = Grant(name, leases[new], entry.index, entry.index, RECORD)
        leads[1] = new
        return passed

    return by_hand, by_driver


async def _report(what: str, by_hand: Round, by_driver: Round, rounds: int, target: float) -> bool:
    raw_times, driver_times = [], []
    for number in range(WARM_UP + rounds):
        if number % 2:
            raw, driver = await by_hand(), await by_driver()
        else:
            driver, raw = await by_driver(), await by_hand()
        if number >= WARM_UP:
            raw_times.append(raw)
            driver_times.append(driver)
    medians = [statistics.median(each) for each in (raw_times, driver_times)]
    p99s = [statistics.quantiles(each, n=100)[98] for each in (raw_times, driver_times)]
    ratio = medians[1] / medians[0]
    print(
        f"{what:<18} raw {medians[0]:6.3f} ms (p99 {p99s[0]:6.3f})   driver {medians[1]:6.3f} ms (p99 {p99s[1]:6.3f})"
        f"   ratio {ratio:.2f}, target {target:.2f}: {'ok' if ratio <= target else 'MISSED'}"
    )
    return ratio <= target
