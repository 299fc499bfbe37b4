"""What an operator does to the locks in a real backend, with the backend's own tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.aio import until
from support.backends import Backend
from support.postgres import let_time_pass

from cluster_lock.driver import Driver
from cluster_lock.drivers import driver_class
from cluster_lock.drivers.file.keyfile import file_name
from cluster_lock.host.flock import is_locked
from cluster_lock.lease.guard import NoGuard
from cluster_lock.session import Session
from cluster_lock.testing.servers import ConsulServer, EtcdServer, PostgresServer, RedisServer
from cluster_lock.values import LEADER, Record, Timing

CONSUL = pytest.param("consul", marks=pytest.mark.consul)
TELL_ALL = [
    pytest.param("etcd34", marks=pytest.mark.etcd),
    pytest.param("etcd35", marks=pytest.mark.etcd),
    CONSUL,
]
"""Those that tell of what a person changes. Redis and PostgreSQL do not: the next renewal finds it out."""
SERVERS = [
    *TELL_ALL,
    pytest.param("redis", marks=pytest.mark.redis),
    pytest.param("postgres18", marks=pytest.mark.postgres),
]
"""For `parametrize("backend", SERVERS, indirect=True, scope="session")`: servers that people reach behind our back."""

TIMING = Timing(ttl=4.0, margin=1.0, stop_time=0.5, settle=0.25, invite=2.0)
"""Fast, with a second for each request on a busy machine, and two for an heir."""


def driver_options(backend: Backend, prefix: str, request_timeout: float = TIMING.request) -> dict[str, Any]:
    """What a driver of the backend is made of."""
    section = dict(backend.section)
    options: dict[str, Any] = {"prefix": prefix, "request_timeout": request_timeout}
    if backend.name in ("consul", "redis"):
        options["urls"] = [section.pop("url")]
    elif backend.name == "file":
        options["directory"] = Path(section.pop("directory"))
    return {**section, **options}


def open_driver(backend: Backend, prefix: str, request_timeout: float = TIMING.request) -> Driver:
    """A driver of the backend, not yet opened."""
    return driver_class(backend.name)(**driver_options(backend, prefix, request_timeout))


def open_session(backend: Backend, prefix: str, instance: str, timing: Timing = TIMING, **options: Any) -> Session:
    """A session of a process of its own, so to say. Nothing ends the test process at a deadline."""
    driver = open_driver(backend, prefix, timing.request)
    return Session(driver, instance=instance, timing=timing, guard=NoGuard(), **options)


async def stands_by(session: Session, name: str) -> None:
    """Wait until everybody can see in the store that it stands by for this lock."""

    async def is_seen() -> bool:
        key = session.context.contender.key
        record = Record.from_bytes((await session.driver.read([key])).entries[key].record or b"")
        return record is not None and name in record.names

    await until(is_seen)


class Operator:
    """A person with the backend's own tool at hand. Sync: run it in a thread beside an event loop."""

    def __init__(self, backend: Backend, prefix: str) -> None:
        self.backend = backend
        self.prefix = prefix

    @property
    def etcd(self) -> EtcdServer:
        assert isinstance(self.backend.server, EtcdServer)
        return self.backend.server

    @property
    def consul(self) -> ConsulServer:
        assert isinstance(self.backend.server, ConsulServer)
        return self.backend.server

    @property
    def redis(self) -> RedisServer:
        assert isinstance(self.backend.server, RedisServer)
        return self.backend.server

    @property
    def postgres(self) -> PostgresServer:
        assert isinstance(self.backend.server, PostgresServer)
        return self.backend.server

    @property
    def folder(self) -> Path:
        """Of the file backend."""
        return Path(self.backend.section["directory"])

    def wait_for_leases(self, ttl: int) -> None:
        """Until the server, which another test may have restarted, gives leases of that ttl away."""
        if self.backend.name == "redis":
            self.redis.wait_age(ttl)
        elif self.backend.name == "postgres":
            let_time_pass(self.postgres)

    def delete_key(self, name: str) -> None:
        """Delete the lock's key."""
        key = self.prefix + LEADER + name
        if self.backend.name == "etcd":
            self.etcd.ctl("del", key)
        elif self.backend.name == "redis":
            self.redis.cli("DEL", key)
        elif self.backend.name == "postgres":
            self.postgres.sql(f"DELETE FROM cluster_lock.key WHERE {self._row(name)}")
        elif self.backend.name == "file":
            (self.folder / "keys" / file_name(key)).unlink(missing_ok=True)
        else:
            self.consul.request("DELETE", f"/v1/kv/{key}")

    def overwrite(self, name: str, value: str) -> None:
        """Put another value under the lock's key."""
        key = self.prefix + LEADER + name
        if self.backend.name == "etcd":
            self.etcd.ctl("put", key, value)
        elif self.backend.name == "redis":
            self.redis.cli("SET", key, value)
        elif self.backend.name == "postgres":
            row = f"'{self.prefix}', '{LEADER}{name}', '\\x{value.encode().hex()}'"
            self.postgres.sql(
                f"INSERT INTO cluster_lock.key (prefix, name, record) VALUES ({row})"
                " ON CONFLICT (prefix, name) DO UPDATE SET lease = NULL, record = excluded.record,"
                " index = excluded.index"
            )
        elif self.backend.name == "file":
            (self.folder / "keys" / file_name(key)).write_text(value)
        else:
            self.consul.request("PUT", f"/v1/kv/{key}", value)

    def value(self, name: str) -> str:
        """What stands under the lock's key."""
        key = self.prefix + LEADER + name
        if self.backend.name == "etcd":
            return self.etcd.ctl("get", key, "--print-value-only").strip()
        if self.backend.name == "postgres":
            return self.postgres.sql(
                f"SELECT convert_from(record, 'UTF8') FROM cluster_lock.key WHERE {self._row(name)}"
            )
        return self.redis.cli("GET", key).strip()

    def keys(self) -> set[str]:
        """All that stands under the prefix, no matter who wrote it; of files the names."""
        if self.backend.name == "etcd":
            return set(self.etcd.ctl("get", "--prefix", self.prefix, "--keys-only").split())
        if self.backend.name == "consul":
            return set(self.consul.request("GET", f"/v1/kv/{self.prefix}?keys") or ())
        if self.backend.name == "redis":
            return set(self.redis.cli("KEYS", f"{self.prefix}*").split())
        if self.backend.name == "postgres":
            rows = f"FROM cluster_lock.key WHERE prefix = '{self.prefix}' AND num_nonnulls(record, previous) > 0"
            return set(self.postgres.sql(f"SELECT name {rows}").split())
        rooms = (self.folder / "keys", self.folder / "leases")
        return {path.name for room in rooms for path in room.glob("*") if path.is_file()}

    def end_lease(self, lease_id: str) -> None:
        """Revoke the lease, destroy the session."""
        if self.backend.name == "etcd":
            self.etcd.ctl("lease", "revoke", lease_id)
        elif self.backend.name == "redis":
            self.redis.cli("DEL", f"{self.prefix}lease/{lease_id}")
        elif self.backend.name == "postgres":
            self.postgres.sql(f"DELETE FROM cluster_lock.lease WHERE id = '{lease_id}'")
        elif self.backend.name == "file":
            (self.folder / "leases" / lease_id).unlink(missing_ok=True)
        else:
            self.consul.request("PUT", f"/v1/session/destroy/{lease_id}")

    def stop_writes(self) -> None:
        """The server takes none any more, of anybody. Consul has no such thing."""
        if self.backend.name == "etcd":
            self.etcd.take_no_writes()
        elif self.backend.name == "redis":
            self.redis.cli("CONFIG", "SET", "min-replicas-to-write", "9")
        else:
            self.postgres.sql("ALTER SYSTEM SET default_transaction_read_only = on; SELECT pg_reload_conf()")

    def let_write(self) -> None:
        if self.backend.name == "etcd":
            self.etcd.ctl("alarm", "disarm")
        elif self.backend.name == "redis":
            self.redis.cli("CONFIG", "SET", "min-replicas-to-write", "0")
        else:
            self.postgres.sql("ALTER SYSTEM RESET default_transaction_read_only; SELECT pg_reload_conf()")

    def leases(self) -> int:
        """How many leases or sessions the server has."""
        if self.backend.name == "etcd":
            return len(self.etcd.ctl("lease", "list").split()) - 3  # "found N leases"
        if self.backend.name == "redis":
            return len(self.redis.cli("KEYS", "*/lease/*").split())
        if self.backend.name == "postgres":
            living = "SELECT count(*) FROM cluster_lock.lease WHERE expires_at > clock_timestamp()"
            return int(self.postgres.sql(living))
        if self.backend.name == "file":
            return sum(is_locked(path) for path in (self.folder / "leases").iterdir())
        return len(self.consul.request("GET", "/v1/session/list"))

    def _row(self, name: str) -> str:
        return f"prefix = '{self.prefix}' AND name = '{LEADER}{name}'"
