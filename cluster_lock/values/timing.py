"""All durations, in seconds, checked against one another once."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from cluster_lock import clock

from .grants import Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """All durations, in seconds, checked against one another once. `handler_timeout` None: handlers run as long as
    they like."""

    ttl: float = 15.0
    margin: float = 3.0
    stop_time: float = 1.0
    settle: float = 0.25
    invite: float = 0.5
    drain: float = 7.0
    cancel_grace: float = 1.0
    handler_timeout: float | None = None
    poll_timeout: float = 20.0
    telegram_grace: float = 60.0
    stall_limit: float = 5.0

    def __post_init__(self) -> None:
        wrong = [
            f"{f.name} must be more than 0, not {value:g}"
            for f in fields(self)
            if (value := getattr(self, f.name)) is not None and value <= 0 and f.name != "settle"
        ]
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
        if self.poll_timeout > LONGEST_POLL:
            wrong.append(
                f"poll_timeout ({self.poll_timeout:g} s) must be at most {LONGEST_POLL} s: Telegram cuts it there"
            )
        if wrong:
            raise ValueError("; ".join(wrong))

    @property
    def renew_every(self) -> float:
        """Three times per ttl; more often if that would not leave the time for one that is not answered, and for
        another one."""
        return min(self.ttl / 3, (self.ttl - self.margin - self.stop_time) / 2)

    @property
    def request(self) -> float:
        """What one request to the backend may take."""
        return (self.ttl - self.margin) / 3

    def settle_left(self, origin: Origin, since: float) -> float:
        """Seconds that are left to wait before work begins under a lock that was got at `since`. One that was found
        free says nothing about the leader before: it may hear of its end (a key deleted, a session destroyed) later
        than we do, and needs a moment to stop."""
        return max(0.0, since + self.settle - clock.now()) if origin is Origin.FOUND_FREE else 0.0

    def promised(self, ttl: float) -> Timing:
        """The same, counted with the ttl that the server really granted. Raises ValueError if nothing is left of it."""
        return self if ttl == self.ttl else replace(self, ttl=ttl)


LONGEST_POLL = 50
"""Seconds for which Telegram holds a getUpdates at most; it cuts what is longer."""
GUARD_BEFORE = 0.2
"""The guard thread ends the process this long before the deadline; the kernel does it at the deadline."""
