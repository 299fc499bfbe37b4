"""What was delivered and waits for its turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from heapq import merge
from itertools import count

from .job import QueuedUpdate
from .lines import Lines


class Queues:
    """Urgent updates, then those that wait for nothing but room, in order; behind them those that wait for another one
    of their line."""

    def __init__(self) -> None:
        self.urgent: deque[QueuedUpdate] = deque()
        self.ready: deque[QueuedUpdate] = deque()
        self._put_off: list[QueuedUpdate] = []
        """What was to start and could not, for the lease."""
        self._lines = Lines()
        self._numbers = count()

    @property
    def waiting(self) -> int:
        """Updates whose handlers have not started."""
        return len(self.urgent) + len(self.ready) + len(self._put_off) + self._lines.waiting

    @property
    def is_empty(self) -> bool:
        """Nothing waits. (What waits in a line waits for a handler that runs.)"""
        return not (self.ready or self.urgent or self._put_off)

    def enter(self, jobs: Iterable[QueuedUpdate]) -> None:
        for job in jobs:
            job.number = next(self._numbers)
            if job.line is None or self._lines.enter(job):
                (self.urgent if job.urgent else self.ready).append(job)

    def take(self, most: int) -> list[QueuedUpdate]:
        """Those that start now: in the order of their delivery if there is room for all, else what is urgent first."""
        urgent, ready = self.urgent, self.ready
        number = len(urgent) + len(ready)
        if urgent and ready and number <= most:
            taken = list(merge(urgent, ready, key=lambda job: job.number))
            urgent.clear()
            ready.clear()
            return taken
        return [(urgent or ready).popleft() for _ in range(min(most, number))]

    def leave(self, job: QueuedUpdate) -> None:
        """It has ended, or nothing waits for it any more: the next of its line is ready."""
        self.ready.extend(self._lines.leave(job))

    def put_off(self, job: QueuedUpdate) -> None:
        """It could not start after all."""
        self._put_off.append(job)

    def restore(self) -> None:
        """What was put off comes first again."""
        self.ready.extendleft(reversed(self._put_off))
        self._put_off.clear()

    def clear(self) -> None:
        for waiting in (self.urgent, self.ready, self._put_off):
            waiting.clear()
