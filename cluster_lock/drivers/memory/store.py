"""A store that lives in this process: leases expire on `clock.now()`, tokens come from its one index."""

from __future__ import annotations

import asyncio
import copy
import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from cluster_lock import clock
from cluster_lock.errors import BackendRefused, ForeignValue, LeaseExpired
from cluster_lock.values import Entry, Grant, Lease, LeaseTimes, Traits


@dataclass(slots=True)
class _Key:
    lease: str | None
    index: int
    record: bytes
    previous: bytes | None = None


@dataclass(slots=True)
class _LiveLease:
    holder: str
    ttl: float
    expires_at: float
    keys: set[str] = field(default_factory=set)


class MemoryBackend:
    """The store: keys that point at leases, and one index that every change moves.

    Keys are full names ("cluster-lock/leader/x"). What a person does to a store by hand is public here.
    """

    def __init__(self, *, traits: Traits | None = None, min_ttl: float = 0.01) -> None:
        self.traits = traits or Traits()
        self.min_ttl = min_ttl
        self.index = 1
        """The store's index. A test may set it back, as a restore does."""
        self.requests = 0
        """How many requests have come: one for each call of a verb."""
        self._keys: dict[str, _Key] = {}
        self._leases: dict[str, _LiveLease] = {}
        self._last_words: dict[str, bytes] = {}
        self._changed_at: dict[str, int] = {}
        self._waiters: dict[asyncio.Future[None], frozenset[str]] = {}
        self._lease_number = 0

    # What a person does to the store.

    def leases(self) -> dict[str, str]:
        """The holders of all live leases, by lease id."""
        self.sweep()
        return {lease_id: lease.holder for lease_id, lease in self._leases.items()}

    def stranger_writes(self, key: str, value: bytes) -> None:
        """Put `value` under `key`, as a person does with the store's own tool: nobody holds the key then."""
        self._put(key, None, value)

    def stranger_deletes(self, key: str) -> None:
        """Delete `key`, whatever holds it."""
        if key in self._keys:
            self._remove([key])

    def end_lease(self, lease_id: str) -> None:
        """End a lease and all that it holds, as expiry does. One that is gone is fine."""
        if lease := self._leases.pop(lease_id, None):
            self._remove(lease.keys)

    def sweep(self) -> None:
        """End the leases whose time is over. Comes before every verb."""
        now = clock.now()
        for lease_id in [lease_id for lease_id, lease in self._leases.items() if lease.expires_at <= now]:
            self.end_lease(lease_id)

    def save(self) -> object:
        """A snapshot, for `restore`."""
        return copy.deepcopy((self._keys, self._leases, self._last_words, self._changed_at, self.index))

    def restore(self, saved: object, *, bump: int = 0) -> None:
        """Go back to a snapshot: what was written since is gone, leases that were alive then are alive again, for a
        whole ttl. `bump`: the index goes on so much higher, and old positions are believed, so that who waits hears
        nothing."""
        assert isinstance(saved, tuple)
        self._keys, self._leases, self._last_words, self._changed_at, self.index = copy.deepcopy(saved)
        self.index += bump
        for lease in self._leases.values():
            lease.expires_at = self._expiry(lease.ttl)
        if not bump:
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)

    # The verbs, each one atomic.

    def grant(self, holder: str, ttl: float) -> Lease:
        if ttl < self.min_ttl:
            raise BackendRefused(f"ttl {ttl:g} s is less than this store allows: at least {self.min_ttl:g} s")
        self._lease_number += 1
        lease = Lease(id=f"{self._lease_number:x}", ttl=ttl, holder=holder)
        self._leases[lease.id] = _LiveLease(holder, ttl, self._expiry(ttl))
        return lease

    def renew(self, lease: Lease) -> None:
        live = self._live(lease)
        live.expires_at = self._expiry(live.ttl)

    def acquire(self, lease: Lease, key: str, name: str, record: bytes) -> Grant | None:
        self._live(lease)
        stands = self._keys.get(key)
        if stands is None:
            stands = self._put(key, lease.id, record, previous=self._last_words.pop(key, None))
        elif stands.lease is None:
            raise ForeignValue(f"the value of {key!r} was not written by a leader; look at it, then delete it")
        elif stands.lease != lease.id:
            return None
        return Grant(name, lease, stands.index, stands.index, stands.record, stands.previous)

    def release(self, grant: Grant, key: str, farewell: bytes) -> None:
        if self._stands(grant, key):
            self._remove([key])
            self._last_words[key] = farewell

    def transfer(self, grant: Grant, key: str, heir: Entry, heir_key: str, record: bytes) -> bool:
        waits = self._keys.get(heir_key)
        if not self._stands(grant, key) or waits is None or heir.lease is None or waits.lease != heir.lease:
            return False
        self._put(key, heir.lease, record, previous=self._keys[key].record)
        return True

    def announce(self, lease: Lease, key: str, record: bytes) -> None:
        self._live(lease)
        self._put(key, lease.id, record)

    def withdraw(self, lease: Lease, key: str) -> None:
        stands = self._keys.get(key)
        if stands is not None and stands.lease == lease.id:
            self._remove([key])

    def entry(self, key: str, name: str) -> Entry:
        stands = self._keys.get(key)
        if stands is None:
            return Entry(name, None, self.index, None)
        return Entry(name, stands.lease, stands.index, stands.record)

    def keys_under(self, prefix: str) -> list[str]:
        held = [key for key, stands in self._keys.items() if stands.lease is not None and key.startswith(prefix)]
        return sorted(held, key=lambda key: self._keys[key].index)

    def inspect(self, prefix: str, length: int) -> list[Entry]:
        """All keys under `prefix`, in the order of their indexes; `length`: of what is no part of a name."""
        found = [self.entry(key, key[length:]) for key in self._keys if key.startswith(prefix)]
        return sorted(found, key=lambda entry: entry.index)

    def lease_times(self) -> dict[str, LeaseTimes]:
        now = clock.now()
        return {each: LeaseTimes(lease.ttl, lease.expires_at - now) for each, lease in self._leases.items()}

    def changed(self, keys: Iterable[str], since: object | None) -> list[str]:
        """Those of `keys` that changed after `since`; all of them if that position says nothing here."""
        if not isinstance(since, int) or since > self.index:
            return list(keys)
        return [key for key in keys if self._changed_at.get(key, 0) > since]

    async def woken(self, keys: frozenset[str], until: float) -> None:
        """Return when one of `keys` changes, when a lease may have expired, or at the moment `until`."""
        wakes_at = min([until, *(lease.expires_at for lease in self._leases.values())])
        waiter = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = keys
        try:
            # Never less than a millisecond: the loop's timer may be a rounding error early, and would be again.
            await asyncio.wait([waiter], timeout=max(0.001, wakes_at - clock.now()))
        finally:
            del self._waiters[waiter]
        self.sweep()

    # The state behind them.

    def _expiry(self, ttl: float) -> float:
        return clock.now() + ttl * self.traits.expiry_factor if self.traits.expires else math.inf

    def _live(self, lease: Lease) -> _LiveLease:
        live = self._leases.get(lease.id)
        if live is None:
            raise LeaseExpired(f"lease {lease.id} of {lease.holder} is gone")
        return live

    def _stands(self, grant: Grant, key: str) -> bool:
        # By the index too, not by the lease alone: a late copy of a request of an earlier term of the same lease must
        # find nothing.
        stands = self._keys.get(key)
        return stands is not None and stands.lease == grant.lease.id and stands.index == grant.index

    def _put(self, key: str, lease_id: str | None, record: bytes, *, previous: bytes | None = None) -> _Key:
        self._detach(key)
        if lease_id is not None:
            self._leases[lease_id].keys.add(key)
        self._note_change([key])
        self._keys[key] = _Key(lease_id, self.index, record, previous)
        return self._keys[key]

    def _remove(self, keys: Collection[str]) -> None:
        keys = sorted(keys)
        for key in keys:
            self._detach(key)
            stands = self._keys.pop(key)
            if stands.lease is not None:
                self._last_words[key] = stands.record
        self._note_change(keys)

    def _detach(self, key: str) -> None:
        stands = self._keys.get(key)
        if stands is not None and stands.lease in self._leases:
            self._leases[stands.lease].keys.discard(key)

    def _note_change(self, keys: Collection[str]) -> None:
        self.index += 1
        for key in keys:
            self._changed_at[key] = self.index
        for waiter, wanted in self._waiters.items():
            if not waiter.done() and not wanted.isdisjoint(keys):
                waiter.set_result(None)
