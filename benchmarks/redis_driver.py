"""What the Redis driver costs over redis-py's raw client, in the same run, round by round (_side_by_side.py).

    python benchmarks/redis_driver.py [--release 7.0] [--rounds 300]

The server is a real one; who takes a lock by hand uses SET NX PX, a script that deletes what is its own, and a channel.
"""

from __future__ import annotations

import argparse
import asyncio

import redis.asyncio
from _side_by_side import RECORD, TTL, compare

from cluster_lock.drivers.redis import RedisDriver
from cluster_lock.testing.servers import RedisServer

FREE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('PUBLISH', KEYS[1], '')
return 1
"""


class Raw:
    """The least that does the same, by hand."""

    def __init__(self, server: RedisServer, number: int) -> None:
        self.client = redis.asyncio.Redis(host=server.host, port=server.port)
        self.free = self.client.register_script(FREE)
        self.value = str(number).encode() + RECORD

    async def open(self) -> None:
        await self.client.ping()

    async def close(self) -> None:
        await self.client.aclose()

    async def acquire(self, key: str) -> None:
        assert await self.client.set(key, self.value, nx=True, px=TTL * 1000)

    async def release(self, key: str) -> None:
        assert await self.free(keys=[key], args=[self.value]) == 1

    async def until_free(self, key: str) -> None:
        async with self.client.pubsub() as channel:
            await channel.subscribe(key)
            while (await channel.get_message(timeout=10.0) or {}).get("type") != "message":
                pass


async def run(server: RedisServer, rounds: int) -> bool:
    raws = Raw(server, 1), Raw(server, 2)
    drivers = [RedisDriver([server.url], prefix="bench/", request_timeout=4.0) for _ in range(2)]
    return await compare(raws, drivers, rounds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--release", choices=("7.0", "8.0", "valkey-9.1"), default="7.0")
    parser.add_argument("--rounds", type=int, default=300)
    options = parser.parse_args()
    with RedisServer(release=options.release) as server:
        print(server)
        server.wait_age(TTL)
        return 0 if asyncio.run(run(server, options.rounds)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
