"""Who waits for files to change. Linux tells; elsewhere one has to look again and again."""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

POLL_EVERY = 0.1
"""Seconds between two looks where nobody tells."""
LOOK_ANYWAY = 1.0
"""Seconds after which one looks although nobody told: the kernel's queue may have run over, a mount may be silent."""

_IN_CLOSE_WRITE, _IN_MOVED_FROM, _IN_MOVED_TO, _IN_DELETE = 0x8, 0x40, 0x80, 0x200
_IN_DELETE_SELF, _IN_MOVE_SELF, _IN_ONLYDIR = 0x400, 0x800, 0x1000000
_IN_UNMOUNT, _IN_DONT_FOLLOW = 0x2000, 0x2000000
_GONE = _IN_DELETE_SELF | _IN_MOVE_SELF | _IN_UNMOUNT
_WANTED = _IN_CLOSE_WRITE | _IN_MOVED_FROM | _IN_MOVED_TO | _IN_DELETE | _IN_DELETE_SELF | _IN_MOVE_SELF | _IN_ONLYDIR
_HEAD = struct.Struct("iIII")


class Bell:
    """Rings for a waiter when one of the files changed that it listens for; for any file, until it has said which."""

    def __init__(self, look_every: float) -> None:
        self.rung: set[str] = set()
        self._look_every = look_every
        self._names: frozenset[str] | None = None
        self._event = asyncio.Event()

    def listen_for(self, names: frozenset[str]) -> None:
        """Forget what rang for other files. What rang for these before, rings."""
        self._names = names
        self.rung &= names | {""}
        if not self.rung:
            self._event.clear()

    def ring(self, name: str) -> None:
        """`name` empty: something happened, nobody knows to what."""
        if not name or self._names is None or name in self._names:
            self.rung.add(name)
            self._event.set()

    async def wait(self, at_most: float) -> set[str]:
        """The files that changed since the last answer; perhaps none: look all the same."""
        try:
            async with asyncio.timeout(max(0.0, min(at_most, self._look_every))):
                await self._event.wait()
        except TimeoutError:
            pass
        self._event.clear()
        rung, self.rung = self.rung, set()
        return rung


class FileWatch(Protocol):
    stale: bool
    """A watched folder is gone: make another watch."""

    def bell(self) -> Bell: ...
    def drop(self, bell: Bell) -> None: ...
    def close(self) -> None: ...


class Polling:
    """For systems that do not tell of changes."""

    stale = False

    def bell(self) -> Bell:
        return Bell(POLL_EVERY)

    def drop(self, bell: Bell) -> None:
        pass

    def close(self) -> None:
        pass


class Inotify:
    """One inotify instance for all waiters of a driver, read by the event loop that it was made on. Of `root`, in which
    the directories are, and of all above it, it hears whether it is renamed or deleted: another may take its place.

    Raises OSError if the kernel grants no instance (a user has 128 by default).
    """

    def __init__(self, directories: Sequence[Path], root: Path) -> None:
        self._bells: set[Bell] = set()
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        for directory in directories:
            if libc.inotify_add_watch(self._descriptor, os.fsencode(directory), _WANTED) < 0:
                error = ctypes.get_errno()
                os.close(self._descriptor)
                raise OSError(error, os.strerror(error), str(directory))
        for folder in _way_to(root):  # one that we may not read is left out: `LOOK_ANYWAY` finds out too
            libc.inotify_add_watch(
                self._descriptor, os.fsencode(folder), _IN_DELETE_SELF | _IN_MOVE_SELF | _IN_DONT_FOLLOW
            )
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._descriptor, self._readable)
        self.stale = False

    def bell(self) -> Bell:
        bell = Bell(LOOK_ANYWAY)
        self._bells.add(bell)
        return bell

    def drop(self, bell: Bell) -> None:
        self._bells.discard(bell)

    def close(self) -> None:
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _readable(self) -> None:
        try:
            raw = os.read(self._descriptor, 65536)
        except BlockingIOError:
            return
        for name, mask in _events(raw):
            self.stale = self.stale or bool(mask & _GONE)
            for bell in self._bells:
                bell.ring(name)


def _way_to(path: Path) -> Iterable[Path]:
    """As it is written, and as its links lead."""
    return dict.fromkeys(each for one in (path.absolute(), path.resolve()) for each in (one, *one.parents))


def _events(raw: bytes) -> Iterator[tuple[str, int]]:
    at = 0
    while at < len(raw):
        _, mask, _, length = _HEAD.unpack_from(raw, at)
        at += _HEAD.size
        yield os.fsdecode(raw[at : at + length].rstrip(b"\0")), mask
        at += length


def watch_of(directories: Sequence[Path], root: Path) -> FileWatch:
    """The best watch that this system gives, on `directories`, which are in `root`."""
    if sys.platform != "linux":
        return Polling()
    try:
        return Inotify(directories, root)
    except OSError:
        return Polling()  # the user's instances are used up: slower, and just as right


@contextmanager
def listening(watch: FileWatch) -> Iterator[Bell]:
    bell = watch.bell()
    try:
        yield bell
    finally:
        watch.drop(bell)
