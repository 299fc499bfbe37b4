"""Where etcd is and as whom we come: endpoints, TLS files, user and password, checked before the first request."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cluster_lock.drivers.shared.addresses import addresses
from cluster_lock.drivers.shared.secret import Secret, revealed
from cluster_lock.drivers.shared.tls_files import TLSFiles
from cluster_lock.errors import ConfigError

_PORT = 2379


class EtcdAccess:
    """All of it, checked. Raises ConfigError with every problem at once."""

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        ca: str | Path | None = None,
        cert: str | Path | None = None,
        key: str | Path | None = None,
        user: str | None = None,
        password: str | Secret | None = None,
    ) -> None:
        given = {"ca": ca, "cert": cert, "user": user, "password": password}
        found, problems = addresses("etcd", endpoints, given, port=_PORT)
        if not endpoints:
            problems.append("etcd: there must be at least one endpoint, such as http://127.0.0.1:2379")
        if (cert is None) != (key is None):
            problems.append("etcd: a client certificate needs both of cert and key")
        if (user is None) != (password is None):
            problems.append("etcd: give both of user and password, or none of them")
        if problems:
            raise ConfigError(problems)
        self.addresses = tuple(found)
        self.files = TLSFiles("etcd", ca, cert, key)
        self.user = user
        self._password = password

    @property
    def secret(self) -> str:
        """The password."""
        return revealed(self._password) or ""
