"""What a store must look like to every client, as the contract of drivers says it: nothing expires here by time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cluster_lock.values import Entry, Grant, Lease


@dataclass(slots=True)
class Held:
    """What stands under a key. `index`: None until it was read for the first time."""

    lease: str
    record: bytes
    index: int | None = None
    previous: bytes | None = None
    told: bool = True
    """Must each acquire tell `previous`? No store has to remember what stood there before a transfer."""


class Model:
    """`leases`, `keys` and `words` (the last bytes of a holder under a lock that is free) as they must be."""

    def __init__(self) -> None:
        self.leases: dict[str, Lease] = {}
        self.keys: dict[str, Held] = {}
        self.words: dict[str, bytes] = {}
        self.tokens: dict[str, int] = {}
        self.seen: dict[str, int] = {}
        """By name, the largest index that anybody was told of, as a holder's or as one without a holder."""
        self.stood: dict[str, int] = {}
        """By name, the index of the last holder."""
        self.now = 0
        """Moves with each change."""
        self._changed_at: dict[str, int] = {}

    def changed(self, names: Iterable[str], since: int) -> set[str]:
        """Those of `names` that changed after the moment `since`."""
        return {name for name in names if self._changed_at.get(name, 0) > since}

    def stands(self, grant: Grant) -> bool:
        """Is it the grant that stands there, and not one of an earlier term?"""
        held = self.keys.get(grant.name)
        return held is not None and (held.lease, held.index) == (grant.lease.id, grant.index)

    def waits(self, heir: Entry) -> bool:
        """Is the contender's key still held by the contender's lease?"""
        return heir.name in self.keys and self.keys[heir.name].lease == heir.lease

    def put(self, name: str, held: Held) -> None:
        self.keys[name] = held
        self._change(name)

    def free(self, name: str, word: bytes | None = None) -> None:
        """The key has no holder any more, and leaves `word`, or else its record."""
        held = self.keys.pop(name)
        self.words[name] = held.record if word is None else word
        self._change(name)

    def end(self, lease_id: str) -> None:
        """The lease, and all that it holds. One that is over already is fine."""
        self.leases.pop(lease_id, None)
        for name in [name for name, held in self.keys.items() if held.lease == lease_id]:
            self.free(name)

    def agrees(self, entry: Entry) -> bool:
        """Is it what stands there now? Of a key without a holder a store may show the last word, or nothing."""
        name, held = entry.name, self.keys.get(entry.name)
        if held is None:
            is_word = entry.record in (None, self.words.get(name))
            return entry.lease is None and is_word and entry.index >= self.stood.get(name, 0)
        right = entry.index > self.seen.get(name, 0) if held.index is None else entry.index == held.index
        return right and (entry.lease, entry.record) == (held.lease, held.record)

    def learn(self, entry: Entry) -> None:
        """The index of what stands there, from an entry that agrees."""
        if (held := self.keys.get(entry.name)) is not None:
            held.index = self.stood[entry.name] = entry.index
        self.seen[entry.name] = max(self.seen.get(entry.name, 0), entry.index)

    def _change(self, name: str) -> None:
        self.now += 1
        self._changed_at[name] = self.now
