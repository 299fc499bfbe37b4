"""How often people's requests are heeded: each hand-over costs every user a moment, and may be asked for in a loop.

A standby of a lock hears the requests to its leader, and counts them as that leader does. So the heir knows too who has
just been served.
"""

from __future__ import annotations

from cluster_lock import clock

EVERY = 5.0
"""Seconds between two requests of one contender that are heeded, by lock."""
AT_ONCE = 3
"""So many contenders are heeded in that time."""
KEPT = 16


class RequestPace:
    """The requests about each lock that were heeded, here or by somebody else. Who asks is known by the lease."""

    def __init__(self) -> None:
        self._heeded: dict[str, dict[str, float]] = {}

    def heeded(self, name: str, lease: str) -> None:
        """A request about the lock `name` came from the owner of `lease`."""
        recent = self._recent(name)
        recent.pop(lease, None)
        recent[lease] = clock.now()
        while len(recent) > KEPT:
            del recent[next(iter(recent))]

    def wait(self, name: str, lease: str) -> float:
        """Seconds until a request of `lease` about the lock `name` may be heeded; 0 if now."""
        recent = self._recent(name)
        if lease in recent:
            return recent[lease] + EVERY - clock.now()
        return list(recent.values())[-AT_ONCE] + EVERY - clock.now() if len(recent) >= AT_ONCE else 0.0

    def _recent(self, name: str) -> dict[str, float]:
        """By lease, the oldest first."""
        now = clock.now()
        recent = {lease: at for lease, at in self._heeded.get(name, {}).items() if now < at + EVERY}
        self._heeded[name] = recent
        return recent
