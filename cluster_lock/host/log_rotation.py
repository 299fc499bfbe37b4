"""The log of a process in the background, which begins anew before it fills the disk.

Keeper, worker and the bot's own prints write to one file that they have open, so it cannot be renamed under them: it is
copied and cut. Lines that are written between the two are lost.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

VARIABLE = "CLUSTER_LOCK_LOG_FILE"
"""Tells the processes that write to it which file may be cut. A file that the user chose, as by `2> file`, is left
alone."""
LARGEST = 10 * 1024 * 1024
LOOK_AFTER = 64 * 1024
"""Bytes. A process looks after each so many of its own."""


class Rotation:
    """For one file. `FILE.1` is what was in it before."""

    def __init__(self, path: Path, largest: int = LARGEST) -> None:
        self.path, self._largest = path, largest
        self._written = 0

    def wrote(self, count: int) -> None:
        """So many bytes were written. Now and then this begins the file anew."""
        self._written += count
        if self._written >= min(LOOK_AFTER, self._largest):
            self._written = 0
            self._look()

    def _look(self) -> None:
        before, way = self.path.with_name(f"{self.path.name}.1"), self.path.with_name(f"{self.path.name}.2")
        try:
            if self.path.stat().st_size < self._largest:
                return
            with self.path.open("rb+") as file:
                if not _alone(file.fileno()) or os.fstat(file.fileno()).st_size < self._largest:
                    return  # another process does it, or has just done it
                way.unlink(missing_ok=True)
                with open(os.open(way, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as copy:
                    shutil.copyfileobj(file, copy)
                    file.truncate(0)
                way.replace(before)
        except OSError:
            # A full disk has no room for a copy: the older half of the lines goes, so that there is room again.
            way.unlink(missing_ok=True)
            before.unlink(missing_ok=True)


def rotation_of(descriptor: int) -> Rotation | None:
    """For what this descriptor writes to; None if that is not to be cut."""
    named = os.environ.get(VARIABLE)
    if not named or sys.platform == "win32":
        return None
    try:
        same = os.path.samestat(os.fstat(descriptor), os.lstat(named))
    except OSError:
        return None
    return Rotation(Path(named)) if same else None


if sys.platform != "win32":
    import fcntl

    def _alone(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

else:

    def _alone(descriptor: int) -> bool:
        return False
