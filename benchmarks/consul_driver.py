"""What the Consul driver costs over raw aiohttp requests, in the same run, round by round.

    python benchmarks/consul_driver.py [--rounds 300]

Two ratios of medians, each with its target: acquire + release of a free lock (1.3), and a hand-over by transfer and
the heir's read against release + blocking query + acquire (0.95). The server is a real one, with its data on disk; who
waits has its query parked there before the clock starts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence

import aiohttp

from cluster_lock.drivers.consul import ConsulDriver
from cluster_lock.testing.servers import ConsulServer
from cluster_lock.values import Changes, Grant, Lease, Record

RECORD = Record(
    holder="web-1", instance="web-1", host="web-1.example.org", pid=4711, since="2024-01-01T00:00:00Z", version="0"
).to_bytes()
TTL = 3600
WARM_UP = 20
PARKED = 0.01
"""Seconds after which a blocking query has reached the server."""

Times = tuple[list[float], list[float]]
Round = Callable[[], Awaitable[float]]


class Raw:
    """The least that does the same, by hand: no other agents, no errors, no last word, no guards."""

    def __init__(self, url: str) -> None:
        self.http = aiohttp.ClientSession(url)
        self.session = ""

    async def grant(self) -> None:
        body = json.dumps({"TTL": f"{TTL}s", "LockDelay": "0s", "Checks": []})
        async with self.http.put("/v1/session/create", data=body) as answer:
            self.session = (await answer.json())["ID"]

    async def acquire(self, key: str) -> None:
        await self._put(key, "acquire")

    async def release(self, key: str) -> None:
        await self._put(key, "release")

    async def _put(self, key: str, what: str) -> None:
        async with self.http.put(f"/v1/kv/{key}", params={what: self.session}, data=RECORD) as answer:
            assert await answer.json() is True

    async def index(self, key: str) -> str:
        async with self.http.get(f"/v1/kv/{key}") as answer:
            return answer.headers["X-Consul-Index"]

    async def until_free(self, key: str, index: str) -> None:
        async with self.http.get(f"/v1/kv/{key}", params={"index": index, "wait": "10s"}) as answer:
            assert "Session" not in (await answer.json())[0]


class Clock:
    """Milliseconds since it was made."""

    def __init__(self) -> None:
        self._begun = time.perf_counter()

    def read(self) -> float:
        return (time.perf_counter() - self._begun) * 1000


async def uncontended(raw: Raw, driver: ConsulDriver, lease: Lease, rounds: int) -> Times:
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

    return await interleaved(by_hand, by_driver, rounds)


async def hand_over(raws: Sequence[Raw], drivers: Sequence[ConsulDriver], rounds: int) -> Times:
    key, name = "bench/raw-handover", "leader/bench-handover"
    await raws[0].acquire(key)
    leases = [await driver.grant_lease(f"web-{number}", TTL) for number, driver in enumerate(drivers)]
    for number in (0, 1):
        await drivers[number].announce(leases[number], f"standby/web-{number}", RECORD)
    contenders = sorted(await drivers[0].scan("standby/"), key=lambda entry: entry.name)
    granted = await drivers[0].acquire(leases[0], name, RECORD)
    assert granted
    held, leads = granted, [0, 0]

    async def by_hand() -> float:
        old, new = raws[leads[0]], raws[1 - leads[0]]
        told = asyncio.create_task(new.until_free(key, await new.index(key)))
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
        assert (await told).entries[name].lease == leases[new].id
        entry = (await drivers[new].read([name])).entries[name]
        passed = clock.read()
        assert entry.lease == leases[new].id
        assert await handing
        held = Grant(name, leases[new], entry.index, entry.index, RECORD)
        leads[1] = new
        return passed

    return await interleaved(by_hand, by_driver, rounds)


async def interleaved(by_hand: Round, by_driver: Round, rounds: int) -> Times:
    raw_times, driver_times = [], []
    for number in range(WARM_UP + rounds):
        if number % 2:
            raw, driver = await by_hand(), await by_driver()
        else:
            driver, raw = await by_driver(), await by_hand()
        if number >= WARM_UP:
            raw_times.append(raw)
            driver_times.append(driver)
    return raw_times, driver_times


def report(what: str, times: Times, target: float) -> bool:
    raw, driver = (statistics.median(each) for each in times)
    p99s = [statistics.quantiles(each, n=100)[98] for each in times]
    ratio = driver / raw
    print(
        f"{what:<18} raw {raw:6.3f} ms (p99 {p99s[0]:6.3f})   driver {driver:6.3f} ms (p99 {p99s[1]:6.3f})"
        f"   ratio {ratio:.2f}, target {target:.2f}: {'ok' if ratio <= target else 'MISSED'}"
    )
    return ratio <= target


async def run(server: ConsulServer, rounds: int) -> bool:
    raws = Raw(server.url), Raw(server.url)
    drivers = [ConsulDriver([server.url], prefix="bench/", request_timeout=4.0) for _ in range(2)]
    for raw in raws:
        await raw.grant()
    for driver in drivers:
        await driver.open()
    lease = await drivers[0].grant_lease("web-1", TTL)
    good = [
        report("acquire + release", await uncontended(raws[0], drivers[0], lease, rounds), 1.3),
        report("hand-over", await hand_over(raws, drivers, rounds), 0.95),
    ]
    for driver in drivers:
        await driver.close()
    for raw in raws:
        await raw.http.close()
    return all(good)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300)
    options = parser.parse_args()
    with ConsulServer(fast=False) as server:
        print(server)
        return 0 if asyncio.run(run(server, options.rounds)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
