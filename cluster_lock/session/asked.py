"""What a lock was asked for with: a record for each time that it was free, and how a late copy of one is known."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

REMEMBERED = 100
"""Requests of which a late copy may still arrive."""


class Asked:
    """`compose` makes a record as of now."""

    def __init__(self, compose: Callable[[], bytes]) -> None:
        self._compose = compose
        self._lease = ""
        self._open: bytes | None = None
        self._written: deque[bytes] = deque(maxlen=REMEMBERED)

    def record(self, lease_id: str) -> bytes:
        """The same until it is `over`. It has the moment when the lock was first asked for: then the term begins."""
        if lease_id != self._lease:
            self._lease, self._open = lease_id, None
            self._written.clear()
        if self._open is None:
            self._open = self._compose()
            self._written.append(self._open)
        return self._open

    def over(self) -> None:
        """It was given, or somebody else holds it: the next time is another one."""
        self._open = None

    def wrote(self, lease_id: str, record: bytes | None) -> bool:
        """Is it of a request under this lease?"""
        return lease_id == self._lease and record in self._written
