"""Two servers that know nothing of each other, and drivers that have both in their list."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any

from support.aio import until
from support.backends import ETCD_RELEASE
from support.consul_lab import client
from support.etcd import opened

from cluster_lock.driver import Driver, Inspectable
from cluster_lock.errors import BackendRefused, BackendUnavailable
from cluster_lock.testing.servers import ConsulServer, EtcdServer
from cluster_lock.values import Lease


class Pair:
    """`one` and `other`, at `urls`."""

    def __init__(self, one: EtcdServer | ConsulServer, other: EtcdServer | ConsulServer) -> None:
        self.one, self.other = one, other
        self.urls = [server.endpoint if isinstance(server, EtcdServer) else server.url for server in (one, other)]

    def driver(self, *urls: str, request_timeout: float = 1.0) -> AbstractAsyncContextManager[Driver]:
        """An open driver of `urls`, or of both in their order."""
        if isinstance(self.one, EtcdServer):
            return opened(urls or self.urls, request_timeout=request_timeout)
        return client(*(urls or self.urls), request_timeout=request_timeout)

    @property
    def leases(self) -> list[int]:
        """How many each of them has."""
        return [_leases(server) for server in (self.one, self.other)]


def _leases(server: EtcdServer | ConsulServer) -> int:
    if isinstance(server, EtcdServer):
        return int(server.ctl("lease", "list").split()[1])
    return len(server.request("GET", "/v1/session/list?consistent"))


class Twin(ConsulServer):
    """One that tells the same address of itself as `first`, as in containers 127.0.0.1."""

    def __init__(self, first: ConsulServer) -> None:
        super().__init__(dev=True, host="127.0.0.2")
        self._first = first
        self.rpc_port = first.rpc_port

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"advertise_addr": self._first.host}


@contextmanager
def two_clusters(backend: str, *, twins: bool = False) -> Iterator[Pair]:
    """`twins`: of Consul, with equal addresses."""
    with contextlib.ExitStack() as running:
        if backend in ETCD_RELEASE:
            one, other = (running.enter_context(EtcdServer(release=ETCD_RELEASE[backend])) for _ in range(2))
            yield Pair(one, other)
        else:
            first = running.enter_context(ConsulServer(dev=True))
            second = Twin(first) if twins else ConsulServer(dev=True)
            yield Pair(first, running.enter_context(second))


async def granted(driver: Driver, ttl: float) -> Lease:
    """A lease, as soon as there is one."""
    found: list[Lease] = []

    async def tried() -> bool:
        try:
            found.append(await driver.grant_lease("a", ttl))
        except (BackendUnavailable, BackendRefused):
            return False
        return True

    await until(tried)
    return found[0]


async def is_refused(driver: Driver, lease: Lease | None = None) -> bool:
    """Is a lease refused, or the renewal of this one, because of two clusters? For `until`."""
    try:
        await (driver.renew(lease) if lease else driver.grant_lease("a", 30))
    except BackendUnavailable:  # it has not come round yet
        return False
    except BackendRefused as error:
        return "belong to 2 clusters" in str(error)
    if lease is None:
        raise AssertionError("granted")
    return False


async def problem_of(driver: Driver, url: str) -> str:
    """What people are told of the one at `url`."""
    assert isinstance(driver, Inspectable)
    (found,) = [node for node in await driver.nodes() if node.address == url]
    return found.problem or ""
