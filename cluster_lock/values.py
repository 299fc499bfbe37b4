"""The frozen values that pass between the rooms. Durations are seconds, moments are `clock.now()`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum

from . import clock
from .record import FIRST_FORMAT
from .record import Record as Record

LEADER, STANDBY, INVITE = "leader/", "standby/", "invite/"
"""Where the keys stand under the prefix: locks by name, contender records by process, invitations by lock name."""
REQUEST, REPLY = "request/", "reply/"
"""What a person asks of the leader of a lock, and what that leader answers, both by lock name."""

HIGHEST_FLOOR = 10**15
"""Of fencing_floor: with what a backend counts added, every token is one that records may have."""


class Origin(StrEnum):
    """How a grant came about."""

    HANDED_OVER = "handed over"
    RELEASED = "released"
    FOUND_FREE = "found free"


def telegram_lock(bot_id: int, *, test: bool = False) -> str:
    """The lock of a bot, by its public id; Telegram's test environment has queues of its own."""
    return f"telegram-test/{bot_id}" if test else f"telegram/{bot_id}"


def contender_key(record: Record) -> str:
    """Where the process that wrote this record stands by, if it does: by what is unique per process, as two may bear
    one instance's name. In the first format it was by that name."""
    unique = "" if record.format == FIRST_FORMAT else f".{record.holder.rpartition('-')[2]}"
    return f"{STANDBY}{record.instance}{unique}"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """All durations, in seconds, checked against one another once. `handler_timeout` None: handlers run as long as
    they like."""

    ttl: float = 15.0
    margin: float = 3.0
    stop_time: float = 1.0
    settle: float = 0.25
    invite: float = 0.5
    drain: float = 7.0
    cancel_grace: float = 1.0
    handler_timeout: float | None = None
    poll_timeout: float = 20.0
    telegram_grace: float = 60.0
    stall_limit: float = 5.0

    def __post_init__(self) -> None:
        wrong = [
            f"{f.name} must be more than 0, not {value:g}"
            for f in fields(self)
            if (value := getattr(self, f.name)) is not None and value <= 0 and f.name != "settle"
        ]
        if self.settle < 0:
            wrong.append(f"settle must not be negative, but is {self.settle:g}")
        if self.margin >= self.ttl:
            wrong.append(
                f"margin ({self.margin:g} s) must be less than ttl ({self.ttl:g} s): no lease would be trusted"
            )
        elif self.stop_time > self.request:
            wrong.append(
                f"stop_time ({self.stop_time:g} s) must not exceed a third of ttl - margin ({self.request:g} s):"
                " one renewal that is not answered would end every term"
            )
        if self.stop_time <= GUARD_BEFORE:
            wrong.append(
                f"stop_time ({self.stop_time:g} s) must be more than {GUARD_BEFORE:g} s:"
                " the guard fires that long before the deadline"
            )
        if self.stop_time > self.margin:
            wrong.append(f"stop_time ({self.stop_time:g} s) must not exceed margin ({self.margin:g} s)")
        if self.poll_timeout > LONGEST_POLL:
            wrong.append(
                f"poll_timeout ({self.poll_timeout:g} s) must be at most {LONGEST_POLL} s: Telegram cuts it there"
            )
        if wrong:
            raise ValueError("; ".join(wrong))

    @property
    def renew_every(self) -> float:
        """Three times per ttl; more often if that would not leave the time for one that is not answered, and for
        another one."""
        return min(self.ttl / 3, (self.ttl - self.margin - self.stop_time) / 2)

    @property
    def request(self) -> float:
        """What one request to the backend may take."""
        return (self.ttl - self.margin) / 3

    def settle_left(self, origin: Origin, since: float) -> float:
        """Seconds that are left to wait before work begins under a lock that was got at `since`. One that was found
        free says nothing about the leader before: it may hear of its end (a key deleted, a session destroyed) later
        than we do, and needs a moment to stop."""
        return max(0.0, since + self.settle - clock.now()) if origin is Origin.FOUND_FREE else 0.0

    def promised(self, ttl: float) -> Timing:
        """The same, counted with the ttl that the server really granted. Raises ValueError if nothing is left of it."""
        return self if ttl == self.ttl else replace(self, ttl=ttl)


LONGEST_POLL = 50
"""Seconds for which Telegram holds a getUpdates at most; it cuts what is longer."""
GUARD_BEFORE = 0.2
"""The guard thread ends the process this long before the deadline; the kernel does it at the deadline."""
