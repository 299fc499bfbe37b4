"""What the Consul driver costs over raw aiohttp requests, in the same run, round by round (_side_by_side.py).

    python benchmarks/consul_driver.py [--rounds 300]

The server is a real one, with its data on disk.
"""

from __future__ import annotations

import argparse
import asyncio
import json

import aiohttp
from _side_by_side import RECORD, TTL, compare

from cluster_lock.drivers.consul import ConsulDriver
from cluster_lock.testing.servers import ConsulServer


class Raw:
    """The least that does the same, by hand."""

    def __init__(self, url: str) -> None:
        self.http = aiohttp.ClientSession(url)
        self.session = ""

    async def open(self) -> None:
        body = json.dumps({"TTL": f"{TTL}s", "LockDelay": "0s", "Checks": []})
        async with self.http.put("/v1/session/create", data=body) as answer:
            self.session = (await answer.json())["ID"]

    async def close(self) -> None:
        await self.http.close()

    async def acquire(self, key: str) -> None:
        await self._put(key, "acquire")

    async def release(self, key: str) -> None:
        await self._put(key, "release")

    async def _put(self, key: str, what: str) -> None:
        async with self.http.put(f"/v1/kv/{key}", params={what: self.session}, data=RECORD) as answer:
            assert await answer.json() is True

    async def until_free(self, key: str) -> None:
        async with self.http.get(f"/v1/kv/{key}") as answer:
            index = answer.headers["X-Consul-Index"]
        async with self.http.get(f"/v1/kv/{key}", params={"index": index, "wait": "10s"}) as answer:
            assert "Session" not in (await answer.json())[0]


async def run(server: ConsulServer, rounds: int) -> bool:
    raws = Raw(server.url), Raw(server.url)
    drivers = [ConsulDriver([server.url], prefix="bench/", request_timeout=4.0) for _ in range(2)]
    return await compare(raws, drivers, rounds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300)
    options = parser.parse_args()
    with ConsulServer(fast=False) as server:
        print(server)
        return 0 if asyncio.run(run(server, options.rounds)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
