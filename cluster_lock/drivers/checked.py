"""What a driver answers, held against the contract before anybody believes it.

Whoever breaks it is told by name, with the verb and the sentence. The error ends the session, or the wait for one lock:
the work under its locks ends as with any loss, and nobody leads on such an answer.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Collection
from typing import Any, NoReturn, TypeVar

from cluster_lock.driver import Driver
from cluster_lock.errors import (
    BackendRefused,
    BackendUnavailable,
    ClusterLockError,
    ContractBroken,
    LeaseExpired,
    in_words,
)
from cluster_lock.values import Changes, Entry, Grant, Lease, Traits

log = logging.getLogger("cluster_lock.driver")

T = TypeVar("T")

OF_ALL: tuple[type[Exception], ...] = (BackendUnavailable, BackendRefused, TimeoutError)  # the last: who asks maps it
WITH_LEASE = (*OF_ALL, LeaseExpired)
PATIENCE = 3.0
"""Seconds that a verb gets beyond its limit, at which it was cancelled."""


class CheckedDriver:
    """`driver`, with ContractBroken for what its contract does not allow. `seconds`: the limit of who asks."""

    def __init__(self, driver: Driver, seconds: float) -> None:
        self._driver, self._seconds = driver, seconds

    @property
    def traits(self) -> Traits:
        return self._driver.traits

    @property
    def backend(self) -> str:
        return self._driver.backend

    async def open(self) -> None:
        try:
            await self._driver.open()
        except ClusterLockError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is no word of the contract
            self._broken(
                "open", f"raised {in_words(error)}", "raises only for what will not pass, with an error of ours", error
            )

    async def close(self) -> None:
        await self._driver.close()

    async def grant_lease(self, holder: str, ttl: float) -> Lease:
        lease = await self._ask("grant_lease", self._driver.grant_lease(holder, ttl))
        if not (isinstance(lease, Lease) and isinstance(lease.id, str) and lease.id and _is_duration(lease.ttl)):
            self._broken("grant_lease", f"answered {lease!r}", "a new lease, with an id and the server's own ttl")
        return lease

    async def renew(self, lease: Lease) -> int:
        epoch = await self._ask("renew", self._driver.renew(lease), WITH_LEASE)
        if not _is_number(epoch):
            self._broken("renew", f"answered {epoch!r}", "returns the store's epoch, a whole number")
        return epoch

    async def revoke(self, lease: Lease) -> None:
        await self._ask("revoke", self._driver.revoke(lease))

    async def acquire(self, lease: Lease, name: str, record: bytes) -> Grant | None:
        grant = await self._ask("acquire", self._driver.acquire(lease, name, record), WITH_LEASE)
        if grant is None:
            return None
        if not isinstance(grant, Grant) or not isinstance(grant.record, bytes):
            self._broken("acquire", f"answered {grant!r}", "a grant, or None if this lease does not get the lock")
        if not isinstance(grant.previous, bytes | None):
            found = f"said previous={grant.previous!r}"
            self._broken("acquire", found, "leaves as `previous` what the last holder wrote")
        if grant.name != name or grant.lease != lease:
            found = f"granted {grant.name!r} to {grant.lease!r}, asked for {name!r} by {lease!r}"
            self._broken("acquire", found, "takes the lock that was asked for, under the lease that asks")
        if not (_is_number(grant.token) and _is_number(grant.index) and grant.token > 0 and grant.index > 0):
            found = f"granted {name!r} with token {grant.token!r} and index {grant.index!r}"
            self._broken("acquire", found, "token and index are whole numbers above 0 that grow from grant to grant")
        return grant

    async def release(self, grant: Grant, farewell: bytes) -> None:
        await self._ask("release", self._driver.release(grant, farewell))

    async def transfer(self, grant: Grant, heir: Entry, record: bytes) -> bool:
        given = await self._ask("transfer", self._driver.transfer(grant, heir, record))
        if not isinstance(given, bool):
            self._broken("transfer", f"answered {given!r}", "True: the heir holds it; False: nothing was changed")
        return given

    async def announce(self, lease: Lease, name: str, record: bytes) -> None:
        await self._ask("announce", self._driver.announce(lease, name, record), WITH_LEASE)

    async def withdraw(self, lease: Lease, name: str) -> None:
        await self._ask("withdraw", self._driver.withdraw(lease, name))

    async def read(self, names: Collection[str]) -> Changes:
        changes = await self._ask("read", self._driver.read(names))
        self._must_fit("read", changes, names, all_of_them=True)
        return changes

    async def scan(self, prefix: str) -> list[Entry]:
        entries = await self._ask("scan", self._driver.scan(prefix))
        if not isinstance(entries, list):
            self._broken("scan", f"answered {entries!r}", "a list of entries")
        last = 0
        for entry in entries:
            if not _is_entry(entry) or entry.lease is None or not entry.name.startswith(prefix):
                found = f"of {prefix!r} has {entry!r}"
                self._broken("scan", found, "every key under the prefix that a live lease holds")
            if entry.index < last:
                self._broken("scan", f"has index {entry.index} behind {last}", "oldest index first")
            last = entry.index
        return entries

    async def wait_changed(self, names: Collection[str], since: object | None, at_most: float) -> Changes:
        request = self._driver.wait_changed(names, since, at_most)
        changes = await self._ask("wait_changed", request, limit=at_most)
        self._must_fit("wait_changed", changes, names, all_of_them=since is None)
        return changes

    def _must_fit(self, verb: str, changes: Any, names: Collection[str], *, all_of_them: bool) -> None:
        if not isinstance(changes, Changes) or not _is_number(changes.epoch):
            self._broken(verb, f"answered {changes!r}", "returns Changes, with a whole number as epoch")
        for name, entry in changes.entries.items():
            if not _is_entry(entry) or entry.name != name:
                self._broken(verb, f"says {entry!r} under {name!r}", "entries, each under its own name")
        wanted = names if isinstance(names, set | frozenset) else set(names)
        if strange := changes.entries.keys() - wanted:
            self._broken(verb, f"tells of {min(strange)!r}", "the state of the names that were asked for, and no other")
        if all_of_them and len(changes.entries) < len(wanted):
            missing = min(wanted - changes.entries.keys())
            self._broken(verb, f"is silent about {missing!r}", "the state of every one of the names, absent ones too")

    async def _ask(
        self,
        verb: str,
        request: Awaitable[T],
        allowed: tuple[type[Exception], ...] = OF_ALL,
        limit: float | None = None,
    ) -> T:
        seconds = (self._seconds if limit is None else limit) + PATIENCE
        loop = asyncio.get_running_loop()
        # Looked at twice: after a stop of the process a first timer may come before the answer that is there already.
        looks: list[asyncio.TimerHandle] = []
        looks.append(loop.call_later(seconds, lambda: looks.append(loop.call_later(1.0, self._hangs, verb, seconds))))
        try:
            return await request
        except allowed:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is no word of the contract
            self._broken(verb, f"raised {in_words(error)}", _sentence_of(allowed), error)
        finally:
            for look in looks:
                look.cancel()

    def _hangs(self, verb: str, seconds: float) -> None:
        found = f"has not come back for {seconds + 1:.0f} s"
        log.error("%s", self._text(verb, found, "in time, and safe to cancel at any await"))

    def _broken(self, verb: str, found: str, sentence: str, cause: BaseException | None = None) -> NoReturn:
        raise ContractBroken(self._text(verb, found[:300], sentence)) from cause

    def _text(self, verb: str, found: str, sentence: str) -> str:
        kind = type(self._driver)
        who = f"the driver {kind.__module__}.{kind.__qualname__} ({self.backend})"
        return f"{who} breaks its contract: {verb} {found}; the contract says: {sentence}"


def _sentence_of(allowed: tuple[type[Exception], ...]) -> str:
    names = ", ".join(kind.__name__ for kind in allowed if kind is not TimeoutError)
    return f"it raises only {names}"


def _is_number(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_duration(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, Entry)
        and isinstance(entry.name, str)
        and _is_number(entry.index)
        and isinstance(entry.lease, str | None)
        and isinstance(entry.record, bytes if entry.lease is not None else bytes | None)
    )
