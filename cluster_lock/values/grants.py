"""What a driver takes and gives: leases, entries, grants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

HIGHEST_FLOOR = 5 * 10**15
"""Of fencing_floor: above what Redis counts (microseconds since 1970, 1.8e15 now), and with what a backend counts added
every token is one that records may have."""


class Origin(StrEnum):
    """How a grant came about (docs/design.md#how-a-grant-came-about)."""

    HANDED_OVER = "handed over"
    """The leader before gave the lock to this very lease."""
    RELEASED = "released"
    """The leader before, of whom we had heard, gave the lock back when its work had ended, and said so."""
    RELEASED_EARLIER = "released earlier"
    """The word says so, of a term that we did not hear of, as in a process that has just begun. A store that was set
    back says it of a term that is not the last one, so work begins `Timing.settle` later."""
    FOUND_FREE = "found free"
    """Nobody held the lock. The leader before may not know that yet, so work begins `Timing.settle` later."""

    @property
    def settles(self) -> bool:
        """Whether somebody who led before may not have heard of it yet."""
        return self in (Origin.RELEASED_EARLIER, Origin.FOUND_FREE)


@dataclass(frozen=True, slots=True)
class Traits:
    """What a backend can do. The conformance suite proves each."""

    expires: bool = True
    """The server itself frees the lock of a holder that is silent."""
    notifies: bool = True
    """A waiter is woken; it need not ask again and again."""
    transfers: bool = True
    """A lock passes to another lease in one step."""
    tokens_survive_deletion: bool = True
    """Fencing tokens go on growing after a key was deleted."""
    expiry_factor: float = 1.0
    """The server frees a lock after so many times the ttl (Consul: 2.0). The holder trusts one ttl all the same."""
    one_host: bool = False
    """It keeps apart the processes of one host only."""
    linearizable_waits: bool = False
    """What ends a wait was read from the store after the change, as `read` reads it: there is no need to read again."""
    majority: bool = False
    """Its servers decide by majority, so that their number counts."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The backend's promise to keep what this lease holds until a ttl has passed without a renewal."""

    id: str
    """The backend's name for it."""
    ttl: float
    """Seconds that the server really granted, which may be more or less than was asked."""
    holder: str
    """Who has it, for people: instance, host, process."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What the backend says about one key."""

    name: str
    """The key, without the prefix."""
    lease: str | None
    """The id of the lease that holds it; None if nobody does."""
    index: int
    """The store's index of the last change of this key; for an absent key, one at which it was seen absent."""
    record: bytes | None
    """What stands there; None if nothing does."""


@dataclass(frozen=True, slots=True)
class Grant:
    """One successful acquire."""

    name: str
    """The key of the lock, without the prefix."""
    lease: Lease
    """What holds it."""
    token: int
    """The fencing token, as the store counts: without `fencing_floor`."""
    index: int
    """Guards every later verb of this grant. It equals the token, unless the backend lets a stranger overwrite the
    value under our lease."""
    record: bytes
    """What stands under the key."""
    previous: bytes | None = None
    """The last bytes that a holder before left under this name (its record, or its farewell if it released); None if
    there is no trace of one."""


@dataclass(frozen=True, slots=True)
class Changes:
    """An answer of `Driver.read` and `Driver.wait_changed`."""

    position: object
    """Only the driver can read it: give it back to go on without losing a change."""
    entries: Mapping[str, Entry]
    """By key."""
    epoch: int = 0
    """The store's own term where it has one (etcd's raft term), else 0. It only grows."""


@dataclass(frozen=True, slots=True)
class BackendNode:
    """One server of the backend."""

    name: str
    """As the server calls itself, or its address."""
    address: str
    """Without credentials."""
    leads: bool | None = None
    """Is it the leader among the servers (not the holder of a lock)? None: not told."""
    version: str | None = None
    """Of the server; None: not told."""
    problem: str | None = None
    """Why it did not answer; None if it did."""
    told_at: float | None = None
    """Seconds since 1970 by its wall clock, where its leases end by that; None: by another clock, or not told."""


@dataclass(frozen=True, slots=True)
class Validity:
    """Between which moments a certificate is good."""

    begin: float
    """Seconds since 1970 by the wall clock (`clock.wall()`)."""
    end: float
    """Seconds since 1970 by the wall clock."""


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """What the server says about a lease."""

    ttl: float | None = None
    """Seconds that were granted; None: it does not say."""
    left: float | None = None
    """Seconds that are left; None: it does not say."""
