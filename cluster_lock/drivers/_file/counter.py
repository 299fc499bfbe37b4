"""The number that only grows: every change takes the next one, and a grant's is its fencing token.

It has a file of its own, so that it survives the release and the deletion of every lock, and is on the disk before a
grant is given out, so that it survives a power cut. Two lines are written in turn, each with its number twice: a line
that was torn, on the disk or under a reader's eyes, does not match itself, and the other one has the number before.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .private import read_private

_DIGITS = 20
_LINE = 2 * _DIGITS + 2


class Counter:
    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> int | None:
        """The number as it stands; None if there is none, or none that can be trusted."""
        raw = read_private(self._path) or b""
        halves = [(line[:_DIGITS], line[_DIGITS + 1 : -1]) for line in (raw[:_LINE], raw[_LINE : 2 * _LINE])]
        return max((int(one) for one, other in halves if one == other and one.isdigit()), default=None)

    def write(self, number: int, *, durably: bool) -> None:
        """Put `number`. `durably`: return when a power cut could not take it back."""
        new = not self._path.exists()
        flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        descriptor = os.open(self._path, flags, 0o600)
        try:
            os.lseek(descriptor, _LINE * (number % 2), os.SEEK_SET)
            os.write(descriptor, f"{number:0{_DIGITS}} {number:0{_DIGITS}}\n".encode())
            if durably:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if new and durably:
            _sync_name(self._path)


def _sync_name(path: Path) -> None:
    if sys.platform == "win32":  # has no such thing for a folder
        return
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
