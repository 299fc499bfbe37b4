"""What people may want to see of Consul beside the locks. Nothing here is needed for leading."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from cluster_lock.values import BackendNode, Entry, LeaseTimes

from .link import ConsulLink
from .view import entry_of
from .words import HEALTH, Answered, is_ours, name_of, understood

_IN_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class ConsulInspecting:
    """A part of the driver."""

    _link: ConsulLink
    _key: Callable[[str], str]
    _prefix: str

    async def inspect(self, prefix: str) -> list[Entry]:
        with self._link.asking(f"read {self._key(prefix)}") as client:
            _, rows = await client.kv.get(self._key(prefix), recurse=True)
        shown = [(row["Key"].removeprefix(self._prefix), row) for row in rows or ()]
        # A key that is no name of ours is shown as it is.
        found = [entry_of(name_of(key) or key, row) for key, row in shown if row.get("Session") or not is_ours(row)]
        return sorted(found, key=lambda entry: entry.index)

    async def lease_times(self, lease_ids: Collection[str]) -> Mapping[str, LeaseTimes]:
        """Consul tells a session's ttl, and nobody when it was renewed last."""
        wanted = frozenset(lease_ids)
        with self._link.asking("list the sessions") as client:
            _, sessions = await client.session.list()
        return {each["ID"]: LeaseTimes(_seconds(each.get("TTL", ""))) for each in sessions if each["ID"] in wanted}

    async def nodes(self) -> list[BackendNode]:
        """The servers, by what autopilot says of them, for which a token needs `operator = "read"`; else by their
        addresses alone. Of several agents also those that do not serve."""
        with self._link.asking("list the servers") as client:
            problems = await self._link.ask_clusters()
            agents = [BackendNode(url, url, problem=problem) for url, problem in problems.items()]
            if servers := await _health(client):
                return sorted(map(_server, servers), key=lambda node: node.name) + agents
            leader, peers = await client.ask("/v1/status/leader"), await client.ask("/v1/status/peers")
        return [BackendNode(address, address, address == leader) for address in sorted(peers)] + agents


async def _health(client: Any) -> list[Mapping[str, Any]]:
    """Nothing if that right is missing, or autopilot has not looked yet."""
    try:
        health = await client.ask(HEALTH)
    except Answered as answer:
        if answer.status != 429:
            return []
        try:
            health = understood(HEALTH, json.loads(answer.body))  # 429: somebody is not healthy; it says who
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return []
    return health.get("Servers") or []


def _server(told: Mapping[str, Any]) -> BackendNode:
    problem = None if told["Healthy"] else f"not healthy ({told['SerfStatus']})"
    return BackendNode(told["Name"], told["Address"], told["Leader"], told["Version"] or None, problem)


def _seconds(duration: str) -> float | None:
    """A duration as Go writes it ("1m30s"); None for none."""
    parts = re.findall(r"([0-9.]+)(ms|s|m|h)", duration)
    return sum(float(number) * _IN_SECONDS[unit] for number, unit in parts) if parts else None
