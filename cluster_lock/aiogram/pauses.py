"""Waits that grow while something goes on failing."""

from __future__ import annotations

import random

JITTER = 0.2


class Pause:
    """`first` seconds, then `factor` times as long each time, up to `longest`; each a little off, so that many clients
    that failed together do not come back together."""

    def __init__(self, first: float, longest: float, factor: float = 2.0, jitter: float = JITTER) -> None:
        self.first, self.longest, self.factor, self.jitter = first, longest, factor, jitter
        self._next = first

    def next(self) -> float:
        """Seconds to wait now; the next wait is longer."""
        pause = self._next
        self._next = min(self.longest, pause * self.factor)
        return min(self.longest, pause * random.uniform(1 - self.jitter, 1 + self.jitter))

    def reset(self) -> None:
        self._next = self.first
