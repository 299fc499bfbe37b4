"""Stores and drivers in memory with one fault each, which both the conformance suite and the model must find."""

from __future__ import annotations

from collections.abc import Collection

from cluster_lock.drivers.memory import MemoryBackend, MemoryDriver
from cluster_lock.values import Changes, Grant, Lease


class WaitingFromNow(MemoryDriver):
    async def wait_changed(self, names: Collection[str], since: object | None, at_most: float) -> Changes:
        now = since if since is None else self._backend.index
        return await super().wait_changed(names, now, at_most)


class ComparingStates(MemoryDriver):
    async def wait_changed(self, names: Collection[str], since: object | None, at_most: float) -> Changes:
        changes = await super().wait_changed(names, since, at_most)
        if since is not None and all(entry.lease is None for entry in changes.entries.values()):
            return Changes(changes.position, {})
        return changes


class AcquiringAgainWritesAgain(MemoryBackend):
    def acquire(self, lease: Lease, key: str, name: str, record: bytes) -> Grant | None:
        grant = super().acquire(lease, key, name, record)
        if grant is not None and grant.record != record:
            stands = self._put(key, lease.id, record)
            return Grant(name, lease, stands.index, stands.index, record)
        return grant


class WithdrawingAnything(MemoryBackend):
    def withdraw(self, lease: Lease, key: str) -> None:
        self.stranger_deletes(key)
