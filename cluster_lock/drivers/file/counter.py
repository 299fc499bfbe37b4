"""The number that only grows: every change takes the next one, and a grant's is its fencing token.

It has a file of its own, so that it survives the release and the deletion of every lock, and is on the disk before a
grant is given out, so that it survives a power cut. Two lines are written in turn, each with its number twice: a line
that was torn, on the disk or under a reader's eyes, does not match itself, and the other one has the number before.
"""

from __future__ import annotations

import os
from pathlib import Path

from cluster_lock.errors import PermissionRefused
from cluster_lock.host.private_files import NOFOLLOW, read_private, sync_names, write_all

LARGEST_NUMBER = 2**53
"""What every reader of JSON counts to; no honest counter ever comes near."""

_DIGITS = 20
_LINE = 2 * _DIGITS + 2


class Counter:
    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> int | None:
        """The number as it stands; None if there is none, or none that can be trusted."""
        try:
            raw = read_private(self.path) or b""
        except (OSError, PermissionRefused):
            return None  # who wants to change something is told why, by `check_place`; who only looks goes on
        halves = [(line[:_DIGITS], line[_DIGITS + 1 : -1]) for line in (raw[:_LINE], raw[_LINE : 2 * _LINE])]
        numbers = [int(one) for one, other in halves if one == other and one.isdigit()]
        return max((number for number in numbers if number <= LARGEST_NUMBER), default=None)

    def write(self, number: int, *, durably: bool) -> None:
        """Put `number`. `durably`: return when a power cut could not take it back."""
        new = not self.path.exists()
        flags = os.O_WRONLY | os.O_CREAT | NOFOLLOW | getattr(os, "O_BINARY", 0)
        descriptor = os.open(self.path, flags, 0o600)
        try:
            if os.fstat(descriptor).st_size > 2 * _LINE:  # junk
                os.ftruncate(descriptor, 2 * _LINE)
            os.lseek(descriptor, _LINE * (number % 2), os.SEEK_SET)
            write_all(descriptor, f"{number:0{_DIGITS}} {number:0{_DIGITS}}\n".encode())
            if durably:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if new and durably:
            sync_names(self.path.parent)
