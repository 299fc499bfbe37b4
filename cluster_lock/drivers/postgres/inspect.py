"""What people may want to see of PostgreSQL beside the locks. Nothing here is needed for leading."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from cluster_lock.errors import ClusterLockError
from cluster_lock.values import BackendNode, Entry, LeaseTimes

from .link import Link
from .texts import must_fit

_NOT_YET = (
    "nothing is set up here yet: who asks for a lease first makes the schema cluster_lock, or 'cluster-lock init-db'"
)


class PostgresInspecting:
    """A part of the driver."""

    _prefix: str

    def _parts(self) -> tuple[Link, Any]:
        raise NotImplementedError

    async def inspect(self, prefix: str) -> list[Entry]:
        return await self._scan(prefix, everything=True)

    async def lease_times(self, lease_ids: Collection[str]) -> Mapping[str, LeaseTimes]:
        link, _ = self._parts()
        rows = await link.look("lease_times", (list(lease_ids),), "look at leases")
        return {row["id"]: LeaseTimes(row["ttl"], row["ends_in"]) for row in rows}

    async def nodes(self) -> list[BackendNode]:
        """The server that takes our writes; of its replicas we know nothing."""
        link, _ = self._parts()
        try:
            rows = await link.look("node", (), "look at the server")
        except ClusterLockError as error:
            return [BackendNode(link.backend, link.backend, None, None, str(error))]
        if not rows:
            return [BackendNode(link.backend, link.backend, None, None, _NOT_YET)]
        (told,) = rows
        return [BackendNode(told["system"], link.backend, True, told["version"], told_at=told["told_at"])]

    async def _scan(self, prefix: str, *, everything: bool) -> list[Entry]:
        link, _ = self._parts()
        must_fit(prefix, link.backend)
        values = (self._prefix, prefix, everything)
        rows = await link.look("scan", values, f"read what begins with {prefix}")
        return [Entry(row["name"], row["lease"], row["index"], row["record"]) for row in rows]
