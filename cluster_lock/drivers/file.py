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
import json
import os
import random
import secrets
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cluster_lock import clock
from cluster_lock.errors import BackendRefused, BackendUnavailable, ForeignValue, LeaseExpired
from cluster_lock.values import Changes, Entry, Grant, Lease, Traits

from ._file.counter import Counter
from ._file.flock import Flock, is_locked
from ._file.inotify import Watch, listening, watch_of
from ._file.keyfile import KeyFile, file_name, may_start_with
from ._file.private import make_private_directory, mapped, read_private, write_private

Answer = TypeVar("Answer")

MIN_TTL = 0.1
"""Seconds. Nothing expires here, but the holder's kernel timer counts with it."""

_UNLOCKED_LATE = 250
"""How often to look again, a millisecond apart, after a holder closed its lease file: see `_until_unlocked`."""


@dataclass(frozen=True, slots=True)
class _Position:
    """What was seen under each key: its live lease, and a hash of the file."""

    states: Mapping[str, tuple[str | None, int]]


class FileDriver:
    """A client of the folder `directory`, which is made if need be, and must be ours alone, on a local disk."""

    def __init__(self, directory: Path, *, prefix: str = "cluster-lock/", request_timeout: float = 4.0) -> None:
        self._directory = Path(directory)
        self._keys = self._directory / "keys"
        self._leases = self._directory / "leases"
        self._counter = Counter(self._directory / "counter")
        self._prefix = prefix
        self._request_timeout = request_timeout
        self._mine: dict[str, Flock] = {}
        self._seen = 0
        self._watch: Watch | None = None

    @property
    def traits(self) -> Traits:
        return Traits(expires=False, notifies=sys.platform == "linux")

    @property
    def backend(self) -> str:
        return f"file {self._directory}"

    async def open(self) -> None:
        with mapped(self._directory):
            self._prepare()

    async def close(self) -> None:
        """Ends the leases of this driver: they live by its open files."""
        with mapped(self._leases):
            for lease_id in list(self._mine):
                self._end(lease_id)
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    # Leases.

    async def grant_lease(self, holder: str, ttl: float) -> Lease:
        if ttl < MIN_TTL:
            raise BackendRefused(f"ttl {ttl:g} s is too short: the file backend allows {MIN_TTL:g} s and more")

        def grant() -> Lease:
            self._sweep()
            lease = Lease(id=secrets.token_hex(8), ttl=ttl, holder=holder)
            lock = Flock(self._leases / lease.id)
            if not lock.acquire():
                raise BackendUnavailable(f"{lock.path} was deleted while it was made")
            about = {"holder": holder, "pid": os.getpid(), "since": clock.utc_text()}
            # By the descriptor that is locked: closing another one would tell all who wait that this holder died.
            os.write(lock.descriptor, json.dumps(about, ensure_ascii=False).encode() + b"\n")
            self._mine[lease.id] = lock
            return lease

        return await self._alone(grant)

    async def renew(self, lease: Lease) -> int:
        with mapped(self._leases):
            self._live(lease)
        return 0

    async def revoke(self, lease: Lease) -> None:
        with mapped(self._leases):
            if lease.id in self._mine:
                self._end(lease.id)
            else:
                (self._leases / lease.id).unlink(missing_ok=True)  # its owner hears of it at the next renewal

    # Locks.

    async def acquire(self, lease: Lease, name: str, record: bytes) -> Grant | None:
        def take() -> Grant | None:
            self._live(lease)
            stands = self._read(self._prefix + name)
            if stands is None or stands.lease is None or not self._is_alive(stands.lease):
                stands = self._put(name, lease.id, record, was=stands, durably=True)
            elif stands.lease != lease.id:
                return None
            elif stands.index > (self._counter.read() or 0):  # the writer failed between the two files
                self._counter.write(stands.index, durably=True)
            return Grant(name, lease, stands.index, stands.index, stands.record, stands.previous)

        return await self._alone(take)

    async def release(self, grant: Grant, farewell: bytes) -> None:
        def free() -> None:
            if stands := self._standing(grant):
                self._put(grant.name, None, farewell, was=stands)

        await self._alone(free)

    async def transfer(self, grant: Grant, heir: Entry, record: bytes) -> bool:
        def give() -> bool:
            stands, waits = self._standing(grant), self._read(self._prefix + heir.name)
            if stands is None or waits is None or heir.lease is None:
                return False
            if waits.lease != heir.lease or not self._is_alive(heir.lease):
                return False
            self._put(grant.name, heir.lease, record, was=stands, durably=True)
            return True

        return await self._alone(give)

    # Contender records.

    async def announce(self, lease: Lease, name: str, record: bytes) -> None:
        def write() -> None:
            self._live(lease)
            self._put(name, lease.id, record, announced=True)

        await self._alone(write)

    async def withdraw(self, lease: Lease, name: str) -> None:
        def delete() -> None:
            stands = self._read(self._prefix + name)
            if stands is not None and stands.lease == lease.id:
                self._path(self._prefix + name).unlink(missing_ok=True)

        await self._alone(delete)

    # What stands there.

    async def read(self, names: Collection[str]) -> Changes:
        entries, states = await self._look(names)
        return Changes(_Position(states), entries)

    async def scan(self, prefix: str) -> list[Entry]:
        with mapped(self._keys):
            files = [path for path in self._keys.iterdir() if may_start_with(path.name, self._prefix + prefix)]
            keys = [key for path in files if (key := KeyFile.from_bytes(read_private(path) or b"")) is not None]
        names = [key.key.removeprefix(self._prefix) for key in keys if key.key.startswith(self._prefix + prefix)]
        entries, _ = await self._look(names)
        return sorted((entry for entry in entries.values() if entry.lease), key=lambda entry: entry.index)

    async def wait_changed(self, names: Collection[str], since: object | None, at_most: float) -> Changes:
        until = clock.now() + at_most
        before: Mapping[str, tuple[str | None, int]] = since.states if isinstance(since, _Position) else {}
        files = {file_name(self._prefix + name) for name in names}
        with mapped(self._directory):
            watch = self._watching()
        with listening(watch) as bell:
            while True:
                entries, states = await self._look(names)
                changed = {name: entry for name, entry in entries.items() if before.get(name) != states[name]}
                left = until - clock.now()
                if changed or left <= 0:
                    return Changes(_Position(states), changed)
                leases = {entry.lease for entry in entries.values() if entry.lease is not None}
                bell.listen_for(frozenset(files | leases))
                await self._until_unlocked(leases & await bell.wait(left))

    async def _until_unlocked(self, leases: Collection[str]) -> None:
        # The kernel tells of a close before it drops the lock of the closed file (__fput: fsnotify_close comes before
        # locks_remove_file), so who looks at once may find a dead holder alive, and would not be told again.
        for _ in range(_UNLOCKED_LATE):
            if not any(self._is_alive(lease) for lease in leases):
                return
            await asyncio.sleep(0.001)

    # Below here nothing waits, but for `_alone` and `_look`.

    async def _alone(self, change: Callable[[], Answer]) -> Answer:
        """Make a change while nobody else makes one."""
        mutex = Flock(self._directory / "mutex")
        give_up, pause = clock.now() + self._request_timeout, 0.001
        with mapped(self._directory):
            self._prepare_again()
            while not mutex.acquire():
                if clock.now() > give_up:
                    raise BackendUnavailable(
                        f"another process has been changing {self._directory} for {self._request_timeout:g} s"
                        f" and is not done: is it stopped? (`fuser {mutex.path}` says which)"
                    )
                await asyncio.sleep(pause * random.uniform(0.5, 1))
                pause = min(2 * pause, 0.02)
            try:
                return change()
            finally:
                mutex.release()

    async def _look(self, names: Collection[str]) -> tuple[dict[str, Entry], dict[str, tuple[str | None, int]]]:
        """All of `names` as they stood at one moment: no change was completed meanwhile."""
        for _ in range(5):
            with mapped(self._keys):
                number = self._counter.read()
                found = {name: self._entry(name, number or 0) for name in names}
                same = self._counter.read() == number
            if same:
                break
            await asyncio.sleep(0)
        else:
            found = await self._alone(lambda: {name: self._entry(name, self._counter.read() or 0) for name in names})
        entries = {name: entry for name, (entry, _) in found.items()}
        return entries, {name: (entry.lease, content) for name, (entry, content) in found.items()}

    def _entry(self, name: str, number: int) -> tuple[Entry, int]:
        """What stands under `name`, and a hash of the file. `number`: the counter as it is now."""
        key, raw = self._prefix + name, read_private(self._path(self._prefix + name)) or b""
        stands = KeyFile.from_bytes(raw)
        if stands is None or stands.key != key:
            return Entry(name, None, number, raw or None), hash(raw)
        self._seen = max(self._seen, stands.index)
        if stands.lease is not None and self._is_alive(stands.lease):
            return Entry(name, stands.lease, stands.index, stands.record), hash(raw)
        # A change writes its key before the counter, so the number may be one behind the key.
        return Entry(name, None, max(number, stands.index), None), hash(raw)

    def _read(self, key: str) -> KeyFile | None:
        path = self._path(key)
        raw = (read_private(path) or b"").lstrip(b"\0")
        if not raw:  # a file that a power cut left empty is not a word of anybody's
            return None
        stands = KeyFile.from_bytes(raw)
        if stands is None or stands.key != key:
            raise ForeignValue(f"what stands in {path} (the key {key}) is not ours: look at it, then delete it")
        return stands

    def _standing(self, grant: Grant) -> KeyFile | None:
        """The key of `grant` if it is still as granted. By the index, not by the lease alone: a late copy of a request
        of an earlier term of the same lease must find nothing."""
        if grant.lease.id not in self._mine or not self._mine[grant.lease.id].stands():
            return None
        try:
            stands = self._read(self._prefix + grant.name)
        except ForeignValue:
            return None  # somebody wrote over it, so it is not ours any more
        return stands if stands and (stands.lease, stands.index) == (grant.lease.id, grant.index) else None

    def _put(
        self,
        name: str,
        lease: str | None,
        record: bytes,
        *,
        was: KeyFile | None = None,
        announced: bool = False,
        durably: bool = False,
    ) -> KeyFile:
        key = self._prefix + name
        previous = was.record if was is not None else None
        index = max(self._number(), self._seen, was.index if was is not None else 0) + 1
        stands = KeyFile(key, lease, index, record, previous, announced)
        # First the key, then the counter: who finds a key absent beside a number knows that it was absent at it.
        write_private(self._path(key), stands.to_bytes(), by_way_of=self._directory / "new")
        self._counter.write(index, durably=durably)
        self._seen = index
        return stands

    def _number(self) -> int:
        """The counter. If it is lost: the largest number that any key has seen."""
        number = self._counter.read()
        if number is not None:
            return number
        keys = [KeyFile.from_bytes(read_private(path) or b"") for path in self._keys.iterdir()]
        return max((key.index for key in keys if key is not None), default=0)

    def _live(self, lease: Lease) -> None:
        lock = self._mine.get(lease.id)
        if lock is None or not lock.stands():
            self._end(lease.id)
            raise LeaseExpired(f"lease {lease.id} of {lease.holder} is gone: its file in {self._leases} was deleted")

    def _is_alive(self, lease_id: str) -> bool:
        lock = self._mine.get(lease_id)
        return lock.stands() if lock is not None else is_locked(self._leases / lease_id)

    def _end(self, lease_id: str) -> None:
        lock = self._mine.pop(lease_id, None)
        if lock is None:
            return
        try:
            if lock.stands():  # in a forked child it does not: the file is the parent's
                lock.path.unlink(missing_ok=True)
        finally:
            lock.release()

    def _sweep(self) -> None:
        """Delete what dead processes left, but for the last words about locks."""
        alive = {path.name for path in self._leases.iterdir() if self._is_alive(path.name)}
        for path in self._keys.iterdir():
            key = KeyFile.from_bytes(read_private(path) or b"")
            if key is not None and key.announced and key.lease not in alive:
                path.unlink(missing_ok=True)
        for path in self._leases.iterdir():
            if path.name not in alive:
                path.unlink(missing_ok=True)

    def _prepare(self) -> None:
        for folder in (self._directory, self._keys, self._leases):
            make_private_directory(folder)

    def _prepare_again(self) -> None:
        if not (self._keys.is_dir() and self._leases.is_dir()):  # deleted under us, with all that was held there
            self._prepare()

    def _watching(self) -> Watch:
        if self._watch is not None and self._watch.stale:
            self._watch.close()
            self._watch = None
        if self._watch is None:
            self._prepare_again()
            self._watch = watch_of((self._keys, self._leases))
        return self._watch

    def _path(self, key: str) -> Path:
        return self._keys / file_name(key)
