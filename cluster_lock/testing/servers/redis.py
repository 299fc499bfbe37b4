"""Redis or Valkey, one server."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .base import READY_WITHIN, Server, ServerFailed, ServerTLS, free_ports, wait_for
from .tools import find_tool

_PROGRAMS = {
    "7.0": ("redis", None),
    "8.0": ("redis", "8.0"),
    "valkey-9.1": ("valkey", "9.1"),
}


class RedisServer(Server):
    """One server. `release`: "7.0" (what is installed as redis-server), "8.0" or "valkey-9.1"; None: that of
    `CLUSTER_LOCK_TEST_REDIS`, or "7.0". `persistent`: what it was told is on its disk before it answers; else a restart
    forgets all. `tls` adds a port for it, of which `url` is then. `primary`: it is a replica of it, from each
    of its starts on, until it is promoted."""

    def __init__(
        self,
        *,
        release: str | None = None,
        persistent: bool = False,
        tls: ServerTLS | None = None,
        primary: RedisServer | None = None,
        host: str = "127.0.0.1",
        port: int | None = None,
        data_dir: Path | None = None,
        wrapper: Sequence[str] = (),
    ) -> None:
        name, version = _PROGRAMS[release or os.environ.get("CLUSTER_LOCK_TEST_REDIS") or "7.0"]
        self._program = find_tool(name, f"{name}-server", version)
        self._client = find_tool(name, f"{name}-cli", version)
        super().__init__(data_dir=data_dir, wrapper=wrapper)
        self.host = host
        ports = free_ports()
        self.port = port or next(ports)
        self._tls_port = next(ports)
        self.tls = tls
        self._persistent = persistent
        self._primary = primary
        self.title = f"{name} at {self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"rediss://{self.host}:{self._tls_port}" if self.tls else f"redis://{self.host}:{self.port}"

    @property
    def age(self) -> int:
        """Whole seconds since its start, as it says itself."""
        found = re.search(r"uptime_in_seconds:(\d+)", self.cli("INFO", "server"))
        return int(found[1]) if found else 0

    def wait_age(self, seconds: float) -> None:
        """Return when it has run for so long: before that a driver takes it for one that may have lost locks."""
        wait_for(lambda: self.age >= seconds or None, seconds + 60, f"{self.title} is not {seconds:g} s old")

    @property
    def is_primary(self) -> bool:
        """False, too, while it answers nothing."""
        try:
            return self.cli("ROLE").startswith("master")
        except subprocess.SubprocessError:
            return False

    def follow(self, primary: RedisServer) -> None:
        """With its next start it is a replica of that one."""
        self._primary = primary

    def wait_follows(self) -> None:
        """Return when it hears from its primary."""
        up = "master_link_status:up"
        wait_for(lambda: up in self.cli("INFO", "replication") or None, READY_WITHIN, f"{self.title} does not follow")

    def promote(self) -> None:
        """Make a primary of a replica."""
        self._primary = None
        self.cli("REPLICAOF", "NO", "ONE")

    def lose_data(self) -> None:
        """Throw its data away; it must not run. The next start begins with nothing."""
        shutil.rmtree(self.data_dir / "appendonlydir", ignore_errors=True)

    def cli(self, *command: str) -> str:
        """What its own client prints."""
        return subprocess.run(
            [*self._wrapper, str(self._client), "-h", self.host, "-p", str(self.port), *command],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout

    def _command(self) -> list[str]:
        return [
            str(self._program),
            *("--port", str(self.port)),
            *("--bind", self.host),
            *("--protected-mode", "no"),  # else it refuses all who do not come from loopback
            *("--save", ""),
            *("--appendonly", "yes" if self._persistent else "no"),
            *("--appendfsync", "always"),
            *("--dir", str(self.data_dir)),
            *(("--replicaof", f"{self._primary.host} {self._primary.port}") if self._primary else ()),
            *self._tls_arguments(),
        ]

    def _tls_arguments(self) -> list[str]:
        if self.tls is None:
            return []
        return [
            *("--tls-port", str(self._tls_port)),
            *("--tls-ca-cert-file", str(self.tls.ca)),
            *("--tls-cert-file", str(self.tls.cert)),
            *("--tls-key-file", str(self.tls.key)),
            *("--tls-auth-clients", "yes" if self.tls.client_cert else "no"),
        ]

    def _is_ready(self) -> bool:
        try:
            with socket.create_connection((self.host, self.port), timeout=1) as connection:
                connection.sendall(b"INFO server\r\n")
                # Another server on this port would answer as well, while ours is about to end for it.
                return f"process_id:{self.pid}\r".encode() in connection.recv(4096)
        except (OSError, ServerFailed):
            return False
