"""Certificates that are replaced on the disk while a driver runs: etcd, Consul and Redis, over TLS that demands a
client's."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from support.aio import until
from support.backends import ETCD_RELEASE
from support.certs import Authority
from support.consul_lab import client, record
from support.etcd import opened

from cluster_lock.driver import Driver
from cluster_lock.drivers.redis import RedisDriver
from cluster_lock.errors import BackendRefused, BackendUnavailable, NoLeaseYet
from cluster_lock.testing.servers import ConsulServer, EtcdServer, RedisServer, ServerTLS
from cluster_lock.values import Lease

LOCK = "leader/telegram/42"

BACKENDS = [
    *(pytest.param(name, marks=pytest.mark.etcd) for name in ETCD_RELEASE),
    pytest.param("consul", marks=pytest.mark.consul),
    pytest.param("redis", marks=pytest.mark.redis),
]
pytestmark = pytest.mark.parametrize("backend", BACKENDS)
LockServer = EtcdServer | ConsulServer | RedisServer


class Certificates:
    """What a server and a client use, in files that `renew` replaces, as an agent that renews them does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "live").mkdir()
        self._made = 0
        self.ca, self.cert, self.key = (folder / "live" / name for name in ("ca.crt", "tls.crt", "tls.key"))
        self.server_files = tuple(folder / "live" / f"server{end}" for end in (".crt", ".key"))
        self.renew()

    @property
    def server(self) -> ServerTLS:
        cert, key = self.server_files
        return ServerTLS(self.ca, cert, key, self.cert, self.key)

    @property
    def access(self) -> dict[str, Any]:
        return {"ca": str(self.ca), "cert": str(self.cert), "key": str(self.key)}

    def renew(self) -> None:
        """Everything new, by another authority: with the old files nobody gets in any more."""
        self._made += 1
        authority = Authority(self.folder / str(self._made))
        server, client = authority.issue("server", "127.0.0.1", "localhost"), authority.issue("client")
        for source, target in zip(
            (authority.ca, *client, *server), (self.ca, self.cert, self.key, *self.server_files), strict=True
        ):
            fresh = target.with_suffix(".new")
            shutil.copy(source, fresh)
            fresh.replace(target)


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


@contextmanager
def serving(backend: str, tls: ServerTLS, tmp_path: Path) -> Iterator[LockServer]:
    folder = tmp_path / "data"
    if backend == "consul":
        with ConsulServer(tls=tls, data_dir=folder) as consul:
            yield consul
    elif backend == "redis":
        with RedisServer(tls=tls, data_dir=folder, persistent=True) as redis:
            yield redis
    else:
        with EtcdServer(release=ETCD_RELEASE[backend], tls=tls, data_dir=folder) as etcd:
            yield etcd


@asynccontextmanager
async def connected(server: LockServer, access: dict[str, Any]) -> AsyncIterator[Driver]:
    if isinstance(server, EtcdServer):
        async with opened(server.endpoints, request_timeout=2.0, **access) as driver:
            yield driver
    elif isinstance(server, RedisServer):
        redis = RedisDriver([server.url], request_timeout=2.0, **access)
        await redis.open()
        try:
            yield redis
        finally:
            await redis.close()
    else:
        async with client(server.url, request_timeout=2.0, **access) as driver:
            yield driver


async def granted(driver: Driver, ttl: float) -> Lease:
    """A lease, as soon as the server gives one away: a Redis must be older than a ttl."""
    while True:
        with suppress(NoLeaseYet):
            return await driver.grant_lease("a", ttl)
        await asyncio.sleep(0.1)


async def index_of(driver: Driver) -> int | None:
    """The lock's index, or None while the backend does not answer."""
    try:
        entry = (await driver.read([LOCK])).entries[LOCK]
    except (BackendUnavailable, BackendRefused):
        return None
    return entry.index if entry.lease is not None else -1


async def test_a_lock_outlives_its_certificates(backend: str, certificates: Certificates, tmp_path: Path) -> None:
    """When every certificate was replaced and the server has restarted with its new ones, the same driver gets in with
    the new ones: the lease is renewed and the lock is as it was."""
    with serving(backend, certificates.server, tmp_path) as server:
        async with connected(server, certificates.access) as driver:
            lease = await granted(driver, 15)
            grant = await driver.acquire(lease, LOCK, record("a"))
            assert grant is not None
            for _ in range(2):
                certificates.renew()
                await asyncio.to_thread(server.restart)

                async def same() -> bool:
                    return await index_of(driver) == grant.index

                await until(same)
                await driver.renew(lease)
            await driver.release(grant, record("a", released=True))


async def test_new_files_are_read_before_they_are_needed(
    backend: str, certificates: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """New files are read although the connection stands, and it stays, since the server may not know them yet; it does
    no harm if they are broken when it breaks."""
    caplog.set_level(logging.INFO, "cluster_lock.drivers")
    with serving(backend, certificates.server, tmp_path) as server:
        async with connected(server, certificates.access) as driver:
            lease = await granted(driver, 4)
            certificates.renew()

            async def read() -> bool:
                await driver.renew(lease)
                return any("were read" in message for message in caplog.messages)

            await until(read)
            assert await answers(driver)
            certificates.cert.write_text("broken")
            await asyncio.to_thread(server.restart)
            await until(lambda: answers(driver))


async def answers(driver: Driver) -> bool:
    return await index_of(driver) is not None


@pytest.mark.parametrize("fault", ["broken", "missing", "another key"])
async def test_a_broken_new_file_ends_nothing(
    backend: str, certificates: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    """A new file that cannot be used is told once, with its path, and what was read before stays in use, also over a
    restart of the server; a good one is then read."""
    caplog.set_level(logging.WARNING, "cluster_lock.drivers")
    with serving(backend, certificates.server, tmp_path) as server:
        async with connected(server, certificates.access) as driver:
            lease = await granted(driver, 2)
            grant = await driver.acquire(lease, LOCK, record("a"))
            assert grant is not None
            if fault == "broken":
                certificates.cert.write_text("broken")
            elif fault == "missing":
                certificates.cert.unlink()
            else:
                _, other = Authority(tmp_path / "other").issue("client")
                shutil.copy(other, certificates.key)

            async def told() -> bool:
                await driver.renew(lease)
                return any("stay in use" in message for message in caplog.messages)

            await until(told)
            assert await index_of(driver) == grant.index
            for _ in range(20):
                await driver.renew(lease)
            # gRPC may log as well: what it does in a thread arrives in the loop of a later test.
            (said,) = (each.getMessage() for each in caplog.records if each.name == "cluster_lock.drivers")
            assert str(certificates.cert) in said
            assert "stay in use" in said
