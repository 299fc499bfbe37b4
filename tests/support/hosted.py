"""The store of each backend on hosts of its own: three servers that are one, one server alone, or a folder of this
machine, whose namespaces share their files."""

from __future__ import annotations

import subprocess
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from cluster_lock.testing.servers import (
    Cluster,
    ConsulServer,
    EtcdServer,
    PostgresServer,
    RedisServer,
    Server,
    ServerFailed,
)
from cluster_lock.testing.servers.base import S, wait_for

from .backends import ETCD_RELEASE, POSTGRES_RELEASE, Backend
from .netns import Host

JOIN_WITHIN = 10.0


class HostedStore(Cluster[S]):
    """`name` is as in `backend:` of config.yaml, `setting` what says there where it is."""

    name: ClassVar[str]
    setting: ClassVar[str]

    @abstractmethod
    def address(self, node: S) -> str:
        """As it stands in `setting`."""

    def addresses(self, first: int = 0) -> list[str]:
        """All, beginning with the node `first`."""
        return [self.address(node) for node in (*self.nodes[first:], *self.nodes[:first])]

    def backend(self, server: Server | None = None) -> Backend:
        """For who wants a driver of it, or its operator: `server` is then the one that is asked."""
        running = [self.address(node) for node in self.nodes if node.running]
        return Backend(self.name, {self.setting: running[0]}, server)

    def rejoin(self) -> None:
        """After all were started, and reach each other again."""


class Etcds(HostedStore[EtcdServer]):
    name, setting = "etcd", "endpoints"

    def __init__(self, hosts: Sequence[Host], release: str, *, fast: bool) -> None:
        super().__init__(
            [
                EtcdServer(release=release, fast=fast, name=host.name, host=host.address, wrapper=host.wrapper)
                for host in hosts
            ]
        )
        for node in self.nodes:
            node.members = {each.name: each.peer_url for each in self.nodes}

    def leads(self, node: EtcdServer) -> bool:
        return node.is_leader

    def address(self, node: EtcdServer) -> str:
        return node.endpoint

    def backend(self, server: Server | None = None) -> Backend:
        return Backend(self.name, {self.setting: [node.endpoint for node in self.nodes if node.running]}, server)


class Consuls(HostedStore[ConsulServer]):
    name, setting = "consul", "url"

    def __init__(self, hosts: Sequence[Host], *, fast: bool) -> None:
        super().__init__([ConsulServer(fast=fast, host=host.address, wrapper=host.wrapper) for host in hosts])
        for node in self.nodes:
            node.expects = len(self.nodes)
            node.join = [each.serf_address for each in self.nodes]

    def start(self, **options: Any) -> Self:
        super().start(**options)
        # By default a node that was away is forgotten, and gets its vote back only after a while: with the next one
        # away, there would be no majority.
        self.nodes[0].request("PUT", "/v1/operator/autopilot/configuration", {"CleanupDeadServers": False})
        return self

    def leads(self, node: ConsulServer) -> bool:
        return node.is_leader

    def address(self, node: ConsulServer) -> str:
        return node.url

    def rejoin(self) -> None:
        # By itself a Consul that was cut off looks for the others again every 30 s only.
        for node in self.nodes:
            wait_for(lambda node=node: self._join(node) or None, JOIN_WITHIN, f"{node} does not join")  # type: ignore[misc]

    def _join(self, node: ConsulServer) -> bool:
        try:
            for address in node.join:
                node.request("PUT", f"/v1/agent/join/{address}", timeout=2)
        except (OSError, ServerFailed):  # just started
            return False
        return True


class OneRedis(HostedStore[RedisServer]):
    name, setting = "redis", "url"

    def __init__(self, host: Host) -> None:
        super().__init__([RedisServer(persistent=True, host=host.address, wrapper=host.wrapper)])

    def leads(self, node: RedisServer) -> bool:
        """Does it answer? A paused one does when it goes on."""
        try:
            return node.cli("PING").strip() == "PONG"
        except subprocess.SubprocessError:
            return False

    def address(self, node: RedisServer) -> str:
        return node.url


class OnePostgres(HostedStore[PostgresServer]):
    name, setting = "postgres", "dsn"

    def __init__(self, host: Host, release: str, *, fast: bool) -> None:
        super().__init__([PostgresServer(release=release, fast=fast, host=host.address, wrapper=host.wrapper)])

    def leads(self, node: PostgresServer) -> bool:
        """Does it answer? A paused one does when it goes on."""
        try:
            return node.sql("SELECT 1") == "1"
        except ServerFailed:
            return False

    def address(self, node: PostgresServer) -> str:
        return f"{node.dsn} sslmode=disable"


class Folder(HostedStore[Server]):
    """No server at all."""

    name, setting = "file", "directory"

    def __init__(self, path: Path) -> None:
        super().__init__(())
        self.path = path

    def leads(self, node: Server) -> bool:
        raise AssertionError("there are no nodes")

    address = leads  # type: ignore[assignment]

    def addresses(self, first: int = 0) -> list[str]:
        return [str(self.path)]

    def backend(self, server: Server | None = None) -> Backend:
        return Backend(self.name, {self.setting: str(self.path)}, server)


def hosted(backend: str, hosts: Sequence[Host], folder: Path, *, fast: bool) -> HostedStore[Any]:
    """Of one of `support.backends.BACKENDS`, not yet started."""
    if backend == "file":
        return Folder(folder / "shared")
    if backend == "consul":
        return Consuls(hosts, fast=fast)
    if backend == "redis":
        return OneRedis(hosts[0])
    if backend in POSTGRES_RELEASE:
        return OnePostgres(hosts[0], POSTGRES_RELEASE[backend], fast=fast)
    return Etcds(hosts, ETCD_RELEASE[backend], fast=fast)
