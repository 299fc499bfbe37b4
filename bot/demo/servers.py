"""The backend below a demo: a server of its own, or the one that somebody configured."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel

from cluster_lock.config import load
from cluster_lock.errors import ConfigError
from cluster_lock.testing.servers import ConsulServer, EtcdServer, PostgresServer, RedisServer, Server

from .plan import BACKENDS

ADDRESS = {
    "etcd": ("endpoints", "ETCDCTL_ENDPOINTS"),
    "consul": ("url", "CONSUL_HTTP_ADDR"),
    "redis": ("url", "CLUSTER_LOCK_REDIS__URL"),
    "postgres": ("dsn", "PGHOST"),
}


def chosen_backend(file: Path | None) -> str:
    """The backend that a configuration names; files without one. Raises ConfigError for one that has no demo."""
    if file is None:
        return "file"
    backend = load(file).backend
    if backend not in BACKENDS:
        raise ConfigError([f"{file}: the demo knows the backends {', '.join(BACKENDS)}, not {backend}"])
    return backend


def is_configured(backend: str, file: Path | None) -> bool:
    """True if a file or a variable says where the server of this backend is. Raises ConfigError if they are wrong."""
    if backend not in ADDRESS:
        return False
    address, variable = ADDRESS[backend]
    section: BaseModel = getattr(load(file, overrides={"backend": backend}), backend)
    is_default = getattr(section, address) == type(section).model_fields[address].default
    return file is not None or bool(os.environ.get(variable)) or not is_default


def own_server(backend: str) -> Server | None:
    """A server with fast times and its data on disk, not started yet; None for files, which need none.

    Raises ServerMissing, whose text says what to run.
    """
    if backend == "etcd":
        return EtcdServer()
    if backend == "consul":
        return ConsulServer()
    if backend == "redis":
        return RedisServer(persistent=True)
    if backend == "postgres":
        return PostgresServer()
    return None
