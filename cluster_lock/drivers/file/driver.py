"""Locks between the processes of one host, in a folder: no server, and no second host.

A lease is a file that its owner keeps locked (flock): it ends when the owner does, in that very moment, and never
otherwise; who is alive is the kernel's word, never a pid's. (What a server's expiry does elsewhere, ending a holder
that is stopped, the kernel timer of the holder's own process does here.) A key is a file that names its lease. Changes
are made one at a time, under a lock held for a millisecond; reading needs none.

    DIRECTORY/keys/cluster-lock+leader+telegram+42.json     who holds, and the record: try `cat`
    DIRECTORY/leases/1f0c...                                 one for each live process
    DIRECTORY/counter                                        the fencing tokens
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cluster_lock import clock
from cluster_lock.errors import BackendRefused, BackendUnavailable
from cluster_lock.host.flock import Flock
from cluster_lock.host.inotify import FileWatch, listening, watch_of
from cluster_lock.host.private_files import check_place, mapped
from cluster_lock.values import BackendNode, Changes, Entry, Grant, Lease, LeaseTimes, Traits

from .keyfile import file_name
from .store import State, Store

Answer = TypeVar("Answer")

MIN_TTL = 0.1
"""Seconds. Nothing expires here, but the holder's kernel timer counts with it."""

_UNLOCKED_LATE = 250
"""How often to look again, a millisecond apart, after a holder closed its lease file: see `_until_unlocked`."""


@dataclass(frozen=True, slots=True)
class _Position:
    states: Mapping[str, State]


class FileDriver:
    """A client of the folder `directory`, which is made if need be, and must be ours alone, on a local disk."""

    def __init__(self, directory: Path, *, prefix: str = "cluster-lock/", request_timeout: float = 4.0) -> None:
        self._directory = Path(directory).absolute()  # whatever the working directory is later on
        self._prefix = prefix
        self._request_timeout = request_timeout
        self._store = Store(self._directory, prefix)
        self._watch: FileWatch | None = None

    @property
    def traits(self) -> Traits:
        return Traits(expires=False, notifies=sys.platform == "linux", one_host=True)

    @property
    def backend(self) -> str:
        return f"file {self._directory}"

    async def open(self) -> None:
        with mapped(self._directory):
            self._store.prepare()

    async def close(self) -> None:
        """Ends the leases of this driver: they live by its open files."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        with mapped(self._directory):
            self._store.end_all()

    async def grant_lease(self, holder: str, ttl: float) -> Lease:
        if ttl < MIN_TTL:
            raise BackendRefused(f"ttl {ttl:g} s is too short: the file backend allows {MIN_TTL:g} s and more")
        return await self._alone(lambda: self._store.grant(holder, ttl))

    async def renew(self, lease: Lease) -> int:
        with mapped(self._directory):
            self._store.live(lease)
        return 0

    async def revoke(self, lease: Lease) -> None:
        with mapped(self._directory):
            self._store.revoke(lease.id)

    async def acquire(self, lease: Lease, name: str, record: bytes) -> Grant | None:
        def take() -> Grant | None:
            store = self._store
            store.live(lease)
            stands = store.read(name)
            if stands is None or stands.lease is None or not store.is_alive(stands.lease):
                if store.is_young():
                    return None
                stands = store.put(name, lease.id, record, was=stands)
            elif stands.lease != lease.id:
                return None
            elif stands.index > (store.counter.read() or 0):  # it failed before, between key and counter
                store.counter.write(stands.index, durably=True)
            return Grant(name, lease, stands.index, stands.index, stands.record, stands.previous)

        return await self._alone(take)

    async def release(self, grant: Grant, farewell: bytes) -> None:
        def free() -> None:
            if stands := self._store.standing(grant):
                self._store.put(grant.name, None, farewell, was=stands)

        await self._alone(free)

    async def transfer(self, grant: Grant, heir: Entry, record: bytes) -> bool:
        def give() -> bool:
            stands = self._store.standing(grant)
            if stands is None or self._store.held(heir.name, heir.lease) is None:
                return False
            self._store.put(grant.name, heir.lease, record, was=stands)
            return True

        return await self._alone(give)

    async def announce(self, lease: Lease, name: str, record: bytes) -> None:
        def write() -> None:
            self._store.live(lease)
            self._store.announce(name, lease.id, record)

        await self._alone(write)

    async def withdraw(self, lease: Lease, name: str) -> None:
        def delete() -> None:
            if self._store.held(name, lease.id):
                self._store.path(name).unlink(missing_ok=True)

        await self._alone(delete)

    async def read(self, names: Collection[str]) -> Changes:
        entries, states = await self._look(names)
        return Changes(_Position(states), entries)

    async def scan(self, prefix: str) -> list[Entry]:
        with mapped(self._directory):
            self._store.prepare_again()
            names = self._store.names(prefix)
        entries, _ = await self._look(names)
        return sorted((entry for entry in entries.values() if entry.lease), key=lambda entry: entry.index)

    async def inspect(self, prefix: str) -> list[Entry]:
        held = await self.scan(prefix)
        with mapped(self._directory):
            return [*held, *self._store.foreign(prefix)]

    async def lease_times(self, lease_ids: Collection[str]) -> Mapping[str, LeaseTimes]:
        return {}  # a lease here has no time: it ends with its process

    async def nodes(self) -> list[BackendNode]:
        return []

    async def wait_changed(self, names: Collection[str], since: object | None, at_most: float) -> Changes:
        until = clock.now() + at_most
        before: Mapping[str, State] = since.states if isinstance(since, _Position) else {}
        files = {file_name(self._prefix + name) for name in names}
        with mapped(self._directory):
            watch = self._watching()
        with listening(watch) as bell:
            while True:
                stamp = self._store.stamp()
                entries, states = await self._look(names)
                changed = {name: entry for name, entry in entries.items() if before.get(name) != states[name]}
                left = until - clock.now()
                if changed or left <= 0 or watch.stale:
                    return Changes(_Position(states), changed)
                leases = {entry.lease for entry in entries.values() if entry.lease is not None}
                bell.listen_for(frozenset(files | leases))
                rung = await bell.wait(left)
                while not rung and clock.now() < until and self._is_quiet(stamp, leases):
                    rung = await bell.wait(until - clock.now())
                await self._until_unlocked(leases & rung)

    def _is_quiet(self, stamp: int | None, leases: Collection[str]) -> bool:
        """A look that costs little, however many names are waited for."""
        with mapped(self._directory):
            return self._store.stamp() == stamp and all(self._store.is_alive(lease) for lease in leases)

    async def _until_unlocked(self, leases: Collection[str]) -> None:
        # The kernel tells of a close before it drops the lock of the closed file (__fput: fsnotify_close comes before
        # locks_remove_file), so who looks at once may find a dead holder alive, and would not be told again.
        for _ in range(_UNLOCKED_LATE):
            if not any(self._store.is_alive(lease) for lease in leases):
                return
            await asyncio.sleep(0.001)

    async def _alone(self, change: Callable[[], Answer]) -> Answer:
        """Make a change while nobody else makes one. It does not wait, so it cannot be cancelled halfway."""
        mutex = Flock(self._store.mutex)
        give_up, pause = clock.now() + self._request_timeout, 0.001
        with mapped(self._directory):
            self._store.prepare_again()
            check_place(mutex.path)
            while not mutex.acquire():
                if clock.now() > give_up:
                    raise BackendUnavailable(
                        f"another process has been changing {self._directory} for {self._request_timeout:g} s"
                        f" and is not done: is it stopped? (`fuser {mutex.path}` says which)"
                    )
                await asyncio.sleep(pause * random.uniform(0.5, 1))
                pause = min(2 * pause, 0.02)
            try:
                answer = change()
                if not mutex.stands():
                    raise BackendUnavailable(f"{self._directory} was replaced in the middle of a change")
                return answer
            finally:
                mutex.release()

    async def _look(self, names: Collection[str]) -> tuple[dict[str, Entry], dict[str, State]]:
        """All of `names` as they stood at one moment: no change was completed meanwhile."""

        def look(number: int) -> dict[str, tuple[Entry, State]]:
            return {name: self._store.entry(name, number) for name in names}

        counter = self._store.counter
        for _ in range(5):
            with mapped(self._directory):
                number = counter.read()
                found = look(number or 0)
                if counter.read() == number:
                    break
            await asyncio.sleep(0)
        else:
            found = await self._alone(lambda: look(counter.read() or 0))
        entries = {name: entry for name, (entry, _) in found.items()}
        return entries, {name: state for name, (_, state) in found.items()}

    def _watching(self) -> FileWatch:
        if self._watch is not None and self._watch.stale:
            self._watch.close()
            self._watch = None
        if self._watch is None:
            self._store.prepare_again()
            self._watch = watch_of((self._store.keys, self._store.leases), self._directory)
        return self._watch
