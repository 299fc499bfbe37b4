"""Do all endpoints of a list belong to one cluster? Two clusters in one list would be two leaders.

The cluster first learnt is ours. Anybody who belongs to another one is not listened to. While two of them answer,
within one ttl, nobody gets a lease and none is renewed: an instance that sees the other one only would lead there. When
ours has not answered for a whole ttl, and anybody who answers belongs to one other cluster, that one is ours from then
on: the backend was rebuilt or replaced, and every lease from before is gone.

At first contact nothing is known, and an endpoint that is silent may be of another cluster, where others lead. So more
than half of the endpoints must have answered, or the silent ones be named by the cluster as its own; or one ttl has
passed without a word from them. Two instances with the same list then never begin on two clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Generic, TypeVar

from cluster_lock import clock
from cluster_lock.errors import BackendRefused, BackendUnavailable, NoLeaseYet

Id = TypeVar("Id")

_UNTIL_A_TTL_IS_KNOWN = 15.0
"""Seconds for which an endpoint's word counts as long as nobody has asked for a lease."""


class OtherCluster(BackendUnavailable):
    """An endpoint answered that belongs to another cluster: what it says is not about our locks."""


class OneCluster(Generic[Id]):
    """`endpoints`: by their addresses. `same`: do two ids mean one cluster? `shown`: an id for people."""

    def __init__(
        self,
        driver: str,
        endpoints: Sequence[str],
        same: Callable[[Id, Id], bool],
        shown: Callable[[Id], str],
    ) -> None:
        self._driver, self._endpoints = driver, tuple(endpoints)
        self._same, self._shown = same, shown
        self._ours: Id | None = None
        self._told: dict[str, list[tuple[Id, float]]] = {}
        """By endpoint: each id that it told within the last ttl, and when last."""
        self.ttl = 0.0
        """The longest that was asked for, in seconds; 0 before that."""
        self._begun: float | None = None
        self._settled = False

    def heard(self, endpoint: str, cluster: Id) -> None:
        """An endpoint told its cluster. Raises OtherCluster."""
        self._forget()
        told = [known for known in self._told.get(endpoint, ()) if not self._same(known[0], cluster)]
        self._told[endpoint] = [*told, (cluster, clock.now())]
        if self._ours is None:
            self._ours = cluster
        if not self.is_ours(cluster):
            raise OtherCluster(
                f"{self._driver} {endpoint} is of cluster {self._shown(cluster)} and not of ours,"
                f" {self._shown(self._ours)}: it is not listened to"
            )
        self._ours = cluster

    def knows(self, endpoint: str) -> bool:
        """Has it said within the last ttl that it is of our cluster?"""
        self._forget()
        return any(self.is_ours(cluster) for cluster, _ in self._told.get(endpoint, ()))

    @property
    def in_doubt(self) -> bool:
        """Has anybody told another cluster than ours within the last ttl?"""
        self._forget()
        return not all(self.is_ours(cluster) for told in self._told.values() for cluster, _ in told)

    def check(self) -> None:
        """Raises BackendRefused while two clusters answer."""
        groups = self._groups()
        if len(groups) > 1:
            each = "; ".join(f"{self._shown(cluster)} at {', '.join(where)}" for cluster, where in groups)
            raise BackendRefused(
                f"{self._driver}: the endpoints belong to {len(groups)} clusters, so that two could lead: {each}."
                " Nobody leads until the list names one cluster"
            )

    def judge(self, since: float, ttl: float, members: Collection[str]) -> None:
        """Before a lease is granted for `ttl`, every endpoint having been asked at `since`. `members`: the endpoints
        that the cluster calls its own. Raises BackendRefused; NoLeaseYet while too few have answered."""
        self.ttl = max(self.ttl, ttl)
        if self._begun is None:
            self._begun = since
        self.agree()
        silent = [each for each in self._endpoints if all(at < since for _, at in self._told.get(each, ()))]
        if self._settled or len(silent) == len(self._endpoints):
            return  # of the latter the request for the lease will tell more
        unknown = [each for each in silent if each not in members]
        enough = len(silent) * 2 < len(self._endpoints) or not unknown
        if not enough and clock.now() < self._begun + ttl:
            raise NoLeaseYet(
                f"{self._driver}: no lease yet: {' and '.join(unknown)} did not answer and may be of another cluster;"
                f" waiting for an answer for at most {ttl:g} s"
            )
        self._settled = True

    def agree(self) -> None:
        """Take the cluster that answers for ours, if there is one only. Raises BackendRefused if there are two."""
        self.check()
        for cluster, _ in self._groups():
            self._ours = cluster

    def _groups(self) -> list[tuple[Id, list[str]]]:
        """The clusters that were told within the last ttl, and by whom."""
        self._forget()
        groups: list[tuple[Id, list[str]]] = []
        for endpoint, told in self._told.items():
            for cluster, _ in told:
                where = next((where for known, where in groups if self._same(known, cluster)), None)
                if where is None:
                    groups.append((cluster, [endpoint]))
                else:
                    where.append(endpoint)
        return groups

    def is_ours(self, cluster: Id) -> bool:
        """Is it the same as ours? Nobody's is, before anybody has told one."""
        return self._ours is not None and self._same(self._ours, cluster)

    def _forget(self) -> None:
        """What was told longer ago than a ttl."""
        oldest = clock.now() - (self.ttl or _UNTIL_A_TTL_IS_KNOWN)
        for endpoint, told in self._told.items():
            if any(at < oldest for _, at in told):
                self._told[endpoint] = [known for known in told if known[1] >= oldest]
