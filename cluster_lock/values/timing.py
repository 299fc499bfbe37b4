"""All durations, in seconds, checked against one another once."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from cluster_lock import clock

from .grants import Origin


def not_positive(durations: Any, *, but: str = "") -> list[str]:
    """What is wrong with the fields of a dataclass that must be more than 0: all that are not None, `but` one."""
    return [
        f"{f.name} must be more than 0, not {value:g}"
        for f in fields(durations)
        if f.name != but and (value := getattr(durations, f.name)) is not None and value <= 0
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """All durations of a lease and of the work under it, in seconds, checked against one another once. Raises
    ValueError, with all that is wrong, if they contradict each other."""

    ttl: float = 15.0
    """Seconds for which the backend keeps a lock for a holder that is silent."""
    margin: float = 3.0
    """Seconds before the end of the ttl at which a holder that could not renew has stopped. Less than `ttl`."""
    stop_time: float = 1.0
    """Seconds that the work gets to stop once it is cancelled, a part of `margin`; more than 0.2 s, and at most a third
    of `ttl - margin`."""
    settle: float = 0.25
    """Seconds to wait before work begins under a lock that was found free; 0: none."""
    invite: float = 0.5
    """Seconds that an invited contender may take to answer before the next one is asked."""
    drain: float = 7.0
    """Seconds that what is under way gets to finish at a step-down."""
    cancel_grace: float = 1.0
    """Seconds that cancelled work gets after that, before the process is ended."""
    stall_limit: float = 5.0
    """Seconds for which the event loop of a worker may give no sign of life."""

    def __post_init__(self) -> None:
        wrong = not_positive(self, but="settle")
        if self.settle < 0:
            wrong.append(f"settle must not be negative, but is {self.settle:g}")
        if self.margin >= self.ttl:
            wrong.append(
                f"margin ({self.margin:g} s) must be less than ttl ({self.ttl:g} s): no lease would be trusted"
            )
        elif self.stop_time > self.request:
            wrong.append(
                f"stop_time ({self.stop_time:g} s) must not exceed a third of ttl - margin ({self.request:g} s):"
                " one renewal that is not answered would end every term"
            )
        if self.stop_time <= GUARD_BEFORE:
            wrong.append(
                f"stop_time ({self.stop_time:g} s) must be more than {GUARD_BEFORE:g} s:"
                " the guard fires that long before the deadline"
            )
        if self.stop_time > self.margin:
            wrong.append(f"stop_time ({self.stop_time:g} s) must not exceed margin ({self.margin:g} s)")
        if wrong:
            raise ValueError("; ".join(wrong))

    @property
    def renew_every(self) -> float:
        """Seconds from one renewal to the next: a third of the ttl, or less, so that there is time for one that is not
        answered, and for another one."""
        return min(self.ttl / 3, (self.ttl - self.margin - self.stop_time) / 2)

    @property
    def request(self) -> float:
        """Seconds that one request to the backend may take."""
        return (self.ttl - self.margin) / 3

    def settle_left(self, origin: Origin, since: float) -> float:
        """Seconds that are left to wait before work begins under a lock that was granted at the moment `since`
        (`clock.now()`). A lock that was found free says nothing about the leader before: it may hear of its end (a key
        deleted, a session destroyed) later than we do, and needs a moment to stop."""
        return max(0.0, since + self.settle - clock.now()) if origin.settles else 0.0

    def promised(self, ttl: float) -> Timing:
        """The same, counted with the ttl that the server really granted. Raises ValueError if nothing is left of it."""
        return self if ttl == self.ttl else replace(self, ttl=ttl)


GUARD_BEFORE = 0.2
"""The guard thread ends the process this long before the deadline; the kernel does it at the deadline."""
