"""What people may want to see of etcd beside the locks. Nothing here is needed for leading."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from operator import attrgetter
from typing import Any

from cluster_lock.errors import ClusterLockError
from cluster_lock.values import BackendNode, Entry, LeaseTimes

from .link import EtcdLink
from .requests import Requests, after_prefix, number, shown

_RANGE, _TIME_TO_LIVE = attrgetter("kv.Range"), attrgetter("leases.LeaseTimeToLive")
_MEMBERS, _STATUS = attrgetter("cluster.MemberList"), attrgetter("maintenance.Status")

_AT_ONCE = 100


class EtcdInspecting:
    """A part of the driver."""

    def _parts(self) -> tuple[EtcdLink, Any, Requests]:
        raise NotImplementedError

    async def inspect(self, prefix: str) -> list[Entry]:
        link, _, of = self._parts()
        first = of.key(prefix)
        request = of.rpc.RangeRequest(key=first, range_end=after_prefix(first))
        answer = await link.ask(_RANGE, request, f"read what begins with {shown(first)}")
        return sorted(map(of.entry_to_show, answer.kvs), key=lambda entry: entry.index)

    async def lease_times(self, lease_ids: Collection[str]) -> Mapping[str, LeaseTimes]:
        """One request for each: etcd has none for several."""
        link, _, of = self._parts()
        deadline, turns = link.deadline(), asyncio.Semaphore(_AT_ONCE)

        async def times(lease_id: str) -> tuple[str, LeaseTimes | None]:
            request = of.rpc.LeaseTimeToLiveRequest(ID=number(lease_id))
            async with turns:
                answer = await link.ask(_TIME_TO_LIVE, request, f"look at lease {lease_id}", deadline=deadline)
            gone = answer.TTL <= 0  # to etcd a lease that is gone is no error
            return lease_id, None if gone else LeaseTimes(float(answer.grantedTTL), float(answer.TTL))

        found = await asyncio.gather(*map(times, lease_ids))
        return {lease_id: told for lease_id, told in found if told is not None}

    async def nodes(self) -> list[BackendNode]:
        """The members, and what each of our endpoints says of itself."""
        link, _, of = self._parts()
        members, states = await asyncio.gather(
            link.ask(_MEMBERS, of.rpc.MemberListRequest(), "list the members"),
            link.ask_each(_STATUS, of.rpc.StatusRequest(), "ask for the state"),
        )
        told = {state.header.member_id: state for state in states.values() if not isinstance(state, ClusterLockError)}
        leader = max(told.values(), key=lambda state: state.raftTerm).leader if told else 0
        problems = {address: str(state) for address, state in states.items() if isinstance(state, ClusterLockError)}
        nodes = []
        for member in members.members:
            state = told.get(member.ID)
            nodes.append(
                BackendNode(
                    member.name or f"{member.ID:x}",
                    ",".join(member.clientURLs),
                    leader == member.ID if leader else None,
                    state.version if state else None,
                    next((problems.pop(url) for url in list(member.clientURLs) if url in problems), None),
                )
            )
        nodes += [BackendNode(address, address, None, None, problem) for address, problem in problems.items()]
        return sorted(nodes, key=lambda node: node.name)
