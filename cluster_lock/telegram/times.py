"""The durations that are Telegram's and of the handlers of its updates."""

from __future__ import annotations

from dataclasses import dataclass

from cluster_lock.values import not_positive

LONGEST_POLL = 50
"""Seconds for which Telegram holds a getUpdates at most; it cuts what is longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TelegramTimes:
    """Durations in seconds. Raises ValueError that says everything that is wrong."""

    poll_timeout: float = 20.0
    """Seconds for which Telegram may hold a getUpdates while there is nothing; 50 at most."""
    handler_timeout: float | None = None
    """Seconds after which a handler is cancelled and its update confirmed; None: handlers run as long as they like."""
    telegram_grace: float = 60.0
    """Seconds for which Telegram may be out of reach from the leader before a standby gets its turn. A leader that
    steps down for that, or for conflicts, does not contend for as long."""

    def __post_init__(self) -> None:
        wrong = not_positive(self)
        if self.poll_timeout > LONGEST_POLL:
            wrong.append(
                f"poll_timeout ({self.poll_timeout:g} s) must be at most {LONGEST_POLL} s: Telegram cuts it there"
            )
        if wrong:
            raise ValueError("; ".join(wrong))
