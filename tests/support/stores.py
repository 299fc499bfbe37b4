"""What an operator does to the locks in a real backend, with the backend's own tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.backends import Backend

from cluster_lock.driver import Driver
from cluster_lock.drivers import driver_class
from cluster_lock.lease.guard import NoGuard
from cluster_lock.session import Session
from cluster_lock.testing.servers import ConsulServer, EtcdServer
from cluster_lock.values import LEADER, Timing

SERVERS = [
    pytest.param("etcd34", marks=pytest.mark.etcd),
    pytest.param("etcd35", marks=pytest.mark.etcd),
    pytest.param("consul", marks=pytest.mark.consul),
]
"""For `parametrize("backend", SERVERS, indirect=True, scope="session")`: servers that people reach behind our back."""

TIMING = Timing(ttl=2.0, margin=0.5, stop_time=0.3, settle=0.25)
"""Fast, for servers with fast timing."""


def driver_options(backend: Backend, prefix: str, request_timeout: float = TIMING.request) -> dict[str, Any]:
    """What a driver of the backend is made of."""
    section = dict(backend.section)
    options: dict[str, Any] = {"prefix": prefix, "request_timeout": request_timeout}
    if backend.name == "consul":
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


class Operator:
    """A person with `consul` or `etcdctl` at hand. Sync: run it in a thread beside an event loop."""

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

    def delete_key(self, name: str) -> None:
        """Delete the lock's key."""
        key = self.prefix + LEADER + name
        if self.backend.name == "etcd":
            self.etcd.ctl("del", key)
        else:
            self.consul.request("DELETE", f"/v1/kv/{key}")

    def overwrite(self, name: str, value: str) -> None:
        """Put another value under the lock's key."""
        key = self.prefix + LEADER + name
        if self.backend.name == "etcd":
            self.etcd.ctl("put", key, value)
        else:
            self.consul.request("PUT", f"/v1/kv/{key}", value)

    def end_lease(self, lease_id: str) -> None:
        """Revoke the lease, destroy the session."""
        if self.backend.name == "etcd":
            self.etcd.ctl("lease", "revoke", lease_id)
        else:
            self.consul.request("PUT", f"/v1/session/destroy/{lease_id}")

    def leases(self) -> int:
        """How many leases or sessions the server has."""
        if self.backend.name == "etcd":
            return len(self.etcd.ctl("lease", "list").split()) - 3  # "found N leases"
        return len(self.consul.request("GET", "/v1/session/list"))
