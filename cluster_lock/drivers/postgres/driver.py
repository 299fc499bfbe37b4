"""Locks in PostgreSQL 12 and later. The rules stand in schema.sql, one function for each verb; here they are called.

    cluster_lock.lease     who has promised to renew, and until when that holds by the server's clock
    cluster_lock.key       what stands under a key, and the lease that holds it
    cluster_lock.space     the turns of those who change keys, by prefix, and the index of the last change
    cluster_lock.server    which server this was when somebody looked last

Fencing token and index are numbers of one sequence, drawn by who has the turn.
"""

from __future__ import annotations

import contextlib
import struct
import uuid
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal, get_args

from cluster_lock import clock
from cluster_lock.errors import (
    BackendRefused,
    ConfigError,
    ForeignValue,
    NoLeaseYet,
    PermissionRefused,
)
from cluster_lock.values import Changes, Entry, Grant, Lease, Traits, Validity

from .address import PostgresAccess
from .advisory import Advisory
from .beside import Beside
from .errors import NotGiven, lease_gone, shown
from .inspect import PostgresInspecting
from .link import Link
from .listening import Listener
from .schema import Found
from .texts import fits, fitted, must_fit, shown_names
from .view import NOTHING, Position, View

_WISH = struct.pack("!ii", 8, 80877103)
"""SSLRequest of PostgreSQL's protocol: its length and its code."""
_SHORTEST = 0.2
"""Seconds of a ttl."""

Mode = Literal["lease", "advisory"]


class PostgresDriver(PostgresInspecting):
    """A client of one PostgreSQL primary. Durations in seconds.

    `dsn`: as libpq takes it, without a password; what it does not say comes from libpq's variables and service files.
    Of several hosts the one that takes writes is used. `ca`, `cert`, `key`: PEM files; with `ca` the server's name is
    checked. `request_timeout`: what one verb may take, over all hosts together. `mode`: with "advisory" each lock takes
    an advisory lock besides its row, and cannot be transferred. Raises ConfigError.
    """

    def __init__(
        self,
        dsn: str | None = None,
        *,
        prefix: str = "cluster-lock/",
        request_timeout: float,
        user: str | None = None,
        password: str | None = None,
        ca: str | Path | None = None,
        cert: str | Path | None = None,
        key: str | Path | None = None,
        mode: Mode = "lease",
    ) -> None:
        self._access = PostgresAccess(dsn, user=user, password=password, ca=ca, cert=cert, key=key)
        if not prefix or not fits(prefix):
            raise ConfigError(["postgres: the prefix must not be empty, and have no NUL and no half a character"])
        if mode not in get_args(Mode):
            raise ConfigError([f"postgres: the mode must be one of {', '.join(get_args(Mode))}"])
        self._prefix = prefix
        self._is_advisory = mode == "advisory"
        self._beside = Beside()
        self._request_timeout = request_timeout
        self._opened: tuple[Link, Listener] | None = None

    @property
    def traits(self) -> Traits:
        return Traits(linearizable_waits=True, transfers=not self._is_advisory)

    @property
    def backend(self) -> str:
        return f"{self._access} (advisory)" if self._is_advisory else str(self._access)

    async def open(self) -> None:
        self._access.check_files()
        link = Link(self._access, self._request_timeout)
        self._opened = link, Listener(link, self._prefix)
        if self._is_advisory:
            self._beside = Advisory(link, self._prefix)

    async def init(self) -> bool:
        """Make the schema if it is not there, as the first lease would. Was it made?

        Raises PermissionRefused that names the right, and what verbs raise."""
        link, _ = self._parts()
        until = link.deadline()
        connection = await link.connect(until)
        found = await link.see_to_schema(connection, until, make=True)
        connection.close()
        return found is not Found.WHOLE

    async def close(self) -> None:
        if self._opened:
            link, listener = self._opened
            await listener.close()
            await self._beside.close()
            await link.close()

    # Certificates. libpq reads the files anew for each connection.

    def certificates(self) -> dict[str, Validity]:
        files = self._access.files
        if files is None:
            return {}
        with contextlib.suppress(ConfigError, PermissionRefused):  # the next connection tells of it
            files.load()
        return files.validity

    async def server_certificates(self) -> dict[str, Validity]:
        files = self._access.files
        if files is None:
            return {}
        return await files.shown_by(self._access.addresses, self._request_timeout, _WISH)

    # Leases.

    async def grant_lease(self, holder: str, ttl: float) -> Lease:
        _, listener = self._parts()
        if not ttl >= _SHORTEST:
            raise BackendRefused(f"{self.backend}: a ttl of {ttl:g} s is too short: at least {_SHORTEST:g} s")
        lease = await self._beside.granted(ttl, lambda: self._grant_lease(holder, ttl))
        listener.beat = max(listener.beat, ttl / 3)
        return lease

    async def _grant_lease(self, holder: str, ttl: float) -> Lease:
        # Chosen here, so that a second copy of this request makes no second lease.
        lease = Lease(uuid.uuid4().hex, ttl, holder)
        told = await self._one("grant_lease", (lease.id, fitted(holder), ttl), f"grant a lease of {ttl:g} s")
        if told["unsafe"] > 0:
            raise NoLeaseYet(f"{self.backend}: no lease yet: {_not_yet(told['unsafe'])}")
        return lease

    async def renew(self, lease: Lease) -> int:
        sent = clock.now()
        told = await self._one("renew", (lease.id,), f"renew {shown(lease)}", urgent=True)
        if told["gone"]:
            self._beside.gone(lease)
            raise lease_gone(self.backend, lease)
        self._beside.renewed(lease, sent)
        return 0

    async def revoke(self, lease: Lease) -> None:
        await self._beside.revoke(lease, lambda: self._revoke(lease))

    async def _revoke(self, lease: Lease) -> None:
        await self._one("revoke", (self._prefix, lease.id), f"revoke {shown(lease)}")

    # Locks.

    async def acquire(self, lease: Lease, name: str, record: bytes) -> Grant | None:
        must_fit(name, self.backend)
        return await self._beside.acquire(lease, name, lambda: self._acquire(lease, name, record))

    async def _acquire(self, lease: Lease, name: str, record: bytes) -> Grant | None:
        values = (self._prefix, name, lease.id, record)
        told = await self._one("acquire", values, f"acquire {name}")
        if told["gone"]:
            self._beside.gone(lease)
            raise lease_gone(self.backend, lease)
        if told["stranger"]:
            raise ForeignValue(
                f"{self.backend}: what stands under {name} was not written by a leader (without a lease, or with an"
                f" index that no turn has reached) and will not end: look at it, then delete it"
                f" (DELETE FROM cluster_lock.key WHERE prefix = '{self._prefix}' AND name = '{name}')"
            )
        if told["unsafe"] > 0:
            raise NotGiven(f"{self.backend}: {name} is given to nobody yet: {_not_yet(told['unsafe'])}")
        if told["token"] is None:
            return None
        return Grant(name, lease, told["token"], told["token"], told["stands"], told["left_before"])

    async def release(self, grant: Grant, farewell: bytes) -> None:
        must_fit(grant.name, self.backend)
        await self._beside.release(grant, lambda: self._release(grant, farewell))

    async def _release(self, grant: Grant, farewell: bytes) -> None:
        values = (self._prefix, grant.name, grant.lease.id, grant.index, farewell)
        await self._one("release", values, f"release {grant.name}")

    async def transfer(self, grant: Grant, heir: Entry, record: bytes) -> bool:
        if self._is_advisory:
            raise BackendRefused(f"{self.backend}: no lock passes from one session to another: release it instead")
        if heir.lease is None:
            return False  # nobody waits there; and without a lease the lock would never end
        for name in (grant.name, heir.name):
            must_fit(name, self.backend)
        values = (self._prefix, grant.name, grant.lease.id, grant.index, heir.name, heir.lease, record)
        told = await self._one("transfer", values, f"transfer {grant.name} to {heir.name}")
        return bool(told["done"])

    # Keys that are not locks.

    async def announce(self, lease: Lease, name: str, record: bytes) -> None:
        must_fit(name, self.backend)
        values = (self._prefix, name, lease.id, record)
        told = await self._one("announce", values, f"announce {name} under {shown(lease)}")
        if told["gone"]:
            self._beside.gone(lease)
            raise lease_gone(self.backend, lease)

    async def withdraw(self, lease: Lease, name: str) -> None:
        must_fit(name, self.backend)
        await self._one("withdraw", (self._prefix, name, lease.id), f"withdraw {name}")

    # Reading and waiting.

    async def read(self, names: Collection[str]) -> Changes:
        return (await self._look(names)).changes

    async def scan(self, prefix: str) -> list[Entry]:
        return await self._scan(prefix, everything=False)

    async def wait_changed(self, names: Collection[str], since: object | None, at_most: float) -> Changes:
        if not isinstance(since, Position) or not names:
            return await self.read(names)
        _, listener = self._parts()
        until = clock.now() + max(at_most - self._request_timeout, at_most / 2)
        async with listener.bell(list(filter(fits, names))) as bell:
            while True:
                # After the bell hangs and before it is waited for: a change is seen here or rings.
                seen = await self._look(names)
                if clock.now() >= until or seen.differs_from(since):
                    return seen.changes
                # The end of a lease rings no bell.
                await bell.wait(min(until, seen.first_end))

    async def _look(self, names: Collection[str]) -> View:
        link, _ = self._parts()
        asked = clock.now()
        # Under a name that cannot be there nothing stands. It must not take the others with it.
        asked_for = list(filter(fits, names))
        rows = await link.look("read", (self._prefix, asked_for), f"read {shown_names(asked_for)}")
        view = View(names, rows or [NOTHING], asked)
        if view.overlong:
            await self._one("shorten", (view.overlong,), "shorten leases that the server's clock made longer")
        await self._beside.seen(view)
        return view

    async def _one(self, call: str, values: tuple[Any, ...], doing: str, *, urgent: bool = False) -> dict[str, Any]:
        link, _ = self._parts()
        (told,) = await link.ask(call, values, doing, urgent=urgent)
        return told

    def _parts(self) -> tuple[Link, Listener]:
        assert self._opened, "open() comes first"
        return self._opened


def _not_yet(seconds: float) -> str:
    return (
        "the server was started, promoted or set up a short time ago, and a leader of before may not know that yet;"
        f" {seconds:.1f} s to go"
    )
