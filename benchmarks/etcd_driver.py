"""What the etcd driver costs over the raw grpc.aio client, in the same run, round by round.

    python benchmarks/etcd_driver.py [--release 3.5] [--rounds 300]

Two ratios of medians, each with its target: acquire + release of a free lock (1.3), and a hand-over by transfer and
the heir's read against release + watch + acquire (0.95). The server is a real one, with its data on disk.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc.aio
from etcd3 import etcdrpc as rpc

from cluster_lock.drivers.etcd import EtcdDriver
from cluster_lock.testing.servers import EtcdServer
from cluster_lock.values import Entry, Grant, Lease

RECORD = b'{"holder": "web-1", "instance": "web-1", "host": "web-1.example.org", "pid": 4711, "seen": 0}' * 3
TTL = 60
WARM_UP = 20


class Raw:
    """The least that does the same, by hand: no endpoints, no errors, no last word."""

    def __init__(self, target: str, lease: int) -> None:
        self.channel = grpc.aio.insecure_channel(target)
        self.kv = rpc.KVStub(self.channel)
        self.lease = lease
        self.watching: Any = None

    async def grant(self) -> None:
        await rpc.LeaseStub(self.channel).LeaseGrant(rpc.LeaseGrantRequest(TTL=TTL, ID=self.lease), timeout=4)

    async def acquire(self, key: bytes) -> int:
        compare = rpc.Compare(result=rpc.Compare.EQUAL, target=rpc.Compare.CREATE, key=key, create_revision=0)
        put = rpc.RequestOp(request_put=rpc.PutRequest(key=key, value=RECORD, lease=self.lease))
        get = rpc.RequestOp(request_range=rpc.RangeRequest(key=key))
        answer = await self.kv.Txn(rpc.TxnRequest(compare=[compare], success=[put], failure=[get]), timeout=4)
        assert answer.succeeded
        return int(answer.header.revision)

    async def release(self, key: bytes, revision: int) -> None:
        compare = rpc.Compare(result=rpc.Compare.EQUAL, target=rpc.Compare.MOD, key=key, mod_revision=revision)
        delete = rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=key))
        answer = await self.kv.Txn(rpc.TxnRequest(compare=[compare], success=[delete]), timeout=4)
        assert answer.succeeded

    async def watch(self, key: bytes) -> None:
        self.watching = rpc.WatchStub(self.channel).Watch()
        await self.watching.write(rpc.WatchRequest(create_request=rpc.WatchCreateRequest(key=key)))
        assert (await self.watching.read()).created

    async def until_deleted(self) -> None:
        while True:
            if any(event.type == 1 for event in (await self.watching.read()).events):
                return


async def timed(work: Callable[[], Awaitable[None]]) -> float:
    begun = time.perf_counter()
    await work()
    return (time.perf_counter() - begun) * 1000


async def uncontended(raw: Raw, driver: EtcdDriver, lease: Lease, rounds: int) -> tuple[list[float], list[float]]:
    async def by_hand() -> None:
        await raw.release(b"bench/raw", await raw.acquire(b"bench/raw"))

    async def by_driver() -> None:
        grant = await driver.acquire(lease, "leader/bench", RECORD)
        assert grant
        await driver.release(grant, RECORD)

    return await interleaved(by_hand, by_driver, rounds)


async def hand_over(
    raws: tuple[Raw, Raw], drivers: tuple[EtcdDriver, EtcdDriver], rounds: int
) -> tuple[list[float], list[float]]:
    key, name = b"bench/raw-handover", "leader/bench-handover"
    for raw in raws:
        await raw.watch(key)
    raw_held = [await raws[0].acquire(key)]
    leases = [await driver.grant_lease(f"web-{number}", TTL) for number, driver in enumerate(drivers)]
    for number in (0, 1):
        await drivers[number].announce(leases[number], f"standby/web-{number}", RECORD)
    contenders = sorted(await drivers[0].scan("standby/"), key=lambda entry: entry.name)
    granted = await drivers[0].acquire(leases[0], name, RECORD)
    assert granted
    held, turn = [granted], [0, 0]
    positions = [(await driver.read([name])).position for driver in drivers]

    async def by_hand() -> None:
        old, new = raws[turn[0]], raws[1 - turn[0]]
        told = asyncio.create_task(new.until_deleted())
        await asyncio.sleep(0)
        await old.release(key, raw_held[0])
        await told
        raw_held[0] = await new.acquire(key)
        turn[0] = 1 - turn[0]

    async def by_driver() -> None:
        old, new = turn[1], 1 - turn[1]
        handing = asyncio.create_task(drivers[old].transfer(held[0], contenders[new], RECORD))
        entry = await until_held(drivers[new], positions, new, leases[new])
        entry = (await drivers[new].read([name])).entries[name]
        assert entry.lease == leases[new].id
        assert await handing
        held[0] = Grant(name, leases[new], entry.index, entry.index, RECORD)
        turn[1] = new

    async def until_held(driver: EtcdDriver, positions: list[Any], number: int, lease: Lease) -> Entry:
        while True:
            changes = await driver.wait_changed([name], positions[number], 5.0)
            positions[number] = changes.position
            entry = changes.entries.get(name)
            if entry is not None and entry.lease == lease.id:
                return entry

    async def between() -> None:
        """The other one hears of it too, outside of the measured time, as it would while it is leading."""
        other = 1 - turn[1]
        changes = await drivers[other].wait_changed([name], positions[other], 5.0)
        positions[other] = changes.position

    return await interleaved(by_hand, by_driver, rounds, between)


async def interleaved(
    by_hand: Callable[[], Awaitable[None]],
    by_driver: Callable[[], Awaitable[None]],
    rounds: int,
    between: Callable[[], Awaitable[None]] | None = None,
) -> tuple[list[float], list[float]]:
    raw_times, driver_times = [], []
    for number in range(WARM_UP + rounds):
        pair = (
            [await timed(by_hand), await timed(by_driver)]
            if number % 2
            else [*reversed([await timed(by_driver), await timed(by_hand)])]
        )
        if between:
            await between()
        if number >= WARM_UP:
            raw_times.append(pair[0])
            driver_times.append(pair[1])
    return raw_times, driver_times


def report(what: str, times: tuple[Sequence[float], Sequence[float]], target: float) -> bool:
    raw, driver = (statistics.median(each) for each in times)
    p99s = [statistics.quantiles(each, n=100)[98] for each in times]
    ratio = driver / raw
    print(
        f"{what:<18} raw {raw:6.3f} ms (p99 {p99s[0]:6.3f})   driver {driver:6.3f} ms (p99 {p99s[1]:6.3f})"
        f"   ratio {ratio:.2f}, target {target:.2f}: {'ok' if ratio <= target else 'MISSED'}"
    )
    return ratio <= target


async def run(server: EtcdServer, rounds: int) -> bool:
    target = f"{server.host}:{server.client_port}"
    raws = Raw(target, 1001), Raw(target, 1002)
    drivers = tuple(EtcdDriver(server.endpoints, prefix="bench/", request_timeout=4.0) for _ in range(2))
    for raw in raws:
        await raw.grant()
    for driver in drivers:
        await driver.open()
    first, second = drivers
    lease = await first.grant_lease("web-1", TTL)
    good = [
        report("acquire + release", await uncontended(raws[0], first, lease, rounds), 1.3),
        report("hand-over", await hand_over(raws, (first, second), rounds), 0.95),
    ]
    for driver in drivers:
        await driver.close()
    for raw in raws:
        await raw.channel.close()
    return all(good)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--release", choices=("3.4", "3.5"), default=None)
    parser.add_argument("--rounds", type=int, default=300)
    options = parser.parse_args()
    with EtcdServer(release=options.release, fast=False) as server:
        print(server)
        return 0 if asyncio.run(run(server, options.rounds)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
