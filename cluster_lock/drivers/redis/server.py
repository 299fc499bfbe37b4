"""What a server says of itself: may locks be kept there, and is it the one that we knew?

A server that was started anew may have lost locks whose holders still work, and so may a replica that became the
primary. So a primary that we did not know gives nothing away until every lease that the one before could have granted
is over by our own clock, whose ttl the first request for a lease tells. One that has run for longer than that, and that
we meet for the first time, has all its locks. Of one that was a replica once its age says nothing, nor does INFO say
when it was promoted: who first asks it for a lease writes that down there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from cluster_lock import clock
from cluster_lock.errors import BackendRefused, BackendUnavailable, NoLeaseYet

OLDEST = (6, 2)
_KEEPS_ALL = "noeviction"


@dataclass(frozen=True, slots=True)
class Server:
    """From INFO. `identity` changes when the server is started anew, or its data may be another's."""

    product: str
    version: str
    role: str
    identity: tuple[str, str]
    age: float
    """Seconds, by its own clock, for which it runs."""
    promoted: bool
    """Was it a replica of another one?"""
    cluster: bool
    policy: str
    limited: bool
    """Is there a limit to its memory?"""

    @classmethod
    def of(cls, info: bytes) -> Server:
        """Raises BackendRefused for what is no INFO."""
        found = dict(re.findall(r"^(\w+):(.*?)\r?$", info.decode(errors="replace"), re.MULTILINE))
        try:
            return cls._of(found)
        except (KeyError, ValueError) as error:
            raise BackendRefused(f"the server's INFO lacks what we must know of it: {error}") from error

    @classmethod
    def _of(cls, found: Mapping[str, str]) -> Server:
        valkey = found.get("server_name") == "valkey"
        return cls(
            product="Valkey" if valkey else "Redis",
            version=found["valkey_version"] if valkey else found["redis_version"],
            role=found["role"],
            identity=(found["run_id"], found["master_replid"]),
            age=float(found["uptime_in_seconds"]),
            promoted=found["master_replid2"].strip("0") != "",
            cluster=found.get("cluster_enabled") == "1",
            policy=found["maxmemory_policy"],
            limited=found.get("maxmemory", "0") != "0",
        )

    @property
    def writes(self) -> bool:
        return self.role == "master"

    def check(self, where: str) -> None:
        """Raises BackendRefused if no locks may be kept there."""
        numbers = tuple(int(part) for part in re.findall(r"\d+", self.version)[:2])
        if self.product == "Redis" and numbers < OLDEST:
            raise BackendRefused(f"{where} is Redis {self.version}: it must be {'.'.join(map(str, OLDEST))} or later")
        if self.cluster:
            raise BackendRefused(
                f"{where} is part of a Redis Cluster, where a failover loses locks: use a server of its own for them"
            )
        if self.limited and self.policy != _KEEPS_ALL:
            raise BackendRefused(
                f"{where} may drop locks when its memory is full (maxmemory-policy {self.policy}): set it to"
                f" {_KEEPS_ALL}, or use a server of its own for the locks"
            )


class KnownServer:
    """The primary whose word counts, and since when. `where` is what error texts call it."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._identity: tuple[str, str] | None = None
        self._since = 0.0
        self._ttl = 0.0
        self._is_unasked = self._is_first = False

    def is_known(self, server: Server) -> bool:
        return server.identity == self._identity

    def met(self, server: Server) -> bool:
        """A new connection leads to this one. True: we knew another one until now."""
        if self.is_known(server):
            return False
        is_first = self._identity is None
        # At first contact its age tells whether it may have lost something; after a change it has, for all we know.
        age = server.age if is_first and not server.promoted else 0.0
        self._identity, self._since = server.identity, clock.now() - age
        self._is_unasked, self._is_first = server.promoted, is_first
        return not is_first

    def is_unasked(self, server: Server) -> bool:
        """Was it promoted, and must be asked since when that is known?"""
        return self._is_unasked and self.is_known(server)

    def told(self, server: Server, age: float) -> None:
        """It is known for the primary since so many seconds."""
        if not self.is_known(server):
            return
        self._is_unasked = False
        if self._is_first:
            self._since = min(self._since, clock.now() - age)

    def expect_lease(self, ttl: float) -> None:
        """Before a lease is granted. Raises NoLeaseYet."""
        self._ttl = max(self._ttl, ttl)
        if (left := self._left()) > 0:
            raise NoLeaseYet(self._text(left))

    def expect_grant(self) -> None:
        """Before a lock is granted. Raises BackendUnavailable."""
        if (left := self._left()) > 0:
            raise BackendUnavailable(self._text(left))

    def _left(self) -> float:
        return self._since + self._ttl - clock.now()

    def _text(self, left: float) -> str:
        return (
            f"{self._where} was started, or became the primary, less than a ttl ago and may have lost locks:"
            f" nobody gets one for {left:.1f} s more"
        )
