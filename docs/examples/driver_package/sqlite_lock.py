"""Locks in an SQLite file, for the processes of one host. Each verb is one transaction, in a thread."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Collection, Coroutine
from contextlib import closing
from functools import wraps
from pathlib import Path
from secrets import token_hex
from typing import Any, Concatenate, ParamSpec, TypeVar

from pydantic import BaseModel, field_validator

from cluster_lock import clock
from cluster_lock.errors import BackendRefused, BackendUnavailable, ForeignValue, LeaseExpired
from cluster_lock.values import Changes, Entry, Grant, Lease, Traits

P = ParamSpec("P")
T = TypeVar("T")
MIN_TTL, ASK_EVERY = 0.1, 0.05
# A row is never deleted, only replaced, and gets a number that no row ever had: index, fencing token and position.
SCHEMA = """CREATE TABLE IF NOT EXISTS leases (id TEXT PRIMARY KEY, ttl REAL, expires REAL);
CREATE TABLE IF NOT EXISTS keys
(number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, lease TEXT, record, previous)"""
ROWS = "SELECT name, lease, number, record FROM keys WHERE"
PUT = "REPLACE INTO keys (name, lease, record, previous) VALUES (?, ?, ?, ?)"
FREE = "REPLACE INTO keys (name, lease, record, previous) SELECT name, NULL, NULL, record FROM keys WHERE lease = ?"


class Settings(BaseModel):
    path: Path
    """The file; on a disk of this host."""

    @field_validator("path")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        if not path.is_absolute():
            raise ValueError("must be an absolute path: all instances share this file")
        return path


def verb(
    work: Callable[Concatenate[Any, sqlite3.Connection, P], T],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """A method that works inside a transaction becomes one that makes it, in a thread, and is bounded from outside."""

    @wraps(work)
    async def bounded(driver: SqliteDriver, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            async with asyncio.timeout(driver.timeout):
                return await asyncio.to_thread(driver.transaction, lambda db: work(driver, db, *args, **kwargs))
        except (sqlite3.Error, TimeoutError) as error:
            raise BackendUnavailable(f"{driver.backend}: {error or 'no answer in time'}") from error

    return bounded


class SqliteDriver:
    settings_model = Settings
    traits = Traits(notifies=False, one_host=True)

    def __init__(self, path: Path, *, prefix: str, request_timeout: float = 2.0) -> None:
        self.path, self.prefix, self.timeout = path, prefix, request_timeout
        self.backend = f"sqlite {path}"

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    @verb
    def grant_lease(self, db: sqlite3.Connection, holder: str, ttl: float) -> Lease:
        if ttl < MIN_TTL:
            raise BackendRefused(f"ttl {ttl:g} s is less than this backend allows: at least {MIN_TTL:g} s")
        lease = Lease(token_hex(8), ttl, holder)
        db.execute("INSERT INTO leases VALUES (?, ?, ?)", (lease.id, ttl, clock.now() + ttl))
        return lease

    @verb
    def renew(self, db: sqlite3.Connection, lease: Lease) -> int:
        self.must_live(db, lease)
        db.execute("UPDATE leases SET expires = ? + ttl WHERE id = ?", (clock.now(), lease.id))
        return 0

    @verb
    def revoke(self, db: sqlite3.Connection, lease: Lease) -> None:
        self.end(db, lease.id)

    @verb
    def acquire(self, db: sqlite3.Connection, lease: Lease, name: str, record: bytes) -> Grant | None:
        self.must_live(db, lease)
        held, number, stands, previous = self.row(db, name)
        if stands is None:
            held, number, stands = lease.id, self.put(db, name, lease.id, record, previous), record
        elif held is None:
            raise ForeignValue(f"what stands under {self.prefix + name!r} is not ours: look at it, then delete it")
        return Grant(name, lease, number, number, stands, previous) if held == lease.id else None

    @verb
    def release(self, db: sqlite3.Connection, grant: Grant, farewell: bytes) -> None:
        if self.row(db, grant.name)[:2] == (grant.lease.id, grant.index):
            self.put(db, grant.name, None, None, farewell)

    @verb
    def transfer(self, db: sqlite3.Connection, grant: Grant, heir: Entry, record: bytes) -> bool:
        held, number, stands, _ = self.row(db, grant.name)
        stays = heir.lease is not None and self.row(db, heir.name)[0] == heir.lease
        if given := stays and (held, number) == (grant.lease.id, grant.index):
            self.put(db, grant.name, heir.lease, record, stands)
        return given

    @verb
    def announce(self, db: sqlite3.Connection, lease: Lease, name: str, record: bytes) -> None:
        self.must_live(db, lease)
        self.put(db, name, lease.id, record, None)

    @verb
    def withdraw(self, db: sqlite3.Connection, lease: Lease, name: str) -> None:
        if self.row(db, name)[0] == lease.id:
            self.put(db, name, None, None, None)

    async def read(self, names: Collection[str]) -> Changes:
        return await self.changed(names, None)

    @verb
    def scan(self, db: sqlite3.Connection, prefix: str) -> list[Entry]:
        sql, start = f"{ROWS} lease NOT NULL AND substr(name, 1, ?) = ? ORDER BY number", self.prefix + prefix
        return [Entry(row[0][len(self.prefix) :], *row[1:]) for row in db.execute(sql, (len(start), start))]

    async def wait_changed(self, names: Collection[str], since: object | None, at_most: float) -> Changes:
        until = clock.now() + at_most
        while True:
            found = await self.changed(names, since)
            if found.entries or (left := until - clock.now()) <= 0:
                return found
            await asyncio.sleep(min(ASK_EVERY, left))

    @verb
    def changed(self, db: sqlite3.Connection, names: Collection[str], since: object | None) -> Changes:
        now: int = db.execute("SELECT coalesce(max(number), 0) FROM keys").fetchone()[0]
        known = since if isinstance(since, int) and since <= now else -1
        sql = f"{ROWS} name IN (SELECT value FROM json_each(?)) AND number > ?"
        wanted = {self.prefix + name: name for name in names}
        found = {wanted[key]: Entry(wanted[key], *row) for key, *row in db.execute(sql, (json.dumps([*wanted]), known))}
        absent = {name: Entry(name, None, now, None) for name in names} if known == -1 else {}
        return Changes(now, absent | found)

    def transaction(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with closing(sqlite3.connect(self.path, timeout=self.timeout, isolation_level=None)) as db:
            db.executescript(SCHEMA)
            db.execute("BEGIN IMMEDIATE")
            now = clock.now()  # a lease of an earlier boot would end later than any that was renewed since can
            over = "SELECT id FROM leases WHERE expires <= ? OR expires > ? + ttl"
            for (lease,) in db.execute(over, (now, now)).fetchall():
                self.end(db, lease)
            try:
                return work(db)
            finally:  # a refusal is said before anything is written: what ended stays ended
                db.execute("COMMIT")

    def row(self, db: sqlite3.Connection, name: str) -> tuple[Any, ...]:
        sql = "SELECT lease, number, record, previous FROM keys WHERE name = ?"
        found: tuple[Any, ...] | None = db.execute(sql, (self.prefix + name,)).fetchone()
        return found or (None, 0, None, None)

    def put(self, db: sqlite3.Connection, name: str, *row: str | bytes | None) -> int:
        return db.execute(PUT, (self.prefix + name, *row)).lastrowid or 0

    def end(self, db: sqlite3.Connection, lease: str) -> None:
        db.execute("DELETE FROM leases WHERE id = ?", (lease,))
        db.execute(FREE, (lease,))

    def must_live(self, db: sqlite3.Connection, lease: Lease) -> None:
        if not db.execute("SELECT 1 FROM leases WHERE id = ?", (lease.id,)).fetchone():
            raise LeaseExpired(f"lease {lease.id} of {lease.holder} is gone")
