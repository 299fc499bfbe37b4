"""What a session asks of its backend: requests per ttl of a holder of 1, 100 and 1,000 locks, and of an idle standby.

    python benchmarks/renewals.py [--ttls 5]

On real servers with the default ratio of the timings; the target is 3 renewals per ttl whatever the number of locks,
and nothing from a standby but its renewals and one waiting request at a time.
"""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from typing import Any

from cluster_lock.drivers.consul import ConsulDriver
from cluster_lock.drivers.etcd import EtcdDriver
from cluster_lock.drivers.postgres import PostgresDriver
from cluster_lock.drivers.redis import RedisDriver
from cluster_lock.lease.guard import NoGuard
from cluster_lock.session import Session
from cluster_lock.testing.servers import ConsulServer, EtcdServer, PostgresServer, RedisServer
from cluster_lock.values import Timing

TIMING = Timing(ttl=3.0, margin=0.5, stop_time=0.3)
VERBS = ("grant_lease", "renew", "revoke", "acquire", "release", "transfer", "announce", "withdraw", "read", "scan")


def counted(driver: Any) -> Counter[str]:
    """Count the calls of each verb of this driver object from now on."""
    calls: Counter[str] = Counter()

    def count(verb: str) -> None:
        inner = getattr(driver, verb)

        async def call(*arguments: Any, **options: Any) -> Any:
            calls[verb] += 1
            return await inner(*arguments, **options)

        setattr(driver, verb, call)

    for verb in (*VERBS, "wait_changed"):
        count(verb)
    return calls


async def measure(name: str, make: Any, ttls: int) -> None:
    for locks in (1, 100, 1000):
        driver = make(f"bench-{locks}/")
        calls = counted(driver)
        async with Session(driver, instance="holder", timing=TIMING, guard=NoGuard()) as session:
            holds = [await session.lock(f"lock-{number}").acquire() for number in range(locks)]
            calls.clear()
            await asyncio.sleep(ttls * TIMING.ttl)
            said = ", ".join(f"{verb} {count / ttls:.1f}" for verb, count in sorted(calls.items()))
            print(f"{name}: holder of {locks:4} locks, per ttl: {said}")
            standby = make(f"bench-{locks}/")
            waiting_calls = counted(standby)
            async with Session(standby, instance="standby", timing=TIMING, guard=NoGuard()) as other:
                task = asyncio.create_task(other.lock("lock-0").acquire())
                await asyncio.sleep(TIMING.ttl)
                waiting_calls.clear()
                await asyncio.sleep(ttls * TIMING.ttl)
                said = ", ".join(f"{verb} {count / ttls:.1f}" for verb, count in sorted(waiting_calls.items()))
                print(f"{name}: idle standby of one of {locks:4}, per ttl: {said}")
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            for hold in holds:
                await hold.end({})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ttls", type=int, default=5)
    ttls = parser.parse_args().ttls
    request = TIMING.request
    with EtcdServer() as etcd:
        endpoints = etcd.endpoints
        asyncio.run(measure("etcd", lambda p: EtcdDriver(endpoints=endpoints, prefix=p, request_timeout=request), ttls))
    with ConsulServer() as consul:
        url = consul.url
        asyncio.run(measure("consul", lambda p: ConsulDriver(urls=[url], prefix=p, request_timeout=request), ttls))
    with RedisServer() as redis:
        redis_url = redis.url
        asyncio.run(measure("redis", lambda p: RedisDriver([redis_url], prefix=p, request_timeout=request), ttls))
    with PostgresServer() as postgres:
        dsn = postgres.dsn
        asyncio.run(measure("postgres", lambda p: PostgresDriver(dsn, prefix=p, request_timeout=request), ttls))


if __name__ == "__main__":
    main()
