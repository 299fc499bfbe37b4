"""Locks in Redis or Valkey: one primary, with no more than it has written to its disk or its replicas when it fails.

A lease is a key that expires; everything else names its lease, so that a renewal is one request. See `scripts` for what
stands where, `server` for what happens when the server is started anew or fails over.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster_lock import clock
from cluster_lock.drivers.shared.secret import Secret
from cluster_lock.drivers.shared.utf8 import is_text
from cluster_lock.errors import BackendUnavailable, ClusterLockError, ConfigError, ForeignValue, LeaseExpired
from cluster_lock.values import LEADER, Changes, Entry, Grant, Lease, Traits, Validity

from . import looking, scripts
from .address import RedisAccess
from .inspect import RedisInspecting
from .library import load
from .link import Locks, RedisLink
from .script import Script
from .subscription import Subscription

_SHORTEST = 0.1
"""Seconds of a lease: with less the answer would hardly come in time."""

State = tuple[str | None, int, bytes]
"""Of a name: its lease, the index of its last change, and for what is not ours a sum of its bytes."""


@dataclass(frozen=True, slots=True)
class Position:
    """What one reading has seen. `ends`: the moment at which the first of the leases that were seen is over if nobody
    renews it."""

    states: Mapping[str, State]
    generation: int
    heard: int
    ends: float


class RedisDriver(RedisInspecting):
    """A client of one Redis or Valkey. Durations in seconds.

    `urls`: "redis://host:6379" or, with TLS, "rediss://..."; of several only one may be a primary. With `service` they
    are the addresses of Sentinels. `ca`, `cert`, `key`: PEM files. `request_timeout`: what one verb may take.
    `wait_replicas`: so many replicas must have a grant before it is one, or is shown. Raises ConfigError.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        prefix: str = "cluster-lock/",
        request_timeout: float,
        db: int = 0,
        user: str | None = None,
        password: str | Secret | None = None,
        ca: str | Path | None = None,
        cert: str | Path | None = None,
        key: str | Path | None = None,
        service: str | None = None,
        wait_replicas: int = 0,
    ) -> None:
        self._access = RedisAccess(
            urls, db=db, user=user, password=password, ca=ca, cert=cert, key=key, service=service
        )
        if not prefix:
            raise ConfigError(["redis: the prefix must not be empty"])
        self._prefix = prefix
        self._request_timeout = request_timeout
        self._replicas = wait_replicas
        self._opened: tuple[RedisLink, Subscription] | None = None

    @property
    def traits(self) -> Traits:
        return Traits(linearizable_waits=True)

    @property
    def backend(self) -> str:
        return self._access.shown

    async def open(self) -> None:
        """Raises DriverMissing, ConfigError for TLS files that cannot be used, BackendRefused for a server that may
        keep no locks."""
        library = load()
        if any(address.tls for address in self._access.addresses):
            self._access.files.load()
        link = RedisLink(library, self._access, self._prefix, self._request_timeout, self._replicas)
        self._opened = link, Subscription(library, link, f"{self._prefix}changes", self._request_timeout / 2)
        try:
            await link.ask("PING")
        except BackendUnavailable:
            return  # it need not be up
        except ClusterLockError:
            await self.close()
            raise

    async def close(self) -> None:
        if self._opened:
            link, subscription = self._opened
            await link.close()  # first: it ends the connection of the subscription as it ends the others
            await subscription.close()

    def certificates(self) -> dict[str, Validity]:
        return self._access.files.validity

    async def server_certificates(self) -> dict[str, Validity]:
        return await self._access.files.shown_by(self._access.addresses, self._request_timeout)

    # Leases.

    async def grant_lease(self, holder: str, ttl: float) -> Lease:
        link, _ = self._parts()
        # Chosen here, so that a second copy of this request, sent because an answer was lost, makes no second lease.
        lease = f"{secrets.randbits(64):016x}"
        milliseconds = math.ceil(max(ttl, _SHORTEST) * 1000)
        await self._run(
            scripts.GRANT, lease, holder, str(milliseconds), before=lambda: link.known.expect_lease(milliseconds / 1000)
        )
        return Lease(lease, milliseconds / 1000, holder)

    async def renew(self, lease: Lease) -> int:
        if not await self._run(scripts.RENEW, lease.id, str(math.ceil(lease.ttl * 1000)), urgent=True):
            raise self._gone(lease)
        return 0

    async def revoke(self, lease: Lease) -> None:
        await self._run(scripts.REVOKE, lease.id)

    # Locks.

    async def acquire(self, lease: Lease, name: str, record: bytes) -> Grant | None:
        link, _ = self._parts()

        def given(answer: list[bytes]) -> Locks:
            return {name: (lease.id, int(answer[1]))} if answer[0] in (b"granted", b"held") else {}

        answer = await self._run(scripts.ACQUIRE, lease.id, name, record, before=link.known.expect_grant, locks=given)
        what = answer[0].decode()
        if what == "gone":
            raise self._gone(lease)
        if what == "foreign":
            key = self._prefix + name
            raise ForeignValue(
                f"{self.backend}: what stands under {key} was not written by a leader, and will not end: look at it,"
                f" then delete it (redis-cli del '{key}')"
            )
        if what == "taken":
            return None
        _, index, stands, previous = answer
        return Grant(name, lease, int(index), int(index), stands, previous)

    async def release(self, grant: Grant, farewell: bytes) -> None:
        await self._run(scripts.RELEASE, grant.lease.id, str(grant.index), grant.name, farewell)

    async def transfer(self, grant: Grant, heir: Entry, record: bytes) -> bool:
        if heir.lease is None:
            return False  # nobody waits there; and without a lease the lock would never end
        link, _ = self._parts()
        arguments = (grant.lease.id, str(grant.index), grant.name, heir.lease, heir.name, record)
        return bool(await self._run(scripts.TRANSFER, *arguments, before=link.known.expect_grant))

    # Keys that are not locks.

    async def announce(self, lease: Lease, name: str, record: bytes) -> None:
        if not await self._run(scripts.ANNOUNCE, lease.id, name, record):
            raise self._gone(lease)

    async def withdraw(self, lease: Lease, name: str) -> None:
        await self._run(scripts.WITHDRAW, lease.id, name)

    # Reading and waiting.

    async def read(self, names: Collection[str]) -> Changes:
        return await self._changes(names, None)

    async def scan(self, prefix: str) -> list[Entry]:
        found = await self._run(looking.SCAN, prefix)
        entries = [
            Entry(name.decode(), lease.decode(), int(index), record)
            for name, lease, index, record in found
            if is_text(name)  # else it is none of ours
        ]
        return sorted(entries, key=lambda entry: entry.index)

    async def wait_changed(self, names: Collection[str], since: object | None, at_most: float) -> Changes:
        if not isinstance(since, Position) or not names:
            return await self.read(names)
        _, subscription = self._parts()
        # Less a sign of life that does not come, and a look at the end.
        until = clock.now() + max(at_most - 1.5 * self._request_timeout, at_most / 2)
        names = frozenset(names)
        generation = await subscription.ready()
        if generation != since.generation or not names <= since.states.keys():
            # What was published meanwhile nobody has heard.
            changes = await self._changes(names, since)
            if changes.entries:
                return changes
            since = changes.position
            assert isinstance(since, Position)
        silence = max(0.0, min(until, since.ends) - clock.now())
        if not await subscription.woken(names, since.heard, silence):
            await subscription.check()
        return await self._changes(names, since)

    async def _changes(self, names: Collection[str], since: Position | None) -> Changes:
        """What differs from `since` among `names`: all of it, if there is no such position."""
        _, subscription = self._parts()
        generation, heard, asked = subscription.generation, subscription.heard, clock.now()
        wanted = list(names)
        present, *rows = await self._run(looking.READ, *wanted, locks=lambda answer: _locks(wanted, answer[1:]))
        states: dict[str, State] = {}
        entries: dict[str, Entry] = {}
        ends = math.inf
        for name, (lease, index, record, left, total) in zip(wanted, rows, strict=True):
            holder = lease.decode() or None
            states[name] = holder, int(index), total
            if left >= 0:
                ends = min(ends, asked + left / 1000)
            if since is None or since.states.get(name) != states[name]:
                # Absent: seen so at the present index.
                entries[name] = Entry(name, holder, int(index) if holder else int(present), record)
        return Changes(Position(states, generation, heard, ends), entries)

    async def _run(self, script: Script, *arguments: str | bytes, **how: Any) -> Any:
        link, _ = self._parts()
        return await link.run(script, *arguments, **how)

    def _gone(self, lease: Lease) -> LeaseExpired:
        return LeaseExpired(f"{self.backend}: lease {lease.id} of {lease.holder} is gone")

    def _parts(self) -> tuple[RedisLink, Subscription]:
        assert self._opened, "open() comes first"
        return self._opened


def _locks(names: Sequence[str], rows: Sequence[Any]) -> Locks:
    """The locks of an answer."""
    return {
        name: (lease.decode(), int(index)) if lease else None
        for name, (lease, index, *_) in zip(names, rows, strict=True)
        if name.startswith(LEADER)
    }
