"""The store of each backend on hosts of its own: three servers that are one, a primary and its replica, or a folder of
this machine, whose namespaces share their files."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

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
from cluster_lock.testing.servers.postgres import OWNER

from .backends import ETCD_RELEASE, POSTGRES_RELEASE, Backend
from .netns import Host
from .small_disk import small_disk

JOIN_WITHIN = 10.0
PASSED = 1_000_000
"""Revisions of etcd: more than any test makes."""
SMALL = "16m"


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

    def launch(self) -> None:
        """Every server that does not run."""
        for node in self.nodes:
            node.launch()

    def rejoin(self) -> None:
        """After all were started, and reach each other again."""

    def save(self) -> bytes:
        """A backup, as people make it."""
        raise NotImplementedError

    def restore(self, saved: bytes) -> None:
        """Put all of it back to that; return when it answers again."""
        raise NotImplementedError


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

    def save(self) -> bytes:
        return self.nodes[self.leader].save_snapshot()

    def restore(self, saved: bytes) -> None:
        """With revisions that no client can have seen."""
        for node in self.nodes:
            node.put_back(saved, bump=PASSED)
        self.launch()
        for node in self.nodes:
            node.wait_ready()

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

    def save(self) -> bytes:
        return self.nodes[self.leader].save_snapshot()

    def restore(self, saved: bytes) -> None:
        self.nodes[self.leader].restore_snapshot(saved)

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


P = TypeVar("P", RedisServer, PostgresServer)


class Pair(HostedStore[P]):
    """A primary and its replica. `primary`: the index of the one that is it, or that will be promoted."""

    primary = 0

    def leads(self, node: P) -> bool:
        """A paused one does not."""
        return node is self.nodes[self.primary] and node.is_primary

    def start(self, **options: Any) -> Self:
        try:
            self.launch()
        except BaseException:
            self.close()
            raise
        return self

    def launch(self) -> None:
        """The primary first: a replica that begins anew asks it for all that there is. A replica in its place is
        promoted."""
        primary, replica = self.nodes[self.primary], self.nodes[1 - self.primary]
        primary.launch()
        primary.wait_ready()
        if not primary.is_primary:
            primary.promote()
        replica.launch()
        replica.wait_ready()
        replica.wait_follows()

    def lose_primary(self) -> None:
        """It dies, and by whomever it is started, it is a replica from then on. There is no other primary before
        `launch`."""
        lost, heir = self.nodes[self.primary], self.nodes[1 - self.primary]
        self.primary = 1 - self.primary
        lost.follow(heir)
        lost.kill()

    def backend(self, server: Server | None = None) -> Backend:
        where = self.nodes[self.primary]
        return Backend(self.name, {self.setting: self.address(where)}, server)


class Redises(Pair[RedisServer]):
    name, setting = "redis", "url"

    def __init__(self, hosts: Sequence[Host]) -> None:
        first, second = hosts
        primary = RedisServer(persistent=True, host=first.address, wrapper=first.wrapper)
        replica = RedisServer(persistent=True, host=second.address, wrapper=second.wrapper, primary=primary)
        super().__init__((primary, replica))

    def address(self, node: RedisServer) -> str:
        return node.url


class Postgreses(Pair[PostgresServer]):
    name, setting = "postgres", "dsn"

    def __init__(self, hosts: Sequence[Host], release: str, *, fast: bool) -> None:
        first, second = hosts
        primary = PostgresServer(release=release, fast=fast, host=first.address, wrapper=first.wrapper)
        replica = PostgresServer(
            release=release, fast=fast, host=second.address, wrapper=second.wrapper, primary=primary
        )
        super().__init__((primary, replica))

    def address(self, node: PostgresServer) -> str:
        return f"{node.dsn} sslmode=disable"

    def addresses(self, first: int = 0) -> list[str]:
        """One: of both, as libpq wants it."""
        nodes = (*self.nodes[first:], *self.nodes[:first])
        hosts, ports = (",".join(parts) for parts in zip(*((node.host, str(node.port)) for node in nodes), strict=True))
        return [f"host={hosts} port={ports} user={OWNER} dbname=postgres sslmode=disable"]


class Folder(HostedStore[Server]):
    """No server at all. `path` lies on a small `disk` of its own."""

    name, setting = "file", "directory"

    def __init__(self, disk: Path) -> None:
        super().__init__(())
        self.disk, self.path = disk, disk / "shared"
        self._stack = ExitStack()

    def start(self, **options: Any) -> Self:
        self.disk.mkdir()
        self._stack.enter_context(small_disk(self.disk, f"size={SMALL}"))
        return self

    def close(self) -> None:
        self._stack.close()

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
        return Folder(folder / "disk")
    if backend == "consul":
        return Consuls(hosts, fast=fast)
    if backend == "redis":
        return Redises(hosts[:2])
    if backend in POSTGRES_RELEASE:
        return Postgreses(hosts[:2], POSTGRES_RELEASE[backend], fast=fast)
    return Etcds(hosts, ETCD_RELEASE[backend], fast=fast)
