"""Which cluster is an agent of? Consul has no name for a cluster that every token may ask for.

The addresses of its servers take no right at all. But two clusters of one server each may have the same ones:
127.0.0.1:8300, in two containers. What one cluster only can know is a session of ours: an agent that does not know it,
while another one does, is of another cluster.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cluster_lock import clock
from cluster_lock.drivers.shared.one_cluster import OneCluster


@dataclass(frozen=True, slots=True)
class Told:
    """What an agent told of its cluster: the addresses of its `servers`, and whether it `knows` the `session` that it
    was asked for ("": none)."""

    servers: frozenset[str]
    session: str = ""
    knows: bool = True

    def may_be(self, other: Told) -> bool:
        """The same cluster? While servers are replaced some are still the same."""
        is_split = self.session == other.session and self.knows != other.knows
        return not is_split and not self.servers.isdisjoint(other.servers)

    def __str__(self) -> str:
        return f"[{' '.join(sorted(self.servers))}]{'' if self.knows else ' without our session'}"


class AgentsCluster(OneCluster[Told]):
    """The one cluster of the agents at `urls`."""

    def __init__(self, urls: Sequence[str]) -> None:
        super().__init__("consul", urls, Told.may_be, str)
        self._session, self._until = "", 0.0

    @property
    def session(self) -> str:
        """One of ours that our cluster must know; "" if there is none at this moment."""
        return self._session if clock.now() < self._until else ""

    def made(self, session: str, ttl: float) -> None:
        """A session of ours: our cluster knows it for a `ttl`, in seconds."""
        self._session = session
        self.renewed(session, ttl)

    def renewed(self, session: str, ttl: float) -> None:
        """For another `ttl` from now on, if it is still the last one that was made."""
        if session == self._session:
            self._until = clock.now() + ttl

    def gone(self, session: str) -> None:
        """It has ended, or will at any moment: nobody needs to know it."""
        if session == self._session:
            self._session = ""
