"""Locks of the kernel: held while their owner lives, gone the moment it is dead, whatever killed it.

`filelock` knows how each platform does it. What it leaves open, from version to version, is settled here: that the
locked file is the one that stands at its path, that a file system without flock is refused instead of silently served
by a lock that outlives its owner, and that a forked child drops its copy, because a flock lives until its last copy is
closed: a dead leader's pool of workers would go on holding its lock.
"""

from __future__ import annotations

import os
import sys
import weakref
from pathlib import Path

from filelock import FileLock, SoftFileLock, Timeout

from cluster_lock.errors import BackendRefused

_held: weakref.WeakSet[Flock] = weakref.WeakSet()


class Flock:
    """An exclusive lock on the file `path`. Two objects exclude each other in one process too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(str(path), timeout=0, mode=0o600, thread_local=False, is_singleton=False)
        self._identity: tuple[int, int] | None = None

    def acquire(self) -> bool:
        """Lock, if nobody else does. Never waits. Raises BackendRefused where the file system has no such locks."""
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            return False
        except NotImplementedError as error:  # filelock up to 3.15
            raise self._no_locks() from error
        if isinstance(self._lock, SoftFileLock):  # what filelock makes of itself since 3.16
            self._lock.release()
            raise self._no_locks()
        found = os.fstat(self.descriptor)
        self._identity = (found.st_dev, found.st_ino)
        _held.add(self)
        if not self.stands():
            # Deleted and made anew between filelock's open and its flock: this lock guards nothing.
            self.release()
            return False
        return True

    def release(self) -> None:
        """Unlock. Idempotent."""
        _held.discard(self)
        self._identity = None
        self._lock.release()

    @property
    def descriptor(self) -> int:
        descriptor = self._lock._context.lock_file_fd
        if descriptor is None:
            raise RuntimeError(f"{self.path} is not locked")
        return descriptor

    def stands(self) -> bool:
        """Is what we locked still the file at that path? Somebody may have deleted it, and made another one."""
        try:
            found = self.path.lstat()
        except FileNotFoundError:
            return False
        return (found.st_dev, found.st_ino) == self._identity

    def _no_locks(self) -> BackendRefused:
        return BackendRefused(f"{self.path}: this file system has no file locks; choose another directory")

    def _forget(self) -> None:
        """In a forked child: close our copy, without unlocking, which would unlock the parent's too."""
        descriptor, self._lock._context.lock_file_fd = self._lock._context.lock_file_fd, None
        identity, self._identity = self._identity, None
        if descriptor is None:  # filelock since 3.24 has done so itself
            return
        try:
            found = os.fstat(descriptor)
            if (found.st_dev, found.st_ino) == identity:
                os.close(descriptor)
        except OSError:
            return  # closed already, which is all that is wanted


def _after_fork() -> None:
    for lock in list(_held):
        lock._forget()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def is_locked(path: Path) -> bool:
    """Does anybody hold the lock on `path`? No if there is no such file."""
    if sys.platform == "win32":
        probe = Flock(path)
        if not path.exists():
            return False
        if not probe.acquire():
            return True
        probe.release()
        return False
    import fcntl

    # Read-only and shared, so that probes neither disturb each other nor, by closing a file that was open for writing,
    # wake everybody who waits for the end of a holder.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
