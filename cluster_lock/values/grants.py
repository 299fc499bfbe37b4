"""What a driver takes and gives: leases, entries, grants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

HIGHEST_FLOOR = 10**15
"""Of fencing_floor: with what a backend counts added, every token is one that records may have."""


class Origin(StrEnum):
    """How a grant came about."""

    HANDED_OVER = "handed over"
    RELEASED = "released"
    FOUND_FREE = "found free"


@dataclass(frozen=True, slots=True)
class Traits:
    """What a backend can do; the conformance suite proves each. `expires`: the server itself frees the lock of a holder
    that is silent. `notifies`: a waiter is woken, not polling. `transfers`: a lock passes to another lease in one step.
    `tokens_survive_deletion`: fencing tokens go on growing after a key was deleted. `expiry_factor`: the server frees
    after this many ttl (Consul 2.0); the holder trusts 1 all the same. `one_host`: it keeps apart the processes of one
    host only."""

    expires: bool = True
    notifies: bool = True
    transfers: bool = True
    tokens_survive_deletion: bool = True
    expiry_factor: float = 1.0
    one_host: bool = False


@dataclass(frozen=True, slots=True)
class Lease:
    """The backend's promise. `ttl`: what the server really granted, which may be more or less than was asked."""

    id: str
    ttl: float
    holder: str


@dataclass(frozen=True, slots=True)
class Entry:
    """What the backend says about one key. `lease`: the id of the lease that holds it, None if nobody does. `index`:
    the store's index of the last change that touched it (for an absent key: an index at which it was seen absent)."""

    name: str
    lease: str | None
    index: int
    record: bytes | None


@dataclass(frozen=True, slots=True)
class Grant:
    """One successful acquire. `token`: the fencing token. `index`: guards every later verb of this grant; it equals the
    token unless the backend lets a stranger overwrite the value under our lease. `previous`: the last bytes that a
    holder before us left under this name (its record, or its farewell if it released), None if there is no trace of
    one."""

    name: str
    lease: Lease
    token: int
    index: int
    record: bytes
    previous: bytes | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """An answer of `read` and `wait_changed`. `position` is opaque: give it back to go on without losing a change.
    `epoch`: the store's own term where it has one (etcd's raft term), else 0; it only grows."""

    position: object
    entries: Mapping[str, Entry]
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class BackendNode:
    """One server of the backend. `leads`: among the servers, not any lock; None where that was not told, as with
    `version`. `problem`: why it did not answer."""

    name: str
    address: str
    leads: bool | None = None
    version: str | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Validity:
    """Between which moments a certificate is good, in seconds since 1970 by the wall clock (`clock.wall()`)."""

    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """What the server says about a lease, in seconds: what was granted, and what is left. None: it does not say."""

    ttl: float | None = None
    left: float | None = None
