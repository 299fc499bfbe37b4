"""The lease as seen from here, and how its renewals went."""

from __future__ import annotations

from collections import Counter

from cluster_lock import clock
from cluster_lock.values import Timing

from .buckets import Buckets

RENEW_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class LeaseFacts:
    """`timing`: of the latest lease, None before the first. `deadline`: until when it is trusted, None: not at all.
    `trouble`: why it is not renewed, and `trouble_at`: when that was last so. `renewals`: by what came of them."""

    def __init__(self) -> None:
        self.timing: Timing | None = None
        self.deadline: float | None = None
        self.trouble: str | None = None
        self.trouble_at: str | None = None
        self.renewals: Counter[str] = Counter()
        self.renew_times = Buckets(RENEW_BOUNDS)

    def grant(self, timing: Timing, deadline: float) -> None:
        self.timing, self.deadline, self.trouble = timing, deadline, None

    def renew(self, deadline: float, took: float) -> bool:
        """True if it is news that it could be renewed."""
        self.deadline = deadline
        self.renewals["renewed"] += 1
        self.renew_times.add(took)
        news, self.trouble = self.trouble is not None, None
        return news

    def doubt(self, trouble: str) -> bool:
        """A renewal was not answered. True if that is news."""
        self.renewals["unsure"] += 1
        news = self.trouble is None
        self._say(trouble)
        return news

    def lose(self, trouble: str) -> None:
        self.deadline = None
        self.renewals["lost"] += 1
        self._say(trouble)

    def remaining(self) -> float:
        """Seconds until it is not trusted any more."""
        return max(0.0, self.deadline - clock.now()) if self.deadline is not None else 0.0

    def _say(self, trouble: str) -> None:
        self.trouble, self.trouble_at = trouble, clock.utc_text()
