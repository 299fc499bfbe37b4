"""Where Redis is and as whom we come, checked before the first request."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster_lock.drivers.shared.addresses import Address, addresses
from cluster_lock.drivers.shared.secret import Secret, revealed
from cluster_lock.drivers.shared.tls_files import TLSFiles
from cluster_lock.drivers.shared.utf8 import is_text
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
        for what, text in (("user", user), ("password", revealed(password)), ("service", service)):
            if not is_text(text or ""):
                problems.append(f"redis: the {what} is no text that could be sent: it has bytes that are not UTF-8")
        if problems:
            raise ConfigError(problems)
        self.addresses = tuple(found)
        self.service = service
        self.files = TLSFiles("redis", ca, cert, key)
        self._db, self._user, self._password = db, user, password

    @property
    def shown(self) -> str:
        """For people."""
        where = ",".join(map(str, self.addresses))
        return f"redis {self.service} at {where}" if self.service else f"redis {where}"

    def look_for_new_files(self) -> None:
        """Certificates that were replaced on the disk are read before they are needed."""
        if any(address.tls for address in self.addresses):
            self.files.look()

    def connection(self, address: Address, library: Any, *, db: int | None = None, known: bool = True) -> Any:
        """A connection to `address`, not made yet. `db`: another one than ours. Not `known`: without user and
        password."""
        options = {
            "host": address.host,
            "port": address.port,
            "db": self._db if db is None else db,
            "username": self._user if known else None,
            "password": revealed(self._password) if known else None,
            # Each request has a limit from outside, and each of these would retry or give up by a clock of its own. On
            # Python 3.11 the first one may even swallow our cancellation: it uses asyncio.wait_for.
            "socket_timeout": None,
            "socket_connect_timeout": None,
            "health_check_interval": 0,
            "protocol": 2,
        }
        if not address.tls:
            return library.asyncio.Connection(**options)
        made = library.asyncio.SSLConnection(**options)
        # Made of paths, its own would trust the public authorities beside ours, and read files that broke meanwhile.
        made.ssl_context.context = self.files.context
        return made
