"""The verbs of a driver, each on its way there and back."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

from cluster_lock import clock
from cluster_lock.values import BackendNode, Changes, Entry, Grant, Lease, LeaseTimes, Traits

from .store import MemoryBackend


class MemoryDriver:
    """A client of a `MemoryBackend`. Other clients of the same backend are other processes, so to say."""

    def __init__(self, backend: MemoryBackend | None = None, *, prefix: str = "cluster-lock/") -> None:
        self._backend = backend or MemoryBackend()
        self._prefix = prefix
        self._mine: list[str] = []

    @property
    def traits(self) -> Traits:
        return self._backend.traits

    @property
    def backend(self) -> str:
        return "memory"

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        if not self.traits.expires:  # a backend whose leases do not expire ties them to the connection instead
            for lease_id in self._mine:
                self._backend.end_lease(lease_id)
        self._mine.clear()

    async def grant_lease(self, holder: str, ttl: float) -> Lease:
        await self._travel()
        lease = self._backend.grant(holder, ttl)
        self._mine.append(lease.id)
        await self._travel_back()
        return lease

    async def renew(self, lease: Lease) -> int:
        await self._travel()
        self._backend.renew(lease)
        await self._travel_back()
        return 0

    async def revoke(self, lease: Lease) -> None:
        await self._travel()
        self._backend.end_lease(lease.id)
        await self._travel_back()

    async def acquire(self, lease: Lease, name: str, record: bytes) -> Grant | None:
        await self._travel()
        grant = self._backend.acquire(lease, self._prefix + name, name, record)
        await self._travel_back()
        return grant

    async def release(self, grant: Grant, farewell: bytes) -> None:
        await self._travel()
        self._backend.release(grant, self._prefix + grant.name, farewell)
        await self._travel_back()

    async def transfer(self, grant: Grant, heir: Entry, record: bytes) -> bool:
        if not self.traits.transfers:
            raise RuntimeError("this backend does not transfer: release instead")
        await self._travel()
        done = self._backend.transfer(grant, self._prefix + grant.name, heir, self._prefix + heir.name, record)
        await self._travel_back()
        return done

    async def announce(self, lease: Lease, name: str, record: bytes) -> None:
        await self._travel()
        self._backend.announce(lease, self._prefix + name, record)
        await self._travel_back()

    async def withdraw(self, lease: Lease, name: str) -> None:
        await self._travel()
        self._backend.withdraw(lease, self._prefix + name)
        await self._travel_back()

    async def read(self, names: Collection[str]) -> Changes:
        return await self.wait_changed(names, None, 0)

    async def scan(self, prefix: str) -> list[Entry]:
        await self._travel()
        keys = self._backend.keys_under(self._prefix + prefix)
        entries = [self._backend.entry(key, key.removeprefix(self._prefix)) for key in keys]
        await self._travel_back()
        return entries

    async def inspect(self, prefix: str) -> list[Entry]:
        await self._travel()
        entries = self._backend.inspect(self._prefix + prefix, len(self._prefix))
        await self._travel_back()
        return entries

    async def lease_times(self, lease_ids: Collection[str]) -> Mapping[str, LeaseTimes]:
        await self._travel()
        times = self._backend.lease_times()
        await self._travel_back()
        return {lease_id: times[lease_id] for lease_id in lease_ids if lease_id in times}

    async def nodes(self) -> list[BackendNode]:
        return []

    async def wait_changed(self, names: Collection[str], since: object | None, at_most: float) -> Changes:
        keys = {self._prefix + name: name for name in names}
        until = clock.now() + at_most
        await self._travel()
        while not (changed := self._backend.changed(keys, since)) and clock.now() < until:
            await self._backend.woken(frozenset(keys), until)
        entries = {keys[key]: self._backend.entry(key, keys[key]) for key in changed}
        changes = Changes(self._backend.index, entries)
        await self._travel_back()
        return changes

    async def _travel(self) -> None:
        """The request is on its way: cancelled here, it was never applied."""
        self._backend.requests += 1
        await asyncio.sleep(0)
        self._backend.sweep()

    async def _travel_back(self) -> None:
        """The reply is on its way: cancelled here, the request was applied all the same."""
        await asyncio.sleep(0)
