"""A histogram that costs a few numbers, and no library where nobody scrapes."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate


class Buckets:
    """Counts values up to each of `bounds`, ascending, and above."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        return sum(self._counts)

    def cumulative(self) -> list[tuple[str, float]]:
        """As Prometheus wants it: the upper bound, and how many are not above it."""
        names = [*(f"{bound:g}" for bound in self._bounds), "+Inf"]
        return [(name, float(count)) for name, count in zip(names, accumulate(self._counts), strict=True)]
