"""Locks of the kernel: held while their owner lives, gone the moment it is dead, no matter how it died.

It is flock, or on Windows a locked byte, and nothing else. Where a file system has no locks, the lock is refused: a
file that merely exists outlives its owner. The system's answer is checked: after each lock, a second look at the file
must find it locked. A forked child drops its copy, because a flock lives until its last copy is closed: the pool of a
dead leader would go on holding its lock.
"""

from __future__ import annotations

import errno
import os
import sys
import weakref
from contextlib import suppress
from pathlib import Path

from cluster_lock.errors import BackendRefused

_held: weakref.WeakSet[Flock] = weakref.WeakSet()

_OPEN = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
_NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
"""What a file system answers that knows no locks."""


class Flock:
    """An exclusive lock on the file `path`. Two objects exclude each other in one process too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._identity: tuple[int, int] | None = None

    def acquire(self) -> bool:
        """Lock, if nobody else does. Never waits. Raises BackendRefused where locks do not exclude, OSError where the
        file cannot be opened."""
        _held.add(self)  # first, so that a fork at any moment finds what it has to close
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | _OPEN, 0o600)
        try:
            locked = _lock(self._descriptor) and self._holds()
        except OSError as error:
            self.release()
            if error.errno in _NO_LOCKS:
                raise self._no_locks("has no file locks") from error
            raise
        except BaseException:
            self.release()
            raise
        if not locked:
            self.release()
        return locked

    def release(self) -> None:
        """Unlock. Idempotent."""
        _held.discard(self)
        descriptor, self._descriptor, self._identity = self._descriptor, None, None
        if descriptor is None:
            return
        with suppress(OSError):  # what cannot be unlocked is so by the closing
            _unlock(descriptor)  # by itself, and first: waiters are told of the closing
        os.close(descriptor)

    @property
    def descriptor(self) -> int:
        if self._descriptor is None:
            raise RuntimeError(f"{self.path} is not locked")
        return self._descriptor

    def stands(self) -> bool:
        """Is what we locked still the file at that path? Somebody may have deleted it, and made another one."""
        try:
            found = self.path.lstat()
        except FileNotFoundError:
            return False
        return (found.st_dev, found.st_ino) == self._identity

    def _holds(self) -> bool:
        """The system says that the file is locked: is it the one at that path, and would anybody else notice?"""
        found = os.fstat(self.descriptor)
        self._identity = (found.st_dev, found.st_ino)
        # Deleted and made anew between the opening and the locking, a file guards nothing.
        if not self.stands():
            return False
        if not is_locked(self.path) and self.stands():
            raise self._no_locks("lets two lock one file")
        return self.stands()

    def _no_locks(self, what: str) -> BackendRefused:
        return BackendRefused(f"{self.path}: this file system {what}; choose another directory")

    def forget(self) -> None:
        """In a forked child: close our copy, without unlocking, which would unlock the parent's too."""
        descriptor, self._descriptor = self._descriptor, None
        identity, self._identity = self._identity, None
        if descriptor is None:
            return
        try:
            found = os.fstat(descriptor)
            # A program that closes all that is open, to become a daemon, may have opened something else there.
            if identity in (None, (found.st_dev, found.st_ino)):
                os.close(descriptor)
        except OSError:
            return  # closed already, which is all that is wanted


def _after_fork() -> None:
    for lock in list(_held):
        lock.forget()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> bool:
        os.lseek(descriptor, 0, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EDEADLK):
                return False
            raise
        return True

    def _unlock(descriptor: int) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

    def is_locked(path: Path) -> bool:
        """Does anybody hold the lock on `path`? No if there is no such file."""
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            if not _lock(descriptor):
                return True
            _unlock(descriptor)
        finally:
            os.close(descriptor)
        return False

else:
    import fcntl

    def _lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)

    def is_locked(path: Path) -> bool:
        """Does anybody hold the lock on `path`? No if there is no such file."""
        # Read-only and shared, so that probes neither disturb each other nor, by closing a file that was open for
        # writing, wake everybody who waits for the end of a holder.
        try:
            descriptor = os.open(path, os.O_RDONLY | _OPEN)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False
