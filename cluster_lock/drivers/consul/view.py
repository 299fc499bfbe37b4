"""What stands under keys, now or as soon as it changes."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from cluster_lock import clock
from cluster_lock.errors import BackendUnavailable
from cluster_lock.values import Changes, Entry

from .link import ConsulLink, Row
from .words import Answered, common_start, quote_key

_SHORTEST_WAIT = 0.2
"""Seconds; for less there is no time to wait and to answer, so it is a read."""


class View:
    """Of the keys under `prefix`."""

    def __init__(self, link: ConsulLink, prefix: str) -> None:
        self._link, self._prefix = link, prefix
        self.free: dict[str, Row | None] = {}
        """By key: what stood there when it was last seen without a holder."""
        self._blind = False
        """Must the next wait look before it waits?"""

    async def read(self, names: Collection[str]) -> Changes:
        # In the renewals' lane: a renewal counts with the read after it, which may not wait behind a crowd of acquires.
        with self._link.asking(f"read {self._prefix}", lane="renewal") as client:
            return await self._state(client, names)

    async def wait_changed(self, names: Collection[str], since: object | None, at_most: float) -> Changes:
        if not isinstance(since, int) or since > self._link.seen or self._blind or at_most < _SHORTEST_WAIT:
            changes = await self.read(names)
            self._blind = False
            return changes
        # The server adds up to a sixteenth to the wait (docs/design.md#consuls-waits), and the answer takes its time.
        wait = (at_most - max(0.1, min(1.0, at_most / 5))) * 16 / 17
        not_before = clock.now() + wait
        with self._link.asking(f"watch {self._prefix}", seconds=at_most, lane="waiting") as client:
            try:
                changes = await self._state(client, names, index=since, wait=f"{wait * 1000:.0f}ms")
            except (BackendUnavailable, Answered):
                # Who answers next may have lost its data, and would let us wait for an index that it reaches in days.
                self._blind = True
                raise
        # A snapshot that is restored ends the wait with the state from before it, and then it is as above.
        self._blind = changes.position == since and clock.now() < not_before
        return changes

    async def _state(self, client: Any, names: Collection[str], **wait: Any) -> Changes:
        """Every answer has the state of all names, so an index that went back is nothing special: what is new stands in
        the answer, and the next wait goes on from there."""
        keys = {self._prefix + quote_key(name): name for name in names}
        common = common_start(keys) or self._prefix
        known = self._link.seen
        index, rows = await client.kv.get(common, recurse=len(keys) != 1, **wait)
        found = {row["Key"]: row for row in ([rows] if isinstance(rows, dict) else rows or ())}
        self._link.saw(int(index), found.values())
        # The index of a prefix is older than the deletion of a key once Consul has forgotten that (after 15 minutes).
        # But what was known before we asked is in the answer, whatever that says.
        absent_at = max(int(index), known)
        entries = {}
        for key, name in keys.items():
            row = found.get(key)
            entries[name] = entry_of(name, row) if row is not None else Entry(name, None, absent_at, None)
            if entries[name].lease is None:
                self.free[key] = row
            else:
                self.free.pop(key, None)
        return Changes(int(index), entries)


def entry_of(name: str, row: Row) -> Entry:
    return Entry(name, row.get("Session"), int(row["ModifyIndex"]), row["Value"] or b"")
