"""The PostgreSQL driver keeps the contract, on both releases that are supported."""

from __future__ import annotations

import asyncio
from typing import ClassVar

import pytest
from support.postgres import let_time_pass

from cluster_lock.driver import Driver
from cluster_lock.drivers.postgres import PostgresDriver
from cluster_lock.drivers.postgres.driver import Mode
from cluster_lock.testing.conformance import DriverConformance
from cluster_lock.testing.servers import PostgresServer
from cluster_lock.values import Lease

pytestmark = pytest.mark.postgres


class TestPostgres(DriverConformance):
    mode: ClassVar[Mode] = "lease"
    server: PostgresServer

    @pytest.fixture(autouse=True)
    def _server(self, postgres_server: PostgresServer) -> None:
        self.server = postgres_server
        let_time_pass(self.server)  # one test restarts it

    async def open_driver(self) -> Driver:
        driver = PostgresDriver(self.server.dsn, prefix=self.prefix, request_timeout=4.0, mode=self.mode)
        await driver.open()
        return driver

    async def stranger_writes(self, name: str, value: bytes) -> None:
        await self._put(f"'{name}'", value, "NULL")

    async def stranger_writes_bytes(self, key: bytes, value: bytes, lease: Lease | None) -> None:
        if b"\0" in key:
            return  # no text of PostgreSQL has one
        try:
            key.decode()
        except UnicodeDecodeError:
            return
        await self._put(f"convert_from('\\x{key.hex()}', 'UTF8')", value, f"'{lease.id}'" if lease else "NULL")

    async def _put(self, name: str, value: bytes, lease: str) -> None:
        await self._sql(
            "INSERT INTO cluster_lock.key (prefix, name, record, lease)"
            f" VALUES ('{self.prefix}', {name}, '\\x{value.hex()}', {lease})"
            " ON CONFLICT (prefix, name) DO UPDATE SET record = excluded.record, lease = excluded.lease,"
            " index = excluded.index"
        )

    async def stranger_deletes(self, name: str) -> None:
        await self._sql(f"DELETE FROM cluster_lock.key WHERE prefix = '{self.prefix}' AND name = '{name}'")

    async def count_leases(self) -> int:
        return int(await self._sql("SELECT count(*) FROM cluster_lock.lease WHERE expires_at > clock_timestamp()"))

    async def forgotten_position(self) -> object:
        driver = await self.open_driver()
        position = (await driver.read(["leader/x"])).position
        await driver.close()
        await self._sql(
            "UPDATE cluster_lock.space SET index = nextval('cluster_lock.token'), swept = index + 1"
            f" WHERE prefix = '{self.prefix}'"
        )
        return position

    async def save_store(self) -> object:
        return await self._sql(
            "BEGIN; CREATE SCHEMA saved; CREATE TABLE saved.key AS TABLE cluster_lock.key;"
            " CREATE TABLE saved.lease AS TABLE cluster_lock.lease;"
            " CREATE TABLE saved.space AS TABLE cluster_lock.space; COMMIT"
        )

    async def restore_store(self, saved: object) -> None:
        tables = "".join(
            f"DELETE FROM cluster_lock.{name}; INSERT INTO cluster_lock.{name} SELECT * FROM saved.{name};"
            for name in ("key", "lease", "space")
        )
        await self._sql(f"BEGIN; {tables} DROP SCHEMA saved CASCADE; COMMIT")

    async def restart_server(self) -> None:
        await asyncio.to_thread(self.server.restart)

    async def _sql(self, text: str) -> str:
        return await asyncio.to_thread(self.server.sql, text)


class TestAdvisory(TestPostgres):
    """Also where each lock takes an advisory lock besides."""

    mode = "advisory"
