"""Where Redis is and as whom we come, checked before the first request."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster_lock.drivers.shared.addresses import Address, addresses
from cluster_lock.drivers.shared.secret import Secret, revealed
from cluster_lock.drivers.shared.tls_files import TLSFiles
from cluster_lock.errors import ConfigError

_PORT, _SENTINEL_PORT = 6379, 26379
_SCHEMES = ("redis", "rediss")


class RedisAccess:
    """All of it, checked. Raises ConfigError with every problem at once.

    `service`: the name of the primary at the Sentinels that `urls` are then the addresses of.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        db: int = 0,
        user: str | None = None,
        password: str | Secret | None = None,
        ca: str | Path | None = None,
        cert: str | Path | None = None,
        key: str | Path | None = None,
        service: str | None = None,
    ) -> None:
        given = {"ca": ca, "cert": cert, "password": password}
        port = _SENTINEL_PORT if service else _PORT
        found, problems = addresses("redis", urls, given, port=port, schemes=_SCHEMES)
        if not urls:
            problems.append("redis: there must be at least one address, such as redis://127.0.0.1:6379")
        if (cert is None) != (key is None):
            problems.append("redis: a client certificate needs both of cert and key")
        if user is not None and password is None:
            problems.append("redis: a user needs a password")
        if problems:
            raise ConfigError(problems)
        self.addresses = tuple(found)
        self.service = service
        self.files = TLSFiles("redis", ca, cert, key)
        self._db, self._user, self._password = db, user, password
        self._paths = {"ssl_ca_certs": ca, "ssl_certfile": cert, "ssl_keyfile": key}

    @property
    def shown(self) -> str:
        """For people."""
        where = ",".join(map(str, self.addresses))
        return f"redis {self.service} at {where}" if self.service else f"redis {where}"

    def options(self, address: Address, library: Any, *, known: bool = True) -> tuple[Any, dict[str, Any]]:
        """The class of a connection to `address`, and what it is made with. Holds the password, unless we come without
        a name."""
        kind = library.asyncio.SSLConnection if address.tls else library.asyncio.Connection
        options = {
            "host": address.host,
            "port": address.port,
            "db": self._db,
            "username": self._user if known else None,
            "password": revealed(self._password) if known else None,
            # Each request has a limit from outside, and each of these would retry or give up by a clock of its own.
            "socket_timeout": None,
            "socket_connect_timeout": None,
            "health_check_interval": 0,
            "protocol": 2,
        }
        if address.tls:
            options |= {name: str(path) for name, path in self._paths.items() if path is not None}
        return kind, options
