"""The folder as a store: keys name their lease, and a lease lives while its file is locked. Nothing here waits."""

from __future__ import annotations

import errno
import json
import os
import secrets
from pathlib import Path

from cluster_lock import clock
from cluster_lock.errors import BackendRefused, BackendUnavailable, ForeignValue, LeaseExpired
from cluster_lock.host.flock import Flock, is_locked
from cluster_lock.host.inotify import LOOK_ANYWAY
from cluster_lock.host.private_files import (
    LARGEST,
    check_place,
    delete,
    make_private_directory,
    write_all,
    write_private,
)
from cluster_lock.values import Entry, Grant, Lease

from .counter import LARGEST_NUMBER, Counter
from .keyfile import LEASE_ID, Foreign, KeyFile, file_name, may_start_with, read_key, unquote

State = tuple[str | None, int]
"""What was seen under a key: its live lease, and a hash of the file."""

SETTLE = LOOK_ANYWAY + 0.25
"""Seconds in which no lock is given after the folder was replaced."""
_AHEAD = 1000
"""How far a key may be above the counter: by one for each change that wrote its key and died before the counter."""


class Store:
    """What changes something is called by one process at a time, under the lock `mutex`; reading needs none."""

    def __init__(self, directory: Path, prefix: str) -> None:
        self.keys = directory / "keys"
        self.leases = directory / "leases"
        self.mutex = directory / "mutex"
        self.counter = Counter(directory / "counter")
        self._directory = directory
        self._new = directory / "keys.new"
        self._prefix = prefix
        self._mine: dict[str, Flock] = {}
        self._pid = os.getpid()
        self._seen = 0
        self._identity: tuple[int, int] | None = None
        self._young_until = float("-inf")

    def prepare(self) -> None:
        """Make the folders, or find out why they will not do."""
        for folder in (self._directory, self.keys, self.leases):
            make_private_directory(folder)

        self._identity = self._look_at_folder()

    def prepare_again(self) -> None:
        """Is it the folder that it was? Deleted or renamed under us, with all that was held there, it is made anew; and
        in another one than that nothing is given for a while: see `is_young`."""
        identity = self._look_at_folder()
        if identity is None or identity != self._identity or not self.keys.is_dir():
            self.prepare()
            self._young_until = clock.now() + SETTLE

    def is_young(self) -> bool:
        """Was the folder replaced just now? A leader in the one before is told by the kernel, or looks once a
        second, and stops."""
        return clock.now() < self._young_until

    def _look_at_folder(self) -> tuple[int, int] | None:
        try:
            found = self.leases.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_dev, found.st_ino

    # Leases.

    def grant(self, holder: str, ttl: float) -> Lease:
        self._sweep()
        lease = Lease(id=secrets.token_hex(8), ttl=ttl, holder=holder)
        lock = Flock(self.leases / lease.id)
        if not lock.acquire():
            raise BackendUnavailable(f"{lock.path} was deleted while it was made")
        self._mine[lease.id] = lock
        about = {"holder": holder, "pid": os.getpid(), "since": clock.utc_text()}
        try:
            # By the descriptor that is locked: closing another one would tell all who wait that this holder died.
            write_all(lock.descriptor, json.dumps(about).encode() + b"\n")
        except OSError:
            self.end(lease.id)
            raise
        return lease

    def live(self, lease: Lease) -> None:
        """Raise LeaseExpired unless `lease` is ours and its file stands where we locked it."""
        lock = self._mine.get(lease.id)
        if lock is None or not lock.stands():
            self.end(lease.id)
            raise LeaseExpired(f"lease {lease.id} of {lease.holder} is gone: its file in {self.leases} was deleted")

    def is_alive(self, lease_id: str) -> bool:
        lock = self._mine.get(lease_id)
        if lock is not None:
            return lock.stands()
        try:
            return is_locked(self.leases / lease_id)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):  # a link, a socket: no file that anybody could have locked
                return False
            if error.errno == errno.EACCES:  # nobody can tell, so nobody takes it away
                return True
            raise

    def end(self, lease_id: str) -> None:
        """End our own lease."""
        lock = self._mine.pop(lease_id, None)
        if lock is None:
            return
        try:
            if lock.stands():  # in a forked child it does not: the file is the parent's
                delete(lock.path)
        finally:
            lock.release()

    def revoke(self, lease_id: str) -> None:
        """End any lease."""
        if lease_id in self._mine:
            self.end(lease_id)
        elif os.getpid() == self._pid:  # a forked child tidies up after its parent: it has nothing to say here
            (self.leases / lease_id).unlink(missing_ok=True)  # its owner hears of it at its next renewal

    def end_all(self) -> None:
        for lease_id in list(self._mine):
            self.end(lease_id)

    # Keys.

    def path(self, name: str) -> Path:
        return self.keys / file_name(self._prefix + name)

    def stamp(self) -> int | None:
        """Changes when a key is written, made or deleted; not when a stranger writes into its file."""
        try:
            return self.keys.stat().st_mtime_ns
        except FileNotFoundError:
            return None

    def look(self, name: str, number: int) -> KeyFile | Foreign | None:
        """What stands at the place of the key `name`, whatever it is. `number`: the counter as it is now."""
        path, key = self.path(name), self._prefix + name
        stands = read_key(path, key)
        if isinstance(stands, KeyFile):
            limit = max(number, self._seen) + _AHEAD
            if stands.index > limit and self.counter.read() is not None:  # else it is known from the keys alone
                why = f"is not ours (its index {stands.index} is far above the counter's {number})"
                return Foreign(f"what stands in {path} {why}: look at it, then delete it", stands.to_bytes())
            self._seen = max(self._seen, stands.index)
        return stands

    def read(self, name: str) -> KeyFile | None:
        """The key as it was written last. Raises ForeignValue if that was not by one of us."""
        stands = self.look(name, self.number())
        if isinstance(stands, Foreign):
            key = self._prefix + name
            raise ForeignValue(f"{stands.why} (it stands in the place of the key {key})")
        return stands

    def held(self, name: str, lease_id: str | None) -> KeyFile | None:
        """The key if it stands under this lease, and the lease is alive."""
        try:
            stands = self.read(name)
        except ForeignValue:
            return None  # whose it was before somebody wrote over it does not count
        if stands is None or lease_id is None or stands.lease != lease_id or not self.is_alive(lease_id):
            return None
        return stands

    def standing(self, grant: Grant) -> KeyFile | None:
        """The key of `grant` if it is still as granted. By the index, not by the lease alone: a late copy of a request
        of an earlier term of the same lease must find nothing."""
        stands = self.held(grant.name, grant.lease.id)
        return stands if stands is not None and stands.index == grant.index else None

    def entry(self, name: str, number: int) -> tuple[Entry, State]:
        """What stands under `name`. `number`: the counter as it is now."""
        stands = self.look(name, number)
        # Never below what was told before: a counter may be lost, and older news would be dropped.
        number = max(number, self._seen)
        if stands is None or isinstance(stands, Foreign):
            raw = stands.raw if stands is not None else None
            return Entry(name, None, number, raw), (None, hash(raw))
        seen = hash(stands)
        if stands.lease is not None and self.is_alive(stands.lease):
            return Entry(name, stands.lease, stands.index, stands.record), (stands.lease, seen)
        # A change writes its key before the counter, so the number may be one behind the key.
        return Entry(name, None, max(number, stands.index), None), (None, seen)

    def names(self, prefix: str) -> list[str]:
        """The names of all keys under `prefix`, held or not."""
        wanted = self._prefix + prefix
        files = [path for path in self.keys.iterdir() if may_start_with(path.name, wanted)]
        keys = [key.key for path in files if isinstance(key := read_key(path), KeyFile)]
        return [key.removeprefix(self._prefix) for key in keys if key.startswith(wanted)]

    def foreign(self, prefix: str) -> list[Entry]:
        """The files at the places of keys under `prefix` that none of us wrote. Named after the file, which says of a
        very long key only how it begins."""
        wanted, number = self._prefix + prefix, self.counter.read() or 0
        found = []
        for path in self.keys.iterdir():
            stands = read_key(path) if may_start_with(path.name, wanted) else None
            if isinstance(stands, KeyFile) and path.name == file_name(stands.key):
                stands = self.look(stands.key.removeprefix(self._prefix), number)
            elif isinstance(stands, KeyFile):
                stands = Foreign("", stands.to_bytes())
            if isinstance(stands, Foreign):
                found.append(Entry(unquote(path.stem).removeprefix(self._prefix), None, 0, stands.raw))
        return found

    def put(self, name: str, lease: str | None, record: bytes, *, was: KeyFile | None) -> KeyFile:
        """Write a lock's key. The one before it, `was`, leaves its record as `previous`. With a lease it is a grant:
        its index is on the disk when this returns."""
        index = self._next(was)
        stands = KeyFile(self._prefix + name, lease, index, record, was.record if was is not None else None)
        self._write(name, stands)
        return stands

    def announce(self, name: str, lease: str, record: bytes) -> None:
        stands = KeyFile(self._prefix + name, lease, self._next(None), record, announced=True)
        self._write(name, stands)

    def _next(self, was: KeyFile | None) -> int:
        index = max(self.number(), self._seen, was.index if was is not None else 0) + 1
        if index > LARGEST_NUMBER:
            raise BackendRefused(f"the counter of {self._directory} has come to its end: look into {self.counter.path}")
        return index

    def _write(self, name: str, stands: KeyFile) -> None:
        content = stands.to_bytes()
        if len(content) > LARGEST:
            raise BackendRefused(f"{name}: {len(content)} bytes are too many for a key of the file backend")
        # First the key, then the counter: who finds a key absent beside a number knows that it was absent at it.
        write_private(self.path(name), content, by_way_of=self._new, whole=not stands.announced)
        self.counter.write(stands.index, durably=stands.lease is not None and not stands.announced)
        self._seen = stands.index

    def number(self) -> int:
        """The counter. If it is lost: the largest number that any key has. Raises PermissionRefused if something stands
        in its place that cannot be written."""
        check_place(self.counter.path)
        number = self.counter.read()
        if number is not None:
            return number
        keys = [read_key(path) for path in self.keys.iterdir()]
        return max((key.index for key in keys if isinstance(key, KeyFile)), default=0)

    def _sweep(self) -> None:
        """Delete what dead processes left, but for the last words about locks."""
        alive = {path.name for path in self.leases.iterdir() if self.is_alive(path.name)}
        for path in self.keys.iterdir():
            key = read_key(path)
            if isinstance(key, KeyFile) and key.announced and key.lease not in alive:
                delete(path)
        for path in self.leases.iterdir():
            if path.name not in alive and LEASE_ID.fullmatch(path.name):
                delete(path)
