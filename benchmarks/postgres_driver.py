"""What the PostgreSQL driver costs over psycopg's raw client, in the same run, round by round (_side_by_side.py).

    python benchmarks/postgres_driver.py [--release 18] [--rounds 300]

The server is a real one, with its data on disk; who takes a lock by hand inserts a row with an expiry, deletes what is
its own, and notifies.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

import psycopg
from _side_by_side import RECORD, TTL, compare

from cluster_lock.drivers.postgres import PostgresDriver, ddl
from cluster_lock.testing.servers import PostgresServer

TABLE = "CREATE TABLE raw (key text PRIMARY KEY, holder integer, record bytea, expires_at timestamptz)"
TAKE = "INSERT INTO raw VALUES (%s, %s, %s, clock_timestamp() + make_interval(secs => %s))"
FREE = """
WITH freed AS (DELETE FROM raw WHERE key = %s AND holder = %s RETURNING key) SELECT pg_notify('raw', key) FROM freed
"""


class Raw:
    """The least that does the same, by hand."""

    def __init__(self, server: PostgresServer, number: int) -> None:
        self.dsn, self.number = server.dsn, number
        self.client: psycopg.AsyncConnection[Any]
        self.listener: psycopg.AsyncConnection[Any]

    async def open(self) -> None:
        self.client, self.listener = [
            await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) for _ in range(2)
        ]
        await self.listener.execute("LISTEN raw")

    async def close(self) -> None:
        await self.client.close()
        await self.listener.close()

    async def acquire(self, key: str) -> None:
        assert (await self.client.execute(TAKE, (key, self.number, RECORD, TTL))).rowcount == 1

    async def release(self, key: str) -> None:
        assert (await self.client.execute(FREE, (key, self.number))).rowcount == 1

    async def until_free(self, key: str) -> None:
        while True:
            async for notice in self.listener.notifies(timeout=10.0, stop_after=1):
                if notice.payload == key:
                    return


async def run(server: PostgresServer, rounds: int) -> bool:
    raws = Raw(server, 1), Raw(server, 2)
    drivers = [PostgresDriver(server.dsn, prefix="bench/", request_timeout=4.0) for _ in range(2)]
    return await compare(raws, drivers, rounds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--release", choices=("15", "18"), default="18")
    parser.add_argument("--rounds", type=int, default=300)
    options = parser.parse_args()
    with PostgresServer(release=options.release, fast=False) as server:
        print(server)
        server.sql(f"{TABLE}; BEGIN; {ddl()} COMMIT; UPDATE cluster_lock.server SET base = base - interval '1 hour'")
        return 0 if asyncio.run(run(server, options.rounds)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
