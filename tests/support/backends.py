"""The backends that a test run is about."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from typing import Any, Self

from cluster_lock.testing.servers import ConsulServer, EtcdServer, PostgresServer, RedisServer, Server

ETCD_RELEASE = {"etcd34": "3.4", "etcd35": "3.5"}
POSTGRES_RELEASE = {"postgres15": "15", "postgres18": "18"}
BACKENDS = frozenset({"file", "consul", "redis", *ETCD_RELEASE, *POSTGRES_RELEASE})


@dataclass(frozen=True, slots=True)
class Backend:
    """`name` as in `backend:` of config.yaml, `section` as the section of that name; `server` is None for files."""

    name: str
    section: dict[str, Any]
    server: Server | None

    @property
    def port(self) -> int:
        """Of the server, for clients."""
        match self.server:
            case EtcdServer():
                return self.server.client_port
            case ConsulServer():
                return self.server.http_port
            case RedisServer() | PostgresServer():
                return self.server.port
        raise AssertionError(f"{self.name} has no port")

    def by_way_of(self, port: int) -> Self:
        """The same, reached over a proxy on this port."""
        section = json.loads(json.dumps(self.section).replace(str(self.port), str(port)))
        return replace(self, section=section)


def selected_backends() -> frozenset[str]:
    """Those of `CLUSTER_LOCK_TEST_BACKENDS`, or all."""
    named = os.environ.get("CLUSTER_LOCK_TEST_BACKENDS", "")
    chosen = frozenset(filter(None, named.replace(" ", "").split(",")))
    unknown = chosen - BACKENDS
    if unknown:
        raise ValueError(f"CLUSTER_LOCK_TEST_BACKENDS: unknown {sorted(unknown)}, allowed {sorted(BACKENDS)}")
    return chosen or BACKENDS
