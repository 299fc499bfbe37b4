"""Which updates were being handled when a process ended without a word: killed, out of memory, blocked past its lease.

An update whose handler ends the process comes again, to the next leader, and ends that one too. So each is noted before
its handler starts, in a file that is mapped into memory: the kernel keeps what is written there whatever becomes of the
process, and a note costs no system call. Each instance counts for itself. Whatever was in flight with the culprit is
innocent, so what was in two crashes is handled one at a time: then the third has one culprit, which is given up.
"""

from __future__ import annotations

import logging
import mmap
import os
import struct
from collections.abc import Iterable
from contextvars import ContextVar
from pathlib import Path

from cluster_lock.errors import ClusterLockError
from cluster_lock.host.private_files import make_private_directory, read_private, write_private
from cluster_lock.process.instance_lock import process_started

log = logging.getLogger("cluster_lock.aiogram")

SUSPECTED = 2
GIVEN_UP = 3
"""Crashes of one instance in which an update was being handled."""

HANDLED, DONE = 1, 2
_SLOT = struct.Struct("<qiiqq")
"""update_id, crashes, and whether it is being handled, or is not to be handled again: by a program in this process, of
which there are the number and since when it runs. Whether an exec succeeds nobody knows before."""
_SLOTS = 1024
"""More handlers at once than these are not noted."""


class CrashedTooOften(RuntimeError):
    """What `on_failed` is told of an update that is given up: its handler, if it was that, has not been started
    again."""


_handled: ContextVar[tuple[CrashNotes, int] | None] = ContextVar("cluster_lock_update", default=None)


class CrashNotes:
    """The notes of one bot in one instance, for one term. `path`: None, or one that cannot be used: nothing is noted.

    `crashes`: by update, in how many crashes it was being handled, of those that were not handled since. `done`: what a
    program had handled that put another one in its own place, as far as it had not told Telegram.
    """

    def __init__(self, path: Path | None) -> None:
        self.crashes: dict[int, int] = {}
        self.done: set[int] = set()
        self._left: set[int] = set()
        self._slots: dict[int, int] = {}
        self._free = list(range(0, _SLOTS * _SLOT.size, _SLOT.size))
        self._notes = _mapped(path) if path is not None else None
        self._process = (0, 0)
        if self._notes is not None:
            self._process = (os.getpid(), process_started(os.getpid()) or 0)
            self._read(self._notes)

    def begin(self, update_id: int) -> None:
        """Its handler starts, in this very context."""
        _handled.set((self, update_id))
        self._write(update_id, HANDLED)

    def current(self) -> int | None:
        """The update of ours whose handler, or what that has started, is running at this moment."""
        notes, update_id = _handled.get() or (None, 0)
        return update_id if notes is self else None

    def leave(self, update_ids: Iterable[int]) -> None:
        """Another program takes the place of this one, and these are not to be handled again by it."""
        done = set(update_ids)
        for update_id in self._left - done:  # the exec before has failed
            self._write(update_id, HANDLED)
        for update_id in done:
            self._write(update_id, DONE)
        self._left = done

    def end(self, update_id: int) -> None:
        """It has ended, well or badly, and the process lives."""
        self._left.discard(update_id)
        slot = self._slots.pop(update_id, None)
        if slot is not None and self._notes is not None:
            _SLOT.pack_into(self._notes, slot, 0, 0, 0, 0, 0)
            self._free.append(slot)
            self.crashes.pop(update_id, None)

    def close(self) -> None:
        """The term is over, and this process has survived it: nothing is suspected any more."""
        if self._notes is not None:
            self._notes[:] = bytes(len(self._notes))
            self._notes.close()
            self._notes = None

    def _write(self, update_id: int, state: int) -> None:
        if self._notes is None:
            return
        slot = self._slots.get(update_id)
        if slot is None and self._free:
            slot = self._slots[update_id] = self._free.pop()
        if slot is not None:
            _SLOT.pack_into(self._notes, slot, update_id, self.crashes.get(update_id, 0), state, *self._process)

    def _read(self, notes: mmap.mmap) -> None:
        for slot in tuple(self._free):
            update_id, crashes, state, *process = _SLOT.unpack_from(notes, slot)
            if update_id <= 0 or update_id in self._slots:
                continue
            self._slots[update_id] = slot
            self._free.remove(slot)
            if state == DONE and tuple(process) == self._process:
                self.done.add(update_id)
                continue
            self.crashes[update_id] = crashes + (state != 0)
            _SLOT.pack_into(notes, slot, update_id, self.crashes[update_id], 0, 0, 0)


def _mapped(path: Path) -> mmap.mmap | None:
    size = _SLOTS * _SLOT.size
    try:
        make_private_directory(path.parent)
        notes = read_private(path)
        if notes is None or len(notes) != size:
            # Written, and not a hole: to touch one on a full disk would be the end of the process (SIGBUS).
            write_private(path, bytes(size), by_way_of=path.with_suffix(".new"))
        with path.open("r+b") as file:
            return mmap.mmap(file.fileno(), size)
    except (OSError, ClusterLockError) as error:
        log.warning("updates that end the process are not recognised: %s", error)
        return None
