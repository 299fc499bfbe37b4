"""Who in this process holds a lock of the session, and who takes one."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from cluster_lock.values import EndReason, Entry


class Claim(Protocol):
    """A lock that is held."""

    def lose(self, reason: EndReason) -> None:
        """It cannot be proved to be held any more."""
        ...

    def moved(self, deadline: float) -> None:
        """The lease was renewed."""
        ...

    def heard(self, entry: Entry, asked: int = -1) -> None:
        """News about its key."""
        ...

    def asked(self, entry: Entry | None) -> None:
        """News about requests of people."""
        ...


class Claims:
    """By key. One lease may hold a lock only once, so its users in this process take turns
    (docs/design.md#one-turn-per-lock)."""

    def __init__(self) -> None:
        self.holds: dict[str, Claim] = {}
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._taking: set[str] = set()

    def turn(self, key: str) -> asyncio.Lock:
        """Whose turn it is to take this lock."""
        return self._turns[key]

    @contextmanager
    def taking(self, key: str) -> Iterator[None]:
        """The block takes this lock: what comes to stand under our lease there is asked for."""
        self._taking.add(key)
        try:
            yield
        finally:
            self._taking.discard(key)

    @property
    def in_use(self) -> set[str]:
        """What is held, or being taken at this moment."""
        return self._taking | self.holds.keys()
