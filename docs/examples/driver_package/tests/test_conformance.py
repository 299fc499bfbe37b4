"""The driver keeps the contract."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlite_lock import PUT, SqliteDriver

from cluster_lock.testing.conformance import DriverConformance


class TestSqlite(DriverConformance):
    ttl = 0.5

    def setup_method(self) -> None:
        super().setup_method()
        self.folder = TemporaryDirectory()
        self.file = Path(self.folder.name) / "locks.db"

    def teardown_method(self) -> None:
        self.folder.cleanup()

    async def open_driver(self) -> SqliteDriver:
        driver = SqliteDriver(self.file, prefix=self.prefix)
        await driver.open()
        return driver

    async def count_leases(self) -> int:
        with closing(sqlite3.connect(self.file)) as db:
            count: int = db.execute("SELECT count(*) FROM leases").fetchone()[0]
            return count

    async def stranger_writes(self, name: str, value: bytes) -> None:
        self.by_hand(name, value)

    async def stranger_deletes(self, name: str) -> None:
        self.by_hand(name, None)

    async def forgotten_position(self) -> object:
        return object()

    def by_hand(self, name: str, value: bytes | None) -> None:
        with closing(sqlite3.connect(self.file)) as db, db:
            db.execute(PUT, (self.prefix + name, None, value, None))
